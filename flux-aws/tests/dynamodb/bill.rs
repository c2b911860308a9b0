//! The costs of calls, in the units the emulator counts by DynamoDB's rules. The
//! figures of `design.md` are printed here: `cargo test … bill -- --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_aws::bill::{Bill, Meter};
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::{Expect, OrderWrite};
use flux_core::seams::{InventoryStore, OrderFilter, Payment, SeamError};
use flux_core::{
    Backend, Error, Flux, ItemSpec, Line, Order, OrderRequest, OrderState, OrderStatus, PaymentRef,
    Settings,
};
use futures_util::future::join_all;

use crate::table::{
    LATER, NOW, apply, bill_of, calls, capped, claim, client, fresh_metered, held, id, item, new,
    order, pool, rejected, single, store, table_name,
};
use crate::wire::{Fate, wired};

/// A store with an item in it.
async fn selling(spec: ItemSpec, stripes: usize) -> (Arc<DynamoStore>, Meter) {
    let meter = Meter::default();
    let store = fresh_metered(stripes, &meter).await;
    store.put_item(&spec).await.expect("put");
    (store, meter)
}

fn say(what: &str, bill: &Bill, times: usize) {
    let (reads, writes) = (bill.read_units / times as f64, bill.write_units / times as f64);
    println!(
        "{what}: {} calls, {reads:.2} read, {writes:.2} write units",
        calls(bill) as f64 / times as f64
    );
}

/// The bill of an order in full commits, and in one of its own.
async fn in_full_and_alone(
    what: &str,
    spec: ItemSpec,
    commits: usize,
    parts_per_order: usize,
    write: impl Fn(usize) -> Order,
) -> (f64, f64) {
    let (name, stripes) = (spec.id.to_string(), 1);
    let (store, meter) = selling(spec, stripes).await;
    let claimed = claim(&store, &name).await;
    let full = (store.commit_max().parts - 2) / parts_per_order;
    let ((), bill) = bill_of(&meter, async {
        for number in 0..commits {
            let orders = (number * full..(number + 1) * full).map(&write);
            apply(&store, &[&claimed], orders.map(|order| new(&order)).collect()).await;
        }
    })
    .await;
    say(&format!("{what}, {full} in a commit, each"), &bill, commits * full);
    // The mean includes a row of the log now and then.
    let ((), alone) = bill_of(&meter, async {
        for number in 0..25 {
            apply(&store, &[&claimed], vec![new(&write(commits * full + number))]).await;
        }
    })
    .await;
    say(&format!("{what}, alone"), &alone, 25);
    (bill.write_units / (commits * full) as f64, alone.write_units / 25.0)
}

#[tokio::test]
async fn an_order_of_a_hot_pool() {
    let write = |n| held(&single(n, "ticket"));
    let (full, alone) = in_full_and_alone("held", pool("ticket", 10_000), 10, 1, write).await;
    assert!(full <= 3.2 && alone <= 5.5, "{full} {alone}");
    let write = |n| rejected(&single(n, "ticket"));
    let (full, alone) = in_full_and_alone("rejected", pool("ticket", 10_000), 10, 1, write).await;
    assert!(full <= 2.1 && alone <= 4.5, "{full} {alone}");
    let write = |n| held(&single(n, "ticket"));
    let (full, alone) =
        in_full_and_alone("held, capped", capped("ticket", 10_000, 2), 10, 2, write).await;
    assert!(full <= 5.3 && alone <= 7.5, "{full} {alone}");
}

#[tokio::test]
async fn an_order_of_a_hall_of_a_thousand_seats() {
    let hall = ItemSpec::hall("hall", (0..1_000).map(|seat| format!("seat-{seat}")));
    let write = |n: usize| {
        let line = Line::seats("hall", [format!("seat-{n}")]).expect("a line");
        held(&order(n, &format!("buyer-{n}"), &[line]))
    };
    let (full, alone) = in_full_and_alone("held, a seat", hall.expect("a hall"), 8, 1, write).await;
    assert!(full <= 3.2 && alone <= 5.5, "{full} {alone}");
}

#[tokio::test]
async fn everything_else() {
    for stripes in [1, 8] {
        let (store, meter) = selling(pool("ticket", 10_000), stripes).await;
        let (claimed, bill) = bill_of(&meter, claim(&store, "ticket")).await;
        say(&format!("claim, {stripes} stripes"), &bill, 1);
        assert_eq!((calls(&bill), bill.write_units), (stripes as u64, stripes as f64));
        apply(&store, &[&claimed], (0..90).map(|n| new(&held(&single(n, "ticket")))).collect())
            .await;
        let (_, bill) = bill_of(&meter, store.availability(&[item("ticket")])).await;
        say(&format!("levels or stock, {stripes} stripes"), &bill, 1);
        assert!(calls(&bill) <= 2 && bill.read_units <= stripes as f64, "{bill:?}");
    }
    let (store, meter) = selling(pool("ticket", 10_000), 1).await;
    let claimed = claim(&store, "ticket").await;
    apply(&store, &[&claimed], (0..90).map(|n| new(&held(&single(n, "ticket")))).collect()).await;
    let pay = |n| Payment::new(id(n), PaymentRef::new("pay").expect("a name"), NOW);
    let (_, bill) = bill_of(&meter, store.confirm(&[pay(1)])).await;
    say("confirm", &bill, 1);
    assert!(calls(&bill) == 1 && bill.write_units <= 2.0, "{bill:?}");
    let (_, bill) = bill_of(&meter, store.confirm(&[pay(1)])).await;
    say("confirm, repeated", &bill, 1);
    let read: Vec<_> = (0..90).map(id).collect();
    let (_, bill) = bill_of(&meter, store.orders(&read)).await;
    say("orders, of 90 each", &bill, 90);
    assert!(calls(&bill) == 1 && bill.read_units <= 90.0, "{bill:?}");
    let (_, bill) =
        bill_of(&meter, join_all(read.iter().map(|id| store.orders(std::slice::from_ref(id)))))
            .await;
    say("orders, 90 callers at once", &bill, 1);
    assert!(calls(&bill) <= 5, "callers share their calls: {bill:?}");
    let (_, bill) = bill_of(&meter, store.due_holds(NOW, 100)).await;
    say("due holds, none of 89", &bill, 1);
    assert!(calls(&bill) == 32 && bill.read_units <= 16.0, "{bill:?}");
    let due = store.due_holds(LATER, 100).await.expect("read").due;
    assert!(due.len() == 89 && !due.contains(&id(1)), "what is paid has left the index");
    let filter = OrderFilter::builder().item(item("ticket")).build();
    let (_, bill) = bill_of(&meter, store.list_orders(&filter, None, 50)).await;
    say("list 50 orders of an item", &bill, 1);
    assert!(calls(&bill) <= 4 && bill.read_units <= 55.0, "{bill:?}");
    let (_, bill) = bill_of(&meter, store.items(&[item("ticket")])).await;
    say("items, with a count of 89 holds", &bill, 1);
    let (_, bill) = bill_of(&meter, store.items(&[item("ticket")])).await;
    say("items, soon after", &bill, 1);
    assert!(calls(&bill) == 1 && bill.read_units <= 1.0, "{bill:?}");
    let (_, bill) = bill_of(&meter, store.list_items(None, 10)).await;
    say("list items", &bill, 1);
    let (_, bill) = bill_of(&meter, store.put_item(&pool("other", 1))).await;
    say("a new item", &bill, 1);
    let (_, bill) = bill_of(&meter, store.put_item(&pool("other", 2))).await;
    say("a changed item", &bill, 1);
    let (_, bill) = bill_of(&meter, store.put_item(&capped("ticket", 10_000, 3))).await;
    say("a cap that comes after 90 orders", &bill, 1);
    let unknown = single(1_000, "nothing");
    let (_, bill) = bill_of(&meter, apply(&store, &[], vec![new(&rejected(&unknown))])).await;
    say("rejected, no such item, alone", &bill, 1);
}

#[tokio::test]
async fn holds_that_end() {
    let (store, meter) = selling(pool("ticket", 10_000), 1).await;
    let claimed = claim(&store, "ticket").await;
    apply(&store, &[&claimed], (0..90).map(|n| new(&held(&single(n, "ticket")))).collect()).await;
    let (due, bill) = bill_of(&meter, store.due_holds(LATER, 100)).await;
    say("due holds, each of 90", &bill, due.expect("read").due.len());
    let ends = (0..90).map(|n| {
        let order = held(&single(n, "ticket"));
        let hold = order.hold().expect("it is held");
        OrderWrite {
            order: order.with_state(OrderState::Expired(hold)),
            expect: Expect::Status(OrderStatus::Held),
        }
    });
    let (_, bill) = bill_of(&meter, apply(&store, &[&claimed], ends.collect())).await;
    say("holds that end, 90 in a commit, each", &bill, 90);
    assert!(bill.write_units / 90.0 <= 3.2, "{bill:?}");
}

fn engine(store: Arc<dyn InventoryStore>, settings: Settings) -> Flux {
    Flux::builder(Backend { store, ..Backend::memory() }).settings(settings).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_thousand_orders_at_once_through_an_engine() {
    let (store, meter) = selling(pool("ticket", 5_000), 1).await;
    // The longer it takes, the more often ended holds are looked for: not counted here.
    let hour = Duration::from_secs(3_600);
    let flux = engine(store, Settings::builder().sweep_every(hour).build());
    let place = |n: usize| {
        let flux = flux.clone();
        let line = Line::units("ticket", 1).expect("a line");
        let request = OrderRequest::builder().buyer(format!("buyer-{n}")).lines(vec![line]);
        async move { flux.place(request.build().expect("a request")).await }
    };
    let (placed, bill) = bill_of(&meter, join_all((0..5_000).map(place))).await;
    for placed in &placed {
        let status = placed.as_ref().map(Order::status);
        assert!(matches!(status, Ok(OrderStatus::Held)), "{placed:?}");
    }
    say("held through an engine, 5,000 at once, each", &bill, 5_000);
    println!("{}", bill.for_orders(5_000));
    assert!(calls(&bill) <= 500, "callers share their calls");
    assert!(bill.write_units / 5_000.0 <= 3.2, "{}", bill.for_orders(5_000));
    let audit = flux.audit().await.expect("read");
    assert!(audit.is_clean(), "{audit}");
    let (late, bill) = bill_of(&meter, place(5_000)).await;
    assert!(matches!(late, Err(Error::SoldOut(_))), "{late:?}");
    assert!(bill.write_units == 0.0, "turned away at the gate for nothing: {bill:?}");
    flux.shutdown().await;
}

#[tokio::test]
async fn an_order_under_an_id_of_the_callers_own_is_looked_for_once() {
    let (client, table) = (client().await, table_name());
    let looks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looks);
    let wire = wired(&client, move |operation, body| {
        if operation == "BatchGetItem" {
            count.fetch_add(body.matches("order 0").count(), Ordering::SeqCst);
        }
        Fate::Well
    });
    let store = store(&wire, &table, 1, &Meter::default()).await;
    store.create_table().await.expect("made");
    store.put_item(&pool("ticket", 1)).await.expect("put");
    let flux = engine(store, Settings::default());
    let request = |n: usize| {
        let request = OrderRequest::units(format!("buyer-{n}"), "ticket", 1);
        request.expect("a request").with_id(id(n))
    };
    let held = flux.place(request(1)).await.expect("placed");
    assert_eq!(looks.swap(0, Ordering::SeqCst), 0, "an id that is taken shows in the commit");
    for n in 2..12 {
        let late = flux.submit(request(n)).await;
        assert!(matches!(late, Err(Error::SoldOut(_))), "{late:?}");
    }
    assert_eq!(looks.swap(0, Ordering::SeqCst), 10, "a latecomer is a read unit");
    assert_eq!(flux.submit(request(1)).await.expect("a repeat"), held);
    assert_eq!(looks.swap(0, Ordering::SeqCst), 1);
    flux.shutdown().await;
}

#[tokio::test]
async fn an_idle_engine_only_sweeps() -> Result<(), SeamError> {
    let (store, meter) = selling(pool("ticket", 5), 1).await;
    let settings = Settings::builder().sweep_every(Duration::from_millis(200)).build();
    let flux = engine(store, settings);
    let ((), bill) = bill_of(&meter, tokio::time::sleep(Duration::from_secs(3))).await;
    println!("idle for 3 s, sweeping every 0.2 s: {bill:?}");
    let operations: Vec<_> = bill.calls.keys().map(|(_, operation)| operation.as_str()).collect();
    assert_eq!(operations, ["Query"]);
    assert!(calls(&bill) <= 32 * 3 * 10 && bill.write_units == 0.0, "{bill:?}");
    flux.shutdown().await;
    Ok(())
}
