//! A Redis of a test's own, to be killed and started again.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, variable};

/// Killed when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_in(dir, |_, port| vec!["--port".into(), port.to_string()]).await
    }

    /// Starts a server in the folder; `options` are made from it and the port.
    pub(crate) async fn start_in(
        dir: TempDir,
        options: impl Fn(&Path, u16) -> Vec<String>,
    ) -> Self {
        let mut server = Self { port: 0, dir, options: Vec::new(), child: None };
        for _ in 0..5 {
            server.port = free_port();
            server.options = options(server.dir.path(), server.port);
            // Somebody else may have taken the port in between.
            if server.try_resume().await {
                return server;
            }
        }
        panic!("no port stays free");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("it was ours to kill");
        }
    }

    /// Starts it again, empty, on the same port.
    pub(crate) async fn resume(&mut self) {
        assert!(self.try_resume().await, "Redis does not start again on its port");
    }

    /// Tries to start it; `false` if it ended instead of listening.
    async fn try_resume(&mut self) -> bool {
        let child = Command::new(variable("FLUX_TEST_REDIS_SERVER"))
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "local"])
            .args(&self.options)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = self.child.insert(child.expect("FLUX_TEST_REDIS_SERVER is a program"));
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            assert!(Instant::now() < end, "Redis does not listen");
            sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Asks the server itself, by a connection of the test's own.
    pub(crate) async fn ask(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection =
            client.get_multiplexed_async_connection().await.expect("the server is there");
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]).query_async(&mut connection).await.expect("an answer")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on, for the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}
