//! What reads every order, while orders come in: nothing else waits for it, and
//! what it counts is right all the same.

#![cfg(feature = "embedded")]

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::embedded::Embedded;
use flux_core::protocol::{Commit, CommitOutcome, Expect, Message, OrderWrite};
use flux_core::seams::{InventoryStore, OrderFilter, PutOutcome};
use flux_core::{
    Backend, BuyerId, Flux, Hold, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderState,
    OrderStatus, Reason, Role, Timestamp,
};
use tokio::task::yield_now;

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const BUYERS: u128 = 50;

fn item(name: &str) -> ItemId {
    ItemId::new(name).expect("a name")
}

fn buyer(n: u128) -> BuyerId {
    BuyerId::new(format!("buyer-{}", n % BUYERS)).expect("a name")
}

fn held(n: u128, on: &str, units: u64, end: Timestamp) -> Order {
    let lines = Lines::new(vec![Line::units(on, units).expect("a line")]).expect("lines");
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    Order::queued(id, buyer(n), lines, T0).with_state(OrderState::Held(Hold::between(T0, end)))
}

fn place(order: &Order) -> OrderWrite {
    OrderWrite { order: order.clone(), expect: Expect::Absent }
}

fn release(order: &Order) -> OrderWrite {
    let order = order.with_state(OrderState::Released(order.hold().expect("it is held")));
    OrderWrite { order, expect: Expect::Status(OrderStatus::Held) }
}

/// Claims the item and writes.
async fn write(store: &dyn InventoryStore, on: &str, writes: Vec<OrderWrite>) -> CommitOutcome {
    let claim = store.claim(&[item(on)]).await.expect("claim").remove(0).expect("it is there");
    let commit = Commit { claims: vec![(item(on), claim.token)], writes };
    store.commit(&[commit]).await.expect("commit").remove(0)
}

/// A store with so many holds on `a`, all to the same end, and an item `b`.
async fn with_holds(backend: Backend, holds: u128, end: Timestamp) -> Arc<dyn InventoryStore> {
    let store = backend.store;
    for id in ["a", "b"] {
        let spec = ItemSpec::pool(id, 10_000_000).expect("a pool");
        store.put_item(&spec).await.expect("put");
    }
    let orders: Vec<_> = (0..holds).map(|n| place(&held(n, "a", 1, end))).collect();
    for part in orders.chunks(10_000) {
        assert_eq!(write(&*store, "a", part.to_vec()).await, CommitOutcome::Applied);
    }
    store
}

fn capped(capacity: u64) -> ItemSpec {
    let spec = ItemSpec::builder().id("a").capacity(capacity).max_per_buyer(1_000);
    spec.build().expect("a pool")
}

/// Runs `work`, and counts how often something else had its turn meanwhile: a
/// claim of another item, by the same thread.
async fn turns_beside<T>(store: &dyn InventoryStore, work: impl Future<Output = T>) -> (T, u32) {
    let mut turns = 0;
    let beside = async {
        loop {
            store.claim(&[item("b")]).await.expect("claim");
            turns += 1;
            yield_now().await;
        }
    };
    let done = tokio::select! {
        biased;
        done = work => done,
        () = beside => unreachable!("it never ends"),
    };
    (done, turns)
}

async fn everything_lets_others_have_their_turn(backend: Backend) {
    let end = T0 + Duration::from_secs(60);
    let flux = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    let store = with_holds(backend, 30_000, end).await;
    let (put, turns) = turns_beside(&*store, store.put_item(&capped(9_000_000))).await;
    assert_eq!(put.expect("put"), PutOutcome::Changed);
    assert!(turns >= 10, "{turns} turns beside a late cap");

    let (audit, turns) = turns_beside(&*store, flux.audit()).await;
    assert!(turns >= 10, "{turns} turns beside an audit");
    assert_eq!(audit.expect("audit").count(OrderStatus::Held), 30_000);

    let (found, turns) = turns_beside(&*store, async {
        let nobodys = OrderFilter::builder().buyer(BuyerId::new("nobody")?).build();
        let (mut pages, mut after) = (0, None);
        loop {
            let page = store.list_orders(&nobodys, after.as_ref(), 10).await?;
            (pages, after) = (pages + 1, page.next);
            if after.is_none() {
                return Ok::<_, Box<dyn std::error::Error>>(pages);
            }
        }
    })
    .await;
    let pages = found.expect("listed");
    assert!(pages >= 3, "a page of {} orders", 30_000 / pages);
    assert!(turns >= 2 * pages, "{turns} turns beside a listing");
}

#[tokio::test]
async fn in_memory_everything_lets_others_have_their_turn() {
    everything_lets_others_have_their_turn(Backend::memory()).await;
}

#[tokio::test]
async fn on_disk_everything_lets_others_have_their_turn() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Embedded::open(dir.path()).expect("it opens").backend();
    everything_lets_others_have_their_turn(backend).await;
}

/// A cap comes late, while holds of the same item are made and released; then
/// every buyer has exactly what it has.
async fn a_late_cap_misses_nothing(backend: Backend) {
    const HOLDS: u128 = 20_000;
    let end = T0 + Duration::from_secs(60);
    let store = with_holds(backend, HOLDS, end).await;
    let mut live: HashMap<BuyerId, u64> = HashMap::new();
    for n in 0..HOLDS {
        *live.entry(buyer(n)).or_default() += 1;
    }
    let mut next = HOLDS;
    let is_put = Cell::new(false);
    let changes = async {
        // Those at the start, the end and in between, one hold each that is soon
        // given back, and one that stays.
        while !is_put.get() {
            for old in [next % 97, HOLDS / 2 + next % 89, HOLDS - 1 - next % 83] {
                let order = held(old, "a", 1, end);
                if write(&*store, "a", vec![release(&order)]).await == CommitOutcome::Applied {
                    *live.get_mut(&order.buyer).expect("it had some") -= 1;
                }
            }
            let [brief, lasting] = [next, next + 1].map(|n| held(n, "a", 2, end));
            next += 2;
            let both = vec![place(&brief), place(&lasting)];
            if write(&*store, "a", both).await == CommitOutcome::Applied {
                *live.entry(lasting.buyer.clone()).or_default() += 2;
                *live.entry(brief.buyer.clone()).or_default() += 2;
                if write(&*store, "a", vec![release(&brief)]).await == CommitOutcome::Applied {
                    *live.get_mut(&brief.buyer).expect("it had some") -= 2;
                }
            }
            yield_now().await;
        }
    };
    // Two caps at once, each together with a smaller capacity.
    let (one, other) = (capped(9_000_000), capped(8_000_000));
    let puts = async {
        let put = tokio::join!(store.put_item(&one), store.put_item(&other));
        is_put.set(true);
        put
    };
    let ((one, other), ()) = tokio::join!(puts, changes);
    assert_eq!(one.expect("put"), PutOutcome::Changed);
    assert_eq!(other.expect("put"), PutOutcome::Changed);
    assert!(next > HOLDS, "something changed meanwhile");
    for n in 0..BUYERS {
        let order = held(u128::MAX - n, "a", 1_000, end);
        let outcome = write(&*store, "a", vec![place(&order)]).await;
        let CommitOutcome::Conflict { over_cap, .. } = outcome else {
            panic!("{}: {outcome:?}", order.buyer)
        };
        assert_eq!(u64::from(over_cap[0].live), live[&order.buyer], "{}", order.buyer);
    }
}

#[tokio::test]
async fn a_late_cap_in_memory_misses_nothing() {
    a_late_cap_misses_nothing(Backend::memory()).await;
}

#[tokio::test]
async fn a_late_cap_on_disk_misses_nothing() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = Embedded::open(dir.path()).expect("it opens").backend();
        a_late_cap_misses_nothing(backend).await;
    }
}

#[tokio::test]
async fn a_late_cap_that_is_given_up_leaves_nothing_behind() {
    let end = T0 + Duration::from_secs(60);
    let store = with_holds(Backend::memory(), 5_000, end).await;
    let spec = capped(9_000_000);
    {
        let mut put = std::pin::pin!(store.put_item(&spec));
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(put.as_mut().poll(context).is_pending())
        });
        assert!(polled.await, "it takes several turns");
    }
    let order = held(0, "a", 1, end);
    assert_eq!(write(&*store, "a", vec![release(&order)]).await, CommitOutcome::Applied);
    assert_eq!(store.put_item(&spec).await.expect("put"), PutOutcome::Changed);
    let greedy = held(u128::MAX / BUYERS * BUYERS, "a", 1_000, end);
    let outcome = write(&*store, "a", vec![place(&greedy)]).await;
    let CommitOutcome::Conflict { over_cap, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(over_cap[0].live, 99, "a hundred, and one given back");
}

/// Each buyer's orders lie all over the file, and several threads read it.
#[tokio::test]
async fn a_buyers_orders_from_all_over_the_file_add_up_when_it_is_opened() {
    const HOLDS: u128 = 20_000;
    let end = T0 + Duration::from_secs(60);
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Embedded::open(dir.path()).expect("it opens").backend();
    let store = with_holds(open(), HOLDS, end).await;
    assert_eq!(store.put_item(&capped(9_000_000)).await.expect("put"), PutOutcome::Changed);
    drop(store);
    for _ in 0..3 {
        let store = open().store;
        for n in 0..BUYERS {
            let greedy = held(u128::MAX / BUYERS * BUYERS - n, "a", 1_000, end);
            let outcome = write(&*store, "a", vec![place(&greedy)]).await;
            let CommitOutcome::Conflict { over_cap, .. } = outcome else {
                panic!("{}: {outcome:?}", greedy.buyer)
            };
            assert_eq!(u128::from(over_cap[0].live), HOLDS / BUYERS, "{}", greedy.buyer);
        }
    }
}

/// All holds end at one moment; each look finds the next ones, and none twice
/// that was given back.
#[tokio::test]
async fn holds_that_end_at_one_moment_are_found_part_by_part() {
    const HOLDS: usize = 20_000;
    let end = T0 + Duration::from_secs(60);
    let store = with_holds(Backend::memory(), HOLDS as u128, end).await;
    let mut found = 0;
    loop {
        let due = store.due_holds(end, 1_000).await.expect("due").due;
        if due.is_empty() {
            break;
        }
        assert_eq!(due.len(), 1_000);
        found += due.len();
        let orders = store.orders(&due).await.expect("orders");
        let writes = orders.into_iter().flatten().map(|order| release(&order)).collect();
        assert_eq!(write(&*store, "a", writes).await, CommitOutcome::Applied);
    }
    assert_eq!(found, HOLDS);
}

/// However many of those that would have ended were given back before.
#[tokio::test]
async fn holds_that_were_given_back_hide_none_that_ended() {
    let end = T0 + Duration::from_secs(60);
    let store = with_holds(Backend::memory(), 10_000, end).await;
    let given_back = (3_000..10_000).map(|n| release(&held(n, "a", 1, end))).collect();
    assert_eq!(write(&*store, "a", given_back).await, CommitOutcome::Applied);
    let due = store.due_holds(end, 1_000).await.expect("due").due;
    assert_eq!(due.len(), 1_000);
}

/// More rejected orders than are forgotten with a lock held once, and than a second
/// time.
async fn all_whose_time_is_over_are_forgotten_at_once(backend: Backend) {
    let store = with_holds(backend, 1, T0 + Duration::from_secs(7 * 86_400)).await;
    let rejected = |n| {
        let order = held(n, "a", 1, T0).with_state(OrderState::Rejected(T0, Reason::SoldOut));
        place(&order)
    };
    let writes: Vec<_> = (1..=2_500).map(rejected).collect();
    let ids: Vec<_> = writes.iter().map(|write| write.order.id).collect();
    assert_eq!(write(&*store, "a", writes).await, CommitOutcome::Applied);
    let remembered = async || {
        let orders = store.orders(&ids).await.expect("orders");
        orders.into_iter().flatten().count()
    };
    let day = Duration::from_secs(86_400);
    store.due_holds(T0 + day, 10).await.expect("due");
    assert_eq!(remembered().await, 2_500);
    store.due_holds(T0 + 2 * day, 10).await.expect("due");
    assert_eq!(remembered().await, 0);
    let held = store.orders(&[held(0, "a", 1, T0).id]).await.expect("orders").remove(0);
    assert_eq!(held.map(|order| order.status()), Some(OrderStatus::Held));
}

#[tokio::test]
async fn in_memory_all_whose_time_is_over_are_forgotten_at_once() {
    all_whose_time_is_over_are_forgotten_at_once(Backend::memory()).await;
}

#[tokio::test]
async fn on_disk_all_whose_time_is_over_are_forgotten_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Embedded::open(dir.path()).expect("it opens").backend();
    all_whose_time_is_over_are_forgotten_at_once(backend).await;
}

/// More dead letters than are handed back with a lock held once.
async fn dead_letters_are_handed_back_in_parts(backend: Backend) {
    let Backend { queue, .. } = backend;
    let messages: Vec<_> = (0..1_000).map(|n| Message::Place(held(n, "a", 1, T0))).collect();
    queue.send(&messages).await.expect("send");
    let taken = queue.receive(1_000, Duration::ZERO).await.expect("receive");
    let letters: Vec<_> = taken.into_iter().map(|d| (d.receipt, "why".to_owned())).collect();
    queue.bury(&letters).await.expect("bury");
    for (asked, done, left) in [(300, 300, 700), (400, 400, 300), (1_000, 300, 0)] {
        assert_eq!(queue.redrive(asked).await.expect("redrive"), done);
        let depth = queue.depth().await.expect("depth");
        assert_eq!((depth.dead, depth.waiting), (left, 1_000 - left), "after {asked}");
    }
    let again = queue.receive(1_000, Duration::ZERO).await.expect("receive");
    let ids = again.iter().map(|delivery| delivery.message.order_id());
    assert!(ids.eq(messages.iter().map(Message::order_id)), "in the order they were sent");
}

#[tokio::test]
async fn in_memory_dead_letters_are_handed_back_in_parts() {
    dead_letters_are_handed_back_in_parts(Backend::memory()).await;
}

#[tokio::test]
async fn on_disk_dead_letters_are_handed_back_in_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Embedded::open(dir.path()).expect("it opens").backend();
    dead_letters_are_handed_back_in_parts(backend).await;
}

/// More items than are looked at with a lock held once.
async fn items_are_listed_in_parts(backend: Backend) {
    const ITEMS: usize = 2_500;
    let Backend { store, .. } = backend;
    let name = |n: usize| format!("item-{n:04}");
    for n in 0..ITEMS {
        store.put_item(&ItemSpec::pool(name(n), 1).expect("a pool")).await.expect("put");
    }
    for (from, limit) in [(0, 5_000), (0, 2_048), (1, 1_024), (100, 1_500), (2_499, 10), (5, 0)] {
        let after = (from > 0).then(|| item(&name(from - 1)));
        let items = store.list_items(after.as_ref(), limit).await.expect("list");
        let expected = (from..ITEMS.min(from + limit)).map(name);
        let names = items.iter().map(|item| item.spec.id.as_str().to_owned());
        assert!(names.eq(expected), "{} of {limit} from {from}", items.len());
    }
}

#[tokio::test]
async fn in_memory_items_are_listed_in_parts() {
    items_are_listed_in_parts(Backend::memory()).await;
}
