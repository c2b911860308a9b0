//! Orders, items and commits at their largest.

use std::sync::Arc;
use std::time::Instant;

use flux_aws::bill::Meter;
use flux_core::protocol::CommitOutcome;
use flux_core::seams::{InventoryStore, OrderFilter};
use flux_core::{Backend, Flux, ItemKind, ItemSpec, Line, OrderRequest, OrderStatus};
use futures_util::future::join_all;

use crate::table::{
    apply, available, calls, capped, claim, commit, fresh, fresh_metered, held, id, item, listed,
    new, order, pool, rejected, single, units,
};

/// A seat's name as long as it may be.
fn seat(n: usize) -> String {
    format!("{n:0>128}")
}

fn hall(name: &str, seats: usize) -> ItemSpec {
    ItemSpec::hall(name, (0..seats).map(seat)).expect("a hall")
}

#[tokio::test]
async fn a_hall_of_a_hundred_thousand_seats() {
    let meter = Meter::default();
    let store = fresh_metered(1, &meter).await;
    let began = Instant::now();
    let mut said = meter.bill();
    let mut say = |what: &str| {
        let bill = meter.bill() - &said;
        said = meter.bill();
        let (reads, writes) = (bill.read_units, bill.write_units);
        println!(
            "{:?} {what}: {} calls, {reads} read, {writes} write units",
            began.elapsed(),
            calls(&bill)
        );
    };
    let spec = hall("h", 100_000);
    store.put_item(&spec).await.expect("put");
    say("put");
    let claimed = claim(&store, "h").await;
    assert_eq!(claimed.stock.available(), 100_000);
    say("claimed");
    let takes = |n: usize, seats: [usize; 2]| {
        let line = Line::seats("h", seats.map(seat)).expect("a line");
        held(&order(n, &format!("buyer-{n}"), &[line]))
    };
    let first = (0..98).map(|n| new(&takes(n, [n * 1_000, 99_999 - n])));
    apply(&store, &[&claimed], first.collect()).await;
    say("98 orders committed");
    apply(&store, &[&claimed], vec![new(&takes(98, [98_500, 99_500]))]).await;
    say("one order committed");
    let taken = commit(&[&claimed], vec![new(&takes(99, [1, 1_000]))]);
    let outcomes = store.commit(&[taken]).await.expect("told");
    assert!(matches!(outcomes[..], [CommitOutcome::Fenced(_)]), "its second seat is taken");
    say("a taken seat refused");
    let filter = OrderFilter::builder().item(item("h")).build();
    assert_eq!(listed(&store, &filter).await.len(), 99);
    say("listed");
    let again = store.claim(&[item("h"), item("h")]).await.expect("claimed");
    assert_eq!(again.into_iter().flatten().count(), 2);
    let (read, stock) = store.stock(&item("h")).await.expect("read").expect("there");
    assert_eq!((read.capacity(), stock.available()), (100_000, 100_000 - 198));
    assert!(
        matches!(&read.kind, ItemKind::Seats(hall) if hall.names()[77_777].as_str() == seat(77_777))
    );
    say("claimed twice and read");
}

#[tokio::test]
async fn an_order_of_a_thousand_long_seats() {
    let store = fresh(1).await;
    let names: Vec<String> = (0..10).map(|n| format!("hall-{n}")).collect();
    for name in &names {
        store.put_item(&hall(name, 200)).await.expect("put");
    }
    let ids: Vec<_> = names.iter().map(|name| item(name)).collect();
    let claims: Vec<_> = store.claim(&ids).await.expect("claimed").into_iter().flatten().collect();
    let claims: Vec<_> = claims.iter().collect();
    let whole = |n: usize| {
        let line =
            |name: &String| Line::seats(name, (n * 100..n * 100 + 100).map(seat)).expect("a line");
        held(&order(n, "ann", &names.iter().map(line).collect::<Vec<_>>()))
    };
    apply(&store, &claims, vec![new(&whole(0)), new(&whole(1))]).await;
    assert_eq!(available(&store, "hall-9").await, 0);
    let read = store.orders(&[id(0), id(1)]).await.expect("read");
    assert_eq!(read, [Some(whole(0)), Some(whole(1))]);
    assert_eq!(listed(&store, &OrderFilter::default()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_round_of_a_thousand_orders_of_which_some_are_huge() {
    const HUGE: usize = 40;
    let store = fresh(1).await;
    let names: Vec<String> = (0..10).map(|n| format!("hall-{n}")).collect();
    for name in &names {
        store.put_item(&hall(name, HUGE * 100 + 100)).await.expect("put");
    }
    store.put_item(&pool("ticket", 1_000)).await.expect("put");
    let flux = Flux::builder(Backend { store: store.clone(), ..Backend::memory() }).start();
    let request = |n: usize| {
        let lines = match n % 25 {
            0 if n / 25 < HUGE => {
                let seats = n / 25 * 100..n / 25 * 100 + 100;
                let line = |name: &String| Line::seats(name, seats.clone().map(seat));
                names.iter().map(line).collect::<Result<_, _>>().expect("lines")
            }
            _ => vec![units("ticket", 1)],
        };
        OrderRequest::builder().buyer(format!("buyer-{n}")).lines(lines).build().expect("a request")
    };
    let placed = join_all((0..1_024).map(|n| flux.place(request(n)))).await;
    for placed in &placed {
        let status = placed.as_ref().map(flux_core::Order::status);
        assert!(matches!(status, Ok(OrderStatus::Held)), "{placed:?}");
    }
    assert_eq!(available(&store, "hall-3").await, 100);
    let audit = flux.audit().await.expect("read");
    assert!(audit.is_clean(), "{audit}");
    flux.shutdown().await;
}

#[tokio::test]
async fn orders_over_ten_capped_items() {
    let store = fresh(1).await;
    let names: Vec<String> = (0..10).map(|n| format!("item-{n}")).collect();
    for name in &names {
        store.put_item(&capped(name, 100, 2)).await.expect("put");
    }
    let ids: Vec<_> = names.iter().map(|name| item(name)).collect();
    let claims: Vec<_> = store.claim(&ids).await.expect("claimed").into_iter().flatten().collect();
    let claims: Vec<_> = claims.iter().collect();
    let of_all = |n: usize, buyer: &str, each: u64| {
        let lines: Vec<_> = names.iter().map(|name| units(name, each)).collect();
        held(&order(n, buyer, &lines))
    };
    // As many as the store says that it takes: 100 parts.
    let per_order = 1 + 10;
    let most = (store.commit_max().parts - 2 * 10) / per_order;
    let full: Vec<_> = (0..most).map(|n| new(&of_all(n, &format!("buyer-{n}"), 1))).collect();
    apply(&store, &claims, full).await;
    let beyond = commit(&claims, vec![new(&of_all(50, "buyer-3", 2))]);
    let outcomes = store.commit(&[beyond]).await.expect("told");
    let [CommitOutcome::Conflict { moved, over_cap, .. }] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(moved.is_empty() && over_cap.len() == 10, "each item tells");
    assert!(over_cap.iter().all(|over| over.live == 1 && over.buyer.as_str() == "buyer-3"));
    apply(&store, &claims, vec![new(&of_all(51, "buyer-3", 1))]).await;
    assert_eq!(available(&store, "item-7").await as usize, 100 - most - 1);
}

#[tokio::test]
async fn orders_that_are_repeated() {
    let store = fresh(1).await;
    store.put_item(&pool("a", 100)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let (one, two, three) = (held(&single(1, "a")), held(&single(2, "a")), held(&single(3, "a")));
    let moved =
        |n| CommitOutcome::Conflict { moved: vec![id(n)], over_cap: vec![], barred: vec![] };
    // In one commit, in two commits of one call, and in a later call.
    let twice = commit(&[&claimed], vec![new(&one), new(&two), new(&one)]);
    let first = commit(&[&claimed], vec![new(&one), new(&two)]);
    let second = commit(&[&claimed], vec![new(&three), new(&two)]);
    let outcomes = store.commit(&[twice, first, second]).await.expect("told");
    assert_eq!(outcomes, [moved(1), CommitOutcome::Applied, moved(2)]);
    let later = commit(&[&claimed], vec![new(&rejected(&one))]);
    assert_eq!(store.commit(&[later]).await.expect("told"), [moved(1)]);
    let after = claim(&store, "a").await;
    let later = commit(&[&after], vec![new(&rejected(&two))]);
    assert_eq!(store.commit(&[later]).await.expect("told"), [moved(2)]);
    assert_eq!(after.stock.available(), 98);
    assert_eq!(store.orders(&[id(1), id(3)]).await.expect("read"), [Some(one), None]);
    let _: Arc<dyn InventoryStore> = store;
}
