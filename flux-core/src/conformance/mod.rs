//! The suite every backend is held to.

mod bus;
mod check;
pub mod history;
mod locks;
mod queue;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use check::{Check, CheckResult, Failure, Report};
pub use queue::QueueTerms;

use crate::seams::{InventoryStore, LockManager, OrderQueue, OutcomeBus};

/// Runs every check of an inventory store, each on an empty store from `fresh`.
pub async fn store<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(store_checks(), fresh).await
}

/// The checks of [`store`], for a runner of your own.
#[must_use]
pub fn store_checks<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    store::all()
}

/// Runs every check of an order queue, each on an empty queue from `fresh`.
pub async fn queue<Q, F, Fut>(terms: QueueTerms, fresh: F) -> Report
where
    Q: OrderQueue + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<Q>>,
{
    check::run_all(queue_checks(), || async { (fresh().await, terms) }).await
}

/// The checks of [`queue()`], for a runner of your own.
#[must_use]
pub fn queue_checks<Q>() -> Vec<Check<(Arc<Q>, QueueTerms)>>
where
    Q: OrderQueue + ?Sized,
{
    queue::all()
}

/// Runs every check of a lock manager, each on one from `fresh` that holds no
/// lease. `ttl` is how long a lease lasts whose end a check waits for; the
/// checks wait for some ten of them.
///
/// A manager that grants everything would fail, and is allowed all the same:
/// no guarantee rests on locks.
pub async fn locks<L, F, Fut>(ttl: Duration, fresh: F) -> Report
where
    L: LockManager + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    check::run_all(lock_checks(), || async { (fresh().await, ttl) }).await
}

/// The checks of [`locks()`], for a runner of your own.
#[must_use]
pub fn lock_checks<L>() -> Vec<Check<(Arc<L>, Duration)>>
where
    L: LockManager + ?Sized,
{
    locks::all()
}

/// Runs every check of an outcome bus.
pub async fn bus<B, F, Fut>(fresh: F) -> Report
where
    B: OutcomeBus + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<B>>,
{
    check::run_all(bus_checks(), fresh).await
}

/// The checks of [`bus()`], for a runner of your own.
#[must_use]
pub fn bus_checks<B>() -> Vec<Check<Arc<B>>>
where
    B: OutcomeBus + ?Sized,
{
    bus::all()
}
