//! An order and the states it goes through.
//!
//! ```text
//! Queued ─▶ Held ─▶ Confirmed ─▶ Cancelled
//!    │        ├───▶ Released
//!    │        └───▶ Expired ─▶ Confirmed   (paid late, the stock was still there)
//!    │                    └──▶ RefundDue   (paid late, it was not)
//!    └──────▶ Rejected
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::debt::{Debt, Money, Refund};
use super::ids::{BuyerId, ItemId, OrderId, PaymentRef, SeatId};
use super::limits::{InvalidInput, LINES_MAX, Quantity, SEATS_PER_LINE_MAX, Timestamp};
use super::metadata::Metadata;
use super::words::words;

/// The units that a line asks of its item. A store gives out each kind in a way
/// of its own, so this enum is exhaustive: a kind that a store does not know
/// must not compile.
///
/// ```
/// use flux_core::{Ask, Quantity};
///
/// assert_eq!(Ask::Units(Quantity::new(3)?).units(), 3);
/// assert_eq!(Ask::Seats(vec!["A1".parse()?]).units(), 1);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Any units of a pool.
    Units(Quantity),
    /// These seats of a hall.
    Seats(Vec<SeatId>),
}

impl Ask {
    /// The number of units this takes.
    #[must_use]
    pub fn units(&self) -> u32 {
        match self {
            Self::Units(quantity) => quantity.get(),
            // A line's constructor bounds the list.
            Self::Seats(seats) => seats.len() as u32,
        }
    }
}

/// One item of an order and what is asked of it.
///
/// ```
/// use flux_core::Line;
///
/// let standing = Line::units("ticket_1", 2)?;
/// let seated = Line::seats("hall", ["A1", "A2"])?;
/// assert_eq!(standing.ask.units(), seated.ask.units());
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Line {
    /// The item.
    pub item: ItemId,
    /// The units or seats of it.
    pub ask: Ask,
}

impl Line {
    /// A line from values that are checked already.
    #[must_use]
    pub const fn new(item: ItemId, ask: Ask) -> Self {
        Self { item, ask }
    }

    /// `quantity` units of a pool.
    ///
    /// # Errors
    /// [`InvalidInput`] when the name or the quantity is out of bounds.
    pub fn units(item: impl AsRef<str>, quantity: u64) -> Result<Self, InvalidInput> {
        Ok(Self { item: ItemId::new(item)?, ask: Ask::Units(Quantity::new(quantity)?) })
    }

    /// The named seats of a hall.
    ///
    /// # Errors
    /// [`InvalidInput`] when a name is out of bounds; [`Lines::new`] checks
    /// how many there are.
    pub fn seats<S: AsRef<str>>(
        item: impl AsRef<str>,
        seats: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidInput> {
        let seats = seats.into_iter().map(SeatId::new).collect::<Result<_, _>>()?;
        Ok(Self { item: ItemId::new(item)?, ask: Ask::Seats(seats) })
    }
}

/// The lines of one order: 1–10 of them, each seat named once. Lines on one
/// item are summed.
///
/// ```
/// use flux_core::{Line, Lines};
///
/// let lines = Lines::new(vec![Line::units("ticket_1", 2)?, Line::units("parking", 1)?])?;
/// assert_eq!(lines.iter().map(|line| line.ask.units()).sum::<u32>(), 3);
/// assert_eq!(Lines::new(vec![]).expect_err("none").field(), "lines");
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Line>")]
// Shared by all copies of an order.
pub struct Lines(Arc<[Line]>);

impl Lines {
    /// Checks the number of lines and of seats, and that no seat is named twice.
    ///
    /// # Errors
    /// [`InvalidInput`] naming `lines` or `seats`.
    pub fn new(lines: Vec<Line>) -> Result<Self, InvalidInput> {
        Self::of(lines.into())
    }

    /// As [`new`](Self::new), of one line.
    pub(crate) fn one(line: Line) -> Result<Self, InvalidInput> {
        Self::of(Arc::new([line]))
    }

    fn of(lines: Arc<[Line]>) -> Result<Self, InvalidInput> {
        if lines.is_empty() || lines.len() > LINES_MAX {
            return Err(InvalidInput::new(
                "lines",
                format!("must be 1 to {LINES_MAX}, were {}", lines.len()),
            ));
        }
        let mut named = HashSet::new();
        for line in &*lines {
            let Ask::Seats(seats) = &line.ask else { continue };
            if seats.is_empty() || seats.len() > SEATS_PER_LINE_MAX {
                return Err(InvalidInput::new(
                    "seats",
                    format!("must be 1 to {SEATS_PER_LINE_MAX}, were {}", seats.len()),
                ));
            }
            for seat in seats {
                if !named.insert((&line.item, seat)) {
                    return Err(InvalidInput::new("seats", format!("names {seat} twice")));
                }
            }
        }
        Ok(Self(lines))
    }
}

impl TryFrom<Vec<Line>> for Lines {
    type Error = InvalidInput;
    fn try_from(lines: Vec<Line>) -> Result<Self, InvalidInput> {
        Self::new(lines)
    }
}

impl From<Lines> for Vec<Line> {
    fn from(lines: Lines) -> Self {
        lines.to_vec()
    }
}

impl std::ops::Deref for Lines {
    type Target = [Line];
    fn deref(&self) -> &[Line] {
        &self.0
    }
}

/// The reason why an order was turned down.
///
/// ```
/// use flux_core::Reason;
///
/// assert_eq!(Reason::SoldOut.to_string(), "sold_out");
/// assert_eq!("seat_taken".parse(), Ok(Reason::SeatTaken));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The pool had fewer units left than were asked for.
    SoldOut,
    /// At least one of the seats was taken, or is not in the hall any more.
    SeatTaken,
    /// The buyer's live orders would exceed the item's cap, or a
    /// [rule about buyers](super::BuyerRules) bars another hold for now.
    BuyerLimit,
    /// Placed before the sale opened.
    NotOpen,
    /// Placed after the sale closed.
    Closed,
    /// No such item, or a pool asked for seats, or a hall for a quantity.
    UnknownItem,
}

words! {
    Reason, "reason":
    SoldOut = "sold_out", SeatTaken = "seat_taken", BuyerLimit = "buyer_limit",
    NotOpen = "not_open", Closed = "closed" or UnknownItem = "unknown_item"
}

/// The time for which an order's stock is set aside.
///
/// ```
/// use std::time::Duration;
///
/// use flux_core::{Hold, Timestamp};
///
/// let now = Timestamp::from_millis(1_790_000_000_000);
/// let hold = Hold::between(now, now + Duration::from_secs(600));
/// assert_eq!(hold.expires_at.since(hold.decided_at), Duration::from_secs(600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// The moment the order got its stock.
    pub decided_at: Timestamp,
    /// The moment the hold ends unless it is paid; of one that was released, the
    /// moment it was.
    pub expires_at: Timestamp,
}

impl Hold {
    /// A hold from `decided_at` until `expires_at`.
    #[must_use]
    pub const fn between(decided_at: Timestamp, expires_at: Timestamp) -> Self {
        Self { decided_at, expires_at }
    }
}

/// An order's state, with what is known in it and no more. Code outside this
/// crate that needs a part of it asks [`Order::hold`], [`Order::payment_ref`]
/// or [`Order::reason`], which answer for every state.
///
/// ```
/// use flux_core::{BuyerId, Line, Lines, Order, OrderId, OrderState, Timestamp};
///
/// let lines = Lines::new(vec![Line::units("ticket_1", 1)?])?;
/// let order = Order::queued(OrderId::new(), "ann".parse()?, lines, Timestamp::default());
/// assert_eq!(order.state, OrderState::Queued);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OrderState {
    /// Accepted, not yet decided.
    Queued,
    /// Stock is set aside until the hold ends.
    Held(Hold),
    /// Paid: the units are sold.
    Confirmed(Hold, PaymentRef),
    /// Given back by the buyer before paying.
    Released(Hold),
    /// The hold ended unpaid; its stock went back on sale.
    Expired(Hold),
    /// Taken back after it was paid; its stock went back on sale.
    Cancelled(Hold, PaymentRef),
    /// Turned down.
    Rejected(Timestamp, Reason),
    /// Paid after the hold ended, when the stock was gone: money to return.
    RefundDue(Hold, PaymentRef),
}

/// An [`OrderState`] without its contents.
///
/// ```
/// use flux_core::OrderStatus;
///
/// assert_eq!(OrderStatus::RefundDue.to_string(), "refund_due");
/// assert_eq!("held".parse(), Ok(OrderStatus::Held));
/// let owning = OrderStatus::ALL.iter().filter(|status| status.owns_stock());
/// assert_eq!(owning.count(), 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderStatus {
    /// See [`OrderState::Queued`].
    Queued,
    /// See [`OrderState::Held`].
    Held,
    /// See [`OrderState::Confirmed`].
    Confirmed,
    /// See [`OrderState::Released`].
    Released,
    /// See [`OrderState::Expired`].
    Expired,
    /// See [`OrderState::Cancelled`].
    Cancelled,
    /// See [`OrderState::Rejected`].
    Rejected,
    /// See [`OrderState::RefundDue`].
    RefundDue,
}

impl OrderStatus {
    /// Whether an order in this state has units set aside or sold to it.
    #[must_use]
    pub fn owns_stock(self) -> bool {
        match self {
            Self::Held | Self::Confirmed => true,
            Self::Queued
            | Self::Released
            | Self::Expired
            | Self::Cancelled
            | Self::Rejected
            | Self::RefundDue => false,
        }
    }
}

words! {
    OrderStatus, "status":
    Queued = "queued", Held = "held", Confirmed = "confirmed", Released = "released",
    Expired = "expired", Cancelled = "cancelled", Rejected = "rejected" or RefundDue = "refund_due"
}

/// One buyer's all-or-nothing request and what became of it.
///
/// ```
/// use flux_core::{BuyerId, Line, Lines, Order, OrderId, OrderStatus, Timestamp};
///
/// let lines = Lines::new(vec![Line::units("ticket_1", 2)?])?;
/// let placed_at = Timestamp::from_millis(1_790_000_000_000);
/// let order = Order::queued(OrderId::new(), BuyerId::new("ann")?, lines, placed_at);
/// assert_eq!(order.status(), OrderStatus::Queued);
/// assert_eq!(order.decided_at(), None);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Order {
    /// Its id, under which it is decided once.
    pub id: OrderId,
    /// The buyer who asked.
    pub buyer: BuyerId,
    /// The items asked for.
    pub lines: Lines,
    /// The moment it was accepted; opening and closing times are judged by it.
    pub placed_at: Timestamp,
    /// Its state: undecided, or the outcome.
    pub state: OrderState,
    /// What was attached to it.
    #[serde(default)]
    pub metadata: Metadata,
    /// Of one that was turned down the line that could not be had: its index in
    /// `lines`. `None` where the whole order was, as by a
    /// [rule about buyers](super::BuyerRules), and of orders that were turned down by a
    /// version that did not tell.
    #[serde(default)]
    pub failed_line: Option<u8>,
    /// Its money, where that bought nothing or buys nothing any more. See
    /// [`Order::money`]: orders that came to owe under a version that did not note it
    /// have none.
    #[serde(default)]
    pub debt: Option<Box<Debt>>,
}

/// Leaves out what is not there where members have names, as in JSON, so that earlier
/// versions read it.
impl Serialize for Order {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { id, buyer, lines, placed_at, state, metadata, failed_line, debt } = self;
        let is_bare = to.is_human_readable();
        let has_metadata = !is_bare || !metadata.is_empty();
        let has_failed_line = !is_bare || failed_line.is_some();
        let has_debt = !is_bare || debt.is_some();
        let optional = [has_metadata, has_failed_line, has_debt];
        let members = 5 + optional.into_iter().map(usize::from).sum::<usize>();
        let mut order = to.serialize_struct("Order", members)?;
        order.serialize_field("id", id)?;
        order.serialize_field("buyer", buyer)?;
        order.serialize_field("lines", lines)?;
        order.serialize_field("placed_at", placed_at)?;
        order.serialize_field("state", state)?;
        if has_metadata {
            order.serialize_field("metadata", metadata)?;
        }
        if has_failed_line {
            order.serialize_field("failed_line", failed_line)?;
        }
        if has_debt {
            order.serialize_field("debt", debt)?;
        }
        order.end()
    }
}

impl Order {
    /// An order nobody has decided yet.
    #[must_use]
    pub fn queued(id: OrderId, buyer: BuyerId, lines: Lines, placed_at: Timestamp) -> Self {
        Self {
            id,
            buyer,
            lines,
            placed_at,
            state: OrderState::Queued,
            metadata: Metadata::default(),
            failed_line: None,
            debt: None,
        }
    }

    /// The same order with this attached to it.
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// The state's name.
    #[must_use]
    pub fn status(&self) -> OrderStatus {
        match &self.state {
            OrderState::Queued => OrderStatus::Queued,
            OrderState::Held(_) => OrderStatus::Held,
            OrderState::Confirmed(..) => OrderStatus::Confirmed,
            OrderState::Released(_) => OrderStatus::Released,
            OrderState::Expired(_) => OrderStatus::Expired,
            OrderState::Cancelled(..) => OrderStatus::Cancelled,
            OrderState::Rejected(..) => OrderStatus::Rejected,
            OrderState::RefundDue(..) => OrderStatus::RefundDue,
        }
    }

    /// The hold, if the order ever got one.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        match &self.state {
            OrderState::Queued | OrderState::Rejected(..) => None,
            OrderState::Held(hold)
            | OrderState::Released(hold)
            | OrderState::Expired(hold)
            | OrderState::Confirmed(hold, _)
            | OrderState::Cancelled(hold, _)
            | OrderState::RefundDue(hold, _) => Some(*hold),
        }
    }

    /// The moment it was decided; `None` while queued.
    #[must_use]
    pub fn decided_at(&self) -> Option<Timestamp> {
        match &self.state {
            OrderState::Rejected(at, _) => Some(*at),
            _ => self.hold().map(|hold| hold.decided_at),
        }
    }

    /// The reason why it was turned down, if it was.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match &self.state {
            OrderState::Rejected(_, reason) => Some(*reason),
            _ => None,
        }
    }

    /// The payment, if one came, whether it bought anything or not.
    #[must_use]
    pub fn payment_ref(&self) -> Option<&PaymentRef> {
        match &self.state {
            OrderState::Confirmed(_, payment)
            | OrderState::Cancelled(_, payment)
            | OrderState::RefundDue(_, payment) => Some(payment),
            OrderState::Queued | OrderState::Held(_) | OrderState::Expired(_) => None,
            OrderState::Released(_) | OrderState::Rejected(..) => {
                self.debt.as_ref()?.stray.as_ref()
            }
        }
    }

    /// Where its money stands.
    #[must_use]
    pub fn money(&self) -> Money {
        match self.status() {
            OrderStatus::Queued | OrderStatus::Held | OrderStatus::Expired => Money::None,
            OrderStatus::Confirmed => Money::Paid,
            OrderStatus::Cancelled | OrderStatus::RefundDue => self.owed_or_refunded(),
            OrderStatus::Released | OrderStatus::Rejected => match &self.debt {
                Some(debt) if debt.stray.is_some() => self.owed_or_refunded(),
                _ => Money::None,
            },
        }
    }

    fn owed_or_refunded(&self) -> Money {
        match self.refund() {
            Some(_) => Money::Refunded,
            None => Money::Owed,
        }
    }

    /// The refund, if its money was owed and was returned.
    #[must_use]
    pub fn refund(&self) -> Option<&Refund> {
        self.debt.as_ref()?.refund.as_ref()
    }

    /// The moment from which its money is or was owed, if it ever was. Of orders that came
    /// to it under a version that did not note it, the end of the hold.
    #[must_use]
    pub fn owed_since(&self) -> Option<Timestamp> {
        if !matches!(self.money(), Money::Owed | Money::Refunded) {
            return None;
        }
        match &self.debt {
            Some(debt) => Some(debt.since),
            None => self.hold().map(|hold| hold.expires_at),
        }
    }

    /// The same order in a state whose money is owed since then.
    pub(super) fn owing(&self, state: OrderState, since: Timestamp) -> Self {
        Self { debt: Some(Box::new(Debt::since(since))), ..self.with_state(state) }
    }

    /// Whether `other` asks for the same things for the same buyer, as a repeat
    /// under one id must.
    #[must_use]
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        self.buyer == other.buyer && self.lines == other.lines && self.metadata == other.metadata
    }

    /// An estimate of its bytes when written down: names, seats, metadata, and a fixed
    /// share for the rest. A store may bound the sum of a commit's.
    #[must_use]
    pub fn weight(&self) -> usize {
        let line = |line: &Line| {
            let seats = match &line.ask {
                Ask::Units(_) => 0,
                Ask::Seats(seats) => seats.iter().map(|seat| seat.as_str().len() + 4).sum(),
            };
            line.item.as_str().len() + 48 + seats
        };
        256 + self.buyer.as_str().len()
            + self.lines.iter().map(line).sum::<usize>()
            + self.metadata.iter().map(|(name, text)| name.len() + text.len() + 8).sum::<usize>()
    }

    /// The same order in another state.
    #[must_use]
    pub fn with_state(&self, state: OrderState) -> Self {
        Self { state, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_1_to_10_lines_and_names_each_seat_once() {
        let line = |n: usize| Line::units(format!("i{n}"), 1).expect("line");
        assert!(Lines::new(vec![]).is_err());
        assert!(Lines::new((0..10).map(line).collect()).is_ok());
        assert_eq!(Lines::new((0..11).map(line).collect()).expect_err("11").field(), "lines");

        let seats = |n: usize| Line::seats("hall", (0..n).map(|s| format!("s{s}"))).expect("line");
        assert!(Lines::new(vec![seats(0)]).is_err());
        assert!(Lines::new(vec![seats(100)]).is_ok());
        assert_eq!(Lines::new(vec![seats(101)]).expect_err("101").field(), "seats");
        assert!(Lines::new(vec![seats(2), seats(1)]).is_err(), "a seat in two lines");
        assert!(Lines::new(vec![line(1), line(1)]).is_ok(), "summed");
    }

    fn order(buyer: &str, lines: Vec<Line>) -> Order {
        let lines = Lines::new(lines).expect("lines");
        let buyer = BuyerId::new(buyer).expect("buyer");
        Order::queued(OrderId::new(), buyer, lines, Timestamp::default())
    }

    #[test]
    fn an_order_tells_what_its_state_knows_and_no_more() {
        let at = Timestamp::from_millis;
        let hold = Hold::between(at(5), at(9));
        let pay = PaymentRef::new("pay").expect("ref");
        let paid = (Some(hold), Some(at(5)), None, Some(&pay));
        let unpaid = (Some(hold), Some(at(5)), None, None);
        let queued = order("ann", vec![Line::units("a", 1).expect("line")]);
        let sold_out = Reason::SoldOut;
        for (state, known) in [
            (OrderState::Queued, (None, None, None, None)),
            (OrderState::Held(hold), unpaid),
            (OrderState::Released(hold), unpaid),
            (OrderState::Expired(hold), unpaid),
            (OrderState::Confirmed(hold, pay.clone()), paid),
            (OrderState::Cancelled(hold, pay.clone()), paid),
            (OrderState::RefundDue(hold, pay.clone()), paid),
            (OrderState::Rejected(at(7), sold_out), (None, Some(at(7)), Some(sold_out), None)),
        ] {
            let order = queued.with_state(state);
            let told = (order.hold(), order.decided_at(), order.reason(), order.payment_ref());
            assert_eq!(told, known, "{order:?}");
        }
    }

    #[test]
    fn a_repeat_is_of_the_same_buyer_and_the_same_lines() {
        let line = |n| vec![Line::units("a", n).expect("line")];
        let first = order("ann", line(1));
        assert!(first.asks_the_same_as(&order("ann", line(1))));
        assert!(!first.asks_the_same_as(&order("bob", line(1))));
        assert!(!first.asks_the_same_as(&order("ann", line(2))));
        let attached = Metadata::new([("basket", "7")]).expect("a pair");
        assert!(!first.asks_the_same_as(&first.clone().with_metadata(attached)));
    }

    #[test]
    fn an_orders_weight_is_at_least_its_bytes_and_not_far_above() {
        let seats = |count: usize, bytes: usize| {
            let name = |n| format!("{n:0>bytes$}");
            Line::seats("h".repeat(128), (0..count).map(name)).expect("line")
        };
        for lines in [
            vec![Line::units("a", 1).expect("line")],
            (0..10).map(|n| Line::units(format!("{n:0>128}"), 1_000).expect("line")).collect(),
            vec![seats(1, 3)],
            vec![seats(100, 3)],
            vec![seats(100, 128)],
        ] {
            let hold = Hold::between(Timestamp::now(), Timestamp::now());
            let order = order(&"b".repeat(128), lines).with_state(OrderState::Held(hold));
            let written = serde_json::to_vec(&order).expect("json").len();
            let weight = order.weight();
            assert!((written..=written + 512).contains(&weight), "{weight}, written {written}");
        }
    }
}
