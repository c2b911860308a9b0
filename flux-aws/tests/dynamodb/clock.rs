//! A worker whose clock is off against the service's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flux_aws::bill::Meter;
use flux_core::{Backend, Flux, ItemSpec, Order, OrderId, OrderRequest, OrderStatus};
use tokio::time::sleep;

use crate::table::{client, store, table_name};
use crate::wire::{Fate, wired};

const PATIENCE: Duration = Duration::from_secs(60);

async fn order(flux: &Flux, id: OrderId) -> Order {
    flux.order(id).await.expect("the table is there").expect("it was placed")
}

/// A hold that ends while the answers' dates are off by so many seconds.
async fn holds_wait(off: i64) {
    let (off, sweeps) = (Arc::new(AtomicI64::new(off)), Arc::new(AtomicUsize::new(0)));
    let (dates, count) = (Arc::clone(&off), Arc::clone(&sweeps));
    let decide = move |operation: &str, body: &str| {
        if operation == "Query" && body.contains("due = :due") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fate::Dated(dates.load(Ordering::SeqCst))
    };
    let (client, table) = (client().await, table_name());
    store(&client, &table, 1, &Meter::default()).await.create_table().await.expect("made");
    let store = store(&wired(&client, decide), &table, 1, &Meter::default()).await;
    let flux = Flux::builder(Backend { store, ..Backend::memory() }).start();
    let spec = ItemSpec::builder().id("a").capacity(1).hold_seconds(1).build();
    flux.put_item(spec.expect("an item")).await.expect("put");
    let request = OrderRequest::units("ann", "a", 1).expect("a request");
    let held = flux.place(request).await.expect("placed");
    let ends = held.hold().expect("it is held").expires_at;

    let began = Instant::now();
    let mut after = None;
    // Twenty searches, of 32 queries each, once it is over.
    while after.is_none_or(|after| sweeps.load(Ordering::SeqCst) < after + 20 * 32) {
        assert!(began.elapsed() < PATIENCE, "nobody looks for ended holds");
        if flux.now() > ends {
            after.get_or_insert(sweeps.load(Ordering::SeqCst));
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(order(&flux, held.id).await.status(), OrderStatus::Held);

    off.store(0, Ordering::SeqCst);
    let began = Instant::now();
    while order(&flux, held.id).await.status() != OrderStatus::Expired {
        assert!(began.elapsed() < PATIENCE, "the clock is right, and it is held still");
        sleep(Duration::from_millis(20)).await;
    }
    flux.shutdown().await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_ahead_ends_no_holds() {
    holds_wait(-3_600).await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_behind_ends_no_holds() {
    holds_wait(3_600).await;
}
