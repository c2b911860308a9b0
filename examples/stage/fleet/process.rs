//! One process of the fleet: started on a port of the system's choice, killed
//! when it is dropped.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::Services;

/// Far more than a start takes; only a hang is longer.
const START_MAX: Duration = Duration::from_secs(60);

/// A running `flux-server`.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it, and blocks until it listens. It is told nothing but
    /// `services` and works in `home`, so that no `.env` of the caller's is
    /// read.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start(
        program: &Path,
        name: &str,
        args: &[&str],
        services: &Services,
        home: &Path,
    ) -> io::Result<Self> {
        let mut command = command(program, args, services, home);
        let command = command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let log = Arc::default();
        let (told, hears) = mpsc::channel();
        follow(child.stdout.take().expect("it is piped"), &log, Some(told));
        follow(child.stderr.take().expect("it is piped"), &log, None);
        let address = hears.recv_timeout(START_MAX).ok().and_then(|at: String| at.parse().ok());
        let mut process =
            Self { name: name.to_owned(), child, address: ([127, 0, 0, 1], 0).into(), log };
        let Some(address) = address else {
            let said = process.log();
            return Err(io::Error::other(format!("{name} did not start to listen:\n{said}")));
        };
        process.address = address;
        Ok(process)
    }

    /// Runs a command such as `audit` to its end. Blocks.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(
        program: &Path,
        args: &[&str],
        services: &Services,
        home: &Path,
    ) -> io::Result<Output> {
        command(program, args, services, home).stdin(Stdio::null()).output()
    }

    /// Its name here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it said.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// Those of the system.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Those of the system.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
        if thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.log());
        }
    }
}

fn command(program: &Path, args: &[&str], services: &Services, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(services.vars()).current_dir(home);
    command
}

fn follow(
    stream: impl Read + Send + 'static,
    log: &Arc<Mutex<String>>,
    address: Option<mpsc::Sender<String>>,
) {
    let log = Arc::clone(log);
    // It ends with the process.
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if let Some(told) = &address
                && let Some(at) = line.strip_prefix("listening on http://")
            {
                // An error means that it took too long.
                let _ = told.send(at.to_owned());
            }
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    });
}
