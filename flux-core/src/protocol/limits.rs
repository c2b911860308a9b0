//! The numbers of the protocol: each type's constructor checks its range, so
//! a value that exists is a value that is allowed.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Most lines one order may have.
pub const LINES_MAX: usize = 10;
/// Most seats one line may name.
pub const SEATS_PER_LINE_MAX: usize = 100;
/// Most seats one hall may have.
pub const SEATS_PER_HALL_MAX: usize = 100_000;

/// Most pairs of an order's metadata.
pub const METADATA_PAIRS_MAX: usize = 16;
/// Most bytes of a name in an order's metadata.
pub const METADATA_NAME_BYTES_MAX: usize = 64;
/// Most bytes of all names and texts of an order's metadata.
pub const METADATA_BYTES_MAX: usize = 2 * 1024;

/// Input that broke a rule; the message names the field and the rule.
///
/// ```
/// use flux_core::{InvalidInput, Quantity};
///
/// let error: InvalidInput = Quantity::new(0).expect_err("nothing");
/// assert_eq!(error.field(), "quantity");
/// assert_eq!(error.to_string(), "quantity: must be 1 to 1000, was 0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct InvalidInput {
    field: Cow<'static, str>,
    rule: String,
}

impl InvalidInput {
    /// Says that `field` broke `rule`; `rule` completes the sentence
    /// "`field` …", for example "must be 1 to 1000, was 0".
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field: Cow::Borrowed(field), rule: rule.into() }
    }

    /// The field at fault, as the HTTP contract spells it.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident($int:ty), $field:literal, $min:literal..=$max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($int);

        impl $name {
            /// The smallest allowed value.
            pub const MIN: Self = Self($min);
            /// The largest allowed value.
            pub const MAX: Self = Self($max);

            /// Checks the range.
            ///
            /// # Errors
            /// [`InvalidInput`] naming the field when `value` is outside
            /// [`MIN`](Self::MIN)`..=`[`MAX`](Self::MAX).
            pub fn new(value: u64) -> Result<Self, InvalidInput> {
                if !($min..=$max).contains(&value) {
                    return Err(InvalidInput::new(
                        $field,
                        format!("must be {} to {}, was {value}", $min, $max),
                    ));
                }
                Ok(Self(value as $int))
            }

            /// The number itself.
            #[must_use]
            pub fn get(self) -> $int {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = InvalidInput;
            fn try_from(value: u64) -> Result<Self, InvalidInput> {
                Self::new(value)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                u64::from(value.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

ranged! {
    /// Units of a pool that one line asks for: 1 to 1000.
    ///
    /// ```
    /// use flux_core::Quantity;
    ///
    /// assert_eq!(Quantity::new(2)?.get(), 2);
    /// assert!(Quantity::new(1_001).is_err());
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    Quantity(u32), "quantity", 1..=1000
}
ranged! {
    /// Units a pool has in all: 0 to 10,000,000.
    ///
    /// ```
    /// use flux_core::Capacity;
    ///
    /// assert_eq!(Capacity::MAX.get(), 10_000_000);
    /// assert!(Capacity::new(10_000_001).is_err());
    /// ```
    Capacity(u32), "capacity", 0..=10_000_000
}
ranged! {
    /// Seconds a hold lasts unpaid: 1 to 86,400 (a day).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use flux_core::HoldTime;
    ///
    /// assert_eq!(HoldTime::new(120)?.as_duration(), Duration::from_secs(120));
    /// assert_eq!(HoldTime::default(), HoldTime::DEFAULT);
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    HoldTime(u32), "hold_seconds", 1..=86_400
}
ranged! {
    /// Units of one item that one buyer may hold or own at once: 1 to 1000.
    ///
    /// ```
    /// use flux_core::BuyerCap;
    ///
    /// assert_eq!(BuyerCap::new(4)?.get(), 4);
    /// assert!(BuyerCap::new(0).is_err());
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    BuyerCap(u32), "max_per_buyer", 1..=1000
}

impl HoldTime {
    /// Ten minutes, unless the item says otherwise.
    pub const DEFAULT: Self = Self(600);

    /// The same time as a [`Duration`].
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl Default for HoldTime {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A moment: milliseconds since the Unix epoch, UTC. As text it is RFC 3339.
///
/// ```
/// use flux_core::Timestamp;
///
/// let opens: Timestamp = "2025-11-23T12:00:00+02:00".parse()?;
/// assert_eq!(opens.to_string(), "2025-11-23T10:00:00.000Z");
/// assert!(opens < Timestamp::now());
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The present, by the system's clock. What a clock of an engine tells is
    /// [`Clock::now`](crate::clock::Clock::now).
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// A moment from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, after: Duration) -> Self {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        SystemTime::UNIX_EPOCH + Duration::from_millis(time.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_is_past_the_day_this_was_written() {
        let (written, now) = (Timestamp::from_millis(1_700_000_000_000), Timestamp::now());
        assert!(written < now && now < written + Duration::from_secs(100 * 365 * 86_400));
    }

    #[test]
    fn every_range_holds_at_both_ends() {
        assert!(Quantity::new(0).is_err() && Quantity::new(1).is_ok());
        assert!(Quantity::new(1000).is_ok() && Quantity::new(1001).is_err());
        assert!(Capacity::new(0).is_ok() && Capacity::new(10_000_000).is_ok());
        assert!(Capacity::new(10_000_001).is_err());
        assert!(HoldTime::new(0).is_err() && HoldTime::new(1).is_ok());
        assert!(HoldTime::new(86_400).is_ok() && HoldTime::new(86_401).is_err());
        assert!(BuyerCap::new(0).is_err() && BuyerCap::new(1).is_ok());
        assert!(BuyerCap::new(1000).is_ok() && BuyerCap::new(1001).is_err());
        assert!(Quantity::new(u64::MAX).is_err());
    }

    #[test]
    fn an_error_names_the_field_and_the_rule() {
        let error = Quantity::new(0).expect_err("zero is below the range");
        assert_eq!(error.field(), "quantity");
        assert_eq!(error.to_string(), "quantity: must be 1 to 1000, was 0");
    }

    #[test]
    fn moments_end_where_their_numbers_do() {
        let at = Timestamp::from_millis;
        assert_eq!(at(5) + Duration::from_millis(2), at(7));
        assert_eq!(at(5) + Duration::MAX, at(u64::MAX));
        assert_eq!(at(7).since(at(5)), Duration::from_millis(2));
        assert_eq!(at(5).since(at(7)), Duration::ZERO);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Timestamp::from(before), at(0));
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        assert_eq!(Timestamp::from(moment), at(1_790_000_000_123));
        assert_eq!(SystemTime::from(at(1_790_000_000_123)), moment);
    }
}
