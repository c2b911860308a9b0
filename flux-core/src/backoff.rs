//! Times to wait before a call is tried again, or a chore done again, at random,
//! so that those who failed or started together don't come back together.
//!
//! The ceiling of the wait doubles with each try up to a bound. Of it, "full
//! jitter" takes any part and "equal jitter" at least half: Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015.
//!
//! ```
//! use std::time::Duration;
//! use flux_core::backoff::Backoff;
//!
//! const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
//!
//! # async fn connect() -> Result<(), std::io::Error> { Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let mut failures = 0;
//! while connect().await.is_err() {
//!     failures += 1;
//!     tokio::time::sleep(BACKOFF.full_jitter(failures)).await;
//! }
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

use std::time::Duration;

use crate::random::Random;

/// Exponential back-off between two bounds; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// A ceiling of `first` that doubles with each failure, up to `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The ceiling of the wait after so many failures in a row.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flux_core::backoff::Backoff;
    ///
    /// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
    /// assert_eq!([1, 2, 3, 99].map(|n| backoff.ceiling(n).as_millis()), [100, 200, 300, 300]);
    /// ```
    #[must_use]
    pub fn ceiling(self, failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(self.max)
    }

    /// Any time from zero to the [ceiling](Self::ceiling): for calls of many who
    /// compete for one thing, as it spreads them the most.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flux_core::backoff::Backoff;
    ///
    /// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    /// assert!(backoff.full_jitter(4) <= Duration::from_millis(800));
    /// ```
    #[must_use]
    pub fn full_jitter(self, failures: u32) -> Duration {
        self.full_jitter_by(failures, &Random::from_system())
    }

    /// [Full jitter](Self::full_jitter) by a chance that may be seeded.
    pub(crate) fn full_jitter_by(self, failures: u32, chance: &Random) -> Duration {
        chance.duration(self.ceiling(failures))
    }

    /// A time from half the [ceiling](Self::ceiling) to the whole: for whoever
    /// must leave a sick service alone for a while each time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flux_core::backoff::Backoff;
    ///
    /// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    /// assert!(backoff.equal_jitter(4) >= Duration::from_millis(400));
    /// ```
    #[must_use]
    pub fn equal_jitter(self, failures: u32) -> Duration {
        spread(self.ceiling(failures))
    }
}

/// A time from half of `every` to the whole: for chores that many processes do
/// at one rate, and need not do at one time.
///
/// ```
/// use std::time::Duration;
/// use flux_core::backoff::spread;
///
/// let second = Duration::from_secs(1);
/// assert!((second / 2..=second).contains(&spread(second)));
/// ```
#[must_use]
pub fn spread(every: Duration) -> Duration {
    spread_by(every, &Random::from_system())
}

/// [`spread`] by a chance that may be seeded.
pub(crate) fn spread_by(every: Duration, chance: &Random) -> Duration {
    every / 2 + chance.duration(every / 2)
}
