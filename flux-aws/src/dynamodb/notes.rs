//! Notes of orders that are accepted and not decided, for the times in which Redis can't
//! be asked. A note stands in the row of the order and is written over by its decision;
//! until it is sure that the order was sent, it only reserves the id.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use flux_core::seams::SeamError;
use flux_core::{Order, OrderStatus};

use super::DynamoStore;
use super::rows::{
    FORGOTTEN, Key, METADATA, Row, SERVICE, asked, metadata_value, number, read_order,
};
use super::table::Written;

/// Time for which an id is reserved: longer than an order takes to be sent.
const RESERVED_FOR: Duration = Duration::from_secs(60);
/// The millisecond until which an id is only reserved.
const RESERVED: &str = "reserved";
/// Time after which DynamoDB may delete a note: SQS keeps no message for longer than two
/// weeks.
const NOTED_FOR: Duration = Duration::from_secs(15 * 24 * 3_600);

const SET_ASKED: &str = "SET buyer = :buyer, #lines = :lines, placed = :placed, \
    #status = :status, #metadata = :metadata, #forgotten = :forgotten";

impl DynamoStore {
    /// Reserves the id of an order, or returns the order that has it.
    pub(super) async fn try_reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        if !self.format.has_notes().await? {
            return Ok(None);
        }
        let now = self.clock.now();
        let update = self.set_asked(order).condition_expression(
            "attribute_not_exists(pk) OR (attribute_not_exists(decided) AND reserved < :now)",
        );
        let update = update
            .update_expression(format!("{SET_ASKED}, {RESERVED} = :until"))
            .expression_attribute_values(":now", number(now.as_millis()))
            .expression_attribute_values(":until", number((now + RESERVED_FOR).as_millis()));
        match self.table.write(update).await? {
            Written::Row(_) => Ok(None),
            Written::Not(Some(row)) => {
                let known = read_order(&row)?;
                let is_ours = row.contains_key(RESERVED) && known.asks_the_same_as(order);
                Ok((!is_ours).then_some(known))
            }
            // It went this moment.
            Written::Not(None) => Err(SeamError::unavailable(SERVICE)),
        }
    }

    /// Notes that an order is accepted, unless it is decided.
    pub(super) async fn note(&self, order: &Order) -> Result<(), SeamError> {
        if !self.format.has_notes().await? {
            return Ok(());
        }
        let update = self
            .set_asked(order)
            .update_expression(format!("{SET_ASKED} REMOVE {RESERVED}"))
            .condition_expression("attribute_not_exists(decided)");
        // If it is decided by now, so much the better.
        self.table.write(update).await.map(drop)
    }

    fn set_asked(&self, order: &Order) -> UpdateItemFluentBuilder {
        let forgotten = (self.clock.now() + NOTED_FOR).as_millis() / 1_000;
        let mut update = self
            .table
            .update(Key::order(order.id))
            .expression_attribute_names("#lines", "lines")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#metadata", METADATA)
            .expression_attribute_values(":metadata", metadata_value(order))
            .expression_attribute_names("#forgotten", FORGOTTEN)
            .expression_attribute_values(":forgotten", number(forgotten));
        for (name, value) in asked(order) {
            update = update.expression_attribute_values(format!(":{name}"), value);
        }
        update
    }
}

/// Reads the row of an order that is decided or noted; `None` if its id is only reserved.
pub(super) fn read_known(row: &Row) -> Result<Option<Order>, SeamError> {
    let order = read_order(row)?;
    let is_reserved = order.status() == OrderStatus::Queued && row.contains_key(RESERVED);
    Ok((!is_reserved).then_some(order))
}
