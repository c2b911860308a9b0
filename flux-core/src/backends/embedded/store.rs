//! The durable inventory store: the ledger decides, the journal writes, and
//! orders are read from the file, so nothing is shown that is not on disk.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::backup::{BackupCounts, BackupError, backup};
use super::feed::EmbeddedFeed;
use super::journal::{ItemChangeRow, Journal, ORDERS, OrderRows, Shared};
use super::reopen::Reopens;
use super::rows::{OrderRow, RowError, item_row, put_order};
use super::{SERVICE, cause};
use crate::backends::memory::{
    FORGETS_MAX, FORGOTTEN_AT_ONCE, LOOKS_AT_ONCE, SCAN_MAX, being_archived, cursor_seq,
};
use crate::backends::state::ledger::{BuyerCounts, Counting, Entry, Ledger, Move};
use crate::clock::ClockReference;
use crate::protocol::{
    BuyerId, Claim, Commit, CommitOutcome, ConfirmRuling, Item, ItemId, ItemSpec, Money, Order,
    OrderId, OrderWrite, RefundRuling, Stock, Timestamp, confirm, refund,
};
use crate::seams::{
    Begun, ChangeFeed, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore, KeptClock,
    OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Removals, Repayment,
    SeamError,
};

/// Most orders read on the caller's own thread: a hop to another costs more than
/// they do, as they are nearly always in the cache.
const READ_HERE_MAX: usize = 32;
/// Rows between two that are asked for that are skipped one by one: looking for
/// the second costs as much.
const SKIPS_MAX: usize = 8;
/// Bytes that a row's number takes in a group.
pub(super) const SEQ_BYTES: usize = size_of::<u64>();
/// Changes made while buyers were counted, few enough to be added under the lock.
const MOVES_FEW: usize = 256;
/// Most times that more of them are added without it.
const CATCHES_UP_MAX: usize = 16;

/// An [`InventoryStore`] on disk, in the file of its
/// [`Embedded`](super::Embedded).
#[derive(Debug)]
pub struct EmbeddedStore {
    pub(super) journal: Arc<Journal>,
    inner: Arc<Mutex<Inner>>,
    /// Held by whoever counts the buyers of an item.
    pub(super) late_cap: Arc<tokio::sync::Mutex<()>>,
    pub(super) feed: Option<Arc<EmbeddedFeed>>,
    pub(super) reopens: Reopens,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) ledger: Ledger,
    kept_clock: KeptClock,
    /// The newest time that the engine told.
    pub(super) now: Timestamp,
    /// The group of the newest change of an item.
    pub(super) put_in: u64,
    /// Groups with orders, oldest first, that may not be durable.
    fresh: VecDeque<Fresh>,
}

/// The orders of one group.
#[derive(Debug)]
struct Fresh {
    group: u64,
    made: Range<u64>,
    changed: HashSet<u64>,
}

impl AsMut<Ledger> for Inner {
    fn as_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Inner {
    /// Begins anew with what was found in the file.
    pub(super) fn start_with(&mut self, ledger: Ledger, kept_clock: KeptClock) {
        *self = Self { ledger, kept_clock, now: self.now, put_in: 0, fresh: VecDeque::new() };
    }

    /// Puts rows in the open group, whose orders from `first_made` on are new, and has
    /// those of forgotten orders removed with them.
    fn append(
        &mut self,
        journal: &Journal,
        rows: OrderRows,
        first_made: u64,
        forgotten: Vec<u64>,
    ) -> u64 {
        let older = |(seq, _): &(Option<u64>, usize)| seq.filter(|seq| *seq < first_made);
        let changed: Vec<u64> = rows.ends.iter().filter_map(older).collect();
        let bytes = rows.bytes.len() + forgotten.len() * SEQ_BYTES;
        let group = journal.append(bytes, |group| {
            group.orders.push(rows);
            group.forgotten.extend(forgotten);
            group.now = self.now;
        });
        let durable = journal.last_durable();
        while self.fresh.front().is_some_and(|fresh| fresh.group <= durable) {
            self.fresh.pop_front();
        }
        if self.fresh.back().is_none_or(|fresh| fresh.group != group) {
            let made = first_made..first_made;
            self.fresh.push_back(Fresh { group, made, changed: HashSet::new() });
        }
        let fresh = self.fresh.back_mut().expect("one was just made sure of");
        fresh.made.end = self.ledger.next_seq();
        fresh.changed.extend(changed);
        group
    }

    /// The group to wait for before this order may be shown.
    fn written_in(&self, seq: u64) -> u64 {
        let has = |fresh: &&Fresh| fresh.made.contains(&seq) || fresh.changed.contains(&seq);
        self.fresh.iter().rev().find(has).map_or(0, |fresh| fresh.group)
    }
}

impl EmbeddedStore {
    pub(super) fn new(
        journal: Arc<Journal>,
        ledger: Ledger,
        kept_clock: KeptClock,
        feed: Option<Arc<EmbeddedFeed>>,
        reopens: Reopens,
    ) -> Self {
        let now = Timestamp::default();
        let inner = Inner { ledger, kept_clock, now, put_in: 0, fresh: VecDeque::new() };
        let (inner, late_cap) = (Arc::new(Mutex::new(inner)), Arc::default());
        Self { journal, inner, late_cap, feed, reopens }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the ledger does not panic")
    }

    /// Reads from the ledger, and waits until the definitions seen are durable.
    pub(super) async fn look<T>(
        &self,
        look: impl FnOnce(&mut Ledger) -> T,
    ) -> Result<T, SeamError> {
        self.journal.readable()?;
        let (seen, put_in) = {
            let mut inner = self.lock();
            (look(&mut inner.ledger), inner.put_in)
        };
        self.journal.durable(put_in).await?;
        Ok(seen)
    }

    /// Writes a copy of what is in the file, on the caller's thread.
    pub(super) fn backup(&self, out: &mut dyn std::io::Write) -> Result<BackupCounts, BackupError> {
        let shared = self.journal.shared();
        // As redb panics on some damage.
        catch_unwind(AssertUnwindSafe(|| backup(&shared, out)))
            .unwrap_or_else(|_| Err(BackupError::Store(panicked().into())))
    }
}

/// Reads from the file, on a thread that may block.
pub(super) async fn read_file<T: Send + 'static>(
    journal: &Journal,
    read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, SeamError> {
    let shared = journal.shared();
    let reading = spawn_blocking(move || read(&shared));
    Ok(reading.await.map_err(|error| panicked().with_source(error))??)
}

/// The reason why a read of the file fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the file can't be read")]
    Database(#[from] redb::Error),
    #[error("order {0} can't be read: {1}")]
    Row(u64, RowError),
    #[error("the changes from {0} on can't be read: {1}")]
    Changes(u64, RowError),
    #[error("order {0} is missing")]
    Missing(OrderId),
}

impl From<ReadError> for SeamError {
    fn from(error: ReadError) -> Self {
        let broken = Self::broken(SERVICE, format!("{error}; restore a backup"));
        broken.with_source(match error {
            ReadError::Database(error) => cause(error),
            error => error.into(),
        })
    }
}

/// The failure of a read that panicked, as redb does on some damage.
fn panicked() -> SeamError {
    SeamError::broken(SERVICE, "reading the file failed badly; restore a backup")
}

/// Reads orders by their sequence numbers; `None` for one whose row is not there.
fn read_orders(shared: &Shared, seqs: &[Option<u64>]) -> Result<Vec<Option<Order>>, ReadError> {
    let txn = shared.read()?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let read = |seq: &Option<u64>| {
        let Some(seq) = *seq else { return Ok(None) };
        let row = table.get(seq).map_err(redb::Error::from)?;
        row.map(|row| parse(seq, row.value())).transpose()
    };
    seqs.iter().map(read).collect()
}

/// As [`read_orders`], for many: goes through the rows in order, as those that
/// are asked for together were often written together.
fn read_many_orders(
    shared: &Shared,
    seqs: &[Option<u64>],
) -> Result<Vec<Option<Order>>, ReadError> {
    let mut orders = vec![None; seqs.len()];
    let positions = seqs.iter().enumerate();
    let mut asked: Vec<(u64, usize)> =
        positions.filter_map(|(at, seq)| Some(((*seq)?, at))).collect();
    asked.sort_unstable();
    let Some(&(first, _)) = asked.first() else { return Ok(orders) };
    let txn = shared.read()?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let mut rows = table.range(first..).map_err(redb::Error::from)?;
    let mut row = rows.next().transpose().map_err(redb::Error::from)?;
    for (seq, at) in asked {
        let mut skipped = 0;
        while row.as_ref().is_some_and(|(found, _)| found.value() < seq) {
            if skipped == SKIPS_MAX {
                rows = table.range(seq..).map_err(redb::Error::from)?;
            }
            skipped += 1;
            row = rows.next().transpose().map_err(redb::Error::from)?;
        }
        if let Some((found, row)) = &row
            && found.value() == seq
        {
            orders[at] = Some(parse(seq, row.value())?);
        }
    }
    Ok(orders)
}

fn parse(seq: u64, row: &[u8]) -> Result<Order, ReadError> {
    let order = OrderRow::read(row).and_then(|row| row.order());
    order.map_err(|error| ReadError::Row(seq, error))
}

/// Reads up to `limit` orders from `from` on that the filter selects.
fn scan(
    shared: &Shared,
    filter: &OrderFilter,
    from: u64,
    limit: usize,
) -> Result<OrderPage, ReadError> {
    let txn = shared.read()?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let mut page = OrderPage::default();
    let rows = table.range(from..).map_err(redb::Error::from)?;
    for (looked_at, row) in rows.enumerate() {
        let (seq, row) = row.map_err(redb::Error::from)?;
        let seq = seq.value();
        if page.orders.len() >= limit || looked_at >= SCAN_MAX {
            page.next = Some(Cursor(seq.to_string()));
            break;
        }
        let order = parse(seq, row.value())?;
        if filter.matches(&order) {
            page.orders.push(order);
        }
    }
    Ok(page)
}

/// Counts the units of an item that each buyer holds or owns, over all orders in
/// the file, and tells the newest group that it has seen.
fn count_buyers(shared: &Shared, item: &ItemId) -> Result<(BuyerCounts, u64), ReadError> {
    let (txn, newest) = shared.snapshot()?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let mut buyers = BuyerCounts::default();
    for row in table.range(0..).map_err(redb::Error::from)? {
        let (seq, row) = row.map_err(redb::Error::from)?;
        let wrong = |error| ReadError::Row(seq.value(), error);
        let order = OrderRow::read(row.value()).map_err(wrong)?;
        if !order.status().owns_stock() {
            continue;
        }
        for (_, units, _) in order.lines().filter(|(id, ..)| *id == item.as_str()) {
            let buyer = BuyerId::new(order.buyer()).map_err(|error| wrong(error.into()))?;
            buyers.add(&buyer, i64::from(units));
        }
    }
    Ok((buyers, newest))
}

/// Has the rows of forgotten orders removed, under the lock that they were
/// forgotten under. Nobody waits for it: a row that a crash leaves is an order
/// that is remembered a little longer.
fn forget_rows(journal: &Journal, forgotten: Vec<u64>) {
    if !forgotten.is_empty() {
        journal
            .append_lazily(forgotten.len() * SEQ_BYTES, |group| group.forgotten.extend(forgotten));
    }
}

/// The rows of writes, made before anything is locked.
fn encode<'w>(writes: impl IntoIterator<Item = &'w OrderWrite>) -> OrderRows {
    let mut rows = OrderRows::default();
    for write in writes {
        put_order(&write.order, &mut rows.bytes);
        rows.ends.push((None, rows.bytes.len()));
    }
    rows
}

impl EmbeddedStore {
    /// Puts an order's row in the open group if the order is as expected.
    fn try_write(&self, write: &OrderWrite, now: Timestamp) -> Option<u64> {
        let mut rows = encode([write]);
        let mut inner = self.lock();
        inner.now = inner.now.max(now);
        rows.ends[0].0 = Some(inner.ledger.write_alone(write)?);
        let first_made = inner.ledger.next_seq();
        Some(inner.append(&self.journal, rows, first_made, Vec::new()))
    }

    /// Refuses calls about orders that are on their way into an archive: they come back.
    /// What an earlier order of the same call was written for is found again then.
    fn are_free(&self, orders: &[Option<Order>]) -> Result<(), SeamError> {
        let inner = self.lock();
        let departures = inner.ledger.departures();
        match orders.iter().flatten().any(|order| departures.hold(order)) {
            true => Err(being_archived(SERVICE)),
            false => Ok(()),
        }
    }

    fn put(
        journal: &Journal,
        inner: &mut Inner,
        spec: &Arc<ItemSpec>,
        row: Vec<u8>,
        owners: BuyerCounts,
    ) -> (PutOutcome, u64) {
        let outcome = inner.ledger.put_item(spec, owners);
        if matches!(outcome, PutOutcome::Created | PutOutcome::Changed) {
            let id = spec.id.as_str().to_owned();
            let now = inner.now;
            inner.put_in = journal.append(row.len(), |group| {
                group.change_item(id, ItemChangeRow::Put(row));
                group.now = now;
            });
        }
        (outcome, inner.put_in)
    }

    /// Adds a cap to an item that has buyers already, and counts them by the file
    /// on a thread that may block. All else goes on meanwhile; what it changes is
    /// added at the end. `None` if nobody is to be counted any more.
    async fn put_counting(
        &self,
        spec: &Arc<ItemSpec>,
        row: &[u8],
    ) -> Result<Option<(PutOutcome, u64)>, SeamError> {
        let late_cap = Arc::clone(&self.late_cap).lock_owned().await;
        let (journal, inner) = (self.journal.clone(), self.inner.clone());
        let (spec, row, runtime) = (spec.clone(), row.to_vec(), Handle::current());
        let put = move || {
            let _late_cap = late_cap;
            let Some(_counting) = Counting::start(&inner, &spec) else { return Ok(None) };
            // What changed before is in the file from then on.
            runtime.block_on(journal.durable(journal.last()))?;
            let count = || count_buyers(&journal.shared(), &spec.id);
            // As redb panics on some damage.
            let counted = catch_unwind(AssertUnwindSafe(count)).map_err(|_| panicked())??;
            let (mut owners, newest) = counted;
            // G6: what the file did not have yet, and nothing twice.
            let mut add = |moves: Vec<Move>| {
                for moved in moves.iter().filter(|moved| moved.place > newest) {
                    owners.add(&moved.buyer, moved.units);
                }
            };
            let lock = || inner.lock().expect("the ledger does not panic");
            for _ in 0..CATCHES_UP_MAX {
                let moves = lock().ledger.take_moves(&spec.id);
                let few = moves.len() <= MOVES_FEW;
                add(moves);
                if few {
                    break;
                }
            }
            let mut inner = lock();
            add(inner.ledger.take_moves(&spec.id));
            Ok(Some(Self::put(&journal, &mut inner, &spec, row, owners)))
        };
        spawn_blocking(put).await.map_err(|error| panicked().with_source(error))?
    }
}

#[async_trait]
impl InventoryStore for EmbeddedStore {
    /// Puts an item. A cap that comes after buyers did counts them by reading
    /// every order, about a second for three million; all else goes on meanwhile.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.journal.ready()?;
        let row = item_row(spec);
        let spec = Arc::new(spec.clone());
        let (outcome, group) = loop {
            {
                let mut inner = self.lock();
                if !inner.ledger.put_counts_buyers(&spec) {
                    break Self::put(&self.journal, &mut inner, &spec, row, BuyerCounts::default());
                }
            }
            if let Some(put) = self.put_counting(&spec, &row).await? {
                break put;
            }
        };
        self.journal.durable(group).await?;
        Ok(outcome)
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        self.journal.ready()?;
        self.look(|ledger| items.iter().map(|item| ledger.claim(item)).collect()).await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let begun = self.begin_commit(commits).await?;
        begun.durable.wait().await?;
        Ok(begun.outcomes)
    }

    async fn begin_commit(&self, commits: &[Commit]) -> Result<Begun, SeamError> {
        self.journal.ready()?;
        let writes = commits.iter().map(|commit| &commit.writes);
        let mut rows = encode(writes.flatten());
        let mut outcomes = Vec::with_capacity(commits.len());
        let mut durable = Durable::now();
        let decided = commits.iter().flat_map(|commit| &commit.writes);
        let decided = decided.filter_map(|write| write.order.decided_at()).max();
        let mut inner = self.lock();
        inner.now = inner.now.max(decided.unwrap_or_default());
        let first_made = inner.ledger.next_seq();
        let mut first = 0;
        let mut forgotten = Vec::new();
        for commit in commits {
            let ends = &mut rows.ends[first..first + commit.writes.len()];
            first += ends.len();
            outcomes.push(match inner.ledger.commit(commit) {
                Ok(seqs) => {
                    for (end, seq) in ends.iter_mut().zip(seqs) {
                        end.0 = Some(seq);
                    }
                    forgotten.extend(inner.ledger.forget_after(commit));
                    CommitOutcome::Applied
                }
                Err(refused) => refused,
            });
        }
        // All at once, lest the writer take them in halves.
        if rows.count() > 0 {
            let group = inner.append(&self.journal, rows, first_made, forgotten);
            for (commit, outcome) in commits.iter().zip(&outcomes) {
                if *outcome == CommitOutcome::Applied {
                    inner.ledger.note_moves(commit, |_| group);
                }
            }
            let journal = Arc::clone(&self.journal);
            durable = Durable::after(async move { journal.durable(group).await });
        }
        Ok(Begun { outcomes, durable })
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        self.journal.ready()?;
        let mut outcomes: Vec<Option<ConfirmOutcome>> = vec![None; payments.len()];
        let mut group = 0;
        // An order that changed between the read and the write is read again.
        // It is held only once in its life, so the second look is the last.
        while outcomes.contains(&None) {
            let open: Vec<usize> =
                (0..payments.len()).filter(|&at| outcomes[at].is_none()).collect();
            let ids: Vec<OrderId> = open.iter().map(|&at| payments[at].order).collect();
            let found = self.orders(&ids).await?;
            self.are_free(&found)?;
            for (at, order) in open.into_iter().zip(found) {
                let Payment { payment, at: now, .. } = &payments[at];
                let Some(order) = order else {
                    outcomes[at] = Some(ConfirmOutcome::NotFound);
                    continue;
                };
                let written = |write: &OrderWrite| self.try_write(write, *now);
                outcomes[at] = match confirm(&order, payment, *now) {
                    ConfirmRuling::Repeat => Some(ConfirmOutcome::Settled(order)),
                    ConfirmRuling::Late => Some(ConfirmOutcome::Late(order)),
                    ConfirmRuling::NotHeld => Some(ConfirmOutcome::NotHeld(order)),
                    ConfirmRuling::Write(write) => written(&write).map(|written_in| {
                        group = group.max(written_in);
                        ConfirmOutcome::Settled(write.order)
                    }),
                    ConfirmRuling::Owe(write) => written(&write).map(|written_in| {
                        group = group.max(written_in);
                        ConfirmOutcome::NotHeld(write.order)
                    }),
                };
            }
        }
        self.journal.durable(group).await?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        self.journal.ready()?;
        let mut outcomes = Vec::with_capacity(repayments.len());
        let mut group = 0;
        for Repayment { order, refund: told } in repayments {
            // Of two at once the second finds the money returned, and looks again.
            let outcome = loop {
                let found = self.orders(&[*order]).await?;
                self.are_free(&found)?;
                let Some(found) = found.into_iter().next().flatten() else {
                    break RefundOutcome::NotFound;
                };
                match refund(&found, told) {
                    RefundRuling::Repeat => break RefundOutcome::Refunded(found),
                    RefundRuling::Another => break RefundOutcome::ByAnother(found),
                    RefundRuling::NotOwed => break RefundOutcome::NotOwed(found),
                    RefundRuling::Write(write) => {
                        if let Some(written_in) = self.try_write(&write, told.at) {
                            group = group.max(written_in);
                            break RefundOutcome::Refunded(write.order);
                        }
                    }
                }
            };
            outcomes.push(outcome);
        }
        self.journal.durable(group).await?;
        Ok(outcomes)
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        self.journal.ready()?;
        Ok(self.lock().ledger.owed())
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.journal.readable()?;
        let (seqs, group) = {
            let inner = self.lock();
            let seq = |id: &OrderId| inner.ledger.entry(*id).map(Entry::seq);
            let seqs: Vec<Option<u64>> = ids.iter().map(seq).collect();
            let groups = seqs.iter().flatten().map(|seq| inner.written_in(*seq));
            let group = groups.max();
            (seqs, group)
        };
        let Some(group) = group else { return Ok(vec![None; ids.len()]) };
        self.journal.durable(group).await?;
        let orders = if seqs.len() <= READ_HERE_MAX {
            let shared = self.journal.shared();
            let read = catch_unwind(AssertUnwindSafe(|| read_orders(&shared, &seqs)));
            read.map_err(|_| panicked())??
        } else {
            let seqs = seqs.clone();
            read_file(&self.journal, move |shared| read_many_orders(shared, &seqs)).await?
        };
        let unread = (0..ids.len()).filter(|&at| seqs[at].is_some() && orders[at].is_none());
        for at in unread {
            // It may have been forgotten since it was looked up.
            if self.lock().ledger.entry(ids[at]).map(Entry::seq) == seqs[at] {
                return Err(ReadError::Missing(ids[at]).into());
            }
        }
        Ok(orders)
    }

    /// Lists a page; a limit of 0 gets an empty last one.
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        self.journal.readable()?;
        let from = after.map_or(Ok(0), |cursor| cursor_seq(cursor, SERVICE))?;
        if limit == 0 {
            return Ok(OrderPage::default());
        }
        let filter = filter.clone();
        if filter.money != Some(Money::Owed) {
            return read_file(&self.journal, move |shared| scan(shared, &filter, from, limit))
                .await;
        }
        let most = SCAN_MAX.min(limit);
        let owing = self.lock().ledger.owing(from, most);
        let next = owing.last().filter(|_| owing.len() == most);
        let next = next.map(|last| Cursor((last + 1).to_string()));
        let seqs: Vec<Option<u64>> = owing.into_iter().map(Some).collect();
        let read = read_file(&self.journal, move |shared| read_many_orders(shared, &seqs)).await?;
        // The file may lag: what does not owe there yet is left out.
        let orders = read.into_iter().flatten().filter(|order| filter.matches(order)).collect();
        Ok(OrderPage::new(orders, next))
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        self.journal.ready()?;
        let mut due = Vec::new();
        while !self.lock().ledger.due_holds(now, limit, &mut due) {}
        let next = {
            let mut inner = self.lock();
            inner.now = inner.now.max(now);
            inner.ledger.next_hold_end(now)
        };
        for _ in 0..FORGETS_MAX {
            let count = {
                let mut inner = self.lock();
                let forgotten = inner.ledger.forget(now, FORGOTTEN_AT_ONCE);
                let count = forgotten.len();
                forget_rows(&self.journal, forgotten);
                count
            };
            if count < FORGOTTEN_AT_ONCE {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(DueHolds { due, next })
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        self.look(|ledger| ids.iter().map(|id| ledger.item(id)).collect()).await
    }

    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let after = items.last().map_or(after, |item| Some(&item.spec.id));
            let most = LOOKS_AT_ONCE.min(limit - items.len());
            let more = self.look(|ledger| ledger.list_items(after, most)).await?;
            let is_last = more.len() < most || items.len() + more.len() == limit;
            items.extend(more);
            if is_last {
                return Ok(items);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        self.journal.readable()?;
        let (stock, group) = {
            let inner = self.lock();
            (inner.ledger.stock(item), self.journal.last())
        };
        self.journal.durable(group).await?;
        Ok(stock)
    }

    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.feed.clone().map(|feed| feed as _)
    }

    fn removals(&self) -> Option<&dyn Removals> {
        Some(self)
    }

    fn check(&self) -> Result<(), SeamError> {
        self.journal.ready()
    }

    async fn reopen(&self) -> Result<(), SeamError> {
        self.open_anew().await
    }

    fn kept_clock(&self) -> KeptClock {
        self.lock().kept_clock
    }

    /// Puts it in the open group. Nobody waits for it.
    fn keep_clock(&self, reference: ClockReference) {
        if self.journal.ready().is_err() {
            return;
        }
        let mut inner = self.lock();
        inner.kept_clock.reference = Some(reference);
        self.journal.append(0, |group| group.clock = Some(reference));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Embedded;
    use super::*;
    use crate::backends::state::ledger::tests::{hold, item, order, units};

    fn opened() -> (tempfile::TempDir, Embedded) {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Embedded::open(dir.path()).expect("opens");
        (dir, opened)
    }

    #[tokio::test]
    async fn an_order_whose_row_is_gone_is_damage_and_no_order_that_never_was() {
        let (_dir, opened) = opened();
        let store = &opened.store;
        store.put_item(&ItemSpec::pool("a", 9).expect("pool")).await.expect("put");
        let claims = store.claim(&[item("a")]).await.expect("claim");
        let claims = vec![(item("a"), claims[0].as_ref().expect("there").token)];
        let held = order(1, "ann", vec![units("a", 1)]);
        let commit = Commit { claims, writes: vec![hold(&held)] };
        assert_eq!(store.commit(&[commit]).await.expect("commit"), [CommitOutcome::Applied]);
        let ids = [held.id, order(2, "bob", vec![units("a", 1)]).id];
        let found = store.orders(&ids).await.expect("read");
        assert_eq!((found[0].is_some(), &found[1]), (true, &None));
        let seq = store.lock().ledger.entry(held.id).map(Entry::seq).expect("it is known");
        let txn = store.journal.shared().db().expect("open").begin_write().expect("begun");
        let gone = txn.open_table(ORDERS).expect("there").remove(seq).expect("done").is_some();
        assert!(gone);
        txn.commit().expect("committed");
        let read = store.orders(&ids).await;
        assert!(matches!(read, Err(SeamError::Broken { .. })), "{read:?}");
    }

    #[tokio::test]
    async fn changes_that_nobody_waits_for_are_written_once_they_are_many() {
        let (_dir, opened) = opened();
        let journal = &opened.store.journal;
        journal.append_lazily(64 << 10, |_| {});
        assert_eq!(journal.last(), 0, "few go with the next that somebody waits for");
        journal.append_lazily(1 << 20, |_| {});
        assert_eq!(journal.last(), 1);
        journal.durable(1).await.expect("written");
    }
}
