//! The spans of requests whose orders are in the queue, so that a decision,
//! made by another task, joins the trace of its request. Costs nothing while
//! spans are off.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;

use crate::protocol::OrderId;

/// Most orders in the queue whose spans are remembered; a span waits for its
/// children, so these are kept open.
const SPANS_MAX: usize = 8_192;
/// Longest time a span is remembered: an order that another worker took never
/// comes for it.
const SPAN_AGE_MAX: Duration = Duration::from_secs(60);

/// The spans of those who queued orders that this process may decide.
#[derive(Debug, Default)]
pub(crate) struct QueuedSpans {
    left: Mutex<Left>,
    /// The number of spans, read without the lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Left {
    spans: HashMap<OrderId, Span>,
    /// Oldest first; some may have been picked up.
    order: VecDeque<(Instant, OrderId)>,
}

impl QueuedSpans {
    /// Remembers the span of the request that queues the order, if spans are on
    /// and there is room.
    pub(crate) fn leave(&self, id: OrderId, span: &Span) {
        if span.is_disabled() {
            return;
        }
        let mut left = self.lock();
        while let Some((since, oldest)) = left.order.front() {
            let oldest = *oldest;
            if since.elapsed() > SPAN_AGE_MAX {
                left.spans.remove(&oldest);
            } else if left.spans.contains_key(&oldest) {
                break;
            }
            left.order.pop_front();
        }
        if left.order.len() < SPANS_MAX {
            left.order.push_back((Instant::now(), id));
            left.spans.insert(id, span.clone());
        }
        self.len.store(left.spans.len(), Ordering::Release);
    }

    /// Takes out the span of the request that queued the order.
    pub(crate) fn pick_up(&self, id: OrderId) -> Option<Span> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut left = self.lock();
        let span = left.spans.remove(&id);
        self.len.store(left.spans.len(), Ordering::Release);
        span
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
