//! The suite against the store of the `custom_backend` example, which was
//! written from the traits' promises alone: each checks the other.
#![cfg(feature = "conformance")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flux_core::conformance;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter, OrderPage, Owed, Payment,
    PutOutcome, RefundOutcome, Repayment, SeamError,
};
use flux_core::{Item, ItemId, ItemSpec, Order, OrderId, Timestamp};

#[path = "../../examples/custom_backend.rs"]
#[expect(dead_code, reason = "the example's main")]
mod custom_backend;

use custom_backend::MapStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_a_type() {
    let report = conformance::store(|| async { Arc::new(MapStore::default()) }).await;
    report.assert_clean();
}

#[tokio::test]
async fn as_a_trait_object_on_one_thread() {
    let fresh = || async { Arc::new(MapStore::default()) as Arc<dyn InventoryStore> };
    conformance::store(fresh).await.assert_clean();
}

/// The example's store with a listing that goes by the log of its writes: an order that is
/// written again after it was listed comes once more.
#[derive(Default)]
struct ByLastWrite {
    store: MapStore,
    written: Mutex<Vec<OrderId>>,
}

impl ByLastWrite {
    fn note(&self, orders: impl Iterator<Item = OrderId>) {
        let mut written = self.written.lock().expect("nobody panics");
        for order in orders {
            written.retain(|other| *other != order);
            written.push(order);
        }
    }
}

#[async_trait]
impl InventoryStore for ByLastWrite {
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.store.put_item(spec).await
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        self.store.claim(items).await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let outcomes = self.store.commit(commits).await?;
        for (commit, outcome) in commits.iter().zip(&outcomes) {
            if *outcome == CommitOutcome::Applied {
                self.note(commit.writes.iter().map(|write| write.order.id));
            }
        }
        Ok(outcomes)
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        let outcomes = self.store.confirm(payments).await?;
        self.note(payments.iter().map(|payment| payment.order));
        Ok(outcomes)
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        let outcomes = self.store.refund(repayments).await?;
        self.note(repayments.iter().map(|repayment| repayment.order));
        Ok(outcomes)
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        self.store.owed().await
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.store.orders(ids).await
    }

    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        let after: Option<OrderId> = match after.map(|cursor| cursor.0.parse()) {
            Some(Err(_)) => return Err(SeamError::UnknownCursor { service: "maps" }),
            after => after.and_then(Result::ok),
        };
        let page: Vec<OrderId> = {
            let written = self.written.lock().expect("nobody panics");
            let passed = written.iter().position(|order| Some(*order) == after);
            let from = passed.map_or(0, |at| at + 1);
            written[from..].iter().take(limit).copied().collect()
        };
        let next = page.last().filter(|_| page.len() == limit);
        let next = next.map(|order| Cursor(order.to_string()));
        let orders = self.orders(&page).await?.into_iter().flatten();
        Ok(OrderPage::new(orders.filter(|order| filter.matches(order)).collect(), next))
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        self.store.due_holds(now, limit).await
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        self.store.items(ids).await
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
}

#[tokio::test]
async fn a_listing_by_the_last_change_is_found_out() {
    let report = conformance::store(|| async { Arc::new(ByLastWrite::default()) }).await;
    let failed: Vec<_> = report.failures().map(|result| result.name).collect();
    assert_eq!(failed, ["an_order_that_changes_between_two_pages_is_listed_once"], "{report}");
}
