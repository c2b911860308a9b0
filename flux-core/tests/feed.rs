//! The change feed of a sale, followed by somebody who is killed again and again: what was
//! seen is what happened, in order. `FLUX_FEED_ORDERS=100000` for the whole evening.

#![cfg(feature = "embedded")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::backends::embedded::Embedded;
use flux_core::{
    Changed, ConsumerName, Flux, ItemSpec, Order, OrderFilter, OrderId, OrderRequest, OrderStatus,
    PaymentRef,
};

const KILLS: usize = 50;
const CALLERS: usize = 64;
/// Changes between two times that a consumer says how far it came.
const DONE_EVERY: usize = 32;

fn orders() -> usize {
    let orders = std::env::var("FLUX_FEED_ORDERS").ok();
    orders.map_or(10_000, |orders| orders.parse().expect("FLUX_FEED_ORDERS is a number"))
}

/// All that the consumer's lives have seen of each order.
#[derive(Default)]
struct Seen {
    stories: HashMap<OrderId, Vec<Order>>,
    repeated: usize,
}

impl Seen {
    fn note(&mut self, order: Order) {
        let story = self.stories.entry(order.id).or_default();
        // At least once: what comes again was seen before, and in the same order.
        match story.contains(&order) {
            true => self.repeated += 1,
            false => story.push(order),
        }
    }
}

/// Sells, pays and gives back.
async fn sell(flux: Flux, caller: usize, orders: usize) {
    for n in 0..orders {
        let request = OrderRequest::units(format!("buyer-{caller}"), "ticket", 1);
        let order = flux.place(request.expect("a request")).await.expect("placed");
        if order.status() != OrderStatus::Held {
            continue;
        }
        if n % 2 == 0 {
            let payment = PaymentRef::new("paid").expect("a reference");
            flux.confirm(order.id, payment).await.expect("paid");
        }
        match n % 4 {
            0 => drop(flux.cancel(order.id).await.expect("cancelled")),
            1 => drop(flux.release(order.id).await.expect("released")),
            _ => {}
        }
    }
}

/// One life of a consumer, which goes on until it is killed or all is over and seen.
async fn follow(flux: Flux, seen: Arc<Mutex<Seen>>, is_over: Arc<AtomicBool>) {
    let name = ConsumerName::new("books").expect("a name");
    let mut follower = flux.consumer(name).await.expect("a feed");
    for n in 1.. {
        let next = tokio::time::timeout(Duration::from_millis(500), follower.next()).await;
        let change = match next {
            Ok(change) => change.expect("a change").expect("the engine runs"),
            Err(_) if is_over.load(Ordering::Relaxed) => return,
            Err(_) => continue,
        };
        if let Changed::Order(order) = &change.changed {
            seen.lock().expect("no panic").note(order.clone());
        }
        if n % DONE_EVERY == 0 {
            follower.done(&change).await.expect("kept");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_that_is_killed_again_and_again_misses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let flux = Flux::builder(Embedded::open(dir.path()).expect("opens").backend()).start();
    let orders = orders();
    let spec = ItemSpec::builder().id("ticket").capacity(orders as u64 * 2 / 3);
    flux.put_item(spec.max_per_buyer(1_000).build().expect("an item")).await.expect("put");

    let (seen, is_over) = (Arc::new(Mutex::new(Seen::default())), Arc::default());
    let each = orders / CALLERS;
    let selling: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(sell(flux.clone(), caller, each))).collect();
    for kill in 0..KILLS {
        let life = follow(flux.clone(), Arc::clone(&seen), Arc::clone(&is_over));
        let life = tokio::spawn(life);
        tokio::time::sleep(Duration::from_millis(3 + kill as u64 * 7 % 40)).await;
        life.abort();
        let _ = life.await;
    }
    for caller in selling {
        caller.await.expect("it sold");
    }
    is_over.store(true, Ordering::Relaxed);
    follow(flux.clone(), Arc::clone(&seen), is_over).await;

    let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    let (mut listed, mut after) = (0, None);
    loop {
        let page = flux.orders(&OrderFilter::default(), after.as_ref(), 1_000).await.expect("read");
        for order in page.orders {
            listed += 1;
            let story =
                seen.stories.get(&order.id).unwrap_or_else(|| panic!("{order:?} is missing"));
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
    assert_eq!(listed, seen.stories.len(), "nothing was seen that did not happen");
    let audit = flux.audit().await.expect("counted");
    assert!(audit.is_clean(), "{audit}");
    println!("{listed} orders, {KILLS} kills, {} changes seen again", seen.repeated);
    flux.shutdown().await;
}
