#![doc = include_str!("../README.md")]

pub mod backends;
mod backoff;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod layers;
pub mod protocol;
pub mod seams;

pub use backends::Backend;
pub use engine::{Error, Flux, OrderRequest, Role, Settings};
pub use protocol::*;
