//! What handlers give back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::events::EventStream;
use crate::wire::Answering;

/// A body that is there, or one that comes by and by.
pub(crate) type Body = Either<Full<Bytes>, Stream>;

/// Why a stream broke off.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A response.
pub(crate) type Answer = Response<Body>;

/// A body from bytes.
pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// Bytes of a type.
pub(crate) fn bytes(content_type: &'static str, content: impl Into<Bytes>) -> Answer {
    of_type(content_type, body(content))
}

/// A body of a type.
pub(crate) fn of_type(content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Server-Sent Events.
pub(crate) fn events(events: EventStream, place: OwnedSemaphorePermit) -> Answer {
    let body = Either::Right(Stream::new(events, place));
    let mut answer = of_type("text/event-stream", body);
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx gathers what it passes on, unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // An order fits without growing.
    let mut content = Vec::with_capacity(512);
    serde_json::to_writer(&mut content, value).expect("answers are made of strings and numbers");
    let mut answer = bytes("application/json", content);
    *answer.status_mut() = status;
    answer
}

/// A body that comes by and by, and its place among the streams.
pub(crate) struct Stream {
    parts: UnsyncBoxBody<Bytes, Failure>,
    _place: OwnedSemaphorePermit,
    answering: Option<Answering>,
}

impl Stream {
    /// Streams `parts`.
    pub(crate) fn new<B>(parts: B, place: OwnedSemaphorePermit) -> Self
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Failure>> + Send + 'static,
    {
        Self { parts: parts.map_err(Into::into).boxed_unsync(), _place: place, answering: None }
    }

    /// Keeps the connection busy as long as this body goes on.
    pub(crate) fn keep(&mut self, answering: Answering) {
        self.answering = Some(answering);
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.parts).poll_frame(context)
    }
}

/// Runs what must be finished even if the caller hangs up.
///
/// # Panics
/// When `work` does.
pub(crate) async fn finish<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
