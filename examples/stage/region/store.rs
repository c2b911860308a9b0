//! The store of a region: a transaction takes its time, and has its items to itself.

use std::sync::Arc;

use async_trait::async_trait;
use flux_core::clock::ClockReference;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore,
    KeptClock, OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Removals,
    Repayment, SeamError, ServiceTime, Sight,
};
use flux_core::{Item, ItemId, ItemSpec, Order, OrderId, Timestamp};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::Link;

type Answer<T> = Result<T, SeamError>;

/// Parts and bytes of one transaction, as DynamoDB bounds them.
const PARTS_MAX: usize = 100;
const BYTES_MAX: usize = 2_500_000;

pub(super) struct RegionStore {
    near: Arc<dyn InventoryStore>,
    link: Link,
}

impl RegionStore {
    pub(super) fn new(near: Arc<dyn InventoryStore>, link: Link) -> Self {
        Self { near, link }
    }

    /// Claims an item: its first row, then the rows of its other stripes at once.
    async fn claim_one(&self, item: &ItemId) -> Answer<Option<Claim>> {
        let region = &self.link.region;
        let _one = self.link.claims.acquire().await.expect("it is never closed");
        let half = region.times.claim / 2;
        sleep(half).await;
        self.link.reach_store()?;
        let mut claims = self.near.claim(std::slice::from_ref(item)).await?;
        region.note_claim();
        sleep(half).await;
        if region.stripes > 1 {
            sleep(region.times.claim).await;
        }
        Ok(claims.pop().flatten())
    }

    /// Commits on one item go to its stripes in turn; one on several items has the
    /// first stripe of each.
    async fn transact(&self, commit: &Commit, number: usize) -> Answer<CommitOutcome> {
        let region = &self.link.region;
        let _one = self.link.transactions.acquire().await.expect("it is never closed");
        // Always in the same order, lest two wait for each other.
        let mut items: Vec<&ItemId> = commit.claims.iter().map(|(item, _)| item).collect();
        items.sort_unstable();
        let stripe = if items.len() == 1 { number % region.stripes } else { 0 };
        let mut alone = Vec::with_capacity(items.len());
        for item in items {
            alone.push(region.stock_row(item, stripe).lock_owned().await);
        }
        sleep(region.times.commit / 2).await;
        self.link.reach_store()?;
        let outcome = self.near.commit(std::slice::from_ref(commit)).await?.remove(0);
        region.note_commit(self.link.worker, commit, outcome == CommitOutcome::Applied);
        sleep(region.times.commit / 2).await;
        Ok(outcome)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl InventoryStore for RegionStore {
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        let claims = join_all(items.iter().map(|item| self.claim_one(item))).await;
        claims.into_iter().collect()
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        let transacted = (0..).zip(commits).map(|(number, commit)| self.transact(commit, number));
        join_all(transacted).await.into_iter().collect()
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        Ok(Begun::new(self.commit(commits).await?, Durable::now()))
    }
    fn commit_max(&self) -> CommitMax {
        let stripes = self.link.region.stripes;
        CommitMax::builder().parts(PARTS_MAX).bytes(BYTES_MAX).side_by_side(stripes).build()
    }
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        self.near.put_item(spec).await
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        self.near.confirm(payments).await
    }
    async fn refund(&self, repayments: &[Repayment]) -> Answer<Vec<RefundOutcome>> {
        self.near.refund(repayments).await
    }
    async fn owed(&self) -> Answer<Owed> {
        self.near.owed().await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        self.near.orders(ids).await
    }
    async fn reserve(&self, order: &Order) -> Answer<Option<Order>> {
        self.near.reserve(order).await
    }
    async fn note_accepted(&self, order: &Order) -> Answer<()> {
        self.near.note_accepted(order).await
    }
    async fn known(&self, ids: &[OrderId], sight: Sight) -> Answer<Vec<Option<Order>>> {
        self.near.known(ids, sight).await
    }
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Answer<OrderPage> {
        self.near.list_orders(filter, after, limit).await
    }
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Answer<DueHolds> {
        self.near.due_holds(now, limit).await
    }
    async fn items(&self, ids: &[ItemId]) -> Answer<Vec<Option<Item>>> {
        self.near.items(ids).await
    }
    async fn availability(&self, ids: &[ItemId]) -> Answer<Vec<Option<u32>>> {
        self.near.availability(ids).await
    }
    async fn list_items(&self, after: Option<&ItemId>, limit: usize) -> Answer<Vec<Item>> {
        self.near.list_items(after, limit).await
    }
    async fn stock(&self, item: &ItemId) -> Answer<Option<(Arc<ItemSpec>, Stock)>> {
        self.near.stock(item).await
    }
    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.near.feed()
    }
    fn removals(&self) -> Option<&dyn Removals> {
        self.near.removals()
    }
    fn check(&self) -> Answer<()> {
        self.near.check()
    }
    async fn reopen(&self) -> Answer<()> {
        self.near.reopen().await
    }

    fn kept_clock(&self) -> KeptClock {
        self.near.kept_clock()
    }
    fn keep_clock(&self, reference: ClockReference) {
        self.near.keep_clock(reference);
    }
    fn service_time(&self) -> Option<ServiceTime> {
        self.near.service_time()
    }
}
