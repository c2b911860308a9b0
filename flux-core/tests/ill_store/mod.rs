//! A store that is ill: for a while it can't write an order, or any, or claim an item;
//! or somebody meddles with it.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flux_core::clock::ClockReference;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore,
    KeptClock, OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Removals,
    Repayment, SeamError, ServiceTime, Sight,
};
use flux_core::{Item, ItemId, ItemSpec, Order, OrderId, Timestamp};
use futures_util::future::BoxFuture;

type Answer<T> = Result<T, SeamError>;

/// The way a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test has each")]
pub(crate) enum Fails {
    /// Nothing of its call is done, and the store says so.
    Call,
    /// It is not done, and nothing is heard of it; the others of its call are.
    Unheard,
    /// Its call is taken on, and none of it ever becomes durable.
    Durability,
}

#[derive(Debug, Default)]
struct Ills {
    writes: Option<Fails>,
    /// The order that can't be written; any, if `None`.
    order: Option<OrderId>,
    item: Option<ItemId>,
    meddler: Option<Meddler>,
    lags: bool,
}

/// Somebody who comes when a commit was refused, before the worker hears of it.
struct Meddler(Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>);

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddler")
    }
}

/// What the store suffers from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Illness(Arc<Mutex<Ills>>);

#[allow(dead_code, reason = "not every test has each")]
impl Illness {
    /// It can't write the order.
    pub(crate) fn of_order(&self, order: OrderId, how: Fails) {
        self.set(Ills { writes: Some(how), order: Some(order), ..Ills::default() });
    }

    /// It can write nothing.
    pub(crate) fn of_every_order(&self, how: Fails) {
        self.set(Ills { writes: Some(how), ..Ills::default() });
    }

    /// It can't claim the item, nor any other in the same call.
    pub(crate) fn of_item(&self, item: ItemId) {
        self.set(Ills { item: Some(item), ..Ills::default() });
    }

    /// Once, when a commit is refused for its orders or their buyers, this is done before
    /// the worker hears of it.
    pub(crate) fn of_a_meddler<F>(&self, meddles: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let meddler = Meddler(Box::new(move || Box::pin(meddles())));
        self.set(Ills { meddler: Some(meddler), ..Ills::default() });
    }

    /// A read that may lag shows nothing.
    pub(crate) fn of_lag(&self) {
        self.set(Ills { lags: true, ..Ills::default() });
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        self.set(Ills::default());
    }

    fn set(&self, ills: Ills) {
        *self.0.lock().expect("no panic") = ills;
    }

    /// The way that a call with these commits fails, if it does.
    fn fails<'c>(&self, commits: impl IntoIterator<Item = &'c Commit>) -> Option<Fails> {
        let ills = self.0.lock().expect("no panic");
        let mut writes = commits.into_iter().flat_map(|commit| &commit.writes);
        ills.writes.filter(|_| writes.any(|w| ills.order.is_none_or(|id| id == w.order.id)))
    }

    async fn meddle(&self, outcomes: &[CommitOutcome]) {
        if outcomes.iter().any(|outcome| matches!(outcome, CommitOutcome::Conflict { .. })) {
            let meddler = self.0.lock().expect("no panic").meddler.take();
            if let Some(Meddler(meddles)) = meddler {
                meddles().await;
            }
        }
    }

    fn is_of(&self, items: &[ItemId]) -> bool {
        let ills = self.0.lock().expect("no panic");
        ills.item.as_ref().is_some_and(|item| items.contains(item))
    }
}

pub(crate) struct IllStore {
    store: Arc<dyn InventoryStore>,
    illness: Illness,
    max: CommitMax,
}

impl IllStore {
    /// The store, and what it will suffer from: nothing yet.
    #[allow(dead_code, reason = "not every test has each")]
    pub(crate) fn around(store: Arc<dyn InventoryStore>) -> (Arc<Self>, Illness) {
        let max = store.commit_max();
        Self::bounded(store, max)
    }

    /// The same, with bounds of one commit.
    #[allow(dead_code, reason = "not every test has each")]
    pub(crate) fn bounded(store: Arc<dyn InventoryStore>, max: CommitMax) -> (Arc<Self>, Illness) {
        let illness = Illness::default();
        (Arc::new(Self { store, illness: illness.clone(), max }), illness)
    }

    /// Commits all but those that nothing will be heard of.
    async fn begin_the_others(&self, commits: &[Commit]) -> Answer<Begun> {
        let is_heard = |commit: &&Commit| self.illness.fails([*commit]).is_none();
        let heard: Vec<Commit> = commits.iter().filter(is_heard).cloned().collect();
        let mut begun = self.store.begin_commit(&heard).await?;
        let mut answers = begun.outcomes.into_iter();
        let outcome = |commit| match is_heard(&commit) {
            true => answers.next().expect("one for each"),
            false => CommitOutcome::Unknown,
        };
        begun.outcomes = commits.iter().map(outcome).collect();
        Ok(begun)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl InventoryStore for IllStore {
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        self.store.put_item(spec).await
    }
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        match self.illness.is_of(items) {
            true => Err(SeamError::unavailable("the store")),
            false => self.store.claim(items).await,
        }
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        let begun = self.begin_commit(commits).await?;
        begun.durable.wait().await?;
        Ok(begun.outcomes)
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        match self.illness.fails(commits) {
            None => {
                let begun = self.store.begin_commit(commits).await?;
                self.illness.meddle(&begun.outcomes).await;
                Ok(begun)
            }
            Some(Fails::Call) => Err(SeamError::unavailable("the store")),
            Some(Fails::Unheard) => self.begin_the_others(commits).await,
            Some(Fails::Durability) => {
                let lost = async { Err(SeamError::broken("the store", "its disk is gone")) };
                let applied = commits.iter().map(|_| CommitOutcome::Applied).collect();
                Ok(Begun::new(applied, Durable::after(lost)))
            }
        }
    }
    fn commit_max(&self) -> CommitMax {
        self.max
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        self.store.confirm(payments).await
    }
    async fn refund(&self, repayments: &[Repayment]) -> Answer<Vec<RefundOutcome>> {
        self.store.refund(repayments).await
    }
    async fn owed(&self) -> Answer<Owed> {
        self.store.owed().await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        self.store.orders(ids).await
    }
    async fn reserve(&self, order: &Order) -> Answer<Option<Order>> {
        self.store.reserve(order).await
    }
    async fn note_accepted(&self, order: &Order) -> Answer<()> {
        self.store.note_accepted(order).await
    }
    async fn known(&self, ids: &[OrderId], sight: Sight) -> Answer<Vec<Option<Order>>> {
        match sight == Sight::MayLag && self.illness.0.lock().expect("no panic").lags {
            true => Ok(vec![None; ids.len()]),
            false => self.store.known(ids, sight).await,
        }
    }
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Answer<OrderPage> {
        self.store.list_orders(filter, after, limit).await
    }
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Answer<DueHolds> {
        self.store.due_holds(now, limit).await
    }
    async fn items(&self, ids: &[ItemId]) -> Answer<Vec<Option<Item>>> {
        self.store.items(ids).await
    }
    async fn availability(&self, ids: &[ItemId]) -> Answer<Vec<Option<u32>>> {
        self.store.availability(ids).await
    }
    async fn list_items(&self, after: Option<&ItemId>, limit: usize) -> Answer<Vec<Item>> {
        self.store.list_items(after, limit).await
    }
    async fn stock(&self, item: &ItemId) -> Answer<Option<(Arc<ItemSpec>, Stock)>> {
        self.store.stock(item).await
    }
    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.store.feed()
    }
    fn removals(&self) -> Option<&dyn Removals> {
        self.store.removals()
    }

    fn check(&self) -> Result<(), SeamError> {
        self.store.check()
    }

    async fn reopen(&self) -> Result<(), SeamError> {
        self.store.reopen().await
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
