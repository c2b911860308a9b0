//! The moment at which the worker looks for ended holds. The worker plans it by
//! what the store says; holds made since, here or elsewhere, bring it forward.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::HoldTime;
use crate::sync::{Mutex, MutexGuard, Notify, timeout_at};

/// The time that holds are taken to last while no item was met.
const UNMET_HOLD: Duration = Duration::from_secs(15);

/// The time of the next sweep.
#[derive(Debug)]
pub(crate) struct SweepAlarm {
    planned: Mutex<Planned>,
    brought_forward: Notify,
    /// Seconds that the shortest hold lasts of the items met.
    shortest_hold_s: AtomicU32,
}

#[derive(Debug)]
struct Planned {
    /// `None` while a sweep is under way.
    at: Option<Instant>,
    /// The time at which a hold was last heard of.
    expected_at: Instant,
}

impl SweepAlarm {
    /// An alarm for a sweep at once.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let planned = Mutex::new(Planned { at: Some(now), expected_at: now });
        let shortest_hold_s = AtomicU32::new(u32::MAX);
        Self { planned, brought_forward: Notify::new(), shortest_hold_s }
    }

    /// Notes that an item's holds last so long; `true` if those of no other are as short.
    pub(crate) fn meet(&self, hold: HoldTime) -> bool {
        self.shortest_hold_s.fetch_min(hold.get(), Ordering::Relaxed) > hold.get()
    }

    /// The least time that the holds of an item last, of all items met.
    pub(crate) fn shortest_hold(&self) -> Duration {
        match self.shortest_hold_s.load(Ordering::Relaxed) {
            u32::MAX => UNMET_HOLD,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// Waits until a sweep is due, however its time is moved meanwhile.
    /// Cancel-safe.
    pub(crate) async fn due(&self) {
        loop {
            let moved = self.brought_forward.notified();
            let at = self.lock().at;
            match at {
                Some(at) => {
                    if timeout_at(at, moved).await.is_err() {
                        return;
                    }
                }
                None => moved.await,
            }
        }
    }

    /// Begins a sweep if one is due. From here on, until it is
    /// [planned](Self::plan), whatever is expected counts for the next.
    pub(crate) fn begin(&self) -> bool {
        let mut planned = self.lock();
        let is_due = planned.at.is_some_and(|at| at <= Instant::now());
        if is_due {
            planned.at = None;
        }
        is_due
    }

    /// Plans the next sweep, which is not after `at`.
    pub(crate) fn plan(&self, at: Instant) {
        let mut planned = self.lock();
        planned.at = Some(planned.at.map_or(at, |sooner| sooner.min(at)));
    }

    /// Brings the sweep forward to `at` for holds that were just heard of.
    pub(crate) fn expect(&self, at: Instant) {
        let is_sooner = {
            let mut planned = self.lock();
            planned.expected_at = Instant::now();
            let is_sooner = planned.at.is_none_or(|planned| at < planned);
            if is_sooner {
                planned.at = Some(at);
            }
            is_sooner
        };
        if is_sooner {
            self.brought_forward.notify_one();
        }
    }

    /// The time since a hold was last heard of.
    pub(crate) fn quiet_for(&self) -> Duration {
        self.lock().expected_at.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Planned> {
        // Each change is whole before anything can panic.
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_expected_during_a_sweep_counts_for_the_next() {
        let (alarm, start) = (SweepAlarm::new(), Instant::now());
        assert!(alarm.begin());
        alarm.expect(start + 2 * SECOND);
        alarm.plan(start + 60 * SECOND);
        alarm.due().await;
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert!(alarm.begin());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_began_is_shortened_and_never_lengthened() {
        let (alarm, start) = (SweepAlarm::new(), Instant::now());
        assert!(alarm.begin());
        alarm.plan(start + 60 * SECOND);
        let waiting = async {
            alarm.due().await;
            start.elapsed()
        };
        let expecting = async {
            tokio::time::sleep(SECOND).await;
            alarm.expect(start + 5 * SECOND);
            alarm.expect(start + 90 * SECOND);
        };
        assert_eq!(tokio::join!(waiting, expecting).0, 5 * SECOND);
        assert_eq!(alarm.quiet_for(), 4 * SECOND);
    }
}
