//! Refusals that nothing bears out (G8): sold out, taken or limited though nobody
//! may have owned it, closed or unknown though it is on sale.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use super::dossier::{Dossier, Dossiers};
use super::room::Room;
use super::{Answer, Call, Demand, Fault, OnSale, Rest, Terms};
use crate::protocol::{Ask, BuyerId, ItemId, ItemKind, Line, Order, OrderStatus, Reason, SeatId};

type Times = Vec<(Range<Duration>, u32)>;

/// What may have been owned, at most.
struct Taken<'t> {
    units: HashMap<&'t ItemId, Room>,
    of_buyers: HashMap<(&'t ItemId, &'t BuyerId), Room>,
    seats: HashMap<(&'t ItemId, &'t SeatId), Room>,
}

impl<'t> Taken<'t> {
    fn of(dossiers: &Dossiers<'t>, terms: &Terms) -> Self {
        let mut units: HashMap<&ItemId, Times> = HashMap::new();
        let mut of_buyers: HashMap<(&ItemId, &BuyerId), Times> = HashMap::new();
        let mut seats: HashMap<(&ItemId, &SeatId), Times> = HashMap::new();
        for dossier in dossiers.iter() {
            let Some(time) = dossier.may_own(terms) else { continue };
            let lines = |order: &'t Order| order.lines.iter().map(move |line| (order, line));
            for (order, line) in dossier.contents().into_iter().flat_map(lines) {
                let entry = (time.clone(), line.ask.units());
                units.entry(&line.item).or_default().push(entry.clone());
                of_buyers.entry((&line.item, &order.buyer)).or_default().push(entry);
                let Ask::Seats(named) = &line.ask else { continue };
                for seat in named {
                    seats.entry((&line.item, seat)).or_default().push((time.clone(), 1));
                }
            }
        }
        Self {
            units: units.into_iter().map(|(item, times)| (item, Room::of(&times))).collect(),
            of_buyers: of_buyers.into_iter().map(|(of, times)| (of, Room::of(&times))).collect(),
            seats: seats.into_iter().map(|(seat, times)| (seat, Room::of(&times))).collect(),
        }
    }

    fn units(&self, item: &ItemId, time: &Range<Duration>) -> u32 {
        self.units.get(item).map_or(0, |room| room.most_within(time))
    }

    /// Whether at some moment the line may not have fitted.
    fn may_lack(&self, line: &Line, on_sale: &OnSale, time: &Range<Duration>) -> bool {
        let left = on_sale.spec.capacity().saturating_sub(self.units(&line.item, time));
        let is_taken = |seat: &SeatId| {
            let room = self.seats.get(&(&line.item, seat));
            room.is_some_and(|room| room.most_within(time) > 0)
        };
        left < line.ask.units()
            || matches!(&line.ask, Ask::Seats(seats) if seats.iter().any(is_taken))
    }

    /// Whether at some moment the buyer may have been at the cap.
    fn may_be_capped(
        &self,
        buyer: &BuyerId,
        line: &Line,
        on_sale: &OnSale,
        time: &Range<Duration>,
    ) -> bool {
        let Some(cap) = on_sale.spec.max_per_buyer else { return false };
        let room = self.of_buyers.get(&(&line.item, buyer));
        let live = room.map_or(0, |room| room.most_within(time));
        live + line.ask.units() > cap.get()
    }
}

pub(super) fn check(dossiers: &Dossiers<'_>, terms: &Terms) -> Vec<Fault> {
    let taken = Taken::of(dossiers, terms);
    let mut faults = Vec::new();
    for dossier in dossiers.iter() {
        // One that was asked for in several ways may be refused for any of them.
        let [order] = dossier.contents()[..] else { continue };
        let refused = refusals(dossier).into_iter().find_map(|(reason, time)| {
            let item = without_cause(order, reason, &time, &taken, terms)?;
            Some(Fault::FalselyRefused { order: dossier.id, item, reason })
        });
        faults.extend(refused);
        faults.extend(refund_without_cause(dossier, order, &taken, terms));
    }
    if terms.rest == Rest::Yes(Demand::CoversStock) {
        faults.extend(undersold(dossiers, &taken, terms));
    }
    faults
}

/// The refusals of an order: its decision, and those at the gate.
fn refusals(dossier: &Dossier<'_>) -> Vec<(Reason, Range<Duration>)> {
    let at_the_gate = dossier.attempts().filter_map(|told| match told.answer {
        Answer::TurnedAway(reason) => Some((reason, told.asked_at..told.answered_at)),
        Answer::NotFound => Some((Reason::UnknownItem, told.asked_at..told.answered_at)),
        _ => None,
    });
    dossier.rejected().into_iter().chain(at_the_gate).collect()
}

/// The item of which nothing bears out the refusal, if there is none that does.
fn without_cause(
    order: &Order,
    reason: Reason,
    time: &Range<Duration>,
    taken: &Taken<'_>,
    terms: &Terms,
) -> Option<ItemId> {
    for line in order.lines.iter() {
        // Of an item that nobody told us about, anything may be true.
        let on_sale = terms.item(&line.item)?;
        if time.start < terms.returned_by(on_sale.since) && reason == Reason::UnknownItem {
            return None;
        }
        let [opens, closes] = [on_sale.spec.opens_at, on_sale.spec.closes_at];
        let moment = |at: Duration| terms.began.map(|began| began + at);
        let bears_out = match reason {
            Reason::SoldOut | Reason::SeatTaken => taken.may_lack(line, on_sale, time),
            Reason::BuyerLimit => taken.may_be_capped(&order.buyer, line, on_sale, time),
            // The clocks may differ, and one that is shut may be shut a little longer.
            Reason::NotOpen => opens.is_some_and(|opens| {
                moment(time.start).is_none_or(|asked| asked < opens + terms.tolerance)
            }),
            Reason::Closed => closes.is_some_and(|closes| {
                moment(time.end).is_none_or(|answered| answered + terms.tolerance > closes)
            }),
            Reason::UnknownItem => !fits_the_kind(line, on_sale),
        };
        if bears_out {
            return None;
        }
    }
    order.lines.first().map(|line| line.item.clone())
}

fn fits_the_kind(line: &Line, on_sale: &OnSale) -> bool {
    match (&line.ask, &on_sale.spec.kind) {
        (Ask::Units(_), ItemKind::Pool(_)) => true,
        (Ask::Seats(seats), ItemKind::Seats(hall)) => {
            seats.iter().all(|seat| hall.index_of(seat).is_some())
        }
        _ => false,
    }
}

/// G9: late money gets its ticket while there is one, and the cap allows.
fn refund_without_cause(
    dossier: &Dossier<'_>,
    order: &Order,
    taken: &Taken<'_>,
    terms: &Terms,
) -> Option<Fault> {
    let due = dossier.known_by(|status| status == OrderStatus::RefundDue)?;
    let paid = dossier.sent_at(|call| matches!(call, Call::Confirm(..)))?;
    let time = paid..due;
    for line in order.lines.iter() {
        let on_sale = terms.item(&line.item)?;
        if taken.may_lack(line, on_sale, &time)
            || taken.may_be_capped(&order.buyer, line, on_sale, &time)
        {
            return None;
        }
    }
    let item = order.lines.first()?.item.clone();
    Some(Fault::FalselyRefused { order: dossier.id, item, reason: Reason::SoldOut })
}

/// G8: nothing is left that an order would have taken that went without.
fn undersold(dossiers: &Dossiers<'_>, taken: &Taken<'_>, terms: &Terms) -> Vec<Fault> {
    let end = Duration::MAX..Duration::MAX;
    let mut faults: Vec<Fault> = Vec::new();
    for dossier in dossiers.iter() {
        // One that was asked for in several ways may be refused for any of them.
        let [order] = dossier.contents()[..] else { continue };
        let is_unserved = refusals(dossier)
            .iter()
            .any(|(reason, _)| matches!(reason, Reason::SoldOut | Reason::SeatTaken));
        if !is_unserved || dossier.may_own(terms).is_some() {
            continue;
        }
        let fits = order.lines.iter().all(|line| {
            terms.item(&line.item).is_some_and(|on_sale| {
                !taken.may_lack(line, on_sale, &end)
                    && !taken.may_be_capped(&order.buyer, line, on_sale, &end)
            })
        });
        if !fits {
            continue;
        }
        for line in order.lines.iter() {
            let is_told = faults
                .iter()
                .any(|fault| matches!(fault, Fault::Undersold { item, .. } if *item == line.item));
            let Some(on_sale) = terms.item(&line.item).filter(|_| !is_told) else { continue };
            let owned = taken.units(&line.item, &end);
            let available = on_sale.spec.capacity().saturating_sub(owned);
            faults.push(Fault::Undersold { item: line.item.clone(), available, order: dossier.id });
        }
    }
    faults
}
