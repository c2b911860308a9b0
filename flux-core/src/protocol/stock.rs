//! Which units of an item can still be ordered.

use serde::{Deserialize, Serialize};

use super::item::{ItemKind, ItemSpec};
use super::order::{Ask, Reason};

/// What is left of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stock {
    /// So many units of a pool.
    Pool {
        /// Units that can be ordered.
        available: u32,
    },
    /// The free places of a hall.
    Seats(SeatMap),
}

impl Stock {
    /// Units that can be ordered.
    #[must_use]
    pub fn available(&self) -> u32 {
        match self {
            Self::Pool { available } => *available,
            Self::Seats(map) => map.free,
        }
    }

    /// Takes what `ask` wants, or nothing and says why not.
    ///
    /// # Errors
    /// The [`Reason`] to turn the order down with.
    pub fn take(&mut self, spec: &ItemSpec, ask: &Ask) -> Result<(), Reason> {
        match (self, &spec.kind, ask) {
            (Self::Pool { available }, ItemKind::Pool(_), Ask::Units(quantity)) => {
                *available = available.checked_sub(quantity.get()).ok_or(Reason::SoldOut)?;
                Ok(())
            }
            (Self::Seats(map), ItemKind::Seats(hall), Ask::Seats(seats)) => {
                let free = |seat| hall.index_of(seat).is_some_and(|place| !map.is_taken(place));
                if !seats.iter().all(free) {
                    return Err(Reason::SeatTaken);
                }
                for place in seats.iter().filter_map(|seat| hall.index_of(seat)) {
                    map.take(place);
                }
                Ok(())
            }
            _ => Err(Reason::UnknownItem),
        }
    }

    /// Gives back what [`take`](Self::take) took for `ask`. Seats that are free
    /// already, and units past the capacity, are not given back twice.
    pub fn give_back(&mut self, spec: &ItemSpec, ask: &Ask) {
        match (self, &spec.kind, ask) {
            (Self::Pool { available }, ItemKind::Pool(capacity), Ask::Units(quantity)) => {
                *available = available.saturating_add(quantity.get()).min(capacity.get());
            }
            (Self::Seats(map), ItemKind::Seats(hall), Ask::Seats(seats)) => {
                for place in seats.iter().filter_map(|seat| hall.index_of(seat)) {
                    map.give_back(place);
                }
            }
            // An ask of the wrong kind never took anything.
            _ => {}
        }
    }
}

/// One bit for each seat of a hall, set when it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatMap {
    taken: Vec<u64>,
    free: u32,
}

impl SeatMap {
    /// A hall of `seats` places, none taken.
    #[must_use]
    pub fn all_free(seats: u32) -> Self {
        Self { taken: vec![0; (seats as usize).div_ceil(64)], free: seats }
    }

    /// The map of a hall of `seats` places from what
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

    /// One bit for each seat, eight bytes for each 64 of them, lowest first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.taken.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Whether the seat at `place` is taken.
    ///
    /// # Panics
    /// When `place` is outside the hall.
    #[must_use]
    pub fn is_taken(&self, place: u32) -> bool {
        self.taken[place as usize / 64] & (1 << (place % 64)) != 0
    }

    /// Takes the seat at `place`, if it is free.
    ///
    /// # Panics
    /// When `place` is outside the hall.
    pub fn take(&mut self, place: u32) {
        if !self.is_taken(place) {
            self.taken[place as usize / 64] |= 1 << (place % 64);
            self.free -= 1;
        }
    }

    /// Frees the seat at `place`, if it is taken.
    ///
    /// # Panics
    /// When `place` is outside the hall.
    pub fn give_back(&mut self, place: u32) {
        if self.is_taken(place) {
            self.taken[place as usize / 64] &= !(1 << (place % 64));
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
}
