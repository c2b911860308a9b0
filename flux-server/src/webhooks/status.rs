//! What a webhook tells of itself: figures, and how it stands.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flux_core::Timestamp;
use metrics::{Counter, Gauge, Histogram};
use tracing::{debug, info, warn};

/// The figures of one webhook, made once.
#[derive(Debug)]
pub(super) struct Status {
    name: String,
    delivered: Counter,
    failed: Counter,
    given_up: Counter,
    forgotten: Counter,
    changes_gone: Counter,
    seconds: Histogram,
    waiting: Gauge,
    in_flight: Gauge,
    kept: Gauge,
    oldest: Gauge,
    now: Mutex<Standing>,
}

/// How a webhook stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Messages that were read and not taken yet.
    pub(crate) waiting: usize,
    /// Messages that were given up and are kept.
    pub(crate) given_up: usize,
    /// The time of the oldest change that was read and not taken yet.
    pub(crate) oldest: Option<Timestamp>,
    /// What came of the last attempt, if it failed.
    pub(crate) error: Option<String>,
    is_away: bool,
}

impl Status {
    pub(super) fn new(name: &str) -> Self {
        let label = [("webhook", name.to_owned())];
        let counter = |name: &'static str| {
            let counter = metrics::counter!(name, &label);
            counter.increment(0);
            counter
        };
        Self {
            name: name.to_owned(),
            delivered: counter("flux_webhook_delivered_total"),
            failed: counter("flux_webhook_failed_attempts_total"),
            given_up: counter("flux_webhook_given_up_total"),
            forgotten: counter("flux_webhook_forgotten_total"),
            changes_gone: counter("flux_webhook_changes_gone_total"),
            seconds: metrics::histogram!("flux_webhook_attempt_seconds", &label),
            waiting: metrics::gauge!("flux_webhook_waiting", &label),
            in_flight: metrics::gauge!("flux_webhook_in_flight", &label),
            kept: metrics::gauge!("flux_webhook_given_up", &label),
            oldest: metrics::gauge!("flux_webhook_oldest_seconds", &label),
            now: Mutex::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn took(&self, time: Duration) {
        self.seconds.record(time);
    }

    pub(super) fn delivered(&self) {
        self.delivered.increment(1);
        self.change(|now| now.error = None);
    }

    pub(super) fn failed(&self, said: &str) {
        self.failed.increment(1);
        debug!(webhook = self.name, error = said, "the receiver did not take a message");
        self.change(|now| now.error = Some(said.to_owned()));
    }

    /// Whether the receiver takes nothing: said once, not with every message.
    pub(super) fn away(&self, is_away: bool) {
        self.change(|now| match (std::mem::replace(&mut now.is_away, is_away), &now.error) {
            (false, Some(error)) if is_away => {
                warn!(
                    webhook = self.name,
                    error, "the receiver takes nothing; changes wait for it"
                );
            }
            (true, _) if !is_away => {
                info!(webhook = self.name, "the receiver takes messages again");
            }
            _ => {}
        });
    }

    pub(super) fn given_up(&self) {
        self.given_up.increment(1);
    }

    pub(super) fn forgotten(&self) {
        self.forgotten.increment(1);
    }

    pub(super) fn changes_gone(&self) {
        self.changes_gone.increment(1);
    }

    pub(super) fn now(
        &self,
        waiting: usize,
        in_flight: usize,
        given_up: usize,
        oldest: Option<Timestamp>,
    ) {
        let age = oldest.map_or(Duration::ZERO, |at| Timestamp::now().since(at));
        self.waiting.set(waiting as f64);
        self.in_flight.set(in_flight as f64);
        self.kept.set(given_up as f64);
        self.oldest.set(age);
        self.change(|now| {
            *now = Standing { waiting, given_up, oldest, ..std::mem::take(now) };
        });
    }
}
