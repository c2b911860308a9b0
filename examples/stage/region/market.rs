//! A market: the items on sale in a region, and the workers that decide who gets them.

use std::sync::Arc;
use std::time::Duration;

use flux_core::clock::Clock;
use flux_core::protocol::Message;
use flux_core::seams::partition_of_lines;
use flux_core::{Flux, Order, SeamError};
use tokio::time::{Instant, sleep};

use super::{Demand, Link, Region, Times};

/// The time from the start of one worker to that of the next: they renew their
/// memberships at different moments.
const APART: Duration = Duration::from_millis(270);
/// Time for the workers to know each other.
const SETTLES_IN: Duration = Duration::from_secs(3);
/// Longest time that the workers have for what was sent, in the region's time.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The numbers of a market.
#[derive(Debug, Clone, Copy)]
pub struct Market {
    /// Workers, each with a way of its own to the services.
    pub workers: usize,
    /// Items on sale.
    pub items: usize,
    /// The share of orders that are over two items.
    pub pairs: f64,
    /// The exponent of the demand for items (Zipf); 0: the same for all.
    pub skew: f64,
    /// Transactions of one worker on their way at once.
    pub at_once: usize,
    /// Partitions of the queue.
    pub partitions: usize,
    /// Rows over which the stock of each item is spread.
    pub stripes: usize,
    /// The times that the services take.
    pub times: Times,
    /// Whether there is a lock service.
    pub has_locks: bool,
    /// The seed of all that is left to chance.
    pub seed: u64,
}

impl Default for Market {
    fn default() -> Self {
        Self {
            workers: 1,
            items: 300,
            pairs: 0.0,
            skew: 0.0,
            at_once: 32,
            partitions: 16,
            stripes: 1,
            times: Times::default(),
            has_locks: true,
            seed: 1,
        }
    }
}

/// A market in which everybody is at work.
pub(super) struct Opened {
    pub(super) region: Arc<Region>,
    pub(super) links: Vec<Link>,
    pub(super) demand: Demand,
    _workers: Vec<Flux>,
}

impl Market {
    /// Puts the items on sale, and starts the workers. Must be called within a runtime
    /// whose clock is paused.
    pub(super) async fn open(&self) -> Result<Opened, SeamError> {
        let region = Region::new(self);
        let demand = Demand::new(self.items, self.skew, self.pairs, self.seed);
        for spec in demand.specs() {
            region.backend().store.put_item(&spec).await?;
        }
        let links: Vec<Link> = (0..self.workers).map(|number| region.link(number)).collect();
        links.iter().for_each(|link| link.set_locks_away(!self.has_locks));
        let mut workers = Vec::new();
        for (link, number) in links.iter().zip(1..) {
            let worker = Flux::builder(link.backend()).clock(region.clock());
            let name = format!("{}-{number}", self.seed);
            workers.push(worker.worker_name(name).seed(self.seed + number).start());
            sleep(APART).await;
        }
        sleep(SETTLES_IN).await;
        Ok(Opened { region, links, demand, _workers: workers })
    }
}

impl Opened {
    /// Makes an order of now; the same one each time.
    pub(super) fn next(&mut self) -> Order {
        self.demand.next(self.region.clock().now())
    }

    /// Sends orders, each to its partition of the queue.
    pub(super) async fn send(&self, orders: Vec<Order>) -> Result<(), SeamError> {
        let queues = self.region.backend().queues();
        let mut sorted: Vec<Vec<Message>> = vec![Vec::new(); queues.len()];
        for order in orders {
            sorted[partition_of_lines(&order.lines, queues.len())].push(Message::Place(order));
        }
        for (queue, messages) in queues.iter().zip(sorted) {
            if !messages.is_empty() {
                queue.send(&messages).await?;
            }
        }
        Ok(())
    }

    /// Waits until so many orders are decided.
    ///
    /// # Panics
    /// When that takes more than an hour of the region's time.
    pub(super) async fn decided(&self, orders: usize) {
        let began = Instant::now();
        while self.region.decided().len() < orders {
            assert!(began.elapsed() < LONGEST, "not decided within {LONGEST:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
