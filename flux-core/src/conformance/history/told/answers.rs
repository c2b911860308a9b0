//! One order at a time: its answers agree with each other and with what was
//! asked, and it is found again (G3, G4, G9, and the end of its hold).

use std::time::Duration;

use super::dossier::{Dossier, is_attempt};
use super::{Answer, Call, Fault, Rest, Terms, Told};
use crate::conformance::history::leads_to;
use crate::protocol::{Ask, Line, Order, OrderState, OrderStatus};

/// One fault of each kind for an order tells enough.
pub(super) fn check(dossier: &Dossier<'_>, terms: &Terms) -> Vec<Fault> {
    let faults = [
        altered(dossier),
        changed(dossier),
        unasked(dossier),
        lost(dossier, terms),
        after_turned_away(dossier),
        undecided(dossier, terms),
        ended_early(dossier, terms),
        payment_refused(dossier),
        overdue(dossier, terms),
    ];
    faults.into_iter().flatten().collect()
}

/// G3, G5: it is shown as it was asked, all of it.
fn altered(dossier: &Dossier<'_>) -> Option<Fault> {
    let asked: Vec<&Order> = dossier
        .attempts()
        .filter_map(|told| match &told.call {
            Call::Place(order) | Call::PlaceByKey(order) => Some(order),
            _ => None,
        })
        .collect();
    let is_asked = |shown: &Order| asked.iter().any(|asked| asked.asks_the_same_as(shown));
    let is_one = asked.windows(2).all(|two| two[0].asks_the_same_as(two[1]));
    let reused = is_one && dossier.attempts().any(|told| told.answer == Answer::Reused);
    let altered = !asked.is_empty() && dossier.shown().any(|(_, shown)| !is_asked(shown));
    let in_part = |(_, shown): (&Told, &Order)| asked.iter().any(|asked| is_part(shown, asked));
    if altered && dossier.shown().any(in_part) {
        return Some(Fault::ServedInPart { order: dossier.id });
    }
    (reused || altered).then_some(Fault::Altered { order: dossier.id })
}

/// Whether the order got some of what `asked` asks for, and no more.
fn is_part(order: &Order, asked: &Order) -> bool {
    let units = |order: &Order| order.lines.iter().map(|line| line.ask.units()).sum::<u32>();
    let is_asked = |line: &Line| {
        asked.lines.iter().any(|asked| match (&line.ask, &asked.ask) {
            _ if line.item != asked.item => false,
            (Ask::Units(got), Ask::Units(asked)) => got.get() <= asked.get(),
            (Ask::Seats(got), Ask::Seats(asked)) => got.iter().all(|seat| asked.contains(seat)),
            _ => false,
        })
    };
    order.hold().is_some()
        && order.buyer == asked.buyer
        && units(order) < units(asked)
        && order.lines.iter().all(is_asked)
}

/// G3: what is shown later follows from what was shown before.
fn changed(dossier: &Dossier<'_>) -> Option<Fault> {
    let shown: Vec<(&Told, &Order)> = dossier.shown().collect();
    for (at, (first, was)) in shown.iter().enumerate() {
        for (second, is) in &shown[at + 1..] {
            let is_later = first.answered_at < second.asked_at;
            // Of two answers on their way at once, either may be the earlier.
            let agrees =
                leads_to(&was.state, &is.state) || (!is_later && leads_to(&is.state, &was.state));
            if agrees {
                continue;
            }
            let decisions = [was, is].map(|order| (order.decided_at(), order.reason()));
            let both_decided = decisions.iter().all(|(decided_at, _)| decided_at.is_some());
            return Some(if both_decided && decisions[0] != decisions[1] {
                Fault::DecidedTwice { order: dossier.id }
            } else {
                let (answered, stored) = (was.status(), is.status());
                Fault::AnswerChanged { order: dossier.id, answered, stored }
            });
        }
    }
    None
}

/// G3: nothing is paid for, given back or cancelled that nobody asked to.
fn unasked(dossier: &Dossier<'_>) -> Option<Fault> {
    let mut steps = dossier.shown().filter(|(told, order)| {
        let sent = |is: &dyn Fn(&Call) -> bool| {
            dossier.sent_at(is).is_some_and(|sent| sent <= told.answered_at)
        };
        let is_paid = |payment| sent(&|call| matches!(call, Call::Confirm(_, by) if by == payment));
        match &order.state {
            OrderState::Released(_) => !sent(&|call| matches!(call, Call::Release(_))),
            OrderState::Confirmed(_, payment) | OrderState::RefundDue(_, payment) => {
                !is_paid(payment)
            }
            OrderState::Cancelled(_, payment) => {
                !is_paid(payment) || !sent(&|call| matches!(call, Call::Cancel(_)))
            }
            OrderState::Queued
            | OrderState::Held(_)
            | OrderState::Expired(_)
            | OrderState::Rejected(..) => false,
        }
    });
    let (_, order) = steps.next()?;
    let (from, to) = (Some(OrderStatus::Held), order.status());
    Some(Fault::IllegalStep { order: dossier.id, from, to })
}

/// G4: once shown, it is found again. A repeat never meets the gate.
fn lost(dossier: &Dossier<'_>, terms: &Terms) -> Option<Fault> {
    let missing = dossier.told.iter().filter(|told| match told.answer {
        Answer::NotFound => true,
        Answer::TurnedAway(_) => is_attempt(told),
        _ => false,
    });
    let last = dossier.shown().map(|(told, _)| told.answered_at).max();
    for told in missing {
        let was = dossier.shown().find(|(earlier, order)| {
            let kept = match order.status() {
                OrderStatus::Rejected | OrderStatus::Queued => terms.keep_rejected,
                _ => Duration::MAX,
            };
            // It may not be known until it is decided, which it has to be in the end.
            let may_hide = terms.hidden_queue
                && order.state == OrderState::Queued
                && (terms.rest == Rest::No || last.is_some_and(|last| last > told.asked_at));
            !may_hide
                && earlier.answered_at < told.asked_at
                && told.answered_at <= earlier.asked_at.saturating_add(kept)
        });
        if let Some((_, order)) = was {
            return Some(Fault::Lost { order: dossier.id, answered: order.status() });
        }
    }
    None
}

/// G3: what the gate turned away each time is not decided.
fn after_turned_away(dossier: &Dossier<'_>) -> Option<Fault> {
    let mut attempts = dossier.attempts().peekable();
    attempts.peek()?;
    if !attempts.all(|told| matches!(told.answer, Answer::TurnedAway(_))) {
        return None;
    }
    let (_, order) = dossier.shown().next()?;
    Some(Fault::DecidedAfterTurnedAway { order: dossier.id, stored: order.status() })
}

/// G4: at rest, all that was accepted is decided.
fn undecided(dossier: &Dossier<'_>, terms: &Terms) -> Option<Fault> {
    let (_, last) = dossier.shown().max_by_key(|(told, _)| told.answered_at)?;
    let is_open = terms.rest != Rest::No && last.state == OrderState::Queued;
    let is_decided = dossier.known_by(|status| status != OrderStatus::Queued).is_some();
    (is_open && !is_decided).then_some(Fault::Undecided { order: dossier.id })
}

/// G3, G9: a hold lasts to its end; who pays before it owes nothing more.
fn ended_early(dossier: &Dossier<'_>, terms: &Terms) -> Option<Fault> {
    let end = dossier.hold_ends_from(terms)?;
    let known_early = |status| dossier.known_by(|shown| shown == status).is_some_and(|by| by < end);
    if known_early(OrderStatus::RefundDue) {
        return Some(Fault::RefundNotOwed { order: dossier.id });
    }
    known_early(OrderStatus::Expired).then_some(Fault::EndedEarly { order: dossier.id })
}

/// G9: money for an order that was held, and was not given back, gets a ticket or
/// a refund.
fn payment_refused(dossier: &Dossier<'_>) -> Option<Fault> {
    let held = dossier
        .known_by(|status| !matches!(status, OrderStatus::Queued | OrderStatus::Rejected))?;
    let mut payments = dossier.told.iter().filter(|told| matches!(told.call, Call::Confirm(..)));
    let refused = payments.find(|told| {
        let is_other = |call: &Call| match (call, &told.call) {
            (Call::Confirm(_, other), Call::Confirm(_, this)) => other != this,
            _ => false,
        };
        let may_differ = [
            dossier.released_from(),
            dossier.cancelled_from(),
            dossier.sent_at(is_other).unwrap_or(Duration::MAX),
        ];
        told.answer == Answer::NotAllowed
            && held < told.asked_at
            && may_differ.iter().all(|from| *from > told.answered_at)
    });
    refused.map(|_| Fault::PaymentRefused { order: dossier.id })
}

/// G8: nobody is shown a hold long after its end.
fn overdue(dossier: &Dossier<'_>, terms: &Terms) -> Option<Fault> {
    let gone = terms.returned_by(dossier.hold_ends_by()?);
    let is_late = |(told, order): (&Told, &Order)| {
        matches!(order.state, OrderState::Held(_)) && told.asked_at > gone
    };
    dossier.shown().any(is_late).then_some(Fault::Overdue { order: dossier.id })
}
