//! The change feed as Server-Sent Events: each stream reads for itself, as each may be at
//! another place.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flux_core::seams::{Change, ChangeFeed, Changed, Cursor, SeamError};
use flux_core::views::ChangeView;
use tokio::sync::watch;
use tokio::time::sleep;

use super::stream::Events;
use super::{COMMENT, COMMENT_EVERY, stopped};

/// Changes read at once.
const PAGE: usize = 100;

/// The changes behind a cursor, as one stream hands them on.
pub(crate) struct ChangeReader {
    feed: Arc<dyn ChangeFeed>,
    after: Option<Cursor>,
    stop: watch::Receiver<bool>,
    read: VecDeque<Change>,
}

impl ChangeReader {
    pub(super) fn new(
        feed: Arc<dyn ChangeFeed>,
        after: Option<Cursor>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { feed, after, stop, read: VecDeque::new() }
    }
}

impl Events for ChangeReader {
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
        Changed::Removed(_) => "removed",
        _ => "order",
    };
    let mut event = format!("id: {}\nevent: {name}\ndata: ", change.cursor).into_bytes();
    serde_json::to_writer(&mut event, &ChangeView::from(change))
        .expect("answers are made of strings and numbers");
    event.extend_from_slice(b"\n\n");
    event.into()
}
