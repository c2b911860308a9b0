//! How items leave the store in memory.

use async_trait::async_trait;

use super::store::{MemoryStore, SERVICE};
use crate::backends::state::removals::{Now, Sealed};
use crate::protocol::{ItemId, Order, Timestamp};
use crate::seams::{
    ArchiveId, Deletion, Digest, Leaving, Removals, Removed, Sealing, SeamError, Tombstone,
};

fn broken(reason: String) -> SeamError {
    SeamError::broken(SERVICE, reason)
}

#[async_trait]
impl Removals for MemoryStore {
    async fn seal(
        &self,
        items: &[ItemId],
        archive: ArchiveId,
        now: Timestamp,
    ) -> Result<Sealing, SeamError> {
        Ok(match self.lock().ledger.seal(items, archive, now) {
            Sealed::Now(leaving) => Sealing::Sealed(Leaving::clone(&leaving)),
            Sealed::Before(sealing) => sealing,
        })
    }

    async fn unseal(&self, archive: ArchiveId) -> Result<(), SeamError> {
        self.lock().ledger.unseal(archive);
        Ok(())
    }

    async fn file(&self, archive: ArchiveId, digest: Digest) -> Result<(), SeamError> {
        self.lock().ledger.file(archive, digest).map(drop).map_err(broken)
    }

    async fn take_out(&self, archive: ArchiveId, orders: &[Order]) -> Result<(), SeamError> {
        let mut inner = self.lock();
        let gone = inner.ledger.take_out(archive, orders).map_err(broken)?;
        inner.forget(&gone);
        Ok(())
    }

    async fn bury(&self, archive: ArchiveId, orders: u64) -> Result<Vec<Tombstone>, SeamError> {
        let mut inner = self.lock();
        let (tombstones, now) = inner.ledger.bury(archive, orders).map_err(broken)?;
        for tombstone in tombstones.iter().filter(|_| now == Now::Done) {
            self.feed.removed(Removed::from(tombstone));
        }
        Ok(tombstones)
    }

    async fn delete(&self, item: &ItemId) -> Result<Deletion, SeamError> {
        let mut inner = self.lock();
        let deletion = inner.ledger.delete(item);
        if deletion == Deletion::Deleted {
            self.feed.removed(Removed::new(item.clone(), None));
        }
        Ok(deletion)
    }

    async fn tombstones(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, SeamError> {
        Ok(self.lock().ledger.departures().tombstones(after, limit))
    }

    async fn buried(&self) -> Result<(usize, Option<Tombstone>), SeamError> {
        Ok(self.lock().ledger.departures().buried())
    }
}
