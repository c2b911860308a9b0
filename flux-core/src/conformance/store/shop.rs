//! The words the store's checks are written in.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::conformance::check::{Checked, Failure, ensure, eventually, same};
use crate::protocol::{
    BuyerId, Claim, Commit, CommitOutcome, Debt, Expect, FencingToken, Hold, ItemId, ItemSpec,
    Line, Lines, Order, OrderId, OrderState, OrderWrite, OverCap, PaymentRef, Reason, Refund,
    RefundRef, Stock, Timestamp,
};
use crate::seams::{ConfirmOutcome, InventoryStore, Payment, PutOutcome, RefundOutcome, Repayment};

/// The time at which the checks' orders are placed and decided.
pub(crate) const T0: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// The time their holds last.
pub(crate) const HOLD: Duration = Duration::from_secs(600);

pub(crate) fn after(time: Duration) -> Timestamp {
    T0 + time
}

pub(crate) fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn item(name: &str) -> ItemId {
    ItemId::new(name).expect("the checks use good names")
}

pub(crate) fn buyer(name: &str) -> BuyerId {
    BuyerId::new(name).expect("the checks use good names")
}

pub(crate) fn payment(name: &str) -> PaymentRef {
    PaymentRef::new(name).expect("the checks use good names")
}

pub(crate) fn pool(id: &str, capacity: u64) -> ItemSpec {
    ItemSpec::pool(id, capacity).expect("the checks use good definitions")
}

pub(crate) fn capped(id: &str, capacity: u64, cap: u64) -> ItemSpec {
    let spec = ItemSpec::builder().id(id).capacity(capacity).max_per_buyer(cap).build();
    spec.expect("the checks use good definitions")
}

pub(crate) fn hall(id: &str, seats: &[&str]) -> ItemSpec {
    ItemSpec::hall(id, seats.iter().copied()).expect("the checks use good definitions")
}

pub(crate) fn units(item: &str, quantity: u64) -> Line {
    Line::units(item, quantity).expect("the checks use good lines")
}

pub(crate) fn seats(item: &str, names: &[&str]) -> Line {
    Line::seats(item, names).expect("the checks use good lines")
}

/// A queued order.
pub(crate) fn order(n: u128, who: &str, lines: &[Line]) -> Order {
    let lines = Lines::new(lines.to_vec()).expect("the checks use good lines");
    Order::queued(id(n), buyer(who), lines, T0)
}

/// The order, held for [`HOLD`].
pub(crate) fn held(n: u128, who: &str, lines: &[Line]) -> Order {
    held_until(n, who, lines, after(HOLD))
}

pub(crate) fn held_until(n: u128, who: &str, lines: &[Line], expires_at: Timestamp) -> Order {
    order(n, who, lines).with_state(OrderState::Held(Hold { decided_at: T0, expires_at }))
}

/// The order, held for [`HOLD`] from that moment on.
pub(crate) fn held_from(n: u128, who: &str, lines: &[Line], decided_at: Timestamp) -> Order {
    let expires_at = decided_at + HOLD;
    order(n, who, lines).with_state(OrderState::Held(Hold { decided_at, expires_at }))
}

pub(crate) fn rejected(n: u128, who: &str, lines: &[Line]) -> Order {
    order(n, who, lines).with_state(OrderState::Rejected(T0, Reason::SoldOut))
}

fn hold_of(order: &Order) -> Hold {
    order.hold().expect("the checks only end holds that were made")
}

pub(crate) fn released(order: &Order) -> Order {
    order.with_state(OrderState::Released(hold_of(order)))
}

/// The order, released at that moment.
pub(crate) fn released_at(order: &Order, expires_at: Timestamp) -> Order {
    order.with_state(OrderState::Released(Hold { expires_at, ..hold_of(order) }))
}

pub(crate) fn expired(order: &Order) -> Order {
    order.with_state(OrderState::Expired(hold_of(order)))
}

pub(crate) fn confirmed(order: &Order, by: &str) -> Order {
    order.with_state(OrderState::Confirmed(hold_of(order), payment(by)))
}

pub(crate) fn cancelled(order: &Order, by: &str) -> Order {
    order.with_state(OrderState::Cancelled(hold_of(order), payment(by)))
}

pub(crate) fn refund_due(order: &Order, by: &str) -> Order {
    order.with_state(OrderState::RefundDue(hold_of(order), payment(by)))
}

/// The order, and money that came for it when it was gone.
pub(crate) fn owing(order: &Order, by: &str, since: Timestamp) -> Order {
    let debt = Debt { stray: Some(payment(by)), ..Debt::since(since) };
    Order { debt: Some(Box::new(debt)), ..order.clone() }
}

pub(crate) fn refund(by: &str, at: Timestamp) -> Refund {
    Refund::new(RefundRef::new(by).expect("the checks name refunds well"), at)
}

/// The order, its money returned.
pub(crate) fn returned(order: &Order, refund: Refund) -> Order {
    let since = order.owed_since().expect("the checks return what is owed");
    let debt = order.debt.as_deref().cloned().unwrap_or(Debt::since(since));
    Order { debt: Some(Box::new(Debt { refund: Some(refund), ..debt })), ..order.clone() }
}

/// Writes an order nobody has decided.
pub(crate) fn place(order: &Order) -> OrderWrite {
    OrderWrite { order: order.clone(), expect: Expect::Absent }
}

/// Writes `to` where `from` is expected.
pub(crate) fn turn(from: &Order, to: &Order) -> OrderWrite {
    OrderWrite { order: to.clone(), expect: Expect::Status(from.status()) }
}

pub(crate) fn commit(claims: &[&Claim], writes: &[OrderWrite]) -> Commit {
    let claims = claims.iter().map(|claim| (claim.spec.id.clone(), claim.token)).collect();
    Commit { claims, writes: writes.to_vec() }
}

pub(crate) fn moved(orders: &[&Order]) -> CommitOutcome {
    let moved = orders.iter().map(|order| order.id).collect();
    CommitOutcome::Conflict { moved, over_cap: vec![], barred: vec![] }
}

pub(crate) fn over_cap(on: &str, who: &str, live: u32) -> CommitOutcome {
    let over = OverCap { item: item(on), buyer: buyer(who), live };
    CommitOutcome::Conflict { moved: vec![], over_cap: vec![over], barred: vec![] }
}

pub(crate) fn barred(orders: &[u128]) -> CommitOutcome {
    let barred = orders.iter().map(|n| id(*n)).collect();
    CommitOutcome::Conflict { moved: vec![], over_cap: vec![], barred }
}

/// The store under test, with the calls a check needs in one line each.
pub(crate) struct Shop<S: ?Sized> {
    pub(crate) store: Arc<S>,
}

impl<S: ?Sized> Clone for Shop<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<S: InventoryStore + ?Sized> Shop<S> {
    /// Puts new items on sale.
    pub(crate) async fn open(store: Arc<S>, specs: &[ItemSpec]) -> Checked<Self> {
        for spec in specs {
            same("put_item of a new item", &store.put_item(spec).await?, &PutOutcome::Created)?;
        }
        Ok(Self { store })
    }

    pub(crate) async fn claim(&self, name: &str) -> Checked<Claim> {
        let mut claims = self.store.claim(&[item(name)]).await?;
        same("answers to one claim", &claims.len(), &1)?;
        let claim = claims.remove(0);
        let claim = claim.ok_or_else(|| Failure::new(format!("claim did not find {name}")))?;
        same("the claimed item", &claim.spec.id, &item(name))?;
        Ok(claim)
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Checked<CommitOutcome> {
        let mut outcomes = self.store.commit(&[commit]).await?;
        same("answers to one commit", &outcomes.len(), &1)?;
        Ok(outcomes.remove(0))
    }

    pub(crate) async fn write(
        &self,
        claims: &[&Claim],
        writes: &[OrderWrite],
    ) -> Checked<CommitOutcome> {
        let outcome = self.commit(commit(claims, writes)).await?;
        Ok(match outcome {
            // Their order says nothing.
            CommitOutcome::Conflict { mut moved, mut over_cap, mut barred } => {
                moved.sort_unstable();
                over_cap.sort_by(|a, b| (&a.item, &a.buyer).cmp(&(&b.item, &b.buyer)));
                barred.sort_unstable();
                CommitOutcome::Conflict { moved, over_cap, barred }
            }
            other => other,
        })
    }

    /// Commits what must be applied.
    pub(crate) async fn apply(&self, claims: &[&Claim], writes: &[OrderWrite]) -> Checked {
        let what = || writes.iter().map(|w| format!("{:?} to {:?}", w.expect, w.order.status()));
        let outcome = self.write(claims, writes).await?;
        let what = format!("a commit of {}", what().collect::<Vec<_>>().join(", "));
        same(&what, &outcome, &CommitOutcome::Applied)
    }

    /// Commits what must be refused as fenced.
    pub(crate) async fn fenced(&self, claims: &[&Claim], writes: &[OrderWrite]) -> Checked {
        let outcome = self.write(claims, writes).await?;
        ensure!(matches!(outcome, CommitOutcome::Fenced(_)), "expected Fenced, got {outcome:?}");
        Ok(())
    }

    /// Claims the items afresh and commits what must be applied.
    pub(crate) async fn sell(&self, items: &[&str], writes: &[OrderWrite]) -> Checked {
        let mut claims = Vec::new();
        for name in items {
            claims.push(self.claim(name).await?);
        }
        self.apply(&claims.iter().collect::<Vec<_>>(), writes).await
    }

    pub(crate) async fn confirm(
        &self,
        order: &Order,
        by: &str,
        at: Timestamp,
    ) -> Checked<ConfirmOutcome> {
        let payment = Payment { order: order.id, payment: payment(by), at };
        let mut outcomes = self.store.confirm(&[payment]).await?;
        same("answers to one payment", &outcomes.len(), &1)?;
        Ok(outcomes.remove(0))
    }

    pub(crate) async fn refund(&self, order: &Order, refund: Refund) -> Checked<RefundOutcome> {
        let mut outcomes = self.store.refund(&[Repayment::new(order.id, refund)]).await?;
        same("answers to one refund", &outcomes.len(), &1)?;
        Ok(outcomes.remove(0))
    }

    /// Pays a live hold, and returns the order as it then stands.
    pub(crate) async fn pay(&self, order: &Order, by: &str) -> Checked<Order> {
        let paid = confirmed(order, by);
        let outcome = self.confirm(order, by, T0).await?;
        same("a payment in time", &outcome, &ConfirmOutcome::Settled(paid.clone()))?;
        Ok(paid)
    }

    pub(crate) async fn find(&self, order: OrderId) -> Checked<Option<Order>> {
        let mut found = self.store.orders(&[order]).await?;
        same("answers to one read", &found.len(), &1)?;
        Ok(found.remove(0))
    }

    /// Checks that every order reads as given.
    pub(crate) async fn stored(&self, orders: &[&Order]) -> Checked {
        for order in orders {
            same("the stored order", &self.find(order.id).await?.as_ref(), &Some(order))?;
        }
        Ok(())
    }

    /// Checks that none of the orders is there.
    pub(crate) async fn absent(&self, orders: &[&Order]) -> Checked {
        for order in orders {
            same("an order that was refused", &self.find(order.id).await?, &None)?;
        }
        Ok(())
    }

    pub(crate) async fn stock(&self, name: &str) -> Checked<(Arc<ItemSpec>, Stock)> {
        let found = self.store.stock(&item(name)).await?;
        found.ok_or_else(|| Failure::new(format!("stock did not find {name}")))
    }

    /// Checks that an item's units are `(available, held, sold)`: in its stock at
    /// once, in its numbers as soon as they have caught up.
    pub(crate) async fn numbers(&self, name: &str, numbers: (u32, u32, u32)) -> Checked {
        let (spec, stock) = self.stock(name).await?;
        same(&format!("stock left of {name}"), &stock.available(), &numbers.0)?;
        let all = numbers.0 + numbers.1 + numbers.2;
        same(&format!("capacity of {name}"), &spec.capacity(), &all)?;
        eventually(|| async {
            let found = self.store.items(&[item(name)]).await?;
            let found = found.into_iter().next().flatten();
            let found = found.map(|item| (item.available, item.held, item.sold));
            same(&format!("(available, held, sold) of {name}"), &found, &Some(numbers))
        })
        .await
    }

    /// Checks that exactly these seats of a hall are taken, as read and as
    /// claimed.
    pub(crate) async fn taken(&self, name: &str, taken: &[&str]) -> Checked {
        let claim = self.claim(name).await?;
        let (spec, stock) = self.stock(name).await?;
        same("stock as claimed and as read", &claim.stock, &stock)?;
        let (crate::protocol::ItemKind::Seats(hall), Stock::Seats(map)) = (&spec.kind, &stock)
        else {
            return Err(Failure::new(format!("{name} is no hall: {stock:?}")));
        };
        let free = hall.names().len() - taken.len();
        same("free seats", &(stock.available() as usize), &free)?;
        for seat in hall.names() {
            let place = hall.index_of(seat).expect("a hall knows its seats");
            let should_be = taken.contains(&seat.as_str());
            same(&format!("seat {seat} taken"), &map.is_taken(place), &should_be)?;
        }
        Ok(())
    }
}

/// A claim with a token the store did not give.
pub(crate) fn forged(claim: &Claim, token: u64) -> Claim {
    Claim { token: FencingToken(token), ..claim.clone() }
}
