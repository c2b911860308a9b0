//! Repeats calls that failed, when repeating is safe and can help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bon::bon;
use metrics::counter;
use tokio::time::sleep;
use tracing::debug;

use super::{Call, Layer, Operation, Service};
use crate::backoff::Backoff;
use crate::random::Random;
use crate::seams::SeamError;

/// Repeats a call that failed with an error that [can be retried]. What may
/// have taken effect is repeated only if that [does no harm]; a commit never.
///
/// Three bounds keep a sick service from being finished off by its callers:
///
/// - a number of retries for each call;
/// - a wait before each: [exponential back-off](crate::backoff) with full jitter.
///   A service that is overloaded and says when to come back is given that
///   long on top; if it asks for more than `backoff_max`, the caller hears of
///   it at once;
/// - a budget for each service, drawn on by all calls of all clones: each
///   retry takes one from it, each success puts back a tenth. While most calls
///   fail there are no retries, only first attempts. (The idea is that of
///   `RetryBudget` in Finagle and of `tower::retry::budget`.)
///
/// When an earlier attempt may have taken effect, a later one's "nothing was
/// changed" is handed on as [`SeamError::Unknown`].
///
/// [can be retried]: SeamError::can_retry
/// [does no harm]: Operation::may_repeat
#[derive(Debug, Clone)]
pub struct Retry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    retries: u32,
    backoff: Backoff,
    backoff_max: Duration,
    budgets: [Budget; Service::COUNT],
    jitter: Random,
}

#[bon]
impl Retry {
    /// Sets the bounds; each has a default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flux_core::Backend;
    /// use flux_core::layers::Retry;
    ///
    /// let patient = Retry::builder().retries(5).backoff_max(Duration::from_secs(1)).build();
    /// let backend = Backend::memory().layered(patient);
    /// # let _ = backend;
    /// ```
    #[builder]
    pub fn new(
        /// Retries of one call after its first attempt.
        #[builder(default = 3)]
        retries: u32,
        /// The ceiling of the wait before a call's first retry.
        #[builder(default = Duration::from_millis(25))]
        backoff_first: Duration,
        /// The bound of the ceiling.
        #[builder(default = Duration::from_millis(500))]
        backoff_max: Duration,
        /// Retries of all calls of one service, until successes earn more.
        #[builder(default = 100)]
        budget: u32,
        /// Makes the jitter the same each time; the system's choice without.
        seed: Option<u64>,
    ) -> Self {
        let shared = Shared {
            retries,
            backoff: Backoff::new(backoff_first, backoff_max),
            backoff_max,
            budgets: std::array::from_fn(|_| Budget::of(budget)),
            jitter: seed.map_or_else(Random::from_system, Random::seeded),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Shared {
    /// The wait before the next try; `None` to give up.
    fn wait(&self, operation: Operation, retried: u32, error: &SeamError) -> Option<Duration> {
        let safe = !error.may_have_applied() || operation.may_repeat();
        if retried >= self.retries || !error.can_retry() || !safe {
            return None;
        }
        let asked = match error {
            SeamError::Overloaded { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        };
        if asked > self.backoff_max || !self.budget(operation).withdraw() {
            return None;
        }
        Some(asked + self.jitter.duration(self.backoff.ceiling(retried + 1)))
    }

    fn budget(&self, operation: Operation) -> &Budget {
        &self.budgets[operation.service() as usize]
    }
}

impl Layer for Retry {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let operation = call.operation;
        let mut in_doubt = false;
        let mut retried = 0;
        loop {
            let error = match run().await {
                Ok(answer) => {
                    self.shared.budget(operation).deposit();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            in_doubt |= error.may_have_applied() && !operation.is_read();
            let Some(wait) = self.shared.wait(operation, retried, &error) else {
                return Err(if in_doubt { doubtful(operation, error) } else { error });
            };
            debug!(%operation, retried, ?wait, %error, "will try again");
            counter!("flux_seam_retries_total",
                "service" => operation.service().as_str(), "operation" => operation.as_str())
            .increment(1);
            sleep(wait).await;
            retried += 1;
        }
    }
}

/// The error to hand on when an earlier attempt may have taken effect.
fn doubtful(operation: Operation, error: SeamError) -> SeamError {
    match error {
        SeamError::Unavailable { .. }
        | SeamError::Overloaded { .. }
        | SeamError::Stopped { .. } => {
            SeamError::unknown(operation.service().as_str()).with_source(error)
        }
        SeamError::Unknown { .. }
        | SeamError::Broken { .. }
        | SeamError::UnknownCursor { .. }
        | SeamError::ChangesGone { .. }
        | SeamError::TooManyConsumers { .. } => error,
    }
}

const SUCCESSES_PER_RETRY: u32 = 10;

/// Retries left, counted in the successes that earn them.
#[derive(Debug)]
struct Budget {
    left: AtomicU32,
    full: u32,
}

impl Budget {
    fn of(retries: u32) -> Self {
        let full = retries.saturating_mul(SUCCESSES_PER_RETRY);
        Self { left: AtomicU32::new(full), full }
    }

    fn deposit(&self) {
        self.change(|left| (left < self.full).then(|| left + 1));
    }

    fn withdraw(&self) -> bool {
        self.change(|left| left.checked_sub(SUCCESSES_PER_RETRY))
    }

    fn change(&self, to: impl FnMut(u32) -> Option<u32>) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::layers::testing::{Fake, backend};
    use crate::seams::Lease;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_millis(300);

    fn retry() -> Retry {
        Retry::builder().retries(3).backoff_first(FIRST).backoff_max(MAX).seed(7).build()
    }

    fn away() -> SeamError {
        SeamError::unavailable("store")
    }

    fn unknown() -> SeamError {
        SeamError::unknown("store")
    }

    fn full(retry_after: Duration) -> SeamError {
        SeamError::Overloaded { service: "queue", retry_after }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_repeated_so_often_and_no_more() {
        let fake = Fake::failing([away(), away(), away()]);
        assert!(backend(&fake).layered(retry()).store.claim(&[]).await.is_ok());
        assert_eq!(fake.calls(), [Operation::Claim; 4]);

        let fake = Fake::failing([away(), away(), away(), away()]);
        let error = backend(&fake).layered(retry()).store.claim(&[]).await.expect_err("the 4th");
        assert!(matches!(error, SeamError::Unavailable { .. }), "{error:?}");
        assert_eq!(fake.calls(), [Operation::Claim; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_broken_is_left_alone() {
        let fake = Fake::failing([SeamError::broken("store", "disk full")]);
        assert!(backend(&fake).layered(retry()).store.claim(&[]).await.is_err());
        assert_eq!(fake.calls().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_stopped_is_left_alone_and_settles_no_earlier_attempt() {
        let stopped = || SeamError::stopped("store", "disk full");
        let fake = Fake::failing([stopped()]);
        let error = backend(&fake).layered(retry()).store.claim(&[]).await.expect_err("stopped");
        assert!(matches!(error, SeamError::Stopped { .. }), "{error:?}");
        assert_eq!(fake.calls().len(), 1);

        let fake = Fake::failing([unknown(), stopped()]);
        let error = backend(&fake).layered(retry()).store.claim(&[]).await.expect_err("stopped");
        assert!(error.may_have_applied(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_may_have_applied_is_never_repeated() {
        let fake = Fake::failing([unknown()]);
        let error = backend(&fake).layered(retry()).store.commit(&[]).await.expect_err("unknown");
        assert!(error.may_have_applied());
        assert_eq!(fake.calls(), [Operation::Commit]);

        // One that did not apply is, until it might have.
        let fake = Fake::failing([away(), unknown()]);
        let error = backend(&fake).layered(retry()).store.commit(&[]).await.expect_err("unknown");
        assert!(error.may_have_applied());
        assert_eq!(fake.calls(), [Operation::Commit; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_unknown_only_what_does_no_harm_is_repeated() {
        let attempts = async |operation| {
            let fake = Fake::failing([unknown()]);
            let layered = backend(&fake).layered(retry());
            let lease = Lease { keys: vec![], owner: String::new() };
            let spec = crate::protocol::ItemSpec::pool("item", 1).expect("a pool");
            // Whether it went well is told by the number of attempts.
            let _ = match operation {
                Operation::Send => layered.queue.send(&[]).await.err(),
                Operation::Receive => layered.queue.receive(1, FIRST).await.err(),
                Operation::Ack => layered.queue.ack(&[]).await.err(),
                Operation::Redrive => layered.queue.redrive(1).await.err(),
                Operation::Acquire => layered.locks.acquire(&[], FIRST, FIRST).await.err(),
                Operation::AcquireFree => layered.locks.acquire_free(&[], FIRST).await.err(),
                Operation::Release => layered.locks.release(&lease).await.err(),
                Operation::PutItem => layered.store.put_item(&spec).await.err(),
                Operation::Claim => layered.store.claim(&[]).await.err(),
                Operation::Confirm => layered.store.confirm(&[]).await.err(),
                Operation::Publish => layered.bus.publish(Arc::default()).await.err(),
                other => unreachable!("{other}"),
            };
            fake.calls().len()
        };
        for repeated in [
            Operation::Send,
            Operation::Receive,
            Operation::Ack,
            Operation::Release,
            Operation::Claim,
            Operation::Confirm,
            Operation::Publish,
        ] {
            assert_eq!(attempts(repeated).await, 2, "{repeated}");
        }
        for not in
            [Operation::Redrive, Operation::Acquire, Operation::AcquireFree, Operation::PutItem]
        {
            assert_eq!(attempts(not).await, 1, "{not}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_once_raised_stays() {
        let fake = Fake::failing([unknown(), full(MAX * 2)]);
        let error = backend(&fake).layered(retry()).queue.send(&[]).await.expect_err("full");
        assert!(error.may_have_applied(), "the first attempt may have added them: {error:?}");

        // Not of a read, which has nothing to apply.
        let fake = Fake::failing([unknown(), away(), away(), away()]);
        let error = backend(&fake).layered(retry()).store.orders(&[]).await.expect_err("away");
        assert!(!error.may_have_applied(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_jittered_under_a_ceiling_that_doubles() {
        let mut waits: [Vec<Duration>; 3] = Default::default();
        let shared = retry().shared;
        for (retried, waits) in waits.iter_mut().enumerate() {
            waits.extend((0..25).map(|_| {
                shared.wait(Operation::Claim, retried as u32, &away()).expect("in the budget")
            }));
        }
        for (waits, ceiling) in waits.iter().zip([FIRST, FIRST * 2, MAX]) {
            assert!(waits.iter().all(|wait| *wait <= ceiling), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait < ceiling / 4), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait > ceiling * 3 / 4), "{waits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_waits_the_same_and_the_waits_are_kept() {
        let elapsed = async || {
            let fake = Fake::failing([away(), away(), away()]);
            let started = Instant::now();
            assert!(backend(&fake).layered(retry()).store.claim(&[]).await.is_ok());
            started.elapsed()
        };
        let (first, second) = (elapsed().await, elapsed().await);
        assert_eq!(first, second);
        assert!(first > Duration::ZERO && first <= FIRST + FIRST * 2 + MAX, "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_overloaded_service_is_given_the_time_it_asks_for() {
        let fake = Fake::failing([full(MAX)]);
        let started = Instant::now();
        assert!(backend(&fake).layered(retry()).queue.send(&[]).await.is_ok());
        assert!((MAX..=MAX + FIRST * 2).contains(&started.elapsed()));

        let fake = Fake::failing([full(MAX * 2)]);
        let started = Instant::now();
        let error = backend(&fake).layered(retry()).queue.send(&[]).await.expect_err("full");
        assert!(matches!(error, SeamError::Overloaded { .. }), "{error:?}");
        assert_eq!((fake.calls().len(), started.elapsed()), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_shared_by_all_calls_of_a_service_and_earned_by_successes() {
        let retry = Retry::builder().retries(3).budget(5).seed(7).build();
        let fake = Fake::failing((0..14).map(|_| away()));
        let store = backend(&fake).layered(retry.clone()).store;
        // 1 + 3, 1 + 2, and then first attempts alone.
        for attempts in [4, 3, 1, 1] {
            let before = fake.calls().len();
            assert!(store.claim(&[]).await.is_err());
            assert_eq!(fake.calls().len() - before, attempts);
        }

        // Another service has its own, through whichever clone.
        let other = Fake::failing([away()]);
        assert!(backend(&other).layered(retry.clone()).queue.ack(&[]).await.is_ok());
        assert_eq!(other.calls().len(), 2);

        let good = Fake::answering([]);
        let good = backend(&good).layered(retry.clone()).store;
        for _ in 0..SUCCESSES_PER_RETRY {
            assert!(good.claim(&[]).await.is_ok());
        }
        for attempts in [2, 1] {
            let before = fake.calls().len();
            assert!(store.claim(&[]).await.is_err());
            assert_eq!(fake.calls().len() - before, attempts);
        }
    }

    #[test]
    fn a_budget_is_never_fuller_than_full() {
        let budget = Budget::of(1);
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }
}
