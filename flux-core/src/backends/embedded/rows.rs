//! The rows of the file. A row is a version byte, a CRC-32 of what follows,
//! and postcard, and behind an order's its [fields](super::fields), where it has
//! any; names are borrowed from the row, so reading one costs no more than is
//! asked of it. redb checks its pages only after a crash, hence the CRC.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fields::Fields;
use crate::protocol::{
    Ask, BuyerId, Hold, InvalidInput, ItemId, ItemSpec, Line, Lines, Message, Money, Order,
    OrderId, OrderState, OrderStatus, PaymentRef, Quantity, Reason, SeatId, Timestamp,
};
use crate::seams::{DeadLetter, Leaving, Removed, Tombstone};

const ROW_VERSION: u8 = 1;
/// The version of an order's row that has fields.
const WITH_FIELDS: u8 = 2;
const HEAD_BYTES: usize = 5;

/// The reason why a row can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("its checksum is wrong: the file was damaged")]
    Checksum,
    #[error("it is of row version {0}, this program knows {WITH_FIELDS}")]
    Version(u8),
    #[error("it has a field {0}, which a later version of this program must read")]
    Field(u8),
    #[error("it is malformed")]
    Malformed(#[from] postcard::Error),
    #[error("it breaks a rule: {0}")]
    Invalid(#[from] InvalidInput),
}

/// Milliseconds after another time. Orders are decided soon after they are
/// placed, so this packs into a byte or two where a time takes six.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct After(i64);

impl After {
    fn between(start: Timestamp, end: Timestamp) -> Self {
        Self(end.as_millis().wrapping_sub(start.as_millis()) as i64)
    }

    fn from(self, start: Timestamp) -> Timestamp {
        Timestamp::from_millis(start.as_millis().wrapping_add(self.0 as u64))
    }
}

/// A hold: decided so long after the order was placed, and lasting so long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct HoldRow(After, After);

#[derive(Debug, Serialize, Deserialize)]
enum AskRow<'a> {
    Units(u32),
    Seats(#[serde(borrow)] Vec<&'a str>),
}

#[derive(Debug, Serialize, Deserialize)]
struct LineRow<'a> {
    item: &'a str,
    #[serde(borrow)]
    ask: AskRow<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum StateRow<'a> {
    Queued,
    Held(HoldRow),
    Confirmed(HoldRow, &'a str),
    Released(HoldRow),
    Expired(HoldRow),
    Cancelled(HoldRow, &'a str),
    Rejected(After, Reason),
    RefundDue(HoldRow, &'a str),
}

/// An order as it stands in its row.
#[derive(Debug)]
pub(crate) struct OrderRow<'a> {
    base: BaseRow<'a>,
    /// Its [`Fields`], as bytes.
    fields: &'a [u8],
}

/// The part of an order's row that every version has.
#[derive(Debug, Serialize, Deserialize)]
struct BaseRow<'a> {
    id: [u8; 16],
    buyer: &'a str,
    #[serde(borrow)]
    lines: Vec<LineRow<'a>>,
    placed_at: Timestamp,
    #[serde(borrow)]
    state: StateRow<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum MessageRow<'a> {
    Place(#[serde(borrow)] BaseRow<'a>),
    Release([u8; 16]),
    Cancel([u8; 16]),
    Expire([u8; 16]),
    LatePayment([u8; 16], &'a str),
    /// An order that has fields.
    PlaceWith(#[serde(borrow)] BaseRow<'a>, &'a [u8]),
}

/// Messages that were sent together.
#[derive(Debug, Serialize, Deserialize)]
struct SentRow<'a> {
    crashes: u64,
    sent_at: Timestamp,
    #[serde(borrow)]
    messages: Vec<MessageRow<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeadRow<'a> {
    #[serde(borrow)]
    message: MessageRow<'a>,
    reason: &'a str,
    buried_at: Timestamp,
}

/// [`SentRow`], read.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The number of crashes before they were sent.
    pub(crate) crashes: u64,
    pub(crate) sent_at: Timestamp,
    pub(crate) messages: Vec<Message>,
}

impl<'a> BaseRow<'a> {
    fn new(order: &'a Order) -> Self {
        let hold = |hold: &Hold| {
            HoldRow(
                After::between(order.placed_at, hold.decided_at),
                After::between(hold.decided_at, hold.expires_at),
            )
        };
        let line = |line: &'a Line| LineRow {
            item: line.item.as_str(),
            ask: match &line.ask {
                Ask::Units(quantity) => AskRow::Units(quantity.get()),
                Ask::Seats(seats) => AskRow::Seats(seats.iter().map(SeatId::as_str).collect()),
            },
        };
        Self {
            id: *order.id.as_uuid().as_bytes(),
            buyer: order.buyer.as_str(),
            lines: order.lines.iter().map(line).collect(),
            placed_at: order.placed_at,
            state: match &order.state {
                OrderState::Queued => StateRow::Queued,
                OrderState::Held(h) => StateRow::Held(hold(h)),
                OrderState::Confirmed(h, payment) => StateRow::Confirmed(hold(h), payment.as_str()),
                OrderState::Released(h) => StateRow::Released(hold(h)),
                OrderState::Expired(h) => StateRow::Expired(hold(h)),
                OrderState::Cancelled(h, payment) => StateRow::Cancelled(hold(h), payment.as_str()),
                OrderState::Rejected(at, reason) => {
                    StateRow::Rejected(After::between(order.placed_at, *at), *reason)
                }
                OrderState::RefundDue(h, payment) => StateRow::RefundDue(hold(h), payment.as_str()),
            },
        }
    }

    fn hold(&self, HoldRow(decided, lasts): HoldRow) -> Hold {
        let decided_at = decided.from(self.placed_at);
        Hold { decided_at, expires_at: lasts.from(decided_at) }
    }
}

impl<'a> OrderRow<'a> {
    /// Reads a row as it stands.
    pub(crate) fn read(row: &'a [u8]) -> Result<Self, RowError> {
        let (version, body) = check(row)?;
        let (base, fields) = postcard::take_from_bytes(body)?;
        match version {
            ROW_VERSION => Ok(Self { base, fields: &[] }),
            WITH_FIELDS => Ok(Self { base, fields }),
            other => Err(RowError::Version(other)),
        }
    }

    pub(crate) fn id(&self) -> OrderId {
        order_id(self.base.id)
    }

    pub(crate) fn buyer(&self) -> &'a str {
        self.base.buyer
    }

    pub(crate) fn status(&self) -> OrderStatus {
        match self.base.state {
            StateRow::Queued => OrderStatus::Queued,
            StateRow::Held(_) => OrderStatus::Held,
            StateRow::Confirmed(..) => OrderStatus::Confirmed,
            StateRow::Released(_) => OrderStatus::Released,
            StateRow::Expired(_) => OrderStatus::Expired,
            StateRow::Cancelled(..) => OrderStatus::Cancelled,
            StateRow::Rejected(..) => OrderStatus::Rejected,
            StateRow::RefundDue(..) => OrderStatus::RefundDue,
        }
    }

    /// The end of the hold of an order that is held.
    pub(crate) fn held_until(&self) -> Option<Timestamp> {
        match self.base.state {
            StateRow::Held(hold) => Some(self.base.hold(hold).expires_at),
            _ => None,
        }
    }

    /// The time when an order was rejected that is.
    pub(crate) fn rejected_at(&self) -> Option<Timestamp> {
        match self.base.state {
            StateRow::Rejected(after, _) => Some(after.from(self.base.placed_at)),
            _ => None,
        }
    }

    /// The end of a hold that ended unpaid, and was not paid late.
    pub(crate) fn ended_unpaid(&self) -> Option<Timestamp> {
        match self.base.state {
            StateRow::Released(hold) | StateRow::Expired(hold) | StateRow::RefundDue(hold, _) => {
                Some(self.base.hold(hold).expires_at)
            }
            _ => None,
        }
    }

    /// Where its money stands, and since when it is owed if it is.
    pub(crate) fn money(&self) -> Result<(Money, Option<Timestamp>), RowError> {
        match self.status() {
            OrderStatus::Queued | OrderStatus::Held | OrderStatus::Expired => {
                Ok((Money::None, None))
            }
            OrderStatus::Confirmed => Ok((Money::Paid, None)),
            OrderStatus::Released | OrderStatus::Rejected if self.fields.is_empty() => {
                Ok((Money::None, None))
            }
            _ => {
                let order = self.order()?;
                let money = order.money();
                Ok((money, order.owed_since().filter(|_| money == Money::Owed)))
            }
        }
    }

    /// Each line's item, units and named seats.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'a str, u32, &[&'a str])> {
        self.base.lines.iter().map(|line| match &line.ask {
            AskRow::Units(units) => (line.item, *units, &[][..]),
            AskRow::Seats(seats) => (line.item, seats.len() as u32, &seats[..]),
        })
    }

    /// The order itself.
    pub(crate) fn order(&self) -> Result<Order, RowError> {
        let line = |line: &LineRow<'_>| -> Result<Line, InvalidInput> {
            let ask = match &line.ask {
                AskRow::Units(units) => Ask::Units(Quantity::new(u64::from(*units))?),
                AskRow::Seats(seats) => {
                    Ask::Seats(seats.iter().map(SeatId::new).collect::<Result<_, _>>()?)
                }
            };
            Ok(Line { item: ItemId::new(line.item)?, ask })
        };
        let state = match self.base.state {
            StateRow::Queued => OrderState::Queued,
            StateRow::Held(h) => OrderState::Held(self.base.hold(h)),
            StateRow::Confirmed(h, payment) => {
                OrderState::Confirmed(self.base.hold(h), PaymentRef::new(payment)?)
            }
            StateRow::Released(h) => OrderState::Released(self.base.hold(h)),
            StateRow::Expired(h) => OrderState::Expired(self.base.hold(h)),
            StateRow::Cancelled(h, payment) => {
                OrderState::Cancelled(self.base.hold(h), PaymentRef::new(payment)?)
            }
            StateRow::Rejected(after, reason) => {
                OrderState::Rejected(after.from(self.base.placed_at), reason)
            }
            StateRow::RefundDue(h, payment) => {
                OrderState::RefundDue(self.base.hold(h), PaymentRef::new(payment)?)
            }
        };
        let Fields { failed_line, metadata, debt } = Fields::read(self.fields)?;
        Ok(Order {
            id: self.id(),
            buyer: BuyerId::new(self.base.buyer)?,
            lines: Lines::new(self.base.lines.iter().map(line).collect::<Result<_, _>>()?)?,
            placed_at: self.base.placed_at,
            state,
            metadata,
            failed_line,
            debt,
        })
    }
}

impl<'a> MessageRow<'a> {
    /// The row of a message; `fields` are those of its order, as bytes.
    fn new(message: &'a Message, fields: &'a [u8]) -> Self {
        let id = |id: &OrderId| *id.as_uuid().as_bytes();
        match message {
            Message::Place(order) if fields.is_empty() => Self::Place(BaseRow::new(order)),
            Message::Place(order) => Self::PlaceWith(BaseRow::new(order), fields),
            Message::Release(order) => Self::Release(id(order)),
            Message::Cancel(order) => Self::Cancel(id(order)),
            Message::Expire(order) => Self::Expire(id(order)),
            Message::LatePayment(order, payment) => Self::LatePayment(id(order), payment.as_str()),
        }
    }

    fn message(self) -> Result<Message, RowError> {
        Ok(match self {
            Self::Place(base) => Message::Place(OrderRow { base, fields: &[] }.order()?),
            Self::PlaceWith(base, fields) => Message::Place(OrderRow { base, fields }.order()?),
            Self::Release(id) => Message::Release(order_id(id)),
            Self::Cancel(id) => Message::Cancel(order_id(id)),
            Self::Expire(id) => Message::Expire(order_id(id)),
            Self::LatePayment(id, payment) => {
                Message::LatePayment(order_id(id), PaymentRef::new(payment)?)
            }
        })
    }
}

fn order_id(id: [u8; 16]) -> OrderId {
    OrderId::from_uuid(Uuid::from_bytes(id))
}

/// The fields of a message's order, as bytes.
fn fields_of(message: &Message) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Message::Place(order) = message {
        Fields::of(order).write(&mut fields);
    }
    fields
}

/// Appends an order's row.
pub(crate) fn put_order(order: &Order, out: &mut Vec<u8>) {
    let start = out.len();
    encode_base(&BaseRow::new(order), out);
    let fields = Fields::of(order);
    if !fields.is_empty() {
        fields.write(out);
        out[start] = WITH_FIELDS;
    }
    seal(start, out);
}

pub(crate) fn item_row(spec: &ItemSpec) -> Vec<u8> {
    let mut row = Vec::new();
    encode(spec, &mut row);
    row
}

pub(crate) fn read_item(row: &[u8]) -> Result<ItemSpec, RowError> {
    decode(row)
}

/// What is kept of an item that is leaving, or left.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DepartureRow {
    Leaving(Leaving),
    Archived(Tombstone),
}

pub(crate) fn departure_row(departure: &DepartureRow) -> Vec<u8> {
    let mut row = Vec::new();
    encode(departure, &mut row);
    row
}

pub(crate) fn read_departure(row: &[u8]) -> Result<DepartureRow, RowError> {
    decode(row)
}

/// The row of the change that an item is gone.
pub(crate) fn removed_row(removed: &Removed) -> Vec<u8> {
    let mut row = Vec::new();
    encode(removed, &mut row);
    row
}

pub(crate) fn read_removed(row: &[u8]) -> Result<Removed, RowError> {
    decode(row)
}

pub(crate) fn sent_row(crashes: u64, sent_at: Timestamp, messages: &[Message]) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = messages.iter().map(fields_of).collect();
    let messages = messages.iter().zip(&fields);
    let messages = messages.map(|(message, fields)| MessageRow::new(message, fields)).collect();
    let mut row = Vec::new();
    encode(&SentRow { crashes, sent_at, messages }, &mut row);
    row
}

pub(crate) fn read_sent(row: &[u8]) -> Result<Sent, RowError> {
    let SentRow { crashes, sent_at, messages } = decode(row)?;
    let messages = messages.into_iter().map(MessageRow::message).collect::<Result<_, _>>()?;
    Ok(Sent { crashes, sent_at, messages })
}

pub(crate) fn dead_row(letter: &DeadLetter) -> Vec<u8> {
    let DeadLetter { message, reason, buried_at } = letter;
    let fields = fields_of(message);
    let dead =
        DeadRow { message: MessageRow::new(message, &fields), reason, buried_at: *buried_at };
    let mut row = Vec::new();
    encode(&dead, &mut row);
    row
}

pub(crate) fn read_dead(row: &[u8]) -> Result<DeadLetter, RowError> {
    let DeadRow { message, reason, buried_at } = decode(row)?;
    Ok(DeadLetter { message: message.message()?, reason: reason.to_owned(), buried_at })
}

/// Lets postcard append to a buffer that has rows already.
struct Tail<'a>(&'a mut Vec<u8>);

impl Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Begins a row of changes.
pub(super) fn begin_changes(at: Timestamp, out: &mut Vec<u8>) {
    out.clear();
    encode_base(&at, out);
}

/// Adds a change to a row of them.
pub(super) fn put_change(kind: u8, change: &[u8], out: &mut Vec<u8>) {
    postcard::serialize_with_flavor(&(kind, change.len() as u32), Tail(out))
        .expect("a row has nothing postcard can't say");
    out.extend_from_slice(change);
}

/// Ends a row of changes.
pub(super) fn seal_changes(row: &mut [u8]) {
    seal(0, row);
}

/// A change in a row: its kind, and its own row.
pub(super) type ChangeRow<'a> = (u8, &'a [u8]);

/// Reads a row of changes: when it was written, and each change.
pub(super) fn take_changes(
    row: &[u8],
) -> Result<(Timestamp, impl Iterator<Item = Result<ChangeRow<'_>, RowError>>), RowError> {
    let (ROW_VERSION, body) = check(row)? else {
        return Err(RowError::Version(row[0]));
    };
    let (at, mut rest) = postcard::take_from_bytes::<Timestamp>(body)?;
    let changes = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes::<ChangeRow<'_>>(rest) {
            Ok((change, behind)) => {
                rest = behind;
                Some(Ok(change))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error.into()))
            }
        }
    });
    Ok((at, changes))
}

fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    encode_base(value, out);
    seal(start, out);
}

/// Appends a row but for its checksum.
fn encode_base<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    out.extend_from_slice(&[ROW_VERSION, 0, 0, 0, 0]);
    postcard::serialize_with_flavor(value, Tail(out))
        .expect("a row has nothing postcard can't say");
}

/// Puts in the checksum of the row that starts there.
fn seal(start: usize, out: &mut [u8]) {
    let sum = crc32fast::hash(&out[start + HEAD_BYTES..]);
    out[start + 1..start + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// The version of a row and what it says, if it is as it was written.
fn check(row: &[u8]) -> Result<(u8, &[u8]), RowError> {
    let Some((head, body)) = row.split_first_chunk::<HEAD_BYTES>() else {
        return Err(RowError::Checksum);
    };
    let [version, sum @ ..] = *head;
    if crc32fast::hash(body) != u32::from_le_bytes(sum) {
        return Err(RowError::Checksum);
    }
    Ok((version, body))
}

fn decode<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, RowError> {
    match check(row)? {
        (ROW_VERSION, body) => Ok(postcard::from_bytes(body)?),
        (other, _) => Err(RowError::Version(other)),
    }
}
