//! A replay of the writes, item by item in the order of the tokens.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{EndState, Fate, Fault, Grant, Log, Write, leads_to, rejections};
use crate::protocol::{
    Ask, BuyerId, Effect, Expect, FencingToken, ItemId, ItemSpec, Order, OrderId, OrderStatus,
    OrderWrite, SeatId,
};

/// The turn of a claim or a write among those of its item.
pub(super) type Turn = (u32, FencingToken);

pub(super) fn check(log: &Log, end: &EndState) -> Vec<Fault> {
    let stored = end.by_id();
    let applied = applied(log, &stored);
    let mut grants: BTreeMap<&ItemId, Vec<&Grant>> = BTreeMap::new();
    for grant in &log.grants {
        grants.entry(&grant.spec.id).or_default().push(grant);
    }
    let mut faults = Vec::new();
    for (item, grants) in &grants {
        faults.extend(tokens(item, grants));
        faults.extend(stale(item, grants, &applied));
        faults.extend(stock(item, grants, &applied));
    }
    faults.extend(unclaimed(&applied, &grants));
    faults.extend(rejections::check(log, &applied, &grants, end.rules));
    faults.extend(orders(&applied, &stored));
    faults
}

/// The writes that took effect. One without an answer did if the order is on
/// the way it led to, and no other write can have set it there.
fn applied<'a>(log: &'a Log, stored: &HashMap<OrderId, &Order>) -> Vec<&'a Write> {
    let (mut applied, mut open) = (Vec::new(), Vec::new());
    for write in &log.writes {
        match write.fate {
            Fate::Applied => applied.push(write),
            Fate::Open => open.push(write),
            Fate::Refused => {}
        }
    }
    open.sort_by_key(|write| (write.life, write.commit.claims.first().map(|c| c.1), write.began));
    let ways = |write: &Write| -> Vec<_> {
        moves(write).map(|w| (w.order.id, w.expect.status())).collect()
    };
    let mut left: HashSet<_> = applied.iter().copied().flat_map(ways).collect();
    let may_be_left: HashSet<_> = open.iter().copied().flat_map(ways).collect();
    for write in open {
        let took_effect = |w: &OrderWrite| {
            let (id, to) = (w.order.id, w.order.status());
            let Some(found) = stored.get(&id) else { return false };
            // A confirm leaves a hold too, and is no commit.
            let goes_on = to == OrderStatus::Held
                || left.contains(&(id, Some(to)))
                || may_be_left.contains(&(id, Some(to)));
            let on_the_way =
                found.state == w.order.state || (goes_on && leads_to(&w.order.state, &found.state));
            on_the_way && !left.contains(&(id, w.expect.status()))
        };
        if moves(write).any(took_effect) {
            left.extend(ways(write));
            applied.push(write);
        }
    }
    applied
}

/// The writes that take their order to another state. Where its money stands is judged by
/// what clients were told.
fn moves(write: &Write) -> impl Iterator<Item = &OrderWrite> {
    write.commit.writes.iter().filter(|write| !matches!(write.expect, Expect::Money(..)))
}

/// Finds tokens that are not larger than every one given before they were asked
/// for.
fn tokens(item: &ItemId, grants: &[&Grant]) -> Vec<Fault> {
    let (mut by_begin, mut by_end) = (grants.to_vec(), grants.to_vec());
    by_begin.sort_by_key(|grant| (grant.life, grant.began));
    by_end.sort_by_key(|grant| (grant.life, grant.ended));
    let mut given = by_end.into_iter().peekable();
    let mut largest: Option<Turn> = None;
    let (mut seen, mut faults) = (HashSet::new(), Vec::new());
    for grant in by_begin {
        let before = |earlier: &&Grant| (earlier.life, earlier.ended) < (grant.life, grant.began);
        while let Some(earlier) = given.next_if(before) {
            largest = largest.max(Some((earlier.life, earlier.token)));
        }
        let turn = (grant.life, grant.token);
        if !seen.insert(turn) || largest.is_some_and(|largest| turn <= largest) {
            faults.push(Fault::TokenNotNew { item: item.clone(), token: grant.token });
        }
    }
    faults
}

pub(super) fn token_of(write: &Write, item: &ItemId) -> Option<FencingToken> {
    write.commit.claims.iter().find(|(claimed, _)| claimed == item).map(|(_, token)| *token)
}

/// Finds writes that began after a later claim was answered.
fn stale(item: &ItemId, grants: &[&Grant], applied: &[&Write]) -> Vec<Fault> {
    let mut by_end: Vec<(u32, u64, FencingToken)> =
        grants.iter().map(|grant| (grant.life, grant.ended, grant.token)).collect();
    by_end.sort_unstable();
    let mut newest: Option<Turn> = None;
    for entry in &mut by_end {
        newest = newest.max(Some((entry.0, entry.2)));
        entry.2 = newest.map_or(entry.2, |turn| turn.1);
    }
    let mut faults = Vec::new();
    for write in applied {
        let Some(token) = token_of(write, item) else { continue };
        let earlier =
            by_end.partition_point(|(life, ended, _)| (*life, *ended) < (write.life, write.began));
        let newest = by_end[..earlier].last().filter(|entry| entry.0 == write.life);
        if newest.is_some_and(|(_, _, newest)| *newest > token) {
            faults.push(Fault::StaleWrite { item: item.clone(), token });
        }
    }
    faults
}

/// Finds stock that moved without a claim of its item.
fn unclaimed(applied: &[&Write], grants: &BTreeMap<&ItemId, Vec<&Grant>>) -> Vec<Fault> {
    let given: HashSet<(&ItemId, Turn)> =
        grants.values().flatten().map(|grant| (&grant.spec.id, turn_of(grant))).collect();
    let mut faults = Vec::new();
    for write in applied {
        for moved in write.commit.writes.iter().filter(|w| w.effect() != Effect::None) {
            for line in moved.order.lines.iter() {
                let token = token_of(write, &line.item);
                if token.is_none_or(|token| !given.contains(&(&line.item, (write.life, token)))) {
                    let item = line.item.clone();
                    faults.push(Fault::Unclaimed { order: moved.order.id, item });
                }
            }
        }
    }
    faults
}

/// The units and seats of one item that are taken.
#[derive(Default)]
struct Ledger<'a> {
    taken: i64,
    buyers: HashMap<&'a BuyerId, i64>,
    seats: HashMap<&'a SeatId, i64>,
}

pub(super) fn turn_of(grant: &Grant) -> Turn {
    (grant.life, grant.token)
}

/// The writes of an item, in their order. Commits under one token that
/// overlapped may have come in either order; they count as one burst.
pub(super) fn bursts<'w>(item: &ItemId, applied: &[&'w Write]) -> Vec<(Turn, Vec<&'w Write>)> {
    let mut writes: Vec<(Turn, &Write)> = applied
        .iter()
        .filter_map(|write| Some(((write.life, token_of(write, item)?), *write)))
        .collect();
    writes.sort_by_key(|(turn, write)| (*turn, write.began));
    let mut bursts: Vec<(Turn, Vec<&Write>)> = Vec::new();
    let mut last_ended = None;
    for (turn, write) in writes {
        match bursts.last_mut() {
            Some((last, burst))
                if *last == turn && last_ended.is_none_or(|ended| write.began <= ended) =>
            {
                last_ended = last_ended.and_then(|ended| Some(write.ended?.max(ended)));
                burst.push(write);
            }
            _ => {
                last_ended = write.ended;
                bursts.push((turn, vec![write]));
            }
        }
    }
    bursts
}

/// The units of an item that an order asks for.
pub(super) fn units_of(order: &Order, item: &ItemId) -> i64 {
    let lines = order.lines.iter().filter(|line| line.item == *item);
    lines.map(|line| i64::from(line.ask.units())).sum()
}

/// Checks the item's capacity and caps after every commit, or burst of them.
fn stock(item: &ItemId, grants: &[&Grant], applied: &[&Write]) -> Vec<Fault> {
    let terms: HashMap<Turn, &ItemSpec> =
        grants.iter().map(|grant| (turn_of(grant), &*grant.spec)).collect();
    let (mut ledger, mut faults, mut oversold) = (Ledger::default(), Vec::new(), false);
    for (turn, burst) in bursts(item, applied) {
        let mut gained: BTreeMap<&BuyerId, i64> = BTreeMap::new();
        let mut seated: BTreeMap<&SeatId, OrderId> = BTreeMap::new();
        for write in burst.iter().flat_map(|write| &write.commit.writes) {
            let sign = match write.effect() {
                Effect::Takes => 1,
                Effect::GivesBack => -1,
                Effect::None => continue,
            };
            for line in write.order.lines.iter().filter(|line| line.item == *item) {
                let units = sign * i64::from(line.ask.units());
                ledger.taken += units;
                *ledger.buyers.entry(&write.order.buyer).or_default() += units;
                *gained.entry(&write.order.buyer).or_default() += units;
                let Ask::Seats(seats) = &line.ask else { continue };
                for seat in seats {
                    *ledger.seats.entry(seat).or_default() += sign;
                    seated.insert(seat, write.order.id);
                }
            }
        }
        for (seat, order) in seated {
            if ledger.seats.get(seat).is_some_and(|owners| *owners > 1) {
                faults.push(Fault::SeatTwice { item: item.clone(), seat: seat.clone(), order });
            }
        }
        let Some(terms) = terms.get(&turn) else { continue };
        if ledger.taken > i64::from(terms.capacity()) && !oversold {
            // The first moment tells enough.
            oversold = true;
            let (taken, capacity) = (ledger.taken as u32, terms.capacity());
            faults.push(Fault::Oversold { item: item.clone(), taken, capacity });
        }
        let Some(cap) = terms.max_per_buyer.map(crate::BuyerCap::get) else { continue };
        for buyer in gained.into_iter().filter(|(_, gained)| *gained > 0).map(|(buyer, _)| buyer) {
            let live = ledger.buyers.get(buyer).copied().unwrap_or_default();
            if live > i64::from(cap) {
                let (item, buyer, live) = (item.clone(), buyer.clone(), live as u32);
                faults.push(Fault::OverCap { item, buyer, live, cap });
            }
        }
    }
    faults
}

/// Checks that each order went one way, once, and is stored as it ended.
fn orders(applied: &[&Write], stored: &HashMap<OrderId, &Order>) -> Vec<Fault> {
    let mut writes: BTreeMap<OrderId, Vec<&OrderWrite>> = BTreeMap::new();
    for write in applied.iter().flat_map(|write| moves(write)) {
        writes.entry(write.order.id).or_default().push(write);
    }
    let mut faults = Vec::new();
    for (&order, writes) in &writes {
        faults.extend(steps(order, writes, stored.get(&order).copied()));
    }
    let unwritten = stored.values().filter(|order| !writes.contains_key(&order.id));
    faults.extend(unwritten.map(|order| Fault::Unaccounted {
        order: order.id,
        written: None,
        stored: Some(order.status()),
    }));
    faults
}

fn steps(order: OrderId, writes: &[&OrderWrite], stored: Option<&Order>) -> Vec<Fault> {
    use OrderStatus::{Cancelled, Confirmed, Expired, Held, RefundDue, Rejected, Released};
    let mut faults = Vec::new();
    // No order comes to the same state twice, so each state is left once.
    let mut ways: HashMap<Option<OrderStatus>, OrderStatus> = HashMap::new();
    for write in writes {
        let (from, to) = (write.expect.status(), write.order.status());
        let legal = matches!(
            (from, to),
            (None, Held | Rejected)
                | (Some(Held), Released | Expired | Confirmed)
                | (Some(Expired), Confirmed | RefundDue)
                | (Some(Confirmed), Cancelled)
        );
        if to == RefundDue && from != Some(Expired) {
            faults.push(Fault::RefundNotOwed { order });
        } else if !legal {
            faults.push(Fault::IllegalStep { order, from, to });
        }
        if ways.insert(from, to).is_some() {
            faults.push(match write.effect() {
                Effect::GivesBack => Fault::GivenBackTwice { order },
                Effect::Takes | Effect::None => Fault::DecidedTwice { order },
            });
        }
    }
    let mut at = None;
    loop {
        at = match ways.remove(&at) {
            Some(to) => Some(to),
            // Paid: a confirm is no commit.
            None if at == Some(Held)
                && (ways.contains_key(&Some(Confirmed))
                    || stored.is_some_and(|order| order.status() == Confirmed)) =>
            {
                Some(Confirmed)
            }
            None => break,
        };
    }
    let found = stored.map(Order::status);
    if faults.is_empty() && (at != found || !ways.is_empty()) {
        faults.push(Fault::Unaccounted { order, written: at, stored: found });
    }
    faults
}
