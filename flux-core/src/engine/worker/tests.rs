//! What a worker keeps, lets go of, lends and leaves to others.

use super::*;
use crate::backends::Backend;
use crate::clock::SystemClock;
use crate::engine::{Role, Settings};
use crate::protocol::{BuyerId, Hold, ItemSpec, Line, Lines, OrderState, Timestamp};
use crate::random::Random;
use crate::seams::partition_of;

const SECOND: Duration = Duration::from_secs(1);

fn item(id: &str) -> ItemId {
    ItemId::new(id).expect("an item")
}

fn message(n: u128, items: &[&str]) -> Message {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("a line")).collect();
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    let buyer = BuyerId::new("ann").expect("a buyer");
    let lines = Lines::new(lines).expect("lines");
    Message::Place(Order::queued(id, buyer, lines, Timestamp::default()))
}

/// A worker on so many partitions, all of which it serves, that has claimed items.
async fn worker(partitions: usize, items: &[&str]) -> Worker {
    let partitions = (0..partitions).map(|_| Backend::memory().queue).collect();
    let backend = Backend { partitions, ..Backend::memory() };
    for item in items {
        let spec = ItemSpec::pool(*item, 9).expect("an item");
        backend.store.put_item(&spec).await.expect("it is taken");
    }
    let clock = Arc::new(SystemClock);
    let mut worker = Worker::new(Arc::new(Core::new(
        backend,
        clock,
        Settings::default(),
        Role::Both,
        Random::seeded(1),
    )));
    if !items.is_empty() {
        let items = items.iter().map(|id| item(id)).collect();
        let obtained = items::obtain(&worker.core, items, Vec::new()).await;
        worker.take_over(obtained).await;
    }
    worker
}

fn received(worker: &Worker, partition: usize, message: Message) -> Received {
    let delivery = worker.deliveries.take(partition, Receipt(format!("{message:?}")));
    Received { message, delivery, attempt: 1 }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_here_is_not_taken_from_others() {
    let mut worker = worker(1, &[]).await;
    // It was met in a sweep, and its owner sees to it.
    let others = vec![item("a")];
    worker.take_over(Obtained { others, ..Obtained::default() }).await;
    tokio::time::advance(60 * SECOND).await;
    let [uncovered, covered] = worker.items.without_lease(vec![item("a")], 3 * SECOND);
    assert_eq!((uncovered, covered), (vec![item("a")], vec![]), "it is asked for a lease anew");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_hold_is_left_to_whoever_has_its_item() {
    let mut worker = worker(1, &[]).await;
    let Message::Place(order) = message(1, &["a"]) else { panic!("an order") };
    worker.take_ended(vec![order.id]);
    assert!(!worker.ended.are_done(), "one is to be given back");
    worker.find_ended_holds();
    let mut work = worker.unread.pop().expect("it is taken up");
    work.knows(Some(order));
    worker.backlogs.push(work);
    let others = worker.backlogs.take_unclaimed();
    worker.take_over(Obtained { others, ..Obtained::default() }).await;
    assert_eq!(worker.backlogs.len(), 0);
    assert!(worker.ended.are_done());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_used_is_kept_and_one_that_nobody_asks_for_is_let_go() {
    let mut worker = worker(1, &["a", "b"]).await;
    for _ in 0..20 {
        tokio::time::advance(Duration::from_millis(60)).await;
        worker.items.used([&item("a")]);
        worker.look_after_items();
    }
    assert_eq!([item("a"), item("b")].map(|item| worker.items.has(&item)), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_lease_is_lost_is_let_go() {
    let mut worker = worker(1, &["a", "b"]).await;
    worker.lose(vec![item("a")]);
    assert_eq!([item("a"), item("b")].map(|item| worker.items.has(&item)), [false, true]);
    assert!(worker.view.get(&item("a")).is_none());
}

/// Whether a worker that met others some time ago keeps an item a little while unused.
async fn keeps_unused(worker: &mut Worker) -> bool {
    worker.items.used([&item("a")]);
    tokio::time::advance(Duration::from_millis(50)).await;
    worker.look_after_items();
    worker.items.has(&item("a"))
}

#[tokio::test(start_paused = true)]
async fn a_worker_makes_room_for_those_it_met_and_for_some_time() {
    for (partitions, since, keeps) in [(1, 0, false), (1, 11, true), (2, 0, true)] {
        let mut worker = worker(partitions, &["a"]).await;
        worker.meet_others();
        tokio::time::advance(since * SECOND).await;
        assert_eq!(keeps_unused(&mut worker).await, keeps, "{partitions}, {since} s ago");
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_that_others_serve_now_are_left_to_them_and_no_others() {
    let mut worker = worker(2, &[]).await;
    let message = |n: u128| message(n, &[["a", "b"][n as usize % 2]]);
    let deliveries: Vec<_> = (0..4).map(|n| received(&worker, n % 2, message(n as u128))).collect();
    worker.take_deliveries(deliveries);
    let mut again = received(&worker, 0, message(4));
    again.attempt = 2;
    worker.take_deliveries(vec![again]);
    assert_eq!((worker.backlogs.len(), worker.unread.len(), worker.delivered.all()), (4, 1, 5));
    worker.served = vec![false, true];
    worker.leave_to_others();
    assert_eq!((worker.backlogs.len(), worker.unread.len(), worker.delivered.all()), (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_wanted_while_there_is_room_and_the_backends_are_well() {
    let mut worker = worker(1, &[]).await;
    assert!(worker.wants_deliveries());
    (0..worker.in_hand_max()).for_each(|_| worker.delivered.took(0));
    assert!(!worker.wants_deliveries(), "there is no room");
    worker.served = vec![false];
    assert!(worker.wants_deliveries(), "or only for what came too late");
    worker.served = vec![true];
    worker.delivered.left(0);
    assert!(worker.wants_deliveries());
    worker.receives_at = Instant::now() + SECOND;
    assert!(!worker.wants_deliveries(), "it waits for the backends");
}

#[tokio::test(start_paused = true)]
async fn what_others_want_is_lent_once_it_has_no_turn_and_is_not_kept() {
    let mut worker = worker(2, &["a", "b", "c"]).await;
    let [a, b, c] = ["a", "b", "c"].map(item);
    worker.note_wanted(std::slice::from_ref(&a));
    assert_eq!([&a, &b, &c].map(|item| worker.items.has(item)), [false, true, true]);

    worker.backlogs.push(Work::new(message(1, &["b"]), Origin::Found));
    worker.backlogs.set_claimed(&b);
    assert!(worker.backlogs.next_turn(3).is_some());
    worker.note_wanted(std::slice::from_ref(&b));
    assert!(worker.items.has(&b), "a write of it is on its way");

    // A message waits in vain, again and again, for another item beside it.
    let d = item("d");
    worker.backlogs.push(Work::new(message(2, &["c", "d"]), Origin::Found));
    for n in 0..8 {
        let (gone, come) = if n % 2 == 0 { (&d, &c) } else { (&c, &d) };
        for item in [come, gone] {
            worker.backlogs.set_elsewhere(item);
            worker.backlogs.set_away(item);
        }
        worker.backlogs.set_claimed(come);
    }
    worker.backlogs.set_elsewhere(&c);
    worker.backlogs.set_claimed(&c);
    worker.obtain();
    worker.note_wanted(std::slice::from_ref(&c));
    assert!(worker.items.has(&c), "it is kept for who needs both");
    tokio::time::advance(SECOND).await;
    worker.look_after_items();
    assert!(!worker.items.has(&c), "for a while");
}

#[tokio::test(start_paused = true)]
async fn where_a_write_is_bounded_what_is_wanted_is_kept_until_it_was_worth_the_way() {
    let mut worker = worker(2, &["a", "b", "d"]).await;
    worker.max = CommitMax::builder().parts(100).build();
    // The one partition's item is its own, the other is borrowed.
    let (own, borrowed) = (item("a"), item("b"));
    let is_of = |item: &ItemId| partition_of(item, 2);
    assert_ne!(is_of(&own), is_of(&borrowed));
    worker.served = (0..2).map(|partition| partition == is_of(&own)).collect();
    let wanted = [own.clone(), borrowed.clone(), item("d")];
    for item in ["a", "b"] {
        worker.backlogs.push(Work::new(message(1, &[item]), Origin::Found));
    }
    let has = |worker: &Worker| wanted.each_ref().map(|item| worker.items.has(item));
    worker.note_wanted(&wanted);
    assert_eq!(has(&worker), [true, true, false], "but for what nothing waits for");
    worker.items.used([&own, &borrowed]);
    worker.note_wanted(&wanted);
    assert_eq!(has(&worker), [false, true, false], "its own has had a turn");
    tokio::time::advance(SECOND / 2).await;
    worker.note_wanted(&wanted);
    assert_eq!(has(&worker), [false; 3]);
}

#[tokio::test]
async fn what_was_told_of_buyers_is_so_until_their_item_is_written() {
    let mut worker = worker(1, &["a", "b"]).await;
    let mut view = View::default();
    view.insert(worker.view.remove(&item("a")).expect("it is claimed"));
    let buyer = BuyerId::new("bob").expect("a buyer");
    let over = |id: &str| OverCap { item: item(id), buyer: buyer.clone(), live: 1 };
    let works = vec![Work::new(message(1, &["a"]), Origin::Found)];
    let turn = Turn { works, items: vec![item("a")], view, over_cap: vec![over("a"), over("b")] };
    let turned = turn.run(&worker.core).await;
    assert!(turned.turn.works[0].answer.is_some(), "it was written");
    assert_eq!(turned.turn.over_cap, [over("b")]);
}

#[test]
fn the_end_of_a_hold_on_several_items_is_left_to_the_first_partition_for_a_while() {
    let Message::Place(order) = message(1, &["a", "b"]) else { unreachable!("it was made so") };
    let ended = Timestamp::from_millis(1_000_000);
    let hold = Hold { decided_at: Timestamp::default(), expires_at: ended };
    let mut work = Work::new(Message::Expire(order.id), Origin::Found);
    work.knows(Some(order.with_state(OrderState::Held(hold))));
    let serving = |partition: usize| (0..16).map(|n| n == partition).collect::<Vec<bool>>();
    let is_for_others = |partition, now| outcome::is_for_others(&serving(partition), &work, now);
    // Whoever has an earlier version serves it by its first item, and who has this one not.
    let of_first_item = partition_of(&item("a"), 16);
    let (soon, late) = (ended + SECOND / 2, ended + SECOND);
    assert_eq!([0, of_first_item, 5].map(|n| is_for_others(n, soon)), [false, true, true]);
    assert_eq!([0, of_first_item, 5].map(|n| is_for_others(n, late)), [false, false, true]);
}
