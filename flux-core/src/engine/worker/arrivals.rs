//! The order of arrival. The messages of each partition come in batches of up to some
//! thousand; ranked one batch after the other, those about items of two partitions would
//! have each wait for the whole batch of the other. So what comes from several partitions
//! counts as having come by turns, as far as that is a matter of one batch.

/// Ranks by which a message may count as having come before one that is here already.
const BATCH: u64 = 1_024;

/// The ranks given so far.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The last place of each source: what came by no queue, and each partition.
    last: Vec<u64>,
    latest: u64,
}

impl Arrivals {
    /// The rank of a message that comes now, from a partition or by no queue: after all
    /// that came from there, and unlike any other.
    pub(super) fn rank(&mut self, partition: Option<usize>) -> u64 {
        let source = partition.map_or(0, |partition| partition + 1);
        if self.last.len() <= source {
            self.last.resize(source + 1, 0);
        }
        let last = &mut self.last[source];
        *last = (*last + 1).max((self.latest + 1).saturating_sub(BATCH));
        self.latest = self.latest.max(*last);
        (*last << 16) | source as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_two_partitions_count_as_having_come_by_turns() {
        let mut arrivals = Arrivals::default();
        let [one, other] = [1, 2].map(|partition| {
            (0..BATCH).map(|_| arrivals.rank(Some(partition))).collect::<Vec<u64>>()
        });
        assert!(one.iter().zip(&other).all(|(one, other)| one < other));
        assert!(one[1..].iter().zip(&other).all(|(next, other)| next > other));
    }

    #[test]
    fn nobody_comes_before_what_is_here_for_longer_than_a_batch() {
        let mut arrivals = Arrivals::default();
        let here: Vec<u64> = (0..3 * BATCH).map(|_| arrivals.rank(Some(0))).collect();
        let late = arrivals.rank(None);
        assert_eq!(here.iter().filter(|rank| **rank > late).count() as u64, BATCH);
        assert!(arrivals.rank(None) > late);
    }
}
