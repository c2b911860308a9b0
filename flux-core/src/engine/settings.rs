//! The engine's role, bounds and times; the defaults suit one machine.

use std::time::Duration;

use bon::Builder;
use serde::{Deserialize, Serialize};

/// Bounds and times of an engine. Every one has a default; a configuration
/// file may leave any out, and may not name others.
///
/// ```
/// use std::time::Duration;
/// use flux_core::{Backend, Flux, Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings =
///     Settings::builder().calls_max(1_000).decision_timeout(Duration::from_secs(2)).build();
/// let flux = Flux::builder(Backend::memory()).settings(settings).start();
///
/// let read: Settings = serde_json::from_str(r#"{"calls_max": 1000}"#)?;
/// assert_eq!(read.batch_max, Settings::default().batch_max);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Builder, Serialize, Deserialize)]
#[builder(builder_type(doc {
/// Sets bounds and times of an engine, those that shall not have their
/// defaults; `build` makes the [`Settings`]. For an example see there.
}))]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most messages the worker decides at once; 1,024. Zero counts as one. On a
    /// store that bounds a write the worker has up to 32 times as many in its
    /// hands, so that every write is a full one, and as many again for items of which more
    /// is asked than can be written.
    #[builder(default = 1024)]
    pub batch_max: usize,
    /// Most calls waiting for this engine's worker before
    /// [`Overloaded`](super::Error::Overloaded); 65,536. Zero counts as one.
    #[builder(default = 65_536)]
    pub calls_max: usize,
    /// Most orders whose outcome calls wait for without this engine's worker,
    /// before [`Overloaded`](super::Error::Overloaded); 65,536. Zero counts as
    /// one.
    #[builder(default = 65_536)]
    pub outcome_waits_max: usize,
    /// Longest time a call waits for a worker elsewhere to decide its order,
    /// before [`OutcomePending`](super::Error::OutcomePending); 10 s. The
    /// engine's own worker is waited for as long as it takes, except that a
    /// [`release`](super::Flux::release) of an order in the queue waits no
    /// longer than this for the order's decision.
    #[builder(default = Duration::from_secs(10))]
    pub decision_timeout: Duration,
    /// The time a lease on an item lasts unless it is renewed; 5 s.
    #[builder(default = Duration::from_secs(5))]
    pub lease_ttl: Duration,
    /// Longest time a worker with nothing else to do waits for the lease of an
    /// item that another worker has; 3 s. After that it claims the item without a
    /// lease, and the other's next write is refused. Keep it longer than
    /// [`claim_max`](Self::claim_max): a worker that is well hands its items
    /// over by then, and taking them from it throws its work away.
    #[builder(default = Duration::from_secs(3))]
    pub lease_wait: Duration,
    /// Longest time a worker keeps an item before others get their chance; 2 s.
    #[builder(default = Duration::from_secs(2))]
    pub claim_max: Duration,
    /// Longest time a worker keeps its items when there is nothing to do, at
    /// most 5 s; 100 ms.
    #[builder(default = Duration::from_millis(100))]
    pub idle_max: Duration,
    /// The time from one search for ended holds to the next while there are some, or
    /// may be; 250 ms. Their stock is back on sale at most that much and one commit
    /// later. With nothing to do a worker sleeps until the next hold that it knows of
    /// ends, or one could that is made meanwhile.
    #[builder(default = Duration::from_millis(250))]
    pub sweep_every: Duration,
    /// Longest time from one search for ended holds to the next, and the time for a
    /// worker that for a minute did nothing, heard of no hold and saw none in the
    /// store; 60 s. It is woken by the holds that it makes, and by those that it hears
    /// of on the bus. So this delays only the end of a hold whose worker died
    /// and whose outcome no bus carried.
    #[builder(default = Duration::from_secs(60))]
    pub idle_sweep_every: Duration,
    /// Tries of one message before it goes back to the queue, or its caller is
    /// told [`OutcomePending`](super::Error::OutcomePending); 8. Zero counts as
    /// one.
    #[builder(default = 8)]
    pub tries_max: u32,
    /// Deliveries of one message before it becomes a dead letter, if it fails
    /// by itself while others go well; 10. An outage makes none. Zero counts as
    /// one.
    #[builder(default = 10)]
    pub deliveries_max: u32,
}

impl Settings {
    /// Raises bounds of zero, which would let nothing through, to one.
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

/// Whether an engine decides orders itself. Exhaustive, so that an application
/// that goes by it hears of a new one when it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Accepts orders and decides them.
    #[default]
    Both,
    /// Accepts orders; a worker elsewhere, on the same queue and store,
    /// decides them.
    AcceptOnly,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() -> Result<(), serde_json::Error> {
        let settings = Settings::builder().lease_wait(Duration::from_millis(1_500)).build();
        let text = serde_json::to_string(&settings)?;
        assert!(text.contains(r#""lease_wait":{"secs":1,"nanos":500000000}"#), "{text}");
        assert_eq!(serde_json::from_str::<Settings>(&text)?, settings);
        assert_eq!(serde_json::from_str::<Settings>("{}")?, Settings::default());
        assert!(serde_json::from_str::<Settings>(r#"{"call_max": 1}"#).is_err());
        Ok(())
    }
}
