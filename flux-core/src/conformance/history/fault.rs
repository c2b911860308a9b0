//! The faults of a history, each under the guarantee it breaks.

use super::end::Numbers;
use crate::protocol::{BuyerId, FencingToken, ItemId, Money, OrderId, OrderStatus, Reason, SeatId};

/// A broken guarantee; its `Display` begins with which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// More units were held and sold at one moment than there are.
    #[error("G1: {taken} of {capacity} units of {item} were held or sold")]
    Oversold {
        /// The item.
        item: ItemId,
        /// Units held and sold.
        taken: u32,
        /// Units there are.
        capacity: u32,
    },
    /// A seat had several live owners.
    #[error("G1: seat {seat} of {item} had several owners, {order} among them")]
    SeatTwice {
        /// The hall.
        item: ItemId,
        /// The seat.
        seat: SeatId,
        /// One of the owners.
        order: OrderId,
    },
    /// An item's numbers are not those of its orders.
    #[error("G2: {item} shows {shown}, its orders come to {counted}")]
    NotConserved {
        /// The item.
        item: ItemId,
        /// The numbers that the item shows.
        shown: Numbers,
        /// The numbers by its orders.
        counted: Numbers,
    },
    /// The writes that were applied do not lead to what is stored.
    #[error("G2: order {order} is stored {stored:?}, but was written {written:?}")]
    Unaccounted {
        /// The order.
        order: OrderId,
        /// The status that the writes left it in.
        written: Option<OrderStatus>,
        /// The status in the store.
        stored: Option<OrderStatus>,
    },
    /// An order was decided more than once, or is listed more than once.
    #[error("G3: order {order} was decided more than once")]
    DecidedTwice {
        /// The order.
        order: OrderId,
    },
    /// A client was shown something that the end contradicts.
    #[error("G3: order {order} was answered {answered}, and came to be {stored}")]
    AnswerChanged {
        /// The order.
        order: OrderId,
        /// The status that a client was shown.
        answered: OrderStatus,
        /// The status in the store.
        stored: OrderStatus,
    },
    /// An order is not what was asked, or was never asked.
    #[error("G3: order {order} is stored or shown with other contents than were asked")]
    Altered {
        /// The order.
        order: OrderId,
    },
    /// A call about one order was answered with another.
    #[error("G3: order {order} was answered with another order, {shown}")]
    AnotherOrder {
        /// The order that was asked about.
        order: OrderId,
        /// The order that was shown.
        shown: OrderId,
    },
    /// A hold was ended before its time.
    #[error("G3: the hold of order {order} was over before its end")]
    EndedEarly {
        /// The order.
        order: OrderId,
    },
    /// Every attempt was turned away, and yet the order was decided.
    #[error("G3: order {order} was turned away, and is {stored}")]
    DecidedAfterTurnedAway {
        /// The order.
        order: OrderId,
        /// The status in the store.
        stored: OrderStatus,
    },
    /// An order took a step that its state does not allow.
    #[error("G3: order {order} went from {from:?} to {to}")]
    IllegalStep {
        /// The order.
        order: OrderId,
        /// Its state before, if it was there.
        from: Option<OrderStatus>,
        /// Its state after.
        to: OrderStatus,
    },
    /// An order that a client was shown is not there.
    #[error("G4: order {order} was answered {answered}, and is lost")]
    Lost {
        /// The order.
        order: OrderId,
        /// The status that a client was shown.
        answered: OrderStatus,
    },
    /// An order is stored without a decision.
    #[error("G4: order {order} was never decided")]
    Undecided {
        /// The order.
        order: OrderId,
    },
    /// An order owns a line of an item that the store does not have.
    #[error("G5: order {order} owns units of {item}, which is not there")]
    HalfTaken {
        /// The order.
        order: OrderId,
        /// The item.
        item: ItemId,
    },
    /// An order got some of what was asked, and not the rest.
    #[error("G5: order {order} got a part of what was asked")]
    ServedInPart {
        /// The order.
        order: OrderId,
    },
    /// A buyer came to own more than the cap.
    #[error("G6: {buyer} owned {live} units of {item}, capped at {cap}")]
    OverCap {
        /// The item.
        item: ItemId,
        /// The buyer.
        buyer: BuyerId,
        /// Units held and owned.
        live: u32,
        /// The cap.
        cap: u32,
    },
    /// A buyer has more live holds than the rules allow.
    #[error("G6: {buyer} has {holds} live holds, of {holds_max} at most")]
    TooManyHolds {
        /// The buyer.
        buyer: BuyerId,
        /// The live holds.
        holds: u32,
        /// The most there may be.
        holds_max: u32,
    },
    /// A buyer got a hold of an item within the pause after one that ended
    /// unpaid.
    #[error("G6: order {order} was held within the pause after {after} on {item}")]
    HeldInPause {
        /// The order.
        order: OrderId,
        /// The order whose hold ended.
        after: OrderId,
        /// The item.
        item: ItemId,
    },
    /// A token was given twice, or after a larger one.
    #[error("G7: {token:?} of {item} is not larger than all before it")]
    TokenNotNew {
        /// The item.
        item: ItemId,
        /// The token.
        token: FencingToken,
    },
    /// A commit was applied though a later claim had been answered before it began.
    #[error("G7: a commit under {token:?} of {item} was applied after a later claim")]
    StaleWrite {
        /// The item.
        item: ItemId,
        /// The token that was fenced.
        token: FencingToken,
    },
    /// Stock was changed without a claim of the item.
    #[error("G7: order {order} changed the stock of {item} without a claim of it")]
    Unclaimed {
        /// The order.
        order: OrderId,
        /// The item.
        item: ItemId,
    },
    /// Units are left that an unserved order would have taken.
    #[error("G8: {available} units of {item} are left, and order {order} went without")]
    Undersold {
        /// The item.
        item: ItemId,
        /// Units left.
        available: u32,
        /// An order they would have served.
        order: OrderId,
    },
    /// An order, or late money for it, was refused for a reason that was not so.
    #[error("G8: order {order} was refused as {reason}, for which {item} gave no cause")]
    FalselyRefused {
        /// The order.
        order: OrderId,
        /// The item, or the first of several.
        item: ItemId,
        /// The reason.
        reason: Reason,
    },
    /// The stock of an order came back more than once.
    #[error("G8: order {order} gave its stock back more than once")]
    GivenBackTwice {
        /// The order.
        order: OrderId,
    },
    /// A hold outlived its end.
    #[error("G8: the hold of order {order} ended, and keeps its stock")]
    Overdue {
        /// The order.
        order: OrderId,
    },
    /// A refund came of anything but the late payment of an expired order.
    #[error("G9: order {order} owes a refund without having expired first")]
    RefundNotOwed {
        /// The order.
        order: OrderId,
    },
    /// Money that was owed, or returned, as a client was told, is not so noted any more.
    #[error("G9: the money of order {order} was {answered}, and came to be {stored}")]
    DebtForgotten {
        /// The order.
        order: OrderId,
        /// Where a client was told that it stands.
        answered: Money,
        /// Where it stands.
        stored: Money,
    },
    /// Two refunds of the same money were noted.
    #[error("G9: the money of order {order} was returned twice")]
    RefundedTwice {
        /// The order.
        order: OrderId,
    },
    /// Money for an order that was held, and not given back, was turned down.
    #[error("G9: a payment for order {order} was turned down, and the order was held")]
    PaymentRefused {
        /// The order.
        order: OrderId,
    },
}
