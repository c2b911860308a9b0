//! Accepted orders, found by every process until they are done.

use std::sync::Arc;
use std::time::Duration;

use flux_core::Backend;
use flux_core::protocol::{BuyerId, Line, Lines, Message, Order, OrderId, Timestamp};
use flux_core::seams::OrderQueue;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{PATIENCE, metered, prefix, shared_url};
use flux_aws::bill::Meter;

pub(crate) fn order(buyer: &str) -> Order {
    let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
    let buyer = BuyerId::new(buyer).expect("a name");
    Order::queued(OrderId::from_uuid(Uuid::now_v7()), buyer, lines, Timestamp::from_millis(7))
}

async fn until_found(queue: &impl OrderQueue, id: OrderId, expected: Option<&Order>) {
    let since = Instant::now();
    loop {
        let found = queue.find(id).await.expect("it answers");
        if found.as_ref() == expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{id}: {found:?}, not {expected:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_order_sent_here_is_found_elsewhere_until_it_is_done() {
    let (prefix, meter) = (prefix(), Meter::default());
    let redis = || metered(&shared_url(), &prefix, &meter);
    // Two processes, of which neither can look into what the other has.
    let (here, elsewhere) = (Backend::memory().queue, Backend::memory().queue);
    let here = Arc::new(redis().remember(here));
    let elsewhere = redis().remember(elsewhere);
    let orders: Vec<Order> = (0..500).map(|n| order(&format!("buyer-{n}"))).collect();
    let sends = orders.iter().map(|order| {
        let here = Arc::clone(&here);
        async move { here.send(&[Message::Place(order.clone())]).await }
    });
    for sent in futures_util::future::join_all(sends).await {
        sent.expect("it is sent");
    }
    for order in &orders[..20] {
        until_found(&elsewhere, order.id, Some(order)).await;
    }
    let deliveries = here.receive(1_000, Duration::ZERO).await.expect("received");
    let receipts: Vec<_> = deliveries.into_iter().map(|delivery| delivery.receipt).collect();
    assert_eq!(receipts.len(), orders.len());
    here.ack(&receipts).await.expect("acknowledged");
    for order in &orders[..20] {
        until_found(&elsewhere, order.id, None).await;
    }
    let bill = meter.bill();
    let calls = |name: &str| bill.calls.get(&("redis".into(), name.into())).copied();
    let scripts = calls("EVALSHA").unwrap_or(0) + calls("EVAL").unwrap_or(0);
    println!("{scripts} scripts for 500 orders noted and dropped");
    assert!(scripts <= 25, "{bill:?}");
}

#[tokio::test]
async fn without_redis_a_queue_is_as_good_as_it_was() {
    let redis = super::open("redis://127.0.0.1:1", &prefix());
    let queue = redis.remember(Backend::memory().queue);
    let (sent, unknown) = (order("ann"), order("bob"));
    queue.send(&[Message::Place(sent.clone())]).await.expect("it is sent");
    until_found(&queue, sent.id, Some(&sent)).await;
    until_found(&queue, unknown.id, None).await;
}
