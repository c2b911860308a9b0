//! Random numbers for jitter and faults: splitmix64 (Steele, Lea and Flood,
//! "Fast splittable pseudorandom number generators", 2014), which is a counter
//! and a hash and so can be shared without a lock. Not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Seeded by the system, differently each time.
    pub(crate) fn from_system() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    /// Derives a stream of its own for each sequence of parts.
    pub(crate) fn derived(seed: u64, parts: [u64; 3]) -> Self {
        Self::seeded(parts.iter().fold(seed, |state, part| mix(state.wrapping_add(GAMMA) ^ part)))
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }

    /// A number of at least 0 and less than 1.
    pub(crate) fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn coin(&self) -> bool {
        self.next() & 1 == 1
    }

    /// A number less than `bound`, which is at least 1.
    pub(crate) fn below(&self, bound: usize) -> usize {
        // The bias matters only for bounds near 2^64.
        (self.next() % bound as u64) as usize
    }

    /// A time from zero to `longest`.
    pub(crate) fn duration(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.unit())
    }
}

pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64_and_evenly_spread() {
        // The reference implementation's first outputs for the seed 0.
        let random = Random::seeded(0);
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);

        let mean = (0..10_000).map(|_| random.unit()).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }

    #[test]
    fn derived_streams_differ_in_every_part() {
        let first = |parts| Random::derived(7, parts).next();
        assert_eq!(first([1, 2, 3]), first([1, 2, 3]));
        for other in [[0, 2, 3], [1, 0, 3], [1, 2, 0], [2, 1, 3]] {
            assert_ne!(first([1, 2, 3]), first(other));
        }
    }
}
