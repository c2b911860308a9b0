//! How items leave the file.

use std::sync::Arc;

use async_trait::async_trait;
use redb::TableDefinition;

use super::SERVICE;
use super::journal::ItemChangeRow;
use super::rows::{DepartureRow, departure_row, removed_row};
use super::store::{EmbeddedStore, Inner, SEQ_BYTES};
use crate::backends::state::removals::{Now, Sealed};
use crate::protocol::{ItemId, Order, Timestamp};
use crate::seams::{
    ArchiveId, Deletion, Digest, Leaving, Removals, Removed, Sealing, SeamError, Tombstone,
};

/// Items that are leaving, and tombstones of those that left, by item.
pub(crate) const DEPARTURES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("departures");

fn broken(reason: String) -> SeamError {
    SeamError::broken(SERVICE, reason)
}

impl EmbeddedStore {
    /// Writes down what is so of departures, and returns the group that has it. Whoever
    /// shows it waits for that, as for a definition.
    fn note(
        &self,
        inner: &mut Inner,
        rows: Vec<(ItemId, Option<DepartureRow>)>,
        removed: &[Removed],
    ) -> u64 {
        let rows = rows
            .into_iter()
            .map(|(item, row)| (item.as_str().to_owned(), row.map(|row| departure_row(&row))));
        let rows: Vec<_> = rows.collect();
        let now = inner.now;
        let bytes = rows.iter().filter_map(|(_, row)| Some(row.as_ref()?.len())).sum();
        inner.put_in = self.journal.append(bytes, |group| {
            group.departures.extend(rows);
            for gone in removed {
                let row = ItemChangeRow::Removed(removed_row(gone));
                group.change_item(gone.item.as_str().to_owned(), row);
            }
            group.now = now;
        });
        inner.put_in
    }

    /// Writes down that items are leaving.
    fn note_leaving(&self, inner: &mut Inner, leaving: &Arc<Leaving>) -> u64 {
        let row = || Some(DepartureRow::Leaving(Leaving::clone(leaving)));
        let rows = leaving.items.iter().map(|item| (item.clone(), row())).collect();
        self.note(inner, rows, &[])
    }
}

#[async_trait]
impl Removals for EmbeddedStore {
    async fn seal(
        &self,
        items: &[ItemId],
        archive: ArchiveId,
        now: Timestamp,
    ) -> Result<Sealing, SeamError> {
        self.journal.ready()?;
        let (sealing, group) = {
            let mut inner = self.lock();
            inner.now = inner.now.max(now);
            match inner.ledger.seal(items, archive, now) {
                Sealed::Now(leaving) => {
                    let group = self.note_leaving(&mut inner, &leaving);
                    (Sealing::Sealed(Leaving::clone(&leaving)), group)
                }
                Sealed::Before(sealing) => (sealing, inner.put_in),
            }
        };
        // With it, all that was written before is in the file.
        self.journal.durable(group).await?;
        Ok(sealing)
    }

    async fn unseal(&self, archive: ArchiveId) -> Result<(), SeamError> {
        self.journal.ready()?;
        let group = {
            let mut inner = self.lock();
            let items = inner.ledger.unseal(archive);
            let rows = items.into_iter().map(|item| (item, None)).collect();
            self.note(&mut inner, rows, &[])
        };
        self.journal.durable(group).await
    }

    async fn file(&self, archive: ArchiveId, digest: Digest) -> Result<(), SeamError> {
        self.journal.ready()?;
        let group = {
            let mut inner = self.lock();
            match inner.ledger.file(archive, digest).map_err(broken)? {
                Some(leaving) => self.note_leaving(&mut inner, &leaving),
                None => inner.put_in,
            }
        };
        self.journal.durable(group).await
    }

    async fn take_out(&self, archive: ArchiveId, orders: &[Order]) -> Result<(), SeamError> {
        self.journal.ready()?;
        let group = {
            let mut inner = self.lock();
            let gone = inner.ledger.take_out(archive, orders).map_err(broken)?;
            let bytes = gone.len() * SEQ_BYTES;
            self.journal.append(bytes, |group| group.forgotten.extend(gone))
        };
        self.journal.durable(group).await
    }

    async fn bury(&self, archive: ArchiveId, orders: u64) -> Result<Vec<Tombstone>, SeamError> {
        self.journal.ready()?;
        let (tombstones, group) = {
            let mut inner = self.lock();
            let (tombstones, now) = inner.ledger.bury(archive, orders).map_err(broken)?;
            let group = match now {
                Now::Done => {
                    let row = |tombstone: &Tombstone| {
                        let row = DepartureRow::Archived(tombstone.clone());
                        (tombstone.item.clone(), Some(row))
                    };
                    let removed: Vec<Removed> = tombstones.iter().map(Removed::from).collect();
                    self.note(&mut inner, tombstones.iter().map(row).collect(), &removed)
                }
                Now::Before => inner.put_in,
            };
            (tombstones, group)
        };
        self.journal.durable(group).await?;
        Ok(tombstones)
    }

    async fn delete(&self, item: &ItemId) -> Result<Deletion, SeamError> {
        self.journal.ready()?;
        let (deletion, group) = {
            let mut inner = self.lock();
            let deletion = inner.ledger.delete(item);
            let group = match &deletion {
                Deletion::Deleted => {
                    self.note(&mut inner, vec![], &[Removed::new(item.clone(), None)])
                }
                Deletion::Forgotten(_) => self.note(&mut inner, vec![(item.clone(), None)], &[]),
                Deletion::Refused(_) => inner.put_in,
            };
            (deletion, group)
        };
        self.journal.durable(group).await?;
        Ok(deletion)
    }

    async fn tombstones(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, SeamError> {
        self.look(|ledger| ledger.departures().tombstones(after, limit)).await
    }

    async fn buried(&self) -> Result<(usize, Option<Tombstone>), SeamError> {
        self.look(|ledger| ledger.departures().buried()).await
    }
}
