//! Accepted orders, found by every process until they are done.

use std::sync::Arc;
use std::time::Duration;

use flux_core::Backend;
use flux_core::protocol::{BuyerId, Line, Lines, Message, Order, OrderId, Timestamp};
use flux_core::seams::{OrderQueue, Recalled};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{PATIENCE, metered, prefix, shared_url};
use crate::server::Server;
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
    let redis = |meter| metered(&shared_url(), &prefix, meter);
    // Two processes, of which neither can look into what the other has.
    let (here, elsewhere) = (Backend::memory().queue, Backend::memory().queue);
    let here = Arc::new(redis(&meter).remember(here));
    // Each look elsewhere is a script too.
    let elsewhere = redis(&Meter::default()).remember(elsewhere);
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

async fn until_recalled(queue: &impl OrderQueue, id: OrderId, expected: &Recalled) {
    let since = Instant::now();
    loop {
        let recalled = queue.recall(id).await.expect("it answers");
        if recalled == *expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{id}: {recalled:?}, not {expected:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn recalled(queue: &impl OrderQueue, id: OrderId) -> Recalled {
    queue.recall(id).await.expect("it answers")
}

#[tokio::test]
async fn an_id_is_heard_of_from_before_its_order_is_decided_until_long_after() {
    let mut server = Server::start().await;
    let prefix = prefix();
    let plain = Backend::memory().queue;
    let here = super::open(&server.url(), &prefix).remember(Arc::clone(&plain));
    let elsewhere = super::open(&server.url(), &prefix).remember(Backend::memory().queue);
    let [sent, unnoted, placed, never] = ["a", "b", "c", "d"].map(order);
    assert_eq!(recalled(&elsewhere, never.id).await, Recalled::Unknown, "Redis is new");
    until_recalled(&elsewhere, never.id, &Recalled::Unheard).await;

    here.send(&[Message::Place(sent.clone())]).await.expect("it is sent");
    assert_eq!(recalled(&elsewhere, sent.id).await, Recalled::Waits(sent.clone()));
    // By somebody whose notes are lost.
    plain.send(&[Message::Place(unnoted.clone())]).await.expect("it is sent");
    let deliveries = here.receive(10, Duration::ZERO).await.expect("received");
    assert_eq!(deliveries.len(), 2);
    assert_eq!(recalled(&elsewhere, unnoted.id).await, Recalled::Unknown);
    assert_eq!(recalled(&elsewhere, sent.id).await, Recalled::Waits(sent.clone()));
    let receipts: Vec<_> = deliveries.into_iter().map(|delivery| delivery.receipt).collect();
    here.ack(&receipts).await.expect("acknowledged");
    until_recalled(&elsewhere, sent.id, &Recalled::Unknown).await;
    assert_eq!(recalled(&elsewhere, unnoted.id).await, Recalled::Unknown);

    assert_eq!(here.announce(placed.id).await.expect("it answers"), None);
    assert_eq!(recalled(&elsewhere, placed.id).await, Recalled::Unknown);
    assert_eq!(recalled(&elsewhere, never.id).await, Recalled::Unheard);

    // Wiped, and gone for a moment: nothing is concluded.
    server.ask(&["FLUSHALL"]).await;
    assert_eq!(recalled(&elsewhere, placed.id).await, Recalled::Unknown);
    until_recalled(&elsewhere, never.id, &Recalled::Unheard).await;
    let since = Instant::now();
    server.kill();
    assert_eq!(recalled(&elsewhere, never.id).await, Recalled::Unknown);
    server.resume().await;
    until_recalled(&elsewhere, never.id, &Recalled::Unheard).await;
    assert!(since.elapsed() >= Duration::from_secs(3), "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_was_sent_is_found_by_whoever_announces_it() {
    let (prefix, url) = (prefix(), shared_url());
    let redis = || super::open(&url, &prefix);
    let here = redis().remember(Backend::memory().queue);
    let elsewhere = redis().remember(Backend::memory().queue);
    let sent = order("ann");
    here.send(&[Message::Place(sent.clone())]).await.expect("it is sent");
    for _ in 0..2 {
        assert_eq!(elsewhere.announce(sent.id).await.expect("it answers").as_ref(), Some(&sent));
    }

    // It was announced, and then sent all the same.
    let sent = order("bob");
    assert_eq!(here.announce(sent.id).await.expect("it answers"), None);
    here.send(&[Message::Place(sent.clone())]).await.expect("it is sent");
    until_found(&elsewhere, sent.id, Some(&sent)).await;
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
