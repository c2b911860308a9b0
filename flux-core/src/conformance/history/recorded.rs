//! A store that writes down what reaches it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Fate, Grant, History, Missing, Write};
use crate::clock::ClockReference;
use crate::protocol::{
    Claim, Commit, CommitOutcome, Item, ItemId, ItemSpec, Order, OrderId, Stock, Timestamp,
};
use crate::seams::{
    Begun, ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore,
    KeptClock, OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Removals,
    Repayment, SeamError, ServiceTime, Sight,
};

/// Records claims, commits and payments. Put it next to the store, under
/// everything that loses or delays replies: it must see what truly happened.
/// (A change of definition needs no entry: the next claim shows it.)
#[derive(Debug)]
pub struct Recorded<S: ?Sized> {
    history: History,
    store: Arc<S>,
}

impl<S: InventoryStore + ?Sized> Recorded<S> {
    /// Records the calls of `store` in `history`.
    #[must_use]
    pub fn new(store: Arc<S>, history: History) -> Self {
        Self { history, store }
    }

    /// Notes the commits as begun, and says where.
    fn begin(&self, commits: &[Commit]) -> usize {
        let mut log = self.history.log();
        let (began, life, first) = (log.step(), log.life, log.writes.len());
        log.writes.extend(commits.iter().map(|commit| Write {
            commit: commit.clone(),
            fate: Fate::Open,
            life,
            began,
            ended: None,
        }));
        first
    }

    fn end(&self, first: usize, fates: impl IntoIterator<Item = Fate>) {
        let mut log = self.history.log();
        let ended = log.step();
        for (write, fate) in log.writes[first..].iter_mut().zip(fates) {
            write.fate = fate;
            write.ended = Some(ended);
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: InventoryStore + ?Sized> InventoryStore for Recorded<S> {
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.store.put_item(spec).await
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        let (began, life) = {
            let mut log = self.history.log();
            (log.step(), log.life)
        };
        let claims = self.store.claim(items).await?;
        let mut log = self.history.log();
        let ended = log.step();
        log.grants.extend(claims.iter().flatten().map(|claim| Grant {
            token: claim.token,
            spec: Arc::clone(&claim.spec),
            life,
            began,
            ended,
        }));
        let missing = items.iter().zip(&claims).filter(|(_, claim)| claim.is_none());
        log.missing.extend(missing.map(|(item, _)| Missing { item: item.clone(), ended }));
        Ok(claims)
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let first = self.begin(commits);
        let outcomes = self.store.commit(commits).await;
        match &outcomes {
            Ok(outcomes) => {
                let fate = |outcome: &CommitOutcome| match outcome {
                    CommitOutcome::Applied => Fate::Applied,
                    CommitOutcome::Unknown => Fate::Open,
                    CommitOutcome::Fenced(_) | CommitOutcome::Conflict { .. } => Fate::Refused,
                };
                self.end(first, outcomes.iter().map(fate));
            }
            Err(error) if error.may_have_applied() => {}
            Err(_) => self.end(first, commits.iter().map(|_| Fate::Refused)),
        }
        outcomes
    }

    /// Waits, so that whatever is noted as applied is durable.
    async fn begin_commit(&self, commits: &[Commit]) -> Result<Begun, SeamError> {
        Ok(Begun { outcomes: self.commit(commits).await?, durable: Durable::now() })
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        let outcomes = self.store.confirm(payments).await?;
        self.history.log().alone.extend(outcomes.iter().filter_map(|outcome| match outcome {
            ConfirmOutcome::Settled(order) | ConfirmOutcome::NotHeld(order) => Some(order.clone()),
            _ => None,
        }));
        Ok(outcomes)
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        let outcomes = self.store.refund(repayments).await?;
        self.history.log().alone.extend(outcomes.iter().filter_map(|outcome| match outcome {
            RefundOutcome::Refunded(order) | RefundOutcome::ByAnother(order) => Some(order.clone()),
            _ => None,
        }));
        Ok(outcomes)
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        self.store.owed().await
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.store.orders(ids).await
    }

    async fn reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        self.store.reserve(order).await
    }

    async fn note_accepted(&self, order: &Order) -> Result<(), SeamError> {
        self.store.note_accepted(order).await
    }

    async fn known(&self, ids: &[OrderId], sight: Sight) -> Result<Vec<Option<Order>>, SeamError> {
        self.store.known(ids, sight).await
    }

    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        self.store.list_orders(filter, after, limit).await
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        self.store.due_holds(now, limit).await
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        self.store.items(ids).await
    }

    async fn availability(&self, ids: &[ItemId]) -> Result<Vec<Option<u32>>, SeamError> {
        self.store.availability(ids).await
    }

    fn commit_max(&self) -> CommitMax {
        self.store.commit_max()
    }

    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError> {
        self.store.list_items(after, limit).await
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        self.store.stock(item).await
    }

    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.store.feed()
    }

    fn check(&self) -> Result<(), SeamError> {
        self.store.check()
    }

    async fn reopen(&self) -> Result<(), SeamError> {
        self.store.reopen().await
    }

    fn removals(&self) -> Option<&dyn Removals> {
        self.store.removals()
    }

    fn kept_clock(&self) -> KeptClock {
        self.store.kept_clock()
    }

    fn keep_clock(&self, reference: ClockReference) {
        self.store.keep_clock(reference);
    }

    fn service_time(&self) -> Option<ServiceTime> {
        self.store.service_time()
    }
}
