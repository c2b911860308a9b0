//! A seller in a process of its own, to be killed. The process is the running
//! program once more, told by an environment variable to sell; every answer a
//! buyer gets goes down its standard output, a line each.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use flux_core::Flux;
use serde::{Deserialize, Serialize};

use crate::crowd::{Heard, storm};
use crate::sale::Sale;

const JOB: &str = "FLUX_STAGE_JOB";

/// A sale and where its books are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The embedded backend's directory.
    pub dir: PathBuf,
    /// The sale.
    pub sale: Sale,
}

/// The moment to kill a seller: so long after so many decisions were heard, or after
/// the start if that is none.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Decisions heard of.
    pub decisions: u32,
    /// Time after that.
    pub then: Duration,
}

/// The remains of a seller.
#[derive(Debug)]
pub struct Death {
    /// Its process id.
    pub pid: u32,
    /// Whether it was killed; it may have been done before.
    pub killed: bool,
    /// Answers that reached a buyer before.
    pub answers: u64,
}

impl Job {
    /// The job this process was started for, if it was. To be asked first of
    /// all in a program that calls [`sell_until`](Self::sell_until).
    ///
    /// # Panics
    /// When the variable holds something else.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let job = std::env::var(JOB).ok()?;
        Some(serde_json::from_str(&job).expect("the parent wrote a job"))
    }

    /// Sells, and tells every answer on standard output.
    ///
    /// # Errors
    /// Whatever keeps it from opening the store.
    pub async fn sell(self) -> io::Result<()> {
        let flux = Flux::open(&self.dir).await.map_err(io::Error::other)?;
        self.sale.put_items(&flux).await.map_err(io::Error::other)?;
        let everyone = (0..self.sale.buyers).collect();
        let tally = storm(&flux, &self.sale, everyone, |heard| {
            let line = serde_json::to_string(&heard).expect("an answer can be written as JSON");
            // A line is one write, and no answer counts until it is written. A
            // parent that is gone hears no more; there is nobody to tell.
            let _ = writeln!(io::stdout().lock(), "{line}");
        })
        .await;
        flux.shutdown().await;
        match tally.notes.into_iter().next() {
            Some(note) => Err(io::Error::other(note)),
            None => Ok(()),
        }
    }

    /// Has a process of its own sell, and kills it (SIGKILL on Unix) at that
    /// moment; `hear` is called with every answer that reached a buyer before.
    /// Blocks until the process is dead.
    ///
    /// # Errors
    /// When the process can't be started, fails by itself, or tells nonsense.
    ///
    /// # Panics
    /// When `hear` does.
    pub fn sell_until(&self, moment: Moment, hear: impl Fn(Heard) + Send) -> io::Result<Death> {
        let mut seller = Command::new(std::env::current_exe()?)
            .env(JOB, serde_json::to_string(self)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(seller.stdout.take().expect("standard output is piped"));
        let (come, came) = mpsc::sync_channel(1);
        let (status, answers) = thread::scope(|scope| {
            let listener = scope.spawn(move || listen(lines, moment.decisions, come, hear));
            // No message means that the seller was done before.
            if came.recv().is_ok() {
                thread::sleep(moment.then);
            }
            seller.kill()?;
            let status = seller.wait()?;
            let answers = listener.join().expect("whoever hears does not panic")?;
            io::Result::Ok((status, answers))
        })?;
        let killed = status.code().is_none();
        if !killed && !status.success() {
            return Err(io::Error::other(format!("the seller failed by itself: {status}")));
        }
        Ok(Death { pid: seller.id(), killed, answers })
    }
}

/// Hears every answer, to the end, and says when there were so many decisions.
fn listen(
    lines: impl BufRead,
    decisions: u32,
    come: mpsc::SyncSender<()>,
    hear: impl Fn(Heard),
) -> io::Result<u64> {
    let mut come = Some(come);
    let mut lines = lines.lines();
    let (mut answers, mut decided) = (0, 0);
    loop {
        if decided >= decisions
            && let Some(come) = come.take()
        {
            // The other end waits for this or for us to end.
            let _ = come.send(());
        }
        let Some(line) = lines.next().transpose()? else { return Ok(answers) };
        let heard = match serde_json::from_str::<Heard>(&line) {
            Ok(heard) => heard,
            // Cut off by the death.
            Err(_) if lines.next().is_none() => return Ok(answers),
            Err(error) => return Err(error.into()),
        };
        answers += 1;
        decided += u32::from(heard.order.is_some());
        hear(heard);
    }
}
