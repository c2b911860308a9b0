//! The inventory store in memory: the ledger and the orders beside it.

use std::collections::HashSet;
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::backends::state::ledger::{Ledger, count_buyers};
use crate::protocol::{
    Claim, Commit, CommitOutcome, ConfirmRuling, Item, ItemId, ItemSpec, Order, OrderId, Stock,
    Timestamp, confirm,
};
use crate::seams::{
    CommitMax, ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter, OrderPage, Payment,
    PutOutcome, SeamError, Weight,
};

pub(crate) const SERVICE: &str = "store";
/// Most orders that a listing looks at in one call.
pub(crate) const SCAN_MAX: usize = 10_000;

/// An [`InventoryStore`] in memory.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    commit_max: CommitMax,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_commit_max(CommitMax::UNLIMITED)
    }
}

#[derive(Debug, Default)]
struct Inner {
    ledger: Ledger,
    /// The orders, by sequence number.
    orders: Vec<Order>,
}

impl MemoryStore {
    /// A store that refuses commits above a bound, as one behind a network
    /// does: to test with.
    #[must_use]
    pub fn with_commit_max(commit_max: CommitMax) -> Self {
        Self { inner: Mutex::default(), commit_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the ledger does not panic")
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
        let weights = orders().map(|order| Weight::of(order, is_capped));
        max.fits(weights.fold(Weight::default(), Weight::add), items.len())
    }

    fn order(&self, id: OrderId) -> Option<&Order> {
        self.ledger.entry(id).map(|entry| &self.orders[entry.seq() as usize])
    }

    fn write(&mut self, seq: u64, order: &Order) {
        match self.orders.get_mut(seq as usize) {
            Some(slot) => *slot = order.clone(),
            None => self.orders.push(order.clone()),
        }
    }

    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
        match self.ledger.commit(commit) {
            Ok(seqs) => {
                for (write, seq) in commit.writes.iter().zip(seqs) {
                    self.write(seq, &write.order);
                }
                CommitOutcome::Applied
            }
            Err(refused) => refused,
        }
    }

    fn confirm(&mut self, payment: &Payment) -> ConfirmOutcome {
        let Some(order) = self.order(payment.order) else { return ConfirmOutcome::NotFound };
        match confirm(order, &payment.payment, payment.at) {
            ConfirmRuling::Repeat => ConfirmOutcome::Settled(order.clone()),
            ConfirmRuling::Late => ConfirmOutcome::Late(order.clone()),
            ConfirmRuling::NotHeld => ConfirmOutcome::NotHeld(order.clone()),
            ConfirmRuling::Write(write) => {
                let seq = self.ledger.confirm(&write).expect("the order is held under this lock");
                self.write(seq, &write.order);
                ConfirmOutcome::Settled(write.order)
            }
        }
    }
}

/// Reads a cursor: the sequence number of the first order to look at.
pub(crate) fn cursor_seq(cursor: &Cursor, service: &'static str) -> Result<u64, SeamError> {
    cursor.0.parse().map_err(|_| SeamError::UnknownCursor { service })
}

#[async_trait]
impl InventoryStore for MemoryStore {
    /// Puts an item. A cap that comes after buyers did counts them by looking at
    /// every order, while all else waits.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let owners = if inner.ledger.put_counts_buyers(spec) {
            count_buyers(inner.orders.iter(), &spec.id)
        } else {
            Default::default()
        };
        Ok(inner.ledger.put_item(&Arc::new(spec.clone()), owners))
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
        }
        Ok(commits.iter().map(|commit| inner.commit(commit)).collect())
    }

    fn commit_max(&self) -> CommitMax {
        self.commit_max
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        let mut inner = self.lock();
        Ok(payments.iter().map(|payment| inner.confirm(payment)).collect())
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        let inner = self.lock();
        Ok(ids.iter().map(|id| inner.order(*id).cloned()).collect())
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
        let inner = self.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(inner.orders.len());
        let mut page = OrderPage::default();
        for (seq, order) in inner.orders.iter().enumerate().skip(from) {
            if page.orders.len() >= limit || seq - from >= SCAN_MAX {
                page.next = Some(Cursor(seq.to_string()));
                break;
            }
            if filter.matches(order) {
                page.orders.push(order.clone());
            }
        }
        Ok(page)
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        let mut due = Vec::new();
        while !self.lock().ledger.due_holds(now, limit, &mut due) {}
        let next = self.lock().ledger.next_hold_end(now);
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
        Ok(self.lock().ledger.list_items(after, limit))
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        Ok(self.lock().ledger.stock(item))
    }
}
