//! One server process: started on a port of the system's choice, killed when
//! it is dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use ureq::Agent;

/// Far more than a start or a stop takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The operator's token of servers that are told of no other. Calls that need it bring it
/// unless they say who they are.
pub(crate) const OPERATOR: &str = "the-operators-token-of-the-tests";

/// A server to be started.
pub(crate) struct Setup {
    args: Vec<String>,
    env: Vec<(String, String)>,
    operator: Option<&'static str>,
    listen: Option<String>,
    /// What the shell sets before it becomes the server.
    limits: Option<String>,
    home: Arc<TempDir>,
}

impl Setup {
    /// No arguments but where to listen, no environment but the operator's
    /// token, an empty directory.
    pub(crate) fn new() -> Self {
        let home = Arc::new(tempfile::tempdir().expect("a directory for the server"));
        let listen = Some("127.0.0.1:0".to_owned());
        Self {
            args: Vec::new(),
            env: Vec::new(),
            operator: Some(OPERATOR),
            listen,
            limits: None,
            home,
        }
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        if name == "FLUX_OPERATOR_TOKEN" { self.without_operator() } else { self }
    }

    /// Leaves the operator's token to the environment, a file or the server,
    /// and calls without one.
    pub(crate) fn without_operator(mut self) -> Self {
        self.operator = None;
        self
    }

    /// Leaves `--listen` to the environment or a file.
    pub(crate) fn without_listen(mut self) -> Self {
        self.listen = None;
        self
    }

    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// It may have so many files open.
    pub(crate) fn files_max(mut self, files: u32) -> Self {
        self.limits = Some(format!("ulimit -n {files}"));
        self
    }

    /// A file in the server's working directory.
    pub(crate) fn file(self, name: &str, contents: &str) -> Self {
        std::fs::write(self.home.path().join(name), contents).expect("a file for the server");
        self
    }

    /// Lets no file grow beyond so many blocks of 512 or 1,024 bytes, as the
    /// shell counts them: more is an error, as on a disk that is full.
    #[allow(dead_code, reason = "not every test program fills a disk")]
    pub(crate) fn file_blocks_max(mut self, blocks: u32) -> Self {
        self.limits = Some(format!(r#"trap "" XFSZ; ulimit -f {blocks}"#));
        self
    }

    fn spawn(&self) -> Child {
        self.spawn_with(Stdio::piped(), Stdio::piped())
    }

    /// Starts it with these outputs.
    pub(crate) fn spawn_with(&self, stdout: Stdio, stderr: Stdio) -> Child {
        let program = env!("CARGO_BIN_EXE_flux-server");
        let mut command = match &self.limits {
            None => Command::new(program),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!(r#"{limits}; exec "$0" "$@""#), program]);
                shell
            }
        };
        if let Some(address) = &self.listen {
            command.args(["--listen", address]);
        }
        command
            .args(&self.args)
            .env_clear()
            .envs(aws(self.home.path()))
            .envs(self.operator.map(|token| ("FLUX_OPERATOR_TOKEN", token)))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        command.spawn().expect("the binary starts")
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> Server {
        self.start_with(|log, stderr| drop(log.follow(stderr, None))).0
    }

    /// The same, but nobody reads its log.
    #[allow(dead_code, reason = "not every test program leaves a log unread")]
    pub(crate) fn start_unread(self) -> (Server, ChildStderr) {
        self.start_with(|_, stderr| stderr)
    }

    fn start_with<T>(self, read: impl FnOnce(&Log, ChildStderr) -> T) -> (Server, T) {
        let mut child = self.spawn();
        let log = Log::default();
        let (told, hears) = mpsc::channel();
        log.follow(child.stdout.take().expect("piped"), Some(told));
        let reading = read(&log, child.stderr.take().expect("piped"));
        let Ok(address) = hears.recv_timeout(PATIENCE) else {
            child.kill().expect("it is ours");
            panic!("the server did not say where it listens:\n{}", log.text());
        };
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {address:?}"));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let server = Server { child, port, log, agent, operator: self.operator, home: self.home };
        (server, reading)
    }

    /// Runs it to its end, as where the configuration is wrong, and returns
    /// how it ended and what it said.
    pub(crate) fn run_to_end(self) -> (ExitStatus, String) {
        let mut child = self.spawn();
        let log = Log::default();
        let out = log.follow(child.stdout.take().expect("piped"), None);
        let err = log.follow(child.stderr.take().expect("piped"), None);
        let status = end_of(&mut child, &log);
        out.join().expect("read");
        err.join().expect("read");
        (status, log.text())
    }
}

/// With `FLUX_TEST_BACKEND=aws`, and the feature `aws`, servers run on the services that
/// `tests/services` starts, each home with a queue and a table of its own.
fn aws(home: &Path) -> Vec<(String, String)> {
    let variable = |name: &str| std::env::var(name).map(|value| (name.to_owned(), value));
    if variable("FLUX_TEST_BACKEND").is_ok_and(|(_, backend)| backend == "aws") {
        let own = home.file_name().expect("a directory has a name").to_string_lossy();
        let own = format!("flux-{}", own.replace('.', ""));
        let names = [
            "AWS_ENDPOINT_URL_DYNAMODB",
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS",
            "AWS_ENDPOINT_URL_SQS",
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "REDIS_URL",
        ];
        let service = |name| {
            variable(name).unwrap_or_else(|_| {
                panic!("{name} is not set; start the services: tests/services cargo nextest run …")
            })
        };
        let mut set: Vec<_> = names.into_iter().map(service).collect();
        set.extend(
            [
                ("SQS_QUEUE_URL", own.clone()),
                ("DYNAMODB_TABLE", own),
                ("FLUX_CREATE", "true".into()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        // As many partitions as a test run asks for; else as many as there are by default.
        set.extend(std::env::var("FLUX_TEST_PARTITIONS").map(|n| ("FLUX_PARTITIONS".into(), n)));
        return set;
    }
    Vec::new()
}

fn end_of(child: &mut Child, log: &Log) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("it is ours");
            panic!("the server did not end:\n{}", log.text());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `look` finds something, for at most `longest`.
#[track_caller]
pub(crate) fn until<T>(what: &str, longest: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {longest:?} still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// All the server said, on either stream.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn follow(
        &self,
        stream: impl Read + Send + 'static,
        address: Option<mpsc::Sender<String>>,
    ) -> thread::JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(told) = &address
                    && let Some(at) = line.strip_prefix("listening on http://")
                {
                    // An error means that the test is over.
                    let _ = told.send(at.to_owned());
                }
                let mut text = log.0.lock().expect("no panic while held");
                text.push_str(&line);
                text.push('\n');
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic while held").clone()
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    port: u16,
    log: Log,
    home: Arc<TempDir>,
    pub(super) operator: Option<&'static str>,
    pub(super) agent: Agent,
}

impl Server {
    /// One with these arguments and nothing else out of the ordinary.
    pub(crate) fn start(args: &[&str]) -> Self {
        Setup::new().args(args).start()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// The log, once it has this.
    #[track_caller]
    pub(crate) fn logged(&self, what: &str) -> String {
        until(what, PATIENCE, || Some(self.log()).filter(|log| log.contains(what)))
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The machine dies under it. What starts with the result finds what was
    /// on the disk.
    pub(crate) fn crash(mut self) -> Setup {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
        Setup { home: Arc::clone(&self.home), operator: self.operator, ..Setup::new() }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, `TERM` or `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success(), "signal {name}");
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        end_of(&mut self.child, &self.log)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server said:\n{}", self.log.text());
        }
    }
}
