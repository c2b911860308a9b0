//! The recount: reads every order and every item and compares them with each
//! other and with the guarantees.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Ask, BuyerId, Item, ItemId, ItemKind, Order, OrderId, OrderStatus, Reason, SeatId, Timestamp,
};
use crate::seams::{InventoryStore, OrderFilter, OrderPage, SeamError};

const PAGE: usize = 1_000;
/// Longest time after its end that a hold may keep its stock.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);

/// A fault that the recount found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum AuditFault {
    /// G1: more units held and sold than there are.
    Oversold {
        /// The item.
        item: ItemId,
        /// Units held and sold.
        taken: u64,
        /// Units in all.
        capacity: u32,
    },
    /// G1: two live orders own one seat.
    SeatSoldTwice {
        /// The item.
        item: ItemId,
        /// The seat.
        seat: SeatId,
        /// Its owners.
        orders: [OrderId; 2],
    },
    /// G1: a live order owns a seat that is not in the hall.
    NoSuchSeat {
        /// The item.
        item: ItemId,
        /// The seat.
        seat: SeatId,
        /// Its owner.
        order: OrderId,
    },
    /// G2: the item's numbers are not those of its orders.
    Unbalanced {
        /// The item.
        item: ItemId,
        /// The store's numbers: available, held, sold.
        says: [u64; 3],
        /// The same, added up from its orders.
        counted: [u64; 3],
    },
    /// G3: an order id is there twice.
    DecidedTwice(OrderId),
    /// G4: an order lies in the store undecided.
    Undecided(OrderId),
    /// G5: a live order takes units of an item that is not there.
    NoSuchItem {
        /// The item.
        item: ItemId,
        /// The order.
        order: OrderId,
    },
    /// G6: a buyer has more units than the item's cap.
    OverCap {
        /// The item.
        item: ItemId,
        /// The buyer.
        buyer: BuyerId,
        /// Units held and owned.
        units: u64,
    },
    /// G8: a hold ended and its stock is still set aside.
    HoldOutlived(OrderId),
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversold { item, taken, capacity } => {
                write!(f, "G1: {item} has {taken} units held and sold, of {capacity}")
            }
            Self::SeatSoldTwice { item, seat, orders: [one, other] } => {
                write!(f, "G1: seat {seat} of {item} belongs to {one} and to {other}")
            }
            Self::NoSuchSeat { item, seat, order } => {
                write!(f, "G1: {order} owns seat {seat}, which {item} doesn't have")
            }
            Self::Unbalanced { item, says, counted } => write!(
                f,
                "G2: {item} says available, held, sold = {says:?}, its orders say {counted:?}"
            ),
            Self::DecidedTwice(order) => write!(f, "G3: {order} is recorded twice"),
            Self::Undecided(order) => write!(f, "G4: {order} is recorded undecided"),
            Self::NoSuchItem { item, order } => {
                write!(f, "G5: {order} owns units of {item}, which doesn't exist")
            }
            Self::OverCap { item, buyer, units } => {
                write!(f, "G6: {buyer} has {units} units of {item}, over its cap")
            }
            Self::HoldOutlived(order) => write!(f, "G8: the hold of {order} ended long ago"),
        }
    }
}

/// The counts and faults of one [`Flux::audit`](super::Flux::audit).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Audit {
    /// Items read.
    pub items: u64,
    /// Units in all.
    pub capacity: u64,
    /// Units available, as the items say.
    pub available: u64,
    /// Orders in each state.
    pub orders: HashMap<OrderStatus, u64>,
    /// Rejected orders for each reason.
    pub rejected: HashMap<Reason, u64>,
    /// The faults; empty when all is well.
    pub faults: Vec<AuditFault>,
}

impl Audit {
    /// Whether no fault was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// Orders in this state.
    #[must_use]
    pub fn count(&self, status: OrderStatus) -> u64 {
        self.orders.get(&status).copied().unwrap_or_default()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orders: u64 = self.orders.values().sum();
        let items = if self.items == 1 { "item" } else { "items" };
        writeln!(
            f,
            "{} {items}, {} units, {} available",
            self.items, self.capacity, self.available
        )?;
        write!(f, "{orders} orders")?;
        let mut by_status: Vec<_> = self.orders.iter().collect();
        by_status.sort();
        for (status, count) in by_status {
            write!(f, ", {count} {status}")?;
        }
        writeln!(f)?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        match self.faults.len() {
            0 => write!(f, "audit: 0 faults"),
            faults => write!(f, "audit: {faults} FAULTS"),
        }
    }
}

#[derive(Default)]
struct Tally {
    held: u64,
    sold: u64,
    seats: HashMap<SeatId, OrderId>,
    buyers: HashMap<BuyerId, u64>,
}

/// A recount on its way.
#[derive(Default)]
struct Recount {
    audit: Audit,
    items: HashMap<ItemId, (Item, Tally)>,
    ids: Vec<OrderId>,
}

/// Recounts a store at rest.
pub(super) async fn run(store: &dyn InventoryStore, now: Timestamp) -> Result<Audit, SeamError> {
    let mut recount = Recount::default();
    let mut last: Option<ItemId> = None;
    loop {
        let page = store.list_items(last.as_ref(), PAGE).await?;
        let Some(end) = page.last() else { break };
        last = Some(end.spec.id.clone());
        recount.items.extend(page.into_iter().map(|i| (i.spec.id.clone(), (i, Tally::default()))));
    }
    let mut after = None;
    loop {
        let page = store.list_orders(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        let OrderPage { orders, next } = page;
        recount = aside(move || recount.judge(&orders, now)).await;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(aside(move || recount.finish()).await)
}

/// Computes on a thread that may take its time.
async fn aside<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> T {
    let computed = tokio::task::spawn_blocking(compute).await;
    computed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Recount {
    fn judge(mut self, orders: &[Order], now: Timestamp) -> Self {
        for order in orders {
            self.ids.push(order.id);
            self.audit.judge(order, &mut self.items, now);
        }
        self
    }

    fn finish(self) -> Audit {
        let Self { mut audit, items, mut ids } = self;
        ids.sort_unstable();
        let twice = ids.windows(2).filter(|pair| pair[0] == pair[1]);
        audit.faults.extend(twice.map(|pair| AuditFault::DecidedTwice(pair[0])));
        for (item, tally) in items.into_values() {
            audit.judge_item(&item, tally);
        }
        audit
    }
}

impl Audit {
    fn judge(&mut self, order: &Order, items: &mut HashMap<ItemId, (Item, Tally)>, now: Timestamp) {
        let status = order.status();
        *self.orders.entry(status).or_default() += 1;
        if let Some(reason) = order.reason() {
            *self.rejected.entry(reason).or_default() += 1;
        }
        if status == OrderStatus::Queued {
            self.faults.push(AuditFault::Undecided(order.id));
        }
        if !status.owns_stock() {
            return;
        }
        if status == OrderStatus::Held
            && order.hold().is_some_and(|hold| now > hold.expires_at + EXPIRY_GRACE)
        {
            self.faults.push(AuditFault::HoldOutlived(order.id));
        }
        for line in order.lines.iter() {
            let Some((item, tally)) = items.get_mut(&line.item) else {
                let (item, order) = (line.item.clone(), order.id);
                self.faults.push(AuditFault::NoSuchItem { item, order });
                continue;
            };
            let units = u64::from(line.ask.units());
            match status {
                OrderStatus::Held => tally.held += units,
                _ => tally.sold += units,
            }
            if item.spec.max_per_buyer.is_some() {
                *tally.buyers.entry(order.buyer.clone()).or_default() += units;
            }
            let Ask::Seats(seats) = &line.ask else { continue };
            for seat in seats {
                let item_id = || item.spec.id.clone();
                if !matches!(&item.spec.kind, ItemKind::Seats(hall) if hall.index_of(seat).is_some())
                {
                    let (item, seat, order) = (item_id(), seat.clone(), order.id);
                    self.faults.push(AuditFault::NoSuchSeat { item, seat, order });
                }
                if let Some(other) = tally.seats.insert(seat.clone(), order.id) {
                    let (item, seat, orders) = (item_id(), seat.clone(), [other, order.id]);
                    self.faults.push(AuditFault::SeatSoldTwice { item, seat, orders });
                }
            }
        }
    }

    fn judge_item(&mut self, item: &Item, tally: Tally) {
        let capacity = item.spec.capacity();
        self.items += 1;
        self.capacity += u64::from(capacity);
        self.available += u64::from(item.available);
        let id = || item.spec.id.clone();
        let taken = tally.held + tally.sold;
        if taken > u64::from(capacity) {
            self.faults.push(AuditFault::Oversold { item: id(), taken, capacity });
        }
        let says = [item.available, item.held, item.sold].map(u64::from);
        let counted = [u64::from(capacity).saturating_sub(taken), tally.held, tally.sold];
        if says != counted {
            self.faults.push(AuditFault::Unbalanced { item: id(), says, counted });
        }
        let Some(cap) = item.spec.max_per_buyer else { return };
        for (buyer, units) in tally.buyers {
            if units > u64::from(cap.get()) {
                self.faults.push(AuditFault::OverCap { item: id(), buyer, units });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_is_read_as_it_is_written() -> Result<(), Box<dyn std::error::Error>> {
        let (item, order) = (ItemId::new("a")?, OrderId::from_uuid(uuid::Uuid::nil()));
        let audit = Audit {
            orders: HashMap::from([(OrderStatus::Held, 2)]),
            rejected: HashMap::from([(Reason::SoldOut, 1)]),
            faults: vec![
                AuditFault::Oversold { item, taken: 2, capacity: 1 },
                AuditFault::DecidedTwice(order),
            ],
            ..Audit::default()
        };
        let text = serde_json::to_string(&audit)?;
        assert!(text.contains(r#"{"oversold":{"item":"a","taken":2,"capacity":1}}"#), "{text}");
        assert_eq!(serde_json::from_str::<Audit>(&text)?, audit);
        Ok(())
    }
}
