//! The engine's bounds and times; the defaults suit one machine.

use std::time::Duration;

use bon::Builder;

/// Bounds and times of an engine. Every one has a default.
#[derive(Debug, Clone, Builder)]
pub struct Settings {
    /// Most orders one decision batch takes.
    #[builder(default = 1024)]
    pub batch_max: usize,
    /// Most calls waiting for the worker before
    /// [`Overloaded`](super::Error::Overloaded).
    #[builder(default = 65_536)]
    pub calls_max: usize,
    /// Most calls waiting for the outcome of an order decided elsewhere.
    #[builder(default = 65_536)]
    pub outcome_waits_max: usize,
    /// How long a call waits for the worker's ruling on a follow-up.
    #[builder(default = Duration::from_secs(10))]
    pub decision_timeout: Duration,
    /// How long a lease on an item lasts unless it is renewed.
    #[builder(default = Duration::from_secs(5))]
    pub lease_ttl: Duration,
    /// How long to wait for a lease before claiming the item without one. It
    /// is waited for only when there is nothing else to do; to fence a worker
    /// that is at work costs both of them, so let it be longer than
    /// [`claim_max`](Self::claim_max).
    #[builder(default = Duration::from_secs(3))]
    pub lease_wait: Duration,
    /// How long a worker keeps an item before others get their chance.
    #[builder(default = Duration::from_secs(2))]
    pub claim_max: Duration,
    /// How long a worker keeps its items when there is nothing to do, at most
    /// five seconds.
    #[builder(default = Duration::from_millis(100))]
    pub idle_max: Duration,
    /// How often ended holds are looked for; their stock is back on sale at
    /// most that much and one commit later.
    #[builder(default = Duration::from_millis(250))]
    pub sweep_every: Duration,
    /// The same for a worker that had nothing to do for a minute and found no
    /// hold that could end. Only holds made meanwhile by a worker that then
    /// died wait that long for their end.
    #[builder(default = Duration::from_secs(60))]
    pub idle_sweep_every: Duration,
    /// Tries of one message before it goes back to the queue or is given up.
    #[builder(default = 8)]
    pub tries_max: u32,
    /// Deliveries of one message before it is given up as a dead letter, if it
    /// fails by itself while others go well. An outage gives nothing up.
    #[builder(default = 10)]
    pub deliveries_max: u32,
}

impl Settings {
    /// A bound of zero would let nothing through; it counts as one.
    pub(super) fn within_reason(mut self) -> Self {
        for bound in [&mut self.batch_max, &mut self.calls_max, &mut self.outcome_waits_max] {
            *bound = (*bound).max(1);
        }
        self.tries_max = self.tries_max.max(1);
        self.deliveries_max = self.deliveries_max.max(1);
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::builder().build()
    }
}
