//! Who hears what became of an order.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::SeamError;
use crate::protocol::{ItemId, Order};

/// How much of an item is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// The item.
    pub item: ItemId,
    /// Units that can be ordered.
    pub available: u32,
}

/// What one commit changed, durable before it is published. Outcomes of nothing
/// say that outcomes were missed: see [`gap`](Self::gap).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The orders, as they now stand.
    pub orders: Vec<Order>,
    /// The items whose numbers changed.
    pub availability: Vec<Availability>,
}

impl Outcomes {
    /// What a bus tells its subscribers when it may have lost outcomes, such as
    /// after a broken connection: they look for themselves, as a receiver that
    /// fell behind does.
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

/// A bounded channel for a bus to hand out outcomes with.
#[must_use]
pub fn outcome_channel(capacity: usize) -> OutcomeSender {
    broadcast::channel(capacity).0
}

/// Carries [`News`] from those who decide to those who wait. Best effort:
/// losing a message costs time, never truth.
#[async_trait]
pub trait OutcomeBus: Send + Sync + 'static {
    /// Tells every subscriber, here and in other processes.
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError>;

    /// Hears everything published from now on, by this process too.
    fn subscribe(&self) -> OutcomeReceiver;
}
