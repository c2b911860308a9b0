//! The two worst lock managers there can be. Every guarantee must hold with
//! either: the lock only makes it fast.

use std::time::Duration;

use async_trait::async_trait;

use crate::protocol::ItemId;
use crate::seams::{Lease, LockManager, SeamError};

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

    async fn renew(&self, _lease: &Lease, _ttl: Duration) -> Result<bool, SeamError> {
        Err(SeamError::unavailable("locks"))
    }

    async fn release(&self, _lease: &Lease) -> Result<(), SeamError> {
        Err(SeamError::unavailable("locks"))
    }
}
