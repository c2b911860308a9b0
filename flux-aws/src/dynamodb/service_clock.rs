//! DynamoDB's clock, as the `Date` of its answers tells it, by which a worker
//! notices that its own is off.
//!
//! A `Date` is a whole second, cut off, and was written at some moment of the
//! call: it is right within half a second and half of the call's time. Of the
//! last minute's answers the quickest counts (Mills: the clock filter of NTP,
//! RFC 5905, section 10); an answer that contradicts it takes its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use flux_core::Timestamp;
use flux_core::seams::ServiceTime;
use tokio::time::Instant;

/// Half of what a `Date` cuts off, at most.
const HALF_A_SECOND: Duration = Duration::from_millis(500);
/// The time for which a quick answer is preferred to later ones.
const PREFERRED_FOR: Duration = Duration::from_secs(60);

/// Reads the answers' dates; clones share what they read.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceClock(Arc<Mutex<Option<Told>>>);

/// The service's time at a moment of ours.
#[derive(Debug, Clone, Copy)]
struct Told {
    time: ServiceTime,
    at: Instant,
}

impl Told {
    fn time_at(&self, now: Instant) -> Timestamp {
        self.time.at + now.saturating_duration_since(self.at)
    }

    fn contradicts(&self, earlier: &Self) -> bool {
        let apart = self.time.at.as_millis().abs_diff(earlier.time_at(self.at).as_millis());
        Duration::from_millis(apart) > self.time.within + earlier.time.within
    }
}

impl ServiceClock {
    /// The present time there.
    pub(super) fn time(&self) -> Option<ServiceTime> {
        let told = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(ServiceTime::new(told.time_at(Instant::now()), told.time.within))
    }

    /// Notes an answer of this date to a call that was made from `sent` to now.
    fn note(&self, date: &str, sent: Instant) {
        let Some(date) = DateTime::from_str(date, Format::HttpDate).ok() else { return };
        let Ok(date) = u64::try_from(date.secs()) else { return };
        let now = Instant::now();
        let half = now.saturating_duration_since(sent) / 2;
        let at = Timestamp::from_millis(date.saturating_mul(1_000)) + HALF_A_SECOND + half;
        let new = Told { time: ServiceTime::new(at, HALF_A_SECOND + half), at: now };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = told.is_some_and(|told| {
            told.time.within < new.time.within
                && now.saturating_duration_since(told.at) < PREFERRED_FOR
                && !new.contradicts(&told)
        });
        if !stays {
            *told = Some(new);
        }
    }
}

/// The moment at which a call is made.
#[derive(Debug)]
struct Sent(Instant);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        call: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        call.interceptor_state().store_put(Sent(Instant::now()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        call: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(date), Some(sent)) =
            (context.response().headers().get("date"), call.load::<Sent>())
        {
            self.note(date, sent.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// `Fri, 24 Nov 2023 17:00:00 GMT`.
    const FIVE: u64 = 1_700_845_200_000;

    fn date(millis: u64) -> String {
        let date = DateTime::from_millis(i64::try_from(millis).expect("a date"));
        date.fmt(Format::HttpDate).expect("a date")
    }

    /// Has an answer come of this date to a call that took so many milliseconds.
    async fn answer(clock: &ServiceClock, date: &str, took: u64) {
        let sent = Instant::now();
        advance(Duration::from_millis(took)).await;
        clock.note(date, sent);
    }

    fn told(clock: &ServiceClock) -> (u64, u128) {
        let time = clock.time().expect("an answer came");
        (time.at.as_millis(), time.within.as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_within_half_a_second_and_half_of_the_way() {
        let clock = ServiceClock::default();
        assert_eq!(clock.time(), None);
        for junk in ["", "now", "Fri, 24 Nov", "Fri, 24 Nov 1923 17:00:00 GMT"] {
            answer(&clock, junk, 0).await;
            assert_eq!(clock.time(), None, "{junk}");
        }
        answer(&clock, "Fri, 24 Nov 2023 17:00:00 GMT", 40).await;
        assert_eq!(told(&clock), (FIVE + 520, 520));
        advance(Duration::from_secs(3)).await;
        assert_eq!(told(&clock), (FIVE + 3_520, 520));
    }

    #[tokio::test(start_paused = true)]
    async fn the_quickest_answer_of_a_minute_counts() {
        let clock = ServiceClock::default();
        answer(&clock, &date(FIVE), 40).await;
        answer(&clock, &date(FIVE), 600).await;
        assert_eq!(told(&clock), (FIVE + 1_120, 520), "the first, and what passed");
        advance(Duration::from_secs(60)).await;
        answer(&clock, &date(FIVE + 61_000), 600).await;
        assert_eq!(told(&clock), (FIVE + 61_800, 800), "the first is old");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_contradicts_takes_its_place() {
        let clock = ServiceClock::default();
        answer(&clock, &date(FIVE), 40).await;
        // The machine slept, and its monotonic clock stood still.
        answer(&clock, &date(FIVE + 3_600_000), 600).await;
        assert_eq!(told(&clock), (FIVE + 3_600_800, 800));
    }
}
