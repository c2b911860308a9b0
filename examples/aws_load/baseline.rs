//! The usual way, call by call: receive one message, lock the item,
//! read it, write it and the order under conditions, unlock, delete the message.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_sdk_dynamodb::types::AttributeValue as Value;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use redis::Script;
use uuid::Uuid;

use crate::services::{Kind, Sale, Services};

const UNLOCK: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Decisions a second of one worker, on one item.
pub(crate) async fn decisions(near: &Services, services: &Services, orders: u32) -> Result<f64> {
    let sale = Sale::new(Kind::Standard);
    // The same table and the same queue as ours, one of its partitions.
    drop(near.open(&sale).await?);
    let (sqs, dynamodb) = (services.sqs().await, services.dynamodb().await);
    let mut redis = services.redis().await?;
    let url = sqs.get_queue_url().queue_name(format!("{}-0", sale.queue)).send().await?;
    let url = url.queue_url().context("the queue has no URL")?;
    send(&near.sqs().await, url, orders).await?;
    let string = |text: &str| Value::S(text.to_owned());
    let (item, lock) = (string("stock of item-0"), format!("{}:item-0", sale.table));
    let stock = dynamodb.put_item().table_name(&sale.table);
    let stock = stock.item("pk", item.clone()).item("sk", string("-"));
    stock.item("available", Value::N(orders.to_string())).send().await?;

    let unlock = Script::new(UNLOCK);
    let started = Instant::now();
    for _ in 0..orders {
        let received = sqs.receive_message().queue_url(url).max_number_of_messages(1);
        let received = received.wait_time_seconds(1).send().await?;
        let message = received.messages().first().context("the queue ran dry")?;
        let (order, receipt) = (message.body(), message.receipt_handle());
        let order = order.context("an empty message")?;

        let owner = Uuid::new_v4().to_string();
        let mut locking = redis::cmd("SET");
        locking.arg(&lock).arg(&owner).arg("NX").arg("PX").arg(5_000);
        if !locking.query_async::<bool>(&mut redis).await? {
            bail!("somebody else has the lock");
        }
        let found = dynamodb.get_item().table_name(&sale.table).consistent_read(true);
        let found = found.key("pk", item.clone()).key("sk", string("-")).send().await?;
        let available =
            found.item().and_then(|row| row.get("available")?.as_n().ok()?.parse().ok());
        if available.is_none_or(|available: u32| available == 0) {
            bail!("there is stock for all");
        }
        let update = dynamodb.update_item().table_name(&sale.table);
        let update = update.key("pk", item.clone()).key("sk", string("-"));
        let update = update.update_expression("SET available = available - :one");
        let update = update.condition_expression("available >= :one");
        update.expression_attribute_values(":one", Value::N("1".into())).send().await?;
        let put = dynamodb.put_item().table_name(&sale.table);
        let put = put.item("pk", string(order)).item("sk", string("-"));
        let put = put.item("status", string("held")).item("item", string("item-0"));
        put.condition_expression("attribute_not_exists(pk)").send().await?;
        unlock.key(&lock).arg(&owner).invoke_async::<u32>(&mut redis).await?;
        sqs.delete_message()
            .queue_url(url)
            .set_receipt_handle(receipt.map(Into::into))
            .send()
            .await?;
    }
    let took = started.elapsed().max(Duration::from_millis(1));
    sale.remove(near).await?;
    Ok(f64::from(orders) / took.as_secs_f64())
}

async fn send(sqs: &aws_sdk_sqs::Client, url: &str, orders: u32) -> Result<()> {
    for first in (0..orders).step_by(10) {
        let mut batch = sqs.send_message_batch().queue_url(url);
        for number in first..orders.min(first + 10) {
            let entry = SendMessageBatchRequestEntry::builder().id(number.to_string());
            batch = batch.entries(entry.message_body(format!("order {number}")).build()?);
        }
        batch.send().await?;
    }
    Ok(())
}
