//! The queue between those who accept orders and those who decide them.

use std::time::Duration;

use async_trait::async_trait;

use super::SeamError;
use crate::protocol::{Message, Order, OrderId, Timestamp};

/// Stands for one delivery of one message; opaque to everybody but the queue
/// that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// A message handed to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What to work on.
    pub message: Message,
    /// Names this delivery in [`OrderQueue::ack`] and its like.
    pub receipt: Receipt,
    /// Which delivery of the message this is, from 1, as far as the queue knows.
    pub attempt: u32,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What could not be worked on.
    pub message: Message,
    /// Why.
    pub reason: String,
    /// When it was given up.
    pub buried_at: Timestamp,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Messages nobody works on, delayed ones included.
    pub waiting: u64,
    /// Messages delivered and not settled.
    pub in_flight: u64,
    /// Messages given up.
    pub dead: u64,
    /// Age of the oldest message not settled.
    pub oldest: Duration,
}

/// At-least-once delivery of [`Message`]s.
///
/// A message may come twice, late and out of order; it may not be lost. A
/// delivery that is neither settled ([`ack`](Self::ack), [`retry`](Self::retry),
/// [`bury`](Self::bury)) nor [extended](Self::extend) within the queue's
/// visibility time-out is delivered again.
#[async_trait]
pub trait OrderQueue: Send + Sync + 'static {
    /// Adds messages, each durable when this returns `Ok`. After an error some
    /// of them may have been added; sending all again is safe.
    ///
    /// # Errors
    /// [`SeamError::Overloaded`] when the queue's bound is reached.
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError>;

    /// Takes up to `max` messages, waiting up to `wait` for the first. An empty
    /// answer is no error. Dropping the future loses nothing: what was taken
    /// is delivered again after the visibility time-out at the latest.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError>;

    /// Settles deliveries: their messages are done. A stale receipt is ignored.
    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError>;

    /// Hands deliveries back, to come again after `delay`. A stale receipt is
    /// ignored.
    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError>;

    /// Restarts the visibility time-out of deliveries still being worked on.
    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError>;

    /// Gives messages up, with the reason, durable when this returns.
    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError>;

    /// Up to `max` messages that were given up, oldest first; they stay.
    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError>;

    /// Puts up to `max` dead letters back in the queue, oldest first, and says
    /// how many.
    async fn redrive(&self, max: usize) -> Result<usize, SeamError>;

    /// The order of a [`Message::Place`] that waits or is worked on, if this
    /// queue can look inside: of several under one id the first that was sent.
    /// A queue that can't look inside answers `None`.
    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError>;

    /// Whether [`find`](Self::find) finds whatever is there, so that `None`
    /// means there is nothing.
    fn finds_all(&self) -> bool {
        true
    }

    /// How much waits; may lag.
    async fn depth(&self) -> Result<QueueDepth, SeamError>;
}
