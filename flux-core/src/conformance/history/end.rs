//! The end of a test: the store at rest, recounted from its orders alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{Event, Fault};
use crate::protocol::{
    Ask, BuyerId, BuyerRules, Item, ItemId, ItemKind, Order, OrderId, OrderState, OrderStatus,
    Reason, SeatId, Timestamp,
};
use crate::seams::{InventoryStore, OrderFilter, SeamError};

const PAGE: usize = 1_000;

/// The numbers of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Units that can be ordered.
    pub available: u32,
    /// Units held.
    pub held: u32,
    /// Units paid for.
    pub sold: u32,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} available, {} held, {} sold", self.available, self.held, self.sold)
    }
}

/// Whether stock that is left speaks against the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// Buyers came as they liked: what is left may be left.
    #[default]
    Any,
    /// After the last unit came back, there were buyers for all of it: none of
    /// the orders that went without may fit into what is left.
    CoversStock,
}

/// The contents of a store at rest, and the rules to judge them by.
#[derive(Debug, Clone, Default)]
pub struct EndState {
    /// Every order.
    pub orders: Vec<Order>,
    /// Every item.
    pub items: Vec<Item>,
    /// The time at which they were read.
    pub now: Timestamp,
    /// Longest time after its end that a hold may still be there; endless by
    /// default.
    pub grace: Option<Duration>,
    /// Whether everything had to be sold.
    pub demand: Demand,
    /// The store's rules about buyers, which all orders came under.
    pub rules: BuyerRules,
}

impl EndState {
    /// Reads all there is, page by page.
    ///
    /// # Errors
    /// Whatever the store answers instead, and [`SeamError::Broken`] for a
    /// listing that does not go on.
    pub async fn read<S>(store: &S, now: Timestamp) -> Result<Self, SeamError>
    where
        S: InventoryStore + ?Sized,
    {
        let stuck = || SeamError::broken("store", "a listing shows the same page again");
        let mut end = Self { now, ..Self::default() };
        let mut after = None;
        loop {
            let page = store.list_orders(&OrderFilter::default(), after.as_ref(), PAGE).await?;
            end.orders.extend(page.orders);
            if page.next.is_none() {
                break;
            }
            if page.next == after {
                return Err(stuck());
            }
            after = page.next;
        }
        let mut after: Option<ItemId> = None;
        loop {
            let page = store.list_items(after.as_ref(), PAGE).await?;
            let Some(last) = page.last().map(|item| item.spec.id.clone()) else {
                return Ok(end);
            };
            if after.is_some_and(|after| last <= after) {
                return Err(stuck());
            }
            end.items.extend(page);
            after = Some(last);
        }
    }

    /// The same, with every hold judged that ended more than `grace` ago.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace: Some(grace), ..self }
    }

    /// The same, to be judged by that demand.
    #[must_use]
    pub fn with_demand(self, demand: Demand) -> Self {
        Self { demand, ..self }
    }

    /// The same, to be judged by those rules about buyers. A pause is judged from
    /// [`grace`](Self::grace) after the end of the hold on, as the end must be
    /// written first.
    #[must_use]
    pub fn with_buyer_rules(self, rules: BuyerRules) -> Self {
        Self { rules, ..self }
    }

    /// Each item's numbers as its orders have them; nothing is negative, so an
    /// oversold item has none available.
    #[must_use]
    pub fn recount(&self) -> BTreeMap<ItemId, Numbers> {
        let mut counted: BTreeMap<ItemId, Numbers> = BTreeMap::new();
        for item in &self.items {
            counted.insert(item.spec.id.clone(), Numbers::default());
        }
        for order in self.orders.iter().filter(|order| order.status().owns_stock()) {
            for line in order.lines.iter() {
                let numbers = counted.entry(line.item.clone()).or_default();
                match order.status() {
                    OrderStatus::Held => numbers.held += line.ask.units(),
                    _ => numbers.sold += line.ask.units(),
                }
            }
        }
        for item in &self.items {
            if let Some(numbers) = counted.get_mut(&item.spec.id) {
                let taken = numbers.held + numbers.sold;
                numbers.available = item.spec.capacity().saturating_sub(taken);
            }
        }
        counted
    }

    pub(super) fn by_id(&self) -> HashMap<OrderId, &Order> {
        self.orders.iter().map(|order| (order.id, order)).collect()
    }

    fn live(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter().filter(|order| order.status().owns_stock())
    }

    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let counted = self.recount();
        let mut known = HashSet::new();
        for item in &self.items {
            let id = &item.spec.id;
            known.insert(id);
            let counted = counted.get(id).copied().unwrap_or_default();
            let (taken, capacity) = (counted.held + counted.sold, item.spec.capacity());
            if taken > capacity {
                faults.push(Fault::Oversold { item: id.clone(), taken, capacity });
            }
            let Item { available, held, sold, .. } = *item;
            let shown = Numbers { available, held, sold };
            if shown != counted {
                faults.push(Fault::NotConserved { item: id.clone(), shown, counted });
            }
        }
        let mut owners: HashSet<(&ItemId, &SeatId)> = HashSet::new();
        let mut listed = HashSet::new();
        for order in &self.orders {
            if !listed.insert(order.id) {
                faults.push(Fault::DecidedTwice { order: order.id });
            }
            match &order.state {
                OrderState::Queued => faults.push(Fault::Undecided { order: order.id }),
                OrderState::Held(hold)
                    if self.grace.is_some_and(|grace| hold.expires_at + grace < self.now) =>
                {
                    faults.push(Fault::Overdue { order: order.id });
                }
                _ => {}
            }
        }
        for order in self.live() {
            for line in order.lines.iter() {
                if !known.contains(&line.item) {
                    let item = line.item.clone();
                    faults.push(Fault::HalfTaken { order: order.id, item });
                }
                let Ask::Seats(seats) = &line.ask else { continue };
                for seat in seats.iter().filter(|seat| !owners.insert((&line.item, seat))) {
                    let (item, seat) = (line.item.clone(), seat.clone());
                    faults.push(Fault::SeatTwice { item, seat, order: order.id });
                }
            }
        }
        faults
    }

    /// Finds what the rules about buyers should have barred.
    pub(super) fn hoarded(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(holds_max) = self.rules.holds_max.map(NonZeroU32::get) {
            let mut holds: BTreeMap<&BuyerId, u32> = BTreeMap::new();
            for order in self.orders.iter().filter(|order| order.status() == OrderStatus::Held) {
                *holds.entry(&order.buyer).or_default() += 1;
            }
            let over = holds.into_iter().filter(|(_, holds)| *holds > holds_max);
            faults.extend(over.map(|(buyer, holds)| Fault::TooManyHolds {
                buyer: buyer.clone(),
                holds,
                holds_max,
            }));
        }
        let Some(grace) = self.grace else { return faults };
        let mut pauses: HashMap<_, Vec<(Timestamp, Timestamp, OrderId)>> = HashMap::new();
        for order in &self.orders {
            let Some((hold, until)) = order.hold().zip(self.rules.paused_until(order)) else {
                continue;
            };
            for line in order.lines.iter() {
                let pause = (hold.expires_at + grace, until, order.id);
                pauses.entry((&order.buyer, &line.item)).or_default().push(pause);
            }
        }
        for order in &self.orders {
            let Some(hold) = order.hold() else { continue };
            for line in order.lines.iter() {
                let pauses = pauses.get(&(&order.buyer, &line.item)).into_iter().flatten();
                let within = |(from, until, _): &&(Timestamp, Timestamp, OrderId)| {
                    *from <= hold.decided_at && hold.decided_at < *until
                };
                faults.extend(pauses.filter(within).map(|(.., after)| Fault::HeldInPause {
                    order: order.id,
                    after: *after,
                    item: line.item.clone(),
                }));
            }
        }
        faults
    }

    pub(super) fn over_cap(&self) -> Vec<Fault> {
        let tally = Tally::of(self);
        let over = |(&(item, buyer), &live): (&(&ItemId, &BuyerId), &u32)| {
            let cap = tally.items.get(item)?.spec.max_per_buyer?.get();
            let over = Fault::OverCap { item: item.clone(), buyer: buyer.clone(), live, cap };
            (live > cap).then_some(over)
        };
        tally.live.iter().filter_map(over).collect()
    }

    pub(super) fn undersold(&self, events: &[Event]) -> Vec<Fault> {
        if self.demand == Demand::Any || self.items.iter().all(|item| item.available == 0) {
            return Vec::new();
        }
        let turned_away: HashSet<OrderId> = events
            .iter()
            .filter_map(|event| match event {
                Event::TurnedAway(id) => Some(*id),
                _ => None,
            })
            .collect();
        let stored = self.by_id();
        let never_in = events.iter().filter_map(|event| match event {
            Event::Asked(order)
                if turned_away.contains(&order.id) && !stored.contains_key(&order.id) =>
            {
                Some(order)
            }
            _ => None,
        });
        let no_stock = [Some(Reason::SoldOut), Some(Reason::SeatTaken)];
        let rejected = self.orders.iter().filter(|order| no_stock.contains(&order.reason()));
        let tally = Tally::of(self);
        let mut faults: BTreeMap<&ItemId, Fault> = BTreeMap::new();
        for order in rejected.chain(never_in).filter(|order| tally.would_fit(order)) {
            for line in order.lines.iter() {
                // The first order tells enough of an item.
                faults.entry(&line.item).or_insert_with(|| Fault::Undersold {
                    item: line.item.clone(),
                    available: tally.items.get(&line.item).map_or(0, |item| item.available),
                    order: order.id,
                });
            }
        }
        faults.into_values().collect()
    }
}

/// The units and seats that orders own at the end.
struct Tally<'a> {
    items: HashMap<&'a ItemId, &'a Item>,
    live: BTreeMap<(&'a ItemId, &'a BuyerId), u32>,
    taken: HashSet<(&'a ItemId, &'a SeatId)>,
}

impl<'a> Tally<'a> {
    fn of(end: &'a EndState) -> Self {
        let items = end.items.iter().map(|item| (&item.spec.id, item)).collect();
        let (mut live, mut taken) = (BTreeMap::new(), HashSet::new());
        for order in end.live() {
            for line in order.lines.iter() {
                *live.entry((&line.item, &order.buyer)).or_default() += line.ask.units();
                if let Ask::Seats(seats) = &line.ask {
                    taken.extend(seats.iter().map(|seat| (&line.item, seat)));
                }
            }
        }
        Self { items, live, taken }
    }

    /// Whether the order could be served with what is left.
    fn would_fit(&self, order: &Order) -> bool {
        let mut wanted: BTreeMap<&ItemId, u32> = BTreeMap::new();
        for line in order.lines.iter() {
            *wanted.entry(&line.item).or_default() += line.ask.units();
            let free = |seat| match self.items.get(&line.item).map(|item| &item.spec.kind) {
                Some(ItemKind::Seats(hall)) => {
                    hall.index_of(seat).is_some() && !self.taken.contains(&(&line.item, seat))
                }
                _ => false,
            };
            if let Ask::Seats(seats) = &line.ask
                && !seats.iter().all(free)
            {
                return false;
            }
        }
        wanted.into_iter().all(|(id, units)| {
            self.items.get(id).is_some_and(|item| {
                let live = self.live.get(&(id, &order.buyer)).copied().unwrap_or_default();
                let cap = item.spec.max_per_buyer.map_or(u32::MAX, crate::BuyerCap::get);
                units <= item.available && live + units <= cap
            })
        })
    }
}
