//! A client with one keep-alive connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any wait that is asked for; only a hang is longer.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A client that connects when it has something to send, and again once it was hung up on.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Time after which to come back, if it says so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// A client of the server at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// GET, waiting up to so many seconds for a decision.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn get(&mut self, path: &str, wait: Option<u64>) -> io::Result<Reply> {
        self.call(Method::GET, path, wait, Bytes::new()).await
    }

    /// POST, waiting up to so many seconds for a decision.
    ///
    /// # Errors
    /// When there is no answer; what was asked may have been done.
    pub async fn post(&mut self, path: &str, wait: Option<u64>, body: &Value) -> io::Result<Reply> {
        self.call(Method::POST, path, wait, body.to_string().into()).await
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        wait: Option<u64>,
        body: Bytes,
    ) -> io::Result<Reply> {
        let mut request = Request::builder().method(method).uri(path).header("host", "flux");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(seconds) = wait {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        self.send(request.body(Full::new(body)).map_err(io::Error::other)?).await
    }

    /// Sends a request that is complete, with its `host` and `content-type`. One
    /// that is dropped on the way may have been done; then [`hang_up`](Self::hang_up).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> io::Result<Reply> {
        let answered = timeout(ANSWER_MAX, self.exchange(request)).await;
        let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if answered.is_err() {
            self.sender = None;
        }
        answered
    }

    /// Closes the connection; the next request makes another.
    pub fn hang_up(&mut self) {
        self.sender = None;
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> io::Result<Reply> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            // It ends with the sender; what ends it early is told there.
            tokio::spawn(async move { connection.await.ok() });
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().expect("it was just connected");
        sender.ready().await.map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Reply { status, retry_after: retry_after.map(Duration::from_secs), body })
    }
}
