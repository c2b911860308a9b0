//! How items leave a ledger: the state of [`Removals`](crate::seams::Removals), without a
//! disk. Whoever calls it writes down what it returns, under the same lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::ledger::{Entry, Ledger};
use crate::protocol::{
    Commit, CommitOutcome, Effect, Expect, ItemId, Money, Order, OrderStatus, OrderWrite, Stock,
    Timestamp,
};
use crate::seams::{
    ArchiveId, Deletion, Digest, Leaving, RemovalRefused, Removed, Sealing, Tombstone,
};

/// The items that are leaving, and what is kept of those that left.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    leaving: HashMap<ItemId, Arc<Leaving>, RandomState>,
    tombstones: BTreeMap<ItemId, Tombstone>,
    /// The item that left last.
    last: Option<ItemId>,
}

impl Departures {
    /// What is kept of items, as it is found when a store opens.
    #[cfg(feature = "embedded")]
    pub(crate) fn restore(leaving: Vec<Leaving>, tombstones: Vec<Tombstone>) -> Self {
        let mut departures = Self::default();
        leaving.into_iter().for_each(|leaving| departures.seal(&Arc::new(leaving)));
        tombstones.into_iter().for_each(|tombstone| departures.bury(tombstone));
        departures
    }

    fn seal(&mut self, leaving: &Arc<Leaving>) {
        for item in &leaving.items {
            self.leaving.insert(item.clone(), leaving.clone());
        }
    }

    fn bury(&mut self, tombstone: Tombstone) {
        let last = self.last.as_ref().and_then(|last| self.tombstones.get(last));
        if last.is_none_or(|last| last.archived_at <= tombstone.archived_at) {
            self.last = Some(tombstone.item.clone());
        }
        self.leaving.remove(&tombstone.item);
        self.tombstones.insert(tombstone.item.clone(), tombstone);
    }

    /// Whether an item is leaving.
    pub(crate) fn has(&self, item: &ItemId) -> bool {
        !self.leaving.is_empty() && self.leaving.contains_key(item)
    }

    /// Whether an order is on an item that is leaving, so that it stays as it is.
    pub(crate) fn hold(&self, order: &Order) -> bool {
        !self.leaving.is_empty() && order.lines.iter().any(|line| self.has(&line.item))
    }

    /// Whether an item is leaving or has left, so that its id can't be used.
    pub(crate) fn bars(&self, item: &ItemId) -> bool {
        self.has(item) || self.tombstones.contains_key(item)
    }

    /// Refuses a commit that writes an order which is there and has a line on an item that
    /// is leaving: its archive may have it already.
    pub(crate) fn check(&self, commit: &Commit) -> Result<(), CommitOutcome> {
        if self.leaving.is_empty() {
            return Ok(());
        }
        let is_barred =
            |write: &&OrderWrite| write.expect != Expect::Absent || write.effect() != Effect::None;
        let lines = commit.writes.iter().filter(is_barred).flat_map(|w| w.order.lines.iter());
        let mut barred: Vec<ItemId> =
            lines.filter(|line| self.has(&line.item)).map(|line| line.item.clone()).collect();
        barred.sort_unstable();
        barred.dedup();
        if barred.is_empty() { Ok(()) } else { Err(CommitOutcome::Fenced(barred)) }
    }

    /// Those that go into one archive.
    fn of_archive(&self, archive: ArchiveId) -> Option<&Arc<Leaving>> {
        self.leaving.values().find(|leaving| leaving.archive == archive)
    }

    pub(crate) fn tombstones(&self, after: Option<&ItemId>, limit: usize) -> Vec<Tombstone> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let rest = self.tombstones.range::<ItemId, _>((from, Unbounded));
        rest.take(limit).map(|(_, tombstone)| tombstone.clone()).collect()
    }

    pub(crate) fn buried(&self) -> (usize, Option<Tombstone>) {
        let last = self.last.as_ref().and_then(|last| self.tombstones.get(last));
        let last = last.or_else(|| self.tombstones.values().next_back());
        (self.tombstones.len(), last.cloned())
    }
}

/// Whether a step was taken now, so that it is to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    Done,
    Before,
}

/// The answer to a step, and what of it is to be written down.
pub(crate) enum Sealed {
    /// Write it down for each of its items.
    Now(Arc<Leaving>),
    /// Nothing changed.
    Before(Sealing),
}

impl Ledger {
    /// As [`Removals::seal`](crate::seams::Removals::seal).
    pub(crate) fn seal(&mut self, items: &[ItemId], archive: ArchiveId, now: Timestamp) -> Sealed {
        let asked = Leaving::new(archive, items.to_vec(), now);
        let refused = |why| Sealed::Before(Sealing::Refused(why));
        let departures = &self.departures;
        // One at a time: an order that owns nothing may be on items of both, and in the
        // files of one already.
        if let Some(leaving) = departures.leaving.values().next() {
            return match leaving.items == asked.items {
                true => Sealed::Before(Sealing::Sealed(Leaving::clone(leaving))),
                false => refused(RemovalRefused::Leaving(leaving.items.clone())),
            };
        }
        let buried = asked.items.iter().filter_map(|id| departures.tombstones.get(id).cloned());
        let buried: Vec<Tombstone> = buried.collect();
        if !buried.is_empty() && buried.len() == asked.items.len() {
            return Sealed::Before(Sealing::Archived(buried));
        }
        if let Some(one) = buried.into_iter().next() {
            return refused(RemovalRefused::Archived(one));
        }
        for id in &asked.items {
            let Some(item) = self.item(id) else {
                return refused(RemovalRefused::UnknownItem(id.clone()));
            };
            if item.spec.closes_at.is_none_or(|closes| now < closes) {
                return refused(RemovalRefused::NotClosed(id.clone()));
            }
            if item.held > 0 {
                return refused(RemovalRefused::Held { item: id.clone(), units: item.held });
            }
        }
        for id in &asked.items {
            // G7: who decided by an earlier claim hears that it counts no more.
            self.fence(id);
        }
        let leaving = Arc::new(asked);
        self.departures.seal(&leaving);
        Sealed::Now(leaving)
    }

    /// As [`Removals::unseal`](crate::seams::Removals::unseal); returns the items to write
    /// down as sealed no more.
    pub(crate) fn unseal(&mut self, archive: ArchiveId) -> Vec<ItemId> {
        let leaving = self.departures.of_archive(archive).cloned();
        let Some(leaving) = leaving.filter(|leaving| leaving.filed.is_none()) else {
            return Vec::new();
        };
        for item in &leaving.items {
            self.departures.leaving.remove(item);
        }
        leaving.items.clone()
    }

    /// As [`Removals::file`](crate::seams::Removals::file); returns what to write down for
    /// each of its items, if it changed.
    pub(crate) fn file(
        &mut self,
        archive: ArchiveId,
        digest: Digest,
    ) -> Result<Option<Arc<Leaving>>, String> {
        let leaving = self.departures.of_archive(archive);
        let leaving = leaving.ok_or_else(|| format!("nothing goes into archive {archive}"))?;
        match leaving.filed {
            Some(filed) if filed == digest => Ok(None),
            Some(_) => Err(format!("archive {archive} is filed with another checksum")),
            None => {
                let filed = Arc::new(Leaving { filed: Some(digest), ..Leaving::clone(leaving) });
                self.departures.seal(&filed);
                Ok(Some(filed))
            }
        }
    }

    fn filed(&self, archive: ArchiveId) -> Result<Arc<Leaving>, String> {
        let leaving = self.departures.of_archive(archive);
        let filed = leaving.filter(|leaving| leaving.filed.is_some()).cloned();
        filed.ok_or_else(|| format!("archive {archive} is not filed"))
    }

    /// As [`Removals::take_out`](crate::seams::Removals::take_out); returns the numbers of
    /// the orders whose rows are to be removed.
    pub(crate) fn take_out(
        &mut self,
        archive: ArchiveId,
        orders: &[Order],
    ) -> Result<Vec<u64>, String> {
        let leaving = self.filed(archive)?;
        let goes = |item: &ItemId| leaving.items.binary_search(item).is_ok();
        // A rejected order may have been forgotten since, and its id used anew.
        let is_another = |entry: Entry, order: &Order| {
            order.status() == OrderStatus::Rejected && entry.status() != OrderStatus::Rejected
        };
        for order in orders {
            let Some(entry) = self.entry(order.id).filter(|e| !is_another(*e, order)) else {
                continue;
            };
            if !order.lines.iter().any(|line| goes(&line.item)) {
                return Err(format!("order {} does not go into archive {archive}", order.id));
            }
            let stays = order.lines.iter().find(|line| !goes(&line.item));
            if let (Some(line), true) = (stays, order.status().owns_stock()) {
                return Err(format!("order {} owns units of {}", order.id, line.item));
            }
            if entry.money() != order.money() || order.money() == Money::Owed {
                return Err(format!("the money of order {} is not what it was", order.id));
            }
            if entry.status() != order.status() {
                let (was, is) = (order.status(), entry.status());
                return Err(format!("order {} is {is}, and {was} in its archive", order.id));
            }
        }
        let mut gone = Vec::with_capacity(orders.len());
        for order in orders {
            if self.entry(order.id).is_some_and(|entry| is_another(entry, order)) {
                continue;
            }
            let Some(entry) = self.drop_order(order) else { continue };
            gone.push(Entry::seq(entry));
        }
        Ok(gone)
    }

    /// As [`Removals::bury`](crate::seams::Removals::bury).
    pub(crate) fn bury(
        &mut self,
        archive: ArchiveId,
        orders: u64,
    ) -> Result<(Vec<Tombstone>, Now), String> {
        if self.departures.of_archive(archive).is_none() {
            let buried = self.departures.tombstones.values();
            let buried: Vec<_> = buried.filter(|t| t.archive == archive).cloned().collect();
            if !buried.is_empty() {
                return Ok((buried, Now::Before));
            }
        }
        let leaving = self.filed(archive)?;
        for id in &leaving.items {
            if let Some((spec, stock)) = self.stock(id)
                && stock != Stock::full(&spec)
            {
                return Err(format!("orders own units of {id}"));
            }
        }
        let bury = |item: &ItemId| Tombstone::new(item.clone(), archive, leaving.since, orders);
        let tombstones: Vec<Tombstone> = leaving.items.iter().map(bury).collect();
        for tombstone in &tombstones {
            self.remove_item(&tombstone.item);
            self.departures.bury(tombstone.clone());
        }
        Ok((tombstones, Now::Done))
    }

    /// As [`Removals::delete`](crate::seams::Removals::delete).
    pub(crate) fn delete(&mut self, id: &ItemId) -> Deletion {
        if let Some(leaving) = self.departures.leaving.get(id) {
            return Deletion::Refused(RemovalRefused::Leaving(leaving.items.clone()));
        }
        let Some(item) = self.item(id) else {
            return match self.departures.tombstones.remove(id) {
                Some(tombstone) => Deletion::Forgotten(tombstone),
                None => Deletion::Refused(RemovalRefused::UnknownItem(id.clone())),
            };
        };
        if item.held > 0 {
            let (item, units) = (id.clone(), item.held);
            return Deletion::Refused(RemovalRefused::Held { item, units });
        }
        if self.ever_sold(id) {
            return Deletion::Refused(RemovalRefused::Sold(id.clone()));
        }
        self.remove_item(id);
        Deletion::Deleted
    }
}

impl From<&Tombstone> for Removed {
    fn from(tombstone: &Tombstone) -> Self {
        Self::new(tombstone.item.clone(), Some(tombstone.clone()))
    }
}
