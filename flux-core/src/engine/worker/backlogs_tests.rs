//! Whose turn it is.

use super::*;
use crate::engine::worker::work::{Origin, WAITS_MAX};
use crate::protocol::{Lines, Message, Order, OrderId, Timestamp};

/// A commit of up to so many orders on one item.
fn bounded(orders: usize) -> CommitMax {
    CommitMax::builder().parts(orders + 2).build()
}

fn order(n: u128, items: &[&str]) -> Work {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("a line")).collect();
    let lines = Lines::new(lines).expect("lines");
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    let buyer = "ann".parse().expect("a buyer");
    let order = Order::queued(id, buyer, lines, Timestamp::default());
    Work::new(Message::Place(order), Origin::Found)
}

fn item(id: &str) -> ItemId {
    ItemId::new(id).expect("an item")
}

/// Backlogs of these orders, numbered from 1, whose items are claimed.
fn backlogs(orders: &[&[&str]]) -> Backlogs {
    let mut backlogs = Backlogs::new();
    for (n, items) in orders.iter().enumerate() {
        backlogs.push(order(n as u128 + 1, items));
    }
    for item in backlogs.take_unclaimed() {
        backlogs.set_claimed(&item);
    }
    backlogs
}

/// The numbers of the orders in a turn.
fn numbers(works: &[Work]) -> Vec<u128> {
    works.iter().map(|work| work.id().as_uuid().as_u128()).collect()
}

/// The numbers of the next turn's orders, and its items; none if there is no turn.
fn next(backlogs: &mut Backlogs, max: CommitMax) -> (Vec<u128>, Vec<ItemId>) {
    let turn = backlogs.next_turn(max, 3);
    turn.map_or((vec![], vec![]), |(works, items)| (numbers(&works), items))
}

fn end(backlogs: &mut Backlogs, items: &[ItemId]) {
    backlogs.end_turn(items);
    items.iter().for_each(|item| backlogs.set_claimed(item));
}

/// The numbers of the orders of all turns to come, one turn after the other.
fn all(backlogs: &mut Backlogs, max: CommitMax) -> Vec<u128> {
    let mut decided = Vec::new();
    loop {
        let (some, items) = next(backlogs, max);
        if some.is_empty() {
            return decided;
        }
        decided.extend(some);
        end(backlogs, &items);
    }
}

#[test]
fn an_item_waits_for_no_other() {
    let mut backlogs = backlogs(&[&["a"], &["b"], &["a"], &["b"], &["a"]]);
    let (first, a) = next(&mut backlogs, bounded(2));
    assert_eq!((first, a.len()), (vec![1, 3], 1));
    assert_eq!(next(&mut backlogs, bounded(2)).0, [2, 4], "while a write of a is on its way");
    assert_eq!(next(&mut backlogs, bounded(2)).0, [0; 0], "one write of an item at a time");
    end(&mut backlogs, &a);
    assert_eq!(next(&mut backlogs, bounded(2)).0, [5]);
    assert_eq!(backlogs.len(), 0);
}

#[test]
fn what_has_no_answer_goes_back_to_where_it_was() {
    let mut backlogs = backlogs(&[&["a"], &["a"], &["a"], &["a"]]);
    let (mut works, items) = backlogs.next_turn(bounded(3), 3).expect("a turn");
    assert_eq!(numbers(&works), [1, 2, 3]);
    works.remove(1);
    backlogs.put_back(works);
    end(&mut backlogs, &items);
    assert_eq!(next(&mut backlogs, bounded(9)).0, [1, 3, 4]);
}

#[test]
fn an_order_over_several_items_has_its_turn_when_it_heads_them_all() {
    for max in [bounded(9), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(&[&["a"], &["a", "b"], &["b"]]);
        let (all, items) = next(&mut backlogs, max);
        assert_eq!((all, items.len()), (vec![1, 2, 3], 2), "{max:?}");
    }
    // With one of its items away it stops those behind it, and nobody before it.
    for max in [bounded(9), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(&[&["a"], &["a", "b"], &["a"], &["b"], &["c"]]);
        backlogs.set_away(&item("b"));
        let (mut some, mut items) = next(&mut backlogs, max);
        if max != CommitMax::UNLIMITED {
            let (more, its) = next(&mut backlogs, max);
            some.extend(more);
            items.extend(its);
        }
        assert_eq!(some, [1, 5], "{max:?}");
        assert_eq!(next(&mut backlogs, max).0, [0; 0]);
        end(&mut backlogs, &items);
        assert_eq!(next(&mut backlogs, max).0, [0; 0], "b is away still");
        backlogs.set_claimed(&item("b"));
        assert_eq!(next(&mut backlogs, max).0, [2, 3, 4], "{max:?}");
    }
}

#[test]
fn orders_that_share_items_never_wait_in_a_circle() {
    for max in [bounded(3), bounded(9), CommitMax::UNLIMITED] {
        let pairs: &[&[&str]] =
            &[&["a", "b"], &["b", "c"], &["c", "a"], &["b", "a"], &["c", "b"], &["a", "c"]];
        let mut backlogs = backlogs(pairs);
        assert_eq!(all(&mut backlogs, max), [1, 2, 3, 4, 5, 6], "{max:?}");
    }
}

#[test]
fn an_order_with_two_lines_on_an_item_waits_there_once() {
    for max in [bounded(9), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(&[&["a", "a"], &["a"]]);
        assert_eq!(next(&mut backlogs, max).0, [1, 2]);
        assert_eq!(backlogs.len(), 0);
        assert!(backlogs.is_idle(&item("b")) && !backlogs.is_idle(&item("a")));
    }
}

#[test]
fn an_item_that_is_not_claimed_is_told_once_and_has_no_turn() {
    let mut backlogs = Backlogs::new();
    backlogs.push(order(1, &["a"]));
    backlogs.push(order(2, &["a"]));
    assert_eq!(next(&mut backlogs, bounded(9)).0, [0; 0]);
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
    backlogs.push(order(3, &["a"]));
    assert_eq!(backlogs.take_unclaimed(), []);
    backlogs.set_unclaimed(&item("a"));
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
    backlogs.set_claimed(&item("a"));
    assert_eq!(next(&mut backlogs, bounded(9)).0, [1, 2, 3]);
    backlogs.end_turn(&[item("a")]);
    // With nothing to do and no claim an item leaves nothing behind.
    backlogs.set_unclaimed(&item("a"));
    assert!(backlogs.by_item.is_empty() && backlogs.take_unclaimed().is_empty());
}

#[test]
fn the_oftener_a_message_came_the_fewer_go_with_it() {
    let deliveries = std::sync::Arc::<crate::engine::worker::receiving::Deliveries>::default();
    let sizes = |attempt: u32, max: CommitMax| {
        let mut backlogs = backlogs(&[&["a"] as &[&str]; 2_000]);
        let (mut works, items) = backlogs.next_turn(max, 3).expect("a turn");
        let delivery = deliveries.take(0, crate::seams::Receipt(attempt.to_string()));
        works[0].from = Origin::Delivery(delivery, attempt);
        backlogs.put_back(works);
        end(&mut backlogs, &items);
        next(&mut backlogs, max).0.len()
    };
    for max in [bounded(2_000), CommitMax::UNLIMITED] {
        let sizes = [1, 3, 4, 5, 6, 7, 8, 9, 100].map(|attempt| sizes(attempt, max));
        assert_eq!(sizes, [2_000, 2_000, 256, 64, 16, 4, 1, 1, 1], "{max:?}");
    }
}

#[test]
fn what_is_taken_out_holds_up_nobody() {
    let mut backlogs = backlogs(&[&["a", "b"], &["b"]]);
    backlogs.set_away(&item("a"));
    assert_eq!(next(&mut backlogs, bounded(9)).0, [0; 0], "order 1 waits for a");
    let left = backlogs.take_where(&item("a"), |_| true);
    assert_eq!(numbers(&left), [1]);
    assert_eq!(next(&mut backlogs, bounded(9)).0, [2]);
}

#[test]
fn nobody_but_its_turn_frees_an_item_with_a_write_on_its_way() {
    for max in [bounded(1), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(&[&["a"], &["a"]]);
        let now = Instant::now();
        backlogs.pause(&item("a"), now);
        backlogs.set_claimed(&item("a"));
        let (_, items) = next(&mut backlogs, max);
        backlogs.push(order(3, &["a"]));
        // An old pause, an answer of the lock manager, a claim that was asked for twice.
        backlogs.end_pause(&item("a"), now, true);
        backlogs.set_unclaimed(&item("a"));
        backlogs.set_claimed(&item("a"));
        backlogs.set_away(&item("a"));
        assert_eq!(next(&mut backlogs, max).0, [0; 0], "{max:?}");
        assert_eq!(backlogs.take_unclaimed(), []);
        end(&mut backlogs, &items);
        assert_ne!(next(&mut backlogs, max).0, [0; 0], "{max:?}");
    }
}

#[test]
fn a_pause_ends_once_and_only_itself() {
    let mut backlogs = backlogs(&[&["a"]]);
    let (sooner, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
    backlogs.pause(&item("a"), sooner);
    backlogs.pause(&item("a"), later);
    backlogs.end_pause(&item("a"), sooner, true);
    assert_eq!(next(&mut backlogs, bounded(9)).0, [0; 0]);
    backlogs.end_pause(&item("a"), later, false);
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
}

#[test]
fn an_order_over_more_items_than_a_commit_should_have_has_its_turn_alone() {
    let max = CommitMax::builder().parts(7).build();
    let mut backlogs = backlogs(&[&["a"], &["a", "b", "c", "d"], &["d"]]);
    let (first, items) = next(&mut backlogs, max);
    assert_eq!(first, [1]);
    end(&mut backlogs, &items);
    assert_eq!(all(&mut backlogs, max), [2, 3]);
}

#[test]
fn what_waits_for_an_item_that_others_have_is_in_nobodys_way() {
    let mut backlogs = backlogs(&[&["a", "b"], &["a"], &["b"], &["a", "c"], &["c", "a"]]);
    backlogs.set_elsewhere(&item("b"));
    backlogs.set_away(&item("b"));
    backlogs.push(order(6, &["b", "a"]));
    backlogs.push(order(7, &["a"]));
    assert_eq!(all(&mut backlogs, bounded(9)), [2, 4, 5, 7], "but those about b");
    assert_eq!(backlogs.len(), 3);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs, bounded(9)), [1, 3, 6], "in the order they came");
}

#[test]
fn what_waits_for_several_that_others_have_waits_for_one_after_the_other() {
    let mut backlogs = backlogs(&[&["c", "b", "a"], &["a"], &["b"], &["c"]]);
    for item in ["b", "c"].map(item) {
        backlogs.set_elsewhere(&item);
        backlogs.set_away(&item);
    }
    assert_eq!(all(&mut backlogs, CommitMax::UNLIMITED), [2]);
    backlogs.set_claimed(&item("c"));
    assert_eq!(all(&mut backlogs, bounded(9)), [4]);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs, bounded(9)), [1, 3]);
    assert_eq!(backlogs.len(), 0);
}

#[test]
fn what_waits_for_an_item_that_others_have_can_be_taken_out() {
    let mut backlogs = backlogs(&[&["a", "b"], &["a"], &["b", "a"]]);
    backlogs.set_elsewhere(&item("b"));
    backlogs.set_away(&item("b"));
    let first = |work: &Work| numbers(std::slice::from_ref(work)) == [1];
    assert_eq!(backlogs.drain_where(first).len(), 1);
    assert_eq!(backlogs.take_where(&item("b"), |_| true).len(), 1);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs, bounded(9)), [2]);
}

#[test]
fn for_what_waits_too_often_the_items_before_are_kept() {
    let (a, b) = (item("a"), item("b"));
    let mut backlogs = backlogs(&[&["b", "a"]]);
    // The one comes when the other has gone.
    let mut n = 0;
    let kept = loop {
        let kept = backlogs.take_kept();
        if !kept.is_empty() {
            break kept;
        }
        n += 1;
        assert!(n < 3 * WAITS_MAX, "nothing is kept");
        let (gone, come) = if n % 2 == 0 { (&b, &a) } else { (&a, &b) };
        for item in [come, gone] {
            backlogs.set_elsewhere(item);
            backlogs.set_away(item);
        }
        backlogs.set_claimed(come);
    };
    assert!(kept.iter().all(|(item, waits)| *item == a && *waits > WAITS_MAX), "{kept:?}");
    for item in [&a, &b] {
        backlogs.set_claimed(item);
    }
    assert_eq!(all(&mut backlogs, bounded(9)), [1]);
}

#[test]
fn an_item_that_is_here_when_its_pause_ends_has_what_waited_for_it() {
    let mut backlogs = backlogs(&[&["a", "b"], &["b"]]);
    let (b, until) = (item("b"), Instant::now());
    backlogs.set_elsewhere(&b);
    backlogs.pause(&b, until);
    backlogs.end_pause(&b, until, true);
    assert_eq!(all(&mut backlogs, bounded(9)), [1, 2]);
}
