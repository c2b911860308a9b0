//! A response body of Server-Sent Events, whatever they tell of.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http_body_util::Either;
use hyper::body::{Body, Frame};

use crate::http::response::{self, Answer};

/// The events of one stream.
pub(crate) trait Events: Send + Sized + 'static {
    /// Waits for the next; `None` when the stream ends.
    fn event(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

type Next<E> = Pin<Box<dyn Future<Output = (E, Option<Bytes>)> + Send>>;

/// A response body of events without an end of its own.
pub(crate) struct EventStream<E> {
    next: Option<Next<E>>,
}

impl<E: Events> EventStream<E> {
    pub(super) fn of(events: E) -> Self {
        Self { next: Some(Box::pin(next(events))) }
    }

    /// The answer that streams these events; `permit` is kept until its end.
    pub(crate) fn into_answer(self, permit: impl Send + 'static) -> Answer {
        let body = Either::Right(response::Stream::new(self, permit));
        let mut answer = response::of_type("text/event-stream", body);
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx buffers what it passes on, unless told not to.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        answer
    }
}

async fn next<E: Events>(mut events: E) -> (E, Option<Bytes>) {
    let event = events.event().await;
    (events, event)
}

impl<E> std::fmt::Debug for EventStream<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("ended", &self.next.is_none()).finish()
    }
}

impl<E: Events> Body for EventStream<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(waiting) = &mut self.next else { return Poll::Ready(None) };
        let (events, event) = ready!(waiting.as_mut().poll(cx));
        self.next = event.is_some().then(|| -> Next<E> { Box::pin(next(events)) });
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }
}
