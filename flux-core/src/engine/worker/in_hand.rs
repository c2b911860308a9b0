//! The deliveries that a worker has in its hands, by partition: what waits for a hot item
//! must not keep the others out.

/// The number of deliveries of each partition.
#[derive(Debug)]
pub(super) struct InHandCounts(Vec<usize>);

/// The bounds of a worker's hands.
#[derive(Debug, Clone, Copy)]
pub(super) struct InHandMax {
    /// Shared out evenly between the partitions that it serves.
    pub(super) shared: usize,
    /// More than their share, of all partitions together.
    pub(super) spare: usize,
}

impl InHandCounts {
    pub(super) fn new(partitions: usize) -> Self {
        Self(vec![0; partitions])
    }

    pub(super) fn took(&mut self, partition: usize) {
        self.0[partition] += 1;
    }

    pub(super) fn left(&mut self, partition: usize) {
        self.0[partition] -= 1;
    }

    /// Tells of each partition whether there is room for more of its deliveries: each
    /// that is served has its share of the room, and more while some is to spare.
    pub(super) fn has_room(&self, served: &[bool], max: InHandMax) -> impl Fn(usize) -> bool {
        let serves = served.iter().filter(|served| **served).count().max(1);
        let share = max.shared.div_ceil(serves);
        let shares = served.iter().map(|served| if *served { share } else { 0 });
        let beyond = self.0.iter().zip(shares).map(|(count, share)| count.saturating_sub(share));
        let beyond: usize = beyond.sum();
        move |partition| served[partition] && (self.0[partition] < share || beyond < max.spare)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> usize {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: InHandMax = InHandMax { shared: 90, spare: 50 };

    fn rooms(counts: [usize; 4], max: InHandMax) -> [bool; 4] {
        let counts = InHandCounts(counts.to_vec());
        let has_room = counts.has_room(&[true, true, true, false], max);
        [0, 1, 2, 3].map(has_room)
    }

    #[test]
    fn a_partition_has_its_share_whatever_the_others_have() {
        assert_eq!(rooms([0, 0, 0, 0], MAX), [true, true, true, false]);
        assert_eq!(rooms([79, 29, 0, 0], MAX), [true, true, true, false], "there is some to spare");
        assert_eq!(rooms([80, 29, 30, 0], MAX), [false, true, false, false]);
        assert_eq!(rooms([55, 55, 0, 0], MAX), [false, false, true, false]);
        assert_eq!(rooms([30, 30, 0, 50], MAX), [false, false, true, false], "nor what was served");
        let max = InHandMax { spare: 0, ..MAX };
        assert_eq!(rooms([30, 29, 90, 0], max), [false, true, false, false]);
    }
}
