//! Units and seats that were certainly owned at one moment: no more than there
//! are (G1), and no more than a buyer may have (G6).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::dossier::{Dossier, Dossiers};
use super::{Fault, Terms};
use crate::protocol::{Ask, BuyerCap, BuyerId, ItemId, OrderId, SeatId};

/// Times, each with what was owned in it, or by whom.
type Times<T> = Vec<(Range<Duration>, T)>;

#[derive(Debug, Default)]
struct Owned<'t> {
    units: BTreeMap<&'t ItemId, Times<u32>>,
    of_buyers: BTreeMap<(&'t ItemId, &'t BuyerId), Times<u32>>,
    seats: BTreeMap<(&'t ItemId, &'t SeatId), Times<OrderId>>,
}

impl<'t> Owned<'t> {
    fn add(&mut self, dossier: &Dossier<'t>, terms: &Terms) {
        for time in dossier.owns(terms) {
            let [order] = dossier.contents()[..] else { return };
            for line in order.lines.iter() {
                let units = line.ask.units();
                self.units.entry(&line.item).or_default().push((time.clone(), units));
                let of_buyer = self.of_buyers.entry((&line.item, &order.buyer)).or_default();
                of_buyer.push((time.clone(), units));
                let Ask::Seats(seats) = &line.ask else { continue };
                for seat in seats {
                    let owners = self.seats.entry((&line.item, seat)).or_default();
                    owners.push((time.clone(), order.id));
                }
            }
        }
    }
}

pub(super) fn check(dossiers: &Dossiers<'_>, terms: &Terms) -> Vec<Fault> {
    let mut owned = Owned::default();
    for dossier in dossiers.iter() {
        owned.add(dossier, terms);
    }
    let mut faults = Vec::new();
    for (item, times) in &owned.units {
        let Some(on_sale) = terms.item(item) else { continue };
        let (taken, capacity) = (most(times), on_sale.spec.capacity());
        if taken > capacity {
            faults.push(Fault::Oversold { item: (*item).clone(), taken, capacity });
        }
    }
    for ((item, seat), owners) in &mut owned.seats {
        owners.sort_by_key(|(time, _)| time.start);
        let mut until = Duration::ZERO;
        for (time, order) in owners.iter() {
            if time.start < until {
                let (item, seat) = ((*item).clone(), (*seat).clone());
                faults.push(Fault::SeatTwice { item, seat, order: *order });
                break;
            }
            until = until.max(time.end);
        }
    }
    for ((item, buyer), times) in &owned.of_buyers {
        let cap = terms.item(item).and_then(|on_sale| on_sale.spec.max_per_buyer);
        let Some(cap) = cap.map(BuyerCap::get) else { continue };
        let live = most(times);
        if live > cap {
            let (item, buyer) = ((*item).clone(), (*buyer).clone());
            faults.push(Fault::OverCap { item, buyer, live, cap });
        }
    }
    faults
}

/// The most units of all moments.
fn most(times: &[(Range<Duration>, u32)]) -> u32 {
    let ends = times.iter().flat_map(|(time, units)| {
        [(time.start, i64::from(*units)), (time.end, -i64::from(*units))]
    });
    let mut ends: Vec<(Duration, i64)> = ends.collect();
    // Of what happens at one moment, the ends come first.
    ends.sort_unstable();
    let mut now = 0;
    let most = ends.iter().map(|(_, change)| {
        now += change;
        now
    });
    most.max().and_then(|most| u32::try_from(most).ok()).unwrap_or_default()
}
