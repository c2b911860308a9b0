//! One server process, whose log goes to a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that is to be started.
pub(crate) struct Setup {
    command: Command,
    home: TempDir,
}

impl Setup {
    /// On a free port, with an empty environment, in an empty directory.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory for the server");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flux-server"));
        let log = File::create(home.path().join("log")).expect("a file for the log");
        command.args(["--listen", "127.0.0.1:0"]).env_clear().current_dir(home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        Self { command, home }
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// As systemd does it: the log is the journal.
    pub(crate) fn under_systemd(self) -> Self {
        let log = std::fs::metadata(self.home.path().join("log")).expect("the log is there");
        self.env("JOURNAL_STREAM", &format!("{}:{}", log.dev(), log.ino()))
    }

    /// Starts it and waits until it listens, or has ended.
    pub(crate) fn start(mut self) -> Server {
        let mut child = self.command.spawn().expect("the binary starts");
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut said).expect("it can be read");
        let url = said.trim().trim_start_matches("listening on ").to_owned();
        Server { child, url, log: self.home.path().join("log"), _home: self.home }
    }
}

pub(crate) struct Server {
    child: Child,
    url: String,
    log: PathBuf,
    _home: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
}

impl Server {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send("POST", path, headers, Some(body))
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut request =
            http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let mut answer = agent.run(request.body(body).expect("a request")).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        Answer { status: answer.status().as_u16(), text }
    }

    /// Places an order for a unit and waits for the decision.
    pub(crate) fn order(&self, buyer: &str, item: &str) -> Answer {
        let body = serde_json::json!({"buyer_id": buyer, "item_id": item});
        self.post("/v1/orders", &[("prefer", "wait=10")], &body)
    }

    /// Sends what is not HTTP, and hangs up.
    pub(crate) fn break_off(&self, bytes: &str) {
        let address = self.url.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).expect("it accepts");
        socket.write_all(bytes.as_bytes()).expect("it reads");
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log is there")
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the server ends", || self.child.try_wait().expect("it is ours"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
    }
}
