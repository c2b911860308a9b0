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
fn backlogs(max: CommitMax, orders: &[&[&str]]) -> Backlogs {
    let mut backlogs = Backlogs::new(max);
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
fn next(backlogs: &mut Backlogs) -> (Vec<u128>, Vec<ItemId>) {
    let turn = backlogs.next_turn(3);
    turn.map_or((vec![], vec![]), |(works, items)| (numbers(&works), items))
}

fn end(backlogs: &mut Backlogs, items: &[ItemId]) {
    backlogs.end_turn(items);
    items.iter().for_each(|item| backlogs.set_claimed(item));
}

/// The numbers of the orders of all turns to come, one turn after the other.
fn all(backlogs: &mut Backlogs) -> Vec<u128> {
    let mut decided = Vec::new();
    loop {
        let (some, items) = next(backlogs);
        if some.is_empty() {
            return decided;
        }
        decided.extend(some);
        end(backlogs, &items);
    }
}

#[test]
fn an_item_waits_for_no_other() {
    let mut backlogs = backlogs(bounded(2), &[&["a"], &["b"], &["a"], &["b"], &["a"]]);
    let (first, a) = next(&mut backlogs);
    assert_eq!((first, a.len()), (vec![1, 3], 1));
    assert_eq!(next(&mut backlogs).0, [2, 4], "while a write of a is on its way");
    assert_eq!(next(&mut backlogs).0, [0; 0], "one write of an item at a time");
    end(&mut backlogs, &a);
    assert_eq!(next(&mut backlogs).0, [5]);
    assert_eq!(backlogs.len(), 0);
}

#[test]
fn what_has_no_answer_goes_back_to_where_it_was() {
    let mut backlogs = backlogs(bounded(3), &[&["a"], &["a"], &["a"], &["a"]]);
    let (mut works, items) = backlogs.next_turn(3).expect("a turn");
    assert_eq!(numbers(&works), [1, 2, 3]);
    works.remove(1);
    backlogs.put_back(works);
    end(&mut backlogs, &items);
    assert_eq!(next(&mut backlogs).0, [1, 3, 4]);
}

#[test]
fn an_order_over_several_items_has_its_turn_when_it_heads_them_all() {
    for max in [bounded(9), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(max, &[&["a"], &["a", "b"], &["b"]]);
        let (all, items) = next(&mut backlogs);
        assert_eq!((all, items.len()), (vec![1, 2, 3], 2), "{max:?}");
    }
    // With one of its items away it stops those behind it, and nobody before it.
    let orders: &[&[&str]] = &[&["a"], &["a", "b"], &["a"], &["b"], &["c"]];
    let mut backlogs = backlogs(CommitMax::UNLIMITED, orders);
    backlogs.set_away(&item("b"));
    let (some, items) = next(&mut backlogs);
    assert_eq!(some, [1, 5]);
    assert_eq!(next(&mut backlogs).0, [0; 0]);
    end(&mut backlogs, &items);
    assert_eq!(next(&mut backlogs).0, [0; 0], "b is away still");
    backlogs.set_claimed(&item("b"));
    assert_eq!(next(&mut backlogs).0, [2, 3, 4]);
}

#[test]
fn orders_that_share_items_never_wait_in_a_circle() {
    for max in [bounded(3), bounded(9), CommitMax::UNLIMITED] {
        let pairs: &[&[&str]] =
            &[&["a", "b"], &["b", "c"], &["c", "a"], &["b", "a"], &["c", "b"], &["a", "c"]];
        let mut all = all(&mut backlogs(max, pairs));
        if max != CommitMax::UNLIMITED {
            all.sort_unstable();
        }
        assert_eq!(all, [1, 2, 3, 4, 5, 6], "{max:?}");
    }
}

#[test]
fn an_order_with_two_lines_on_an_item_waits_there_once() {
    for max in [bounded(9), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(max, &[&["a", "a"], &["a"]]);
        assert_eq!(next(&mut backlogs).0, [1, 2]);
        assert_eq!(backlogs.len(), 0);
        assert!(backlogs.is_idle(&item("b")) && !backlogs.is_idle(&item("a")));
    }
}

#[test]
fn an_item_that_is_not_claimed_is_told_once_and_has_no_turn() {
    let mut backlogs = Backlogs::new(bounded(9));
    backlogs.push(order(1, &["a"]));
    backlogs.push(order(2, &["a"]));
    assert_eq!(next(&mut backlogs).0, [0; 0]);
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
    backlogs.push(order(3, &["a"]));
    assert_eq!(backlogs.take_unclaimed(), []);
    backlogs.set_unclaimed(&item("a"));
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
    backlogs.set_claimed(&item("a"));
    assert_eq!(next(&mut backlogs).0, [1, 2, 3]);
    backlogs.end_turn(&[item("a")]);
    // With nothing to do and no claim an item leaves nothing behind.
    backlogs.set_unclaimed(&item("a"));
    assert!(backlogs.by_item.is_empty() && backlogs.take_unclaimed().is_empty());
}

#[test]
fn the_oftener_a_message_came_the_fewer_go_with_it() {
    let deliveries = std::sync::Arc::<crate::engine::worker::receiving::Deliveries>::default();
    let sizes = |attempt: u32, max: CommitMax| {
        let mut backlogs = backlogs(max, &[&["a"] as &[&str]; 2_000]);
        let (mut works, items) = backlogs.next_turn(3).expect("a turn");
        let delivery = deliveries.take(0, crate::seams::Receipt(attempt.to_string()));
        works[0].from = Origin::Delivery(delivery, attempt);
        backlogs.put_back(works);
        end(&mut backlogs, &items);
        next(&mut backlogs).0.len()
    };
    for max in [bounded(2_000), CommitMax::UNLIMITED] {
        let sizes = [1, 3, 4, 5, 6, 7, 8, 9, 100].map(|attempt| sizes(attempt, max));
        assert_eq!(sizes, [2_000, 2_000, 256, 64, 16, 4, 1, 1, 1], "{max:?}");
    }
}

#[test]
fn what_is_taken_out_holds_up_nobody() {
    let mut backlogs = backlogs(CommitMax::UNLIMITED, &[&["a", "b"], &["b"]]);
    backlogs.set_away(&item("a"));
    assert_eq!(next(&mut backlogs).0, [0; 0], "order 1 waits for a");
    let left = backlogs.take_where(&item("a"), |_| true);
    assert_eq!(numbers(&left), [1]);
    assert_eq!(next(&mut backlogs).0, [2]);
}

#[test]
fn nobody_but_its_turn_frees_an_item_with_a_write_on_its_way() {
    for max in [bounded(1), CommitMax::UNLIMITED] {
        let mut backlogs = backlogs(max, &[&["a"], &["a"]]);
        let now = Instant::now();
        backlogs.pause(&item("a"), now);
        backlogs.set_claimed(&item("a"));
        let (_, items) = next(&mut backlogs);
        backlogs.push(order(3, &["a"]));
        // An old pause, an answer of the lock manager, a claim that was asked for twice.
        backlogs.end_pause(&item("a"), now, true);
        backlogs.set_unclaimed(&item("a"));
        backlogs.set_claimed(&item("a"));
        backlogs.set_away(&item("a"));
        assert_eq!(next(&mut backlogs).0, [0; 0], "{max:?}");
        assert_eq!(backlogs.take_unclaimed(), []);
        end(&mut backlogs, &items);
        assert_ne!(next(&mut backlogs).0, [0; 0], "{max:?}");
    }
}

#[test]
fn a_pause_ends_once_and_only_itself() {
    let mut backlogs = backlogs(bounded(9), &[&["a"]]);
    let (sooner, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
    backlogs.pause(&item("a"), sooner);
    backlogs.pause(&item("a"), later);
    backlogs.end_pause(&item("a"), sooner, true);
    assert_eq!(next(&mut backlogs).0, [0; 0]);
    backlogs.end_pause(&item("a"), later, false);
    assert_eq!(backlogs.take_unclaimed(), [item("a")]);
}

#[test]
fn an_order_over_more_items_than_a_commit_should_have_has_its_turn_alone() {
    let max = CommitMax::builder().parts(7).build();
    let mut backlogs = backlogs(max, &[&["a"], &["a", "b", "c", "d"], &["d"]]);
    let (first, items) = next(&mut backlogs);
    assert_eq!((first, items.len()), (vec![2], 4));
    end(&mut backlogs, &items);
    assert_eq!(all(&mut backlogs), [1, 3]);
}

#[test]
fn what_waits_for_an_item_that_others_have_is_in_nobodys_way() {
    let mut backlogs =
        backlogs(CommitMax::UNLIMITED, &[&["a", "b"], &["a"], &["b"], &["a", "c"], &["c", "a"]]);
    backlogs.set_elsewhere(&item("b"));
    backlogs.set_away(&item("b"));
    backlogs.push(order(6, &["b", "a"]));
    backlogs.push(order(7, &["a"]));
    assert_eq!(all(&mut backlogs), [2, 4, 5, 7], "but those about b");
    assert_eq!(backlogs.len(), 3);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs), [1, 3, 6], "in the order they came");
}

#[test]
fn what_waits_for_several_that_others_have_waits_for_one_after_the_other() {
    let mut backlogs = backlogs(CommitMax::UNLIMITED, &[&["c", "b", "a"], &["a"], &["b"], &["c"]]);
    for item in ["b", "c"].map(item) {
        backlogs.set_elsewhere(&item);
        backlogs.set_away(&item);
    }
    assert_eq!(all(&mut backlogs), [2]);
    backlogs.set_claimed(&item("c"));
    assert_eq!(all(&mut backlogs), [4]);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs), [1, 3]);
    assert_eq!(backlogs.len(), 0);
}

#[test]
fn what_waits_for_an_item_that_others_have_can_be_taken_out() {
    let mut backlogs = backlogs(CommitMax::UNLIMITED, &[&["a", "b"], &["a"], &["b", "a"]]);
    backlogs.set_elsewhere(&item("b"));
    backlogs.set_away(&item("b"));
    let first = |work: &Work| numbers(std::slice::from_ref(work)) == [1];
    assert_eq!(backlogs.drain_where(first).len(), 1);
    assert_eq!(backlogs.take_where(&item("b"), |_| true).len(), 1);
    backlogs.set_claimed(&item("b"));
    assert_eq!(all(&mut backlogs), [2]);
}

#[test]
fn for_what_waits_too_often_the_items_before_are_kept() {
    let (a, b) = (item("a"), item("b"));
    let mut backlogs = backlogs(bounded(9), &[&["b", "a"]]);
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
    assert_eq!(all(&mut backlogs), [1]);
}

#[test]
fn an_item_that_is_here_when_its_pause_ends_has_what_waited_for_it() {
    let mut backlogs = backlogs(CommitMax::UNLIMITED, &[&["a", "b"], &["b"]]);
    let (b, until) = (item("b"), Instant::now());
    backlogs.set_elsewhere(&b);
    backlogs.pause(&b, until);
    backlogs.end_pause(&b, until, true);
    assert_eq!(all(&mut backlogs), [1, 2]);
}

#[test]
fn where_a_write_is_bounded_nobody_waits_for_a_pair_that_waits_for_others() {
    let mut backlogs = backlogs(bounded(9), &[&["a", "b"], &["a"], &["b"], &["a"]]);
    backlogs.set_away(&item("b"));
    let (some, a) = next(&mut backlogs);
    assert_eq!(some, [2, 4], "order 1 is overtaken");
    backlogs.set_claimed(&item("b"));
    assert_eq!(next(&mut backlogs).0, [0; 0], "but is the next of b");
    end(&mut backlogs, &a);
    assert_eq!(next(&mut backlogs).0, [1, 3]);
}

#[test]
fn one_write_takes_many_pairs_of_few_items() {
    let pairs: &[&[&str]] =
        &[&["a", "x"], &["a", "b"], &["c", "y"], &["b", "c"], &["c", "a"], &["a", "b"], &["d"]];
    // Three items and four orders fill it.
    let mut backlogs = backlogs(CommitMax::builder().parts(10).build(), pairs);
    backlogs.set_away(&item("x"));
    let (some, items) = next(&mut backlogs);
    assert_eq!((some, items), (vec![2, 4, 5, 6], ["a", "b", "c"].map(item).to_vec()));
}

#[test]
fn pairs_and_others_have_their_turns_by_turns() {
    let orders: &[&[&str]] = &[&["a", "b"], &["a", "b"], &["a"], &["a"], &["b"], &["b"]];
    // One pair, or three orders over one item.
    let mut backlogs = backlogs(CommitMax::builder().parts(5).build(), orders);
    let mut turns = Vec::new();
    while backlogs.len() > 0 {
        let mut busy = Vec::new();
        let mut turn = Vec::new();
        while let (some, items) = next(&mut backlogs)
            && !some.is_empty()
        {
            turn.push(some);
            busy.extend(items);
        }
        end(&mut backlogs, &busy);
        turns.push(turn);
    }
    let expected = [vec![vec![1]], vec![vec![3, 4], vec![5, 6]], vec![vec![2]]];
    assert_eq!(turns, expected);
}

#[test]
fn a_pair_is_overtaken_only_as_long_as_there_are_earlier_ones() {
    let mut backlogs = backlogs(CommitMax::builder().parts(5).build(), &[&["a"], &["c"]]);
    let [(_, a), _] = [(); 2].map(|()| next(&mut backlogs));
    backlogs.push(order(3, &["a", "b"]));
    for item in backlogs.take_unclaimed() {
        backlogs.set_claimed(&item);
    }
    // Others keep coming for whichever of the two is free.
    let mut others = 4..;
    let mut more = |backlogs: &mut Backlogs, items: &[&str]| {
        backlogs.push(order(others.next().expect("endless"), items));
    };
    more(&mut backlogs, &["b"]);
    more(&mut backlogs, &["b", "d"]);
    for item in backlogs.take_unclaimed() {
        backlogs.set_claimed(&item);
    }
    assert_eq!(next(&mut backlogs).0, [0; 0], "b waits for order 3");
    end(&mut backlogs, &a);
    assert_eq!(next(&mut backlogs).0, [3]);
}
