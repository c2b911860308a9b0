//! The queue between those who accept orders and those who decide them.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::SeamError;
use crate::protocol::{Message, Order, OrderId, Timestamp};

/// The name of one delivery of one message; opaque to everybody but the queue
/// that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// A message handed to a worker.
///
/// ```
/// use flux_core::OrderId;
/// use flux_core::protocol::Message;
/// use flux_core::seams::{Delivery, Receipt};
///
/// let message = Message::Expire(OrderId::new());
/// let first = Delivery::new(message, Receipt("7".into()), 1);
/// assert_eq!(first.attempt, 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The work.
    pub message: Message,
    /// The name of this delivery in [`OrderQueue::ack`] and its like.
    pub receipt: Receipt,
    /// The number of this delivery of the message, from 1, as far as the queue
    /// knows.
    pub attempt: u32,
}

impl Delivery {
    /// The `attempt`th delivery of `message`.
    #[must_use]
    pub fn new(message: Message, receipt: Receipt, attempt: u32) -> Self {
        Self { message, receipt, attempt }
    }
}

/// A message that was given up.
///
/// ```
/// use flux_core::protocol::Message;
/// use flux_core::{DeadLetter, OrderId, Timestamp};
///
/// let message = Message::Expire(OrderId::new());
/// let letter = DeadLetter::new(message, "failed 20 times", Timestamp::default());
/// assert_eq!(letter.reason, "failed 20 times");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The work that could not be done.
    pub message: Message,
    /// The reason, for an operator.
    pub reason: String,
    /// The moment it was given up.
    pub buried_at: Timestamp,
}

impl DeadLetter {
    /// A message given up at `buried_at` for `reason`.
    #[must_use]
    pub fn new(message: Message, reason: impl Into<String>, buried_at: Timestamp) -> Self {
        Self { message, reason: reason.into(), buried_at }
    }
}

/// The number of messages in a queue, by what happens to them.
///
/// ```
/// use flux_core::QueueDepth;
///
/// let depth = QueueDepth::builder().waiting(12).in_flight(3).build();
/// assert_eq!((depth.waiting, depth.dead), (12, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, bon::Builder)]
#[builder(builder_type(doc {
    /// Builds a [`QueueDepth`]; made by [`QueueDepth::builder`]. What is left
    /// out is zero.
}))]
#[non_exhaustive]
pub struct QueueDepth {
    /// Messages that wait to be delivered, delayed ones included.
    #[builder(default)]
    pub waiting: u64,
    /// Messages being worked on: delivered, and neither acknowledged nor handed
    /// back.
    #[builder(default)]
    pub in_flight: u64,
    /// Messages given up.
    #[builder(default)]
    pub dead: u64,
    /// Age of the oldest message that waits or is being worked on.
    #[builder(default)]
    pub oldest: Duration,
}

/// What a queue recalls of an order by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recalled {
    /// It waits or is worked on.
    Waits(Order),
    /// It is not there, as far as is known. It may have been a moment ago.
    Unknown,
    /// Neither is it there nor was it in the last few seconds, and no process announced
    /// it: if it was ever decided, then so long ago that every read shows it.
    Unheard,
}

/// At-least-once delivery of [`Message`]s.
///
/// A message may come twice, late and out of order; it may not be lost. A
/// delivery that is neither [acknowledged](Self::ack), [handed
/// back](Self::retry), [given up](Self::bury) nor [extended](Self::extend)
/// within the queue's visibility time-out is delivered again.
///
/// ```
/// # use std::time::Duration;
/// use flux_core::protocol::Message;
/// use flux_core::{Backend, OrderId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), flux_core::SeamError> {
/// let queue = Backend::memory().queue;
/// queue.send(&[Message::Expire(OrderId::new())]).await?;
///
/// let delivered = queue.receive(10, Duration::from_secs(1)).await?;
/// assert_eq!(delivered.len(), 1);
/// // The work is done; without this the message would come again.
/// queue.ack(&[delivered[0].receipt.clone()]).await?;
/// assert_eq!(queue.depth().await?.in_flight, 0);
/// # Ok(())
/// # }
/// ```
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

    /// Acknowledges deliveries: their messages are done. A stale receipt is
    /// ignored.
    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError>;

    /// Hands deliveries back, to come again after `delay`. A stale receipt is
    /// ignored.
    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError>;

    /// Restarts the visibility time-out of deliveries still being worked on.
    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError>;

    /// Gives messages up, each with the reason. They are dead letters, durable
    /// when this returns `Ok`. A stale receipt is ignored.
    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError>;

    /// Reads up to `max` dead letters, oldest first; they stay.
    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError>;

    /// Puts up to `max` dead letters back in the queue, oldest first, and
    /// returns their number.
    async fn redrive(&self, max: usize) -> Result<usize, SeamError>;

    /// Finds the order of a [`Message::Place`] that waits or is worked on: of
    /// several under one id the first that was sent. A queue that can't look
    /// inside answers `None`, and says so by [`finds_all`](Self::finds_all).
    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError>;

    /// Finds an order as [`find`](Self::find) does, or tells how long ago it may have been
    /// there. Of several partitions it is enough that one tells. By default nothing is known
    /// of what is not there any more.
    async fn recall(&self, id: OrderId) -> Result<Recalled, SeamError> {
        Ok(self.find(id).await?.map_or(Recalled::Unknown, Recalled::Waits))
    }

    /// Finds an order as [`find`](Self::find) does. If it is not there, an order under the
    /// id is about to be decided without the queue, and for a while no process
    /// [recalls](Self::recall) it as [`Recalled::Unheard`].
    async fn announce(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        self.find(id).await
    }

    /// Whether [`find`](Self::find) sees every message there is, so that its
    /// `None` means that there is no such order.
    fn finds_all(&self) -> bool {
        true
    }

    /// Whether every process that shares the queue [finds](Self::find) an order that this
    /// one has sent, or is about to send. Where not, the engine has the store
    /// [note](super::InventoryStore::note_accepted) it. `true` unless told otherwise.
    fn tells_of(&self, order: OrderId) -> bool {
        let _ = order;
        true
    }

    /// Counts the messages; the numbers may lag.
    async fn depth(&self) -> Result<QueueDepth, SeamError>;
}
