//! A model of a region: the services of a cloud as seen by several workers, in
//! virtual time. Every call takes the time that such a service takes, one item is
//! written by one transaction at a time, and each worker has so many transactions on
//! their way at once. Run it on tokio's paused clock: it gives the same figures on any
//! machine, each time.
//!
//! Beneath it is the backend in memory, so the rules are the real ones; what is
//! modelled is distance.

mod demand;
mod link;
mod rush;
mod store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::protocol::Commit;
use flux_core::{Backend, ItemId, OrderId, Timestamp};
use tokio::time::Instant;

pub use demand::Demand;
pub use link::Link;
pub use rush::{Figures, Rush};

/// The times that calls of the services take, from the call to its answer.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// A claim of an item; as many at once as transactions.
    pub claim: Duration,
    /// A transaction, in which nobody else writes its items.
    pub commit: Duration,
    /// A read of the store.
    pub read: Duration,
    /// A call of the queue.
    pub queue: Duration,
    /// A call of the lock service or the bus.
    pub lock: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [claim, commit, read, queue, lock] = [8, 20, 5, 12, 1].map(Duration::from_millis);
        Self { claim, commit, read, queue, lock }
    }
}

/// What was asked of the store, by all workers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Items claimed.
    pub claims: u64,
    /// Transactions applied.
    pub commits: u64,
    /// Transactions refused.
    pub refused: u64,
    /// Orders decided.
    pub orders: u64,
}

/// A decision, as the model saw it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The order.
    pub order: OrderId,
    /// Its first item.
    pub item: ItemId,
    /// The moment it was written.
    pub at: Instant,
    /// The time from its acceptance.
    pub after: Duration,
}

/// The services of a region.
pub struct Region {
    times: Times,
    /// Transactions, and claims, that one worker has on their way at once.
    at_once: usize,
    backend: Backend,
    clock: Arc<TokioClock>,
    /// Taken by whoever writes an item.
    items: Mutex<HashMap<ItemId, Arc<tokio::sync::Mutex<()>>>>,
    counts: [AtomicU64; 3],
    decided: Mutex<Vec<Decided>>,
}

impl Region {
    /// A region in which a worker has `at_once` transactions on their way. Must be
    /// called within a runtime whose clock is paused.
    pub fn new(times: Times, at_once: usize, partitions: usize) -> Arc<Self> {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let dating: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let memory = || {
            Backend::memory_with().clock(Arc::clone(&dating)).queue_depth_max(usize::MAX).build()
        };
        let partitions = (0..partitions).map(|_| memory().queue).collect();
        let backend = Backend { partitions, ..memory() };
        Arc::new(Self {
            times,
            at_once,
            backend,
            clock,
            items: Mutex::default(),
            counts: Default::default(),
            decided: Mutex::default(),
        })
    }

    /// The services without their distance, for whoever prepares and checks.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The clock of everybody here.
    pub fn clock(&self) -> Arc<TokioClock> {
        Arc::clone(&self.clock)
    }

    /// The services as a new worker sees them.
    pub fn link(self: &Arc<Self>) -> Link {
        Link::new(Arc::clone(self))
    }

    /// What was asked of the store until now.
    pub fn counts(&self) -> Counts {
        let [claims, commits, refused] =
            [0, 1, 2].map(|n: usize| self.counts[n].load(Ordering::Relaxed));
        Counts { claims, commits, refused, orders: self.decided().len() as u64 }
    }

    /// Every decision until now, in the order of writing.
    pub fn decided(&self) -> std::sync::MutexGuard<'_, Vec<Decided>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn item(&self, item: &ItemId) -> Arc<tokio::sync::Mutex<()>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(items.entry(item.clone()).or_default())
    }

    fn note_claims(&self, count: usize) {
        self.counts[0].fetch_add(count as u64, Ordering::Relaxed);
    }

    fn note_commit(&self, commit: &Commit, applied: bool) {
        self.counts[if applied { 1 } else { 2 }].fetch_add(1, Ordering::Relaxed);
        if !applied {
            return;
        }
        let (at, now) = (Instant::now(), self.clock.now());
        self.decided().extend(commit.writes.iter().map(|write| Decided {
            order: write.order.id,
            item: write.order.lines[0].item.clone(),
            at,
            after: now.since(write.order.placed_at),
        }));
    }
}
