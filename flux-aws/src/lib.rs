//! The Flux protocol on SQS, DynamoDB and Redis, for sales that outgrow one
//! machine.
//!
//! Each seam of [`flux_core::seams`] has its service, and each service its
//! feature: [`dynamodb`] is the store, [`sqs`] the queue, [`redis`] the leases
//! and the outcomes. The guarantees come from DynamoDB's conditions alone;
//! SQS may deliver twice and out of order, and Redis may be wiped or away.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(all(feature = "dynamodb", feature = "redis", feature = "sqs"))]
mod backend;
pub mod bill;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(any(feature = "dynamodb", feature = "redis", feature = "sqs"))]
mod gather;
#[cfg(any(feature = "dynamodb", feature = "sqs"))]
mod pause;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqs")]
pub mod sqs;

#[cfg(all(feature = "dynamodb", feature = "redis", feature = "sqs"))]
pub use backend::{Aws, OpenError};
