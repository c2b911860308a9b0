//! Outcomes on their way between two processes, and how little they cost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_core::protocol::{BuyerId, Line, Lines, Order, OrderId, Timestamp};
use flux_core::seams::{Availability, LockManager, OutcomeBus, OutcomeReceiver, Outcomes};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{LONG, PATIENCE, item, metered, open, prefix, shared_url};

fn order(n: u128) -> Order {
    let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("one");
    let buyer = BuyerId::new("ann").expect("a name");
    Order::queued(OrderId::from_uuid(Uuid::from_u128(n)), buyer, lines, Timestamp::from_millis(1))
}

/// The outcomes of one order, and of the level that it leaves.
pub(crate) fn outcomes(n: u128) -> Arc<Outcomes> {
    let level = Availability::new(item("a"), n as u32);
    Arc::new(Outcomes::new(vec![order(n)], vec![level]))
}

pub(crate) async fn hears_gap(receiver: &mut OutcomeReceiver) {
    let gap = async { while !receiver.recv().await.expect("the bus lives").is_gap() {} };
    timeout(PATIENCE, gap).await.expect("the subscriber is told to look for itself");
}

/// Publishes until the other hears: its connection may still be opening.
async fn connected(from: &impl OutcomeBus, to: &mut OutcomeReceiver) {
    let end = Instant::now() + PATIENCE;
    loop {
        from.publish(outcomes(0)).await.expect("Redis is there");
        while let Ok(heard) = timeout(Duration::from_millis(50), to.recv()).await {
            if heard.expect("the bus lives") == outcomes(0) {
                return;
            }
        }
        assert!(Instant::now() < end, "the other does not hear");
    }
}

/// All orders heard until `last`, in order.
async fn heard_until(last: u128, receiver: &mut OutcomeReceiver) -> Vec<u128> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        let outcomes = timeout(PATIENCE, receiver.recv()).await.expect("in time");
        let orders = outcomes.expect("nothing is lost").orders.clone();
        heard.extend(orders.iter().map(|order| order.id.as_uuid().as_u128()).filter(|n| *n > 0));
    }
    heard
}

#[tokio::test]
async fn each_process_hears_everything_once() {
    let (url, prefix) = (shared_url(), prefix());
    let [one, two] = [0, 1].map(|_| open(&url, &prefix).bus());
    let (mut at_one, mut at_two) = (one.subscribe(), two.subscribe());
    connected(&one, &mut at_two).await;
    connected(&two, &mut at_one).await;
    for n in 1..=20 {
        one.publish(outcomes(2 * n - 1)).await.expect("published");
        two.publish(outcomes(2 * n)).await.expect("published");
    }
    for receiver in [&mut at_one, &mut at_two] {
        let mut heard = heard_until(40, receiver).await;
        if heard.len() < 40 {
            heard.extend(heard_until(39, receiver).await);
        }
        let different: HashSet<_> = heard.iter().collect();
        assert_eq!((heard.len(), different.len()), (40, 40), "{heard:?}");
    }
    // And nothing follows.
    assert!(timeout(Duration::from_millis(100), at_one.recv()).await.is_err());
}

#[tokio::test]
async fn a_prefix_keeps_sales_apart() {
    let url = shared_url();
    let [spring, autumn] = [prefix(), prefix()].map(|prefix| open(&url, &prefix));
    let (bus, same_sale, other_sale) = (spring.bus(), autumn.bus(), autumn.bus());
    let mut receiver = other_sale.subscribe();
    connected(&same_sale, &mut receiver).await;
    bus.publish(outcomes(1)).await.expect("published");
    same_sale.publish(outcomes(2)).await.expect("published");
    assert_eq!(heard_until(2, &mut receiver).await, [2]);
    for redis in [spring, autumn] {
        let lease = redis.locks().acquire(&[item("a")], LONG, Duration::ZERO).await;
        assert!(lease.expect("Redis is there").is_some());
    }
}

#[tokio::test]
async fn junk_is_passed_over() {
    let (url, prefix) = (shared_url(), prefix());
    let [one, two] = [0, 1].map(|_| open(&url, &prefix).bus());
    let mut receiver = two.subscribe();
    connected(&one, &mut receiver).await;
    let client = redis::Client::open(url).expect("a URL");
    let mut stranger = client.get_multiplexed_async_connection().await.expect("Redis is there");
    let huge = format!(r#"{{"v":1,"orders":[],"levels":[],"x":"{}"}}"#, "x".repeat(2_000_000));
    for junk in ["", "{}", "hello", r#"{"v":2,"orders":[],"levels":[]}"#, &huge] {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("flux:news:{prefix}")).arg(junk);
        let heard: u64 = publish.query_async(&mut stranger).await.expect("published");
        assert_eq!(heard, 2, "the channel is where two listen");
    }
    one.publish(outcomes(1)).await.expect("published");
    let heard = timeout(PATIENCE, receiver.recv()).await.expect("in time");
    assert_eq!(heard.expect("the bus lives"), outcomes(1));
}

#[tokio::test]
async fn large_outcomes_arrive_in_parts() {
    let (url, prefix, meter) = (shared_url(), prefix(), Meter::default());
    let (one, two) = (metered(&url, &prefix, &meter).bus(), open(&url, &prefix).bus());
    let mut receiver = two.subscribe();
    connected(&one, &mut receiver).await;
    let before = meter.bill();
    let orders: Vec<_> = (1..=5_000).map(order).collect();
    let bytes = serde_json::to_string(&orders).expect("plain data").len();
    one.publish(Arc::new(Outcomes::new(orders, Vec::new()))).await.expect("published");
    assert_eq!(heard_until(5_000, &mut receiver).await, (1..=5_000).collect::<Vec<u128>>());
    let messages = (meter.bill() - &before).calls[&("redis".into(), "PUBLISH".into())];
    println!("{bytes} bytes of orders went in {messages} messages");
    assert!((2..=16).contains(&messages), "{messages}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_publishers_shares_its_commands() {
    const TASKS: u128 = 50;
    const EACH: u128 = 200;
    let (url, prefix, meter) = (shared_url(), prefix(), Meter::default());
    let (one, two) = (metered(&url, &prefix, &meter).bus(), open(&url, &prefix).bus());
    let mut receiver = two.subscribe();
    connected(&one, &mut receiver).await;
    let before = meter.bill();
    let since = Instant::now();
    let one = Arc::new(one);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let one = Arc::clone(&one);
        tasks.spawn(async move {
            for n in 1..=EACH {
                one.publish(outcomes(task * EACH + n)).await.expect("published");
            }
        });
    }
    let mut heard = HashSet::new();
    let mut last_levels = 0;
    while heard.len() < (TASKS * EACH) as usize {
        let outcomes = timeout(PATIENCE, receiver.recv()).await.expect("in time");
        let outcomes = outcomes.expect("nothing is lost");
        heard.extend(outcomes.orders.iter().map(|order| order.id).filter(|id| *id != order(0).id));
        last_levels = last_levels.max(outcomes.availability.len());
    }
    tasks.join_all().await;
    let (used, took) = (meter.bill() - &before, since.elapsed());
    println!(
        "{} outcomes by {TASKS} tasks: {} commands, {took:?}",
        TASKS * EACH,
        used.redis_commands
    );
    // Each task waits for its last, so 50 may share a command at most.
    assert!(used.redis_commands <= 1_000, "{} commands", used.redis_commands);
    assert_eq!(last_levels, 1, "of an item's levels only the last is told");
}

#[tokio::test]
async fn a_lease_costs_two_commands() {
    let meter = Meter::default();
    let locks = metered(&shared_url(), &prefix(), &meter).locks();
    let keys = ["a", "b", "c"].map(item);
    let turn = || async {
        let lease = locks.acquire(&keys, LONG, Duration::ZERO).await.expect("up").expect("free");
        locks.release(&lease).await.expect("up");
    };
    turn().await;
    let before = meter.bill();
    turn().await;
    assert_eq!((meter.bill() - &before).redis_commands, 2);
}

#[tokio::test]
async fn a_bus_that_is_dropped_ends_its_channels() {
    let bus = open(&shared_url(), &prefix()).bus();
    let mut receiver = bus.subscribe();
    drop(bus);
    let closed = async { while receiver.recv().await != Err(RecvError::Closed) {} };
    timeout(PATIENCE, closed).await.expect("the tasks end");
}
