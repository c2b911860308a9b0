//! The rejected orders that a store remembers, oldest first: they are forgotten
//! after a time, and when there are too many. All others are remembered for
//! good.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::{OrderId, Timestamp};

/// Most orders that share one time.
const RUN_MAX: usize = 4_096;
/// Longest time between orders that share one.
const RUN_SPAN: Duration = Duration::from_secs(1);

/// How long rejected orders are remembered, and how many of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Time from the rejection.
    pub(crate) keep: Duration,
    /// Most of them.
    pub(crate) max: u64,
}

impl Retention {
    pub(crate) const DEFAULT: Self = Self { keep: Duration::from_secs(24 * 3600), max: 10_000_000 };
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Orders that were rejected within [`RUN_SPAN`] of `since`.
#[derive(Debug)]
struct Run {
    since: Timestamp,
    ids: VecDeque<OrderId>,
}

/// The rejected orders, in the order they were decided. Some 16 bytes each, in
/// runs that come and go as a whole, so its memory is what it holds.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    retention: Retention,
    runs: VecDeque<Run>,
    len: u64,
}

impl Rejected {
    pub(crate) fn new(retention: Retention) -> Self {
        Self { retention, ..Self::default() }
    }

    /// Adds an order that was rejected `at` that time, as its decision says.
    pub(crate) fn push(&mut self, id: OrderId, at: Timestamp) {
        self.len += 1;
        match self.runs.back_mut() {
            // After a clock was set back, the order stays a little longer.
            Some(run) if run.ids.len() < RUN_MAX && at < run.since + RUN_SPAN => {
                run.ids.push_back(id);
            }
            newest => {
                let since = newest.map_or(at, |newest| newest.since.max(at));
                self.runs.push_back(Run { since, ids: VecDeque::from([id]) });
            }
        }
    }

    /// Takes out the oldest order, if its time is over at `now` or there are
    /// more than there may be. `now` is the engine's time, as are the times of
    /// the decisions: a store's own clock could be ahead of it.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<OrderId> {
        let oldest = self.runs.front_mut()?;
        let Retention { keep, max } = self.retention;
        let is_over = now.since(oldest.since) >= keep.saturating_add(RUN_SPAN);
        if !is_over && self.len <= max {
            return None;
        }
        self.len -= 1;
        let id = oldest.ids.pop_front();
        if oldest.ids.is_empty() {
            self.runs.pop_front();
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn id(n: u128) -> OrderId {
        OrderId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn rejected(keep_seconds: u64, max: u64) -> Rejected {
        Rejected::new(Retention { keep: Duration::from_secs(keep_seconds), max })
    }

    fn popped(rejected: &mut Rejected, now: Timestamp) -> Vec<OrderId> {
        std::iter::from_fn(|| rejected.pop(now)).collect()
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut rejected = rejected(3_600, 3);
        for n in 0..5 {
            rejected.push(id(n), T0);
        }
        assert_eq!(popped(&mut rejected, T0), [id(0), id(1)]);
        rejected.push(id(5), T0);
        assert_eq!(popped(&mut rejected, T0), [id(2)]);
    }

    #[test]
    fn each_is_kept_for_its_time_and_hardly_longer() {
        let mut rejected = rejected(60, 1_000_000);
        let at = |millis: u64| T0 + Duration::from_millis(millis);
        for n in 0..100 {
            rejected.push(id(u128::from(n)), at(n * 100));
        }
        for millis in (0..80_000).step_by(50) {
            for gone in popped(&mut rejected, at(millis)) {
                let placed = gone.as_uuid().as_u128() as u64 * 100;
                let kept = millis - placed;
                assert!((60_000..=62_000).contains(&kept), "{kept} ms");
            }
        }
        assert!(rejected.runs.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_older() {
        let mut rejected = rejected(60, 1_000_000);
        let (ahead, minute) = (T0 + Duration::from_secs(600), Duration::from_secs(61));
        rejected.push(id(1), ahead);
        rejected.push(id(2), T0);
        assert_eq!(popped(&mut rejected, T0 + minute), []);
        assert_eq!(popped(&mut rejected, ahead + minute), [id(1), id(2)]);
    }

    #[test]
    fn its_memory_is_what_it_holds() {
        let mut rejected = rejected(3_600, 10_000);
        for n in 0..1_000_000 {
            rejected.push(id(n), T0 + Duration::from_millis(n as u64 / 100));
            while rejected.pop(T0).is_some() {}
            let room: usize = rejected.runs.iter().map(|run| run.ids.capacity()).sum();
            assert!(room <= 10_000 + 3 * RUN_MAX, "room for {room}");
        }
        assert!(rejected.runs.capacity() < 64);
    }
}
