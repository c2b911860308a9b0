//! Comparison of the answers to clients with the stored orders: one decision for
//! an id, with the contents that were asked, and no order lost.

use std::collections::{HashMap, HashSet};

use super::{EndState, Event, Fault, Log, leads_to};
use crate::protocol::{Money, Order, OrderId, Refund};

/// Whether the money of an order that was shown may later be found like this.
fn money_leads_to(shown: &Order, found: &Order) -> bool {
    let is_kept = shown.owed_since() == found.owed_since();
    match (shown.money(), found.money()) {
        (Money::Owed, Money::Owed) => is_kept && shown.payment_ref() == found.payment_ref(),
        (Money::Owed, Money::Refunded) => is_kept,
        (Money::Refunded, Money::Refunded) => is_kept && shown.refund() == found.refund(),
        (Money::Owed | Money::Refunded, _) => false,
        (Money::None | Money::Paid, _) => true,
    }
}

pub(super) fn check(log: &Log, end: &EndState) -> Vec<Fault> {
    let mut faults = Vec::new();
    let stored = end.by_id();
    let mut asked: HashMap<OrderId, Vec<&Order>> = HashMap::new();
    let mut turned_away: HashMap<OrderId, usize> = HashMap::new();
    let mut shown: Vec<&Order> = log.alone.iter().collect();
    for event in &log.events {
        match event {
            Event::Asked(order) => asked.entry(order.id).or_default().push(order),
            Event::Answered(order) => shown.push(order),
            Event::TurnedAway(id) => *turned_away.entry(*id).or_default() += 1,
            Event::Failed(_) => {}
        }
    }

    // One fault for an order and kind tells enough.
    let (mut altered, mut broken) = (HashSet::new(), HashSet::new());
    let mut forgotten = HashSet::new();
    let mut refunds: HashMap<OrderId, &Refund> = HashMap::new();
    for (order, refund) in shown.iter().filter_map(|order| Some((order.id, order.refund()?))) {
        let first = refunds.entry(order).or_insert(refund);
        if *first != refund && forgotten.insert(order) {
            faults.push(Fault::RefundedTwice { order });
        }
    }
    for order in shown {
        match stored.get(&order.id) {
            None => {
                if broken.insert(order.id) {
                    let answered = order.status();
                    faults.push(Fault::Lost { order: order.id, answered });
                }
            }
            Some(found) => {
                if !leads_to(&order.state, &found.state) && broken.insert(order.id) {
                    let (answered, stored) = (order.status(), found.status());
                    faults.push(Fault::AnswerChanged { order: order.id, answered, stored });
                }
                if !broken.contains(&order.id)
                    && !money_leads_to(order, found)
                    && forgotten.insert(order.id)
                {
                    let (answered, stored) = (order.money(), found.money());
                    faults.push(Fault::DebtForgotten { order: order.id, answered, stored });
                }
                if !found.asks_the_same_as(order) && altered.insert(order.id) {
                    faults.push(Fault::Altered { order: order.id });
                }
            }
        }
    }
    for order in &end.orders {
        let attempts = asked.get(&order.id).map_or(&[][..], Vec::as_slice);
        let was_asked = attempts.iter().any(|asked| asked.asks_the_same_as(order));
        if !was_asked && altered.insert(order.id) {
            faults.push(Fault::Altered { order: order.id });
        }
        if turned_away.get(&order.id).is_some_and(|times| *times == attempts.len()) {
            let stored = order.status();
            faults.push(Fault::DecidedAfterTurnedAway { order: order.id, stored });
        }
    }
    faults
}
