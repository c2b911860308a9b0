//! Leases that keep workers out of each other's way.

use std::time::Duration;

use async_trait::async_trait;

use super::SeamError;
use crate::protocol::ItemId;

/// A lock on several keys at once, until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The keys, sorted.
    pub keys: Vec<ItemId>,
    /// Names the holder; random, so that nobody else's lease is ever released.
    pub owner: String,
}

/// Grants leases. Nothing rests on it but throughput: a lease that is granted
/// twice, lost or never granted can't sell a unit twice.
#[async_trait]
pub trait LockManager: Send + Sync + 'static {
    /// Leases all `keys` for `ttl`, or none of them, waiting up to `wait`
    /// while somebody else holds one. `None` when the wait ran out.
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError>;

    /// Leases those of `keys` that nobody holds, without waiting. `None` when
    /// somebody holds each of them. By default it is all of them or none.
    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        self.acquire(keys, ttl, Duration::ZERO).await
    }

    /// Makes the lease last `ttl` from now. `false` when any key of it is no
    /// longer ours; the others stay leased until their time.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError>;

    /// Frees the keys that are still ours, and only those.
    async fn release(&self, lease: &Lease) -> Result<(), SeamError>;
}
