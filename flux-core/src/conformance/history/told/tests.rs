//! A history for each fault that shows it, and one a hair beside that does not.

use std::slice::from_ref;
use std::time::Duration;

use super::{Answer, Call, OnSale, Terms, Told, judge};
use crate::conformance::history::{Demand, Fault};
use crate::conformance::store::shop::{
    HOLD, T0, after, cancelled, capped, confirmed, expired, hall, held, held_from, id, item, order,
    payment, pool, refund_due, rejected, released, seats, units,
};
use crate::protocol::{ItemSpec, Line, Order, OrderState, OrderStatus, Reason, Timestamp};

const SLACK: Duration = Duration::from_millis(100);
const TOLERANCE: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);
/// The last millisecond of a hold that was first asked for at zero is before this.
const END: Duration = HOLD.saturating_sub(SLACK);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn terms(specs: &[ItemSpec]) -> Terms {
    Terms::new(specs.iter().cloned().map(OnSale::new).collect())
}

/// What was told, in the making.
#[derive(Default)]
struct Story(Vec<Told>);

impl Story {
    fn tell(mut self, from: Duration, to: Duration, call: Call, answer: Answer) -> Self {
        self.0.push(Told::new(from, to, call, answer));
        self
    }

    fn place(self, from: Duration, to: Duration, shown: &Order) -> Self {
        let asked = shown.with_state(OrderState::Queued);
        self.tell(from, to, Call::Place(asked), Answer::Shown(shown.clone()))
    }

    fn refuse(self, from: Duration, to: Duration, asked: &Order, answer: Answer) -> Self {
        self.tell(from, to, Call::Place(asked.with_state(OrderState::Queued)), answer)
    }

    fn look(self, from: Duration, to: Duration, shown: &Order) -> Self {
        self.tell(from, to, Call::Look(shown.id), Answer::Shown(shown.clone()))
    }

    fn pay(self, from: Duration, to: Duration, shown: &Order, by: &str) -> Self {
        let call = Call::Confirm(shown.id, payment(by));
        self.tell(from, to, call, Answer::Shown(shown.clone()))
    }

    fn release(self, from: Duration, to: Duration, shown: &Order) -> Self {
        self.tell(from, to, Call::Release(shown.id), Answer::Shown(shown.clone()))
    }

    fn cancel(self, from: Duration, to: Duration, shown: &Order) -> Self {
        self.tell(from, to, Call::Cancel(shown.id), Answer::Shown(shown.clone()))
    }

    fn faults(&self, terms: &Terms) -> Vec<Fault> {
        judge(&self.0, terms)
    }
}

fn one(n: u128) -> Order {
    held(n, &format!("b{n}"), &[units("a", 1)])
}

/// One held from a moment of the history on, as the server's clock has it.
fn one_from(n: u128, from: Duration) -> Order {
    held_from(n, &format!("b{n}"), &[units("a", 1)], T0 + from)
}

#[test]
fn a_sale_as_it_should_be_has_no_fault() {
    let terms = terms(&[capped("a", 3, 2), hall("h", &["x", "y"])]).at_rest(Demand::CoversStock);
    let [paid, freed, over] = [1, 2, 3].map(one);
    let seat = held(5, "ann", &[seats("h", &["x"]), units("a", 1)]);
    let gone = rejected(6, "bob", &[units("a", 1)]);
    let late = rejected(7, "eve", &[units("a", 1)]);
    let last = held_from(8, "fay", &[units("a", 1)], T0 + HOLD + at(3_000));
    let story = Story::default()
        .place(at(0), at(10), &paid)
        .place(at(0), at(9), &paid)
        .place(at(0), at(10), &freed.with_state(OrderState::Queued))
        .look(at(11), at(12), &freed)
        .place(at(0), at(10), &over)
        .place(at(12), at(20), &gone)
        .refuse(
            at(12),
            at(20),
            &order(9, "dan", &[units("a", 1)]),
            Answer::TurnedAway(Reason::SoldOut),
        )
        .refuse(at(12), at(20), &order(10, "dan", &[units("a", 1)]), Answer::Nothing)
        .pay(at(30), at(40), &confirmed(&paid, "p1"), "p1")
        .pay(at(30), at(45), &confirmed(&paid, "p1"), "p1")
        .release(at(40), at(50), &released(&freed))
        .place(at(45), at(60), &seat)
        .pay(at(70), at(80), &confirmed(&seat, "p5"), "p5")
        .look(HOLD + at(2_000), HOLD + at(2_001), &expired(&over))
        .place(HOLD + at(2_000), HOLD + at(3_010), &last)
        .pay(HOLD + at(3_020), HOLD + at(3_021), &refund_due(&over, "p3"), "p3")
        .place(HOLD + at(3_020), HOLD + at(3_021), &late)
        .pay(HOLD + at(3_030), HOLD + at(3_040), &confirmed(&last, "p8"), "p8");
    let faults = story.faults(&terms);
    // A seat is left, and nobody wanted it; the order without an answer may own what is left.
    assert_eq!(faults, []);
}

#[test]
fn more_told_than_there_is() {
    let terms = terms(&[pool("a", 1)]);
    let second = one_from(2, END);
    let story = |from| Story::default().place(at(0), at(10), &one(1)).place(from, from, &second);
    let oversold = Fault::Oversold { item: item("a"), taken: 2, capacity: 1 };
    assert_eq!(story(END - MS).faults(&terms), from_ref(&oversold));
    assert_eq!(story(END).faults(&terms), []);
    // The first is told so late that it may be over.
    let late = Story::default().place(at(0), END, &one(1)).place(at(0), at(10), &one(2));
    assert_eq!(late.faults(&terms), []);
    // Paid, it never ends.
    let paid = |by| {
        let second = one_from(2, HOLD * 2);
        let story = Story::default().place(at(0), at(10), &one(1));
        let story = story.pay(by - MS, by, &confirmed(&one(1), "p"), "p");
        story.place(HOLD * 2, HOLD * 2 + MS, &second)
    };
    assert_eq!(paid(at(20)).faults(&terms), from_ref(&oversold));
    // Cancelled or released while the second is decided, it is no fault.
    let free = paid(at(20)).cancel(HOLD * 2, HOLD * 2 + MS, &cancelled(&one(1), "p"));
    assert_eq!(free.faults(&terms), []);
    let freed = |from| {
        let story = Story::default().place(at(0), at(10), &one(1)).place(at(20), at(30), &one(2));
        story.release(from, at(40), &released(&one(1)))
    };
    assert_eq!(freed(at(30)).faults(&terms), []);
    assert_eq!(freed(at(31)).faults(&terms), [oversold]);
}

#[test]
fn a_late_payment_counts_from_its_answer_on() {
    let terms = terms(&[pool("a", 1)]);
    let between = one_from(2, HOLD);
    let late = HOLD + at(1_000);
    let story = |pause: Duration| {
        let story = Story::default().place(at(0), at(10), &one(1)).place(HOLD, HOLD + MS, &between);
        let story = story.release(late, late + at(5), &released(&between));
        story.pay(late, late + at(4) + pause, &confirmed(&one(1), "p"), "p")
    };
    assert_eq!(story(MS).faults(&terms), []);
    // Another holds it before and after the answer.
    let again = one_from(3, HOLD + at(1));
    let both = story(MS).place(late, late + at(10), &again);
    let oversold = Fault::Oversold { item: item("a"), taken: 2, capacity: 1 };
    assert_eq!(both.faults(&terms), [oversold]);
}

#[test]
fn a_seat_told_to_two() {
    let terms = terms(&[hall("h", &["x", "y"])]);
    let sit = |n, seat| held(n, "ann", &[seats("h", &[seat])]);
    let story = |seat| {
        Story::default().place(at(0), at(1), &sit(1, "x")).place(at(0), at(2), &sit(2, seat))
    };
    let (item, order) = (item("h"), id(2));
    let seat = "x".parse().expect("a seat");
    assert_eq!(story("x").faults(&terms), [Fault::SeatTwice { item, seat, order }]);
    assert_eq!(story("y").faults(&terms), []);
}

#[test]
fn over_the_cap() {
    let terms = terms(&[capped("a", 9, 2)]);
    let buy = |n, many| held(n, "ann", &[units("a", many)]);
    let story =
        |many| Story::default().place(at(0), at(1), &buy(1, 1)).place(at(0), at(2), &buy(2, many));
    let (item, buyer) = (item("a"), one(1).with_state(OrderState::Queued).buyer);
    let faults = story(2).faults(&terms);
    assert!(matches!(&faults[..], [Fault::OverCap { live: 3, cap: 2, .. }]), "{faults:?}");
    assert_ne!(faults, [Fault::OverCap { item, buyer, live: 3, cap: 2 }], "it is ann's");
    assert_eq!(story(1).faults(&terms), []);
}

#[test]
fn another_decision_or_another_state() {
    let terms = terms(&[pool("a", 9)]);
    let no = rejected(1, "b1", &[units("a", 1)]);
    let later = one_from(1, MS);
    let paid = confirmed(&one(1), "p");
    let story = |first: &Order, second: &Order, from| {
        let story = Story::default().place(at(0), at(10), first).look(from, at(20), second);
        // Whatever was paid, released or cancelled was asked to.
        let story = story.tell(at(0), at(1), Call::Confirm(id(1), payment("p")), Answer::Nothing);
        let story = story.tell(at(0), at(1), Call::Confirm(id(1), payment("q")), Answer::Nothing);
        let story = story.tell(at(0), at(1), Call::Cancel(id(1)), Answer::Nothing);
        story.tell(at(0), at(1), Call::Release(id(1)), Answer::Nothing).faults(&terms)
    };
    let twice = [Fault::DecidedTwice { order: id(1) }];
    assert_eq!(story(&one(1), &later, at(11)), twice);
    assert_eq!(story(&one(1), &later, at(10)), twice, "nor at once");
    assert_eq!(story(&one(1), &no, at(11))[..1], twice);
    assert_eq!(story(&no, &one(1), at(11))[..1], twice);
    let queued = one(1).with_state(OrderState::Queued);
    for (was, is) in [
        (&one(1), &queued),
        (&paid, &one(1)),
        (&released(&one(1)), &one(1)),
        (&paid, &confirmed(&one(1), "q")),
        (&cancelled(&one(1), "p"), &paid),
    ] {
        let faults = story(was, is, at(11));
        assert!(matches!(faults[..], [Fault::AnswerChanged { .. }]), "{was:?}: {faults:?}");
        assert_eq!(story(is, is, at(11)), []);
    }
    // Of two on their way at once, either may be the earlier.
    assert_eq!(story(&paid, &one(1), at(10)), []);
    assert_eq!(story(&one(1), &paid, at(11)), []);
    assert_eq!(story(&paid, &cancelled(&one(1), "p"), at(11)), []);
}

#[test]
fn another_order_than_was_asked_about() {
    let terms = terms(&[pool("a", 9)]);
    let by_key = |n| {
        let key = order(100, "b1", &[units("a", 1)]);
        let shown = held(n, "b1", &[units("a", 1)]);
        (Call::PlaceByKey(key), Answer::Shown(shown))
    };
    let story = |n| {
        let ((first, shown), (again, other)) = (by_key(1), by_key(n));
        Story::default().tell(at(0), at(10), first, shown).tell(at(20), at(30), again, other)
    };
    let another = Fault::AnotherOrder { order: id(1), shown: id(2) };
    assert_eq!(story(2).faults(&terms), [another]);
    assert_eq!(story(1).faults(&terms), []);
    let stray = Call::Look(id(3));
    let faults = story(1).tell(at(40), at(50), stray, Answer::Shown(one(4))).faults(&terms);
    assert_eq!(faults, [Fault::AnotherOrder { order: id(3), shown: id(4) }]);
}

#[test]
fn other_contents_than_were_asked() {
    let terms = terms(&[pool("a", 9)]);
    let asked = Call::Place(order(1, "b1", &[units("a", 1)]));
    let story = |shown| Story::default().tell(at(0), at(1), asked.clone(), Answer::Shown(shown));
    let altered = [Fault::Altered { order: id(1) }];
    assert_eq!(story(held(1, "b1", &[units("a", 2)])).faults(&terms), altered);
    assert_eq!(story(one(1)).faults(&terms), []);
    let reused = story(one(1)).tell(at(2), at(3), asked.clone(), Answer::Reused);
    assert_eq!(reused.faults(&terms), altered);
    let other = Call::Place(order(1, "b1", &[units("a", 2)]));
    assert_eq!(story(one(1)).tell(at(2), at(3), other, Answer::Reused).faults(&terms), []);
}

#[test]
fn a_part_of_what_was_asked() {
    let terms = terms(&[pool("a", 9), hall("h", &["x", "y", "z"])]);
    let asked = order(1, "ann", &[units("a", 2), seats("h", &["x", "y"])]);
    let shown = |shown: Order| {
        let call = Call::Place(asked.clone());
        Story::default().tell(at(0), at(1), call, Answer::Shown(shown)).faults(&terms)
    };
    let (in_part, altered) =
        ([Fault::ServedInPart { order: id(1) }], [Fault::Altered { order: id(1) }]);
    let held = |buyer, lines: &[Line]| held(1, buyer, lines);
    assert_eq!(shown(held("ann", &[units("a", 2)])), in_part);
    assert_eq!(shown(held("ann", &[units("a", 1), seats("h", &["x", "y"])])), in_part);
    assert_eq!(shown(held("ann", &[units("a", 2), seats("h", &["y"])])), in_part);
    assert_eq!(shown(held("ann", &[units("a", 2), seats("h", &["z"])])), altered);
    assert_eq!(shown(held("ann", &[units("a", 3)])), altered);
    assert_eq!(shown(held("bob", &[units("a", 2)])), altered);
    let nothing = shown(rejected(1, "ann", &[units("a", 2)]));
    assert_eq!(nothing[..1], altered, "{nothing:?}");
    assert_eq!(shown(held("ann", &asked.lines)), []);
}

#[test]
fn steps_that_nobody_asked_for() {
    let terms = terms(&[pool("a", 9)]);
    let (held, paid) = (one(1), confirmed(&one(1), "p"));
    let pay = Call::Confirm(id(1), payment("p"));
    let story =
        |shown: &Order| Story::default().place(at(0), at(1), &held).look(at(9), at(10), shown);
    for (shown, call) in [
        (released(&held), Call::Release(id(1))),
        (paid.clone(), pay.clone()),
        (cancelled(&held, "p"), Call::Cancel(id(1))),
    ] {
        let tell = |from| {
            let story = story(&shown).tell(from, at(20), call.clone(), Answer::Nothing);
            let is_paid = shown.status() == OrderStatus::Cancelled;
            let paid_at = if is_paid { at(2) } else { from };
            story.tell(
                paid_at,
                at(20),
                if is_paid { pay.clone() } else { call.clone() },
                Answer::Nothing,
            )
        };
        let (from, to) = (Some(OrderStatus::Held), shown.status());
        let illegal = Fault::IllegalStep { order: id(1), from, to };
        assert_eq!(tell(at(11)).faults(&terms), [illegal]);
        assert_eq!(tell(at(10)).faults(&terms), []);
    }
    let by_another = story(&confirmed(&held, "q")).tell(at(2), at(3), pay, Answer::Nothing);
    assert!(matches!(by_another.faults(&terms)[..], [Fault::IllegalStep { .. }]));
}

#[test]
fn answered_and_lost() {
    let terms = terms(&[pool("a", 9)]);
    let queued = order(1, "b1", &[units("a", 1)]);
    for shown in [one(1), queued.clone()] {
        let lost = Fault::Lost { order: id(1), answered: shown.status() };
        let story = |from, call: Call, answer| {
            Story::default().place(at(0), at(10), &shown).tell(from, from + MS, call, answer)
        };
        let look = || Call::Look(id(1));
        assert_eq!(story(at(11), look(), Answer::NotFound).faults(&terms), from_ref(&lost));
        assert_eq!(story(at(10), look(), Answer::NotFound).faults(&terms), [], "it may be younger");
        assert_eq!(story(at(11), look(), Answer::Nothing).faults(&terms), []);
        // The gate's answer to a repeat.
        let again = Call::Place(queued.clone());
        let away = Answer::TurnedAway(Reason::Closed);
        let faults = story(at(11), again.clone(), away.clone()).faults(&terms);
        assert!(faults.contains(&lost), "{faults:?}");
        let faults = story(at(10), again, away).faults(&terms);
        assert!(!faults.contains(&lost), "{faults:?}");
    }
    // A rejected one is forgotten after an hour, one that was held is not.
    let story = |shown: &Order, kept| {
        let story = Story::default().place(at(0), at(1), shown);
        let gone = story.tell(kept, kept, Call::Look(id(1)), Answer::NotFound).faults(&terms);
        gone.iter().any(|fault| matches!(fault, Fault::Lost { .. }))
    };
    let (no, kept) = (rejected(1, "b1", &[units("a", 1)]), terms.keep_rejected);
    assert!(story(&no, kept) && !story(&no, kept + MS) && story(&one(1), kept + MS));
}

#[test]
fn an_order_that_is_not_known_until_it_is_decided() {
    let seen = terms(&[pool("a", 9)]);
    let hidden = seen.clone().with_hidden_queue();
    let rest = hidden.clone().at_rest(Demand::Any);
    let queued = order(1, "b1", &[units("a", 1)]);
    let lost = |answered| Fault::Lost { order: id(1), answered };
    let gone = |story: Story| story.tell(at(20), at(21), Call::Look(id(1)), Answer::NotFound);
    let story = || gone(Story::default().place(at(0), at(10), &queued));
    assert_eq!(story().faults(&seen), [lost(OrderStatus::Queued)]);
    assert_eq!(story().faults(&hidden), []);
    assert!(story().faults(&rest).contains(&lost(OrderStatus::Queued)), "it never was");
    let decided = || story().look(at(30), at(31), &one(1));
    assert_eq!(decided().faults(&rest), []);
    assert_eq!(decided().faults(&seen), [lost(OrderStatus::Queued)]);
    let sent = Call::Place(queued.clone());
    let away = decided().tell(at(22), at(23), sent, Answer::TurnedAway(Reason::Closed));
    let faults = away.faults(&rest);
    assert!(!faults.iter().any(|fault| matches!(fault, Fault::Lost { .. })), "{faults:?}");
    // Once it is decided it is known to all.
    let late = decided().tell(at(32), at(33), Call::Look(id(1)), Answer::NotFound);
    assert_eq!(late.faults(&hidden), [lost(OrderStatus::Held)]);
}

#[test]
fn decided_though_always_turned_away() {
    let terms = terms(&[pool("a", 9)]);
    let story =
        |answer| Story::default().refuse(at(0), at(1), &one(1), answer).look(at(0), at(2), &one(1));
    let stored = OrderStatus::Held;
    let fault = Fault::DecidedAfterTurnedAway { order: id(1), stored };
    let faults = story(Answer::TurnedAway(Reason::SoldOut)).faults(&terms);
    assert!(faults.contains(&fault), "{faults:?}");
    assert_eq!(story(Answer::Nothing).faults(&terms), []);
}

#[test]
fn never_decided() {
    let terms = terms(&[pool("a", 9)]);
    let queued = order(1, "b1", &[units("a", 1)]);
    let story = Story::default().place(at(0), at(1), &queued);
    assert_eq!(story.faults(&terms), [], "it may still be");
    let rest = terms.at_rest(Demand::Any);
    assert_eq!(story.faults(&rest), [Fault::Undecided { order: id(1) }]);
    assert_eq!(story.look(at(2), at(3), &one(1)).faults(&rest), []);
}

#[test]
fn a_hold_that_ended_early() {
    let terms = terms(&[pool("a", 9)]);
    let story = |by: Duration| {
        let story = Story::default().place(at(0), at(1), &one(1));
        story.look(by - MS, by, &expired(&one(1))).faults(&terms)
    };
    assert_eq!(story(END - MS), [Fault::EndedEarly { order: id(1) }]);
    assert_eq!(story(END), []);
}

#[test]
fn a_refund_of_money_that_came_in_time_or_found_room() {
    let full = |by: Duration| {
        let other = one_from(2, by - at(2));
        let story = Story::default().place(at(0), at(1), &one(1));
        let story = story.place(by - at(2), by - MS, &other);
        story.pay(by - MS, by, &refund_due(&one(1), "p"), "p")
    };
    let terms = terms(&[pool("a", 1)]);
    let faults = full(END - MS).faults(&terms);
    assert!(faults.contains(&Fault::RefundNotOwed { order: id(1) }), "{faults:?}");
    assert_eq!(full(END + at(2)).faults(&terms), []);
    // Late, but there is room, for certain, once the tolerance has passed.
    let roomy = |from: Duration| {
        let story = Story::default().place(at(0), at(10), &one(1));
        story.pay(from, from + MS, &refund_due(&one(1), "p"), "p").faults(&terms)
    };
    let (order, item, reason) = (id(1), item("a"), Reason::SoldOut);
    let ended = at(10) + HOLD + TOLERANCE;
    assert_eq!(roomy(ended + MS), [Fault::FalselyRefused { order, item, reason }]);
    assert_eq!(roomy(ended), []);
}

#[test]
fn a_payment_that_was_turned_down() {
    let terms = terms(&[pool("a", 9)]);
    let refused = |from| {
        let story = Story::default().place(at(0), at(10), &one(1));
        story.tell(from, at(20), Call::Confirm(id(1), payment("p")), Answer::NotAllowed)
    };
    assert_eq!(refused(at(11)).faults(&terms), [Fault::PaymentRefused { order: id(1) }]);
    assert_eq!(refused(at(10)).faults(&terms), [], "not decided yet");
    let released = |from| refused(at(11)).tell(from, at(30), Call::Release(id(1)), Answer::Nothing);
    assert_eq!(released(at(20)).faults(&terms), []);
    assert_eq!(released(at(21)).faults(&terms).len(), 1);
    let other = Call::Confirm(id(1), payment("q"));
    assert_eq!(refused(at(11)).tell(at(5), at(6), other, Answer::Nothing).faults(&terms), []);
}

#[test]
fn a_hold_that_is_shown_long_after_its_end() {
    let terms = terms(&[pool("a", 9)]);
    let gone = at(10) + HOLD + TOLERANCE;
    let story = |from: Duration| {
        Story::default().place(at(0), at(10), &one(1)).look(from, from + MS, &one(1))
    };
    let overdue = [Fault::Overdue { order: id(1) }];
    assert_eq!(story(gone + MS).faults(&terms), overdue);
    assert_eq!(story(gone).faults(&terms), []);
    // The time that the server was down does not count.
    let down = |outage| terms.clone().with_outages(vec![outage]);
    assert_eq!(story(gone + MS).faults(&down(HOLD..HOLD + at(11))), []);
    assert_eq!(story(gone + MS).faults(&down(at(0)..at(10) + HOLD)), overdue);
    let two = vec![gone - MS..gone + at(20), HOLD..HOLD + at(11)];
    assert_eq!(story(gone + at(22)).faults(&terms.clone().with_outages(two.clone())), []);
    assert_eq!(story(gone + at(23)).faults(&terms.clone().with_outages(two)), overdue);
}

#[test]
fn sold_out_though_nobody_may_own_it() {
    let terms = terms(&[pool("a", 2)]);
    let free_again = at(10) + HOLD + TOLERANCE;
    let (order, reason) = (id(9), Reason::SoldOut);
    let refused = [Fault::FalselyRefused { order, item: item("a"), reason }];
    let no = rejected(9, "eve", &[units("a", 2)]);
    let story = |from: Duration| {
        Story::default().place(at(0), at(10), &one(1)).place(from, from + at(5), &no)
    };
    assert_eq!(story(free_again + MS).faults(&terms), refused);
    assert_eq!(story(free_again).faults(&terms), []);
    // At the gate.
    let away = |from: Duration| {
        let story = Story::default().place(at(0), at(10), &one(1));
        story.refuse(from, from + at(5), &no, Answer::TurnedAway(reason))
    };
    assert_eq!(away(free_again + MS).faults(&terms), refused);
    assert_eq!(away(free_again).faults(&terms), []);
    // Paid, released, refunded or without an answer.
    let paid = confirmed(&one(1), "p");
    let later = free_again + MS;
    assert_eq!(story(later).pay(at(20), at(30), &paid, "p").faults(&terms), []);
    let pay = Call::Confirm(id(1), payment("p"));
    assert_eq!(story(later).tell(at(20), at(30), pay, Answer::Nothing).faults(&terms), []);
    let silent = story(later).refuse(at(0), at(1), &one(2), Answer::Nothing);
    assert_eq!(silent.faults(&terms), []);
    // One that was looked for in vain, once its last attempt was over for long.
    let sought = |from| {
        let story = story(later).refuse(at(0), at(1), &one(2), Answer::Nothing);
        story.tell(from, from + MS, Call::Look(id(2)), Answer::NotFound)
    };
    assert_eq!(sought(at(2) + TOLERANCE).faults(&terms), refused);
    assert_eq!(sought(at(1) + TOLERANCE).faults(&terms), []);
    let freed = |from: Duration| story(from).release(at(20), at(30), &released(&one(1)));
    assert_eq!(freed(at(31) + TOLERANCE).faults(&terms), refused);
    assert_eq!(freed(at(30) + TOLERANCE).faults(&terms), []);
    // One that fits beside it.
    let small = rejected(9, "eve", &[units("a", 1)]);
    let beside = Story::default().place(at(0), at(10), &one(1)).place(at(20), at(30), &small);
    assert_eq!(beside.faults(&terms), refused);
}

#[test]
fn taken_though_nobody_may_own_the_seat() {
    let terms = terms(&[hall("h", &["x", "y"])]);
    let no = |seat| {
        order(9, "eve", &[seats("h", &[seat])])
            .with_state(OrderState::Rejected(T0, Reason::SeatTaken))
    };
    let story = |seat| {
        let sits = held(1, "ann", &[seats("h", &["x"])]);
        Story::default().place(at(0), at(10), &sits).place(at(20), at(30), &no(seat))
    };
    let (order, item, reason) = (id(9), item("h"), Reason::SeatTaken);
    let fault = Fault::FalselyRefused { order, item, reason };
    assert_eq!(story("y").faults(&terms), [fault]);
    assert_eq!(story("x").faults(&terms), []);
}

#[test]
fn a_pair_is_refused_only_if_one_of_its_items_is_gone() {
    let terms = terms(&[pool("a", 1), pool("b", 1)]);
    let pair = rejected(9, "eve", &[units("a", 1), units("b", 1)]);
    let alone = Story::default().place(at(20), at(30), &pair);
    assert!(matches!(alone.faults(&terms)[..], [Fault::FalselyRefused { .. }]));
    let other = held(1, "ann", &[units("b", 1)]);
    let story = Story::default().place(at(0), at(10), &other).place(at(20), at(30), &pair);
    assert_eq!(story.faults(&terms), []);
    // A pair that was refused owns neither.
    let next = rejected(10, "fay", &[units("a", 1)]);
    let faults = story.place(at(40), at(50), &next).faults(&terms);
    assert!(matches!(faults[..], [Fault::FalselyRefused { .. }]), "{faults:?}");
}

#[test]
fn limited_though_the_buyer_may_have_more() {
    let terms = terms(&[capped("a", 9, 2), pool("b", 9)]);
    let limited = |on, many| {
        let order = order(9, "ann", &[units(on, many)]);
        order.with_state(OrderState::Rejected(T0, Reason::BuyerLimit))
    };
    let story = |no: &Order| {
        let owns = held(1, "ann", &[units("a", 1), units("b", 1)]);
        Story::default().place(at(0), at(10), &owns).place(at(20), at(30), no)
    };
    let refused = |on| {
        let (order, reason) = (id(9), Reason::BuyerLimit);
        [Fault::FalselyRefused { order, item: item(on), reason }]
    };
    assert_eq!(story(&limited("a", 1)).faults(&terms), refused("a"));
    assert_eq!(story(&limited("a", 2)).faults(&terms), []);
    assert_eq!(story(&limited("b", 9)).faults(&terms), refused("b"));
}

#[test]
fn not_open_or_closed_though_it_is_on_sale() {
    let (opens, closes) = (after(Duration::from_secs(60)), after(Duration::from_secs(120)));
    let timed = ItemSpec::builder().id("a").capacity(9).opens_at(opens).closes_at(closes);
    let terms = terms(&[timed.build().expect("an item"), pool("b", 9)]).with_began(T0);
    let refused = |on, from: u64, reason| {
        let story = Story::default();
        let asked = order(1, "ann", &[units(on, 1)]);
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(from + 1));
        story.refuse(from, to, &asked, Answer::TurnedAway(reason)).faults(&terms).len()
    };
    assert_eq!([64, 65].map(|from| refused("a", from, Reason::NotOpen)), [0, 1]);
    assert_eq!([113, 114, 115].map(|from| refused("a", from, Reason::Closed)), [1, 1, 0]);
    assert_eq!([Reason::NotOpen, Reason::Closed].map(|reason| refused("b", 30, reason)), [1, 1]);
    let untimed = Terms { began: None::<Timestamp>, ..terms.clone() };
    let story = Story::default();
    let asked = order(1, "ann", &[units("a", 1)]);
    let story = story.refuse(at(0), at(1), &asked, Answer::TurnedAway(Reason::Closed));
    assert_eq!(story.faults(&untimed), []);
}

#[test]
fn unknown_though_it_was_put_on_sale() {
    let since = |since| {
        let hall = OnSale::new(hall("h", &["x"]));
        Terms::new(vec![OnSale::new(pool("a", 9)).since(since), hall])
    };
    let refused = |line, terms: &Terms| {
        let asked = order(1, "ann", &[line]);
        let from = Duration::from_secs(10);
        Story::default().refuse(from, from + MS, &asked, Answer::NotFound).faults(terms).len()
    };
    let (early, late) = (since(Duration::from_secs(5)), since(at(5_001)));
    assert_eq!(refused(units("a", 1), &early), 1);
    assert_eq!(refused(units("a", 1), &late), 0, "it may not be known everywhere yet");
    assert_eq!(refused(units("elsewhere", 1), &early), 0);
    assert_eq!(refused(units("h", 1), &early), 0, "a hall is asked for seats");
    assert_eq!(refused(seats("h", &["x"]), &early), 1);
}

#[test]
fn something_left_that_somebody_wanted() {
    let terms = terms(&[pool("a", 2), pool("b", 1)]);
    let full = one_from(2, Duration::ZERO);
    let pair = rejected(9, "eve", &[units("a", 1), units("b", 1)]);
    let story = || {
        let story = Story::default().place(at(0), at(1), &one(1)).place(at(0), at(2), &full);
        let story = story.pay(at(2), at(3), &confirmed(&one(1), "p"), "p");
        story.place(at(4), at(5), &pair)
    };
    let rest = terms.clone().at_rest(Demand::CoversStock);
    let undersold =
        |name, available| Fault::Undersold { item: item(name), available, order: id(9) };
    // The second lets its hold end.
    assert_eq!(story().faults(&rest), [undersold("a", 1), undersold("b", 1)]);
    assert_eq!(story().faults(&terms), []);
    assert_eq!(story().faults(&terms.at_rest(Demand::Any)), []);
    let paid = story().pay(at(6), at(7), &confirmed(&full, "p"), "p");
    assert_eq!(paid.faults(&rest), []);
}

#[test]
fn what_is_told_travels_as_json() {
    let told = Told::new(at(1), at(2), Call::Confirm(id(1), payment("p")), Answer::Shown(one(1)));
    let text = serde_json::to_string(&told).expect("it is written");
    assert_eq!(serde_json::from_str::<Told>(&text).expect("it is read"), told);
}

#[test]
fn one_id_for_two_orders_is_the_one_that_is_shown() {
    let terms = terms(&[pool("a", 1), pool("b", 1)]);
    let (on_a, on_b) = (one(1), held(1, "b1", &[units("b", 1)]));
    let story = |other: &Order| {
        let story = Story::default().refuse(at(0), at(10), &on_a, Answer::Reused);
        story.place(at(5), at(10), &on_b).place(at(20), at(30), other)
    };
    assert_eq!(story(&one(2)).faults(&terms), []);
    let oversold = Fault::Oversold { item: item("b"), taken: 2, capacity: 1 };
    assert_eq!(story(&held(2, "b2", &[units("b", 1)])).faults(&terms), [oversold]);
}
