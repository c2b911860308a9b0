//! What the clients asked and were told, and when.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::OrderState;
use flux_core::conformance::history::{Answer, Call, Told};
use tokio::time::Instant;

/// Silence to the end, unless an answer comes.
const NEVER: Duration = Duration::MAX;

/// The notes of one round. A call is noted before it is sent, so whatever
/// may have been done is in them at any moment.
#[derive(Debug)]
pub(super) struct Notes {
    began: Instant,
    told: Mutex<Vec<Told>>,
    complaints: Mutex<Vec<String>>,
}

/// A call that was sent.
#[derive(Debug)]
pub(super) struct Sent(usize);

impl Notes {
    /// Notes whose moments are counted from `began`.
    pub(super) fn since(began: Instant) -> Self {
        Self { began, told: Mutex::default(), complaints: Mutex::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn ask(&self, call: Call) -> Sent {
        let mut told = lock(&self.told);
        told.push(Told::new(self.now(), NEVER, call, Answer::Nothing));
        Sent(told.len() - 1)
    }

    pub(super) fn hear(&self, sent: &Sent, answer: Answer) {
        let mut told = lock(&self.told);
        told[sent.0].answered_at = self.now();
        told[sent.0].answer = answer;
    }

    /// Notes an answer that the contract does not know.
    pub(super) fn complain(&self, complaint: String) {
        lock(&self.complaints).push(complaint);
    }

    pub(super) fn told(&self) -> Vec<Told> {
        lock(&self.told).clone()
    }

    /// Number of answers that told anything but that an order is queued.
    pub(super) fn decisions(&self) -> usize {
        let is_decision = |told: &&Told| match &told.answer {
            Answer::Shown(order) => order.state != OrderState::Queued,
            answer => *answer != Answer::Nothing,
        };
        lock(&self.told).iter().filter(is_decision).count()
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No change in here panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
