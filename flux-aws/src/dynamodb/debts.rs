//! Money that is owed: noted and returned by one conditional write on the order alone, and
//! found by keys of their own in the index of holds.

use flux_core::protocol::{Expect, OrderWrite, RefundRuling, refund};
use flux_core::seams::{Cursor, OrderFilter, OrderPage, Owed, RefundOutcome, Repayment, SeamError};
use flux_core::{Order, OrderId, OrderStatus, Timestamp};
use futures_util::TryStreamExt;

use super::DynamoStore;
use super::conditions::stands;
use super::rows::{
    FORGOTTEN, Key, OWED_SINCE, PAYMENT, REFUND, REFUNDED, Row, SERVICE, damaged, number,
    number_as_text, read_order, string, text,
};
use super::table::{Written, in_order};

/// Tries to note a refund of an order that others change at once.
const TRIES: u32 = 4;
/// Queries made for one page; what was found by then is the page.
const STEPS_MAX: usize = 100;
impl DynamoStore {
    /// Writes where an order's money stands, if it stands as expected.
    pub(super) async fn write_money(&self, write: &OrderWrite) -> Result<bool, SeamError> {
        let Expect::Money(status, money) = write.expect else {
            return Err(SeamError::broken(SERVICE, "money is written where it stands as expected"));
        };
        let order = &write.order;
        let (Some(since), Some(payment)) = (order.owed_since(), order.payment_ref()) else {
            return Err(SeamError::broken(SERVICE, "what is owed has a payment"));
        };
        let update = self
            .table
            .update(Key::order(order.id))
            .condition_expression(format!("#status = :status AND {}", stands(money)))
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", string(status))
            .expression_attribute_values(":since", number(since.as_millis()));
        let update = match order.refund() {
            Some(refund) => update
                .update_expression(format!(
                    "SET {REFUND} = :refund, {REFUNDED} = :at, {OWED_SINCE} = :since \
                     REMOVE due, takes"
                ))
                .expression_attribute_values(":refund", string(&refund.reference))
                .expression_attribute_values(":at", number(refund.at.as_millis())),
            None => update
                .update_expression(format!(
                    "SET {PAYMENT} = :payment, {OWED_SINCE} = :since, due = :due, \
                     takes = :text, ends = if_not_exists(ends, :since) REMOVE {FORGOTTEN}"
                ))
                .expression_attribute_values(":payment", string(payment))
                .expression_attribute_values(":text", number_as_text(since.as_millis()))
                .expression_attribute_values(
                    ":due",
                    number(self.format.due_keys().await?.of_debt(order.id)),
                ),
        };
        let written = self.table.write(update).await?;
        self.owed_changed();
        Ok(matches!(written, Written::Row(_)))
    }

    /// Notes that money was returned.
    pub(super) async fn repay(&self, told: &Repayment) -> Result<RefundOutcome, SeamError> {
        for _ in 0..TRIES {
            let Some(row) = self.table.get(Key::order(told.order)).await? else {
                return Ok(RefundOutcome::NotFound);
            };
            let order = read_order(&row)?;
            if order.status() == OrderStatus::Queued {
                return Ok(RefundOutcome::NotFound);
            }
            match refund(&order, &told.refund) {
                RefundRuling::Repeat => return Ok(RefundOutcome::Refunded(order)),
                RefundRuling::Another => return Ok(RefundOutcome::ByAnother(order)),
                RefundRuling::NotOwed => return Ok(RefundOutcome::NotOwed(order)),
                RefundRuling::Write(write) => {
                    if self.write_money(&write).await? {
                        return Ok(RefundOutcome::Refunded(write.order));
                    }
                }
            }
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// Has what is owed counted anew, where that is cheap: something changed here. Waits
    /// for no count.
    pub(super) fn owed_changed(&self) {
        self.last_owed.changed();
    }

    /// Counts what is owed, once for all who ask at once.
    pub(super) async fn count_owed(&self) -> Result<Owed, SeamError> {
        self.last_owed.or_count(|| self.count_owed_now()).await
    }

    async fn count_owed_now(&self) -> Result<Owed, SeamError> {
        let keys = self.format.due_keys().await?.of_debts();
        let of_keys = in_order(keys.map(|key| self.count_owed_of(key)));
        let of_keys: Vec<Owed> = of_keys.try_collect().await?;
        let orders = of_keys.iter().map(|owed| owed.orders).sum();
        let since = of_keys.iter().filter_map(|owed| owed.since).min();
        Ok(Owed::new(orders, since))
    }

    async fn count_owed_of(&self, key: i64) -> Result<Owed, SeamError> {
        let (mut owed, mut next) = (Owed::default(), None);
        loop {
            let query = self.table.due_query(key).set_exclusive_start_key(next);
            let (rows, more) = self.table.page(query).await?;
            owed.orders += rows.len() as u64;
            for row in &rows {
                let since = since_of(row)?;
                owed.since = Some(owed.since.map_or(since, |oldest| oldest.min(since)));
            }
            match more {
                Some(more) => next = Some(more),
                None => return Ok(owed),
            }
        }
    }

    /// A page of the orders whose money is owed: key by key of the index.
    pub(super) async fn page_of_owed(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        let keys: Vec<i64> = self.format.due_keys().await?.of_debts().collect();
        let unknown = || SeamError::UnknownCursor { service: SERVICE };
        let (mut at, mut from) = match after {
            None => (0, None),
            Some(cursor) => read_cursor(&cursor.0).ok_or_else(unknown)?,
        };
        if limit == 0 {
            return Ok(OrderPage::default());
        }
        let mut orders = Vec::new();
        for _ in 0..STEPS_MAX {
            let Some(key) = keys.get(at).filter(|_| orders.len() < limit) else { break };
            let page = i32::try_from(limit - orders.len()).unwrap_or(i32::MAX);
            let start = from.take().map(|(ends, id)| start_key(*key, ends, id));
            let query = self.table.due_query(*key).limit(page).set_exclusive_start_key(start);
            let (rows, more) = self.table.page(query).await?;
            let ids = rows.iter().map(id_of).collect::<Result<Vec<OrderId>, _>>()?;
            let keys = ids.iter().map(|id| Key::order(*id)).collect();
            let found = self.table.get_all(keys).await?;
            let found = ids.iter().filter_map(|id| found.get(&Key::order(*id)));
            let found: Vec<Order> = found.map(read_order).collect::<Result<_, _>>()?;
            // The index may lag: what owes no more is left out.
            orders.extend(found.into_iter().filter(|order| filter.matches(order)));
            match more.as_ref().map(position_of).transpose()? {
                Some(position) => from = Some(position),
                None => at += 1,
            }
        }
        let next = (at < keys.len()).then(|| write_cursor(at, from));
        Ok(OrderPage::new(orders, next))
    }
}

fn since_of(row: &Row) -> Result<Timestamp, SeamError> {
    let since = text(row, "takes")?.parse().map_err(|_| damaged(row, "takes"))?;
    Ok(Timestamp::from_millis(since))
}

fn id_of(row: &Row) -> Result<OrderId, SeamError> {
    let id = text(row, "pk")?.strip_prefix("order ").and_then(|id| id.parse().ok());
    id.ok_or_else(|| damaged(row, "pk"))
}

/// The position in a key of the index: behind an order, by the end of its hold.
type Position = (u64, OrderId);

fn position_of(key: &Row) -> Result<Position, SeamError> {
    Ok((super::rows::get_number(key, "ends")?, id_of(key)?))
}

fn start_key(key: i64, ends: u64, id: OrderId) -> Row {
    let mut row = Key::order(id).into_row();
    row.insert("due".to_owned(), number(key));
    row.insert("ends".to_owned(), number(ends));
    row
}

fn write_cursor(at: usize, from: Option<Position>) -> Cursor {
    Cursor(match from {
        None => format!("owed.{at}"),
        Some((ends, id)) => format!("owed.{at}.{ends}.{id}"),
    })
}

fn read_cursor(text: &str) -> Option<(usize, Option<Position>)> {
    let mut parts = text.strip_prefix("owed.")?.split('.');
    let at = parts.next()?.parse().ok()?;
    let from = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => None,
        (Some(ends), Some(id), None) => Some((ends.parse().ok()?, id.parse().ok()?)),
        _ => return None,
    };
    Some((at, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written_and_no_other_does() {
        let id = OrderId::from_uuid(uuid::Uuid::nil());
        for (at, from) in [(0, None), (31, None), (7, Some((1_700_000_000_000, id)))] {
            assert_eq!(read_cursor(&write_cursor(at, from).0), Some((at, from)));
        }
        for foreign in ["", "7", "owed", "owed.", "owed.x", "owed.1.2", "owed.1.2.3", "items"] {
            assert_eq!(read_cursor(foreign), None, "{foreign:?}");
        }
    }
}
