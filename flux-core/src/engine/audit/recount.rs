//! The listings of a recount, and what is compared after each.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::doubts::{Doubt, Outlived, has_seat, outlived, settle, settle_buyers};
use super::keys::Keys;
use super::sums::{Sums, is_still, taken_between};
use super::{Audit, AuditFault};
use crate::protocol::{Ask, BuyerId, Item, ItemId, Order, OrderId, OrderStatus, Timestamp};
use crate::seams::{InventoryStore, OrderFilter, OrderPage, SeamError};

/// Orders, or items, read at once.
pub(super) const PAGE: usize = 1_000;
/// Stocks read side by side.
const STOCKS_AT_ONCE: usize = 16;
/// Time that numbers which may lag have to catch up before they are looked at again.
const NUMBERS_LAG: Duration = Duration::from_secs(2);
/// Orders of one buyer in doubt that are read again: one more than the largest cap.
const ORDERS_OF_A_BUYER_MAX: usize = 1_001;

/// One item, and the units that its orders have in each of the two listings.
#[derive(Debug)]
struct Counted {
    item: Item,
    before: Sums,
    after: Sums,
    /// The store's numbers, read between the listings; `None` if it is gone.
    says: Option<Numbers>,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    capacity: u32,
    available: u32,
    /// The item as it is shown, which may lag.
    shown: [u32; 3],
}

/// What a listing of all orders is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// Before the stocks are read.
    Before,
    After,
    /// For keys alone.
    Further,
}

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    /// The numbers of the items that are there.
    Numbers,
}

/// A recount on its way.
#[derive(Debug)]
struct Recount {
    scope: Scope,
    audit: Audit,
    items: HashMap<ItemId, Counted>,
    /// `None` once each key had its listing.
    keys: Option<Keys>,
    digests: RandomState,
    since: Timestamp,
    doubts: Vec<Doubt>,
    outlived: Vec<OrderId>,
}

/// Recounts a store, whether it sells meanwhile or not.
pub(in crate::engine) async fn run(
    store: &dyn InventoryStore,
    now: impl Fn() -> Timestamp + Copy,
) -> Result<Audit, SeamError> {
    let recount = Recount::begin(Scope::Everything, list_items(store, |_| true).await?, now());
    let (mut audit, doubtful) = count(store, recount, now).await?;
    if doubtful.is_empty() {
        return Ok(audit);
    }
    // Once more, for those alone: movement shows other numbers then, or none.
    sleep(NUMBERS_LAG).await;
    let doubtful: HashSet<ItemId> = doubtful.into_iter().map(|(item, _)| item).collect();
    let items = list_items(store, |item| doubtful.contains(&item.spec.id)).await?;
    let again = Recount::begin(Scope::Numbers, items, now());
    let (_, faults) = count(store, again, now).await?;
    faults.into_iter().flat_map(|(_, faults)| faults).for_each(|fault| audit.find(fault));
    Ok(audit)
}

/// Counts the orders, and returns what was found and the items whose numbers are doubtful.
async fn count(
    store: &dyn InventoryStore,
    mut recount: Recount,
    now: impl Fn() -> Timestamp + Copy,
) -> Result<(Audit, Vec<(ItemId, Vec<AuditFault>)>), SeamError> {
    recount = list(store, recount, Listing::Before, now).await?;
    read_numbers(store, &mut recount.items).await?;
    recount = list(store, recount, Listing::After, now).await?;
    while recount.keys.is_some() {
        recount = list(store, recount, Listing::Further, now).await?;
    }
    let doubtful = recount.compare();
    Ok((recount.audit, doubtful))
}

async fn list_items(
    store: &dyn InventoryStore,
    wanted: impl Fn(&Item) -> bool,
) -> Result<HashMap<ItemId, Counted>, SeamError> {
    let (mut items, mut last) = (HashMap::new(), None::<ItemId>);
    loop {
        let page = store.list_items(last.as_ref(), PAGE).await?;
        let Some(end) = page.last() else { return Ok(items) };
        last = Some(end.spec.id.clone());
        for item in page.into_iter().filter(&wanted) {
            let (before, after) = (Sums::default(), Sums::default());
            let counted = Counted { item, before, after, says: None };
            items.insert(counted.item.spec.id.clone(), counted);
        }
    }
}

/// Reads the stock of each item, and its numbers as they are shown.
async fn read_numbers(
    store: &dyn InventoryStore,
    items: &mut HashMap<ItemId, Counted>,
) -> Result<(), SeamError> {
    let ids: Vec<ItemId> = items.keys().cloned().collect();
    for ids in ids.chunks(STOCKS_AT_ONCE) {
        let shown = store.items(ids).await?;
        let stocks = try_join_all(ids.iter().map(|id| store.stock(id))).await?;
        for ((id, shown), stock) in ids.iter().zip(shown).zip(stocks) {
            let Some(counted) = items.get_mut(id) else { continue };
            counted.says = shown.zip(stock).map(|(shown, (spec, stock))| Numbers {
                capacity: spec.capacity(),
                available: stock.available(),
                shown: [shown.available, shown.held, shown.sold],
            });
        }
    }
    Ok(())
}

/// Goes through all orders once, and settles what looked like a fault on the way.
async fn list(
    store: &dyn InventoryStore,
    mut recount: Recount,
    listing: Listing,
    now: impl Fn() -> Timestamp + Copy,
) -> Result<Recount, SeamError> {
    let (mut after, mut overdue) = (None, Outlived::default());
    loop {
        let page = store.list_orders(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        let OrderPage { orders, next } = page;
        let at = now();
        recount = aside(move || recount.judge(&orders, listing, at)).await;
        settle(store, std::mem::take(&mut recount.doubts), &mut recount.audit).await?;
        overdue.add(std::mem::take(&mut recount.outlived));
        if overdue.is_full() {
            overdue.settle(store, now, &mut recount.audit).await?;
        }
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    overdue.settle(store, now, &mut recount.audit).await?;
    if let Some(keys) = &mut recount.keys {
        let buyers = keys.take_buyers();
        if !keys.next_share() {
            recount.keys = None;
        }
        ask_after(store, buyers, &mut recount.audit).await?;
    }
    Ok(recount)
}

/// Looks again at buyers that seem to have more units than their caps.
async fn ask_after(
    store: &dyn InventoryStore,
    buyers: HashSet<(ItemId, BuyerId)>,
    audit: &mut Audit,
) -> Result<(), SeamError> {
    if buyers.is_empty() {
        return Ok(());
    }
    let mut live: HashMap<(ItemId, BuyerId), Vec<OrderId>> = HashMap::new();
    let mut after = None;
    loop {
        let page = store.list_orders(&OrderFilter::default(), after.as_ref(), PAGE).await?;
        for order in page.orders.iter().filter(|order| order.status().owns_stock()) {
            for line in order.lines.iter() {
                let who = (line.item.clone(), order.buyer.clone());
                if buyers.contains(&who) {
                    let orders = live.entry(who).or_default();
                    if orders.len() < ORDERS_OF_A_BUYER_MAX && !orders.contains(&order.id) {
                        orders.push(order.id);
                    }
                }
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    settle_buyers(store, live, audit).await
}

/// Computes on a thread that may take its time.
async fn aside<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> T {
    let computed = tokio::task::spawn_blocking(compute).await;
    computed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Recount {
    fn begin(scope: Scope, items: HashMap<ItemId, Counted>, since: Timestamp) -> Self {
        Self {
            scope,
            audit: Audit::default(),
            items,
            keys: (scope == Scope::Everything).then(Keys::default),
            digests: RandomState::new(),
            since,
            doubts: Vec::new(),
            outlived: Vec::new(),
        }
    }

    fn judge(mut self, orders: &[Order], listing: Listing, now: Timestamp) -> Self {
        for order in orders {
            let is_first = listing == Listing::Before && self.scope == Scope::Everything;
            if is_first {
                self.look_at(order, now);
            }
            if let Some(keys) = &mut self.keys
                && keys.order(order.id)
            {
                self.audit.find(AuditFault::DecidedTwice(order.id));
            }
            for line in order.lines.iter() {
                let Some(counted) = self.items.get_mut(&line.item) else {
                    if is_first && order.status().owns_stock() {
                        self.doubts.push(Doubt::NoSuchItem(order.id, line.item.clone()));
                    }
                    continue;
                };
                let units = u64::from(line.ask.units());
                let sums = match listing {
                    Listing::Before => Some(&mut counted.before),
                    Listing::After => Some(&mut counted.after),
                    Listing::Further => None,
                };
                if let Some(sums) = sums {
                    sums.add(order, units, &self.digests, self.since, now);
                }
                let Some(keys) = self.keys.as_mut().filter(|_| order.status().owns_stock()) else {
                    continue;
                };
                if let Some(cap) = counted.item.spec.max_per_buyer {
                    keys.buyer(&line.item, &order.buyer, order.id, units, cap.get().into());
                }
                let Ask::Seats(seats) = &line.ask else { continue };
                for seat in seats {
                    if let Some(other) = keys.seat(&line.item, seat, order.id) {
                        let orders = [other, order.id];
                        self.doubts.push(Doubt::Seat(line.item.clone(), seat.clone(), orders));
                    }
                    if is_first && !has_seat(&counted.item, seat) {
                        let item = line.item.clone();
                        self.doubts.push(Doubt::NoSuchSeat(order.id, item, seat.clone()));
                    }
                }
            }
        }
        self
    }

    /// Counts an order by its state, and judges what it tells by itself.
    fn look_at(&mut self, order: &Order, now: Timestamp) {
        *self.audit.orders.entry(order.status()).or_default() += 1;
        if let Some(reason) = order.reason() {
            *self.audit.rejected.entry(reason).or_default() += 1;
        }
        if order.status() == OrderStatus::Queued {
            self.doubts.push(Doubt::Undecided(order.id));
        }
        if outlived(order, now) {
            self.outlived.push(order.id);
        }
    }

    /// Compares what the items say with what was counted.
    fn compare(&mut self) -> Vec<(ItemId, Vec<AuditFault>)> {
        let mut doubtful = Vec::new();
        for (id, counted) in &self.items {
            let Some(says) = counted.says else { continue };
            self.audit.items += 1;
            self.audit.capacity += u64::from(says.capacity);
            self.audit.available += u64::from(says.available);
            self.audit.moving += u64::from(!is_still(&counted.before, &counted.after));
            let faults = counted.faults(id, says);
            if !faults.is_empty() {
                doubtful.push((id.clone(), faults));
            }
        }
        doubtful
    }
}

impl Counted {
    fn faults(&self, id: &ItemId, says: Numbers) -> Vec<AuditFault> {
        let (item, capacity) = (|| id.clone(), says.capacity);
        let taken = taken_between(&self.before, &self.after);
        let mut faults = Vec::new();
        // More than there is, whatever moved (G1).
        let least = *taken.start();
        if least > u64::from(capacity) {
            faults.push(AuditFault::Oversold { item: item(), taken: least, capacity });
        }
        let Sums { held, sold, .. } = self.after;
        let counted = [u64::from(capacity).saturating_sub(held + sold), held, sold];
        let [shown, held, sold] = says.shown.map(u64::from);
        let left = u64::from(says.available);
        let of_the_stock = [left, held, sold];
        // All the more where nothing moved (G2).
        let says = match is_still(&self.before, &self.after) {
            true if of_the_stock != counted => of_the_stock,
            true => [shown, held, sold],
            false if taken.contains(&u64::from(capacity).saturating_sub(left)) => counted,
            false => of_the_stock,
        };
        if says != counted {
            faults.push(AuditFault::Unbalanced { item: item(), says, counted });
        }
        faults
    }
}
