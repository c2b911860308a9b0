//! The facts that a store knows about time, beside those of the machine's clock.

use std::time::Duration;

use crate::clock::ClockReference;
use crate::protocol::Timestamp;

/// The clock that made the holds of a store, as far as the store knows.
///
/// ```
/// use flux_core::seams::KeptClock;
///
/// assert_eq!(KeptClock::default(), KeptClock::new(None, false));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptClock {
    /// Its position when it was last kept.
    pub reference: Option<ClockReference>,
    /// Whether there are holds of an earlier run, which a clock that nothing is
    /// known of might end too early.
    pub has_holds: bool,
}

impl KeptClock {
    /// A clock at `reference`, of a store that has holds of an earlier run or not.
    #[must_use]
    pub fn new(reference: Option<ClockReference>, has_holds: bool) -> Self {
        Self { reference, has_holds }
    }
}

/// The time by the clock of a service.
///
/// ```
/// use std::time::Duration;
/// use flux_core::Timestamp;
/// use flux_core::seams::ServiceTime;
///
/// let at = Timestamp::from_millis(1_790_000_000_500);
/// let time = ServiceTime::new(at, Duration::from_millis(520));
/// assert_eq!((time.at, time.within.as_millis()), (at, 520));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceTime {
    /// The moment.
    pub at: Timestamp,
    /// The most that it is wrong by, as far as the way from the service tells.
    pub within: Duration,
}

impl ServiceTime {
    /// The moment `at`, give or take `within`.
    #[must_use]
    pub fn new(at: Timestamp, within: Duration) -> Self {
        Self { at, within }
    }
}
