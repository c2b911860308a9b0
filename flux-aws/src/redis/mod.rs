//! Leases and outcomes over Redis (or Valkey): [`RedisLocks`] keeps workers
//! out of each other's way, [`RedisBus`] tells every process what was decided.
//! Neither carries a guarantee, so a Redis that is slow, wiped or away costs
//! time and nothing else.
//!
//! ```no_run
//! use flux_aws::bill::Meter;
//! use flux_aws::redis::{Redis, RedisSettings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), flux_core::InvalidInput> {
//! let settings = RedisSettings::url("rediss://:secret@cache.example:6379").prefix("spring");
//! let redis = Redis::open(settings, Meter::default())?;
//! let (locks, bus) = (redis.locks(), redis.bus());
//! # Ok(())
//! # }
//! ```
//!
//! # When Redis is away
//! Every command has 500 ms, a connection one second. After a failure nothing
//! is asked of Redis for 0.1 to 1 s, longer with each failure in a row; calls
//! fail at once meanwhile, without effect. Then one probe by a task of its own
//! decides whether it is back. One warning says that it went, one line that it
//! returned. Metrics: the gauge `flux_redis_up` and the counters
//! `flux_redis_failures_total`, `flux_redis_leases_lost_total` (keys that were
//! no longer ours) and `flux_redis_junk_total` (messages nobody could read).
//!
//! What is accepted meanwhile is noted in the store, so that every process knows it: on
//! DynamoDB a write unit for each order, and one more under an id that a caller chose. What
//! was accepted before, and is not decided, only the process that accepted it knows.
//!
//! # Redis Cluster
//! All lease keys of one prefix carry it as their hash tag and so live in one
//! slot, because one script leases several keys at once. Sales that should
//! spread over a cluster get a prefix each. The client speaks to one node and
//! follows no redirection: give it the address of the one that owns the slot,
//! or a server without cluster mode, which serves some 100,000 leases a second.

mod accepted;
mod bus;
mod ear;
mod link;
mod locks;
mod settings;
mod wire;

pub use accepted::Accepted;
pub use bus::RedisBus;
pub use link::Redis;
pub use locks::RedisLocks;
pub use settings::{RedisServerBuilder, RedisSettings};
