//! The change feed in the file: the writer's side, which puts the changes of a group in
//! its transaction, and the readers'.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use tokio::time::timeout;

use super::SERVICE;
use super::journal::{Group, ItemChange, ItemChangeRow, Journal, OrderRows, Shared};
use super::rows::{OrderRow, RowError, read_item, read_removed, seal_changes, take_changes};
use super::store::{ReadError, read_file};
use crate::protocol::{ConsumerName, Timestamp};
use crate::seams::{
    CONSUMERS_MAX, Change, ChangeFeed, ChangePage, Changed, Consumer, Cursor, SeamError,
};

/// Changes that were written together, by the number of the first.
pub(crate) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// How far each consumer came.
pub(crate) const CONSUMERS: TableDefinition<'_, &str, u64> = TableDefinition::new("consumers");
/// The number of the first change.
pub(crate) const FIRST_CHANGE: u64 = 1;

/// Most changes of one row.
pub(super) const ROW_CHANGES_MAX: usize = 512;
/// Most bytes of a row with more than one change: with what redb adds, two of its pages.
const ROW_BYTES_MAX: usize = (8 << 10) - 64;
/// Most bytes that a change takes in a row beside its own.
const CHANGE_HEAD_MAX: usize = 6;
/// Rows that a group removes at most, beside two for each that it adds.
const REMOVED_MAX: usize = 4;
/// Most changes of one read.
const READ_MAX: usize = 10_000;

const ORDER: u8 = 0;
const ITEM: u8 = 1;
const REMOVED: u8 = 2;

/// How long changes are kept, and how many of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepChanges {
    pub(crate) keep: Duration,
    pub(crate) max: u64,
}

impl KeepChanges {
    pub(crate) const DEFAULT: Self =
        Self { keep: Duration::from_secs(7 * 24 * 3600), max: 20_000_000 };
}

/// The feed as the thread that writes knows it.
#[derive(Debug)]
pub(crate) struct FeedWriter {
    keep: KeepChanges,
    /// The number of the next change.
    next: u64,
    /// The first row, and when it was written.
    oldest: Option<(u64, Timestamp)>,
    /// The newest time that the engine told.
    now: Timestamp,
}

impl FeedWriter {
    /// Takes up the feed of a table where the row from `first` on would be its first.
    pub(super) fn of(
        table: &impl ReadableTable<u64, &'static [u8]>,
        keep: KeepChanges,
        first: u64,
    ) -> Result<Self, ReadError> {
        let row_at = |row: &[u8]| take_changes(row).map(|(at, changes)| (at, changes.count()));
        let oldest = table.first().map_err(redb::Error::from)?;
        let newest = table.last().map_err(redb::Error::from)?;
        let wrong = |number: u64| move |error| ReadError::Changes(number, error);
        let oldest = match oldest {
            Some((number, row)) => {
                let number = number.value();
                Some((number, row_at(row.value()).map_err(wrong(number))?.0))
            }
            None => None,
        };
        let (next, now) = match newest {
            Some((number, row)) => {
                let number = number.value();
                let (at, changes) = row_at(row.value()).map_err(wrong(number))?;
                (number + changes as u64, at)
            }
            None => (first, Timestamp::default()),
        };
        Ok(Self { keep, next, oldest, now })
    }

    /// The number of the newest change.
    pub(crate) fn newest(&self) -> u64 {
        self.next - 1
    }

    /// Writes the changes of a group, and removes some whose time is over.
    pub(super) fn write(
        &mut self,
        group: &Group,
        txn: &WriteTransaction,
    ) -> Result<(), redb::Error> {
        if group.orders.is_empty() && group.items.is_empty() {
            return Ok(());
        }
        self.now = self.now.max(group.now);
        let mut table = txn.open_table(CHANGES)?;
        let mut row = Row::new(self.now);
        let mut added = 0;
        for (kind, change) in changes(group) {
            if row.is_full_with(change) {
                added += 1;
                self.append(&mut table, &mut row)?;
            }
            row.add(kind, change);
        }
        if row.changes > 0 {
            added += 1;
            self.append(&mut table, &mut row)?;
        }
        self.remove_old(&mut table, 2 * added + REMOVED_MAX)
    }

    fn append(
        &mut self,
        table: &mut Table<'_, u64, &'static [u8]>,
        row: &mut Row,
    ) -> Result<(), redb::Error> {
        let (bytes, changes) = row.take();
        table.insert(self.next, bytes)?;
        if self.oldest.is_none() {
            self.oldest = Some((self.next, self.now));
        }
        self.next += changes;
        Ok(())
    }

    /// Removes rows whose time is over, or that are too many, but never the last, by
    /// which the next open knows the number of the next change.
    fn remove_old(
        &mut self,
        table: &mut Table<'_, u64, &'static [u8]>,
        most: usize,
    ) -> Result<(), redb::Error> {
        for _ in 0..most {
            let Some((first, at)) = self.oldest else { break };
            // Written before the engine told the time: its time counts from now on.
            let at = if at == Timestamp::default() { self.now } else { at };
            self.oldest = Some((first, at));
            let is_over = at + self.keep.keep <= self.now;
            if !is_over && self.next - first <= self.keep.max || table.len()? == 1 {
                break;
            }
            table.remove(first)?;
            self.oldest = match table.first()? {
                // Its own bytes: whatever they say, the row is the next to go.
                Some((number, row)) => {
                    let at = take_changes(row.value()).map_or(self.now, |(at, _)| at);
                    Some((number.value(), at))
                }
                None => None,
            };
        }
        Ok(())
    }
}

/// The changes of a group, in the order they were made.
fn changes(group: &Group) -> impl Iterator<Item = (u8, &[u8])> {
    fn of_item(item: &ItemChange) -> (u8, &[u8]) {
        match &item.row {
            ItemChangeRow::Put(row) => (ITEM, row.as_slice()),
            ItemChangeRow::Removed(row) => (REMOVED, row.as_slice()),
        }
    }
    let mut items = group.items.iter().peekable();
    (0..=group.orders.len()).flat_map(move |at| {
        let here = std::iter::from_fn(|| items.next_if(|item| item.after <= at));
        let here: Vec<_> = here.map(of_item).collect();
        let orders = group.orders.get(at).into_iter().flat_map(OrderRows::written);
        here.into_iter().chain(orders.map(|row| (ORDER, row)))
    })
}

/// A row that is being put together.
struct Row {
    at: Timestamp,
    bytes: Vec<u8>,
    changes: u64,
}

impl Row {
    fn new(at: Timestamp) -> Self {
        Self { at, bytes: Vec::new(), changes: 0 }
    }

    fn add(&mut self, kind: u8, change: &[u8]) {
        if self.changes == 0 {
            super::rows::begin_changes(self.at, &mut self.bytes);
        }
        super::rows::put_change(kind, change, &mut self.bytes);
        self.changes += 1;
    }

    /// Whether it has no room for one more change.
    fn is_full_with(&self, change: &[u8]) -> bool {
        let bytes = self.bytes.len() + change.len() + CHANGE_HEAD_MAX;
        self.changes as usize >= ROW_CHANGES_MAX || self.changes > 0 && bytes > ROW_BYTES_MAX
    }

    fn take(&mut self) -> (&[u8], u64) {
        seal_changes(&mut self.bytes);
        let changes = std::mem::take(&mut self.changes);
        (&self.bytes, changes)
    }
}

/// The [`ChangeFeed`] of an [`EmbeddedStore`](super::EmbeddedStore).
#[derive(Debug)]
pub(super) struct EmbeddedFeed {
    journal: Arc<Journal>,
    /// Held by whoever adds a consumer.
    adding: tokio::sync::Mutex<()>,
}

impl EmbeddedFeed {
    pub(super) fn new(journal: Arc<Journal>) -> Self {
        Self { journal, adding: tokio::sync::Mutex::default() }
    }

    /// The number in a cursor.
    fn number(&self, cursor: &Cursor) -> Result<u64, SeamError> {
        let number = cursor.0.parse().ok();
        let known = number.filter(|number| *number <= self.journal.newest_change());
        known.ok_or(SeamError::UnknownCursor { service: SERVICE })
    }

    async fn page(&self, after: Option<u64>, limit: usize) -> Result<ChangePage, SeamError> {
        let (newest, limit) = (self.journal.newest_change(), limit.min(READ_MAX));
        let read = read_file(&self.journal, move |file| read(file, after, newest, limit)).await?;
        read.ok_or(SeamError::ChangesGone { service: SERVICE })
    }

    async fn set(&self, name: &ConsumerName, after: Option<u64>) -> Result<(), SeamError> {
        let name = name.as_str().to_owned();
        let change = |group: &mut Group| group.consumers.push((name, after));
        let group = self.journal.append(size_of::<u64>(), change);
        self.journal.durable(group).await
    }
}

fn cursor(number: u64) -> Cursor {
    Cursor(number.to_string())
}

/// The changes behind one up to `newest`, which is in the file, or `None` if some of them are
/// gone. There may be newer ones already, which nobody was told of: their cursors would be
/// unknown.
fn read(
    shared: &Shared,
    after: Option<u64>,
    newest: u64,
    limit: usize,
) -> Result<Option<ChangePage>, ReadError> {
    let txn = shared.read()?;
    let table = txn.open_table(CHANGES).map_err(redb::Error::from)?;
    let first = table.first().map_err(redb::Error::from)?.map(|(number, _)| number.value());
    let first = first.unwrap_or(newest + 1);
    let after = after.unwrap_or(first - 1);
    if after + 1 < first {
        return Ok(None);
    }
    // The row that has the next change begins with it, or before.
    let begin = table.range(..=after + 1).map_err(redb::Error::from)?.next_back().transpose();
    let begin = begin.map_err(redb::Error::from)?.map_or(first, |(number, _)| number.value());
    let mut changes = Vec::new();
    for row in table.range(begin..).map_err(redb::Error::from)? {
        let (number, row) = row.map_err(redb::Error::from)?;
        let number = number.value();
        let wrong = |error| ReadError::Changes(number, error);
        let (at, of_row) = take_changes(row.value()).map_err(wrong)?;
        for (number, change) in (number..).zip(of_row) {
            if number <= after {
                continue;
            }
            if changes.len() == limit || number > newest {
                return Ok(Some(page(changes, after)));
            }
            let changed = change.and_then(|(kind, change)| changed(kind, change)).map_err(wrong)?;
            changes.push(Change::new(cursor(number), at, changed));
        }
    }
    Ok(Some(page(changes, after)))
}

fn page(changes: Vec<Change>, after: u64) -> ChangePage {
    let next = changes.last().map_or_else(|| cursor(after), |last| last.cursor.clone());
    ChangePage::new(changes, next)
}

fn changed(kind: u8, change: &[u8]) -> Result<Changed, RowError> {
    match kind {
        ORDER => Ok(Changed::Order(OrderRow::read(change)?.order()?)),
        ITEM => Ok(Changed::Item(read_item(change)?)),
        REMOVED => Ok(Changed::Removed(read_removed(change)?)),
        other => Err(RowError::Field(other)),
    }
}

#[async_trait]
impl ChangeFeed for EmbeddedFeed {
    async fn changes(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangePage, SeamError> {
        self.journal.readable()?;
        let after = after.map(|cursor| self.number(cursor)).transpose()?;
        let page = self.page(after, limit).await?;
        if limit == 0 || !page.changes.is_empty() {
            return Ok(page);
        }
        // It was at the newest change, which may have been left behind since.
        let newest = self.number(&page.next)?;
        match timeout(wait, self.journal.changed_since(newest)).await {
            Ok(changed) => changed?,
            Err(_) => return Ok(page),
        }
        self.page(Some(newest), limit).await
    }

    async fn newest(&self) -> Result<Cursor, SeamError> {
        self.journal.readable()?;
        Ok(cursor(self.journal.newest_change()))
    }

    async fn keep_cursor(&self, consumer: &Consumer) -> Result<(), SeamError> {
        self.journal.ready()?;
        let after = self.number(&consumer.after)?;
        let _adding = self.adding.lock().await;
        let known = self.consumers().await?;
        let is_new = known.iter().all(|known| known.name != consumer.name);
        if is_new && known.len() >= CONSUMERS_MAX {
            return Err(SeamError::TooManyConsumers { service: SERVICE });
        }
        self.set(&consumer.name, Some(after)).await
    }

    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError> {
        self.journal.readable()?;
        read_file(&self.journal, |shared| {
            let txn = shared.read()?;
            let table = txn.open_table(CONSUMERS).map_err(redb::Error::from)?;
            let mut consumers = Vec::new();
            for row in table.iter().map_err(redb::Error::from)? {
                let (name, after) = row.map_err(redb::Error::from)?;
                let name = ConsumerName::new(name.value())
                    .map_err(|error| ReadError::Changes(after.value(), error.into()))?;
                consumers.push(Consumer::new(name, cursor(after.value())));
            }
            Ok(consumers)
        })
        .await
    }

    async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, SeamError> {
        let _adding = self.adding.lock().await;
        let is_known = self.cursor_of(name).await?.is_some();
        if is_known {
            self.set(name, None).await?;
        }
        Ok(is_known)
    }
}
