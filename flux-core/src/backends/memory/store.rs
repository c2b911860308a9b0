//! The inventory store in memory: the ledger and the orders beside it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use super::feed::{CHANGES_MAX, MemoryFeed};
use crate::backends::state::buyer_book::BuyerBook;
use crate::backends::state::ledger::{BuyerCounts, Counting, Ledger};
use crate::backends::state::rejected::Retention;
use crate::clock::ClockReference;
use crate::protocol::{
    BuyerRules, Claim, Commit, CommitOutcome, ConfirmRuling, Item, ItemId, ItemSpec, Money, Order,
    OrderId, OrderWrite, RefundRuling, Stock, Timestamp, confirm, refund,
};
use crate::seams::{
    ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, InventoryStore, KeptClock,
    OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Removals, Repayment,
    SeamError, Weight,
};

pub(crate) const SERVICE: &str = "store";
/// Most orders that a listing looks at in one call.
pub(crate) const SCAN_MAX: usize = 10_000;
/// Most orders or items looked at while a lock is held.
pub(crate) const LOOKS_AT_ONCE: usize = 1_024;
/// Most rejected orders forgotten while a lock is held.
pub(crate) const FORGOTTEN_AT_ONCE: usize = LOOKS_AT_ONCE;
/// Time after which to ask again for an order that is being archived.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(1);
/// Most times in a row that a look for ended holds does that.
pub(crate) const FORGETS_MAX: usize = 64;

/// An [`InventoryStore`] in memory.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    commit_max: CommitMax,
    /// Held by whoever counts the buyers of an item.
    late_cap: tokio::sync::Mutex<()>,
    clock: Mutex<Option<ClockReference>>,
    pub(super) feed: Arc<MemoryFeed>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_commit_max(CommitMax::UNLIMITED)
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) ledger: Ledger,
    /// The orders, by sequence number.
    orders: BTreeMap<u64, Arc<Order>>,
}

impl MemoryStore {
    /// A store that refuses commits above a bound, as one behind a network
    /// does: to test with.
    #[must_use]
    pub fn with_commit_max(commit_max: CommitMax) -> Self {
        Self {
            inner: Mutex::default(),
            commit_max,
            late_cap: tokio::sync::Mutex::default(),
            clock: Mutex::default(),
            feed: Arc::new(MemoryFeed::new(CHANGES_MAX)),
        }
    }

    /// An empty store that remembers rejected orders, and keeps to rules about
    /// buyers, as told.
    pub(crate) fn that_keeps_to(
        retention: Retention,
        rules: BuyerRules,
        changes_max: usize,
    ) -> Self {
        let ledger = Ledger::new(retention).with_book(BuyerBook::of(rules));
        let inner = Inner { ledger, ..Inner::default() };
        let feed = Arc::new(MemoryFeed::new(changes_max));
        Self { inner: Mutex::new(inner), feed, ..Self::default() }
    }

    /// Adds a cap to an item that has buyers already, and counts them with the
    /// lock held for a part of the orders at a time.
    /// `None` if nobody is to be counted any more.
    async fn put_counting(&self, spec: &Arc<ItemSpec>) -> Option<PutOutcome> {
        let _late_cap = self.late_cap.lock().await;
        let _counting = Counting::start(&self.inner, spec)?;
        let (mut owners, mut counted) = (BuyerCounts::default(), 0);
        loop {
            {
                let mut inner = self.lock();
                // G6: what changed of the orders that were counted; the others are
                // yet to be seen as they are now.
                for moved in inner.ledger.take_moves(&spec.id) {
                    if moved.place < counted {
                        owners.add(&moved.buyer, moved.units);
                    }
                }
                let counted_before = counted;
                let mut part = 0;
                for (seq, order) in inner.orders.range(counted_before..).take(LOOKS_AT_ONCE) {
                    owners.count(order, &spec.id);
                    (counted, part) = (seq + 1, part + 1);
                }
                if part < LOOKS_AT_ONCE {
                    return Some(self.put(&mut inner, spec, owners));
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn put(&self, inner: &mut Inner, spec: &Arc<ItemSpec>, owners: BuyerCounts) -> PutOutcome {
        let outcome = inner.ledger.put_item(spec, owners);
        if matches!(outcome, PutOutcome::Created | PutOutcome::Changed) {
            self.feed.item(spec);
        }
        outcome
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the ledger does not panic")
    }
}

impl AsMut<Ledger> for Inner {
    fn as_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Inner {
    fn fits(&self, commit: &Commit, max: &CommitMax) -> bool {
        let is_capped = |item: &_| {
            self.ledger.stock(item).is_some_and(|(spec, _)| spec.max_per_buyer.is_some())
        };
        let orders = || commit.writes.iter().map(|write| &write.order);
        let items: HashSet<_> =
            orders().flat_map(|o| o.lines.iter().map(|line| &line.item)).collect();
        let weights = orders().map(|order| max.weigh(order, is_capped));
        max.fits(weights.fold(Weight::default(), Weight::add), items.len())
    }

    fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&self.ledger.entry(id)?.seq()).map(Arc::as_ref)
    }

    pub(super) fn forget(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.orders.remove(seq);
        }
    }

    /// Keeps an order as it is now.
    fn keep(&mut self, seq: u64, order: &Order) -> Arc<Order> {
        let order = Arc::new(order.clone());
        self.orders.insert(seq, order.clone());
        order
    }

    fn commit(&mut self, commit: &Commit, feed: &MemoryFeed) -> CommitOutcome {
        match self.ledger.commit(commit) {
            Ok(seqs) => {
                self.ledger.note_moves(commit, |at| seqs[at]);
                let now = commit.writes.iter().filter_map(|write| write.order.decided_at()).max();
                let writes = commit.writes.iter().zip(seqs);
                let orders = writes.map(|(write, seq)| self.keep(seq, &write.order));
                feed.orders(now.unwrap_or_default(), orders);
                let forgotten = self.ledger.forget_after(commit);
                self.forget(&forgotten);
                CommitOutcome::Applied
            }
            Err(refused) => refused,
        }
    }

    fn confirm(&mut self, payment: &Payment, feed: &MemoryFeed) -> ConfirmOutcome {
        let Some(order) = self.order(payment.order) else { return ConfirmOutcome::NotFound };
        match confirm(order, &payment.payment, payment.at) {
            ConfirmRuling::Repeat => ConfirmOutcome::Settled(order.clone()),
            ConfirmRuling::Late => ConfirmOutcome::Late(order.clone()),
            ConfirmRuling::NotHeld => ConfirmOutcome::NotHeld(order.clone()),
            ConfirmRuling::Write(write) => {
                self.write_alone(&write, payment.at, feed);
                ConfirmOutcome::Settled(write.order)
            }
            ConfirmRuling::Owe(write) => {
                self.write_alone(&write, payment.at, feed);
                ConfirmOutcome::NotHeld(write.order)
            }
        }
    }

    fn refund(
        &mut self,
        Repayment { order, refund: told }: &Repayment,
        feed: &MemoryFeed,
    ) -> RefundOutcome {
        let Some(order) = self.order(*order) else { return RefundOutcome::NotFound };
        match refund(order, told) {
            RefundRuling::Repeat => RefundOutcome::Refunded(order.clone()),
            RefundRuling::Another => RefundOutcome::ByAnother(order.clone()),
            RefundRuling::NotOwed => RefundOutcome::NotOwed(order.clone()),
            RefundRuling::Write(write) => {
                self.write_alone(&write, told.at, feed);
                RefundOutcome::Refunded(write.order)
            }
        }
    }

    /// Refuses calls about orders that are on their way into an archive: they come back.
    fn are_free(&self, ids: impl IntoIterator<Item = OrderId>) -> Result<(), SeamError> {
        let departures = self.ledger.departures();
        let is_held = |id| self.order(id).is_some_and(|order| departures.hold(order));
        if ids.into_iter().any(is_held) { Err(being_archived(SERVICE)) } else { Ok(()) }
    }

    /// Writes an order that was just read under the same lock.
    fn write_alone(&mut self, write: &OrderWrite, at: Timestamp, feed: &MemoryFeed) {
        let seq = self.ledger.write_alone(write).expect("the order is as it was read");
        feed.orders(at, [self.keep(seq, &write.order)]);
    }
}

/// The answer about orders that stay as they are until they are archived.
pub(crate) fn being_archived(service: &'static str) -> SeamError {
    SeamError::Overloaded { service, retry_after: ARCHIVED_WITHIN }
}

/// Reads a cursor: the sequence number of the first order to look at.
pub(crate) fn cursor_seq(cursor: &Cursor, service: &'static str) -> Result<u64, SeamError> {
    cursor.0.parse().map_err(|_| SeamError::UnknownCursor { service })
}

#[async_trait]
impl InventoryStore for MemoryStore {
    /// Puts an item. A cap that comes after buyers did counts them by looking at
    /// every order; all else goes on meanwhile.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        let spec = Arc::new(spec.clone());
        loop {
            {
                let mut inner = self.lock();
                if !inner.ledger.put_counts_buyers(&spec) {
                    return Ok(self.put(&mut inner, &spec, BuyerCounts::default()));
                }
            }
            if let Some(outcome) = self.put_counting(&spec).await {
                return Ok(outcome);
            }
        }
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        let mut inner = self.lock();
        Ok(items.iter().map(|item| inner.ledger.claim(item)).collect())
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let mut inner = self.lock();
        let max = &self.commit_max;
        if *max != CommitMax::UNLIMITED {
            for commit in commits {
                if commit.writes.len() > 1 && !inner.fits(commit, max) {
                    let reason = format!("a commit of {} orders is too large", commit.writes.len());
                    return Err(SeamError::broken(SERVICE, reason));
                }
            }
            let mut carried: HashMap<&ItemId, usize> = HashMap::new();
            for (item, _) in commits.iter().flat_map(|commit| &commit.claims) {
                let times = carried.entry(item).or_default();
                *times += 1;
                if *times > max.side_by_side {
                    let reason = format!("{times} commits side by side are too many for {item}");
                    return Err(SeamError::broken(SERVICE, reason));
                }
            }
        }
        Ok(commits.iter().map(|commit| inner.commit(commit, &self.feed)).collect())
    }

    fn commit_max(&self) -> CommitMax {
        self.commit_max
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        let mut inner = self.lock();
        inner.are_free(payments.iter().map(|payment| payment.order))?;
        Ok(payments.iter().map(|payment| inner.confirm(payment, &self.feed)).collect())
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        let mut inner = self.lock();
        inner.are_free(repayments.iter().map(|repayment| repayment.order))?;
        Ok(repayments.iter().map(|repayment| inner.refund(repayment, &self.feed)).collect())
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        Ok(self.lock().ledger.owed())
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        let mut orders = Vec::with_capacity(ids.len());
        for part in ids.chunks(LOOKS_AT_ONCE) {
            let inner = self.lock();
            orders.extend(part.iter().map(|id| inner.order(*id).cloned()));
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
        let from = after.map_or(Ok(0), |cursor| cursor_seq(cursor, SERVICE))?;
        if limit == 0 {
            return Ok(OrderPage::default());
        }
        if filter.money == Some(Money::Owed) {
            let most = SCAN_MAX.min(limit);
            let inner = self.lock();
            let owing = inner.ledger.owing(from, most);
            let next = owing.last().filter(|_| owing.len() == most);
            let next = next.map(|last| Cursor((last + 1).to_string()));
            let orders = owing.iter().filter_map(|seq| inner.orders.get(seq));
            let orders = orders.filter(|order| filter.matches(order));
            return Ok(OrderPage::new(orders.map(|order| Order::clone(order)).collect(), next));
        }
        let (mut page, mut from) = (OrderPage::default(), from);
        for _ in 0..SCAN_MAX / LOOKS_AT_ONCE {
            {
                let inner = self.lock();
                let mut rest = inner.orders.range(from..);
                for (seq, order) in rest.by_ref().take(LOOKS_AT_ONCE) {
                    if page.orders.len() >= limit {
                        page.next = Some(Cursor(seq.to_string()));
                        return Ok(page);
                    }
                    if filter.matches(order) {
                        page.orders.push(Order::clone(order));
                    }
                }
                match rest.next() {
                    Some((seq, _)) => from = *seq,
                    None => return Ok(page),
                }
            }
            tokio::task::yield_now().await;
        }
        page.next = Some(Cursor(from.to_string()));
        Ok(page)
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        let mut due = Vec::new();
        while !self.lock().ledger.due_holds(now, limit, &mut due) {}
        let next = self.lock().ledger.next_hold_end(now);
        for _ in 0..FORGETS_MAX {
            let forgotten = {
                let mut inner = self.lock();
                let forgotten = inner.ledger.forget(now, FORGOTTEN_AT_ONCE);
                inner.forget(&forgotten);
                forgotten
            };
            if forgotten.len() < FORGOTTEN_AT_ONCE {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(DueHolds { due, next })
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        let inner = self.lock();
        Ok(ids.iter().map(|id| inner.ledger.item(id)).collect())
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
            let more = self.lock().ledger.list_items(after, most);
            let is_last = more.len() < most || items.len() + more.len() == limit;
            items.extend(more);
            if is_last {
                return Ok(items);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        Ok(self.lock().ledger.stock(item))
    }

    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        Some(self.feed.clone())
    }

    fn removals(&self) -> Option<&dyn Removals> {
        Some(self)
    }

    /// Kept as long as the store lives.
    fn kept_clock(&self) -> KeptClock {
        let reference = *self.clock.lock().expect("nothing panics under this lock");
        let has_holds = self.lock().ledger.next_hold_end(Timestamp::default()).is_some();
        KeptClock::new(reference, reference.is_some() && has_holds)
    }

    fn keep_clock(&self, reference: ClockReference) {
        *self.clock.lock().expect("nothing panics under this lock") = Some(reference);
    }
}
