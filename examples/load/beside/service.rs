//! A service of our own: a process that is ended with us, and its scratch directories.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Far more than a start takes; only a hang is longer.
const START_MAX: Duration = Duration::from_secs(60);

/// A running process. It gets its signal when it is dropped, and from the system when we are
/// killed.
pub(super) struct Service {
    child: Child,
    name: &'static str,
    signal: &'static str,
    log: PathBuf,
}

impl Service {
    /// Starts `program` as `user`, with a log in `dir`; `signal` ends it.
    pub(super) fn start(
        program: &Path,
        args: &[String],
        user: Option<&'static str>,
        name: &'static str,
        signal: &'static str,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join("log");
        let file = File::create(&log)?;
        let child = as_user(program, user, &["--pdeathsig", signal])
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} can't be started"))?;
        Ok(Self { child, name, signal, log })
    }

    /// Connects as soon as it lets us.
    pub(super) async fn answers<T, E: std::error::Error>(
        &mut self,
        connect: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T> {
        let until = Instant::now() + START_MAX;
        loop {
            match connect().await {
                Ok(connected) => return Ok(connected),
                Err(error) if self.child.try_wait()?.is_some() || Instant::now() > until => {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    bail!("{} does not start: {error}\n{log}", self.name);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Only the shell is sure to have a `kill` that knows other signals than KILL.
        let pid = self.child.id().to_string();
        let _ = Command::new("sh").args(["-c", "kill -s $0 $1", self.signal, &pid]).status();
        let _ = self.child.wait();
    }
}

/// A command that runs as another user, if one is named.
pub(super) fn as_user(program: &Path, user: Option<&str>, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.args(options).arg("--").arg(program);
    command
}

/// Finds a program in PATH or in one of `others`, or says how to install it.
pub(super) fn find(program: &str, others: &[PathBuf], package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = others.iter().cloned().chain(std::env::split_paths(&path));
    match places.map(|place| place.join(program)).find(|found| found.is_file()) {
        Some(found) => Ok(found),
        None => bail!("{program} is missing: apt-get install {package}"),
    }
}

/// Makes a directory of the service's own, which is removed when it is dropped.
pub(super) fn scratch(within: &Path, name: &str, user: Option<&str>) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).permissions(Permissions::from_mode(0o700));
    let dir = builder.tempdir_in(within)?;
    if let Some(user) = user {
        let (uid, gid) = ids_of(user)?;
        chown(dir.path(), Some(uid), Some(gid))?;
    }
    Ok(dir)
}

/// Whether we are root, as whom some services refuse to run.
pub(super) fn are_we_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

fn ids_of(user: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = users.find(|fields| fields[0] == user);
    let Some([_, _, uid, gid, ..]) = found.as_deref() else { bail!("there is no user {user}") };
    Ok((uid.parse()?, gid.parse()?))
}
