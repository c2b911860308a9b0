//! The bus that carries outcomes from those who decide to those who wait.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::SeamError;
use crate::protocol::{ItemId, Order};

/// The number of units of an item that are left.
///
/// ```
/// use flux_core::{Availability, ItemId};
///
/// let left = Availability::new(ItemId::new("ticket_1")?, 41);
/// assert_eq!(left.available, 41);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Availability {
    /// The item.
    pub item: ItemId,
    /// Units that can be ordered.
    pub available: u32,
}

impl Availability {
    /// Says that `available` units of `item` can be ordered.
    #[must_use]
    pub fn new(item: ItemId, available: u32) -> Self {
        Self { item, available }
    }
}

/// The changes of one commit, durable before they are published. Empty, they
/// say that others were missed: see [`gap`](Self::gap).
///
/// ```
/// use flux_core::{Availability, ItemId, Outcomes};
///
/// let left = Availability::new(ItemId::new("ticket_1")?, 41);
/// assert!(!Outcomes::new(vec![], vec![left]).is_gap());
/// assert!(Outcomes::gap().is_gap());
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// The orders, as the commit left them.
    pub orders: Vec<Order>,
    /// The items whose numbers changed.
    pub availability: Vec<Availability>,
}

impl Outcomes {
    /// Outcomes of these orders and items.
    #[must_use]
    pub fn new(orders: Vec<Order>, availability: Vec<Availability>) -> Self {
        Self { orders, availability }
    }

    /// The sign that outcomes may be missing at this point of the stream: a bus
    /// sends it to its subscribers when, say, its connection broke for a while.
    /// Whoever gets it reads from the store what it waits for.
    #[must_use]
    pub fn gap() -> Self {
        Self::default()
    }

    /// Whether this only says that outcomes were missed.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.orders.is_empty() && self.availability.is_empty()
    }
}

/// The sending half of [`outcome_channel`].
pub type OutcomeSender = broadcast::Sender<Arc<Outcomes>>;

/// Outcomes as they come. A receiver that falls behind loses the oldest
/// (`RecvError::Lagged`) and must read the store for what it missed; so must
/// one that hears of a [gap](Outcomes::gap).
pub type OutcomeReceiver = broadcast::Receiver<Arc<Outcomes>>;

/// A channel for a bus to hand out outcomes with. It keeps the last `capacity`
/// of them for receivers that are behind.
///
/// ```
/// use std::sync::Arc;
///
/// use flux_core::Outcomes;
/// use flux_core::seams::outcome_channel;
///
/// let sender = outcome_channel(16);
/// let mut receiver = sender.subscribe();
/// sender.send(Arc::new(Outcomes::gap())).expect("there is a receiver");
/// assert!(receiver.try_recv().expect("sent above").is_gap());
/// ```
#[must_use]
pub fn outcome_channel(capacity: usize) -> OutcomeSender {
    broadcast::channel(capacity).0
}

/// Carries [`Outcomes`] from those who decide to those who wait. Best effort:
/// losing a message costs time, never truth.
///
/// ```
/// # use std::sync::Arc;
/// use flux_core::{Availability, Backend, ItemId, Outcomes};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Backend::memory().bus;
/// let mut receiver = bus.subscribe();
///
/// let left = Availability::new(ItemId::new("ticket_1")?, 41);
/// bus.publish(Arc::new(Outcomes::new(vec![], vec![left]))).await?;
/// assert_eq!(receiver.recv().await?.availability[0].available, 41);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait OutcomeBus: Send + Sync + 'static {
    /// Sends outcomes to every subscriber, in this process and in others.
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError>;

    /// Receives everything published after this call, by this process too.
    fn subscribe(&self) -> OutcomeReceiver;
}
