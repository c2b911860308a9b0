//! Connections on sockets in memory, on tokio's paused clock.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::http::response;

const PATIENCE: Patience =
    Patience { head: Duration::from_secs(10), idle: Duration::from_secs(60), late: Late::Head };

/// Answers with the path that was asked for; whoever is ready to answer has a token.
#[derive(Clone)]
struct Echo {
    _token: Arc<()>,
}

impl Handler for Echo {
    async fn answer(self, _: Peer, request: Request<Incoming>) -> Answer {
        response::bytes("text/plain", request.uri().path().to_owned())
    }

    fn turning_away(self) -> Self {
        self
    }

    fn open(&self) -> impl Sized + Send {}
}

struct Client {
    socket: DuplexStream,
    serving: JoinHandle<()>,
    token: Arc<()>,
    shutdown: Arc<Shutdown>,
}

impl Client {
    fn connect() -> Self {
        let (socket, ours) = duplex(16 * 1024);
        let (token, shutdown) = (Arc::default(), Arc::<Shutdown>::default());
        let peer = Arc::new(Peers::new(Vec::new())).of(IpAddr::from([127, 0, 0, 1]));
        let handler = Echo { _token: Arc::clone(&token) };
        let served = connection(handler, PATIENCE, Arc::clone(&shutdown), ours, peer);
        Self { socket, serving: tokio::spawn(served), token, shutdown }
    }

    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("it is connected");
    }

    /// Reads up to the end of the answer that has this path.
    async fn hear(&mut self, path: &str) {
        let mut heard = String::new();
        while !heard.ends_with(&format!("\r\n\r\n{path}")) {
            let byte = self.socket.read_u8().await.unwrap_or_else(|_| panic!("an end: {heard}"));
            heard.push(char::from(byte));
        }
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    }

    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        self.hear(path).await;
    }

    /// Whether it has what the next request takes, or is idle without.
    fn is_ready(&self) -> bool {
        Arc::strong_count(&self.token) > 2
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_keeps_no_buffers_and_answers_what_comes_next() {
    let mut client = Client::connect();
    client.ask("/one").await;
    assert!(client.is_ready());
    seconds(3).await;
    assert!(!client.is_ready(), "it rests");
    client.send("GET /t").await;
    seconds(3).await;
    assert!(client.is_ready(), "a request has begun");
    client.send("wo HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.hear("/two").await;
    seconds(3).await;
    assert!(!client.is_ready());
    // More than is taken before there is room, and two at once.
    let long = format!("/{}", "x".repeat(3 * 1024));
    let host = "HTTP/1.1\r\nHost: t\r\n\r\n";
    client.send(&format!("GET {long} {host}GET /four {host}")).await;
    client.hear(&long).await;
    client.hear("/four").await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_after_a_request_ends_no_connection() {
    let mut client = Client::connect();
    client.send("\r\n").await;
    client.ask("/one").await;
    client.send("\r\n").await;
    seconds(5).await;
    client.ask("/two").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_ends_when_it_is_idle_for_too_long() {
    let mut client = Client::connect();
    client.ask("/one").await;
    seconds(55).await;
    assert!(!client.serving.is_finished() && !client.is_ready());
    seconds(6).await;
    assert!(client.serving.is_finished());
    assert_eq!(client.socket.read(&mut [0]).await.expect("its end"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_ends_with_the_server() {
    let mut client = Client::connect();
    client.ask("/one").await;
    seconds(3).await;
    client.shutdown.start_closing();
    assert_eq!(client.socket.read(&mut [0]).await.expect("its end"), 0);
    // A second, in which it may go on sending.
    seconds(2).await;
    assert!(client.serving.is_finished());
}
