//! Sell a limited stock to a crowd that arrives all at once.

pub mod backends;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod layers;
pub mod protocol;
pub mod seams;

pub use protocol::*;
