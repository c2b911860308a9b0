//! The two worst lock managers there can be. Every guarantee must hold with
//! either: the lock only makes it fast.

use std::time::Duration;

use async_trait::async_trait;

use crate::protocol::ItemId;
use crate::seams::{Lease, LockManager, Member, SeamError};

/// A lock manager that grants everybody everything, at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct YesLocks;

#[async_trait]
impl LockManager for YesLocks {
    async fn acquire(
        &self,
        keys: &[ItemId],
        _ttl: Duration,
        _wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let mut keys = keys.to_vec();
        keys.sort();
        Ok(Some(Lease { keys, owner: "anybody".into() }))
    }

    async fn renew(&self, _lease: &Lease, _ttl: Duration) -> Result<bool, SeamError> {
        Ok(true)
    }

    async fn release(&self, _lease: &Lease) -> Result<(), SeamError> {
        Ok(())
    }
}

/// A lock manager that is never there.
#[derive(Debug, Clone, Copy, Default)]
pub struct BrokenLocks;

#[async_trait]
impl LockManager for BrokenLocks {
    async fn acquire(
        &self,
        _keys: &[ItemId],
        _ttl: Duration,
        _wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        Err(SeamError::unavailable("locks"))
    }

    async fn join(&self, _member: &str, _ttl: Duration) -> Result<Vec<Member>, SeamError> {
        Err(SeamError::unavailable("locks"))
    }

    async fn leave(&self, _member: &str) -> Result<(), SeamError> {
        Err(SeamError::unavailable("locks"))
    }

    async fn renew(&self, _lease: &Lease, _ttl: Duration) -> Result<bool, SeamError> {
        Err(SeamError::unavailable("locks"))
    }

    async fn release(&self, _lease: &Lease) -> Result<(), SeamError> {
        Err(SeamError::unavailable("locks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_grants_and_keeps_everything_and_the_other_is_never_there() -> Result<(), SeamError>
    {
        let keys = ["b", "a"].map(|name| ItemId::new(name).expect("a name"));
        let second = Duration::from_secs(1);
        let lease = YesLocks.acquire(&keys, second, second).await?.expect("it says yes");
        assert_eq!(lease.keys, [keys[1].clone(), keys[0].clone()]);
        assert!(YesLocks.renew(&lease, second).await?);
        YesLocks.release(&lease).await?;
        assert!(BrokenLocks.acquire(&keys, second, second).await.is_err());
        assert!(BrokenLocks.join("me", second).await.is_err());
        assert!(BrokenLocks.leave("me").await.is_err());
        assert!(BrokenLocks.renew(&lease, second).await.is_err());
        assert!(BrokenLocks.release(&lease).await.is_err());
        Ok(())
    }
}
