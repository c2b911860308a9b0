//! A store in miniature. Its `commit` is written down as `InventoryStore`
//! promises it, check by check; what a write does to the stock is the
//! protocol's own `effect`, `take` and `give_back`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use flux_core::protocol::{
    Commit, CommitOutcome, Effect, Expect, FencingToken, OrderWrite, OverCap, Stock, revise,
};
use flux_core::{BuyerId, ItemId, Money, Order, OrderState, Reason};

use super::scene::{Fault, Scene, item_number, order_number};

/// Only whether a token is the newest matters; they are kept at two values.
pub(crate) const NEWEST: FencingToken = FencingToken(1);
pub(crate) const STALE: FencingToken = FencingToken(0);

/// An order as somebody knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known(pub Arc<Order>);

impl Hash for Known {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_order(&self.0, hasher);
    }
}

/// A commit on its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wire(pub Arc<Commit>);

impl Hash for Wire {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.claims.hash(hasher);
        for write in &self.0.writes {
            hash_order(&write.order, hasher);
            match write.expect {
                Expect::Absent => None,
                Expect::Status(status) => Some((status, None)),
                Expect::Money(status, money) => Some((status, Some(money))),
            }
            .hash(hasher);
        }
    }
}

impl Wire {
    pub(crate) fn is_stale(&self) -> bool {
        self.0.claims.iter().any(|(_, token)| *token == STALE)
    }

    pub(crate) fn renew_tokens(&mut self, renew: impl Fn(usize, &mut FencingToken)) {
        let claims = &mut Arc::make_mut(&mut self.0).claims;
        claims.iter_mut().for_each(|(item, token)| renew(item_number(item), token));
    }
}

fn hash_order<H: Hasher>(order: &Order, hasher: &mut H) {
    // The lines of an order never change.
    let hold = order.hold().map(|hold| (hold.decided_at, hold.expires_at));
    (order.id, order.status(), hold, order.decided_at(), order.reason(), order.payment_ref())
        .hash(hasher);
    let refund = order.refund().map(|refund| (&refund.reference, refund.at));
    (order.owed_since(), refund).hash(hasher);
}

/// The stock of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StockRow(pub Stock);

impl Hash for StockRow {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.available().hash(hasher);
        if let Stock::Seats(map) = &self.0 {
            // A hall in a model is small; its map is one word.
            (0..8).for_each(|seat| map.is_taken(seat).hash(hasher));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Row {
    pub(crate) newest: FencingToken,
    /// The index of the item's present definition.
    pub(crate) version: usize,
    pub(crate) stock: StockRow,
}

/// The events that must never happen, if they did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken {
    pub(crate) decision_changed: bool,
    pub(crate) stale_write: bool,
    pub(crate) false_refusal: bool,
    /// A hold that was over, and released all the same: money that comes then is
    /// neither a ticket nor a refund.
    pub(crate) released_at_its_end: bool,
    /// Money that was owed or returned, and is not as it was noted any more.
    pub(crate) debt_changed: bool,
    /// Units asked for, under the newest token, that are not there.
    pub(crate) overdrawn: bool,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Store {
    pub(crate) rows: Vec<Row>,
    pub(crate) orders: Vec<Option<Known>>,
    pub(crate) broken: Broken,
}

impl Store {
    pub(crate) fn new(scene: &Scene) -> Self {
        let row = |specs: &Vec<Arc<_>>| Row {
            newest: NEWEST,
            version: 0,
            stock: StockRow(Stock::full(&specs[0])),
        };
        Self {
            rows: scene.items.iter().map(row).collect(),
            orders: vec![None; scene.orders.len()],
            broken: Broken::default(),
        }
    }

    pub(crate) fn order(&self, number: usize) -> Option<&Order> {
        self.orders[number].as_ref().map(|known| &*known.0)
    }

    pub(crate) fn claim(&mut self, item: usize) -> Row {
        self.rows[item].newest.0 += 1;
        self.rows[item].clone()
    }

    /// Puts the item's next definition, if it fits.
    pub(crate) fn put_next(&mut self, scene: &Scene, item: usize) {
        let row = &mut self.rows[item];
        let [old, new] = [row.version, row.version + 1].map(|n| &scene.items[item][n]);
        let Ok(stock) = revise(old, &row.stock.0, new) else { return };
        row.stock = StockRow(stock);
        row.version += 1;
        if scene.fault != Fault::QuietRevision {
            row.newest.0 += 1;
        }
    }

    pub(crate) fn commit(&mut self, scene: &Scene, commit: &Commit) -> CommitOutcome {
        if scene.fault == Fault::NotAtomic {
            return self.commit_in_parts(scene, commit);
        }
        let stale = commit.claims.iter().filter(|claim| self.is_stale(claim));
        let stale: Vec<ItemId> = stale.map(|(item, _)| item.clone()).collect();
        if !stale.is_empty() && scene.fault != Fault::NoFencing {
            return CommitOutcome::Fenced(stale);
        }
        let unclaimed = |item: &ItemId| !commit.claims.iter().any(|(claimed, _)| claimed == item);
        let changing = commit.writes.iter().filter(|write| write.effect() != Effect::None);
        if changing.flat_map(|write| write.order.lines.iter()).any(|line| unclaimed(&line.item)) {
            return CommitOutcome::Fenced(Vec::new());
        }
        let moved: Vec<_> = commit
            .writes
            .iter()
            .filter(|write| !self.is_expected(scene, write))
            .map(|write| write.order.id)
            .collect();
        let over_cap = self.over_cap(scene, commit);
        if !moved.is_empty() || !over_cap.is_empty() {
            return CommitOutcome::Conflict { moved, over_cap, barred: vec![] };
        }
        let mut after = self.clone();
        after.broken.stale_write |= !stale.is_empty();
        for write in &commit.writes {
            if !after.apply(scene, write) {
                self.broken.overdrawn |= stale.is_empty();
                return CommitOutcome::Fenced(Vec::new());
            }
        }
        *self = after;
        CommitOutcome::Applied
    }

    fn is_stale(&self, (item, token): &(ItemId, FencingToken)) -> bool {
        self.rows[item_number(item)].newest != *token
    }

    fn is_expected(&self, scene: &Scene, write: &OrderWrite) -> bool {
        let found = self.order(order_number(write.order.id));
        match write.expect {
            Expect::Absent => found.is_none() || scene.fault == Fault::NoAbsent,
            Expect::Status(status) => found.is_some_and(|order| order.status() == status),
            Expect::Money(status, money) => {
                found.is_some_and(|order| order.status() == status && order.money() == money)
            }
        }
    }

    /// Buyers who would come to own more of a capped item than its cap.
    fn over_cap(&self, scene: &Scene, commit: &Commit) -> Vec<OverCap> {
        let mut over = Vec::new();
        if scene.fault == Fault::NoCap {
            return over;
        }
        for write in &commit.writes {
            for line in write.order.lines.iter() {
                let (item, buyer) = (&line.item, &write.order.buyer);
                let number = item_number(item);
                let spec = &scene.items[number][self.rows[number].version];
                let Some(cap) = spec.max_per_buyer else { continue };
                let change: i64 = commit
                    .writes
                    .iter()
                    .filter(|write| write.order.buyer == *buyer)
                    .map(|write| match write.effect() {
                        Effect::Takes => i64::from(units_of(&write.order, item)),
                        Effect::GivesBack => -i64::from(units_of(&write.order, item)),
                        Effect::None => 0,
                    })
                    .sum();
                let live = self.live(item, buyer);
                if change > 0 && i64::from(live) + change > i64::from(cap.get()) {
                    over.push(OverCap { item: item.clone(), buyer: buyer.clone(), live });
                }
            }
        }
        over
    }

    /// Units of the item the buyer holds or owns.
    pub(crate) fn live(&self, item: &ItemId, buyer: &BuyerId) -> u32 {
        let orders = self.orders.iter().flatten().map(|known| &known.0);
        orders
            .filter(|order| order.buyer == *buyer && order.status().owns_stock())
            .map(|order| units_of(order, item))
            .sum()
    }

    /// Writes one order and what follows for the stock; `false`, and nothing
    /// that may be kept, when a unit is not there.
    fn apply(&mut self, scene: &Scene, write: &OrderWrite) -> bool {
        if !matches!(write.expect, Expect::Money(..)) {
            self.judge_refusal(scene, &write.order);
        }
        for line in write.order.lines.iter() {
            let item = item_number(&line.item);
            let spec = &scene.items[item][self.rows[item].version];
            let stock = &mut self.rows[item].stock.0;
            match write.effect() {
                Effect::Takes if stock.take(spec, &line.ask).is_err() => return false,
                Effect::GivesBack => stock.give_back(spec, &line.ask),
                Effect::Takes | Effect::None => {}
            }
        }
        self.put(&write.order);
        true
    }

    /// Judges a refusal for want of stock, which must be true when it is written.
    fn judge_refusal(&mut self, scene: &Scene, order: &Order) {
        let refused = match &order.state {
            OrderState::Rejected(_, reason) => {
                matches!(reason, Reason::SoldOut | Reason::SeatTaken)
            }
            OrderState::RefundDue(..) => true,
            _ => false,
        };
        let mut rows = self.rows.clone();
        let mut fits = |line: &flux_core::Line| {
            let item = item_number(&line.item);
            let spec = &scene.items[item][rows[item].version];
            rows[item].stock.0.take(spec, &line.ask).is_ok()
        };
        self.broken.false_refusal |= refused && order.lines.iter().all(&mut fits);
    }

    /// Writes an order, whatever was there, and notes a change that is none of
    /// those an order may go through.
    pub(crate) fn put(&mut self, order: &Order) {
        let place = &mut self.orders[order_number(order.id)];
        if let Some(Known(old)) = place {
            let kept = keeps_hold(old, order) && old.asks_the_same_as(order);
            let moved = may_become(&old.state, &order.state)
                || (old.state == order.state && old.debt != order.debt);
            self.broken.decision_changed |= !kept || !moved;
            self.broken.debt_changed |= match old.money() {
                Money::None | Money::Paid => false,
                Money::Owed => {
                    order.money() != Money::Refunded || old.owed_since() != order.owed_since()
                }
                _ => true,
            };
            self.broken.released_at_its_end |= matches!(
                (&old.state, &order.state),
                (OrderState::Held(was), OrderState::Released(is)) if is.expires_at >= was.expires_at
            );
        }
        *place = Some(Known(Arc::new(order.clone())));
    }

    /// Commits as [`Fault::NotAtomic`] does: item by item, as far as each goes.
    fn commit_in_parts(&mut self, scene: &Scene, commit: &Commit) -> CommitOutcome {
        let mut missed = Vec::new();
        for write in &commit.writes {
            if !self.is_expected(scene, write) {
                continue;
            }
            for line in write.order.lines.iter() {
                let mut claims = commit.claims.iter().filter(|(item, _)| *item == line.item);
                if claims.any(|claim| self.is_stale(claim)) {
                    missed.push(line.item.clone());
                    continue;
                }
                let item = item_number(&line.item);
                let spec = &scene.items[item][self.rows[item].version];
                let stock = &mut self.rows[item].stock.0;
                match write.effect() {
                    Effect::Takes => drop(stock.take(spec, &line.ask)),
                    Effect::GivesBack => stock.give_back(spec, &line.ask),
                    Effect::None => {}
                }
            }
            if missed.is_empty() {
                self.put(&write.order);
            }
        }
        if missed.is_empty() { CommitOutcome::Applied } else { CommitOutcome::Fenced(missed) }
    }
}

fn units_of(order: &Order, item: &ItemId) -> u32 {
    order.lines.iter().filter(|line| line.item == *item).map(|line| line.ask.units()).sum()
}

/// The transitions an order may go through once it is decided.
fn may_become(old: &OrderState, new: &OrderState) -> bool {
    use OrderState::{Cancelled, Confirmed, Expired, Held, RefundDue, Released};
    match (old, new) {
        (Held(_), Confirmed(..) | Released(_) | Expired(_))
        | (Expired(_), Confirmed(..) | RefundDue(..)) => true,
        (Confirmed(_, paid), Cancelled(_, returned)) => paid == returned,
        _ => false,
    }
}

/// Whether the order has the hold it had; one that was released ended then.
fn keeps_hold(old: &Order, new: &Order) -> bool {
    match (&old.state, &new.state) {
        (OrderState::Held(was), OrderState::Released(is)) => {
            was.decided_at == is.decided_at && is.expires_at <= was.expires_at
        }
        _ => old.hold() == new.hold(),
    }
}
