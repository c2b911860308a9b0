//! The backend in this process's memory, and gone with it: the reference that
//! other backends are compared with, and the quickest to test on.

mod bus;
mod feed;
mod locks;
mod queue;
mod removals;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bon::bon;

pub use bus::MemoryBus;
pub use locks::MemoryLocks;
pub use queue::MemoryQueue;
pub use store::MemoryStore;
#[cfg(feature = "embedded")]
pub(crate) use store::{
    FORGETS_MAX, FORGOTTEN_AT_ONCE, LOOKS_AT_ONCE, SCAN_MAX, being_archived, cursor_seq,
};

use super::Backend;
use super::state::queue::QueueLimits;
use super::state::rejected::Retention;
use crate::clock::{Clock, SystemClock};
use crate::protocol::BuyerRules;

/// Time for a delivery to be acknowledged, unless told otherwise.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);
/// Most messages in a queue, unless told otherwise.
pub(crate) const DEPTH_MAX: usize = 1_000_000;

#[bon]
impl Backend {
    /// All four seams in memory, with the defaults of
    /// [`memory_with`](Self::memory_with).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use flux_core::ItemSpec;
    /// use flux_core::backends::Backend;
    ///
    /// let backend = Backend::memory();
    /// backend.store.put_item(&ItemSpec::pool("ticket", 100)?).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with().build()
    }

    /// All four seams in memory.
    #[builder(start_fn = memory_with, finish_fn = build)]
    pub fn new_memory(
        /// Time for a delivery to be acknowledged before it comes again; 30 s.
        #[builder(default = VISIBILITY)]
        visibility: Duration,
        /// Most messages in the queue, delivered ones included; 1,000,000.
        #[builder(default = DEPTH_MAX)]
        queue_depth_max: usize,
        /// Time for which a rejected order is remembered; a day. After that, its
        /// id is a new order's.
        #[builder(default = Retention::DEFAULT.keep)]
        keep_rejected: Duration,
        /// Most rejected orders remembered, the newest; 10,000,000.
        #[builder(default = Retention::DEFAULT.max)]
        rejected_max: u64,
        /// What the store asks of buyers before they get another hold; nothing.
        #[builder(default)]
        buyer_rules: BuyerRules,
        /// Most changes in the [feed](crate::seams::InventoryStore::feed), the newest;
        /// 100,000.
        #[builder(default = feed::CHANGES_MAX)]
        changes_max: usize,
        /// Dates the queue's messages; the machine's clock.
        #[builder(default = Arc::new(SystemClock))]
        clock: Arc<dyn Clock>,
    ) -> Self {
        let limits = QueueLimits { visibility, depth_max: queue_depth_max };
        Self {
            queue: Arc::new(MemoryQueue::with_limits(limits, clock)),
            locks: Arc::new(MemoryLocks::default()),
            store: Arc::new(MemoryStore::that_keeps_to(
                Retention { keep: keep_rejected, max: rejected_max },
                buyer_rules,
                changes_max,
            )),
            bus: Arc::new(MemoryBus::default()),
            partitions: Vec::new(),
        }
    }
}
