//! The source of time: a seam, so that tests run on tokio's paused clock, or on
//! one that they step.
//!
//! Holds end by the wall clock, since people are told the time, and wall clocks
//! are stepped: by an operator, by a time service, by the hour that a machine
//! slept. So an [engine](crate::Flux) holds [`Clock::now`] against
//! [`Clock::monotonic`]. A step of more than a second is logged and counted, and
//! the engine goes on by the old time, so that nothing expires, opens or closes
//! by the step, until the new time has stood for ten seconds. Sleep is such a
//! step where the monotonic clock stands still in it, as on Linux and macOS.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use crate::protocol::Timestamp;

/// Tells the time.
///
/// ```
/// use flux_core::clock::{Clock, SystemClock};
///
/// let (since, began) = (SystemClock.monotonic(), SystemClock.now());
/// assert!(SystemClock.monotonic() >= since);
/// println!("it is {began}");
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present time, as people tell it.
    fn now(&self) -> Timestamp;

    /// The present time of a clock that nobody sets; tokio's, unless told
    /// otherwise, so that a paused one moves both.
    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The time since the machine's boot, by which a store that is opened again
    /// finds out whether the clock was stepped meanwhile. `None`, the default,
    /// where that is not known: then holds from before a restart end ten seconds
    /// after it at the earliest.
    fn since_boot(&self) -> Option<SinceBoot> {
        None
    }
}

/// The time since a boot.
///
/// ```
/// use std::time::Duration;
/// use flux_core::clock::SinceBoot;
///
/// let up = SinceBoot::new(7, Duration::from_secs(3600));
/// assert_eq!((up.boot, up.elapsed.as_secs()), (7, 3600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinceBoot {
    /// A number that no other boot of any machine has.
    pub boot: u64,
    /// The time since then, sleep included.
    pub elapsed: Duration,
}

impl SinceBoot {
    /// `elapsed` since the boot of this number.
    #[must_use]
    pub fn new(boot: u64, elapsed: Duration) -> Self {
        Self { boot, elapsed }
    }
}

/// The position of a clock, for a comparison after a restart.
///
/// ```
/// use flux_core::Timestamp;
/// use flux_core::clock::ClockReference;
///
/// let reference = ClockReference::new(7, Timestamp::from_millis(1_700_000_000_000));
/// assert_eq!(reference.boot, 7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockReference {
    /// The boot, as [`SinceBoot::boot`].
    pub boot: u64,
    /// The moment of that boot by the clock, which a step moves.
    pub booted_at: Timestamp,
}

impl ClockReference {
    /// A clock by which the boot was at this moment.
    #[must_use]
    pub fn new(boot: u64, booted_at: Timestamp) -> Self {
        Self { boot, booted_at }
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    /// The machine's as well, whatever becomes of tokio's.
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Known on Linux.
    fn since_boot(&self) -> Option<SinceBoot> {
        static BOOT: LazyLock<Option<u64>> = LazyLock::new(boot_id);
        Some(SinceBoot { boot: (*BOOT)?, elapsed: uptime()? })
    }
}

/// The lower half of the boot's UUID, all but two bits of which are random.
fn boot_id() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().parse::<uuid::Uuid>().ok()?.as_u64_pair().1)
}

/// The time since the boot, sleep included, to a hundredth of a second.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A clock that starts where it is told and runs with tokio's, so that
/// `tokio::time::pause` and `advance` move it.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Timestamp,
    since: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `start` at this call.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, since: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + self.since.elapsed()
    }
}
