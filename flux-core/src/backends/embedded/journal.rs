//! Group commit: one thread writes what arrived while its last write was on its
//! way to the disk, in one transaction. Callers append and await durability.
//!
//! Groups become durable in order, so whatever rests on an append that is not
//! durable yet can't become durable before it.

use std::error::Error;
use std::ops::{Bound, Deref, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase, Table, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use super::feed::{CONSUMERS, FeedWriter};
use super::removals::DEPARTURES;
use super::{SERVICE, cause};
use crate::clock::ClockReference;
use crate::protocol::Timestamp;
use crate::seams::SeamError;

/// Format version, generation, crashes, whether it was closed, and how many
/// orders were ever numbered and forgotten.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In [`META`]: 1 once a close has written everything, 0 from the next open on.
pub(crate) const CLEAN: &str = "clean";
/// In [`META`]: the boot that the clock was kept in, and its moment by the clock.
pub(crate) const CLOCK: [&str; 2] = ["boot", "booted_at"];
/// Definitions, by item id.
pub(crate) const ITEMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("items");
/// In [`META`]: the version of the tables.
pub(crate) const FORMAT: &str = "format";
/// The version since which rows of orders may be missing: those forgotten.
pub(crate) const FORMAT_WITH_GAPS: u64 = 2;
/// The version since which there is a feed of changes, and rows may have fields. An
/// earlier program would sell on and leave gaps in the feed.
pub(crate) const FORMAT_WITH_CHANGES: u64 = 3;
/// In [`META`]: the number of the next new order, when orders were last forgotten.
pub(crate) const NUMBERED: &str = "numbered";
/// In [`META`]: the number of orders that were forgotten.
pub(crate) const FORGOTTEN: &str = "forgotten";
/// In [`META`]: the number of the first change in the feed, where it began anew.
pub(crate) const CHANGES_FROM: &str = "changes_from";
/// One row for each order that is not forgotten, by sequence number.
pub(crate) const ORDERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("orders");
/// Messages sent together, by the sequence number of the first.
pub(crate) const QUEUE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queue");
/// Dead letters, by the sequence number of the message. One that is here is
/// not in the queue any more, even if its row still is.
pub(crate) const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");

/// Most bytes that may wait for the writer; more is refused.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Time that reads on their way have to end before the file is closed.
const READS_END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Rows that the writer writes at once.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) orders: Vec<OrderRows>,
    /// Orders whose rows are removed, some of them perhaps of this group.
    pub(crate) forgotten: Vec<u64>,
    pub(crate) items: Vec<ItemChange>,
    /// Rows of items that are leaving or left; `None` removes the row; so below.
    pub(crate) departures: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) queue: Vec<(u64, Option<Vec<u8>>)>,
    pub(crate) dead: Vec<(u64, Option<Vec<u8>>)>,
    pub(crate) clock: Option<ClockReference>,
    /// How far consumers of the feed came; `None` forgets one.
    pub(crate) consumers: Vec<(String, Option<u64>)>,
    /// The newest time the engine told.
    pub(crate) now: Timestamp,
}

/// An item that was put or is gone.
#[derive(Debug)]
pub(crate) struct ItemChange {
    pub(crate) id: String,
    pub(crate) row: ItemChangeRow,
    /// The buffers of [`Group::orders`] that came before it.
    pub(crate) after: usize,
}

/// What became of an item.
#[derive(Debug)]
pub(crate) enum ItemChangeRow {
    /// Its row.
    Put(Vec<u8>),
    /// The row of the change that it is gone.
    Removed(Vec<u8>),
}

/// Rows of orders in one buffer.
#[derive(Debug, Default)]
pub(crate) struct OrderRows {
    pub(crate) bytes: Vec<u8>,
    /// Each row's sequence number and where it ends; one that was refused has
    /// no number and is not written.
    pub(crate) ends: Vec<(Option<u64>, usize)>,
}

impl OrderRows {
    /// The rows to write.
    pub(crate) fn written(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let rows = starts.zip(&self.ends).filter(|(_, (seq, _))| seq.is_some());
        rows.map(|(start, (_, end))| &self.bytes[start..*end])
    }

    /// The number of rows to write.
    pub(crate) fn count(&self) -> usize {
        self.ends.iter().filter(|(seq, _)| seq.is_some()).count()
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        let Self { orders, forgotten, items, departures, queue, dead, clock, consumers, now: _ } =
            self;
        let is_idle = queue.is_empty() && dead.is_empty() && clock.is_none();
        let is_idle = is_idle && departures.is_empty();
        is_idle
            && consumers.is_empty()
            && orders.is_empty()
            && forgotten.is_empty()
            && items.is_empty()
    }

    /// Adds a change of an item behind the orders that are here.
    pub(crate) fn change_item(&mut self, id: String, row: ItemChangeRow) {
        self.items.push(ItemChange { id, row, after: self.orders.len() });
    }

    fn orders(&self) -> usize {
        self.orders.iter().map(OrderRows::count).sum()
    }

    /// Writes the orders: new ones, which come by ascending number, through a
    /// cursor at the end of the table, which is several times faster, and then
    /// those that were there.
    fn write_orders(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        next_seq: &mut u64,
    ) -> Result<(), redb::Error> {
        let mut changed = Vec::new();
        let mut end_of_table = table.upper_bound_mut(Bound::<u64>::Unbounded)?;
        for rows in &self.orders {
            let mut start = 0;
            for &(seq, end) in &rows.ends {
                let row = &rows.bytes[start..end];
                start = end;
                let Some(seq) = seq else { continue };
                if seq == *next_seq {
                    end_of_table.insert_before(seq, row)?;
                    *next_seq += 1;
                } else {
                    changed.push((seq, row));
                }
            }
        }
        end_of_table.close()?;
        for (seq, row) in changed {
            table.insert(seq, row)?;
        }
        Ok(())
    }

    /// Removes the rows of forgotten orders, and notes how many there are, so that
    /// the next open can tell them from orders that are missing.
    fn forget_orders(
        &self,
        txn: &WriteTransaction,
        table: &mut Table<'_, u64, &'static [u8]>,
        rows: &mut Rows,
    ) -> Result<(), redb::Error> {
        for seq in &self.forgotten {
            rows.forgotten += u64::from(table.remove(seq)?.is_some());
        }
        let mut meta = txn.open_table(META)?;
        meta.insert(NUMBERED, rows.numbered)?;
        meta.insert(FORGOTTEN, rows.forgotten)?;
        Ok(())
    }

    /// Writes everything.
    fn write(
        &self,
        db: &Database,
        rows: &mut Rows,
        feed: Option<&mut FeedWriter>,
    ) -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        if !self.orders.is_empty() || !self.forgotten.is_empty() {
            let mut table = txn.open_table(ORDERS)?;
            self.write_orders(&mut table, &mut rows.numbered)?;
            if !self.forgotten.is_empty() {
                self.forget_orders(&txn, &mut table, rows)?;
            }
        }
        if !self.items.is_empty() {
            let mut table = txn.open_table(ITEMS)?;
            for ItemChange { id, row, .. } in &self.items {
                match row {
                    ItemChangeRow::Put(row) => table.insert(id.as_str(), row.as_slice())?,
                    ItemChangeRow::Removed(_) => table.remove(id.as_str())?,
                };
            }
        }
        if !self.departures.is_empty() {
            let mut table = txn.open_table(DEPARTURES)?;
            for (id, row) in &self.departures {
                match row {
                    Some(row) => table.insert(id.as_str(), row.as_slice())?,
                    None => table.remove(id.as_str())?,
                };
            }
        }
        for (definition, changes) in [(QUEUE, &self.queue), (DEAD, &self.dead)] {
            if changes.is_empty() {
                continue;
            }
            let mut table = txn.open_table(definition)?;
            for (seq, row) in changes {
                match row {
                    Some(row) => table.insert(seq, row.as_slice())?,
                    None => table.remove(seq)?,
                };
            }
        }
        if let Some(feed) = feed {
            feed.write(self, &txn)?;
        }
        if !self.consumers.is_empty() {
            let mut table = txn.open_table(CONSUMERS)?;
            for (name, after) in &self.consumers {
                match after {
                    Some(after) => table.insert(name.as_str(), after)?,
                    None => table.remove(name.as_str())?,
                };
            }
        }
        if let Some(clock) = self.clock {
            let mut table = txn.open_table(META)?;
            for (name, number) in CLOCK.iter().zip([clock.boot, clock.booted_at.as_millis()]) {
                table.insert(name, number)?;
            }
        }
        // Immediate durability, redb's default: on disk when this returns.
        txn.commit()?;
        Ok(())
    }
}

/// The rows of orders in the file, those ever written and those removed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The number of the next new order.
    pub(crate) numbered: u64,
    pub(crate) forgotten: u64,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    /// The newest group that is on disk.
    durable: u64,
    /// The newest change in the feed that is on disk.
    changed: u64,
    /// The fault after which nothing more becomes durable, until the file is opened anew.
    fault: Option<Fault>,
    /// Groups that were not durable when the file was opened anew, and why.
    lost: Vec<(RangeInclusive<u64>, Fault)>,
}

impl Progress {
    /// Whether a group is on disk; `None` if that is not known yet.
    fn of(&self, number: u64) -> Option<Result<(), &Fault>> {
        if let Some((_, fault)) = self.lost.iter().find(|(lost, _)| lost.contains(&number)) {
            return Some(Err(fault));
        }
        match &self.fault {
            _ if self.durable >= number => Some(Ok(())),
            Some(fault) => Some(Err(fault)),
            None => None,
        }
    }
}

/// The end of the journal.
#[derive(Debug, Clone)]
struct Fault {
    /// The answer to those who were waiting for a write.
    in_doubt: SeamError,
    /// The answer to those who come later.
    later: SeamError,
}

impl Fault {
    fn new(cause: Box<dyn Error + Send + Sync>) -> Self {
        let reason = "a write failed, which may or may not count, and nothing more is taken: make \
                      room or mend the disk, then reopen";
        let in_doubt = SeamError::broken(SERVICE, reason).with_source(cause);
        let SeamError::Broken { source, .. } = in_doubt.clone() else {
            unreachable!("it was just made")
        };
        let reason = "an earlier write failed; make room or mend the disk, then reopen";
        let later = SeamError::Stopped { service: SERVICE, reason: reason.to_owned(), source };
        Self { in_doubt, later }
    }
}

#[derive(Debug)]
struct Open {
    group: Group,
    number: u64,
    bytes: usize,
    /// Whether a caller waits for the open group, or it grew large.
    urgent: bool,
    closing: bool,
    /// Whether it closes because a thread unwinds, which a message may be the
    /// cause of.
    unwinding: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// `None` while the file is closed, to be opened anew.
    db: RwLock<Option<Arc<Database>>>,
    open: Mutex<Open>,
    work: Condvar,
    progress: watch::Sender<Progress>,
    /// The newest group in the file; locked while the next is written.
    written: Mutex<u64>,
}

/// The journal and its writer. Dropping it writes what is left, marks the file
/// as closed, and joins the writer.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Starts the writer of a file with these rows of orders, and its feed if one is
    /// kept.
    pub(crate) fn start(
        db: Database,
        rows: Rows,
        feed: Option<FeedWriter>,
    ) -> std::io::Result<Self> {
        let changed = feed.as_ref().map_or(0, FeedWriter::newest);
        let open = Open {
            group: Group::default(),
            number: 1,
            bytes: 0,
            urgent: false,
            closing: false,
            unwinding: false,
        };
        let shared = Arc::new(Shared {
            db: RwLock::default(),
            open: Mutex::new(open),
            work: Condvar::new(),
            written: Mutex::new(0),
            progress: watch::Sender::new(Progress { changed, ..Progress::default() }),
        });
        let journal = Self { shared, writer: Mutex::default() };
        journal.write_to(db, rows, feed)?;
        Ok(journal)
    }

    /// Starts the writer of an open file.
    fn write_to(&self, db: Database, rows: Rows, feed: Option<FeedWriter>) -> std::io::Result<()> {
        let (shared, db) = (self.shared.clone(), Arc::new(db));
        *self.shared.db.write().expect("nothing panics under this lock") = Some(db.clone());
        let writer = std::thread::Builder::new().name("flux-writer".into());
        let writer = writer.spawn(move || shared.run(&db, rows, feed))?;
        *self.writer.lock().expect("nothing panics under this lock") = Some(writer);
        Ok(())
    }

    /// Whether a write failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.progress.borrow().fault.is_some()
    }

    /// Closes the file after a failed write, once nobody reads it any more. Cancel safety: a
    /// dropped call leaves it closed, and may be made again.
    ///
    /// # Errors
    /// [`SeamError::Unavailable`] when it is read for too long; it is as it was.
    pub(crate) async fn close(&self) -> Result<(), SeamError> {
        let closed = self.shared.db.write().expect("nothing panics under this lock").take();
        let Some(db) = closed else { return Ok(()) };
        let end = tokio::time::Instant::now() + READS_END_WITHIN;
        while Arc::strong_count(&db) > 1 {
            if tokio::time::Instant::now() >= end {
                *self.shared.db.write().expect("nothing panics under this lock") = Some(db);
                return Err(SeamError::unavailable(SERVICE));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let closing = tokio::task::spawn_blocking(move || {
            // As redb may panic after a failed write.
            drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
        });
        closing.await.map_err(|error| SeamError::unavailable(SERVICE).with_source(error))
    }

    /// Goes on with a file that was opened anew. Call it under the locks of all the state
    /// it mirrors, which is then what was found in the file.
    pub(crate) fn go_on(
        &self,
        db: Database,
        rows: Rows,
        feed: Option<FeedWriter>,
    ) -> std::io::Result<()> {
        let changed = feed.as_ref().map_or(0, FeedWriter::newest);
        let mut open = self.shared.lock();
        let lost = open.number;
        // The one between stands for all that was found in the file.
        let found = lost + 1;
        (open.group, open.bytes, open.urgent) = (Group::default(), 0, false);
        open.number = found + 1;
        *self.shared.written.lock().expect("nothing panics under this lock") = found;
        self.write_to(db, rows, feed)?;
        self.shared.progress.send_modify(|progress| {
            let lost = progress.durable + 1..=lost;
            progress.lost.extend(progress.fault.take().map(|fault| (lost, fault)));
            (progress.durable, progress.changed) = (found, changed);
        });
        Ok(())
    }

    /// The part that a read on another thread needs.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Whether what is on disk may be read: also after a write failed.
    pub(crate) fn readable(&self) -> Result<(), SeamError> {
        if self.shared.db().is_some() && self.has_failed() {
            return Ok(());
        }
        self.ready()
    }

    /// Whether more may be appended. Ask before changing any state.
    pub(crate) fn ready(&self) -> Result<(), SeamError> {
        if let Some(fault) = &self.shared.progress.borrow().fault {
            return Err(fault.later.clone());
        }
        if self.shared.lock().bytes > GROUP_BYTES_MAX {
            let retry_after = Duration::from_millis(100);
            return Err(SeamError::Overloaded { service: SERVICE, retry_after });
        }
        Ok(())
    }

    /// Appends to the open group, and returns its number. Call it under the lock
    /// of the state it mirrors, so that both change in the same order.
    pub(crate) fn append(&self, bytes: usize, change: impl FnOnce(&mut Group)) -> u64 {
        self.add(bytes, true, change)
    }

    /// Appends a change that nobody waits for: it goes with the next group that
    /// a caller waits for.
    pub(crate) fn append_lazily(&self, bytes: usize, change: impl FnOnce(&mut Group)) {
        self.add(bytes, false, change);
    }

    fn add(&self, bytes: usize, urgent: bool, change: impl FnOnce(&mut Group)) -> u64 {
        let mut open = self.shared.lock();
        change(&mut open.group);
        open.bytes += bytes;
        open.urgent |= urgent || open.bytes > GROUP_BYTES_MAX / 64;
        if open.urgent {
            self.shared.work.notify_one();
        }
        open.number
    }

    /// The newest group to which a change was appended that callers wait for.
    pub(crate) fn last(&self) -> u64 {
        let open = self.shared.lock();
        if open.urgent { open.number } else { open.number - 1 }
    }

    /// The newest group that is on disk.
    pub(crate) fn last_durable(&self) -> u64 {
        self.shared.progress.borrow().durable
    }

    /// The newest change in the feed that is on disk.
    pub(crate) fn newest_change(&self) -> u64 {
        self.shared.progress.borrow().changed
    }

    /// Waits until a change behind this one is on disk. Cancel-safe.
    ///
    /// # Errors
    /// [`SeamError::Stopped`] if none ever will be.
    pub(crate) async fn changed_since(&self, number: u64) -> Result<(), SeamError> {
        let mut progress = self.shared.progress.subscribe();
        let progress = progress
            .wait_for(|progress| progress.changed > number || progress.fault.is_some())
            .await
            .expect("the sender lives as long as self");
        match &progress.fault {
            Some(fault) if progress.changed <= number => Err(fault.later.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until a group is on disk. Cancel-safe.
    ///
    /// # Errors
    /// [`SeamError::Broken`] if it won't ever be, as far as is known.
    pub(crate) async fn durable(&self, number: u64) -> Result<(), SeamError> {
        let mut progress = self.shared.progress.subscribe();
        let progress = progress
            .wait_for(|progress| progress.of(number).is_some())
            .await
            .expect("the sender lives as long as self");
        match progress.of(number) {
            Some(Err(fault)) => Err(fault.in_doubt.clone()),
            _ => Ok(()),
        }
    }
}

/// A view of the file that stays as it is. While there is one, the file stays open.
pub(crate) struct View {
    txn: ReadTransaction,
    _db: Arc<Database>,
}

impl Deref for View {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.txn
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics under this lock")
    }

    /// A view of the file that stays as it is, and the newest group in it. Waits
    /// for the write that is on its way, so not for a thread that may not block.
    pub(crate) fn snapshot(&self) -> Result<(View, u64), redb::Error> {
        let newest = self.written.lock().expect("nothing panics under this lock");
        Ok((self.read()?, *newest))
    }

    pub(crate) fn db(&self) -> Option<Arc<Database>> {
        self.db.read().expect("nothing panics under this lock").clone()
    }

    /// A view of what is in the file now.
    pub(crate) fn read(&self) -> Result<View, redb::Error> {
        let db = self.db().ok_or(redb::Error::DatabaseClosed)?;
        Ok(View { txn: db.begin_read()?, _db: db })
    }

    fn run(&self, db: &Database, mut rows: Rows, mut feed: Option<FeedWriter>) {
        while let Some((number, group)) = self.next_group() {
            let started = Instant::now();
            let written = {
                let mut newest = self.written.lock().expect("nothing panics under this lock");
                let write = || group.write(db, &mut rows, feed.as_mut());
                let written = catch_unwind(AssertUnwindSafe(write));
                if matches!(written, Ok(Ok(()))) {
                    *newest = number;
                }
                written
            };
            let cause: Option<Box<dyn Error + Send + Sync>> = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(cause(error)),
                Err(_) => Some("the database panicked".into()),
            };
            if let Some(cause) = cause {
                tracing::warn!(
                    error = &*cause as &dyn Error,
                    "a write of the embedded store failed"
                );
                self.progress.send_modify(|progress| progress.fault = Some(Fault::new(cause)));
                return;
            }
            metrics::histogram!("flux_commit_orders").record(group.orders() as f64);
            metrics::histogram!("flux_commit_seconds").record(started.elapsed());
            let changed = feed.as_ref().map_or(0, FeedWriter::newest);
            self.progress.send_modify(|progress| {
                (progress.durable, progress.changed) = (number, changed);
            });
        }
        if self.lock().unwinding {
            return;
        }
        let marked = catch_unwind(AssertUnwindSafe(|| mark_clean(db)));
        if !matches!(marked, Ok(Ok(()))) {
            tracing::warn!(?marked, "the next open takes this close of the store for a crash");
        }
    }

    /// Waits for work; `None` when all is written and the journal is dropped.
    fn next_group(&self) -> Option<(u64, Group)> {
        let mut open = self.lock();
        while !open.urgent && !open.closing {
            open = self.work.wait(open).expect("nothing panics under this lock");
        }
        if open.group.is_empty() && open.closing {
            return None;
        }
        let number = open.number;
        open.number += 1;
        open.bytes = 0;
        open.urgent = false;
        Some((number, std::mem::take(&mut open.group)))
    }
}

/// Marks the file as closed: from then on the death of the process is no crash.
/// A transaction of its own, so that a crash before its end counts as one.
fn mark_clean(db: &Database) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    txn.open_table(META)?.insert(CLEAN, 1)?;
    txn.commit()?;
    Ok(())
}

impl Drop for Journal {
    fn drop(&mut self) {
        {
            let mut open = self.shared.lock();
            open.closing = true;
            open.unwinding = std::thread::panicking();
        }
        self.shared.work.notify_one();
        let writer = self.writer.get_mut().map(Option::take).unwrap_or_default();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::warn!("the writer of the embedded store panicked");
        }
    }
}
