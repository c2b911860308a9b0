//! The stock of an item: the units that can still be ordered.

use serde::{Deserialize, Serialize};

use super::item::{ItemKind, ItemSpec, PutItemError};
use super::order::{Ask, Reason};

/// The units of an item that are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stock {
    /// A number of units of a pool.
    Pool {
        /// Units that can be ordered.
        available: u32,
    },
    /// The seats of a hall, taken or free.
    Seats(SeatMap),
}

impl Stock {
    /// The stock of a sale nobody has bought from.
    #[must_use]
    pub fn full(spec: &ItemSpec) -> Self {
        match &spec.kind {
            ItemKind::Pool(capacity) => Self::Pool { available: capacity.get() },
            ItemKind::Seats(_) => Self::Seats(SeatMap::all_free(spec.capacity())),
        }
    }

    /// Units that can be ordered.
    #[must_use]
    pub fn available(&self) -> u32 {
        match self {
            Self::Pool { available } => *available,
            Self::Seats(map) => map.free,
        }
    }

    /// Takes all that `ask` wants, or nothing and says why.
    ///
    /// # Errors
    /// The [`Reason`] to turn the order down with.
    pub fn take(&mut self, spec: &ItemSpec, ask: &Ask) -> Result<(), Reason> {
        // G1: a unit, or a seat, is taken only while it is available.
        match (self, &spec.kind, ask) {
            (Self::Pool { available }, ItemKind::Pool(_), Ask::Units(quantity)) => {
                *available = available.checked_sub(quantity.get()).ok_or(Reason::SoldOut)?;
                Ok(())
            }
            (Self::Seats(map), ItemKind::Seats(hall), Ask::Seats(seats)) => {
                let free = |seat| hall.index_of(seat).is_some_and(|index| !map.is_taken(index));
                if !seats.iter().all(free) {
                    return Err(Reason::SeatTaken);
                }
                for index in seats.iter().filter_map(|seat| hall.index_of(seat)) {
                    map.take(index);
                }
                Ok(())
            }
            _ => Err(Reason::UnknownItem),
        }
    }

    /// Gives back what [`take`](Self::take) took for `ask`. Seats that are free
    /// already, and units past the capacity, are not given back twice.
    pub fn give_back(&mut self, spec: &ItemSpec, ask: &Ask) {
        // G8: what is given back is available again, once.
        match (self, &spec.kind, ask) {
            (Self::Pool { available }, ItemKind::Pool(capacity), Ask::Units(quantity)) => {
                *available = available.saturating_add(quantity.get()).min(capacity.get());
            }
            (Self::Seats(map), ItemKind::Seats(hall), Ask::Seats(seats)) => {
                for index in seats.iter().filter_map(|seat| hall.index_of(seat)) {
                    map.give_back(index);
                }
            }
            // An ask of the wrong kind never took anything.
            _ => {}
        }
    }
}

/// Revises a definition: returns the stock of `spec` when it replaces `old`, of
/// which `stock` is left. Units and seats that are taken stay taken.
///
/// # Errors
/// [`PutItemError`] when what is taken would not fit, or `spec` breaks a rule.
pub fn revise(old: &ItemSpec, stock: &Stock, spec: &ItemSpec) -> Result<Stock, PutItemError> {
    spec.check()?;
    let taken = old.capacity().saturating_sub(stock.available());
    let in_use = || PutItemError::CapacityInUse { item: spec.id.clone(), taken };
    match (&old.kind, stock, &spec.kind) {
        (ItemKind::Pool(_), Stock::Pool { .. }, ItemKind::Pool(capacity)) => {
            let available = capacity.get().checked_sub(taken).ok_or_else(in_use)?;
            Ok(Stock::Pool { available })
        }
        (ItemKind::Seats(before), Stock::Seats(map), ItemKind::Seats(after)) => {
            let mut revised = SeatMap::all_free(spec.capacity());
            for (name, index) in before.names().iter().zip(0..) {
                if map.is_taken(index) {
                    revised.take(after.index_of(name).ok_or_else(in_use)?);
                }
            }
            Ok(Stock::Seats(revised))
        }
        _ => Err(PutItemError::KindChange { item: spec.id.clone() }),
    }
}

/// One bit for each seat of a hall, set when it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatMap {
    taken: Vec<u64>,
    free: u32,
}

impl SeatMap {
    /// The map of a hall of `seats` seats, none taken.
    #[must_use]
    pub fn all_free(seats: u32) -> Self {
        Self { taken: vec![0; (seats as usize).div_ceil(64)], free: seats }
    }

    /// Reads the map of a hall of `seats` seats from what
    /// [`to_bytes`](Self::to_bytes) made; `None` when it is of another size.
    #[must_use]
    pub fn from_bytes(seats: u32, bytes: &[u8]) -> Option<Self> {
        let words = bytes.chunks_exact(8);
        if !words.remainder().is_empty() || words.len() != (seats as usize).div_ceil(64) {
            return None;
        }
        let taken: Vec<u64> =
            words.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))).collect();
        let count: u32 = taken.iter().map(|word| word.count_ones()).sum();
        let past_the_end =
            !seats.is_multiple_of(64) && taken.last().is_some_and(|w| w >> (seats % 64) != 0);
        let free = seats.checked_sub(count)?;
        (!past_the_end).then_some(Self { taken, free })
    }

    /// Writes one bit for each seat, eight bytes for each 64 of them, lowest
    /// first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.taken.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Whether the seat at `index` is taken.
    ///
    /// # Panics
    /// When `index` is outside the hall.
    #[must_use]
    pub fn is_taken(&self, index: u32) -> bool {
        self.taken[index as usize / 64] & (1 << (index % 64)) != 0
    }

    /// Takes the seat at `index`, if it is free.
    ///
    /// # Panics
    /// When `index` is outside the hall.
    pub fn take(&mut self, index: u32) {
        if !self.is_taken(index) {
            self.taken[index as usize / 64] |= 1 << (index % 64);
            self.free -= 1;
        }
    }

    /// Frees the seat at `index`, if it is taken.
    ///
    /// # Panics
    /// When `index` is outside the hall.
    pub fn give_back(&mut self, index: u32) {
        if self.is_taken(index) {
            self.taken[index as usize / 64] &= !(1 << (index % 64));
            self.free += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_reads_as_it_was_written_and_no_other_size() {
        for seats in [1, 63, 64, 65, 1_000] {
            let mut map = SeatMap::all_free(seats);
            map.take(0);
            map.take(seats - 1);
            let bytes = map.to_bytes();
            assert_eq!(SeatMap::from_bytes(seats, &bytes), Some(map));
            assert_eq!(SeatMap::from_bytes(seats + 64, &bytes), None);
            assert_eq!(SeatMap::from_bytes(seats, &bytes[1..]), None);
        }
        assert_eq!(SeatMap::from_bytes(3, &[8, 0, 0, 0, 0, 0, 0, 0]), None, "a fourth seat");
    }

    #[test]
    fn capacity_shrinks_down_to_what_is_taken_and_seats_keep_their_owners() {
        let pool = |n| ItemSpec::pool("a", n).expect("pool");
        let left = Stock::Pool { available: 4 };
        assert_eq!(revise(&pool(10), &left, &pool(6)), Ok(Stock::Pool { available: 0 }));
        assert_eq!(revise(&pool(10), &left, &pool(12)), Ok(Stock::Pool { available: 6 }));
        assert!(matches!(
            revise(&pool(10), &left, &pool(5)),
            Err(PutItemError::CapacityInUse { taken: 6, .. })
        ));

        let hall = |names: &[&str]| ItemSpec::hall("a", names.iter().copied()).expect("hall");
        let mut map = SeatMap::all_free(3);
        map.take(1);
        let revised =
            revise(&hall(&["x", "y", "z"]), &Stock::Seats(map.clone()), &hall(&["y", "w"]))
                .expect("y is kept");
        let Stock::Seats(seats) = &revised else { panic!("still seats") };
        assert!(seats.is_taken(0) && !seats.is_taken(1));
        assert!(revise(&hall(&["x", "y", "z"]), &Stock::Seats(map), &hall(&["x"])).is_err());
        assert!(matches!(
            revise(&pool(10), &left, &hall(&["x"])),
            Err(PutItemError::KindChange { .. })
        ));
    }

    #[test]
    fn a_definition_that_breaks_a_rule_replaces_none() {
        let good = ItemSpec::pool("a", 5).expect("pool");
        let bad = ItemSpec { name: Some("n".repeat(257)), ..good.clone() };
        let revised = revise(&good, &Stock::full(&good), &bad);
        assert!(matches!(revised, Err(PutItemError::Invalid(e)) if e.field() == "name"));
    }

    #[test]
    fn what_is_given_back_twice_is_there_once() {
        let pool = ItemSpec::pool("a", 5).expect("pool");
        let mut left = Stock::full(&pool);
        let three = Ask::Units(crate::protocol::Quantity::new(3).expect("3"));
        assert_eq!(left.take(&pool, &three), Ok(()));
        for _ in 0..2 {
            left.give_back(&pool, &three);
            assert_eq!(left.available(), 5);
        }

        let hall = ItemSpec::hall("h", ["x", "y", "z"]).expect("hall");
        let mut left = Stock::full(&hall);
        let two = Ask::Seats(vec!["x".parse().expect("x"), "z".parse().expect("z")]);
        assert_eq!(left.take(&hall, &two), Ok(()));
        assert_eq!((left.available(), left.take(&hall, &two)), (1, Err(Reason::SeatTaken)));
        for _ in 0..2 {
            left.give_back(&hall, &two);
            assert_eq!(left.available(), 3);
        }
        assert_eq!(left.take(&hall, &three), Err(Reason::UnknownItem), "a hall has no units");
        assert_eq!(left.available(), 3);
    }
}
