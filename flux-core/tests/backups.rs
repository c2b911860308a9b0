//! Copies of a store that sells at full speed: each becomes a store that adds up, and has
//! every order that was answered before the copy was begun. `FLUX_BACKUPS=100` for more.

#![cfg(feature = "embedded")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::backends::embedded::Embedded;
use flux_core::{Flux, ItemSpec, OrderId, OrderRequest, OrderStatus, PaymentRef};

const CALLERS: usize = 64;

fn backups() -> usize {
    let backups = std::env::var("FLUX_BACKUPS").ok();
    backups.map_or(8, |backups| backups.parse().expect("FLUX_BACKUPS is a number"))
}

/// What the sale and the copies know of each other.
#[derive(Default)]
struct Sale {
    answered: Mutex<Vec<OrderId>>,
    /// Set while a copy is looked at, else the sale would grow all the while.
    pauses: AtomicBool,
    stops: AtomicBool,
}

async fn sell(flux: Flux, caller: usize, sale: Arc<Sale>) {
    for n in 0.. {
        while sale.pauses.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if sale.stops.load(Ordering::Relaxed) {
            return;
        }
        let item = ["ticket", "few"][n % 2];
        let request = OrderRequest::units(format!("buyer-{caller}"), item, 1).expect("a request");
        let Ok(order) = flux.place(request).await else { continue };
        sale.answered.lock().expect("no panic").push(order.id);
        if order.status() == OrderStatus::Held && n % 3 == 0 {
            let payment = PaymentRef::new("paid").expect("a reference");
            flux.confirm(order.id, payment).await.expect("paid");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_copy_adds_up_and_has_every_order_that_was_answered_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = Arc::new(Embedded::open(dir.path().join("store")).expect("opens"));
    let flux = Flux::builder(embedded.backend()).start();
    for (id, capacity) in [("ticket", 10_000_000), ("few", 500)] {
        flux.put_item(ItemSpec::pool(id, capacity).expect("an item")).await.expect("put");
    }
    let sale = Arc::<Sale>::default();
    let selling: Vec<_> =
        (0..CALLERS).map(|n| tokio::spawn(sell(flux.clone(), n, sale.clone()))).collect();
    for n in 0..backups() {
        sale.pauses.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = sale.answered.lock().expect("no panic").clone();
        let copied = embedded.clone();
        let copy = tokio::task::spawn_blocking(move || {
            let mut copy = Vec::new();
            copied.backup(&mut copy).map(|counts| (copy, counts))
        });
        let (copy, counts) = copy.await.expect("no panic").expect("a copy");
        sale.pauses.store(true, Ordering::Relaxed);
        println!("copy {n}: {counts}, {} bytes", copy.len());

        let elsewhere = dir.path().join(n.to_string());
        let restored = Embedded::restore(&copy[..], &elsewhere).expect("restored");
        assert_eq!(restored, counts);
        let store = Embedded::open(&elsewhere).expect("opens");
        let restored = Flux::builder(store.backend()).role(flux_core::Role::AcceptOnly).start();
        let audit = restored.audit().await.expect("counted");
        assert!(audit.is_clean(), "{audit}");
        for part in before.chunks(1_000) {
            let found = store.backend().store.orders(part).await.expect("read");
            let missing = found.iter().zip(part).find(|(found, _)| found.is_none());
            assert!(missing.is_none(), "copy {n}: an answered order is missing: {missing:?}");
        }
        restored.shutdown().await;
        drop((restored, store));
        std::fs::remove_dir_all(elsewhere).expect("removed");
    }
    sale.stops.store(true, Ordering::Relaxed);
    sale.pauses.store(false, Ordering::Relaxed);
    for caller in selling {
        caller.await.expect("it sold");
    }
    flux.shutdown().await;
}
