//! A rush of orders on a region's workers, and how many they decide a second.

use std::time::Duration;

use flux_core::SeamError;
use tokio::time::Instant;

use super::{Counts, Market};

/// Orders that all come at once.
#[derive(Debug, Clone, Copy)]
pub struct Rush {
    /// Where they come.
    pub market: Market,
    /// Their number.
    pub orders: usize,
}

/// What came of a rush.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// What was asked of the store.
    pub counts: Counts,
    /// The time from the first order to the last decision.
    pub took: Duration,
}

impl Figures {
    /// Orders decided a second.
    pub fn rate(&self) -> f64 {
        self.counts.orders as f64 / self.took.as_secs_f64()
    }
}

impl Rush {
    /// Lets it happen. Must be called within a runtime whose clock is paused.
    ///
    /// # Errors
    /// When the services do not take what is prepared.
    ///
    /// # Panics
    /// When the orders are not decided within an hour of the region's time.
    pub async fn run(self) -> Result<Figures, SeamError> {
        let mut market = self.market.open().await?;
        let orders = (0..self.orders).map(|_| market.next()).collect();
        market.send(orders).await?;
        let began = Instant::now();
        market.decided(self.orders).await;
        let last = market.region.decided().last().map_or(began, |last| last.at);
        Ok(Figures { counts: market.region.counts(), took: last - began })
    }
}
