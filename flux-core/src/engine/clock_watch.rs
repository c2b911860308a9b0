//! The watch over the engine's clock: steps are noticed while nobody asks for
//! the time, and a clock that is off against the service's ends no holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::core::{Core, stopped};
use crate::clock::ClockReference;

/// The time from one look at the clock to the next.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Milliseconds by which a clock may be off against the service's, beside what
/// the way to the service explains.
const SKEW_MAX_MS: u64 = 1_500;
/// Least change of the clock's position after which ended holds are looked for.
const MOVED_MIN: Duration = Duration::from_millis(20);
/// Milliseconds by which the clock's position changes before it is kept again.
const KEEP_AFTER_MS: u64 = 20;

/// The findings of the last look.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    kept: Mutex<Option<ClockReference>>,
    is_off: AtomicBool,
}

impl ClockWatch {
    /// A watch over a clock whose position the store has kept.
    pub(super) fn starting(kept: Option<ClockReference>) -> Self {
        Self { kept: Mutex::new(kept), is_off: AtomicBool::new(false) }
    }
}

/// Looks at the clock now and then, until told to stop.
pub(super) async fn run(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut again = interval(LOOK_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let read = || (core.clock.now(), Instant::now());
    let mut last = read();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            _ = again.tick() => {}
        }
        core.may_end_holds();
        core.keep_clock();
        let (now, at) = read();
        let moved = now.since(last.0).abs_diff(at - last.1);
        if moved >= MOVED_MIN || now < last.0 {
            // Alarms were set by where it stood.
            core.expect_end(None);
        }
        last = (now, at);
    }
    // However short it ran, the next start knows where the clock stood.
    core.keep_clock();
}

impl Core {
    /// Whether the clock is good enough to end holds by.
    pub(super) fn may_end_holds(&self) -> bool {
        let is_known = self.clock.is_known();
        !self.is_clock_off() && is_known
    }

    /// Compares the clock with the service's, if the store knows that.
    fn is_clock_off(&self) -> bool {
        let Some(service) = self.backend.store.service_time() else { return false };
        let (now, at) = (self.clock.now().as_millis(), service.at.as_millis());
        let allowed = SKEW_MAX_MS.saturating_add(service.within.as_millis() as u64);
        let is_off = now.abs_diff(at) > allowed;
        let skew = now.abs_diff(at) as f64 / 1e3 * if now < at { -1.0 } else { 1.0 };
        metrics::gauge!("flux_clock_skew_seconds").set(skew);
        let was_off = self.clock_watch.is_off.swap(is_off, Ordering::Relaxed);
        match (was_off, is_off) {
            (false, true) => warn!(
                skew_seconds = skew,
                "the clock is off against the service's: no hold is ended here until it is right"
            ),
            (true, false) => info!(skew_seconds = skew, "the clock is right again"),
            _ => {}
        }
        is_off
    }

    /// Has the store keep the clock's position, if it is sure and has changed.
    fn keep_clock(&self) {
        let Some(new) = self.clock.reference() else { return };
        let mut kept = self.clock_watch.kept.lock().expect("nothing panics under this lock");
        let is_kept = kept.is_some_and(|kept| {
            let moved = kept.booted_at.as_millis().abs_diff(new.booted_at.as_millis());
            kept.boot == new.boot && moved < KEEP_AFTER_MS
        });
        if !is_kept {
            self.backend.store.keep_clock(new);
            *kept = Some(new);
        }
    }
}
