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
mod market;
mod rush;
mod steady;
mod store;

use std::collections::HashMap;
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::protocol::Commit;
use flux_core::seams::partition_of_lines;
use flux_core::{Backend, ItemId, OrderId, Timestamp};
use tokio::time::Instant;

pub use demand::{Demand, number};
pub use link::Link;
pub use market::Market;
pub use rush::{Figures, Rush};
pub use steady::{Course, Steady, Takeover, Trouble, Waits};

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

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            claims: self.claims - earlier.claims,
            commits: self.commits - earlier.commits,
            refused: self.refused - earlier.refused,
            orders: self.orders - earlier.orders,
        }
    }
}

impl Counts {
    /// Claims for 1,000 orders.
    pub fn claims_per_1000(&self) -> f64 {
        self.claims as f64 * 1e3 / self.orders.max(1) as f64
    }
}

/// A decision, as the model saw it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The number of the worker that made it.
    pub worker: usize,
    /// The order.
    pub order: OrderId,
    /// Its first item.
    pub item: ItemId,
    /// Its partition of the queue.
    pub partition: usize,
    /// The moment it was written.
    pub at: Instant,
    /// The time from its acceptance.
    pub after: Duration,
}

/// The turns of those who write one row.
type Turns = Arc<tokio::sync::Mutex<()>>;

/// The services of a region.
pub struct Region {
    times: Times,
    /// Transactions, and claims, that one worker has on their way at once.
    at_once: usize,
    /// Rows over which the stock of each item is spread.
    stripes: usize,
    backend: Backend,
    clock: Arc<TokioClock>,
    /// Taken by whoever writes a stock row: that of an item, by the number of its stripe.
    stock_rows: Mutex<HashMap<(ItemId, usize), Turns>>,
    counts: [AtomicU64; 3],
    decided: Mutex<Vec<Decided>>,
}

impl Region {
    /// The region of a market. Must be called within a runtime whose clock is paused.
    pub fn new(market: &Market) -> Arc<Self> {
        let Market { times, at_once, partitions, stripes, .. } = *market;
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
            stripes,
            backend,
            clock,
            stock_rows: Mutex::default(),
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
    pub fn link(self: &Arc<Self>, worker: usize) -> Link {
        Link::new(Arc::clone(self), worker)
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

    fn stock_row(&self, item: &ItemId, stripe: usize) -> Turns {
        let mut rows = self.stock_rows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rows.entry((item.clone(), stripe)).or_default())
    }

    fn note_claim(&self) {
        self.counts[0].fetch_add(1, Ordering::Relaxed);
    }

    fn note_commit(&self, worker: usize, commit: &Commit, applied: bool) {
        self.counts[if applied { 1 } else { 2 }].fetch_add(1, Ordering::Relaxed);
        if !applied {
            return;
        }
        let (at, now) = (Instant::now(), self.clock.now());
        let partitions = self.backend.queues().len();
        self.decided().extend(commit.writes.iter().map(|write| Decided {
            worker,
            order: write.order.id,
            item: write.order.lines[0].item.clone(),
            partition: partition_of_lines(&write.order.lines, partitions),
            at,
            after: now.since(write.order.placed_at),
        }));
    }
}
