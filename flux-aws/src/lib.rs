//! The Flux protocol on SQS, DynamoDB and Redis.
//!
//! The backends are not here yet; the seams they will plug into are
//! [`flux_core::seams`].
