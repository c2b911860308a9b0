//! The consumers of the feed: a row of the table for each, with how far it came.

use flux_core::ConsumerName;
use flux_core::seams::{CONSUMERS_MAX, Consumer, Cursor, SeamError};

use super::super::rows::{Key, Row, SERVICE, damaged, string, text};
use super::super::table::{Table, Written, values};

/// How far a consumer came.
const DONE_WITH: &str = "done_with";

pub(super) async fn keep(table: &Table, consumer: &Consumer) -> Result<(), SeamError> {
    let update = table
        .update(Key::consumer(&consumer.name))
        .update_expression(format!("SET {DONE_WITH} = :after"))
        .expression_attribute_values(":after", string(&consumer.after));
    let known = update.clone().condition_expression("attribute_exists(pk)");
    if let Written::Row(_) = table.write(known).await? {
        return Ok(());
    }
    if list(table).await?.len() >= CONSUMERS_MAX {
        let reason = format!("it has {CONSUMERS_MAX} consumers already; forget one");
        return Err(SeamError::broken(SERVICE, reason));
    }
    table.write(update).await.map(drop)
}

pub(super) async fn list(table: &Table) -> Result<Vec<Consumer>, SeamError> {
    let query = table
        .query()
        .key_condition_expression("pk = :pk")
        .set_expression_attribute_values(Some(values([(":pk", string(Key::CONSUMERS))])))
        .consistent_read(true);
    table.pages(query).await?.iter().map(consumer).collect()
}

pub(super) async fn cursor_of(
    table: &Table,
    name: &ConsumerName,
) -> Result<Option<Cursor>, SeamError> {
    let row = table.get(Key::consumer(name)).await?;
    row.map(|row| consumer(&row).map(|consumer| consumer.after)).transpose()
}

pub(super) async fn forget(table: &Table, name: &ConsumerName) -> Result<bool, SeamError> {
    table.delete(Key::consumer(name)).await
}

fn consumer(row: &Row) -> Result<Consumer, SeamError> {
    let name = ConsumerName::new(text(row, "sk")?).map_err(|_| damaged(row, "sk"))?;
    Ok(Consumer::new(name, Cursor(text(row, DONE_WITH)?.to_owned())))
}
