//! The rule's conditions in DynamoDB's words: each row of a commit's transaction
//! under the condition that makes the whole of it fail.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    ConditionCheck, Put, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem,
    Update,
};
use flux_core::protocol::{Expect, Gain, OrderWrite};
use flux_core::{ItemId, Money};

use super::format::DueKeys;
use super::hoarding::Buyers;
use super::rows::{Key, number, order_row, string};
use super::stock_row::StockRow;
use super::table::values;

/// Writes an order if it is what was expected: of two commits that decide it, one
/// fails.
pub(super) fn write_order(
    table: &str,
    write: &OrderWrite,
    buyers: &Buyers,
    keep_rejected: Duration,
    due_keys: &DueKeys,
) -> TransactWriteItem {
    let mut row = order_row(&write.order, keep_rejected, due_keys);
    let count = buyers.count(write, &mut row);
    let put = Put::builder().table_name(table).set_item(Some(row));
    // G3: `Expect::is_met_by`, as a condition.
    let put = match write.expect {
        // An order that is only noted is not decided.
        Expect::Absent => put.condition_expression("attribute_not_exists(decided)"),
        Expect::Status(status) | Expect::Money(status, _) => put
            .condition_expression(match (count, write.expect) {
                (Some((is_counted, _)), _) => format!("#status = :status AND {is_counted}"),
                (None, Expect::Money(_, money)) => {
                    format!("#status = :status AND {}", stands(money))
                }
                (None, _) => "#status = :status".to_owned(),
            })
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", string(status))
            .return_values_on_condition_check_failure(OnFailure::AllOld),
    };
    let put = match count {
        Some((_, Some(epoch))) => put.expression_attribute_values(":counted", number(epoch)),
        _ => put,
    };
    let put = put.build().expect("table and row are set");
    TransactWriteItem::builder().put(put).build()
}

/// The condition that an order's money stands so, of one that is in a state where it may.
pub(super) const fn stands(money: Money) -> &'static str {
    // G9: of two refunds, or two payments that are owed, one finds it so.
    match money {
        Money::None => "attribute_not_exists(payment)",
        Money::Paid | Money::Owed => "attribute_exists(payment) AND attribute_not_exists(refund)",
        _ => "attribute_exists(refund)",
    }
}

/// Writes a stock row if it is as it was, or only checks its token if nothing
/// changes.
pub(super) fn write_stock_row(
    table: &str,
    item: &ItemId,
    stripe: usize,
    before: &StockRow,
    after: &StockRow,
) -> TransactWriteItem {
    // G7: the claim's token is in the condition, so a later claim makes it fail.
    // G1: so is the revision that the stock was judged by.
    let key = Key::stock_row(item, stripe).into_row();
    if before == after {
        let check = ConditionCheck::builder()
            .table_name(table)
            .set_key(Some(key))
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":epoch", number(before.token.0))
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let check = check.build().expect("table, key and condition are set");
        return TransactWriteItem::builder().condition_check(check).build();
    }
    let mut set = Vec::new();
    let mut named = values([
        (":was_epoch", number(before.token.0)),
        (":was_revision", number(before.revision)),
    ]);
    let was = before.attributes();
    for (name, value) in after.attributes() {
        if !was.contains(&(name, value.clone())) {
            set.push(format!("{name} = :{name}"));
            named.insert(format!(":{name}"), value);
        }
    }
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key))
        .update_expression(format!("SET {}", set.join(", ")))
        .condition_expression("epoch = :was_epoch AND revision = :was_revision")
        .set_expression_attribute_values(Some(named))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}

/// Adds to what a buyer holds or owns, as far as the cap allows.
pub(super) fn write_buyer(table: &str, key: Key, gain: Gain) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key.into_row()))
        .update_expression("ADD live :gain")
        .expression_attribute_values(":gain", number(gain.units))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    // G6: a row that is not there stands for a buyer with nothing.
    let update = match gain.live_max() {
        None => update,
        Some(live_max) => update
            .condition_expression("attribute_not_exists(live) OR live <= :live_max")
            .expression_attribute_values(":live_max", number(live_max)),
    };
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}
