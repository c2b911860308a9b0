//! The change feed over the table's stream: what every feed promises, and a sale that is
//! followed by somebody who is killed again and again. `FLUX_FEED_ORDERS=100000` for the
//! whole evening.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::conformance;
use flux_core::seams::{Changed, InventoryStore, SeamError};
use flux_core::{
    Backend, ConsumerName, Cursor, Error, Flux, Order, OrderFilter, OrderId, OrderRequest,
    OrderStatus, PaymentRef,
};

use crate::table::{capped, client, pool, table_name};

const KILLS: usize = 50;
const CALLERS: usize = 64;
/// Changes between two times that a consumer says how far it came.
const DONE_EVERY: usize = 32;

/// A store in a table of that name, which is made if it is not there, with a feed.
async fn with_feed(table: &str) -> Arc<DynamoStore> {
    let streams = aws_sdk_dynamodbstreams::Client::new(&flux_aws::aws::from_env().await);
    let (client, meter) = (client().await, Meter::default());
    let store = DynamoStore::builder().client(&client).streams(&streams).table(table);
    let store = store.meter(meter).build();
    store.create_table().await.expect("made");
    Arc::new(store)
}

#[tokio::test]
async fn the_stream_of_a_table_is_a_feed() {
    conformance::feed(|| async { with_feed(&table_name()).await }).await.assert_clean();
}

/// What is asked of a position in one process is known in another.
#[tokio::test]
async fn a_cursor_is_good_in_every_process() {
    let table = table_name();
    let (one, other) = (with_feed(&table).await, with_feed(&table).await);
    let [one_feed, other_feed] = [&one, &other].map(|store| store.feed().expect("a feed"));
    one.put_item(&pool("a", 5)).await.expect("put");
    let newest = one_feed.newest().await.expect("newest");
    one.put_item(&pool("b", 5)).await.expect("put");
    let here = one_feed.changes(Some(&newest), 9, Duration::ZERO).await.expect("read");
    assert_eq!(here.changes.len(), 1);
    assert_eq!(here.changes[0].changed, Changed::Item(pool("b", 5)));
    // It can't know where exactly the newest was, and rather tells something again.
    let there = other_feed.changes(Some(&newest), 9, Duration::ZERO).await.expect("read");
    assert_eq!(
        there.changes.last().map(|change| &change.changed),
        Some(&Changed::Item(pool("b", 5)))
    );
    let behind = other_feed.changes(Some(&here.next), 9, Duration::ZERO).await.expect("read");
    assert_eq!(behind.changes, []);
    one.put_item(&pool("c", 5)).await.expect("put");
    let next = other_feed.changes(Some(&here.next), 9, Duration::ZERO).await.expect("read");
    assert_eq!(next.changes[0].changed, Changed::Item(pool("c", 5)));
}

#[tokio::test]
async fn a_table_without_a_stream_has_no_feed_until_it_is_made_again() {
    let (client, table) = (client().await, table_name());
    let made = with_feed(&table).await;
    let old = made.feed().expect("a feed").newest().await.expect("newest");
    let off = StreamSpecification::builder().stream_enabled(false).build().expect("said");
    let update = client.update_table().table_name(&table).stream_specification(off);
    update.send().await.expect("turned off");

    let streams = aws_sdk_dynamodbstreams::Client::new(&flux_aws::aws::from_env().await);
    let store = DynamoStore::builder().client(&client).streams(&streams).table(&table).build();
    store.check().await.expect("all else is well");
    assert!(store.feed().is_none());

    let on = StreamSpecification::builder().stream_enabled(true);
    let on = on.stream_view_type(StreamViewType::NewAndOldImages).build().expect("said");
    let update = client.update_table().table_name(&table).stream_specification(on);
    update.send().await.expect("turned on");
    store.check().await.expect("well");
    let feed = store.feed().expect("a feed");
    // Of another stream: what happened between is not in either.
    let gone = feed.changes(Some(&old), 1, Duration::ZERO).await;
    assert!(matches!(gone, Err(SeamError::ChangesGone { .. })), "{gone:?}");
    let unknown = feed.changes(Some(&Cursor("7".into())), 1, Duration::ZERO).await;
    assert!(matches!(unknown, Err(SeamError::UnknownCursor { .. })), "{unknown:?}");
}

/// Whatever else it is for, its records don't say what changed.
#[tokio::test]
async fn a_stream_without_images_is_no_feed() {
    let (client, table) = (client().await, table_name());
    with_feed(&table).await;
    let off = StreamSpecification::builder().stream_enabled(false).build().expect("said");
    let keys = StreamSpecification::builder().stream_enabled(true);
    let keys = keys.stream_view_type(StreamViewType::KeysOnly).build().expect("said");
    for stream in [off, keys] {
        let update = client.update_table().table_name(&table).stream_specification(stream);
        update.send().await.expect("changed");
    }
    let streams = aws_sdk_dynamodbstreams::Client::new(&flux_aws::aws::from_env().await);
    let store = DynamoStore::builder().client(&client).streams(&streams).table(&table).build();
    store.check().await.expect("all else is well");
    assert!(store.feed().is_none());
    store.create_table().await.expect("it is there");
    assert!(store.feed().is_none(), "the stream stays another's");
}

fn orders() -> usize {
    let orders = std::env::var("FLUX_FEED_ORDERS").ok();
    orders.map_or(2_000, |orders| orders.parse().expect("FLUX_FEED_ORDERS is a number"))
}

/// Calls again while the emulator is too slow for its answers: each call may be repeated.
async fn insist<F: Future<Output = Result<Order, Error>>>(call: impl Fn() -> F) -> Order {
    for _ in 0..100 {
        match call().await {
            Ok(order) => return order,
            Err(Error::Backend(_) | Error::OutcomePending(_) | Error::Overloaded { .. }) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("there was no answer")
}

/// Sells, pays and gives back.
async fn sell(flux: Flux, caller: usize, orders: usize) {
    for n in 0..orders {
        let request = OrderRequest::units(format!("buyer-{caller}"), "ticket", 1);
        let request = request.expect("a request").with_id(OrderId::new());
        let order = insist(|| flux.place(request.clone())).await;
        if order.status() != OrderStatus::Held {
            continue;
        }
        if n % 2 == 0 {
            let payment = PaymentRef::new("paid").expect("a reference");
            insist(|| flux.confirm(order.id, payment.clone())).await;
        }
        match n % 4 {
            0 => drop(insist(|| flux.cancel(order.id)).await),
            1 => drop(insist(|| flux.release(order.id)).await),
            _ => {}
        }
    }
}

/// All that the consumer's lives have seen of each order.
type Seen = HashMap<OrderId, Vec<Order>>;

/// One life of a consumer, which goes on until it is killed, fails, or all is over and seen,
/// which it tells.
async fn follow(flux: Flux, seen: Arc<Mutex<Seen>>, is_over: Arc<AtomicBool>) -> bool {
    let name = ConsumerName::new("books").expect("a name");
    let Ok(mut follower) = flux.consumer(name).await else { return false };
    for n in 1.. {
        let next = tokio::time::timeout(Duration::from_secs(3), follower.next()).await;
        let change = match next {
            Ok(Ok(change)) => change.expect("the engine runs"),
            // Another life takes its place.
            Ok(Err(_)) => return false,
            Err(_) if is_over.load(Ordering::Relaxed) => return true,
            Err(_) => continue,
        };
        if let Changed::Order(order) = &change.changed {
            let mut seen = seen.lock().expect("no panic");
            let story = seen.entry(order.id).or_default();
            // At least once.
            if !story.contains(order) {
                story.push(order.clone());
            }
        }
        if n % DONE_EVERY == 0 {
            let _ = follower.done(&change).await;
        }
    }
    unreachable!("a life has no other end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_that_is_killed_again_and_again_misses_nothing() {
    let store = with_feed(&table_name()).await;
    let flux = Flux::builder(Backend { store, ..Backend::memory() }).start();
    let orders = orders();
    let spec = capped("ticket", orders as u64 * 2 / 3, 1_000);
    flux.put_item(spec).await.expect("put");

    let (seen, is_over) = (Arc::new(Mutex::new(Seen::default())), Arc::default());
    let selling: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(sell(flux.clone(), caller, orders / CALLERS)))
        .collect();
    for kill in 0..KILLS {
        let life = tokio::spawn(follow(flux.clone(), Arc::clone(&seen), Arc::clone(&is_over)));
        tokio::time::sleep(Duration::from_millis(20 + kill as u64 * 7 % 90)).await;
        life.abort();
        let _ = life.await;
    }
    for caller in selling {
        caller.await.expect("it sold");
    }
    is_over.store(true, Ordering::Relaxed);
    while !follow(flux.clone(), Arc::clone(&seen), Arc::clone(&is_over)).await {}

    let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    let (mut listed, mut after) = (0, None);
    loop {
        let page = flux.orders(&OrderFilter::default(), after.as_ref(), 1_000).await.expect("read");
        for order in page.orders {
            listed += 1;
            let story = seen.get(&order.id).unwrap_or_else(|| panic!("{order:?} is missing"));
            assert_eq!(story.last(), Some(&order), "what was seen last is what is");
            let statuses: Vec<OrderStatus> = story.iter().map(Order::status).collect();
            let possible: &[&[OrderStatus]] = &[
                &[OrderStatus::Held],
                &[OrderStatus::Held, OrderStatus::Confirmed],
                &[OrderStatus::Held, OrderStatus::Confirmed, OrderStatus::Cancelled],
                &[OrderStatus::Held, OrderStatus::Released],
                &[OrderStatus::Rejected],
            ];
            assert!(possible.contains(&&statuses[..]), "{statuses:?}");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, seen.len(), "nothing was seen that did not happen");
    let audit = flux.audit().await.expect("counted");
    assert!(audit.is_clean(), "{audit}");
    println!("{listed} orders, {KILLS} kills");
    flux.shutdown().await;
}
