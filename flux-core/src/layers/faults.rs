//! Breaks calls on purpose, the same way for the same seed, to see that the
//! guarantees hold when services don't.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bon::bon;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::layered::Hooks;
use super::{Call, Operation};
use crate::protocol::{Commit, CommitOutcome, InvalidInput};
use crate::random::Random;
use crate::seams::{Delivery, SeamError};

/// A way for a call to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The call is not made, and fails with [`SeamError::Unavailable`].
    ErrorBefore,
    /// The call is not made, and fails with [`SeamError::Unknown`].
    NoAnswer,
    /// The call is made, and fails with [`SeamError::Unknown`].
    ErrorAfter,
    /// A short sleep, before or after the call.
    Delay,
    /// A sleep longer than leases and visibility, before the call.
    Freeze,
    /// The call is made twice, as by a client library that repeats on its own;
    /// the answer is the first or, when both went well, the second.
    Duplicate,
    /// `receive`: the deliveries come in another order.
    Reorder,
    /// `receive`: one of the deliveries is listed twice.
    Redeliver,
    /// `publish`: the outcomes are silently dropped.
    Lost,
    /// `commit`: made, but of some of the commits nobody knows what became:
    /// [`CommitOutcome::Unknown`].
    Blurred,
    /// `commit`: answered with [`SeamError::Unknown`] now, and made just ahead
    /// of the next commit, which is then never `Late` itself: a write that was
    /// long on its way.
    Late,
}

impl Fault {
    /// Every fault.
    pub const ALL: &[Self] = &[
        Self::ErrorBefore,
        Self::NoAnswer,
        Self::ErrorAfter,
        Self::Delay,
        Self::Freeze,
        Self::Duplicate,
        Self::Reorder,
        Self::Redeliver,
        Self::Lost,
        Self::Blurred,
        Self::Late,
    ];
    const COUNT: usize = Self::ALL.len();

    /// Whether `operation` can go wrong this way.
    #[must_use]
    pub fn fits(self, operation: Operation) -> bool {
        match self {
            Self::ErrorBefore
            | Self::NoAnswer
            | Self::ErrorAfter
            | Self::Delay
            | Self::Freeze
            | Self::Duplicate => true,
            Self::Reorder | Self::Redeliver => operation == Operation::Receive,
            Self::Lost => operation == Operation::Publish,
            Self::Blurred | Self::Late => operation == Operation::Commit,
        }
    }
}

/// Breaks calls by chance, at a rate for each [`Fault`], or by a script. It goes
/// around a seam as a layer does, by [`Layered::new`](super::Layered::new) or
/// [`Backend::layered`](crate::Backend::layered). Clones share their state.
///
/// Whether the nth call of an operation goes wrong, and how, follows from the
/// seed, the operation, the fault and n alone, so two runs that make the same
/// calls meet the same faults.
///
/// ```
/// use flux_core::layers::{Fault, Faults, Operation};
///
/// let faults = Faults::builder().seed(7).error_before(0.05).duplicate(0.1).build()?;
/// let script = Faults::script([(Operation::Commit, 2, Fault::ErrorAfter)])?;
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    rates: [f64; Fault::COUNT],
    script: Vec<(Operation, u64, Fault)>,
    delay_max: Duration,
    freeze: Duration,
    considered: [[AtomicU64; Fault::COUNT]; Operation::COUNT],
    injected: [AtomicU64; Fault::COUNT],
    stopped: AtomicBool,
    stop: Notify,
    late: Mutex<Vec<Commit>>,
}

#[bon]
impl Faults {
    /// Sets the rates, each from 0 (never, the default) to 1 (always).
    ///
    /// # Errors
    /// [`InvalidInput`] naming a rate out of range, or `script` when a fault
    /// does not [fit](Fault::fits) its operation.
    #[builder]
    pub fn new(
        /// Seeds the choice of the calls that go wrong.
        seed: u64,
        /// The rate of [`Fault::ErrorBefore`].
        #[builder(default)]
        error_before: f64,
        /// The rate of [`Fault::NoAnswer`].
        #[builder(default)]
        no_answer: f64,
        /// The rate of [`Fault::ErrorAfter`].
        #[builder(default)]
        error_after: f64,
        /// The rate of [`Fault::Delay`].
        #[builder(default)]
        delay: f64,
        /// The rate of [`Fault::Freeze`].
        #[builder(default)]
        freeze: f64,
        /// The rate of [`Fault::Duplicate`].
        #[builder(default)]
        duplicate: f64,
        /// The rate of [`Fault::Reorder`].
        #[builder(default)]
        reorder: f64,
        /// The rate of [`Fault::Redeliver`].
        #[builder(default)]
        redeliver: f64,
        /// The rate of [`Fault::Lost`].
        #[builder(default)]
        lost: f64,
        /// The rate of [`Fault::Blurred`].
        #[builder(default)]
        blurred: f64,
        /// The rate of [`Fault::Late`].
        #[builder(default)]
        late: f64,
        /// The longest [`Fault::Delay`].
        #[builder(default = Duration::from_millis(50))]
        delay_max: Duration,
        /// The length of a [`Fault::Freeze`]; should outlast every lease.
        #[builder(default = Duration::from_secs(60))]
        freeze_for: Duration,
        /// Faults for certain calls: the nth of an operation, from 1.
        #[builder(default, with = |faults: impl IntoIterator<Item = (Operation, u64, Fault)>| {
            faults.into_iter().collect()
        })]
        script: Vec<(Operation, u64, Fault)>,
    ) -> Result<Self, InvalidInput> {
        let mut rates = [0.0; Fault::COUNT];
        for (fault, field, rate) in [
            (Fault::ErrorBefore, "error_before", error_before),
            (Fault::NoAnswer, "no_answer", no_answer),
            (Fault::ErrorAfter, "error_after", error_after),
            (Fault::Delay, "delay", delay),
            (Fault::Freeze, "freeze", freeze),
            (Fault::Duplicate, "duplicate", duplicate),
            (Fault::Reorder, "reorder", reorder),
            (Fault::Redeliver, "redeliver", redeliver),
            (Fault::Lost, "lost", lost),
            (Fault::Blurred, "blurred", blurred),
            (Fault::Late, "late", late),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(InvalidInput::new(field, format!("must be 0 to 1, was {rate}")));
            }
            rates[fault as usize] = rate;
        }
        for (operation, nth, fault) in &script {
            if *nth == 0 || !fault.fits(*operation) {
                let rule = format!("can't do {fault:?} to call {nth} of {operation}");
                return Err(InvalidInput::new("script", rule));
            }
        }
        let shared = Shared {
            seed,
            rates,
            script,
            delay_max,
            freeze: freeze_for,
            considered: std::array::from_fn(|_| Default::default()),
            injected: Default::default(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
            late: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Faults {
    /// The rates of a bad day: each fault now and then.
    #[must_use]
    pub fn mild(seed: u64) -> Self {
        Self::builder()
            .seed(seed)
            .error_before(0.02)
            .no_answer(0.01)
            .error_after(0.01)
            .delay(0.05)
            .duplicate(0.02)
            .reorder(0.1)
            .redeliver(0.05)
            .lost(0.05)
            .blurred(0.01)
            .late(0.01)
            .build()
            .expect("the rates are in range")
    }

    /// The rates of a day no service would get away with: about every fourth call
    /// fails, and many more are slow, doubled or out of order.
    #[must_use]
    pub fn harsh(seed: u64) -> Self {
        Self::builder()
            .seed(seed)
            .error_before(0.1)
            .no_answer(0.05)
            .error_after(0.1)
            .delay(0.2)
            .freeze(0.005)
            .duplicate(0.1)
            .reorder(0.5)
            .redeliver(0.3)
            .lost(0.3)
            .blurred(0.1)
            .late(0.05)
            .build()
            .expect("the rates are in range")
    }

    /// Only these faults: each at the nth call, from 1, of its operation.
    /// (`Reorder`, `Redeliver` and `Blurred` count the answers they could have
    /// changed; a commit that was `Late` counts for no other fault.)
    ///
    /// # Errors
    /// [`InvalidInput`] when a fault does not [fit](Fault::fits) its operation.
    pub fn script(
        faults: impl IntoIterator<Item = (Operation, u64, Fault)>,
    ) -> Result<Self, InvalidInput> {
        Self::builder().seed(0).script(faults).build()
    }

    /// Ends all faults: sleepers wake, late commits are forgotten.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.stop.notify_waiters();
    }

    /// Counts the faults done so far; those that were not done are left out.
    #[must_use]
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        let count = |fault: Fault| self.shared.injected[fault as usize].load(Ordering::Relaxed);
        Fault::ALL.iter().map(|fault| (*fault, count(*fault))).filter(|(_, n)| *n > 0).collect()
    }

    fn stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// Whether `fault` strikes now; the details are to be drawn from the answer.
    fn strikes(&self, operation: Operation, fault: Fault) -> Option<Random> {
        let shared = &self.shared;
        if self.stopped() {
            return None;
        }
        let counter = &shared.considered[operation as usize][fault as usize];
        let nth = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let random = Random::derived(shared.seed, [operation as u64, fault as u64, nth]);
        let strikes = random.unit() < shared.rates[fault as usize]
            || shared.script.contains(&(operation, nth, fault));
        strikes.then_some(random)
    }

    fn count(&self, fault: Fault) {
        self.shared.injected[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    async fn sleep(&self, time: Duration) {
        // Made before the flag is read, so that no stop falls in between.
        let stop = self.shared.stop.notified();
        if !time.is_zero() && !self.stopped() {
            // Either way the sleep is over.
            let _ = timeout(time, stop).await;
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("seed", &self.shared.seed)
            .field("injected", &self.injected())
            .finish_non_exhaustive()
    }
}

impl Hooks for Faults {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let operation = call.operation;
        let service = operation.service().as_str();
        let injected = |error: SeamError, fault| {
            self.count(fault);
            Err(error.with_source(format!("injected: {fault:?}")))
        };
        // All are drawn first, so that the nth draw belongs to the nth call.
        let [freeze, delay, error_before, no_answer, duplicate, error_after] = [
            Fault::Freeze,
            Fault::Delay,
            Fault::ErrorBefore,
            Fault::NoAnswer,
            Fault::Duplicate,
            Fault::ErrorAfter,
        ]
        .map(|fault| self.strikes(operation, fault));

        if freeze.is_some() {
            self.count(Fault::Freeze);
            self.sleep(self.shared.freeze).await;
        }
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        if let Some(random) = delay {
            self.count(Fault::Delay);
            let side = if random.coin() { &mut before } else { &mut after };
            *side = random.duration(self.shared.delay_max);
        }
        self.sleep(before).await;
        if error_before.is_some() {
            return injected(SeamError::unavailable(service), Fault::ErrorBefore);
        }
        if no_answer.is_some() {
            return injected(SeamError::unknown(service), Fault::NoAnswer);
        }
        let mut answer = run().await?;
        if let Some(random) = duplicate {
            self.count(Fault::Duplicate);
            // An error of the second call would deny what the first did.
            if let Ok(second) = run().await
                && random.coin()
            {
                answer = second;
            }
        }
        self.sleep(after).await;
        if error_after.is_some() {
            return injected(SeamError::unknown(service), Fault::ErrorAfter);
        }
        Ok(answer)
    }

    fn received(&self, deliveries: &mut Vec<Delivery>, max: usize) {
        if !deliveries.is_empty()
            && deliveries.len() < max
            && let Some(random) = self.strikes(Operation::Receive, Fault::Redeliver)
        {
            self.count(Fault::Redeliver);
            let again = deliveries[random.below(deliveries.len())].clone();
            deliveries.push(again);
        }
        if deliveries.len() > 1
            && let Some(random) = self.strikes(Operation::Receive, Fault::Reorder)
        {
            self.count(Fault::Reorder);
            for unshuffled in (2..=deliveries.len()).rev() {
                deliveries.swap(unshuffled - 1, random.below(unshuffled));
            }
        }
    }

    fn committed(&self, outcomes: &mut [CommitOutcome]) {
        if !outcomes.is_empty()
            && let Some(random) = self.strikes(Operation::Commit, Fault::Blurred)
        {
            self.count(Fault::Blurred);
            let certain = random.below(outcomes.len());
            for (i, outcome) in outcomes.iter_mut().enumerate() {
                if i == certain || random.coin() {
                    *outcome = CommitOutcome::Unknown;
                }
            }
        }
    }

    fn detain(&self, commits: &[Commit]) -> Result<Vec<Commit>, SeamError> {
        let mut late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        let due = std::mem::take(&mut *late);
        let strikes = self.strikes(Operation::Commit, Fault::Late).is_some();
        if self.stopped() {
            return Ok(Vec::new());
        }
        // One call's commits wait at most.
        if !strikes || !due.is_empty() {
            return Ok(due);
        }
        self.count(Fault::Late);
        late.extend_from_slice(commits);
        let error = SeamError::unknown(Operation::Commit.service().as_str());
        Err(error.with_source("injected: Late"))
    }

    fn loses_outcomes(&self) -> bool {
        let lost = self.strikes(Operation::Publish, Fault::Lost).is_some();
        if lost {
            self.count(Fault::Lost);
        }
        lost
    }
}

#[cfg(test)]
mod tests;
