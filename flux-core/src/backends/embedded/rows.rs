//! The rows of the file. A row is a version byte, a CRC-32 of what follows,
//! and postcard; names are borrowed from the row, so reading one costs no more
//! than is asked of it. redb checks its pages only after a crash, hence the CRC.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::protocol::{
    Ask, BuyerId, Hold, InvalidInput, ItemId, ItemSpec, Line, Lines, Message, Order, OrderId,
    OrderState, OrderStatus, PaymentRef, Quantity, Reason, SeatId, Timestamp,
};
use crate::seams::DeadLetter;

const ROW_VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

/// The reason why a row can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("its checksum is wrong: the file was damaged")]
    Checksum,
    #[error("it is of row version {0}, this program knows {ROW_VERSION}")]
    Version(u8),
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
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OrderRow<'a> {
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
    Place(#[serde(borrow)] OrderRow<'a>),
    Release([u8; 16]),
    Cancel([u8; 16]),
    Expire([u8; 16]),
    LatePayment([u8; 16], &'a str),
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

impl<'a> OrderRow<'a> {
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

    /// Reads a row as it stands.
    pub(crate) fn read(row: &'a [u8]) -> Result<Self, RowError> {
        decode(row)
    }

    pub(crate) fn id(&self) -> OrderId {
        order_id(self.id)
    }

    pub(crate) fn buyer(&self) -> &'a str {
        self.buyer
    }

    pub(crate) fn status(&self) -> OrderStatus {
        match self.state {
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
        match self.state {
            StateRow::Held(hold) => Some(self.hold(hold).expires_at),
            _ => None,
        }
    }

    /// The time when an order was rejected that is.
    pub(crate) fn rejected_at(&self) -> Option<Timestamp> {
        match self.state {
            StateRow::Rejected(after, _) => Some(after.from(self.placed_at)),
            _ => None,
        }
    }

    /// The end of a hold that ended unpaid, and was not paid late.
    pub(crate) fn ended_unpaid(&self) -> Option<Timestamp> {
        match self.state {
            StateRow::Released(hold) | StateRow::Expired(hold) | StateRow::RefundDue(hold, _) => {
                Some(self.hold(hold).expires_at)
            }
            _ => None,
        }
    }

    /// Each line's item, units and named seats.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'a str, u32, &[&'a str])> {
        self.lines.iter().map(|line| match &line.ask {
            AskRow::Units(units) => (line.item, *units, &[][..]),
            AskRow::Seats(seats) => (line.item, seats.len() as u32, &seats[..]),
        })
    }

    fn hold(&self, HoldRow(decided, lasts): HoldRow) -> Hold {
        let decided_at = decided.from(self.placed_at);
        Hold { decided_at, expires_at: lasts.from(decided_at) }
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
        let state = match self.state {
            StateRow::Queued => OrderState::Queued,
            StateRow::Held(h) => OrderState::Held(self.hold(h)),
            StateRow::Confirmed(h, payment) => {
                OrderState::Confirmed(self.hold(h), PaymentRef::new(payment)?)
            }
            StateRow::Released(h) => OrderState::Released(self.hold(h)),
            StateRow::Expired(h) => OrderState::Expired(self.hold(h)),
            StateRow::Cancelled(h, payment) => {
                OrderState::Cancelled(self.hold(h), PaymentRef::new(payment)?)
            }
            StateRow::Rejected(after, reason) => {
                OrderState::Rejected(after.from(self.placed_at), reason)
            }
            StateRow::RefundDue(h, payment) => {
                OrderState::RefundDue(self.hold(h), PaymentRef::new(payment)?)
            }
        };
        Ok(Order {
            id: self.id(),
            buyer: BuyerId::new(self.buyer)?,
            lines: Lines::new(self.lines.iter().map(line).collect::<Result<_, _>>()?)?,
            placed_at: self.placed_at,
            state,
        })
    }
}

impl<'a> MessageRow<'a> {
    fn new(message: &'a Message) -> Self {
        let id = |id: &OrderId| *id.as_uuid().as_bytes();
        match message {
            Message::Place(order) => Self::Place(OrderRow::new(order)),
            Message::Release(order) => Self::Release(id(order)),
            Message::Cancel(order) => Self::Cancel(id(order)),
            Message::Expire(order) => Self::Expire(id(order)),
            Message::LatePayment(order, payment) => Self::LatePayment(id(order), payment.as_str()),
        }
    }

    fn message(&self) -> Result<Message, RowError> {
        Ok(match *self {
            Self::Place(ref row) => Message::Place(row.order()?),
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

/// Appends an order's row.
pub(crate) fn put_order(order: &Order, out: &mut Vec<u8>) {
    encode(&OrderRow::new(order), out);
}

pub(crate) fn item_row(spec: &ItemSpec) -> Vec<u8> {
    let mut row = Vec::new();
    encode(spec, &mut row);
    row
}

pub(crate) fn read_item(row: &[u8]) -> Result<ItemSpec, RowError> {
    decode(row)
}

pub(crate) fn sent_row(crashes: u64, sent_at: Timestamp, messages: &[Message]) -> Vec<u8> {
    let messages = messages.iter().map(MessageRow::new).collect();
    let mut row = Vec::new();
    encode(&SentRow { crashes, sent_at, messages }, &mut row);
    row
}

pub(crate) fn read_sent(row: &[u8]) -> Result<Sent, RowError> {
    let SentRow { crashes, sent_at, messages } = decode(row)?;
    let messages = messages.iter().map(MessageRow::message).collect::<Result<_, _>>()?;
    Ok(Sent { crashes, sent_at, messages })
}

pub(crate) fn dead_row(letter: &DeadLetter) -> Vec<u8> {
    let DeadLetter { message, reason, buried_at } = letter;
    let dead = DeadRow { message: MessageRow::new(message), reason, buried_at: *buried_at };
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

fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[ROW_VERSION, 0, 0, 0, 0]);
    postcard::serialize_with_flavor(value, Tail(out))
        .expect("a row has nothing postcard can't say");
    let sum = crc32fast::hash(&out[start + HEAD_BYTES..]);
    out[start + 1..start + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn decode<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, RowError> {
    let Some((head, body)) = row.split_first_chunk::<HEAD_BYTES>() else {
        return Err(RowError::Checksum);
    };
    let [version, sum @ ..] = *head;
    if crc32fast::hash(body) != u32::from_le_bytes(sum) {
        return Err(RowError::Checksum);
    }
    if version != ROW_VERSION {
        return Err(RowError::Version(version));
    }
    Ok(postcard::from_bytes(body)?)
}
