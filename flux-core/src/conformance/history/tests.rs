//! One hand-made history for each fault, and some that only look faulty.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Demand, EndState, Event, Fate, Fault, Grant, History, Missing, Write};
use crate::conformance::store::shop::{
    HOLD, T0, after, cancelled, capped, confirmed, expired, hall, held, held_from, item, order,
    payment, place, pool, refund_due, rejected, released, seats, turn, units,
};
use crate::protocol::{
    BuyerRules, Commit, FencingToken, Hold, Item, ItemSpec, Order, OrderState, OrderStatus,
    OrderWrite, Reason,
};

/// A history made by hand: each step begins after the one before has ended.
struct Story {
    history: History,
    specs: Vec<ItemSpec>,
}

impl Story {
    fn of(specs: &[ItemSpec]) -> Self {
        Self { history: History::new(), specs: specs.to_vec() }
    }

    fn ask(&self, orders: &[&Order]) -> &Self {
        for found in orders {
            let mut asked = (*found).clone();
            asked.state = OrderState::Queued;
            self.history.asked(&asked);
        }
        self
    }

    fn grant(&self, name: &str, token: u64) -> &Self {
        let spec = self.specs.iter().find(|spec| spec.id == item(name)).expect("an item of ours");
        let mut log = self.history.log();
        let (life, began, ended) = (log.life, log.step(), log.step());
        log.grants.push(Grant {
            token: FencingToken(token),
            spec: Arc::new(spec.clone()),
            life,
            began,
            ended,
        });
        self
    }

    fn write(&self, claims: &[(&str, u64)], fate: Fate, writes: &[OrderWrite]) -> &Self {
        let mut log = self.history.log();
        let (life, began) = (log.life, log.step());
        let ended = Some(log.step()).filter(|_| fate != Fate::Open);
        let claims = claims.iter().map(|(name, token)| (item(name), FencingToken(*token)));
        let commit = Commit { claims: claims.collect(), writes: writes.to_vec() };
        log.writes.push(Write { commit, fate, life, began, ended });
        self
    }

    fn apply(&self, claims: &[(&str, u64)], writes: &[OrderWrite]) -> &Self {
        self.write(claims, Fate::Applied, writes)
    }

    /// The store as these orders and definitions have it.
    fn end(&self, orders: &[&Order]) -> EndState {
        let orders = orders.iter().copied().cloned().collect();
        let items = self.specs.iter().cloned().map(|spec| Item {
            spec: spec.into(),
            available: 0,
            held: 0,
            sold: 0,
        });
        let mut end = EndState { orders, items: items.collect(), ..EndState::default() };
        let counted = end.recount();
        for item in &mut end.items {
            let numbers = counted[&item.spec.id];
            (item.available, item.held, item.sold) =
                (numbers.available, numbers.held, numbers.sold);
        }
        end
    }

    fn faults(&self, orders: &[&Order]) -> Vec<Fault> {
        self.history.check(&self.end(orders))
    }
}

fn one(n: u128) -> Order {
    held(n, "ann", &[units("a", 1)])
}

const A1: &[(&str, u64)] = &[("a", 1)];
const A2: &[(&str, u64)] = &[("a", 2)];

#[test]
fn a_clean_history_has_no_fault() {
    let story = Story::of(&[capped("a", 3, 2), hall("h", &["x", "y"])]);
    let [paid, freed, over, owed] =
        [1, 2, 3, 4].map(|n| held(n, &format!("b{n}"), &[units("a", 1)]));
    let seat = held(5, "ann", &[seats("h", &["x"]), units("a", 1)]);
    let no = rejected(6, "bob", &[units("a", 9)]);
    story.ask(&[&paid, &freed, &over, &owed, &seat, &no]).grant("a", 1).grant("h", 7);
    story.apply(A1, &[place(&paid), place(&freed), place(&over), place(&no)]);
    story.apply(A1, &[turn(&freed, &released(&freed)), place(&owed)]);
    // Claimed again, and the old worker's write refused.
    story.grant("a", 2).write(A1, Fate::Refused, &[place(&seat)]);
    story.apply(A2, &[turn(&over, &expired(&over)), turn(&owed, &expired(&owed))]);
    story.apply(&[("a", 2), ("h", 7)], &[place(&seat)]);
    story.apply(A2, &[turn(&expired(&over), &confirmed(&over, "p3"))]);
    story.apply(&[], &[turn(&expired(&owed), &refund_due(&owed, "p4"))]);
    let gone = cancelled(&over, "p3");
    story.apply(A2, &[turn(&confirmed(&over, "p3"), &gone)]);
    for shown in [&paid, &confirmed(&paid, "p1"), &expired(&owed), &confirmed(&over, "p3"), &no] {
        story.history.answered(shown);
    }
    story.history.answered(&order(5, "ann", &[seats("h", &["x"]), units("a", 1)]));
    let end =
        [&confirmed(&paid, "p1"), &released(&freed), &gone, &refund_due(&owed, "p4"), &seat, &no];
    assert_eq!(story.faults(&end), []);
    let end = story.end(&end).with_grace(Duration::ZERO).with_demand(Demand::CoversStock);
    assert_eq!(story.history.check(&end), [], "9 units were never left");
}

#[test]
fn oversold_at_a_moment_that_passed() {
    let story = Story::of(&[pool("a", 1)]);
    let (first, second) = (one(1), one(2));
    story.ask(&[&first, &second]).grant("a", 1);
    story.apply(A1, &[place(&first)]).apply(A1, &[place(&second)]);
    story.apply(A1, &[turn(&first, &released(&first))]);
    let oversold = Fault::Oversold { item: item("a"), taken: 2, capacity: 1 };
    assert_eq!(story.faults(&[&released(&first), &second]), [oversold]);
}

#[test]
fn replies_out_of_order_are_no_fault() {
    let story = Story::of(&[pool("a", 1)]);
    let (first, second) = (one(1), one(2));
    story.ask(&[&first, &second]).grant("a", 1).grant("a", 2).grant("a", 3);
    // The claims were used in the order of their tokens, and answered in another.
    story.apply(&[("a", 3)], &[place(&second)]);
    story.apply(A2, &[turn(&first, &released(&first))]);
    story.apply(A1, &[place(&first)]);
    for write in &mut story.history.log().writes {
        (write.began, write.ended) = (0, Some(99));
    }
    assert_eq!(story.faults(&[&released(&first), &second]), []);
}

#[test]
fn a_seat_with_two_owners() {
    let story = Story::of(&[hall("h", &["x", "y"])]);
    let make = |n| held(n, "ann", &[seats("h", &["x"])]);
    story.ask(&[&make(1), &make(2)]).grant("h", 1);
    story.apply(&[("h", 1)], &[place(&make(1))]).apply(&[("h", 1)], &[place(&make(2))]);
    let faults = story.faults(&[&make(1), &make(2)]);
    assert!(faults.iter().all(|fault| matches!(fault, Fault::SeatTwice { .. })), "{faults:?}");
    assert_eq!(faults.len(), 2, "once in the replay, once at the end: {faults:?}");
}

#[test]
fn numbers_that_are_not_those_of_the_orders() {
    let story = Story::of(&[pool("a", 5)]);
    story.ask(&[&one(1)]).grant("a", 1).apply(A1, &[place(&one(1))]);
    let mut end = story.end(&[&one(1)]);
    end.items[0].available = 5;
    let faults = story.history.check(&end);
    assert!(matches!(faults[..], [Fault::NotConserved { .. }]), "{faults:?}");
}

#[test]
fn an_order_that_nobody_wrote() {
    let story = Story::of(&[pool("a", 5)]);
    story.ask(&[&one(1), &one(2)]).grant("a", 1).apply(A1, &[place(&one(1))]);
    let faults = story.faults(&[&one(1), &one(2)]);
    assert!(matches!(faults[..], [Fault::Unaccounted { written: None, .. }]), "{faults:?}");
    // And one whose writes came to nothing.
    story.apply(A1, &[place(&one(3))]);
    let faults = story.faults(&[&one(1)]);
    assert!(matches!(faults[..], [Fault::Unaccounted { stored: None, .. }]), "{faults:?}");
}

#[test]
fn an_order_decided_twice() {
    let story = Story::of(&[pool("a", 5)]);
    story.ask(&[&one(1)]).grant("a", 1);
    story.apply(A1, &[place(&one(1))]).apply(A1, &[place(&one(1))]);
    assert_eq!(story.faults(&[&one(1)]), [Fault::DecidedTwice { order: one(1).id }]);
    let listed_twice = Story::of(&[pool("a", 5)]);
    listed_twice.ask(&[&one(1)]);
    let faults = listed_twice.faults(&[&one(1), &one(1)]);
    assert_eq!(faults, [Fault::DecidedTwice { order: one(1).id }]);
}

#[test]
fn an_answer_that_changed() {
    let story = Story::of(&[pool("a", 5)]);
    let no = rejected(1, "ann", &[units("a", 1)]);
    let later = OrderState::Held(Hold { decided_at: after(HOLD), expires_at: after(HOLD * 2) });
    let paid = confirmed(&one(1), "p1");
    for (answer, stored) in [
        (no.clone(), one(1)),
        (one(1), no),
        (one(1), one(1).with_state(later)),
        (paid.clone(), one(1)),
        (released(&one(1)), paid.clone()),
        (paid.clone(), expired(&one(1))),
        (confirmed(&one(1), "p2"), paid.clone()),
        (confirmed(&one(1), "p2"), cancelled(&one(1), "p1")),
        (refund_due(&one(1), "p1"), paid),
    ] {
        let story = Story::of(&story.specs);
        story.ask(&[&one(1)]).history.answered(&answer);
        let faults = story.faults(&[&stored]);
        assert!(matches!(faults[..], [Fault::AnswerChanged { .. }]), "{answer:?}: {faults:?}");
    }
}

#[test]
fn other_contents_than_were_asked() {
    let story = Story::of(&[pool("a", 5)]);
    let other = held(1, "bob", &[units("a", 1)]);
    story.ask(&[&one(1)]);
    assert_eq!(story.faults(&[&other]), [Fault::Altered { order: other.id }]);
    // Shown to a client, or never asked at all.
    story.history.answered(&other);
    assert_eq!(story.faults(&[&one(1)]), [Fault::Altered { order: other.id }]);
    assert_eq!(Story::of(&story.specs).faults(&[&one(1)]), [Fault::Altered { order: one(1).id }]);
    // Two attempts under one id with different contents: either may win.
    let story = Story::of(&story.specs);
    story.ask(&[&one(1), &other]);
    assert_eq!(story.faults(&[&other]), []);
}

#[test]
fn decided_though_every_attempt_was_turned_away() {
    let story = Story::of(&[pool("a", 5)]);
    story.ask(&[&one(1)]).history.turned_away(one(1).id);
    let faults = story.faults(&[&one(1)]);
    assert!(matches!(faults[..], [Fault::DecidedAfterTurnedAway { .. }]), "{faults:?}");
    assert_eq!(story.faults(&[]), []);
    // A first attempt that may have got in.
    story.ask(&[&one(1)]).history.failed(one(1).id);
    assert_eq!(story.faults(&[&one(1)]), []);
}

#[test]
fn a_step_that_its_state_does_not_allow() {
    let freed = released(&one(1));
    let story = Story::of(&[pool("a", 5)]);
    story.ask(&[&one(1)]).grant("a", 1);
    story.apply(A1, &[place(&one(1))]).apply(A1, &[turn(&one(1), &freed)]);
    story.apply(A1, &[turn(&freed, &confirmed(&one(1), "p1"))]);
    let faults = story.faults(&[&confirmed(&one(1), "p1")]);
    let (order, from, to) = (one(1).id, Some(OrderStatus::Released), OrderStatus::Confirmed);
    assert_eq!(faults, [Fault::IllegalStep { order, from, to }]);
}

#[test]
fn an_accepted_order_that_is_lost_or_never_decided() {
    for answer in [one(1), order(1, "ann", &[units("a", 1)])] {
        let story = Story::of(&[pool("a", 5)]);
        story.ask(&[&answer]).history.answered(&answer);
        let faults = story.faults(&[]);
        assert!(matches!(faults[..], [Fault::Lost { .. }]), "{faults:?}");
    }
    let story = Story::of(&[pool("a", 5)]);
    let queued = order(1, "ann", &[units("a", 1)]);
    story.ask(&[&queued]);
    assert_eq!(story.faults(&[&queued]), [Fault::Undecided { order: queued.id }]);
    assert_eq!(story.faults(&[]), [], "asked, and never answered");
}

#[test]
fn an_order_over_two_items_of_which_one_is_not_there() {
    let story = Story::of(&[pool("a", 5)]);
    let both = held(1, "ann", &[units("a", 1), units("b", 1)]);
    story.ask(&[&both]);
    let half = Fault::HalfTaken { order: both.id, item: item("b") };
    assert_eq!(story.faults(&[&both]), [half]);
}

#[test]
fn over_the_cap_at_a_moment_and_at_the_end() {
    let story = Story::of(&[capped("a", 9, 1)]);
    story.ask(&[&one(1), &one(2)]).grant("a", 1);
    story.apply(A1, &[place(&one(1))]).apply(A1, &[place(&one(2))]);
    story.apply(A1, &[turn(&one(1), &released(&one(1)))]);
    let over = |live| {
        let buyer = one(1).buyer;
        Fault::OverCap { item: item("a"), buyer, live, cap: 1 }
    };
    assert_eq!(story.faults(&[&released(&one(1)), &one(2)]), [over(2)]);
    let outside = Story::of(&story.specs);
    outside.ask(&[&one(1), &one(2)]);
    assert_eq!(outside.faults(&[&one(1), &one(2)]), [over(2)]);
}

#[test]
fn more_holds_than_the_rules_allow_and_a_hold_within_the_pause() {
    let story = Story::of(&[pool("a", 9), pool("b", 9)]);
    let rules = BuyerRules::builder().maybe_holds_max(NonZeroU32::new(1));
    let rules = rules.hold_again_after(HOLD).build();
    let over = expired(&one(1));
    // While the end may not be written yet, within the pause, and at its end.
    let [early, within, late] = [(2, 0), (3, 1), (4, 600)].map(|(n, seconds)| {
        held_from(n, "ann", &[units("a", 1)], after(HOLD + Duration::from_secs(seconds)))
    });
    let [early, within] = [early, within].map(|order| confirmed(&order, "p"));
    let elsewhere = held(5, "bob", &[units("a", 1), units("b", 1)]);
    let orders = [&over, &early, &within, &late, &elsewhere];
    story.ask(&orders);
    let judge = |orders: &[&Order]| {
        let end = story.end(orders).with_buyer_rules(rules);
        story.history.check(&end.with_grace(Duration::from_secs(1)))
    };
    let fault = Fault::HeldInPause { order: within.id, after: over.id, item: item("a") };
    assert_eq!(judge(&orders), [fault]);
    let second = held(6, "bob", &[units("b", 1)]);
    story.ask(&[&second]);
    let fault = Fault::TooManyHolds { buyer: second.buyer.clone(), holds: 2, holds_max: 1 };
    assert_eq!(judge(&[&over, &late, &elsewhere, &second]), [fault]);
}

#[test]
fn a_cap_that_came_later_than_its_buyer_is_no_fault() {
    let mut story = Story::of(&[pool("a", 9)]);
    story.ask(&[&one(1), &one(2), &one(3)]).grant("a", 1);
    story.apply(A1, &[place(&one(1)), place(&one(2)), place(&one(3))]);
    story.specs = vec![capped("a", 9, 1)];
    story.grant("a", 2).apply(A2, &[turn(&one(1), &released(&one(1)))]);
    assert_eq!(story.faults(&[&released(&one(1)), &one(2), &one(3)]), []);
}

#[test]
fn a_token_that_is_not_new() {
    let story = Story::of(&[pool("a", 9)]);
    story.ask(&[&one(1)]).grant("a", 2).grant("a", 2).apply(A2, &[place(&one(1))]);
    let again = Fault::TokenNotNew { item: item("a"), token: FencingToken(2) };
    assert_eq!(story.faults(&[&one(1)]), [again]);

    let story = Story::of(&story.specs);
    story.ask(&[&one(1)]).grant("a", 2).grant("a", 1).apply(A2, &[place(&one(1))]);
    let smaller = Fault::TokenNotNew { item: item("a"), token: FencingToken(1) };
    assert_eq!(story.faults(&[&one(1)]), [smaller]);

    // After a restart they may start over.
    let story = Story::of(&story.specs);
    story.ask(&[&one(1), &one(2)]).grant("a", 2).apply(A2, &[place(&one(1))]);
    story.history.restarted();
    story.grant("a", 1).apply(A1, &[place(&one(2))]);
    assert_eq!(story.faults(&[&one(1), &one(2)]), []);
}

#[test]
fn a_write_after_a_later_claim() {
    let story = Story::of(&[pool("a", 9)]);
    story.ask(&[&one(1)]).grant("a", 1).grant("a", 2).apply(A1, &[place(&one(1))]);
    let stale = Fault::StaleWrite { item: item("a"), token: FencingToken(1) };
    assert_eq!(story.faults(&[&one(1)]), [stale]);
}

#[test]
fn stock_moved_without_a_claim() {
    let unclaimed = Fault::Unclaimed { order: one(1).id, item: item("a") };
    for claims in [&[][..], &[("b", 1)], A2] {
        let story = Story::of(&[pool("a", 9), pool("b", 9)]);
        story.ask(&[&one(1)]).grant("a", 1).grant("b", 1).apply(claims, &[place(&one(1))]);
        assert_eq!(story.faults(&[&one(1)]), vec![unclaimed.clone()], "{claims:?}");
    }
}

#[test]
fn units_left_that_somebody_wanted() {
    let story = Story::of(&[pool("a", 3), hall("h", &["x", "y"])]);
    let no = |n, lines: &[_]| rejected(n, "bob", lines);
    let went_without = |orders: &[&Order]| {
        let story = Story::of(&story.specs);
        story.ask(orders);
        let end = story.end(orders).with_demand(Demand::CoversStock);
        let faults = story.history.check(&end);
        assert!(faults.iter().all(|fault| matches!(fault, Fault::Undersold { .. })), "{faults:?}");
        faults.len()
    };
    let two = held(1, "ann", &[units("a", 2), seats("h", &["x"])]);
    assert_eq!(went_without(&[&two, &no(2, &[units("a", 1)])]), 1);
    assert_eq!(went_without(&[&two, &no(2, &[units("a", 2)])]), 0, "would not fit");
    assert_eq!(went_without(&[&two, &no(2, &[seats("h", &["x"])])]), 0, "taken");
    assert_eq!(went_without(&[&two, &no(2, &[seats("h", &["y"])])]), 1);
    assert_eq!(went_without(&[&two, &no(2, &[units("a", 1), seats("h", &["y"])])]), 2);

    let away = Story::of(&story.specs);
    away.ask(&[&two, &one(2)]).history.turned_away(one(2).id);
    let end = away.end(&[&two]);
    assert_eq!(away.history.check(&end), []);
    let faults = away.history.check(&end.with_demand(Demand::CoversStock));
    assert!(matches!(faults[..], [Fault::Undersold { available: 1, .. }]), "{faults:?}");
}

/// The order, turned down for that reason.
fn turned_down(order: &Order, reason: Reason) -> Order {
    order.with_state(OrderState::Rejected(T0, reason))
}

/// The fault of a rejection that was not so.
fn false_as(order: &Order) -> Fault {
    let (item, reason) = (order.lines[0].item.clone(), order.reason().expect("it is rejected"));
    Fault::FalselyRefused { order: order.id, item, reason }
}

#[test]
fn an_item_that_is_said_to_be_unknown_and_was_there() {
    let no = turned_down(&held(1, "ann", &[units("a", 1), units("b", 1)]), Reason::UnknownItem);
    let missing = |story: &Story| {
        let mut log = story.history.log();
        let ended = log.step();
        log.missing.push(Missing { item: item("b"), ended });
    };
    let story = Story::of(&[pool("a", 5), pool("b", 5)]);
    story.ask(&[&no]).grant("a", 1).apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&no]), [false_as(&no)], "nobody was told that b is not there");

    let story = Story::of(&story.specs);
    story.ask(&[&no]).grant("a", 1);
    missing(&story);
    story.apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&no]), []);

    // It was put after all, before the order was asked, or was claimed by the write itself.
    let story = Story::of(&story.specs);
    missing(&story);
    story.ask(&[&no]).grant("a", 1).apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&no]), [false_as(&no)]);
    let story = Story::of(&story.specs);
    story.ask(&[&no]).grant("a", 1);
    missing(&story);
    story.grant("b", 2).apply(&[("a", 1), ("b", 2)], &[place(&no)]);
    assert_eq!(story.faults(&[&no]), [false_as(&no)]);

    // Units of a hall are no item.
    let units_of_a_hall = turned_down(&held(2, "ann", &[units("h", 1)]), Reason::UnknownItem);
    let story = Story::of(&[hall("h", &["x"])]);
    story.ask(&[&units_of_a_hall]).grant("h", 1);
    story.apply(&[("h", 1)], &[place(&units_of_a_hall)]);
    assert_eq!(story.faults(&[&units_of_a_hall]), []);
}

#[test]
fn a_sale_that_is_said_to_be_closed_and_was_open() {
    let a_second = Duration::from_secs(1);
    let sale = |opens_at, closes_at| {
        let spec = ItemSpec::builder().id("a").capacity(5);
        spec.maybe_opens_at(opens_at).maybe_closes_at(closes_at).build().expect("a definition")
    };
    let judge = |spec: ItemSpec, no: &Order, claims: &[(&str, u64)]| {
        let story = Story::of(&[spec]);
        story.ask(&[no]).grant("a", 1).apply(claims, &[place(no)]);
        story.faults(&[no])
    };
    let early = turned_down(&one(1), Reason::NotOpen);
    let late = turned_down(&one(1), Reason::Closed);
    for claims in [A1, &[]] {
        assert_eq!(judge(sale(Some(after(a_second)), None), &early, claims), []);
        assert_eq!(judge(sale(Some(T0), None), &early, claims), [false_as(&early)]);
        assert_eq!(judge(pool("a", 5), &early, claims), [false_as(&early)]);
        assert_eq!(judge(sale(None, Some(T0)), &late, claims), []);
        assert_eq!(judge(sale(None, Some(after(a_second))), &late, claims), [false_as(&late)]);
    }
    // By the definition that the write goes by, not by one that came before it.
    let mut story = Story::of(&[sale(Some(after(a_second)), None)]);
    story.ask(&[&early]).grant("a", 1);
    story.specs = vec![pool("a", 5)];
    story.grant("a", 2).apply(A2, &[place(&early)]);
    assert_eq!(story.faults(&[&early]), [false_as(&early)]);
}

#[test]
fn a_buyer_who_is_said_to_be_at_the_limit_and_was_not() {
    let (first, second) = (one(1), one(2));
    let no = turned_down(&held(3, "ann", &[units("a", 2)]), Reason::BuyerLimit);
    let freed = released(&first);
    // Two of three are not one too many, three are.
    let story = Story::of(&[capped("a", 9, 3)]);
    story.ask(&[&first, &no]).grant("a", 1).apply(A1, &[place(&first)]).apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&first, &no]), [false_as(&no)]);
    let ruled = story.end(&[&first, &no]);
    let rules = BuyerRules::builder().maybe_holds_max(NonZeroU32::new(1)).build();
    assert_eq!(story.history.check(&ruled.with_buyer_rules(rules)), [], "or by the rules");
    let story = Story::of(&story.specs);
    story.ask(&[&first, &second, &no]).grant("a", 1);
    story.apply(A1, &[place(&first), place(&no), place(&second)]);
    assert_eq!(story.faults(&[&first, &second, &no]), []);

    // What came back makes room for whoever asks afterwards.
    let story = Story::of(&story.specs);
    story.ask(&[&first, &second]).grant("a", 1).apply(A1, &[place(&first), place(&second)]);
    story.apply(A1, &[turn(&first, &freed)]);
    story.ask(&[&no]).apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&freed, &second, &no]), [false_as(&no)]);
    let story = Story::of(&story.specs);
    story.ask(&[&first, &second, &no]).grant("a", 1).apply(A1, &[place(&first), place(&second)]);
    story.apply(A1, &[turn(&first, &freed)]).apply(A1, &[place(&no)]);
    assert_eq!(story.faults(&[&freed, &second, &no]), [], "it was asked before");

    // Without a cap, and where there was one once that the write did not look at.
    let mut story = Story::of(&[pool("a", 9)]);
    story.ask(&[&first, &no]).grant("a", 1).apply(A1, &[place(&first)]).apply(&[], &[place(&no)]);
    assert_eq!(story.faults(&[&first, &no]), [false_as(&no)]);
    story.specs = vec![capped("a", 9, 1)];
    story.grant("a", 2);
    assert_eq!(story.faults(&[&first, &no]), []);
}

#[test]
fn stock_given_back_twice() {
    let story = Story::of(&[pool("a", 9)]);
    story.ask(&[&one(1)]).grant("a", 1).apply(A1, &[place(&one(1))]);
    story.apply(A1, &[turn(&one(1), &released(&one(1)))]);
    story.apply(A1, &[turn(&one(1), &expired(&one(1)))]);
    let twice = Fault::GivenBackTwice { order: one(1).id };
    assert_eq!(story.faults(&[&expired(&one(1))]), [twice]);
}

#[test]
fn a_payment_and_an_expiry_that_both_won() {
    let story = Story::of(&[pool("a", 9)]);
    let (paid, over) = (confirmed(&one(1), "p1"), expired(&one(1)));
    story.ask(&[&one(1)]).grant("a", 1).apply(A1, &[place(&one(1))]);
    story.history.log().alone.push(paid.clone());
    story.apply(A1, &[turn(&one(1), &over)]);
    let faults = story.faults(&[&over]);
    assert!(matches!(faults[..], [Fault::AnswerChanged { .. }]), "{faults:?}");
    let faults = story.faults(&[&paid]);
    assert!(matches!(faults[..], [Fault::Unaccounted { .. }]), "{faults:?}");
}

#[test]
fn a_hold_that_outlives_its_end() {
    let story = Story::of(&[pool("a", 9)]);
    story.ask(&[&one(1)]);
    let mut end = story.end(&[&one(1)]);
    end.now = after(HOLD + Duration::from_secs(5));
    assert_eq!(story.history.check(&end), [], "no grace was set");
    let end = end.with_grace(Duration::from_secs(5));
    assert_eq!(story.history.check(&end), []);
    let faults = story.history.check(&end.with_grace(Duration::from_secs(4)));
    assert_eq!(faults, [Fault::Overdue { order: one(1).id }]);
}

#[test]
fn a_refund_of_a_hold_that_never_expired() {
    let story = Story::of(&[pool("a", 9)]);
    let owed = refund_due(&one(1), "p1");
    story.ask(&[&one(1)]).grant("a", 1).apply(A1, &[place(&one(1))]);
    story.apply(A1, &[turn(&one(1), &owed)]);
    assert_eq!(story.faults(&[&owed]), [Fault::RefundNotOwed { order: one(1).id }]);
}

#[test]
fn writes_without_an_answer_count_if_the_end_shows_them() {
    let story = Story::of(&[pool("a", 1)]);
    let (first, second) = (one(1), one(2));
    let over = expired(&first);
    story.ask(&[&first, &second]).grant("a", 1);
    story.write(A1, Fate::Open, &[place(&first)]);
    // Decided again after a new claim: the first write was there already.
    story.grant("a", 2).write(A2, Fate::Refused, &[place(&first)]);
    story.write(A2, Fate::Open, &[turn(&first, &over)]);
    story.grant("a", 3).write(&[("a", 3)], Fate::Open, &[turn(&first, &over)]);
    story.apply(&[("a", 3)], &[place(&second)]);
    assert_eq!(story.faults(&[&over, &second]), []);
    // Had they not taken effect, the end would be another.
    let story = Story::of(&story.specs);
    story.ask(&[&first, &second]).grant("a", 1);
    story.write(A1, Fate::Open, &[place(&first)]).apply(A1, &[place(&second)]);
    assert_eq!(story.faults(&[&second]), []);
    assert!(matches!(story.faults(&[&first, &second])[..], [Fault::Oversold { .. }, ..]));
}

#[test]
fn every_fault_begins_with_its_guarantee() {
    let faults = [
        Fault::Oversold { item: item("a"), taken: 2, capacity: 1 },
        Fault::Undecided { order: one(1).id },
        Fault::Overdue { order: one(1).id },
    ];
    let shown: Vec<String> = faults.iter().map(|fault| fault.to_string()[..3].to_owned()).collect();
    assert_eq!(shown, ["G1:", "G4:", "G8:"]);
}

/// Events as a child process sends them to its parent.
#[cfg(feature = "embedded")]
#[test]
fn events_travel_as_bytes() {
    let events = [
        Event::Asked(order(1, "ann", &[units("a", 1), seats("h", &["x"])])),
        Event::Answered(confirmed(&one(1), "p1")),
        Event::Answered(rejected(2, "ann", &[units("a", 1)])),
        Event::TurnedAway(one(3).id),
        Event::Failed(one(4).id),
    ];
    let child = History::new();
    for event in events.iter().cloned() {
        child.record(event);
    }
    let bytes = postcard::to_stdvec(&child.events()).expect("encodes");
    let parent: Vec<Event> = postcard::from_bytes(&bytes).expect("decodes");
    assert_eq!(parent, events);
    assert_eq!(parent[1..2], [Event::Answered(confirmed(&one(1), payment("p1").as_str()))]);
}
