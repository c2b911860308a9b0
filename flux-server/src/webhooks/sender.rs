//! One attempt at one message.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::connector::Connector;
use crate::setup::webhook::{SigningKeys, WebhookUrl};

/// Time for an attempt, from the look-up of the name to the head of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of an answer's head.
const HEAD_MAX: usize = 16 * 1024;
/// Bytes of an answer's body that are read, to use the connection again.
const BODY_MAX: usize = 16 * 1024;
/// Time for them.
const BODY_WITHIN: Duration = Duration::from_secs(1);
/// Time for which a connection is kept that has nothing to do.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Bytes of an error's text.
const SAID_MAX: usize = 200;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("flux-server/", env!("CARGO_PKG_VERSION")));

/// The reason that a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// It, for a person.
    pub(super) said: String,
    /// Whether the receiver answered at all.
    pub(super) answered: bool,
    /// The time after which the receiver wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    fn silent(error: &dyn Error) -> Self {
        let mut said = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // A string takes all text.
            let _ = write!(said, ": {cause}");
            source = cause.source();
        }
        said.truncate(said.floor_char_boundary(SAID_MAX));
        Self { said, answered: false, retry_after: None }
    }
}

/// Sends messages to one receiver. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client<Connector, Full<Bytes>>,
    url: WebhookUrl,
    keys: Arc<SigningKeys>,
}

impl Sender {
    /// One that keeps up to `idle_max` connections that have nothing to do.
    pub(super) fn new(
        url: WebhookUrl,
        keys: Arc<SigningKeys>,
        connector: Connector,
        idle_max: usize,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_max)
            .http1_max_buf_size(HEAD_MAX)
            .build(connector);
        Self { client, url, keys }
    }

    /// Sends a message and waits for the answer, 15 seconds at most. What is not 2xx is a
    /// failure, redirects among it. Dropping the future gives the attempt up, which may have
    /// been taken.
    pub(super) async fn send(&self, id: &str, body: Bytes) -> Result<(), Failure> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.keys.sign(id, seconds, &body);
        let value = |text: String| HeaderValue::try_from(text).expect("it is visible ASCII");
        let request = Request::post(self.url.uri().clone())
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, AGENT)
            .header(ID, value(id.to_owned()))
            .header(TIMESTAMP, seconds)
            .header(SIGNATURE, value(signature))
            .body(Full::new(body))
            .expect("its parts are sound");
        let answer = match timeout(ANSWER_WITHIN, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failure::silent(&error)),
            Err(_) => {
                let said = format!("no answer within {} seconds", ANSWER_WITHIN.as_secs());
                return Err(Failure { said, answered: false, retry_after: None });
            }
        };
        let (head, body) = answer.into_parts();
        // Whatever stands there, the head has said it. What is longer costs the connection.
        let _ = timeout(BODY_WITHIN, Limited::new(body, BODY_MAX).collect()).await;
        if head.status.is_success() {
            return Ok(());
        }
        let said = format!("answered {}", head.status);
        Err(Failure { said, answered: true, retry_after: retry_after(&head.headers) })
    }
}

/// The seconds of `Retry-After`; a date there is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
