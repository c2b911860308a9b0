//! Copies of a store that sells at full speed: each becomes a store that adds up, and has
//! every order that was answered before the copy was begun. `FLUX_BACKUPS=100` for more.

#![cfg(feature = "embedded")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use flux_core::backends::embedded::Embedded;
use flux_core::{Flux, ItemSpec, OrderId, OrderRequest, OrderStatus, PaymentRef};

const CALLERS: usize = 64;

fn backups() -> usize {
    let backups = std::env::var("FLUX_BACKUPS").ok();
    backups.map_or(8, |backups| backups.parse().expect("FLUX_BACKUPS is a number"))
}

async fn sell(
    flux: Flux,
    caller: usize,
    answered: Arc<Mutex<Vec<OrderId>>>,
    stop: Arc<AtomicBool>,
) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let item = ["ticket", "few"][n % 2];
        let request = OrderRequest::units(format!("buyer-{caller}"), item, 1).expect("a request");
        let Ok(order) = flux.place(request).await else { continue };
        answered.lock().expect("no panic").push(order.id);
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
    let (answered, stop) = (Arc::<Mutex<Vec<OrderId>>>::default(), Arc::<AtomicBool>::default());
    let selling: Vec<_> = (0..CALLERS)
        .map(|n| tokio::spawn(sell(flux.clone(), n, answered.clone(), stop.clone())))
        .collect();
    for n in 0..backups() {
        let before = answered.lock().expect("no panic").clone();
        let copied = embedded.clone();
        let copy = tokio::task::spawn_blocking(move || {
            let mut copy = Vec::new();
            copied.backup(&mut copy).map(|counts| (copy, counts))
        });
        let (copy, counts) = copy.await.expect("no panic").expect("a copy");
        assert!(counts.orders >= before.len() as u64 / 2);

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
    stop.store(true, Ordering::Relaxed);
    for caller in selling {
        caller.await.expect("it sold");
    }
    flux.shutdown().await;
}
