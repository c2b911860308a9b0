//! The changes that a stream's records tell of: an order that came to be something else, a
//! definition that did. Claims, stock, notes and logs are no changes.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as Value;
use aws_sdk_dynamodbstreams::types::{AttributeValue as Streamed, Record};
use flux_core::OrderStatus;
use flux_core::seams::{Changed, SeamError};

use super::super::items::Items;
use super::super::rows::{Row, read_order, text};
use super::super::stock_row::Head;

/// Tells what a record changed; `None` if nothing that the feed tells.
pub(super) async fn read_change(
    record: &Record,
    items: &Items,
) -> Result<Option<Changed>, SeamError> {
    // What was forgotten in time is no change.
    let Some(new) = record.dynamodb.as_ref().and_then(|image| image.new_image.as_ref()) else {
        return Ok(None);
    };
    let new = row(new);
    let old = record.dynamodb.as_ref().and_then(|image| image.old_image.as_ref()).map(row);
    let key = text(&new, "pk")?;
    if key.starts_with("order ") {
        let order = read_order(&new)?;
        let was = old.as_ref().map(read_order).transpose()?;
        let is_told = order.status() != OrderStatus::Queued && was.as_ref() != Some(&order);
        return Ok(is_told.then_some(Changed::Order(order)));
    }
    if key.starts_with("item ") {
        let head = Head::read(&new)?;
        let was = old.as_ref().map(Head::read).transpose()?;
        if was.as_ref().is_some_and(|was| was.defines_the_same_as(&head)) {
            return Ok(None);
        }
        let spec = match items.head(&new).await {
            Ok((_, spec)) => spec,
            // The names of its seats went with a later change, which comes too.
            Err(SeamError::Broken { .. }) => match items.read(&[head.id]).await?.pop().flatten() {
                Some(known) => known.spec,
                None => return Ok(None),
            },
            Err(error) => return Err(error),
        };
        return Ok(Some(Changed::Item((*spec).clone())));
    }
    Ok(None)
}

fn row(image: &HashMap<String, Streamed>) -> Row {
    let attribute = |(name, value): (&String, &Streamed)| Some((name.clone(), value_of(value)?));
    image.iter().filter_map(attribute).collect()
}

/// A value in the table's words; a kind that the SDK does not know is left out.
fn value_of(value: &Streamed) -> Option<Value> {
    let blob = |blob: &aws_sdk_dynamodbstreams::primitives::Blob| Blob::new(blob.as_ref());
    Some(match value {
        Streamed::B(bytes) => Value::B(blob(bytes)),
        Streamed::Bool(is) => Value::Bool(*is),
        Streamed::Bs(all) => Value::Bs(all.iter().map(blob).collect()),
        Streamed::L(all) => Value::L(all.iter().filter_map(value_of).collect()),
        Streamed::M(all) => Value::M(row(all)),
        Streamed::N(number) => Value::N(number.clone()),
        Streamed::Ns(all) => Value::Ns(all.clone()),
        Streamed::Null(is) => Value::Null(*is),
        Streamed::S(text) => Value::S(text.clone()),
        Streamed::Ss(all) => Value::Ss(all.clone()),
        _ => return None,
    })
}
