//! Rows for the fuzz targets of `tests/fuzz`, built with `--cfg fuzzing` alone.

use super::rows;
use crate::protocol::{ItemSpec, Message, Order, OrderStatus, Timestamp};
use crate::seams::DeadLetter;

/// What is read of an order's row without reading all of it.
#[derive(Debug, PartialEq)]
pub struct Glance {
    /// The state it is in.
    pub status: OrderStatus,
    /// The end of its hold, if it is held.
    pub held_until: Option<Timestamp>,
    /// The buyer.
    pub buyer: String,
    /// Each line's item, units and named seats.
    pub lines: Vec<(String, u32, Vec<String>)>,
}

/// Reads an order's row, in both ways.
pub fn read_order(row: &[u8]) -> Result<(Glance, Order), String> {
    let row = rows::OrderRow::read(row).map_err(|error| error.to_string())?;
    let line = |(item, units, seats): (&str, u32, &[&str])| {
        (item.to_owned(), units, seats.iter().map(|seat| (*seat).to_owned()).collect())
    };
    let glance = Glance {
        status: row.status(),
        held_until: row.held_until(),
        buyer: row.buyer().to_owned(),
        lines: row.lines().map(line).collect(),
    };
    row.order().map(|order| (glance, order)).map_err(|error| error.to_string())
}

/// Writes an order's row.
pub fn write_order(order: &Order) -> Vec<u8> {
    let mut row = Vec::new();
    rows::put_order(order, &mut row);
    row
}

/// Reads an item's row.
pub fn read_item(row: &[u8]) -> Result<ItemSpec, String> {
    rows::read_item(row).map_err(|error| error.to_string())
}

/// Writes an item's row.
pub fn write_item(spec: &ItemSpec) -> Vec<u8> {
    rows::item_row(spec)
}

/// Reads the row of messages that were sent together: the crashes before, the time, and they.
pub fn read_sent(row: &[u8]) -> Result<(u64, Timestamp, Vec<Message>), String> {
    let sent = rows::read_sent(row).map_err(|error| error.to_string())?;
    Ok((sent.crashes, sent.sent_at, sent.messages))
}

/// Writes the row of messages that were sent together.
pub fn write_sent(crashes: u64, sent_at: Timestamp, messages: &[Message]) -> Vec<u8> {
    rows::sent_row(crashes, sent_at, messages)
}

/// Reads a dead letter's row.
pub fn read_dead(row: &[u8]) -> Result<DeadLetter, String> {
    rows::read_dead(row).map_err(|error| error.to_string())
}

/// Writes a dead letter's row.
pub fn write_dead(letter: &DeadLetter) -> Vec<u8> {
    rows::dead_row(letter)
}
