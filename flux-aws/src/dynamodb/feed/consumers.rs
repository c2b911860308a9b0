//! The consumers of the feed: a row of the table for each, with how far it came.

use std::time::SystemTime;

use flux_core::seams::{CONSUMERS_MAX, Consumer, Cursor, SeamError};
use flux_core::{ConsumerName, Timestamp};

use super::super::rows::{FORGOTTEN, Key, Row, SERVICE, damaged, number, opt_text, string, text};
use super::super::table::{Table, Written, values};

/// How far a consumer came.
const DONE_WITH: &str = "done_with";

pub(super) async fn keep(table: &Table, consumer: &Consumer) -> Result<(), SeamError> {
    let update = table
        .update(Key::consumer(&consumer.name))
        .update_expression(format!("SET {DONE_WITH} = :after REMOVE {FORGOTTEN}"))
        .expression_attribute_values(":after", string(&consumer.after));
    let known = update.clone().condition_expression(format!("attribute_exists({DONE_WITH})"));
    if let Written::Row(_) = table.write(known).await? {
        return Ok(());
    }
    if list(table).await?.len() >= CONSUMERS_MAX {
        return Err(SeamError::TooManyConsumers { service: SERVICE });
    }
    table.write(update).await.map(drop)
}

pub(super) async fn list(table: &Table) -> Result<Vec<Consumer>, SeamError> {
    let query = table
        .query()
        .key_condition_expression("pk = :pk")
        .set_expression_attribute_values(Some(values([(":pk", string(Key::CONSUMERS))])))
        .consistent_read(true);
    let rows = table.pages(query).await?;
    rows.iter().filter_map(|row| consumer(row).transpose()).collect()
}

pub(super) async fn cursor_of(
    table: &Table,
    name: &ConsumerName,
) -> Result<Option<Cursor>, SeamError> {
    let row = table.get(Key::consumer(name)).await?;
    let known = row.as_ref().map(consumer).transpose()?.flatten();
    Ok(known.map(|consumer| consumer.after))
}

/// Forgets a consumer: DynamoDB deletes the row in time, as nobody here may delete any.
pub(super) async fn forget(table: &Table, name: &ConsumerName) -> Result<bool, SeamError> {
    let now = Timestamp::from(SystemTime::now()).as_millis() / 1_000;
    let update = table
        .update(Key::consumer(name))
        .update_expression(format!("SET {FORGOTTEN} = :now REMOVE {DONE_WITH}"))
        .expression_attribute_values(":now", number(now))
        .condition_expression(format!("attribute_exists({DONE_WITH})"));
    Ok(matches!(table.write(update).await?, Written::Row(_)))
}

/// The consumer of a row; none if it was forgotten.
fn consumer(row: &Row) -> Result<Option<Consumer>, SeamError> {
    let Some(after) = opt_text(row, DONE_WITH)? else { return Ok(None) };
    let name = ConsumerName::new(text(row, "sk")?).map_err(|_| damaged(row, "sk"))?;
    Ok(Some(Consumer::new(name, Cursor(after.to_owned()))))
}
