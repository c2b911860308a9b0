//! A rush of orders on a region's workers, and how many they decide a second.

use std::time::Duration;

use flux_core::clock::Clock;
use flux_core::protocol::Message;
use flux_core::seams::partition_of;
use flux_core::{Flux, SeamError};
use tokio::time::{Instant, sleep};

use super::{Counts, Demand, Region, Times};

/// Time for the workers to know each other.
const SETTLES_IN: Duration = Duration::from_secs(3);
/// Longest rush, in the region's time.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Orders that all come at once, and those who decide them.
#[derive(Debug, Clone, Copy)]
pub struct Rush {
    /// Workers, each with a way of its own to the services.
    pub workers: usize,
    /// Items on sale.
    pub items: usize,
    /// Orders.
    pub orders: usize,
    /// The share of orders that are over two items.
    pub pairs: f64,
    /// The exponent of the demand for items (Zipf); 0: the same for all.
    pub skew: f64,
    /// Transactions of one worker on their way at once.
    pub at_once: usize,
    /// Partitions of the queue.
    pub partitions: usize,
}

impl Default for Rush {
    fn default() -> Self {
        let (orders, at_once, partitions) = (300_000, 32, 16);
        Self { workers: 1, items: 300, orders, pairs: 0.0, skew: 0.0, at_once, partitions }
    }
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
        let region = Region::new(Times::default(), self.at_once, self.partitions);
        let mut demand = Demand::new(self.items, self.skew, self.pairs, 1);
        for spec in demand.specs() {
            region.backend().store.put_item(&spec).await?;
        }
        let worker = || Flux::builder(region.link().backend()).clock(region.clock()).start();
        let _workers: Vec<Flux> = (0..self.workers).map(|_| worker()).collect();
        sleep(SETTLES_IN).await;
        let queues = region.backend().queues();
        let now = region.clock().now();
        for _ in 0..self.orders {
            let order = demand.next(now);
            let partition = partition_of(&order.lines[0].item, queues.len());
            queues[partition].send(&[Message::Place(order)]).await?;
        }
        let began = Instant::now();
        while region.decided().len() < self.orders {
            assert!(began.elapsed() < LONGEST, "not decided within {LONGEST:?}");
            sleep(Duration::from_millis(20)).await;
        }
        let last = region.decided().last().map_or(began, |last| last.at);
        Ok(Figures { counts: region.counts(), took: last - began })
    }
}
