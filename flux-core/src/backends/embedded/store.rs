//! The durable inventory store: the ledger decides, the journal writes, and
//! orders are read from the file, so nothing is shown that is not on disk.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use redb::ReadableDatabase;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::journal::{Journal, ORDERS, OrderRows, Shared};
use super::rows::{OrderRow, RowError, item_row, put_order};
use super::{SERVICE, cause};
use crate::backends::memory::{SCAN_MAX, cursor_seq};
use crate::backends::state::ledger::{Buyers, Entry, Ledger};
use crate::protocol::{
    BuyerId, Claim, Commit, CommitOutcome, ConfirmRuling, Item, ItemId, ItemSpec, Order, OrderId,
    OrderWrite, Stock, Timestamp, confirm,
};
use crate::seams::{
    Begun, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore, OrderFilter, OrderPage,
    Payment, PutOutcome, SeamError,
};

/// Most orders read on the caller's own thread: a hop to another costs more than
/// they do, as they are nearly always in the cache.
const READ_HERE_MAX: usize = 32;

/// An [`InventoryStore`] on disk, in the file of its
/// [`Embedded`](super::Embedded).
#[derive(Debug)]
pub struct EmbeddedStore {
    journal: Arc<Journal>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    /// The group of the newest definition.
    put_in: u64,
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

impl Inner {
    /// Puts rows in the open group, whose orders from `first_made` on are new.
    fn append(&mut self, journal: &Journal, rows: OrderRows, first_made: u64) -> u64 {
        let older = |(seq, _): &(Option<u64>, usize)| seq.filter(|seq| *seq < first_made);
        let changed: Vec<u64> = rows.ends.iter().filter_map(older).collect();
        let bytes = rows.bytes.len();
        let group = journal.append(bytes, |group| group.orders.push(rows));
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
    pub(crate) fn new(journal: Arc<Journal>, ledger: Ledger) -> Self {
        Self {
            journal,
            inner: Arc::new(Mutex::new(Inner { ledger, put_in: 0, fresh: VecDeque::new() })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the ledger does not panic")
    }

    /// Reads from the ledger, and waits until the definitions seen are durable.
    async fn look<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> Result<T, SeamError> {
        self.journal.ready()?;
        let (seen, put_in) = {
            let mut inner = self.lock();
            (look(&mut inner.ledger), inner.put_in)
        };
        self.journal.durable(put_in).await?;
        Ok(seen)
    }

    /// Reads from the file, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, SeamError> {
        let shared = self.journal.shared();
        Ok(spawn_blocking(move || read(&shared))
            .await
            .map_err(|error| panicked().with_source(error))??)
    }
}

/// The reason why a read of the file fails.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the file can't be read")]
    Database(#[from] redb::Error),
    #[error("order {0} can't be read: {1}")]
    Row(u64, RowError),
    #[error("order {0} is missing")]
    Missing(u64),
}

impl From<ReadError> for SeamError {
    fn from(error: ReadError) -> Self {
        let broken = Self::broken(SERVICE, format!("{error}; restore the file from a copy"));
        broken.with_source(match error {
            ReadError::Database(error) => cause(error),
            error => error.into(),
        })
    }
}

/// The failure of a read that panicked, as redb does on some damage.
fn panicked() -> SeamError {
    SeamError::broken(SERVICE, "reading the file failed badly; restore it from a copy")
}

/// Reads orders by their sequence numbers.
fn read_orders(shared: &Shared, seqs: &[Option<u64>]) -> Result<Vec<Option<Order>>, ReadError> {
    let txn = shared.db.begin_read().map_err(redb::Error::from)?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let read = |seq| {
        let row = table.get(seq).map_err(redb::Error::from)?.ok_or(ReadError::Missing(seq))?;
        parse(seq, row.value())
    };
    seqs.iter().map(|seq| seq.map(read).transpose()).collect()
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
    let txn = shared.db.begin_read().map_err(redb::Error::from)?;
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

/// Counts the units of an item that each buyer holds or owns, over all orders in the file.
fn count_buyers(shared: &Shared, item: &ItemId) -> Result<Buyers, ReadError> {
    let txn = shared.db.begin_read().map_err(redb::Error::from)?;
    let table = txn.open_table(ORDERS).map_err(redb::Error::from)?;
    let mut buyers = Buyers::default();
    for row in table.range(0..).map_err(redb::Error::from)? {
        let (seq, row) = row.map_err(redb::Error::from)?;
        let wrong = |error| ReadError::Row(seq.value(), error);
        let order = OrderRow::read(row.value()).map_err(wrong)?;
        if !order.status().owns_stock() {
            continue;
        }
        for (_, units, _) in order.lines().filter(|(id, ..)| *id == item.as_str()) {
            let buyer = BuyerId::new(order.buyer()).map_err(|error| wrong(error.into()))?;
            *buyers.entry(buyer).or_default() += units;
        }
    }
    Ok(buyers)
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
    fn try_confirm(&self, write: &OrderWrite) -> Option<u64> {
        let mut rows = encode([write]);
        let mut inner = self.lock();
        rows.ends[0].0 = Some(inner.ledger.confirm(write)?);
        let first_made = inner.ledger.next_seq();
        Some(inner.append(&self.journal, rows, first_made))
    }

    fn put(
        journal: &Journal,
        inner: &mut Inner,
        spec: &Arc<ItemSpec>,
        owners: Buyers,
    ) -> (PutOutcome, u64) {
        let outcome = inner.ledger.put_item(spec, owners);
        if matches!(outcome, PutOutcome::Created | PutOutcome::Changed) {
            let row = item_row(spec);
            let id = spec.id.as_str().to_owned();
            inner.put_in = journal.append(row.len(), |group| group.items.push((id, row)));
        }
        (outcome, inner.put_in)
    }

    /// Adds a cap to an item that has buyers already. Nothing else is decided
    /// while they are counted.
    async fn put_counting(&self, spec: Arc<ItemSpec>) -> Result<(PutOutcome, u64), SeamError> {
        let (journal, inner, runtime) =
            (self.journal.clone(), self.inner.clone(), Handle::current());
        let put = move || {
            let mut inner = inner.lock().expect("the ledger does not panic");
            runtime.block_on(journal.durable(journal.last()))?;
            // A panic of redb must not poison the ledger, which is as it was.
            let count = || count_buyers(&journal.shared(), &spec.id);
            let owners = catch_unwind(AssertUnwindSafe(count)).map_err(|_| panicked())??;
            Ok(Self::put(&journal, &mut inner, &spec, owners))
        };
        spawn_blocking(put).await.map_err(|error| panicked().with_source(error))?
    }
}

#[async_trait]
impl InventoryStore for EmbeddedStore {
    /// Puts an item. A cap that comes after buyers did counts them by reading
    /// every order, about a second for three million, while commits wait.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.journal.ready()?;
        let spec = Arc::new(spec.clone());
        let put = {
            let mut inner = self.lock();
            if inner.ledger.put_counts_buyers(&spec) {
                None
            } else {
                Some(Self::put(&self.journal, &mut inner, &spec, Buyers::default()))
            }
        };
        let (outcome, group) = match put {
            Some(put) => put,
            None => self.put_counting(spec).await?,
        };
        self.journal.durable(group).await?;
        Ok(outcome)
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
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
        let mut inner = self.lock();
        let first_made = inner.ledger.next_seq();
        let mut first = 0;
        for commit in commits {
            let ends = &mut rows.ends[first..first + commit.writes.len()];
            first += ends.len();
            outcomes.push(match inner.ledger.commit(commit) {
                Ok(seqs) => {
                    for (end, seq) in ends.iter_mut().zip(seqs) {
                        end.0 = Some(seq);
                    }
                    CommitOutcome::Applied
                }
                Err(refused) => refused,
            });
        }
        // All at once, lest the writer take them in halves.
        if rows.count() > 0 {
            let group = inner.append(&self.journal, rows, first_made);
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
            for (at, order) in open.into_iter().zip(self.orders(&ids).await?) {
                let Payment { payment, at: now, .. } = &payments[at];
                let Some(order) = order else {
                    outcomes[at] = Some(ConfirmOutcome::NotFound);
                    continue;
                };
                outcomes[at] = match confirm(&order, payment, *now) {
                    ConfirmRuling::Repeat => Some(ConfirmOutcome::Settled(order)),
                    ConfirmRuling::Late => Some(ConfirmOutcome::Late(order)),
                    ConfirmRuling::NotHeld => Some(ConfirmOutcome::NotHeld(order)),
                    ConfirmRuling::Write(write) => self.try_confirm(&write).map(|written_in| {
                        group = group.max(written_in);
                        ConfirmOutcome::Settled(write.order)
                    }),
                };
            }
        }
        self.journal.durable(group).await?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.journal.ready()?;
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
        if seqs.len() <= READ_HERE_MAX {
            let shared = self.journal.shared();
            let read = catch_unwind(AssertUnwindSafe(|| read_orders(&shared, &seqs)));
            return Ok(read.map_err(|_| panicked())??);
        }
        self.read(move |shared| read_orders(shared, &seqs)).await
    }

    /// Lists a page; a limit of 0 gets an empty last one.
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        self.journal.ready()?;
        let from = after.map_or(Ok(0), |cursor| cursor_seq(cursor, SERVICE))?;
        if limit == 0 {
            return Ok(OrderPage::default());
        }
        let filter = filter.clone();
        self.read(move |shared| scan(shared, &filter, from, limit)).await
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        self.journal.ready()?;
        let mut due = Vec::new();
        while !self.lock().ledger.due_holds(now, limit, &mut due) {}
        let next = self.lock().ledger.next_hold_end(now);
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
        self.look(|ledger| ledger.list_items(after, limit)).await
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        self.journal.ready()?;
        let (stock, group) = {
            let inner = self.lock();
            (inner.ledger.stock(item), self.journal.last())
        };
        self.journal.durable(group).await?;
        Ok(stock)
    }
}
