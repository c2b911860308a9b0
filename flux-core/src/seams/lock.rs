//! Leases that keep workers out of each other's way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::SeamError;
use crate::protocol::ItemId;

/// A lock on several keys at once, until its time ends.
///
/// ```
/// use flux_core::ItemId;
/// use flux_core::seams::Lease;
///
/// let lease = Lease::new(vec![ItemId::new("hall")?, ItemId::new("bar")?], "worker 7");
/// assert_eq!(lease.keys[0].as_str(), "bar");
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The keys, sorted.
    pub keys: Vec<ItemId>,
    /// The name of the owner; random, so that nobody else's lease is ever
    /// released.
    pub owner: String,
}

impl Lease {
    /// A lease of `owner` on `keys`, which are sorted and each kept once.
    #[must_use]
    pub fn new(mut keys: Vec<ItemId>, owner: impl Into<String>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self { keys, owner: owner.into() }
    }
}

/// One of the workers on a queue, as a lock manager counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The time until it is forgotten, unless it renews its membership.
    pub ends_in: Duration,
}

impl Member {
    /// A member who is counted for so long.
    #[must_use]
    pub fn new(name: impl Into<String>, ends_in: Duration) -> Self {
        Self { name: name.into(), ends_in }
    }
}

/// Keys that somebody asked for while others had them, as they are asked for. A receiver
/// that falls behind loses the oldest.
pub type WantedReceiver = broadcast::Receiver<Arc<[ItemId]>>;

/// Grants leases. Nothing rests on it but throughput: a lease that is granted
/// twice, lost or never granted can't sell a unit twice.
///
/// ```
/// # use std::time::Duration;
/// use flux_core::{Backend, ItemId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locks = Backend::memory().locks;
/// let keys = [ItemId::new("hall")?];
/// let ttl = Duration::from_secs(5);
///
/// let lease = locks.acquire(&keys, ttl, Duration::ZERO).await?.expect("it is free");
/// assert_eq!(locks.acquire(&keys, ttl, Duration::ZERO).await?, None);
/// assert!(locks.renew(&lease, ttl).await?);
/// locks.release(&lease).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LockManager: Send + Sync + 'static {
    /// Leases all `keys` for `ttl`, or none of them, waiting up to `wait`
    /// while another owner has one. `None` when the wait ran out. A key
    /// given twice counts once.
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError>;

    /// Leases those of `keys` that are free, without waiting. `None` when none
    /// is. The others are [wanted](Self::wanted). By default it leases all of
    /// them or none.
    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        self.acquire(keys, ttl, Duration::ZERO).await
    }

    /// Hears of the keys that somebody wanted to [lease](Self::acquire_free) and others
    /// had, so that these can let go of them soon. Best effort: who misses one hears it
    /// at the next try. By default nobody hears anything.
    fn wanted(&self) -> WantedReceiver {
        broadcast::channel(1).1
    }

    /// Counts `member` among the workers for `ttl`, and returns all who are counted, in
    /// no order, and for how long as things are: so all hear at one time that one is
    /// gone. By default nobody knows of anybody else.
    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        Ok(vec![Member::new(member, ttl)])
    }

    /// Counts `member` no more.
    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        let _ = member;
        Ok(())
    }

    /// Makes the lease last `ttl` from this call on. `false` when the owner lost
    /// any key of it; the others stay leased until their time.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError>;

    /// Frees the keys that the lease's owner still has, and only those.
    async fn release(&self, lease: &Lease) -> Result<(), SeamError>;
}
