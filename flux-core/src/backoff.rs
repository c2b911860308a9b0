//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A random time up to `base` doubled with each try ("full jitter", as in
/// Brooker, "Exponential Backoff And Jitter", 2015), at most half a second.
pub(crate) fn jittered(tries: u32, base: Duration) -> Duration {
    let longest = base.saturating_mul(1 << tries.min(16)).min(Duration::from_millis(500));
    longest.mul_f64(random())
}

/// A random time between a half of `every` and the whole, so that those who do
/// the same thing don't do it all at once.
pub(crate) fn spread(every: Duration) -> Duration {
    every / 2 + (every / 2).mul_f64(random())
}

/// From 0 to 1, that not included.
fn random() -> f64 {
    (RandomState::new().hash_one(()) >> 11) as f64 / (1u64 << 53) as f64
}
