//! A crowd's outcomes, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_core::{Order, OrderStatus, Reason};
use hdrhistogram::Histogram;

/// Longest latency told apart; longer ones count as this long.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Most messages kept of what went wrong.
const NOTES_MAX: usize = 10;

/// The outcome of a crowd's orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Orders by the state their buyers last heard of.
    pub orders: BTreeMap<OrderStatus, u64>,
    /// Rejected orders by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// Buyers turned away at the gate, without a record.
    pub turned_away: u64,
}

impl Outcome {
    /// Orders in this state.
    #[must_use]
    pub fn count(&self, status: OrderStatus) -> u64 {
        self.orders.get(&status).copied().unwrap_or_default()
    }

    /// Orders decided, whatever became of them.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.orders.values().sum()
    }

    /// Buyers who were answered.
    #[must_use]
    pub fn buyers(&self) -> u64 {
        self.decisions() + self.turned_away
    }

    /// Adds the last answer of one more buyer.
    pub(crate) fn add(&mut self, answer: Option<&Order>) {
        let Some(order) = answer else {
            self.turned_away += 1;
            return;
        };
        *self.orders.entry(order.status()).or_default() += 1;
        if let Some(reason) = order.reason() {
            *self.rejected.entry(reason).or_default() += 1;
        }
    }
}

/// The counts of a crowd. Latencies are in nanoseconds, one for each call of
/// [`place`](flux_core::Flux::place).
#[derive(Debug, Clone)]
pub struct Tally {
    /// The outcome of the orders.
    pub outcome: Outcome,
    /// Orders sent a second time.
    pub repeats: u64,
    /// Orders among those whose two answers are not one decision.
    pub contradicted: u64,
    /// Times to a decision.
    pub decided: Histogram<u64>,
    /// Times to being turned away.
    pub gate: Histogram<u64>,
    /// From the first buyer to the last answer.
    pub took: Duration,
    /// From the first buyer to the last decision.
    pub decided_within: Duration,
    /// The number of things that went wrong.
    pub faults: u64,
    /// The first of what went wrong.
    pub notes: Vec<String>,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_max(LATENCY_MAX.as_nanos() as u64, 3)
                .expect("three digits up to a minute are within what a histogram can hold")
        };
        Self {
            outcome: Outcome::default(),
            repeats: 0,
            contradicted: 0,
            decided: histogram(),
            gate: histogram(),
            took: Duration::ZERO,
            decided_within: Duration::ZERO,
            faults: 0,
            notes: Vec::new(),
        }
    }
}

impl Tally {
    /// Notes one call and how long it took; `at` is the time since the start.
    pub(crate) fn call(&mut self, answer: Option<&Order>, latency: Duration, at: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        match answer {
            Some(_) => {
                self.decided.saturating_record(nanos);
                self.decided_within = self.decided_within.max(at);
            }
            None => self.gate.saturating_record(nanos),
        }
    }

    pub(crate) fn fault(&mut self, note: String) {
        self.faults += 1;
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}
