//! The units that may have been owned, at most, in the course of some time.

use std::ops::Range;
use std::time::Duration;

/// A number that changes with time, and its largest values over any stretch.
#[derive(Debug)]
pub(super) struct Room {
    /// The moments of the changes.
    at: Vec<Duration>,
    /// `most[k][i]` is the largest of the `2^k` values from `i` on.
    most: Vec<Vec<u32>>,
}

impl Room {
    /// The sum of all that is owned at each moment. Both ends count.
    pub(super) fn of(times: &[(Range<Duration>, u32)]) -> Self {
        let mut changes: Vec<(Duration, i8, u32)> = Vec::with_capacity(2 * times.len());
        for (time, units) in times {
            changes.push((time.start, 0, *units));
            changes.push((time.end, 1, *units));
        }
        changes.sort_unstable();
        let (mut at, mut values, mut now) = (Vec::new(), Vec::new(), 0_u32);
        for (moment, is_end, units) in changes {
            now = if is_end == 1 { now - units } else { now + units };
            at.push(moment);
            values.push(now);
        }
        let mut most = vec![values];
        let mut length = 1;
        while 2 * length <= at.len() {
            let below = most.last().expect("it begins with the values");
            let next = (0..=at.len() - 2 * length).map(|i| below[i].max(below[i + length]));
            let next = next.collect();
            most.push(next);
            length *= 2;
        }
        Self { at, most }
    }

    /// The largest value within `time`, its ends included.
    pub(super) fn most_within(&self, time: &Range<Duration>) -> u32 {
        // The value before the first change within it counts as well; where
        // several changes are at one moment, that before all of them.
        let from = self.at.partition_point(|at| *at < time.start).saturating_sub(1);
        let until = self.at.partition_point(|at| *at <= time.end);
        if until <= from || self.at[from] > time.end {
            return 0;
        }
        let power = (until - from).ilog2();
        let row = &self.most[power as usize];
        row[from].max(row[until - (1 << power)])
    }
}
