//! The rows of the table: the keys and attributes of every kind
//! of row. `design.md` tells what each is for.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as Value;
use flux_core::seams::SeamError;
use flux_core::{
    Ask, BuyerId, ConsumerName, Debt, Hold, ItemId, Line, Lines, Metadata, Money, Order, OrderId,
    OrderState, OrderStatus, PaymentRef, Reason, Refund, RefundRef, Timestamp,
};
use serde::de::DeserializeOwned;

use super::format::DueKeys;

pub(crate) const SERVICE: &str = "DynamoDB";
/// The index of holds by their end.
pub(super) const DUE_INDEX: &str = "due";
/// The time, in seconds, from which DynamoDB may delete a row. What is to stay has none.
pub(super) const FORGOTTEN: &str = "forgotten";

/// The payment of an order, whether it bought anything or not.
pub(super) const PAYMENT: &str = "payment";
/// The millisecond since when an order's money is or was owed.
pub(super) const OWED_SINCE: &str = "owed_since";
/// The refund of an order's money, and the millisecond it was told of.
pub(super) const REFUND: &str = "refund";
pub(super) const REFUNDED: &str = "refunded";

/// What is attached to an order; a note without any has an empty map.
pub(super) const METADATA: &str = "metadata";

pub(super) type Row = HashMap<String, Value>;

/// A row's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    fn new(pk: String, sk: impl Into<String>) -> Self {
        Self { pk, sk: sk.into() }
    }

    pub(super) fn order(id: OrderId) -> Self {
        Self::new(format!("order {id}"), "order")
    }

    /// A stripe of an item's stock; the first also has its definition.
    pub(super) fn stock_row(item: &ItemId, stripe: usize) -> Self {
        match stripe {
            0 => Self::new(format!("item {item}"), "shelf"),
            stripe => Self::new(format!("stripe {stripe} {item}"), "shelf"),
        }
    }

    /// The units of a capped item that one buyer holds or owns, counted since `since`.
    pub(super) fn buyer(item: &ItemId, since: u64, buyer: &BuyerId) -> Self {
        Self::new(format!("buyer {since} {item} {buyer}"), "buyer")
    }

    /// A buyer's live holds over all items, counted in an epoch.
    pub(super) fn holder(epoch: u64, buyer: &BuyerId) -> Self {
        Self::new(format!("holder {epoch} {buyer}"), "holder")
    }

    /// The pause of a buyer for an item.
    pub(super) fn pause(item: &ItemId, buyer: &BuyerId) -> Self {
        Self::new(format!("pause {item} {buyer}"), "pause")
    }

    /// The orders first decided on a stripe, from the `first` on.
    pub(super) fn log(item: &ItemId, stripe: usize, first: u64) -> Self {
        Self::new(format!("log {stripe} {item}"), format!("{first:012}"))
    }

    /// The orders turned down on a stripe, from the `first` on.
    pub(super) fn rejected_log(item: &ItemId, stripe: usize, first: u64) -> Self {
        Self::new(format!("rejected {stripe} {item}"), format!("{first:012}"))
    }

    /// Orders for items that nobody could claim.
    pub(super) fn stray(at: impl Display) -> Self {
        Self::new("stray".into(), at.to_string())
    }

    /// The seats' names, in parts.
    pub(super) fn hall(item: &ItemId, version: &str, part: usize) -> Self {
        Self::new(format!("hall {version} {item}"), format!("{part:04}"))
    }

    /// The entry of an item in the directory, which is in the order of their ids.
    pub(super) fn directory(item: &ItemId) -> Self {
        Self::new("items".into(), item.as_str())
    }

    /// The rows of the consumers of the change feed.
    pub(super) const CONSUMERS: &'static str = "consumers";

    /// A consumer of the change feed.
    pub(super) fn consumer(name: &ConsumerName) -> Self {
        Self::new(Self::CONSUMERS.into(), name.as_str())
    }

    /// The mark of a table that is ours.
    pub(super) fn format() -> Self {
        Self::new("flux".into(), "format")
    }

    pub(super) fn into_row(self) -> Row {
        HashMap::from([("pk".into(), Value::S(self.pk)), ("sk".into(), Value::S(self.sk))])
    }

    pub(super) fn of(row: &Row) -> Result<Self, SeamError> {
        Ok(Self::new(text(row, "pk")?.to_owned(), text(row, "sk")?))
    }
}

pub(super) fn number(value: impl Display) -> Value {
    Value::N(value.to_string())
}

pub(super) fn string(value: impl Display) -> Value {
    Value::S(value.to_string())
}

/// A number where an index carries a text.
pub(super) fn number_as_text(value: u64) -> Value {
    Value::S(value.to_string())
}

pub(super) fn bytes(value: Vec<u8>) -> Value {
    Value::B(Blob::new(value))
}

/// The failure to read a row, which can't be ours.
pub(super) fn damaged(row: &Row, what: &str) -> SeamError {
    let pk = row.get("pk").and_then(|pk| pk.as_s().ok()).map_or("?", String::as_str);
    SeamError::broken(SERVICE, format!("row {pk:?}: {what} is missing or unreadable"))
}

pub(super) fn opt_number(row: &Row, name: &str) -> Result<Option<u64>, SeamError> {
    let Some(value) = row.get(name) else { return Ok(None) };
    let number = value.as_n().ok().and_then(|number| number.parse().ok());
    number.map(Some).ok_or_else(|| damaged(row, name))
}

pub(super) fn get_number(row: &Row, name: &str) -> Result<u64, SeamError> {
    opt_number(row, name)?.ok_or_else(|| damaged(row, name))
}

pub(super) fn opt_text<'r>(row: &'r Row, name: &str) -> Result<Option<&'r str>, SeamError> {
    let Some(value) = row.get(name) else { return Ok(None) };
    value.as_s().map(|text| Some(text.as_str())).map_err(|_| damaged(row, name))
}

pub(super) fn text<'r>(row: &'r Row, name: &str) -> Result<&'r str, SeamError> {
    opt_text(row, name)?.ok_or_else(|| damaged(row, name))
}

pub(super) fn opt_bytes<'r>(row: &'r Row, name: &str) -> Result<Option<&'r [u8]>, SeamError> {
    let Some(value) = row.get(name) else { return Ok(None) };
    value.as_b().map(|blob| Some(blob.as_ref())).map_err(|_| damaged(row, name))
}

/// A word that serde knows, such as a status.
fn word<T: DeserializeOwned>(row: &Row, name: &str) -> Result<T, SeamError> {
    let word = serde_json::Value::from(text(row, name)?);
    serde_json::from_value(word).map_err(|_| damaged(row, name))
}

/// The second from which an order need not be remembered, if it was turned down and no money
/// came for it.
pub(super) fn forgotten_at(order: &Order, keep_rejected: Duration) -> Option<u64> {
    match order.state {
        // G9: a debt is not forgotten.
        OrderState::Rejected(at, _) if order.money() == Money::None => {
            Some((at + keep_rejected).as_millis().div_ceil(1_000))
        }
        _ => None,
    }
}

/// The row of an order.
pub(super) fn order_row(order: &Order, keep_rejected: Duration, due_keys: &DueKeys) -> Row {
    let mut row = Key::order(order.id).into_row();
    row.extend(asked(order).map(|(name, value)| (name.to_owned(), value)));
    let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
    if let Some(decided) = order.decided_at() {
        put("decided", number(decided.as_millis()));
    }
    if let Some(hold) = order.hold() {
        put("ends", number(hold.expires_at.as_millis()));
    }
    if let Some(reason) = order.reason() {
        put("reason", string(reason));
    }
    if let Some(payment) = order.payment_ref() {
        put(PAYMENT, string(payment));
    }
    if let Some(debt) = &order.debt {
        put(OWED_SINCE, number(debt.since.as_millis()));
    }
    if let Some(refund) = order.refund() {
        put(REFUND, string(&refund.reference));
        put(REFUNDED, number(refund.at.as_millis()));
    }
    if let (Money::Owed, Some(since)) = (order.money(), order.owed_since()) {
        put("due", number(due_keys.of_debt(order.id)));
        put("takes", number_as_text(since.as_millis()));
        if order.hold().is_none() {
            // The index has its sort key of every row in it.
            put("ends", number(since.as_millis()));
        }
    }
    if let Some(line) = order.failed_line {
        put("failed_line", number(line));
    }
    if !order.metadata.is_empty() {
        put(METADATA, metadata_value(order));
    }
    if let Some(at) = forgotten_at(order, keep_rejected) {
        put(FORGOTTEN, number(at));
    }
    if order.status() == OrderStatus::Held {
        put("due", number(due_keys.of(order.id)));
        put("takes", Value::S(takes(order)));
    }
    row
}

/// What is attached to an order.
pub(super) fn metadata_value(order: &Order) -> Value {
    let pair = |(name, text): (&str, &str)| (name.to_owned(), string(text));
    Value::M(order.metadata.iter().map(pair).collect())
}

/// What an order asks for, and how it stands.
pub(super) fn asked(order: &Order) -> [(&'static str, Value); 4] {
    [
        ("buyer", string(&order.buyer)),
        ("lines", Value::L(order.lines.iter().map(line_value).collect())),
        ("placed", number(order.placed_at.as_millis())),
        ("status", string(order.status())),
    ]
}

/// The units of each line, as in `2 ticket_1 1 hall`; no id has a space.
fn takes(order: &Order) -> String {
    let line = |line: &Line| format!("{} {}", line.ask.units(), line.item);
    order.lines.iter().map(line).collect::<Vec<_>>().join(" ")
}

/// Reads what [`takes`] wrote.
pub(super) fn taken(row: &Row) -> Result<Vec<(ItemId, u32)>, SeamError> {
    let words: Vec<&str> = text(row, "takes")?.split(' ').collect();
    let pair = |pair: &[&str]| match pair {
        [units, item] => Some((ItemId::new(item).ok()?, units.parse().ok()?)),
        _ => None,
    };
    words.chunks(2).map(pair).collect::<Option<_>>().ok_or_else(|| damaged(row, "takes"))
}

fn line_value(line: &Line) -> Value {
    let ask = match &line.ask {
        Ask::Units(units) => ("units".to_owned(), number(units)),
        Ask::Seats(seats) => ("seats".to_owned(), Value::L(seats.iter().map(string).collect())),
    };
    Value::M(HashMap::from([("item".to_owned(), string(&line.item)), ask]))
}

fn read_line(value: &Value) -> Option<Line> {
    let line = value.as_m().ok()?;
    let item = line.get("item")?.as_s().ok()?;
    if let Some(units) = line.get("units") {
        return Line::units(item, units.as_n().ok()?.parse().ok()?).ok();
    }
    let seats = line.get("seats")?.as_l().ok()?;
    let seats: Option<Vec<&String>> = seats.iter().map(|seat| seat.as_s().ok()).collect();
    Line::seats(item, seats?).ok()
}

/// The order of a row.
pub(super) fn read_order(row: &Row) -> Result<Order, SeamError> {
    let id = text(row, "pk")?.strip_prefix("order ").and_then(|id| id.parse().ok());
    let id: OrderId = id.ok_or_else(|| damaged(row, "pk"))?;
    let buyer = BuyerId::new(text(row, "buyer")?).map_err(|_| damaged(row, "buyer"))?;
    let lines = row.get("lines").and_then(|lines| lines.as_l().ok());
    let lines: Option<Vec<Line>> = lines.and_then(|lines| lines.iter().map(read_line).collect());
    let lines = lines.and_then(|lines| Lines::new(lines).ok());
    let lines = lines.ok_or_else(|| damaged(row, "lines"))?;
    let time = |name| get_number(row, name).map(Timestamp::from_millis);
    let hold = || -> Result<Hold, SeamError> { Ok(Hold::between(time("decided")?, time("ends")?)) };
    let payment = || PaymentRef::new(text(row, PAYMENT)?).map_err(|_| damaged(row, PAYMENT));
    let state = match word(row, "status")? {
        OrderStatus::Queued => OrderState::Queued,
        OrderStatus::Held => OrderState::Held(hold()?),
        OrderStatus::Confirmed => OrderState::Confirmed(hold()?, payment()?),
        OrderStatus::Released => OrderState::Released(hold()?),
        OrderStatus::Expired => OrderState::Expired(hold()?),
        OrderStatus::Cancelled => OrderState::Cancelled(hold()?, payment()?),
        OrderStatus::Rejected => {
            OrderState::Rejected(time("decided")?, word::<Reason>(row, "reason")?)
        }
        OrderStatus::RefundDue => OrderState::RefundDue(hold()?, payment()?),
        // The tests read every status.
        _ => return Err(damaged(row, "status")),
    };
    let mut order = Order::queued(id, buyer, lines, time("placed")?).with_state(state);
    let failed_line = opt_number(row, "failed_line")?.map(u8::try_from).transpose();
    order.failed_line = failed_line.map_err(|_| damaged(row, "failed_line"))?;
    order.debt = read_debt(row, order.status())?.map(Box::new);
    Ok(order.with_metadata(read_metadata(row)?))
}

fn read_debt(row: &Row, status: OrderStatus) -> Result<Option<Debt>, SeamError> {
    let Some(since) = opt_number(row, OWED_SINCE)? else { return Ok(None) };
    let mut debt = Debt::since(Timestamp::from_millis(since));
    if matches!(status, OrderStatus::Released | OrderStatus::Rejected) {
        let stray = opt_text(row, PAYMENT)?.map(PaymentRef::new).transpose();
        debt.stray = stray.map_err(|_| damaged(row, PAYMENT))?;
    }
    if let Some(reference) = opt_text(row, REFUND)? {
        let reference = RefundRef::new(reference).map_err(|_| damaged(row, REFUND))?;
        let at = Timestamp::from_millis(get_number(row, REFUNDED)?);
        debt.refund = Some(Refund::new(reference, at));
    }
    Ok(Some(debt))
}

fn read_metadata(row: &Row) -> Result<Metadata, SeamError> {
    let Some(metadata) = row.get(METADATA) else { return Ok(Metadata::default()) };
    let pair = |(name, text): (&String, &Value)| Some((name.clone(), text.as_s().ok()?.clone()));
    let pairs = metadata.as_m().ok().and_then(|pairs| pairs.iter().map(pair).collect());
    let pairs: Vec<(String, String)> = pairs.ok_or_else(|| damaged(row, "metadata"))?;
    Metadata::new(pairs).map_err(|_| damaged(row, "metadata"))
}

/// An order as a log names it, in 20 bytes: its id, and a checksum that tells most other
/// buyers' orders apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: OrderId,
    buyer: u32,
    /// Whether this is the log, of those that name the order, that a list of all
    /// orders takes it from.
    pub(super) is_home: bool,
}

const ENTRY_BYTES: usize = 20;
const HOME: u32 = 1 << 31;

fn buyer_mark(buyer: &BuyerId) -> u32 {
    crc32fast::hash(buyer.as_str().as_bytes()) & !HOME
}

impl Entry {
    pub(super) fn new(order: &Order, is_home: bool) -> Self {
        Self { id: order.id, buyer: buyer_mark(&order.buyer), is_home }
    }

    pub(super) fn may_be_of(&self, buyer: &BuyerId) -> bool {
        self.buyer == buyer_mark(buyer)
    }

    pub(super) fn write_all(entries: &[Self]) -> Value {
        let mut written = Vec::with_capacity(entries.len() * ENTRY_BYTES);
        for entry in entries {
            written.extend_from_slice(entry.id.as_uuid().as_bytes());
            let mark = if entry.is_home { entry.buyer | HOME } else { entry.buyer };
            written.extend_from_slice(&mark.to_le_bytes());
        }
        bytes(written)
    }

    /// The entries a row has under `name`; none if it has no such attribute.
    pub(super) fn read_all(row: &Row, name: &str) -> Result<Vec<Self>, SeamError> {
        let written = opt_bytes(row, name)?.unwrap_or_default();
        let entries = written.chunks_exact(ENTRY_BYTES);
        if !entries.remainder().is_empty() {
            return Err(damaged(row, name));
        }
        let entry = |entry: &[u8]| {
            let (id, mark) = entry.split_at(16);
            let mark = u32::from_le_bytes(mark.try_into().expect("4 bytes"));
            let id = uuid::Uuid::from_bytes(id.try_into().expect("16 bytes"));
            Self { id: OrderId::from_uuid(id), buyer: mark & !HOME, is_home: mark & HOME != 0 }
        };
        Ok(entries.map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(state: OrderState) -> Order {
        let lines = vec![
            Line::units("ticket_1", 2).expect("a line"),
            Line::seats("hall", ["A 1".replace(' ', ""), "~".into()]).expect("a line"),
        ];
        let id = "018f2b6c-0000-7000-8000-00000000abcd".parse().expect("an id");
        let buyer = BuyerId::new("ann").expect("a name");
        let lines = Lines::new(lines).expect("lines");
        Order::queued(id, buyer, lines, Timestamp::from_millis(3)).with_state(state)
    }

    #[test]
    fn an_order_reads_as_it_was_written_in_every_state() {
        let time = Timestamp::from_millis;
        let hold = Hold::between(time(4), time(5));
        let payment = || PaymentRef::new("pay-1").expect("a reference");
        let states = [
            OrderState::Queued,
            OrderState::Held(hold),
            OrderState::Confirmed(hold, payment()),
            OrderState::Released(hold),
            OrderState::Expired(hold),
            OrderState::Cancelled(hold, payment()),
            OrderState::Rejected(time(4), Reason::BuyerLimit),
            OrderState::RefundDue(hold, payment()),
        ];
        assert_eq!(states.len(), OrderStatus::ALL.len());
        for (state, status) in states.into_iter().zip(OrderStatus::ALL) {
            let order = order(state);
            assert_eq!(order.status(), *status);
            let row = order_row(&order, Duration::from_secs(60), &DueKeys::REMAINDERS);
            assert_eq!(read_order(&row).expect("it is whole"), order);
            let is_indexed = order.status() == OrderStatus::Held || order.money() == Money::Owed;
            assert_eq!(row.contains_key("due"), is_indexed);
            let forgotten = (order.status() == OrderStatus::Rejected).then(|| number(61));
            assert_eq!(row.get(FORGOTTEN), forgotten.as_ref(), "{order:?}");
            assert!(!row.contains_key("metadata") && !row.contains_key("failed_line"));
        }
    }

    #[test]
    fn what_is_attached_reads_as_it_was_written() {
        let metadata = Metadata::new([("basket", "7"), ("note", "ü")]).expect("pairs");
        let rejected = order(OrderState::Rejected(Timestamp::from_millis(4), Reason::SoldOut));
        let mut order = rejected.with_metadata(metadata);
        order.failed_line = Some(1);
        let mut row = order_row(&order, Duration::ZERO, &DueKeys::REMAINDERS);
        assert_eq!(read_order(&row).expect("it is whole"), order);
        for name in ["metadata", "failed_line"] {
            let whole = row.insert(name.to_owned(), Value::Bool(true)).expect("it was there");
            assert!(read_order(&row).expect_err(name).to_string().contains(name));
            row.insert(name.to_owned(), whole);
        }
    }

    #[test]
    fn an_order_whose_money_is_owed_or_returned_reads_as_it_was_written() {
        let time = Timestamp::from_millis;
        let hold = Hold::between(time(4), time(5));
        let payment = || PaymentRef::new("pay-1").expect("a reference");
        let refund = Refund::new(RefundRef::new("back-1").expect("a reference"), time(9));
        for (state, is_stray) in [
            (OrderState::Cancelled(hold, payment()), false),
            (OrderState::RefundDue(hold, payment()), false),
            (OrderState::Released(hold), true),
            (OrderState::Rejected(time(4), Reason::SoldOut), true),
        ] {
            for refund in [None, Some(refund.clone())] {
                let mut order = order(state.clone());
                let mut debt = Debt::since(time(7));
                debt.stray = is_stray.then(payment);
                debt.refund = refund.clone();
                order.debt = Some(Box::new(debt));
                let row = order_row(&order, Duration::ZERO, &DueKeys::REMAINDERS);
                assert_eq!(read_order(&row).expect("it is whole"), order);
                let keys = [row.get("due"), row.get("takes")];
                assert_eq!(keys.map(|key| key.is_some()), [refund.is_none(); 2], "{order:?}");
                assert!(!row.contains_key(FORGOTTEN), "{order:?}");
            }
        }
    }

    #[test]
    fn a_damaged_row_is_told_by_its_attribute() {
        let hold = Hold::between(Timestamp::default(), Timestamp::default());
        let order = order(OrderState::Held(hold));
        let whole = order_row(&order, Duration::ZERO, &DueKeys::REMAINDERS);
        for name in ["pk", "buyer", "lines", "placed", "status", "decided", "ends"] {
            let mut row = whole.clone();
            row.insert(name.to_owned(), Value::Bool(true));
            let error = read_order(&row).expect_err(name).to_string();
            assert!(error.contains(name) || name == "pk", "{error}");
        }
        let mut row = whole;
        assert_eq!(taken(&row).expect("two lines").len(), 2);
        row.insert("takes".to_owned(), string("1 a 2"));
        assert!(taken(&row).is_err());
    }

    #[test]
    fn a_log_reads_as_it_was_written() {
        let order = order(OrderState::Queued);
        let entries = [Entry::new(&order, true), Entry::new(&order, false)];
        let row = Row::from([("tail".to_owned(), Entry::write_all(&entries))]);
        assert_eq!(Entry::read_all(&row, "tail").expect("whole"), entries);
        assert!(Entry::read_all(&row, "none").expect("none").is_empty());
        assert!(entries[0].may_be_of(&order.buyer));
        assert!(!entries[0].may_be_of(&BuyerId::new("bob").expect("a name")));
    }
}
