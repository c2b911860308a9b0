//! Server-Sent Events. One task for all who watch items, and one for the
//! sale's pulse, make each event once; a stream only hands on shared bytes, so
//! that thousands of them cost little. Nothing runs while nobody watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flux_core::seams::{ChangeFeed, Cursor};
use flux_core::{Flux, ItemId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

mod changes;
mod items;
mod pulse;
mod stream;

use changes::ChangeReader;
use stream::{EventStream, Events};

/// Time between two comments, which keep proxies from cutting a quiet stream.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// Updates a stream may fall behind before it starts again from the present.
const UPDATES_KEPT: usize = 16;
/// Streams that may wait for their first event without making others wait to ask.
const ASKS_MAX: usize = 256;

/// The source of event streams. Cheap to clone. Streams and tasks end when
/// `stop` turns true.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    items: mpsc::Sender<Ask>,
    pulse: mpsc::Sender<Ask>,
    turned_away: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
}

impl Hub {
    /// Starts the tasks; they idle until somebody watches. Must be called
    /// within a tokio runtime.
    #[must_use]
    pub(crate) fn start(flux: Flux, stop: watch::Receiver<bool>) -> Self {
        let (items, item_asks) = mpsc::channel(ASKS_MAX);
        let (pulse, pulse_asks) = mpsc::channel(ASKS_MAX);
        let turned_away = Arc::new(AtomicU64::new(0));
        let items_run = items::run(flux.clone(), item_asks);
        let pulse_run = pulse::run(flux, pulse_asks, Arc::clone(&turned_away));
        tokio::spawn(until_stopped(stop.clone(), items_run));
        tokio::spawn(until_stopped(stop.clone(), pulse_run));
        Self { items, pulse, turned_away, stop }
    }

    /// `event: item` for one item, which must exist, or for the first 1,000
    /// by id: as it stands now, then each change.
    #[must_use]
    pub(crate) fn items(&self, item: Option<ItemId>) -> EventStream<Feed> {
        EventStream::of(Feed::new(self.items.clone(), item, self.stop.clone()))
    }

    /// `event: pulse` each second: orders decided and turned away, and how
    /// long they waited; first what is known of the last minute.
    #[must_use]
    pub(crate) fn pulse(&self) -> EventStream<Feed> {
        EventStream::of(Feed::new(self.pulse.clone(), None, self.stop.clone()))
    }

    /// The changes of orders and items behind `after`, as the store keeps them.
    #[must_use]
    pub(crate) fn changes(
        &self,
        feed: Arc<dyn ChangeFeed>,
        after: Option<Cursor>,
    ) -> EventStream<ChangeReader> {
        EventStream::of(ChangeReader::new(feed, after, self.stop.clone()))
    }

    /// Counts an order turned away at the gate, for the pulse.
    pub(crate) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the tasks have ended, after `stop`. Cancel-safe.
    pub(crate) async fn finished(&self) {
        self.items.closed().await;
        self.pulse.closed().await;
    }
}

async fn until_stopped(mut stop: watch::Receiver<bool>, run: impl Future<Output = ()>) {
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = run => {}
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A stream's wish to be told of one item, or of all there is.
struct Ask {
    item: Option<ItemId>,
    answer: oneshot::Sender<Told>,
}

/// The present state, and the channel of what comes after.
struct Told {
    now: Vec<Bytes>,
    updates: broadcast::Receiver<Bytes>,
}

fn event(name: &str, json: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(name.len() + json.len() + 16);
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"] {
        event.extend_from_slice(part);
    }
    event.into()
}

/// The events of items, or of the sale's pulse, as one stream hands them on.
pub(crate) struct Feed {
    source: mpsc::Sender<Ask>,
    item: Option<ItemId>,
    stop: watch::Receiver<bool>,
    comments: Interval,
    now: std::vec::IntoIter<Bytes>,
    updates: Option<broadcast::Receiver<Bytes>>,
    /// The last event, of one item only: the first update may repeat it.
    last: Option<Bytes>,
}

impl Feed {
    fn new(source: mpsc::Sender<Ask>, item: Option<ItemId>, stop: watch::Receiver<bool>) -> Self {
        let mut comments = interval_at(Instant::now() + COMMENT_EVERY, COMMENT_EVERY);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Vec::new().into_iter();
        Self { source, item, stop, comments, now, updates: None, last: None }
    }

    fn sent(&mut self, event: Bytes) -> Bytes {
        if self.item.is_some() {
            self.last = Some(event.clone());
        }
        event
    }
}

impl Events for Feed {
    async fn event(&mut self) -> Option<Bytes> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            if let Some(event) = self.now.next() {
                return Some(self.sent(event));
            }
            let Some(updates) = &mut self.updates else {
                let (answer, told) = oneshot::channel();
                let ask = Ask { item: self.item.clone(), answer };
                let told = tokio::select! {
                    () = stopped(&mut self.stop) => return None,
                    told = async { self.source.send(ask).await.ok()?; told.await.ok() } => told?,
                };
                self.now = told.now.into_iter();
                self.updates = Some(told.updates);
                continue;
            };
            tokio::select! {
                () = stopped(&mut self.stop) => return None,
                update = updates.recv() => match update {
                    Ok(event) if self.last.as_ref() == Some(&event) => {}
                    Ok(event) => return Some(self.sent(event)),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.updates = None,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.comments.tick() => return Some(COMMENT),
            }
        }
    }
}

#[cfg(test)]
mod tests;
