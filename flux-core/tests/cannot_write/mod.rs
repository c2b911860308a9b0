//! A store that can't write one order, or for a while nothing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, CommitMax, ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter, OrderPage,
    Payment, PutOutcome, SeamError,
};
use flux_core::{Item, ItemId, ItemSpec, Order, OrderId, Timestamp};

type Answer<T> = Result<T, SeamError>;

pub(crate) struct CannotWrite {
    pub(crate) store: Arc<dyn InventoryStore>,
    pub(crate) order: OrderId,
    pub(crate) outage: Arc<AtomicBool>,
}

impl CannotWrite {
    fn check(&self, commits: &[Commit]) -> Answer<()> {
        let mut ids = commits.iter().flat_map(|commit| &commit.writes).map(|w| w.order.id);
        let refused = self.outage.load(Ordering::Relaxed) || ids.any(|id| id == self.order);
        if refused { Err(SeamError::unavailable("the store")) } else { Ok(()) }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl InventoryStore for CannotWrite {
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        self.store.put_item(spec).await
    }
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        self.store.claim(items).await
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        self.check(commits)?;
        self.store.commit(commits).await
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        self.check(commits)?;
        self.store.begin_commit(commits).await
    }
    fn commit_max(&self) -> CommitMax {
        self.store.commit_max()
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        self.store.confirm(payments).await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        self.store.orders(ids).await
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
}
