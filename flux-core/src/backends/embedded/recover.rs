//! Recovery of the state from the file. Stock is not in the file: it follows from
//! the definitions and the live orders, so it can't disagree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableHandle};

use super::feed::{CHANGES, CONSUMERS, FIRST_CHANGE, FeedWriter, KeepChanges, ROW_CHANGES_MAX};
use super::journal::{
    CHANGES_FROM, CLEAN, CLOCK, DEAD, FORGOTTEN, FORMAT, FORMAT_WITH_CHANGES, FORMAT_WITH_GAPS,
    ITEMS, META, NUMBERED, ORDERS, QUEUE, Rows,
};
use super::queue::Durable;
use super::removals::DEPARTURES;
use super::rows::{DepartureRow, OrderRow, read_dead, read_departure, read_item, read_sent};
use super::store::ReadError;
use crate::backends::state::buyer_book::BuyerBook;
use crate::backends::state::debts::Debts;
use crate::backends::state::ledger::{BuyerCounts, Entry, Ledger, RestoredItem};
use crate::backends::state::queue::{QueueLimits, QueueState};
use crate::backends::state::rejected::{Rejected, Retention};
use crate::backends::state::removals::Departures;
use crate::backends::state::sharded::Dealt;
use crate::clock::ClockReference;
use crate::protocol::{
    BuyerId, BuyerRules, InvalidInput, ItemId, ItemKind, ItemSpec, Money, OrderId, SeatId, SeatMap,
    Stock, Timestamp,
};
use crate::seams::KeptClock;

/// The version of the tables of a file that forgot no order; rows have one of
/// their own.
const FORMAT_AT_FIRST: u64 = 1;
/// Tokens and message numbers begin with the generation, which is raised at
/// each open, and so never repeat.
const COUNTER_BITS: u32 = 40;
const THREADS_MAX: usize = 8;
/// Shares of the orders that a thread takes, one after the other: where most are
/// forgotten, some have hardly any.
const SHARES_EACH: u64 = 64;

/// What an open store may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue: QueueLimits,
    pub(crate) rejected: Retention,
    pub(crate) buyers: BuyerRules,
    /// The feed, if one is to be kept.
    pub(crate) changes: Option<KeepChanges>,
}

/// The state that a file stands for.
pub(crate) struct Recovered {
    /// Whether the last open was closed.
    pub(crate) was_closed: bool,
    /// The number of opens that found the one before not closed.
    pub(crate) crashes: u64,
    pub(crate) clock: KeptClock,
    pub(crate) ledger: Ledger,
    pub(crate) items: usize,
    pub(crate) rows: Rows,
    pub(crate) queue: Durable,
    pub(crate) feed: Option<FeedWriter>,
}

/// The reason why an open fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The tables are of another version.
    Version(u64),
    /// The contents can't be right.
    Damaged(String),
    /// The database failed.
    Database(redb::Error),
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

fn damaged(what: impl Into<String>) -> Failure {
    Failure::Damaged(what.into())
}

/// Makes an empty store of an empty database.
pub(crate) fn initialise(db: &Database) -> Result<(), Failure> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(FORMAT, FORMAT_WITH_CHANGES)?;
        meta.insert(NUMBERED, 0)?;
        meta.insert(FORGOTTEN, 0)?;
        meta.insert("generation", 0)?;
        meta.insert("crashes", 0)?;
        meta.insert(CLEAN, 1)?;
    }
    txn.open_table(ITEMS)?;
    txn.open_table(ORDERS)?;
    txn.open_table(QUEUE)?;
    txn.open_table(DEAD)?;
    txn.open_table(CHANGES)?;
    txn.open_table(CONSUMERS)?;
    txn.open_table(DEPARTURES)?;
    Ok(txn.commit()?)
}

/// The numbers of this open, as they stand in the file.
struct Opened {
    generation: u64,
    crashes: u64,
    was_closed: bool,
    clock: Option<ClockReference>,
    /// As of the last time that orders were forgotten.
    rows: Rows,
}

/// Checks that the tables are ours, makes those of an older version like those of
/// this one, raises the generation, and counts a crash unless the last open was
/// closed.
fn next_generation(db: &Database) -> Result<Opened, Failure> {
    let txn = db.begin_write()?;
    if !txn.list_tables()?.any(|table| table.name() == META.name()) {
        return Err(damaged("it is a database, but not one of Flux"));
    }
    let opened = {
        let mut meta = txn.open_table(META)?;
        let number = |name| Ok::<_, Failure>(meta.get(name)?.map(|number| number.value()));
        let format = number(FORMAT)?.ok_or_else(|| damaged("its format is missing"))?;
        let rows = match format {
            FORMAT_AT_FIRST => Rows { numbered: 0, forgotten: 0 },
            FORMAT_WITH_GAPS | FORMAT_WITH_CHANGES => Rows {
                numbered: number(NUMBERED)?.ok_or_else(|| damaged("its numbers are missing"))?,
                forgotten: number(FORGOTTEN)?.ok_or_else(|| damaged("its gaps are missing"))?,
            },
            format => return Err(Failure::Version(format)),
        };
        let last = number("generation")?.ok_or_else(|| damaged("its generation is missing"))?;
        let crashes = number("crashes")?.ok_or_else(|| damaged("its crashes are missing"))?;
        let was_closed = number(CLEAN)? == Some(1);
        let crashes = crashes + u64::from(!was_closed);
        let [boot, booted_at] = CLOCK.map(number);
        let clock = boot?
            .zip(booted_at?)
            .map(|(boot, booted_at)| ClockReference::new(boot, Timestamp::from_millis(booted_at)));
        if format != FORMAT_WITH_CHANGES {
            // Rows stay as they are: every version of them is read. So this needs no
            // room to speak of, and takes effect with the transaction or not at all.
            txn.open_table(CHANGES)?;
            txn.open_table(CONSUMERS)?;
            meta.insert(FORMAT, FORMAT_WITH_CHANGES)?;
            meta.insert(NUMBERED, rows.numbered)?;
            meta.insert(FORGOTTEN, rows.forgotten)?;
            tracing::info!("upgrading the file from format {format} to {FORMAT_WITH_CHANGES}");
        }
        txn.open_table(DEPARTURES)?;
        meta.insert("generation", last + 1)?;
        meta.insert("crashes", crashes)?;
        meta.insert(CLEAN, 0)?;
        Opened { generation: last + 1, crashes, was_closed, clock, rows }
    };
    txn.commit()?;
    Ok(opened)
}

pub(crate) fn recover(db: &Database, limits: Limits, now: Timestamp) -> Result<Recovered, Failure> {
    let Opened { generation, crashes, was_closed, clock, rows } = next_generation(db)?;
    let first = generation << COUNTER_BITS;
    let queue = recover_queue(db, limits.queue, crashes, first)?;
    let (ledger, items, rows) = recover_ledger(db, limits, rows, first, now)?;
    let feed = match limits.changes {
        Some(keep) => Some(recover_feed(db, keep)?),
        None => drop_feed(db)?,
    };
    let clock = KeptClock::new(clock, ledger.next_hold_end(Timestamp::default()).is_some());
    Ok(Recovered { was_closed, crashes, clock, ledger, items, rows, queue, feed })
}

fn recover_feed(db: &Database, keep: KeepChanges) -> Result<FeedWriter, Failure> {
    let txn = db.begin_read()?;
    let first = txn.open_table(META)?.get(CHANGES_FROM)?.map(|number| number.value());
    let table = txn.open_table(CHANGES)?;
    match FeedWriter::of(&table, keep, first.unwrap_or(FIRST_CHANGE)) {
        Ok(feed) => Ok(feed),
        Err(ReadError::Database(error)) => Err(Failure::Database(error)),
        // Orders and items are whole all the same, and consumers hear that changes are gone.
        Err(error) => {
            tracing::warn!(%error, "the change feed is damaged and begins anew");
            let last = table.last()?.map_or(FIRST_CHANGE, |(number, _)| number.value());
            drop((table, txn));
            begin_feed_anew(db, last.saturating_add(ROW_CHANGES_MAX as u64 + 1))?;
            recover_feed(db, keep)
        }
    }
}

/// Drops all changes, and has the next be `next`, so that an older cursor is told so.
fn begin_feed_anew(db: &Database, next: u64) -> Result<(), Failure> {
    let txn = db.begin_write()?;
    txn.delete_table(CHANGES)?;
    txn.open_table(CHANGES)?;
    txn.open_table(META)?.insert(CHANGES_FROM, next)?;
    Ok(txn.commit()?)
}

/// Drops the changes of a feed that is kept no more: what happens from now on would be
/// missing behind them.
fn drop_feed(db: &Database) -> Result<Option<FeedWriter>, Failure> {
    let keep = KeepChanges::DEFAULT;
    // One is left out, so that who was at the newest is told as well.
    let next = recover_feed(db, keep)?.newest() + 2;
    begin_feed_anew(db, next)?;
    Ok(None)
}

fn recover_queue(
    db: &Database,
    limits: QueueLimits,
    crashes: u64,
    first: u64,
) -> Result<Durable, Failure> {
    let txn = db.begin_read()?;
    let mut state = QueueState::new(limits, first);
    let mut dead = HashSet::new();
    for row in txn.open_table(DEAD)?.iter()? {
        let (seq, row) = row?;
        let seq = seq.value();
        let letter = read_dead(row.value())
            .map_err(|error| damaged(format!("dead letter {seq}: {error}")))?;
        dead.insert(seq);
        state.restore_dead(seq, letter);
    }
    let mut not_done = BTreeMap::new();
    for row in txn.open_table(QUEUE)?.iter()? {
        let (first, row) = row?;
        let first = first.value();
        let sent = read_sent(row.value())
            .map_err(|error| damaged(format!("queue row {first}: {error}")))?;
        // It may have been in flight each time the process died, so each crash
        // counts as a delivery: what kills the process must not live for ever.
        // A close counts nothing, else restarts alone would bury what waits.
        let attempt = crashes.saturating_sub(sent.crashes);
        let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
        let mut left = 0;
        for (seq, message) in (first..).zip(sent.messages) {
            if !dead.contains(&seq) {
                state.restore(seq, message, sent.sent_at, attempt);
                left += 1;
            }
        }
        not_done.insert(first, left);
    }
    Ok(Durable { state, not_done })
}

/// The units of an item that each buyer holds or owns.
type Buyers = HashMap<BuyerId, u32, RandomState>;

/// The stock that the orders of one item take.
#[derive(Default)]
struct Tally {
    taken: u64,
    held: u32,
    ever_sold: bool,
    places: Vec<u32>,
    buyers: Buyers,
}

/// The orders that one thread has read.
struct Seen {
    tallies: Vec<Tally>,
    index: Dealt<OrderId, Entry>,
    holds: Vec<(Timestamp, OrderId)>,
    /// By share.
    rejected: Vec<(u64, Vec<(OrderId, Timestamp)>)>,
    debts: Vec<(u64, Timestamp)>,
    rows: u64,
    /// What the rules about buyers go by, if there are any.
    unpaid: Option<Unpaid>,
}

/// Holds that live, and those that ended unpaid not long ago.
#[derive(Default)]
struct Unpaid {
    live: Vec<BuyerId>,
    ended: Vec<(ItemId, BuyerId, Timestamp)>,
}

/// The input of all threads.
struct Scan<'a> {
    db: &'a Database,
    specs: &'a [Arc<ItemSpec>],
    by_id: HashMap<&'a str, usize, RandomState>,
    chooser: RandomState,
    /// The numbers of all orders.
    numbers: Range<u64>,
    /// The numbers in a share.
    share: u64,
    next_share: AtomicU64,
    /// The number of orders that one thread will see, about.
    rows_each: usize,
    rules: BuyerRules,
    now: Timestamp,
}

impl Scan<'_> {
    /// Reads one share after the other until all are taken.
    fn run(&self) -> Result<Seen, Failure> {
        let mut seen = Seen {
            tallies: self.specs.iter().map(|_| Tally::default()).collect(),
            index: Dealt::new(self.chooser.clone(), self.rows_each),
            holds: Vec::new(),
            rejected: Vec::new(),
            debts: Vec::new(),
            rows: 0,
            unpaid: (!self.rules.are_off()).then(Unpaid::default),
        };
        loop {
            let share = self.next_share.fetch_add(1, Ordering::Relaxed);
            let start = self.numbers.start.saturating_add(share.saturating_mul(self.share));
            if start >= self.numbers.end {
                return Ok(seen);
            }
            let end = start.saturating_add(self.share).min(self.numbers.end);
            let rejected = self.range(start..end, &mut seen)?;
            seen.rejected.push((share, rejected));
        }
    }

    /// Reads a share, and returns the rejected orders in it.
    fn range(
        &self,
        range: Range<u64>,
        seen: &mut Seen,
    ) -> Result<Vec<(OrderId, Timestamp)>, Failure> {
        let mut rejected = Vec::new();
        let txn = self.db.begin_read()?;
        let table = txn.open_table(ORDERS)?;
        for row in table.range(range)? {
            let (seq, row) = row?;
            let seq = seq.value();
            let wrong = |what: String| damaged(format!("order {seq}: {what}"));
            let order = OrderRow::read(row.value()).map_err(|error| wrong(error.to_string()))?;
            seen.rows += 1;
            let (money, owed_since) = order.money().map_err(|error| wrong(error.to_string()))?;
            seen.index.push(order.id(), Entry::new(seq, order.status(), money));
            seen.debts.extend(owed_since.map(|since| (seq, since)));
            if money == Money::None {
                rejected.extend(order.rejected_at().map(|at| (order.id(), at)));
            }
            if order.status().owns_stock() {
                self.count(&order, seen).map_err(&wrong)?;
            }
            if money != Money::None {
                for (item, ..) in order.lines() {
                    if let Some(&at) = self.by_id.get(item) {
                        seen.tallies[at].ever_sold = true;
                    }
                }
            }
            if let Some(unpaid) = &mut seen.unpaid {
                unpaid.note(&order, self.rules, self.now).map_err(|e| wrong(e.to_string()))?;
            }
        }
        Ok(rejected)
    }

    fn count(&self, order: &OrderRow<'_>, seen: &mut Seen) -> Result<(), String> {
        let held_until = order.held_until();
        if let Some(held_until) = held_until {
            seen.holds.push((held_until, order.id()));
        }
        for (item, units, seats) in order.lines() {
            let &at = self.by_id.get(item).ok_or_else(|| format!("no item {item}"))?;
            let (spec, tally) = (&self.specs[at], &mut seen.tallies[at]);
            tally.taken += u64::from(units);
            if held_until.is_some() {
                tally.held += units;
            }
            if let ItemKind::Seats(hall) = &spec.kind {
                for seat in seats {
                    let place = SeatId::new(seat).ok().and_then(|seat| hall.index_of(&seat));
                    let place = place.ok_or_else(|| format!("no seat {seat}"))?;
                    tally.places.push(place);
                }
            }
            if spec.max_per_buyer.is_some() {
                let buyer = BuyerId::new(order.buyer()).map_err(|error| error.to_string())?;
                *tally.buyers.entry(buyer).or_default() += units;
            }
        }
        Ok(())
    }
}

impl Unpaid {
    /// Notes an order, if the rules go by it.
    fn note(
        &mut self,
        order: &OrderRow<'_>,
        rules: BuyerRules,
        now: Timestamp,
    ) -> Result<(), InvalidInput> {
        let is_counted = rules.holds_max.is_some() && order.held_until().is_some();
        let is_paused = |ended| rules.pause().is_some_and(|pause| ended + pause > now);
        let ended = order.ended_unpaid().filter(|ended| is_paused(*ended));
        if !is_counted && ended.is_none() {
            return Ok(());
        }
        let buyer = BuyerId::new(order.buyer())?;
        if let Some(ended) = ended {
            for (item, ..) in order.lines() {
                self.ended.push((ItemId::new(item)?, buyer.clone(), ended));
            }
        } else {
            self.live.push(buyer);
        }
        Ok(())
    }
}

/// The ledger, and how many items and orders there are.
fn recover_ledger(
    db: &Database,
    limits: Limits,
    Rows { numbered, forgotten }: Rows,
    last_token: u64,
    now: Timestamp,
) -> Result<(Ledger, usize, Rows), Failure> {
    let txn = db.begin_read()?;
    let mut specs = Vec::new();
    let items = txn.open_table(ITEMS)?;
    for row in items.iter()? {
        let (id, row) = row?;
        let spec = read_item(row.value())
            .map_err(|error| damaged(format!("item {}: {error}", id.value())))?;
        specs.push(Arc::new(spec));
    }
    let orders = txn.open_table(ORDERS)?;
    let next_seq = orders.last()?.map_or(Some(0), |(seq, _)| seq.value().checked_add(1));
    let next_seq = next_seq.ok_or_else(|| damaged("an order's number is out of range"))?;
    let next_seq = next_seq.max(numbered);
    let rows = orders.len()?;
    if next_seq.checked_sub(forgotten) != Some(rows) {
        return Err(damaged("orders are missing"));
    }
    let first = orders.first()?.map_or(next_seq, |(seq, _)| seq.value());

    let threads = std::thread::available_parallelism().map_or(1, Into::into).min(THREADS_MAX);
    let scan = Scan {
        db,
        specs: &specs,
        by_id: specs.iter().enumerate().map(|(at, spec)| (spec.id.as_str(), at)).collect(),
        chooser: RandomState::default(),
        numbers: first..next_seq,
        share: (next_seq - first).div_ceil(threads as u64 * SHARES_EACH).max(1),
        next_share: AtomicU64::new(0),
        rows_each: usize::try_from(rows).map_err(|_| damaged("it has too many orders"))? / threads,
        rules: limits.buyers,
        now,
    };
    let scans: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| scan.run())).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut tallies: Vec<Tally> = specs.iter().map(|_| Tally::default()).collect();
    let mut dealt = Vec::with_capacity(scans.len());
    let mut holds: BTreeMap<Timestamp, Vec<OrderId>> = BTreeMap::new();
    let (mut shares, mut rows_seen, mut debts) = (Vec::new(), 0, Debts::default());
    let mut book = BuyerBook::of(limits.buyers);
    for seen in scans {
        // The caller turns a panic into an error.
        let seen = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        dealt.push(seen.index);
        shares.extend(seen.rejected);
        rows_seen += seen.rows;
        seen.debts.into_iter().for_each(|(seq, since)| debts.add(seq, since));
        for (held_until, id) in seen.holds {
            holds.entry(held_until).or_default().push(id);
        }
        if let (Some(book), Some(Unpaid { live, ended })) = (&mut book, seen.unpaid) {
            live.iter().for_each(|buyer| book.move_holds(buyer, 1));
            ended.into_iter().for_each(|(item, buyer, at)| book.ended_unpaid(item, buyer, at));
        }
        for (sum, tally) in tallies.iter_mut().zip(seen.tallies) {
            sum.taken += tally.taken;
            sum.held += tally.held;
            sum.ever_sold |= tally.ever_sold;
            sum.places.extend(tally.places);
            for (buyer, units) in tally.buyers {
                *sum.buyers.entry(buyer).or_default() += units;
            }
        }
    }
    if rows_seen != rows {
        return Err(damaged("orders are missing"));
    }
    shares.sort_unstable_by_key(|(share, _)| *share);
    let mut rejected = Rejected::new(limits.rejected);
    for (id, at) in shares.into_iter().flat_map(|(_, orders)| orders) {
        rejected.push(id, at);
    }
    let index = Dealt::fill(dealt, scan.chooser.clone(), threads)
        .map_err(|id| damaged(format!("order {id} is there twice")))?;
    let mut restored = Vec::with_capacity(specs.len());
    for (spec, tally) in specs.iter().zip(tallies) {
        let stock = remaining(spec, &tally)?;
        let Tally { held, ever_sold, buyers: counted, .. } = tally;
        let mut buyers = BuyerCounts::default();
        for (buyer, units) in counted {
            buyers.add(&buyer, i64::from(units));
        }
        restored.push(RestoredItem { spec: spec.clone(), stock, held, ever_sold, buyers });
    }
    let ledger = Ledger::restore(restored, index, holds, rejected, debts, next_seq, last_token);
    let ledger = ledger.with_book(book).with_departures(recover_departures(db)?);
    Ok((ledger, specs.len(), Rows { numbered: next_seq, forgotten }))
}

/// The items that are leaving, and the tombstones of those that left.
fn recover_departures(db: &Database) -> Result<Departures, Failure> {
    let (mut leaving, mut tombstones) = (Vec::new(), Vec::new());
    let txn = db.begin_read()?;
    for row in txn.open_table(DEPARTURES)?.iter()? {
        let (item, row) = row?;
        let wrong = |error| damaged(format!("what is kept of item {}: {error}", item.value()));
        match read_departure(row.value()).map_err(wrong)? {
            DepartureRow::Leaving(one) => leaving.push(one),
            DepartureRow::Archived(one) => tombstones.push(one),
        }
    }
    Ok(Departures::restore(leaving, tombstones))
}

/// The stock that is left when the live orders have theirs.
fn remaining(spec: &ItemSpec, tally: &Tally) -> Result<Stock, Failure> {
    match &spec.kind {
        ItemKind::Pool(capacity) => u64::from(capacity.get())
            .checked_sub(tally.taken)
            .map(|available| Stock::Pool { available: available as u32 })
            .ok_or_else(|| damaged(format!("{} orders own {} units", spec.id, tally.taken))),
        ItemKind::Seats(_) => {
            let mut map = SeatMap::all_free(spec.capacity());
            for &place in &tally.places {
                if map.is_taken(place) {
                    return Err(damaged(format!("two orders own seat {place} of {}", spec.id)));
                }
                map.take(place);
            }
            Ok(Stock::Seats(map))
        }
    }
}
