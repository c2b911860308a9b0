//! A proxy between a process and SQS or DynamoDB, which does to calls what a
//! network and a cloud do.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stage::fleet::loopback;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// A call of one of AWS's JSON protocols.
pub(crate) struct Call {
    headers: HeaderMap,
    path: String,
    /// Such as `SendMessageBatch`.
    pub(crate) operation: String,
    pub(crate) body: Bytes,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A refusal by this code, as DynamoDB writes it.
    pub(crate) fn refusal(code: &str) -> Self {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        let body = json!({ "__type": kind, "message": "told to" }).to_string().into();
        Self { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("answers are JSON")
    }

    pub(crate) fn set_json(&mut self, json: &Value) {
        self.body = json.to_string().into();
        self.headers.remove("x-amz-crc32");
    }
}

/// Decides what becomes of calls.
#[async_trait]
pub(crate) trait Meddler: Send + Sync + 'static {
    /// The answer; without one the connection is closed.
    async fn meddle(&self, call: Call, server: &mut Server) -> Option<Answer>;
}

/// The service itself, over a connection of its own.
pub(crate) struct Server {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Server {
    /// Makes the call. `None` if the service hung up.
    pub(crate) async fn make(&mut self, call: &Call) -> Option<Answer> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(&self.address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
            let (sender, connection) = handshake.await.ok()?;
            tokio::spawn(async move { connection.await.ok() });
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut()?;
        let mut request = Request::post(&call.path).body(Full::new(call.body.clone())).ok()?;
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().remove(header::CONTENT_LENGTH);
        sender.ready().await.ok()?;
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let mut headers = parts.headers;
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
            headers.remove(name);
        }
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: parts.status, headers, body })
    }
}

/// Listens until it is dropped.
pub(crate) struct Proxy {
    url: String,
    _listening: JoinSet<()>,
}

impl Proxy {
    /// Stands before the service at `url`.
    pub(crate) async fn before(url: &str, meddler: Arc<impl Meddler>) -> Self {
        let upstream = loopback(url).expect("a stand-in").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("a connection");
                        stream.set_nodelay(true).expect("an option");
                        connections.spawn(serve(stream, upstream.clone(), Arc::clone(&meddler)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { url, _listening: listening }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

async fn serve(stream: TcpStream, address: String, meddler: Arc<impl Meddler>) {
    let server = Mutex::new(Server { address, sender: None });
    let answering = service_fn(async |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default();
        let call = Call {
            operation: operation.to_owned(),
            path: parts.uri.path().to_owned(),
            body: body.collect().await.map_err(io::Error::other)?.to_bytes(),
            headers: parts.headers,
        };
        // One connection has one call at a time.
        let mut server = server.lock().await;
        let answer = meddler.meddle(call, &mut server).await;
        let answer = answer.ok_or(io::ErrorKind::ConnectionAborted)?;
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        io::Result::Ok(response)
    });
    // However it ends, the process connects again.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answering)
        .await;
}
