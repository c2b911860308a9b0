//! Backends: implementations of the four seams.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod memory;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::protocol::{Line, Order, OrderId};
use crate::seams::{
    DeadLetter, InventoryStore, LockManager, OrderQueue, OutcomeBus, QueueDepth, Recalled,
    SeamError, partition_of_lines,
};

/// One of each seam, for an engine to run on. Mix as you like; every engine that
/// sells the same items must share the queue and the store.
#[derive(Clone)]
pub struct Backend {
    /// Carries messages from those who accept to those who decide.
    pub queue: Arc<dyn OrderQueue>,
    /// Keeps workers out of each other's way.
    pub locks: Arc<dyn LockManager>,
    /// Keeps items, stock and orders: the truth.
    pub store: Arc<dyn InventoryStore>,
    /// Carries outcomes to those who wait.
    pub bus: Arc<dyn OutcomeBus>,
    /// The partitions of the queue, where there are several: whoever shares the
    /// queue has the same, in the same order. `queue` is then not used.
    pub partitions: Vec<Arc<dyn OrderQueue>>,
}

impl Backend {
    /// The partitions of the queue; at least one.
    #[must_use]
    pub fn queues(&self) -> &[Arc<dyn OrderQueue>] {
        match self.partitions.is_empty() {
            true => std::slice::from_ref(&self.queue),
            false => &self.partitions,
        }
    }

    /// The partition of the orders over these lines.
    #[must_use]
    pub fn queue_of(&self, lines: &[Line]) -> &dyn OrderQueue {
        let queues = self.queues();
        &*queues[partition_of_lines(lines, queues.len())]
    }

    /// Counts the messages of all partitions.
    pub(crate) async fn depth(&self) -> Result<QueueDepth, SeamError> {
        let mut sum = QueueDepth::default();
        for depth in try_join_all(self.queues().iter().map(|queue| queue.depth())).await? {
            sum.waiting += depth.waiting;
            sum.in_flight += depth.in_flight;
            sum.dead += depth.dead;
            sum.oldest = sum.oldest.max(depth.oldest);
        }
        Ok(sum)
    }

    /// Reads the oldest dead letters of all partitions, each with its partition.
    pub(crate) async fn dead_letters(
        &self,
        max: usize,
    ) -> Result<Vec<(usize, DeadLetter)>, SeamError> {
        let of_each = self.queues().iter().map(|queue| queue.dead_letters(max));
        let of_each = try_join_all(of_each).await?.into_iter().enumerate();
        let numbered = |(partition, letters): (usize, Vec<DeadLetter>)| {
            letters.into_iter().map(move |letter| (partition, letter))
        };
        let mut letters: Vec<_> = of_each.flat_map(numbered).collect();
        letters.sort_by_key(|(_, letter)| letter.buried_at);
        letters.truncate(max);
        Ok(letters)
    }

    /// Finds an order that waits in the queue, as [`OrderQueue::find`].
    pub(crate) async fn find_queued(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        for queue in self.queues() {
            if let Some(order) = queue.find(id).await? {
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    /// Finds it, as [`OrderQueue::announce`].
    pub(crate) async fn announce(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        for queue in self.queues() {
            if let Some(order) = queue.announce(id).await? {
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    /// Recalls an order, as [`OrderQueue::recall`].
    pub(crate) async fn recall(&self, id: OrderId) -> Result<Recalled, SeamError> {
        let mut recalled = Recalled::Unknown;
        for queue in self.queues() {
            match queue.recall(id).await? {
                Recalled::Waits(order) => return Ok(Recalled::Waits(order)),
                Recalled::Unheard => recalled = Recalled::Unheard,
                Recalled::Unknown => {}
            }
        }
        Ok(recalled)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

/// `from` plus `after`; a time past all reason becomes a year.
fn until(from: Instant, after: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    from + after.min(YEAR)
}
