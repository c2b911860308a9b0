//! The recount: reads every order and every item, page by page, and compares them with
//! each other and with the guarantees, while the sale goes on or at rest.
//!
//! No page is of the same moment as the next, so what looks like a fault may be movement:
//! a seat that was given back and sold again is listed with two owners. Each kind is told
//! from movement by what can't move back:
//!
//! - *One order* ([`doubts`]): it is read again, after a while where it has time to change.
//! - *One seat, one buyer* ([`doubts`]): an order that is found in one live state twice was
//!   in it all the time between, as no order comes back to a state. Orders that are all
//!   found so twice were live together.
//! - *The units of an item* ([`sums`]): its stock is read between two listings of all orders.
//!   What the first shows was there before, and what the second doesn't show was not there
//!   after, so the units that were taken at that moment lie between two numbers. They are
//!   the same where nothing moved. A fault counts once it is found in two such counts.
//!
//! Memory is bounded by the number of items. What is kept of orders, of seats and of buyers
//! ([`keys`]) is a share of them that fits, and the others have further listings.

mod doubts;
mod keys;
mod recount;
mod sums;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(super) use self::recount::run;
use crate::protocol::{BuyerId, ItemId, OrderId, OrderStatus, Reason, SeatId};

/// Most faults that are told.
const FAULTS_MAX: usize = 1_000;

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
    /// Items whose orders changed while they were counted: their numbers were compared
    /// as closely as that allows.
    #[serde(default)]
    pub moving: u64,
    /// The faults, the first 1,000 of them; empty when all is well.
    pub faults: Vec<AuditFault>,
}

impl Audit {
    /// Whether no fault was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds a fault, if there is room for it.
    fn find(&mut self, fault: AuditFault) {
        // A store that nobody served for a while is full of ended holds: they leave room.
        let max = match fault {
            AuditFault::HoldOutlived(_) => FAULTS_MAX / 2,
            _ => FAULTS_MAX,
        };
        if self.faults.len() < max && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
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
        if self.moving > 0 {
            let items = if self.moving == 1 { "item" } else { "items" };
            writeln!(f, "{} {items} moved while they were counted", self.moving)?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        match self.faults.len() {
            0 => write!(f, "audit: 0 faults"),
            faults => write!(f, "audit: {faults} FAULTS"),
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
