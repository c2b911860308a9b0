//! The orders whose money is owed: how many, since when, and in the order they were
//! decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{Money, Order, Timestamp};
use crate::seams::Owed;

/// Orders that owe, by their sequence numbers: some 100 bytes each, as long as they do.
#[derive(Debug, Default)]
pub(crate) struct Debts {
    since: BTreeMap<u64, Timestamp>,
    by_age: BTreeSet<(Timestamp, u64)>,
}

impl Debts {
    /// Notes how an order stands now.
    pub(crate) fn note(&mut self, seq: u64, order: &Order) {
        match order.money() {
            Money::Owed => self.add(seq, order.owed_since().unwrap_or_default()),
            Money::Refunded => self.remove(seq),
            Money::None | Money::Paid => {}
        }
    }

    pub(crate) fn add(&mut self, seq: u64, since: Timestamp) {
        if let Some(was) = self.since.insert(seq, since) {
            self.by_age.remove(&(was, seq));
        }
        self.by_age.insert((since, seq));
    }

    pub(crate) fn remove(&mut self, seq: u64) {
        if let Some(since) = self.since.remove(&seq) {
            self.by_age.remove(&(since, seq));
        }
    }

    /// How many there are, and the oldest.
    pub(crate) fn owed(&self) -> Owed {
        let oldest = self.by_age.first().map(|(since, _)| *since);
        Owed::new(self.since.len() as u64, oldest)
    }

    /// Up to `most` of them from a sequence number on.
    pub(crate) fn from(&self, seq: u64, most: usize) -> Vec<u64> {
        self.since.range(seq..).map(|(seq, _)| *seq).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_whatever_order_they_come_and_go_in() {
        let at = Timestamp::from_millis;
        let mut debts = Debts::default();
        assert_eq!(debts.owed(), Owed::new(0, None));
        for (seq, since) in [(5, 50), (3, 70), (9, 20), (5, 60)] {
            debts.add(seq, at(since));
        }
        assert_eq!(debts.owed(), Owed::new(3, Some(at(20))));
        assert_eq!((debts.from(0, 9), debts.from(4, 1)), (vec![3, 5, 9], vec![5]));
        debts.remove(9);
        debts.remove(9);
        assert_eq!(debts.owed(), Owed::new(2, Some(at(60))));
    }
}
