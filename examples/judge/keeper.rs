//! Keeps the server running, but for killing and freezing it now and then.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stage::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::options::Options;
use super::teller::Site;

/// Far more than a start takes; only a hang is longer.
const START_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// One thing that was done to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    Killed,
    Frozen,
    /// It ended by itself.
    Fell,
}

/// Blows, each with the time at which the server was away for it.
pub(super) type Blows = Vec<(Blow, Range<Duration>)>;

/// The blows so far.
#[derive(Debug, Clone)]
pub(super) struct Outages {
    blows: Arc<Mutex<Blows>>,
    recovery: Duration,
}

impl Outages {
    /// None so far; after each the server may need so long until it works as before.
    pub(super) fn with_recovery(recovery: Duration) -> Self {
        Self { blows: Arc::default(), recovery }
    }

    fn begin(&self, blow: Blow, at: Duration) {
        self.lock().push((blow, at..Duration::MAX));
    }

    fn end(&self, at: Duration) {
        if let Some((_, last)) = self.lock().last_mut() {
            last.end = at;
        }
    }

    pub(super) fn list(&self) -> Blows {
        self.lock().clone()
    }

    /// The times in which it need not work as usual: the blows, and a recovery after each.
    pub(super) fn times(&self) -> Vec<Range<Duration>> {
        let time = |blow: &Range<Duration>| blow.start..blow.end.saturating_add(self.recovery);
        self.lock().iter().map(|(_, blow)| time(blow)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Blows> {
        // No change in here panics half-way.
        self.blows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that this one started; killed with it.
#[derive(Debug)]
struct Started {
    command: String,
    log: PathBuf,
    child: Child,
}

impl Started {
    fn start(command: &str, log: &Path) -> Result<Self> {
        let said = OpenOptions::new().create(true).append(true).open(log);
        let said = said.with_context(|| format!("{} can't be written", log.display()))?;
        // The shell reads the words, and the process takes its place.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null());
        let child = shell.stdout(said.try_clone()?).stderr(said).spawn()?;
        Ok(Self { command: command.to_owned(), log: log.to_owned(), child })
    }

    fn again(&mut self) -> Result<()> {
        *self = Self::start(&self.command, &self.log)?;
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// The processes that may be killed, and when.
#[derive(Debug)]
pub(super) struct Keeper {
    site: Site,
    began: Instant,
    started: Vec<Started>,
    pids: Vec<u32>,
    pid_files: Vec<PathBuf>,
    every: Duration,
    freeze: u32,
    chance: StdRng,
    outages: Outages,
}

impl Keeper {
    /// Starts what is to be started, and waits until the server is ready.
    pub(super) async fn start(
        options: &Options,
        site: &Site,
        began: Instant,
        outages: &Outages,
        seed: u64,
    ) -> Result<Self> {
        fs::create_dir_all(&options.logs)?;
        let mut keeper = Self {
            site: site.clone(),
            began,
            started: Vec::new(),
            pids: options.kill.clone(),
            pid_files: options.pid_file.clone(),
            every: Duration::from_secs(options.kill_every),
            freeze: options.freeze,
            chance: StdRng::seed_from_u64(seed),
            outages: outages.clone(),
        };
        for (n, command) in options.spawn.iter().enumerate() {
            let log = options.logs.join(format!("server-{}.log", n + 1));
            keeper.started.push(Started::start(command, &log)?);
            // The first makes what the others need.
            keeper.wait_until_ready().await?;
        }
        keeper.wait_until_ready().await?;
        Ok(keeper)
    }

    /// Kills, freezes and starts until it is told to stop, and leaves all running.
    pub(super) async fn keep(mut self, mut stop: watch::Receiver<bool>) -> Result<Self> {
        loop {
            let next = Instant::now() + self.every.mul_f64(self.chance.random_range(0.8..1.2));
            while Instant::now() < next {
                let is_stopped = timeout(POLL, stop.wait_for(|stop| *stop)).await.is_ok();
                if is_stopped {
                    return Ok(self);
                }
                self.pick_up().await?;
            }
            self.strike().await?;
        }
    }

    /// Starts what ended by itself.
    async fn pick_up(&mut self) -> Result<()> {
        for at in 0..self.started.len() {
            if self.started[at].child.try_wait()?.is_some() {
                self.outages.begin(Blow::Fell, self.began.elapsed());
                self.started[at].again()?;
                self.is_back().await?;
            }
        }
        Ok(())
    }

    async fn strike(&mut self) -> Result<()> {
        let targets = self.started.len() + self.pids.len() + self.pid_files.len();
        if targets == 0 {
            return Ok(());
        }
        let target = self.chance.random_range(0..targets);
        if let Some(started) = self.started.get(target) {
            let pid = started.child.id();
            if self.chance.random_ratio(self.freeze, 100) {
                return self.freeze(pid).await;
            }
            self.outages.begin(Blow::Killed, self.began.elapsed());
            self.started[target].kill()?;
            if self.chance.random_bool(0.5) {
                sleep(Duration::from_millis(self.chance.random_range(0..2_000))).await;
            }
            self.started[target].again()?;
            return self.is_back().await;
        }
        let target = target - self.started.len();
        let pid = match self.pids.get(target) {
            Some(_) => self.pids.remove(target),
            None => {
                let file = &self.pid_files[target - self.pids.len()];
                let pid = fs::read_to_string(file).ok().and_then(|pid| pid.trim().parse().ok());
                // It may be between two lives.
                let Some(pid) = pid else { return Ok(()) };
                pid
            }
        };
        if self.chance.random_ratio(self.freeze, 100) {
            return self.freeze(pid).await;
        }
        self.outages.begin(Blow::Killed, self.began.elapsed());
        signal("KILL", pid)?;
        self.is_back().await
    }

    async fn freeze(&mut self, pid: u32) -> Result<()> {
        self.outages.begin(Blow::Frozen, self.began.elapsed());
        signal("STOP", pid)?;
        sleep(Duration::from_millis(self.chance.random_range(500..6_000))).await;
        signal("CONT", pid)?;
        self.is_back().await
    }

    async fn is_back(&mut self) -> Result<()> {
        self.wait_until_ready().await?;
        self.outages.end(self.began.elapsed());
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + START_MAX;
        let mut client = Client::new(self.site.address);
        while !self.site.is_ready(&mut client).await {
            for started in &mut self.started {
                if let Some(status) = started.child.try_wait()? {
                    let (command, log) = (&started.command, started.log.display());
                    bail!("`{command}` ended with {status}: see {log}");
                }
            }
            ensure!(Instant::now() < end, "the server is not ready after {START_MAX:?}");
            sleep(POLL).await;
        }
        Ok(())
    }
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status()?;
    ensure!(sent.success(), "SIG{name} could not be sent to process {pid}");
    Ok(())
}
