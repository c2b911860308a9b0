//! Server-Sent Events. One task for all who watch items, and one for the
//! sale's pulse, make each event once; a stream only hands on shared bytes, so
//! that thousands of them cost little. Nothing runs while nobody watches.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flux_core::{Flux, ItemId};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http_body_util::Either;
use hyper::body::{Body, Frame};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::http::response::{self, Answer};

mod changes;
mod items;
mod pulse;

pub(crate) use changes::ChangeStream;

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
    pub(crate) fn items(&self, item: Option<ItemId>) -> EventStream {
        EventStream::new(self.items.clone(), item, self.stop.clone())
    }

    /// `event: pulse` each second: orders decided and turned away, and how
    /// long they waited; first what is known of the last minute.
    #[must_use]
    pub(crate) fn pulse(&self) -> EventStream {
        EventStream::new(self.pulse.clone(), None, self.stop.clone())
    }

    /// Turns true when streams are to end.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
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

/// A response body of events without an end of its own.
pub(crate) struct EventStream {
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = (Feed, Option<Bytes>)> + Send>>;

impl EventStream {
    fn new(source: mpsc::Sender<Ask>, item: Option<ItemId>, stop: watch::Receiver<bool>) -> Self {
        let mut comments = interval_at(Instant::now() + COMMENT_EVERY, COMMENT_EVERY);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let feed = Feed {
            source,
            item,
            stop,
            comments,
            now: Vec::new().into_iter(),
            updates: None,
            last: None,
        };
        Self { next: Some(Box::pin(feed.next())) }
    }

    /// The answer that streams these events; `permit` is kept until its end.
    pub(crate) fn into_answer(self, permit: impl Send + 'static) -> Answer {
        stream_answer(self, permit)
    }
}

/// The answer that streams these events; `permit` is kept until its end.
fn stream_answer<B>(events: B, permit: impl Send + 'static) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let body = Either::Right(response::Stream::new(events, permit));
    let mut answer = response::of_type("text/event-stream", body);
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx buffers what it passes on, unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("ended", &self.next.is_none()).finish()
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (feed, event) = ready!(next.as_mut().poll(cx));
        self.next = event.is_some().then(|| -> Next { Box::pin(feed.next()) });
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }
}

/// The state of a stream between two events.
struct Feed {
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
    async fn next(mut self) -> (Self, Option<Bytes>) {
        let event = self.event().await;
        (self, event)
    }

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

    fn sent(&mut self, event: Bytes) -> Bytes {
        if self.item.is_some() {
            self.last = Some(event.clone());
        }
        event
    }
}

#[cfg(test)]
mod tests;
