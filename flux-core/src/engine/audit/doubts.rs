//! What looks like a fault in a listing, and the second look at it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Audit, AuditFault};
use crate::protocol::{
    BuyerId, Item, ItemId, ItemKind, Order, OrderId, OrderStatus, SeatId, Timestamp,
};
use crate::seams::{InventoryStore, SeamError};

/// Longest time after its end that a hold may keep its stock.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);
/// Time that a hold which should have ended has until the second look: a busy machine is
/// no fault.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(3);
/// Most holds that wait for one.
const HOLDS_MAX: usize = 10_000;
/// Times that orders are read while they change from one live state to another.
const LOOKS_MAX: usize = 5;

/// A doubt about orders, to be settled by reading them again.
#[derive(Debug)]
pub(super) enum Doubt {
    Undecided(OrderId),
    NoSuchItem(OrderId, ItemId),
    NoSuchSeat(OrderId, ItemId, SeatId),
    Seat(ItemId, SeatId, [OrderId; 2]),
}

/// Whether the order holds stock well past its hold's end.
pub(super) fn outlived(order: &Order, now: Timestamp) -> bool {
    order.status() == OrderStatus::Held
        && order.hold().is_some_and(|hold| now > hold.expires_at + EXPIRY_GRACE)
}

/// Looks again, and adds what is a fault.
pub(super) async fn settle(
    store: &dyn InventoryStore,
    doubts: Vec<Doubt>,
    audit: &mut Audit,
) -> Result<(), SeamError> {
    for doubt in doubts {
        match doubt {
            Doubt::Undecided(order) => {
                let there = store.orders(&[order]).await?.pop().flatten();
                if there.is_some_and(|order| order.status() == OrderStatus::Queued) {
                    audit.find(AuditFault::Undecided(order));
                }
            }
            Doubt::NoSuchItem(order, item) => {
                let (live, found) = live_beside(store, &[order], &item).await?;
                if live.len() == 1 && found.is_none() {
                    audit.find(AuditFault::NoSuchItem { item, order });
                }
            }
            Doubt::NoSuchSeat(order, item, seat) => {
                let (live, found) = live_beside(store, &[order], &item).await?;
                if live.len() == 1 && found.is_some_and(|item| !has_seat(&item, &seat)) {
                    audit.find(AuditFault::NoSuchSeat { item, seat, order });
                }
            }
            Doubt::Seat(item, seat, orders) => {
                let (live, _) = live_beside(store, &orders, &item).await?;
                if live.len() == orders.len() {
                    audit.find(AuditFault::SeatSoldTwice { item, seat, orders });
                }
            }
        }
    }
    Ok(())
}

pub(super) fn has_seat(item: &Item, seat: &SeatId) -> bool {
    matches!(&item.spec.kind, ItemKind::Seats(hall) if hall.index_of(seat).is_some())
}

/// Adds the buyers that have more units than the cap at one moment, of the orders that
/// were listed for each.
pub(super) async fn settle_buyers(
    store: &dyn InventoryStore,
    buyers: HashMap<(ItemId, BuyerId), Vec<OrderId>>,
    audit: &mut Audit,
) -> Result<(), SeamError> {
    for ((item, buyer), orders) in buyers {
        let (live, found) = live_beside(store, &orders, &item).await?;
        let Some(cap) = found.and_then(|item| item.spec.max_per_buyer) else { continue };
        let lines = live.iter().flat_map(|order| order.lines.iter());
        let units: u64 =
            lines.filter(|line| line.item == item).map(|line| u64::from(line.ask.units())).sum();
        if units > u64::from(cap.get()) {
            audit.find(AuditFault::OverCap { item, buyer, units });
        }
    }
    Ok(())
}

/// The orders that were all live at one moment, and the item as it was read then: an order
/// that is in the same live state before and after was in it all the while, as no order
/// comes back to a state.
async fn live_beside(
    store: &dyn InventoryStore,
    ids: &[OrderId],
    item: &ItemId,
) -> Result<(Vec<Order>, Option<Item>), SeamError> {
    let mut looks = 1;
    loop {
        let before = store.orders(ids).await?;
        let item = store.items(std::slice::from_ref(item)).await?.pop().flatten();
        let after = store.orders(ids).await?;
        let status = |order: &Option<Order>| order.as_ref().map(Order::status);
        let pairs = before.iter().zip(after);
        // One that is paid just now is live before and after, and most likely between.
        let turned = |before: &Option<Order>, after: &Option<Order>| {
            let is_live = |status: OrderStatus| status.owns_stock();
            status(before) != status(after)
                && status(before).is_some_and(is_live)
                && status(after).is_some_and(is_live)
        };
        let is_turning = pairs.clone().any(|(before, after)| turned(before, &after));
        if is_turning && looks < LOOKS_MAX {
            looks += 1;
            continue;
        }
        let same = pairs.filter(|(before, after)| status(before) == status(after));
        let live = same.filter_map(|(_, after)| after.filter(|order| order.status().owns_stock()));
        return Ok((live.collect(), item));
    }
}

/// Holds that should have ended, and when they were found so.
#[derive(Debug, Default)]
pub(super) struct Outlived {
    holds: Vec<OrderId>,
    newest: Option<Instant>,
}

impl Outlived {
    pub(super) fn add(&mut self, holds: Vec<OrderId>) {
        if !holds.is_empty() {
            self.holds.extend(holds);
            self.newest = Some(Instant::now());
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.holds.len() >= HOLDS_MAX
    }

    /// Looks again, once all had time to end.
    pub(super) async fn settle(
        &mut self,
        store: &dyn InventoryStore,
        now: impl Fn() -> Timestamp,
        audit: &mut Audit,
    ) -> Result<(), SeamError> {
        let Some(newest) = self.newest.take() else { return Ok(()) };
        sleep_until(newest + SECOND_LOOK_AFTER).await;
        for ids in std::mem::take(&mut self.holds).chunks(super::recount::PAGE) {
            let orders = store.orders(ids).await?;
            for order in orders.iter().flatten().filter(|order| outlived(order, now())) {
                audit.find(AuditFault::HoldOutlived(order.id));
            }
        }
        Ok(())
    }
}
