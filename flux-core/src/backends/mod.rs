//! Backends: implementations of the four seams.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod memory;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::seams::{InventoryStore, LockManager, OrderQueue, OutcomeBus};

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
