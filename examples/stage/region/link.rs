//! The way of one worker to the services.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flux_core::Backend;
use flux_core::layers::{Call, Layer, Operation, Service};
use flux_core::seams::SeamError;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::sleep;

use super::Region;
use super::store::RegionStore;

/// The services as one worker sees them. Its clones are the same worker's.
#[derive(Clone)]
pub struct Link {
    pub(super) region: Arc<Region>,
    pub(super) worker: usize,
    pub(super) transactions: Arc<Semaphore>,
    pub(super) claims: Arc<Semaphore>,
    is_frozen: Arc<AtomicBool>,
    /// Wakes those who wait in the order in which they came, as a watch would not.
    thaws: Arc<Notify>,
    dead: watch::Sender<bool>,
    locks_away: Arc<AtomicBool>,
    store_away: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn new(region: Arc<Region>, worker: usize) -> Self {
        Self {
            transactions: Arc::new(Semaphore::new(region.at_once)),
            claims: Arc::new(Semaphore::new(region.at_once)),
            region,
            worker,
            is_frozen: Arc::default(),
            thaws: Arc::default(),
            dead: watch::Sender::new(false),
            locks_away: Arc::default(),
            store_away: Arc::default(),
        }
    }

    /// The four seams for an engine.
    pub fn backend(&self) -> Backend {
        let near = self.region.backend.clone();
        let store = Arc::new(RegionStore::new(Arc::clone(&near.store), self.clone()));
        Backend { store, ..near }.layered(self.clone())
    }

    /// Kills the worker: the calls that it has on their way end where they are, and it
    /// makes no more.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Stops the worker between any two steps, from its next call or answer on.
    pub fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
    }

    /// Lets it go on where it was.
    pub fn thaw(&self) {
        self.is_frozen.store(false, Ordering::Relaxed);
        self.thaws.notify_waiters();
    }

    /// Takes its lock service away, or gives it back.
    pub fn set_locks_away(&self, away: bool) {
        self.locks_away.store(away, Ordering::Relaxed);
    }

    /// Takes its store away, or gives it back.
    pub fn set_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::Relaxed);
    }

    /// An error while its store is away.
    pub(super) fn reach_store(&self) -> Result<(), SeamError> {
        match self.store_away.load(Ordering::Relaxed) {
            true => Err(SeamError::unavailable("the store")),
            false => Ok(()),
        }
    }

    /// Waits while the worker is frozen.
    async fn thawed(&self) {
        while self.is_frozen.load(Ordering::Relaxed) {
            self.thaws.notified().await;
        }
    }

    /// Waits until the worker is killed.
    async fn died(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Makes a call that takes so long, half of it until it arrives.
    async fn call<T>(&self, time: Duration, run: impl Future<Output = T>) -> T {
        self.thawed().await;
        sleep(time / 2).await;
        let answer = run.await;
        sleep(time / 2).await;
        self.thawed().await;
        answer
    }
}

impl Layer for Link {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let (times, service) = (&self.region.times, call.operation.service());
        let time = match (service, call.operation) {
            (Service::Queue, _) => times.queue,
            (Service::Locks | Service::Bus, _) => times.lock,
            // The store sees to these, as others are in the way.
            (Service::Store, Operation::Claim | Operation::Commit) => Duration::ZERO,
            (Service::Store | Service::Changes, _) => times.read,
        };
        let run = async {
            match service {
                Service::Locks if self.locks_away.load(Ordering::Relaxed) => {
                    Err(SeamError::unavailable("the lock service"))
                }
                Service::Store => match self.reach_store() {
                    Ok(()) => run().await,
                    Err(error) => Err(error),
                },
                _ => run().await,
            }
        };
        tokio::select! {
            biased;
            () = self.died() => pending().await,
            answer = self.call(time, run) => answer,
        }
    }
}
