//! A running server, as the commands that ask one have it: one call over HTTP, with the
//! operator's token.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::setup::config::Config;
use crate::setup::operator_token;

/// The server that is asked unless `--url` says otherwise.
const URL: &str = "http://127.0.0.1:5000";
/// Most bytes of an answer that says what is wrong.
const PROBLEM_MAX: usize = 64 * 1024;
/// Most bytes of an answer that is read whole.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The body of an answer, and its connection, which ends with it.
pub(super) struct Answer {
    pub(super) body: Incoming,
    connection: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Asks the server, and fails with what it says if that is not 200.
pub(super) async fn ask(config: &Config, method: Method, path: &str) -> Result<Answer> {
    send(config, method, path, None).await
}

async fn send(
    config: &Config,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer> {
    let url = config.url.clone().unwrap_or_else(|| Uri::from_static(URL));
    let authority = authority(&url, path)?;
    let token = operator_token::known(config)?;
    let asking = || format!("can't reach {authority}; is the server running, and is it --url?");
    let socket = TcpStream::connect(&authority).await.with_context(asking)?;
    let (mut sender, connection) = handshake(TokioIo::new(socket)).await.with_context(asking)?;
    let connection = tokio::spawn(connection).abort_handle();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &authority)
        .header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    let request = match body {
        Some(_) => request.header(CONTENT_TYPE, "application/json"),
        None => request,
    };
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let request = request.body(Full::<Bytes>::from(body))?;
    let answer = sender.send_request(request).await.with_context(asking)?;
    let (status, body) = (answer.status(), answer.into_body());
    let mut answer = Answer { body, connection };
    if status != StatusCode::OK {
        let said = Limited::new(&mut answer.body, PROBLEM_MAX).collect().await;
        let said = said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned());
        bail!("the server answers {status}: {}", said.unwrap_or_default());
    }
    Ok(answer)
}

/// Asks for JSON, with a body of JSON if one is given.
pub(super) async fn ask_for<T: DeserializeOwned>(
    config: &Config,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<T> {
    let mut answer = send(config, method, path, body).await?;
    let read = Limited::new(&mut answer.body, ANSWER_MAX).collect().await;
    let read = read.map_err(anyhow::Error::from_boxed).context("the answer broke off")?;
    serde_json::from_slice(&read.to_bytes()).context("the answer can't be read")
}

/// Host and port of the server.
fn authority(url: &Uri, path: &str) -> Result<String> {
    ensure!(
        url.scheme_str() == Some("http") && matches!(url.path(), "" | "/"),
        "--url: must be like {URL}; through TLS use curl with {path}"
    );
    let authority = url.authority().context("--url: must name a host")?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}
