//! The memory backend by itself; the conformance suite tests the rest.

use std::time::Duration;

use super::MemoryStore;
use crate::backends::Backend;
use crate::backends::state::ledger::tests::{T0, buyer, hold, item, order, units};
use crate::clock::ClockReference;
use crate::protocol::{Claim, Commit, CommitOutcome, Message, OrderStatus, Verdict, View};
use crate::seams::{
    CommitMax, ConfirmOutcome, InventoryStore, KeptClock, OrderFilter, OrderPage, Payment,
    PutOutcome, SeamError,
};
use crate::{ItemSpec, PaymentRef};

fn place(n: u128) -> Message {
    Message::Place(order(n, "ann", vec![units("a", 1)]))
}

#[tokio::test]
async fn an_order_is_claimed_decided_committed_and_paid() {
    let Backend { store, .. } = Backend::memory();
    let spec = ItemSpec::pool("a", 2).expect("pool");
    assert_eq!(store.put_item(&spec).await.expect("put"), PutOutcome::Created);
    let claims = store.claim(&[item("a"), item("b")]).await.expect("claim");
    let [Some(claim), None] = &claims[..] else { panic!("only a is there") };
    let Claim { token, .. } = *claim;

    let (mut view, message) = (View::default(), place(1));
    view.insert(claim.clone());
    let Verdict::Write(write) = view.decide(&message, None, T0) else { panic!("it is new") };
    let held = write.order.clone();
    let commit = Commit { claims: vec![(item("a"), token)], writes: vec![write] };
    assert_eq!(
        store.commit(std::slice::from_ref(&commit)).await.expect("commit"),
        [CommitOutcome::Applied]
    );
    let again = store.commit(&[commit]).await.expect("commit");
    assert!(matches!(&again[..], [CommitOutcome::Conflict { moved, .. }] if *moved == [held.id]));

    let payment = PaymentRef::new("p").expect("ref");
    let payment = Payment { order: held.id, payment, at: T0 };
    for _ in 0..2 {
        let paid = store.confirm(std::slice::from_ref(&payment)).await.expect("confirm");
        let [ConfirmOutcome::Settled(order)] = &paid[..] else { panic!("{paid:?}") };
        assert_eq!(order.status(), OrderStatus::Confirmed);
    }
    let stored = store.items(&[item("a")]).await.expect("items").remove(0).expect("there");
    assert_eq!((stored.available, stored.held, stored.sold), (1, 0, 1));
    let filter = OrderFilter { buyer: Some(buyer("ann")), ..OrderFilter::default() };
    let page = store.list_orders(&filter, None, 9).await.expect("list");
    assert_eq!((page.orders.len(), page.next), (1, None));
    let none = store.list_orders(&filter, None, 0).await.expect("list");
    assert_eq!(none, OrderPage::default(), "it ends");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_nobody_settles_comes_again_and_its_receipt_goes_stale() {
    let Backend { queue, .. } = Backend::memory();
    queue.send(&[place(1), place(2)]).await.expect("send");
    let first = queue.receive(1, Duration::ZERO).await.expect("receive");
    let second = queue.receive(9, Duration::ZERO).await.expect("receive");
    assert_eq!((first.len(), second.len()), (1, 1));
    queue.ack(&[second[0].receipt.clone()]).await.expect("ack");

    let again = queue.receive(9, Duration::from_secs(31)).await.expect("receive");
    assert_eq!((again.len(), again[0].attempt), (1, 2));
    queue.ack(&[first[0].receipt.clone()]).await.expect("a stale receipt is ignored");
    assert_eq!(queue.depth().await.expect("depth").in_flight, 1);

    queue.retry(&[again[0].receipt.clone()], Duration::from_secs(5)).await.expect("retry");
    assert!(queue.receive(9, Duration::from_secs(4)).await.expect("receive").is_empty());
    let third = queue.receive(9, Duration::from_secs(4)).await.expect("receive");
    assert_eq!(third[0].attempt, 3);

    queue.bury(&[(third[0].receipt.clone(), "why".into())]).await.expect("bury");
    assert_eq!(queue.dead_letters(9).await.expect("dead")[0].reason, "why");
    assert_eq!(queue.redrive(9).await.expect("redrive"), 1);
    let depth = queue.depth().await.expect("depth");
    assert_eq!((depth.waiting, depth.in_flight, depth.dead), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_put_off_to_its_deadline_comes_again() {
    let Backend { queue, .. } = Backend::memory_with().visibility(Duration::from_secs(5)).build();
    queue.send(&[place(1)]).await.expect("send");
    let first = queue.receive(1, Duration::ZERO).await.expect("receive");
    queue.retry(&[first[0].receipt.clone()], Duration::from_secs(5)).await.expect("retry");
    let again = queue.receive(1, Duration::from_secs(6)).await.expect("receive");
    assert_eq!(again.iter().map(|d| d.attempt).collect::<Vec<_>>(), [2]);
}

#[tokio::test(start_paused = true)]
async fn every_waiting_receiver_hears_of_a_timer_another_one_set() {
    let backend = Backend::memory();
    let receive = |wait| {
        let queue = backend.queue.clone();
        async move { queue.receive(1, Duration::from_secs(wait)).await.expect("receive") }
    };
    let waiting = tokio::spawn(receive(600));
    let taker = tokio::spawn(receive(60));
    tokio::task::yield_now().await;
    backend.queue.send(&[place(1)]).await.expect("send");
    let (one, two) = (waiting.await.expect("joined"), taker.await.expect("joined"));
    assert_eq!(one.len() + two.len(), 2, "taken once and, not acknowledged, once more");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_goes_away_leaves_its_timers_to_the_next() {
    let Backend { queue, .. } = Backend::memory();
    queue.send(&[place(1)]).await.expect("send");
    let first = queue.receive(1, Duration::ZERO).await.expect("receive");
    let start = tokio::time::Instant::now();
    let receive = || {
        let queue = queue.clone();
        tokio::spawn(
            async move { queue.receive(1, Duration::from_secs(20)).await.expect("receive") },
        )
    };
    let [gone, waiting] = [receive(), receive()];
    tokio::task::yield_now().await;
    // Told of by waking the first of those who wait.
    queue.retry(&[first[0].receipt.clone()], Duration::from_secs(1)).await.expect("retry");
    tokio::task::yield_now().await;
    gone.abort();
    assert_eq!(waiting.await.expect("joined").len(), 1);
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_full_queue_takes_no_part_of_a_batch() {
    let backend = Backend::memory_with().queue_depth_max(2).build();
    backend.queue.send(&[place(1)]).await.expect("send");
    let error = backend.queue.send(&[place(2), place(3)]).await.expect_err("full");
    assert!(matches!(error, SeamError::Overloaded { .. }) && error.can_retry());
    assert_eq!(backend.queue.depth().await.expect("depth").waiting, 1);
    backend.queue.send(&[place(2)]).await.expect("there is room for one");
}

#[tokio::test(start_paused = true)]
async fn a_lease_for_ever_and_a_wait_for_ever_outlast_half_a_year() {
    let Backend { locks, .. } = Backend::memory();
    let (a, for_ever) = ([item("a")], Duration::MAX);
    let lease = locks.acquire(&a, for_ever, Duration::ZERO).await.expect("ok").expect("free");
    let waiting = tokio::spawn({
        let (locks, a) = (locks.clone(), a.clone());
        async move { locks.acquire(&a, for_ever, for_ever).await.expect("ok") }
    });
    tokio::time::sleep(Duration::from_secs(180 * 86_400)).await;
    assert!(!waiting.is_finished());
    assert!(locks.renew(&lease, for_ever).await.expect("ok"), "it is still ours");
    locks.release(&lease).await.expect("ok");
    assert!(waiting.await.expect("joined").is_some());
}

/// As many as a process is to keep in memory.
#[tokio::test]
async fn dead_letters_are_bounded_and_what_finds_no_room_stays_in_the_queue() {
    const DEAD_MAX: usize = 100_000;
    let Backend { queue, .. } = Backend::memory();
    let messages: Vec<_> = (0..1_000).map(place).collect();
    for _ in 0..=DEAD_MAX / 1_000 {
        queue.send(&messages).await.expect("send");
    }
    let bury = async |count| {
        let taken = queue.receive(count, Duration::ZERO).await.expect("receive");
        let letters: Vec<_> = taken.into_iter().map(|d| (d.receipt, "why".to_owned())).collect();
        queue.bury(&letters).await
    };
    bury(DEAD_MAX - 1).await.expect("buried");
    assert!(matches!(bury(2).await, Err(SeamError::Overloaded { .. })));
    bury(1).await.expect("there is room for one");
    assert!(matches!(bury(1).await, Err(SeamError::Overloaded { .. })));
    let depth = queue.depth().await.expect("depth");
    assert_eq!((depth.dead, depth.waiting + depth.in_flight), (100_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_for_all_keys_or_none_and_ends() {
    let Backend { locks, .. } = Backend::memory();
    let (ttl, no_wait) = (Duration::from_secs(10), Duration::ZERO);
    let (a, b, c) = (item("a"), item("b"), item("c"));
    let lease = locks.acquire(&[b.clone(), a.clone()], ttl, no_wait).await.expect("ok");
    let lease = lease.expect("free");
    assert_eq!(lease.keys, [a.clone(), b.clone()]);
    let both = [b.clone(), c.clone()];
    assert_eq!(locks.acquire(&both, ttl, Duration::from_secs(9)).await.expect("ok"), None);
    assert!(locks.renew(&lease, ttl).await.expect("ok"));
    let next = locks.acquire(&both, ttl, Duration::from_secs(11)).await.expect("ok");
    let next = next.expect("the lease ended");
    assert!(!locks.renew(&lease, ttl).await.expect("ok"));
    locks.release(&lease).await.expect("frees nothing of the next holder's");
    assert_eq!(locks.acquire(&both, ttl, no_wait).await.expect("ok"), None);
    locks.release(&next).await.expect("ok");
    assert!(locks.acquire(&both, ttl, no_wait).await.expect("ok").is_some());
}

#[tokio::test]
async fn no_more_commits_are_taken_side_by_side_on_an_item_than_the_store_says() {
    let store = MemoryStore::with_commit_max(CommitMax::builder().side_by_side(2).build());
    for name in ["a", "b"] {
        store.put_item(&ItemSpec::pool(name, 9).expect("pool")).await.expect("put");
    }
    let claims = store.claim(&[item("a"), item("b")]).await.expect("claim");
    let tokens: Vec<_> = claims.iter().map(|claim| claim.as_ref().expect("there").token).collect();
    let on = |n: u128, name: &str, token| Commit {
        claims: vec![(item(name), token)],
        writes: vec![hold(&order(n, "ann", vec![units(name, 1)]))],
    };
    let two_of_each = [(1, "a"), (2, "b"), (3, "a"), (4, "b")];
    let commits = |of: &[(u128, &str)]| -> Vec<Commit> {
        let token = |name: &str| tokens[usize::from(name == "b")];
        of.iter().map(|(n, name)| on(*n, name, token(name))).collect()
    };
    let outcomes = store.commit(&commits(&two_of_each)).await.expect("commit");
    assert_eq!(outcomes, vec![CommitOutcome::Applied; 4]);
    let three = store.commit(&commits(&[(5, "a"), (6, "a"), (7, "a")])).await;
    assert!(matches!(three, Err(SeamError::Broken { .. })), "{three:?}");
}

#[tokio::test]
async fn holds_are_of_an_earlier_run_once_a_run_kept_its_clock() {
    let store = MemoryStore::default();
    store.put_item(&ItemSpec::pool("a", 9).expect("pool")).await.expect("put");
    let reference = ClockReference::new(7, T0);
    assert_eq!(store.kept_clock(), KeptClock::new(None, false));
    let claims = store.claim(&[item("a")]).await.expect("claim");
    let token = claims[0].as_ref().expect("there").token;
    let writes = vec![hold(&order(1, "ann", vec![units("a", 1)]))];
    let commit = Commit { claims: vec![(item("a"), token)], writes };
    assert_eq!(store.commit(&[commit]).await.expect("commit"), [CommitOutcome::Applied]);
    assert_eq!(store.kept_clock(), KeptClock::new(None, false));
    store.keep_clock(reference);
    assert_eq!(store.kept_clock(), KeptClock::new(Some(reference), true));
    let empty = MemoryStore::default();
    empty.keep_clock(reference);
    assert_eq!(empty.kept_clock(), KeptClock::new(Some(reference), false));
}
