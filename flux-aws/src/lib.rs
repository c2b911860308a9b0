#![doc = include_str!("../README.md")]

#[cfg(any(feature = "dynamodb", feature = "sqs"))]
pub mod aws;
#[cfg(all(feature = "dynamodb", feature = "redis", feature = "sqs"))]
mod backend;
#[cfg(any(feature = "dynamodb", feature = "redis", feature = "sqs"))]
mod batcher;
pub mod bill;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqs")]
pub mod sqs;

#[cfg(all(feature = "dynamodb", feature = "redis", feature = "sqs"))]
pub use backend::{Aws, AwsBuilder, OpenError};
