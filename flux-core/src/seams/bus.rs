//! Who hears what became of an order.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::SeamError;
use crate::protocol::{ItemId, Order};

/// How much of an item is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The item.
    pub item: ItemId,
    /// Units that can be ordered.
    pub available: u32,
}

/// What one commit changed, durable before it is published. News of nothing
/// says that news was missed: see [`gap`](Self::gap).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The orders, as they now stand.
    pub orders: Vec<Order>,
    /// The items whose numbers changed.
    pub levels: Vec<Level>,
}

impl News {
    /// What a bus tells its subscribers when it may have lost news, such as
    /// after a broken connection: they look for themselves, as a receiver that
    /// fell behind does.
    #[must_use]
    pub fn gap() -> Self {
        Self::default()
    }

    /// Whether this only says that news was missed.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.orders.is_empty() && self.levels.is_empty()
    }
}

/// The sending half of [`news_channel`].
pub type NewsSender = broadcast::Sender<Arc<News>>;

/// News as it comes. A receiver that falls behind loses the oldest
/// (`RecvError::Lagged`) and must read the store for what it missed; so must
/// one that hears of a [gap](News::gap).
pub type NewsReceiver = broadcast::Receiver<Arc<News>>;

/// A bounded channel for a bus to hand out news with.
#[must_use]
pub fn news_channel(capacity: usize) -> NewsSender {
    broadcast::channel(capacity).0
}

/// Carries [`News`] from those who decide to those who wait. Best effort:
/// losing a message costs time, never truth.
#[async_trait]
pub trait OutcomeBus: Send + Sync + 'static {
    /// Tells every subscriber, here and in other processes.
    async fn publish(&self, news: Arc<News>) -> Result<(), SeamError>;

    /// Hears everything published from now on, by this process too.
    fn subscribe(&self) -> NewsReceiver;
}
