//! The reason why an engine can't go on.

use crate::seams::SeamError;

/// The reason why an engine can't go on: see [`Flux::failed`](super::Flux::failed).
/// Its text and its sources say what happened; an application logs them, ends,
/// and has whatever watches over it start it anew.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The store or the queue stopped for good. Opened anew, it has everything
    /// that was acknowledged.
    #[error("the engine's backend can't go on")]
    Backend(#[source] SeamError),
    /// A task of the engine ended without being told to.
    #[error("the engine's {task} ended: {reason}")]
    #[non_exhaustive]
    Task {
        /// The task's name.
        task: &'static str,
        /// What it said, if it panicked.
        reason: String,
    },
}
