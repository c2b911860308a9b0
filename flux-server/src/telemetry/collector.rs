//! The way to the collector of spans: one plain HTTP request for each batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{info, warn};

/// Time within which a collector must answer, or the batch may be sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 64 * 1024;

/// Sends from the exporter's own thread, on the runtime it was made in.
#[derive(Debug)]
pub(super) struct Collector {
    runtime: Handle,
    away: AtomicBool,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self { runtime: Handle::current(), away: AtomicBool::new(false) }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = self.runtime.spawn(async { timeout(ANSWER_WITHIN, send(request)).await });
        let answered = match sending.await {
            Ok(Ok(answered)) => answered,
            Ok(Err(late)) => Err(late.into()),
            Err(stopped) => Err(stopped.into()),
        };
        // Said once, not with every batch.
        let away = !answered.as_ref().is_ok_and(|answer| answer.status().is_success());
        match (self.away.swap(away, Ordering::Relaxed), &answered) {
            (false, Ok(answer)) if away => {
                warn!(status = %answer.status(), "the collector does not take the spans");
            }
            (false, Err(error)) => warn!(%error, "the collector of spans does not answer"),
            (true, Ok(_)) if !away => info!("the collector takes the spans again"),
            _ => {}
        }
        answered
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let uri = std::mem::take(&mut parts.uri);
    let authority = uri.authority().ok_or("the collector's URL names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    parts.uri = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;

    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let exchange = async move {
        let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    // The exchange tells what matters of the connection's end.
    let (answered, _) = tokio::join!(exchange, connection);
    answered
}
