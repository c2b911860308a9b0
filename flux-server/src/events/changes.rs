//! The change feed as Server-Sent Events: each stream reads for itself, as each may be at
//! another place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flux_core::seams::{Change, ChangeFeed, Changed, Cursor, SeamError};
use flux_core::views::ChangeView;
use hyper::body::{Body, Frame};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{COMMENT, COMMENT_EVERY, stopped, stream_answer};
use crate::http::response::Answer;

/// Changes read at once.
const PAGE: usize = 100;

type Next = Pin<Box<dyn Future<Output = (Reader, Option<Bytes>)> + Send>>;

/// A response body of changes as they come.
pub(crate) struct ChangeStream {
    next: Option<Next>,
}

impl ChangeStream {
    /// Streams the changes behind `after`, until `stop` turns true.
    pub(crate) fn new(
        feed: Arc<dyn ChangeFeed>,
        after: Option<Cursor>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let reader = Reader { feed, after, stop, read: VecDeque::new() };
        Self { next: Some(Box::pin(reader.next())) }
    }

    /// The answer that streams these events; `permit` is kept until its end.
    pub(crate) fn into_answer(self, permit: impl Send + 'static) -> Answer {
        stream_answer(self, permit)
    }
}

impl Body for ChangeStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (reader, event) = ready!(next.as_mut().poll(cx));
        self.next = event.is_some().then(|| -> Next { Box::pin(reader.next()) });
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }
}

/// The state of a stream between two events.
struct Reader {
    feed: Arc<dyn ChangeFeed>,
    after: Option<Cursor>,
    stop: watch::Receiver<bool>,
    read: VecDeque<Change>,
}

impl Reader {
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let event = self.event().await;
        (self, event)
    }

    async fn event(&mut self) -> Option<Bytes> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            if let Some(change) = self.read.pop_front() {
                return Some(event(&change));
            }
            let page = tokio::select! {
                () = stopped(&mut self.stop) => return None,
                page = self.feed.changes(self.after.as_ref(), PAGE, COMMENT_EVERY) => page,
            };
            match page {
                Ok(page) => {
                    let is_quiet = page.changes.is_empty();
                    (self.after, self.read) = (Some(page.next), page.changes.into());
                    if is_quiet {
                        return Some(COMMENT);
                    }
                }
                // The client learns why when it asks again.
                Err(error) if !error.can_retry() => return None,
                Err(error) => {
                    tracing::debug!(%error, "a stream of changes waits for its store");
                    let SeamError::Overloaded { retry_after, .. } = error else { return None };
                    sleep(retry_after).await;
                }
            }
        }
    }
}

fn event(change: &Change) -> Bytes {
    let name = match change.changed {
        Changed::Item(_) => "item",
        _ => "order",
    };
    let mut event = format!("id: {}\nevent: {name}\ndata: ", change.cursor).into_bytes();
    serde_json::to_writer(&mut event, &ChangeView::from(change))
        .expect("answers are made of strings and numbers");
    event.extend_from_slice(b"\n\n");
    event.into()
}
