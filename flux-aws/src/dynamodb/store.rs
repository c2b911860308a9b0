//! The [`InventoryStore`], call by call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flux_core::protocol::{Claim, Commit, CommitOutcome, OrderWrite, Stock};
use flux_core::seams::{
    ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter,
    OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Repayment, SeamError, ServiceTime, Sight,
};
use flux_core::{Item, ItemId, ItemSpec, Money, Order, OrderId, OrderStatus, Timestamp};
use futures_util::{StreamExt, TryStreamExt};

use super::DynamoStore;
use super::commit::ACTIONS_MAX;
use super::notes::read_known;
use super::rows::{Key, Row, SERVICE, get_number, number, read_order, string, text};
use super::stock_row::Known;
use super::table::{Table, Written, in_order};
use crate::batcher::NotBatched;

/// DynamoDB takes 4 MB in one transaction; rows are larger than what they say.
const COMMIT_BYTES_MAX: usize = 2_500_000;
/// Commits on one item that one call may bring.
const SIDE_BY_SIDE: usize = 16;
/// Holds looked at first in each key of the index.
const DUE_PAGE: i32 = 25;

/// Makes a held order a paid one, which is neither due nor counted.
pub(super) const PAID: &str =
    "SET #status = :confirmed, payment = :payment REMOVE due, takes, counted";

#[async_trait]
impl InventoryStore for DynamoStore {
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.put(spec).await
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        self.claim_all(items).await
    }

    fn commit_max(&self) -> CommitMax {
        let max = CommitMax::builder().parts(ACTIONS_MAX).bytes(COMMIT_BYTES_MAX);
        let rules = self.hoarding.rules;
        max.side_by_side(SIDE_BY_SIDE)
            .parts_per_order(1 + usize::from(rules.holds_max.is_some()))
            .parts_per_line(usize::from(rules.pause().is_some()))
            .build()
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let outcomes = self.commit_all(commits).await;
        self.held.changed();
        let owes = |write: &OrderWrite| write.order.money() == Money::Owed;
        if commits.iter().flat_map(|commit| &commit.writes).any(owes) {
            self.owed_changed();
        }
        outcomes
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        all_or_unknown(in_order(payments.iter().map(|payment| self.pay(payment))).collect().await)
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        all_or_unknown(in_order(repayments.iter().map(|told| self.repay(told))).collect().await)
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        self.count_owed().await
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        let known = self.known(ids, Sight::Now).await?.into_iter();
        let is_decided = |order: &Order| order.status() != OrderStatus::Queued;
        Ok(known.map(|order| order.filter(is_decided)).collect())
    }

    async fn reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        self.try_reserve(order).await
    }

    async fn note_accepted(&self, order: &Order) -> Result<(), SeamError> {
        self.note(order).await
    }

    async fn known(&self, ids: &[OrderId], sight: Sight) -> Result<Vec<Option<Order>>, SeamError> {
        if let [id] = ids {
            // Many callers ask for one order each.
            let reads = match sight {
                Sight::Now => &self.order_reads,
                Sight::MayLag => &self.lagging_reads,
            };
            return Ok(vec![reads.call(*id).await.map_err(not_batched)??]);
        }
        read_orders(&self.table, ids, sight).await
    }

    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        match filter.money {
            Some(Money::Owed) => self.page_of_owed(filter, after, limit).await,
            _ => self.page_of_orders(filter, after, limit).await,
        }
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        let keys = self.format.due_keys().await?;
        // Holds are spread evenly; of a key that has far more the rest is found next time.
        let limit_of_key = (2 * limit / keys.count()).max(DUE_PAGE as usize);
        let of_keys = in_order(keys.all().map(|key| self.due_of(key, now, limit_of_key)));
        let of_keys: Vec<_> = of_keys.try_collect().await?;
        let mut due = Vec::new();
        let mut next = None;
        for (of_key, next_of_key) in of_keys {
            due.extend(of_key);
            next = [next, next_of_key].into_iter().flatten().min();
        }
        due.sort_unstable();
        due.truncate(limit);
        Ok(DueHolds::new(due.into_iter().map(|(_, id)| id).collect(), next))
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        let known = self.read_items(ids).await?;
        let is_taken = |known: &Known| known.stock().available() < known.spec.capacity();
        let held = match known.iter().flatten().any(is_taken) {
            true => Some(self.held.units().await?),
            false => None,
        };
        let show = |known: Known| {
            let available = known.stock().available();
            let taken = known.spec.capacity().saturating_sub(available);
            let held = held.as_ref().and_then(|held| held.get(&known.head.id)).copied();
            let held = held.unwrap_or(0).min(taken);
            let item = Item::builder().spec(known.spec).available(available);
            item.held(held).sold(taken - held).build()
        };
        Ok(known.into_iter().map(|known| known.map(show)).collect())
    }

    async fn availability(&self, ids: &[ItemId]) -> Result<Vec<Option<u32>>, SeamError> {
        let level = |known: Option<Known>| known.map(|known| known.stock().available());
        Ok(self.read_items(ids).await?.into_iter().map(level).collect())
    }

    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError> {
        let ids = self.item_ids(after, limit).await?;
        Ok(self.items(&ids).await?.into_iter().flatten().collect())
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        let known = self.read_item(item).await?;
        Ok(known.map(|known| (Arc::clone(&known.spec), known.stock())))
    }

    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.feed.get().map(|feed| feed as _)
    }

    fn service_time(&self) -> Option<ServiceTime> {
        self.service_clock.time()
    }
}

/// The outcomes of writes that were made one by one. If one failed and another was made, the
/// call as a whole may have taken effect.
fn all_or_unknown<T>(made: Vec<Result<T, SeamError>>) -> Result<Vec<T>, SeamError> {
    let may_have_applied = |made: &Result<_, SeamError>| match made {
        Ok(_) => true,
        Err(error) => error.may_have_applied(),
    };
    let some_applied = made.iter().any(may_have_applied);
    made.into_iter().collect::<Result<_, _>>().map_err(|error| match error {
        SeamError::Unavailable { service, source } if some_applied => {
            SeamError::Unknown { service, source }
        }
        error => error,
    })
}

impl DynamoStore {
    /// One item as its rows are now. Many callers ask for the same at once.
    pub(super) async fn read_item(&self, item: &ItemId) -> Result<Option<Known>, SeamError> {
        self.item_reads.call(item.clone()).await.map_err(not_batched)?
    }

    async fn read_items(&self, items: &[ItemId]) -> Result<Vec<Option<Known>>, SeamError> {
        match items {
            [item] => Ok(vec![self.read_item(item).await?]),
            items => self.items.read(items).await,
        }
    }

    /// Pays an order by a write of its row alone: if it is held, and, where that is asked
    /// for, its hold is in no count. Else the row as it is, if there is one.
    pub(super) async fn try_pay(
        &self,
        Payment { order, payment, at, .. }: &Payment,
        minds_counts: bool,
    ) -> Result<Result<ConfirmOutcome, Option<Row>>, SeamError> {
        // G9: the order's own condition lets one win of a payment and an expiry.
        let condition = match minds_counts {
            true => "#status = :held AND ends > :at AND attribute_not_exists(counted)",
            false => "#status = :held AND ends > :at",
        };
        let update = self
            .table
            .update(Key::order(*order))
            .update_expression(PAID)
            .condition_expression(condition)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":confirmed", string(OrderStatus::Confirmed))
            .expression_attribute_values(":held", string(OrderStatus::Held))
            .expression_attribute_values(":payment", string(payment))
            .expression_attribute_values(":at", number(at.as_millis()));
        match self.table.write(update).await? {
            Written::Row(row) => {
                self.held.changed();
                Ok(Ok(ConfirmOutcome::Settled(read_order(&row)?)))
            }
            Written::Not(found) => Ok(Err(found)),
        }
    }

    /// Holds of one key of the index that ended by `now`, with their ends, and
    /// when the next one does.
    async fn due_of(
        &self,
        key: u64,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Vec<(Timestamp, OrderId)>, Option<Timestamp>), SeamError> {
        let mut due = Vec::new();
        let mut from = None;
        loop {
            let query = self.table.due_query(key).limit(DUE_PAGE).set_exclusive_start_key(from);
            let (rows, more) = self.table.page(query).await?;
            for row in &rows {
                let ends = Timestamp::from_millis(get_number(row, "ends")?);
                if ends > now {
                    return Ok((due, Some(ends)));
                }
                let id = text(row, "pk")?.strip_prefix("order ").and_then(|id| id.parse().ok());
                due.extend(id.map(|id: OrderId| (ends, id)));
            }
            if more.is_none() || due.len() >= limit {
                // There may be more that ended.
                return Ok((due, more.map(|_| now)));
            }
            from = more;
        }
    }
}

async fn read_orders(
    table: &Table,
    ids: &[OrderId],
    sight: Sight,
) -> Result<Vec<Option<Order>>, SeamError> {
    let rows = table.get_all_as(ids.iter().map(|id| Key::order(*id)).collect(), sight).await?;
    let known = |id: &OrderId| rows.get(&Key::order(*id)).map(read_known).transpose();
    ids.iter().map(|id| known(id).map(Option::flatten)).collect()
}

/// Reads single orders for several callers; a failure is everybody's.
pub(super) async fn read_together(
    table: &Table,
    ids: &[OrderId],
    sight: Sight,
) -> Vec<Result<Option<Order>, SeamError>> {
    match read_orders(table, ids, sight).await {
        Ok(orders) => orders.into_iter().map(Ok).collect(),
        Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
    }
}

pub(super) fn not_batched(why: NotBatched) -> SeamError {
    match why {
        NotBatched::Full => {
            SeamError::Overloaded { service: SERVICE, retry_after: Duration::from_secs(1) }
        }
        NotBatched::Lost => SeamError::unavailable(SERVICE),
    }
}
