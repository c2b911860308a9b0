//! Orders, items and changes as JSON shows them: the shapes of the HTTP contract, for
//! whoever answers or reads such JSON. They borrow what they show. What a store
//! keeps has a form of its own, by serde on [`Order`] itself.
//!
//! ```
//! use flux_core::views::OrderView;
//! use flux_core::{Order, OrderId, OrderRequest, Timestamp};
//!
//! let request = OrderRequest::units("ann", "ticket_1", 2)?;
//! let id: OrderId = "018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e".parse()?;
//! let placed_at: Timestamp = "2026-11-23T10:00:00Z".parse()?;
//! let order = Order::queued(id, request.buyer, request.lines, placed_at);
//!
//! let json = serde_json::to_value(OrderView::from(&order))?;
//! assert_eq!(json["lines"], serde_json::json!([{"item_id": "ticket_1", "quantity": 2}]));
//! assert_eq!(json["status"], "queued");
//! assert_eq!(json["placed_at"], "2026-11-23T10:00:00.000Z");
//!
//! let read: OrderView = serde_json::from_value(json)?;
//! assert_eq!(Order::try_from(read)?, order);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Ask, BuyerCap, BuyerId, Capacity, Debt, Hall, Hold, HoldTime, InvalidInput, Item, ItemId,
    ItemKind, ItemSpec, ItemState, Line, Lines, Metadata, Money, Order, OrderId, OrderState,
    OrderStatus, PaymentRef, Quantity, Reason, Refund, RefundRef, SeatId, Timestamp,
};
use crate::seams::{ArchiveId, Change, Changed, Cursor, Removed, Tombstone};

/// An order as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OrderView<'o> {
    /// Its id.
    pub order_id: OrderId,
    /// The buyer.
    pub buyer_id: Cow<'o, BuyerId>,
    /// Its lines; each is shown as a [`LineView`].
    #[serde(with = "lines")]
    pub lines: Cow<'o, Lines>,
    /// The name of its state.
    pub status: OrderStatus,
    /// The reason for which it was rejected.
    pub reason: Option<Reason>,
    /// The time it was accepted.
    #[serde(with = "time")]
    pub placed_at: Timestamp,
    /// The time it was decided.
    #[serde(with = "optional_time")]
    pub decided_at: Option<Timestamp>,
    /// The time its hold ends or ended.
    #[serde(with = "optional_time")]
    pub hold_expires_at: Option<Timestamp>,
    /// Its payment.
    pub payment_ref: Option<Cow<'o, PaymentRef>>,
    /// The time since when its money is owed, or was until it was returned, if it was
    /// noted.
    #[serde(default, with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub owed_since: Option<Timestamp>,
    /// The refund of its money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_ref: Option<Cow<'o, RefundRef>>,
    /// The time that refund was told of.
    #[serde(default, with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub refunded_at: Option<Timestamp>,
    /// Of a rejected one the line that could not be had: its index in `lines`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_line: Option<u8>,
    /// What was attached to it.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Cow<'o, Metadata>,
}

impl<'o> From<&'o Order> for OrderView<'o> {
    fn from(order: &'o Order) -> Self {
        Self {
            order_id: order.id,
            buyer_id: Cow::Borrowed(&order.buyer),
            lines: Cow::Borrowed(&order.lines),
            status: order.status(),
            reason: order.reason(),
            placed_at: order.placed_at,
            decided_at: order.decided_at(),
            hold_expires_at: order.hold().map(|hold| hold.expires_at),
            payment_ref: order.payment_ref().map(Cow::Borrowed),
            owed_since: order.debt.as_ref().map(|debt| debt.since),
            refund_ref: order.refund().map(|refund| Cow::Borrowed(&refund.reference)),
            refunded_at: order.refund().map(|refund| refund.at),
            failed_line: order.failed_line,
            metadata: Cow::Borrowed(&order.metadata),
        }
    }
}

impl TryFrom<OrderView<'_>> for Order {
    type Error = InvalidInput;
    /// Refuses fields that don't go with the status.
    fn try_from(view: OrderView<'_>) -> Result<Self, InvalidInput> {
        let decided_at = || view.decided_at.ok_or_else(|| missing("decided_at"));
        let payment = || view.payment_ref.as_deref().cloned().ok_or_else(|| missing("payment_ref"));
        let hold = || {
            let expires_at = view.hold_expires_at.ok_or_else(|| missing("hold_expires_at"))?;
            Ok::<_, InvalidInput>(Hold { decided_at: decided_at()?, expires_at })
        };
        let state = match view.status {
            OrderStatus::Queued => OrderState::Queued,
            OrderStatus::Held => OrderState::Held(hold()?),
            OrderStatus::Confirmed => OrderState::Confirmed(hold()?, payment()?),
            OrderStatus::Released => OrderState::Released(hold()?),
            OrderStatus::Expired => OrderState::Expired(hold()?),
            OrderStatus::Cancelled => OrderState::Cancelled(hold()?, payment()?),
            OrderStatus::Rejected => {
                OrderState::Rejected(decided_at()?, view.reason.ok_or_else(|| missing("reason"))?)
            }
            OrderStatus::RefundDue => OrderState::RefundDue(hold()?, payment()?),
        };
        let debt = view.owed_since.map(|since| {
            let is_stray = matches!(view.status, OrderStatus::Released | OrderStatus::Rejected);
            let stray = view.payment_ref.as_deref().filter(|_| is_stray).cloned();
            let refund = view.refund_ref.as_deref().zip(view.refunded_at);
            let refund = refund.map(|(reference, at)| Refund::new(reference.clone(), at));
            Box::new(Debt { stray, refund, ..Debt::since(since) })
        });
        let (buyer, lines) = (view.buyer_id.as_ref().clone(), view.lines.as_ref().clone());
        let order = Self {
            state,
            metadata: view.metadata.as_ref().clone(),
            failed_line: view.failed_line,
            debt,
            ..Self::queued(view.order_id, buyer, lines, view.placed_at)
        };
        if let Some(line) = order.failed_line
            && (order.reason().is_none() || usize::from(line) >= order.lines.len())
        {
            return Err(InvalidInput::new("failed_line", "must be a line of a rejected order"));
        }
        if order.debt.is_some() && !matches!(order.money(), Money::Owed | Money::Refunded) {
            return Err(InvalidInput::new("owed_since", "must be of an order that owes"));
        }
        if OrderView::from(&order) != view {
            let rule = format!("is {}, which does not go with the other fields", view.status);
            return Err(InvalidInput::new("status", rule));
        }
        Ok(order)
    }
}

fn missing(field: &'static str) -> InvalidInput {
    InvalidInput::new(field, "must be given in this status")
}

/// A line as it is shown: `{"item_id", "quantity"}` or `{"item_id", "seats"}`.
///
/// ```
/// use flux_core::views::LineView;
/// use flux_core::Line;
///
/// let read: LineView = serde_json::from_str(r#"{"item_id":"hall","seats":["A1"]}"#)?;
/// assert_eq!(Line::try_from(read)?, Line::seats("hall", ["A1"])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LineView<'l> {
    /// The item.
    pub item_id: Cow<'l, ItemId>,
    /// Units of a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Quantity>,
    /// Seats of a hall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<Cow<'l, [SeatId]>>,
}

impl<'l> From<&'l Line> for LineView<'l> {
    fn from(line: &'l Line) -> Self {
        let (quantity, seats) = match &line.ask {
            Ask::Units(quantity) => (Some(*quantity), None),
            Ask::Seats(seats) => (None, Some(Cow::Borrowed(&seats[..]))),
        };
        Self { item_id: Cow::Borrowed(&line.item), quantity, seats }
    }
}

impl TryFrom<LineView<'_>> for Line {
    type Error = InvalidInput;
    /// Refuses a quantity beside seats, and neither.
    fn try_from(view: LineView<'_>) -> Result<Self, InvalidInput> {
        let ask = match (view.quantity, view.seats) {
            (Some(quantity), None) => Ask::Units(quantity),
            (None, Some(seats)) => Ask::Seats(seats.into_owned()),
            (Some(_), Some(_)) => {
                return Err(InvalidInput::new("seats", "can't stand beside quantity"));
            }
            (None, None) => {
                return Err(InvalidInput::new("quantity", "is missing; or give seats"));
            }
        };
        Ok(Self { item: view.item_id.into_owned(), ask })
    }
}

/// An item as it is shown at one moment.
///
/// ```
/// use flux_core::views::ItemView;
/// use flux_core::{Backend, Flux, ItemSpec, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let flux = Flux::builder(Backend::memory()).start();
/// let spec = ItemSpec::pool("ticket_1", 100)?;
/// flux.put_item(spec.clone()).await?;
/// let item = flux.item(&spec.id).await?.expect("it was put");
///
/// let json = serde_json::to_value(ItemView::new(&item, Timestamp::now()))?;
/// assert_eq!((&json["kind"], &json["available"]), (&"pool".into(), &100.into()));
///
/// let read: ItemView = serde_json::from_value(json)?;
/// assert_eq!(read.into_item(None)?, item);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ItemView<'i> {
    /// Its id.
    pub item_id: Cow<'i, ItemId>,
    /// A name for people.
    pub name: Option<Cow<'i, str>>,
    /// A pool or a hall.
    pub kind: KindView,
    /// Units in all.
    pub capacity: u32,
    /// Units that can be ordered.
    pub available: u32,
    /// Units set aside for orders that are not paid yet.
    pub held: u32,
    /// Units paid for.
    pub sold: u32,
    /// Whether it sells at that moment.
    pub state: ItemState,
    /// Seconds a hold lasts unpaid.
    pub hold_seconds: HoldTime,
    /// Units that one buyer may hold or own at once.
    pub max_per_buyer: Option<BuyerCap>,
    /// The time its sale opens.
    #[serde(with = "optional_time")]
    pub opens_at: Option<Timestamp>,
    /// The time its sale closes.
    #[serde(with = "optional_time")]
    pub closes_at: Option<Timestamp>,
}

/// The name of an item's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KindView {
    /// Interchangeable units.
    Pool,
    /// Named seats.
    Seats,
}

impl KindView {
    fn of(kind: &ItemKind) -> Self {
        match kind {
            ItemKind::Pool(_) => Self::Pool,
            ItemKind::Seats(_) => Self::Seats,
        }
    }
}

impl<'i> ItemView<'i> {
    /// Shows `item` as it is at `now`.
    #[must_use]
    pub fn new(item: &'i Item, now: Timestamp) -> Self {
        let spec = &item.spec;
        Self {
            item_id: Cow::Borrowed(&spec.id),
            name: spec.name.as_deref().map(Cow::Borrowed),
            kind: KindView::of(&spec.kind),
            capacity: spec.capacity(),
            available: item.available,
            held: item.held,
            sold: item.sold,
            state: item.state(now),
            hold_seconds: spec.hold,
            max_per_buyer: spec.max_per_buyer,
            opens_at: spec.opens_at,
            closes_at: spec.closes_at,
        }
    }

    /// The same view, of what it shows itself.
    #[must_use]
    pub fn into_owned(self) -> ItemView<'static> {
        ItemView {
            item_id: Cow::Owned(self.item_id.into_owned()),
            name: self.name.map(|name| Cow::Owned(name.into_owned())),
            ..self
        }
    }

    /// The item that is shown. The seats of a hall are not part of the view, so
    /// its names are given: `Some` for a hall, `None` for a pool.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field that breaks a rule, or that a hall has
    /// other seats than it shows.
    pub fn into_item(self, hall: Option<Hall>) -> Result<Item, InvalidInput> {
        let kind = match (self.kind, hall) {
            (KindView::Pool, None) => ItemKind::Pool(Capacity::new(self.capacity.into())?),
            (KindView::Seats, Some(hall)) if hall.names().len() == self.capacity as usize => {
                ItemKind::Seats(hall)
            }
            (KindView::Pool, Some(_)) => {
                return Err(InvalidInput::new("seats", "can't be given for a pool"));
            }
            (KindView::Seats, _) => {
                return Err(InvalidInput::new("seats", format!("must be {}", self.capacity)));
            }
        };
        let spec = ItemSpec {
            id: self.item_id.into_owned(),
            name: self.name.map(Cow::into_owned),
            kind,
            hold: self.hold_seconds,
            max_per_buyer: self.max_per_buyer,
            opens_at: self.opens_at,
            closes_at: self.closes_at,
        };
        spec.check()?;
        let (available, held, sold) = (self.available, self.held, self.sold);
        Ok(Item { spec: Arc::new(spec), available, held, sold })
    }
}

/// The definition of an item as it is shown: an [`ItemView`] without what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DefinitionView<'i> {
    /// Its id.
    pub item_id: Cow<'i, ItemId>,
    /// A name for people.
    pub name: Option<Cow<'i, str>>,
    /// A pool or a hall.
    pub kind: KindView,
    /// Units in all.
    pub capacity: u32,
    /// Seconds a hold lasts unpaid.
    pub hold_seconds: HoldTime,
    /// Units that one buyer may hold or own at once.
    pub max_per_buyer: Option<BuyerCap>,
    /// The time its sale opens.
    #[serde(with = "optional_time")]
    pub opens_at: Option<Timestamp>,
    /// The time its sale closes.
    #[serde(with = "optional_time")]
    pub closes_at: Option<Timestamp>,
}

impl<'i> From<&'i ItemSpec> for DefinitionView<'i> {
    fn from(spec: &'i ItemSpec) -> Self {
        Self {
            item_id: Cow::Borrowed(&spec.id),
            name: spec.name.as_deref().map(Cow::Borrowed),
            kind: KindView::of(&spec.kind),
            capacity: spec.capacity(),
            hold_seconds: spec.hold,
            max_per_buyer: spec.max_per_buyer,
            opens_at: spec.opens_at,
            closes_at: spec.closes_at,
        }
    }
}

/// An item that is gone, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemovedView<'r> {
    /// Its id.
    pub item_id: Cow<'r, ItemId>,
    /// What is kept of it; null for one that was deleted.
    pub archived: Option<TombstoneView>,
}

impl<'r> From<&'r Removed> for RemovedView<'r> {
    fn from(removed: &'r Removed) -> Self {
        let archived = removed.tombstone.as_ref().map(TombstoneView::from);
        Self { item_id: Cow::Borrowed(&removed.item), archived }
    }
}

/// What is kept of an archived item, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TombstoneView {
    /// The archive that has it.
    pub archive: ArchiveId,
    /// The time whose state the archive has.
    #[serde(with = "time")]
    pub archived_at: Timestamp,
    /// The orders in that archive, over all of its items.
    pub orders: u64,
}

impl From<&Tombstone> for TombstoneView {
    fn from(tombstone: &Tombstone) -> Self {
        let Tombstone { archive, archived_at, orders, .. } = tombstone;
        Self { archive: *archive, archived_at: *archived_at, orders: *orders }
    }
}

/// A change as it is shown. Exactly one of `order`, `item` and `removed` is there.
///
/// ```
/// use flux_core::views::ChangeView;
/// use flux_core::{Backend, Flux, ItemSpec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let flux = Flux::builder(Backend::memory()).start();
/// flux.put_item(ItemSpec::pool("ticket_1", 100)?).await?;
/// let page = flux.changes(None, 10).await?;
/// let json = serde_json::to_value(ChangeView::from(&page.changes[0]))?;
/// assert_eq!(json["item"]["capacity"], 100);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangeView<'c> {
    /// Its place in the feed.
    pub cursor: Cow<'c, Cursor>,
    /// The time it was written.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// The order that changed, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderView<'c>>,
    /// The item that changed, as it was then defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<DefinitionView<'c>>,
    /// The item that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<RemovedView<'c>>,
}

impl<'c> From<&'c Change> for ChangeView<'c> {
    fn from(change: &'c Change) -> Self {
        let (mut order, mut item, mut removed) = (None, None, None);
        match &change.changed {
            Changed::Order(changed) => order = Some(OrderView::from(changed)),
            Changed::Item(spec) => item = Some(DefinitionView::from(spec)),
            Changed::Removed(gone) => removed = Some(RemovedView::from(gone)),
        }
        Self { cursor: Cow::Borrowed(&change.cursor), at: change.at, order, item, removed }
    }
}

/// Lines, each as a [`LineView`].
mod lines {
    use serde::{Deserializer, Serializer, de::Error};

    use super::{Cow, Deserialize, Line, LineView, Lines};

    pub(super) fn serialize<S: Serializer>(lines: &Lines, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(lines.iter().map(LineView::from))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Cow<'static, Lines>, D::Error> {
        let views = Vec::<LineView<'_>>::deserialize(from)?;
        let lines = views.into_iter().map(Line::try_from).collect::<Result<_, _>>();
        lines.and_then(Lines::new).map(Cow::Owned).map_err(D::Error::custom)
    }
}

/// A moment as RFC 3339.
pub(crate) mod time {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Cow, Timestamp};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A moment as RFC 3339, or null.
mod optional_time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Timestamp, time};

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "time")] Timestamp);

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn order(state: OrderState) -> Order {
        let id = "018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e".parse().expect("an id");
        let lines = vec![
            Line::units("ticket_1", 2).expect("a line"),
            Line::seats("hall", ["A1", "A2"]).expect("a line"),
        ];
        let lines = Lines::new(lines).expect("lines");
        let buyer = BuyerId::new("ann").expect("a buyer");
        Order { state, ..Order::queued(id, buyer, lines, Timestamp::from_millis(1_000)) }
    }

    fn states() -> Vec<OrderState> {
        let at = Timestamp::from_millis;
        let hold = Hold { decided_at: at(2_000), expires_at: at(602_000) };
        let paid = || PaymentRef::new("p-1").expect("a reference");
        vec![
            OrderState::Queued,
            OrderState::Held(hold),
            OrderState::Confirmed(hold, paid()),
            OrderState::Released(hold),
            OrderState::Expired(hold),
            OrderState::Cancelled(hold, paid()),
            OrderState::Rejected(at(2_000), Reason::SeatTaken),
            OrderState::RefundDue(hold, paid()),
        ]
    }

    #[test]
    fn an_order_in_any_state_is_shown_and_read_back() {
        for state in states() {
            let order = order(state);
            let json = serde_json::to_string(&OrderView::from(&order)).expect("JSON");
            let read: OrderView<'_> = serde_json::from_str(&json).expect("a view");
            assert_eq!(Order::try_from(read), Ok(order));
        }
    }

    #[test]
    fn what_is_attached_is_shown_and_so_is_the_line_that_failed() {
        let rejected = order(states().remove(6));
        let metadata = Metadata::new([("basket", "7")]).expect("a pair");
        let order = Order { failed_line: Some(1), ..rejected }.with_metadata(metadata);
        let json = serde_json::to_value(OrderView::from(&order)).expect("JSON");
        assert_eq!((&json["metadata"], &json["failed_line"]), (&json!({"basket": "7"}), &json!(1)));
        let read: OrderView<'_> = serde_json::from_value(json).expect("a view");
        assert_eq!(Order::try_from(read), Ok(order));
    }

    #[test]
    fn money_that_is_owed_or_returned_is_shown_and_read_back() {
        let at = Timestamp::from_millis;
        let stray = PaymentRef::new("p-2").expect("a reference");
        let refund = Refund::new(RefundRef::new("r-1").expect("a reference"), at(9_000));
        for (state, stray) in [(3, Some(stray.clone())), (5, None), (6, Some(stray)), (7, None)] {
            for refund in [None, Some(refund.clone())] {
                let debt = Debt { stray: stray.clone(), refund, ..Debt::since(at(8_000)) };
                let owing = Order { debt: Some(Box::new(debt)), ..order(states().remove(state)) };
                let json = serde_json::to_value(OrderView::from(&owing)).expect("JSON");
                assert_eq!(json["owed_since"], "1970-01-01T00:00:08.000Z");
                let read: OrderView<'_> = serde_json::from_value(json).expect("a view");
                assert_eq!(Order::try_from(read), Ok(owing));
            }
        }
        let mut json = serde_json::to_value(OrderView::from(&order(states().remove(1))));
        json.as_mut().expect("JSON")["owed_since"] = "1970-01-01T00:00:08.000Z".into();
        let read: OrderView<'_> = serde_json::from_value(json.expect("JSON")).expect("a view");
        assert_eq!(Order::try_from(read).expect_err("nothing is owed").field(), "owed_since");
    }

    #[test]
    fn an_order_shown_by_an_earlier_version_is_read() {
        let order = order(states().remove(1));
        let json = serde_json::to_value(OrderView::from(&order)).expect("JSON");
        let members = json.as_object().expect("an object");
        assert_eq!(members.len(), 9, "what is not there is not shown");
        let read: OrderView<'_> = serde_json::from_value(json).expect("a view");
        assert_eq!(Order::try_from(read), Ok(order));
    }

    #[test]
    fn an_order_is_shown_as_the_contract_says() {
        let states = states();
        let shown = |state: &OrderState| {
            serde_json::to_string(&OrderView::from(&order(state.clone()))).expect("JSON")
        };
        assert_eq!(
            shown(&states[2]),
            concat!(
                r#"{"order_id":"018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e","buyer_id":"ann","lines":["#,
                r#"{"item_id":"ticket_1","quantity":2},{"item_id":"hall","seats":["A1","A2"]}],"#,
                r#""status":"confirmed","reason":null,"placed_at":"1970-01-01T00:00:01.000Z","#,
                r#""decided_at":"1970-01-01T00:00:02.000Z","#,
                r#""hold_expires_at":"1970-01-01T00:10:02.000Z","payment_ref":"p-1"}"#,
            )
        );
        assert!(shown(&states[6]).contains(
            r#""reason":"seat_taken","placed_at":"1970-01-01T00:00:01.000Z","decided_at":"1970-01-01T00:00:02.000Z","hold_expires_at":null,"payment_ref":null}"#
        ));
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        let states = states();
        let wrong = |state: usize, field: &str, value: Value| {
            let view = order(states[state].clone());
            let mut json = serde_json::to_value(OrderView::from(&view)).expect("JSON");
            json[field] = value;
            match serde_json::from_value::<OrderView<'_>>(json) {
                Ok(view) => Order::try_from(view).expect_err(field).to_string(),
                Err(unreadable) => unreadable.to_string(),
            }
        };
        assert!(wrong(1, "hold_expires_at", Value::Null).starts_with("hold_expires_at: "));
        assert!(wrong(1, "decided_at", Value::Null).starts_with("decided_at: "));
        assert!(wrong(1, "payment_ref", json!("p-1")).starts_with("status: "));
        assert!(wrong(2, "payment_ref", Value::Null).starts_with("payment_ref: "));
        assert!(wrong(6, "reason", Value::Null).starts_with("reason: "));
        assert!(wrong(6, "failed_line", json!(2)).starts_with("failed_line: "));
        assert!(wrong(1, "failed_line", json!(0)).starts_with("failed_line: "));
        assert!(wrong(0, "placed_at", json!("yesterday")).starts_with("time: "));
        let both = json!([{"item_id": "a", "quantity": 1, "seats": ["b"]}]);
        assert!(wrong(0, "lines", both).starts_with("seats: "));
        assert!(wrong(0, "lines", json!([{"item_id": "a"}])).starts_with("quantity: "));
    }

    #[test]
    fn a_hall_is_read_back_with_its_seats() {
        let spec = ItemSpec::hall("hall", ["A1", "A2"]).expect("a hall");
        let ItemKind::Seats(hall) = spec.kind.clone() else { panic!("seats") };
        let item = Item { spec: Arc::new(spec), available: 1, held: 1, sold: 0 };
        let view = || ItemView::new(&item, Timestamp::from_millis(0));
        let json = serde_json::to_value(view()).expect("JSON");
        assert_eq!((&json["kind"], &json["opens_at"]), (&json!("seats"), &Value::Null));
        assert_eq!(view().into_item(Some(hall)), Ok(item.clone()));
        assert_eq!(view().into_item(None).expect_err("no seats").field(), "seats");
        let smaller = Hall::new(vec![SeatId::new("A1").expect("a seat")]).expect("a hall");
        assert!(view().into_item(Some(smaller)).is_err());
    }
}
