//! The store of a region: a transaction takes its time, and has its items to itself.

use std::sync::Arc;

use async_trait::async_trait;
use flux_core::clock::ClockReference;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, CommitMax, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore, KeptClock,
    OrderFilter, OrderPage, Payment, PutOutcome, SeamError, ServiceTime,
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

    async fn transact(&self, commit: &Commit) -> Answer<CommitOutcome> {
        let region = &self.link.region;
        let _one = self.link.transactions.acquire().await.expect("it is never closed");
        // Always in the same order, lest two wait for each other.
        let mut items: Vec<&ItemId> = commit.claims.iter().map(|(item, _)| item).collect();
        items.sort_unstable();
        let mut alone = Vec::with_capacity(items.len());
        for item in items {
            alone.push(region.item(item).lock_owned().await);
        }
        sleep(region.times.commit / 2).await;
        let outcome = self.near.commit(std::slice::from_ref(commit)).await?.remove(0);
        region.note_commit(commit, outcome == CommitOutcome::Applied);
        sleep(region.times.commit / 2).await;
        Ok(outcome)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl InventoryStore for RegionStore {
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        let region = &self.link.region;
        let at_once = items.chunks(region.at_once).map(async |some| {
            let _some = self.link.claims.acquire_many(some.len() as u32).await;
            sleep(region.times.claim / 2).await;
            let claims = self.near.claim(some).await;
            region.note_claims(some.len());
            sleep(region.times.claim / 2).await;
            claims
        });
        let claims: Vec<_> = join_all(at_once).await.into_iter().collect::<Answer<_>>()?;
        Ok(claims.concat())
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        join_all(commits.iter().map(|commit| self.transact(commit))).await.into_iter().collect()
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        Ok(Begun::new(self.commit(commits).await?, Durable::now()))
    }
    fn commit_max(&self) -> CommitMax {
        CommitMax::builder().parts(PARTS_MAX).bytes(BYTES_MAX).build()
    }
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        self.near.put_item(spec).await
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        self.near.confirm(payments).await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        self.near.orders(ids).await
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
