//! Redis wiped, killed and started again, and never there.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::sale::{SMALL, Sale, Size, until};

const ANSWER_MAX: Duration = Duration::from_secs(10);
const SIZE: Size = Size { stock: 600, buyers: 800, in_flight: 16, visibility: 2, partitions: None };

/// A Redis of the test's own, killed when dropped.
struct Redis {
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn start(&mut self) {
        let program = std::env::var("FLUX_TEST_REDIS_SERVER")
            .unwrap_or_else(|_| panic!("start the services: tests/services cargo nextest run …"));
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(self.port.to_string())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = self.child.insert(child.expect("it starts"));
        let port = self.port;
        until("Redis listens", || {
            assert!(child.try_wait().expect("ours").is_none(), "Redis ended: is port {port} free?");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
    }

    async fn wipe(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("Redis listens");
        stream.write_all(b"FLUSHALL\r\n").await.expect("it is there");
        let mut said = [0; 5];
        let answered = timeout(ANSWER_MAX, stream.read_exact(&mut said)).await;
        answered.expect("an answer in time").expect("an answer");
        assert_eq!(&said, b"+OK\r\n");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("it is ours");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not started: nobody listens on its port.
async fn absent() -> Redis {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    Redis { port, dir: tempfile::tempdir().expect("a folder"), child: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_killed_and_started_again() {
    let mut redis = absent().await;
    redis.start().await;
    let url = redis.url();
    let sale = Sale::open_with(SIZE, |services| services.with("REDIS_URL", &url)).await;
    let services = sale.services.clone().with("REDIS_URL", &url);
    let _workers = ["one", "the other"].map(|name| sale.worker(name, &services));
    let storm = sale.storm();
    sale.until_held(100).await;
    redis.wipe().await;
    sale.until_held(200).await;
    redis.kill();
    sale.until_held(300).await;
    redis.start().await;
    let held = sale.told.held();
    assert!(held < SIZE.stock, "all was sold before Redis was back");
    sale.finish(storm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_from_the_start() {
    let redis = absent().await;
    let url = redis.url();
    let sale = Sale::open_with(SMALL, |services| services.with("REDIS_URL", &url)).await;
    let services = sale.services.clone().with("REDIS_URL", &url);
    let _workers = ["one", "the other"].map(|name| sale.worker(name, &services));
    let storm = sale.storm();
    sale.finish(storm).await;
}
