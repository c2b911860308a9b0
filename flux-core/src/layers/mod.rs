//! Layers: behaviour around the seams that every backend needs and none should
//! write itself. A [`Layer`] goes around each call; [`Layered`] puts one, or
//! [`Faults`], around any of the four seams, and [`Backend::layered`] around
//! all at once.
//!
//! | from the backend outwards | what it does |
//! |---|---|
//! | [`Faults`] | in tests: breaks calls by a seed or a script |
//! | [`TimeLimit`] | gives up on a call that takes too long |
//! | [`Retry`] | repeats a failed call when that is safe, within a budget |
//! | [`Trace`] | logs and measures each call |
//!
//! The layer added last is the outermost. In this order each attempt has a
//! time limit of its own, and `Trace` sees what the caller sees (a second one
//! below `Retry` sees the attempts). Faults further out than `TimeLimit` stand
//! for a caller that freezes, not for a service that is slow.
//!
//! ```
//! use std::time::Duration;
//! use flux_core::backends::Backend;
//! use flux_core::layers::{Retry, TimeLimit, Trace};
//!
//! fn dressed(backend: Backend) -> Backend {
//!     backend
//!         .layered(TimeLimit::new(Duration::from_secs(2)))
//!         .layered(Retry::default())
//!         .layered(Trace)
//! }
//! ```

mod faults;
mod layered;
mod locks;
mod operation;
mod retry;
#[cfg(test)]
mod testing;
mod time_limit;
mod trace;

use std::sync::Arc;

pub use faults::{Fault, Faults, FaultsBuilder};
pub use layered::Layered;
pub use locks::{BrokenLocks, YesLocks};
pub use operation::{Call, Operation, Service};
pub use retry::{Retry, RetryBuilder};
pub use time_limit::TimeLimit;
pub use trace::Trace;

use self::layered::Hooks;
use crate::backends::Backend;
use crate::seams::SeamError;

/// Behaviour around the calls of a seam.
pub trait Layer: Send + Sync + 'static {
    /// Answers a call, by `run`ning it once, several times or not at all.
    /// `run` borrows what the call was given, so a repeat copies nothing.
    ///
    /// Cancel-safe when `run` is: the future holds no more than its own call.
    fn around<T, F, Fut>(
        &self,
        call: Call,
        run: F,
    ) -> impl Future<Output = Result<T, SeamError>> + Send
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send;
}

impl Backend {
    /// Puts `layer`, a [`Layer`] or [`Faults`], around all four seams; its clones
    /// share their state.
    #[must_use]
    pub fn layered<L: Hooks + Clone>(self, layer: L) -> Self {
        let partitions = self.partitions.into_iter();
        let partitions =
            partitions.map(|queue| Arc::new(Layered::new(queue, layer.clone())) as _).collect();
        Self {
            queue: Arc::new(Layered::new(self.queue, layer.clone())),
            partitions,
            locks: Arc::new(Layered::new(self.locks, layer.clone())),
            store: Arc::new(Layered::new(self.store, layer.clone())),
            bus: Arc::new(Layered::new(self.bus, layer)),
        }
    }
}
