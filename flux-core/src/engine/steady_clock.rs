//! The application's clock, held against one that nobody sets: a step of it
//! counts once it has stood.
//!
//! The guard knows by how much the wall clock is ahead of the monotonic one.
//! While that hardly changes, the time is what the wall clock shows. Small
//! changes are followed, up to a second in ten, as time services make them. A
//! larger one is a step: the time goes on by what the clock was ahead before,
//! until the clock has stood at its new place for ten seconds, or is back.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::clock::{Clock, ClockReference};
use crate::protocol::Timestamp;
use crate::seams::KeptClock;

/// Milliseconds in `STANDS_MS` by which a clock may change and be followed.
const STEP_MS: i64 = 1_000;
/// Milliseconds after which a new place of the clock is believed.
const STANDS_MS: i64 = 10_000;
/// Milliseconds of change that are not worth a closer look.
const NEGLIGIBLE_MS: i64 = 10;
/// Milliseconds from one warning to the next, at least.
const WARN_EVERY_MS: i64 = 1_000;
/// Time that passes at most between two clocks read as if at one moment.
const MOMENT: Duration = Duration::from_millis(10);
/// Tries to read them so.
const TRIES: usize = 10;

/// The time that the engine goes by. Reading it takes no lock, unless a closer
/// look is due.
#[derive(Debug)]
pub(super) struct SteadyClock {
    clock: Arc<dyn Clock>,
    origin: Instant,
    /// As in `State`.
    ahead_ms: AtomicI64,
    is_in_doubt: AtomicBool,
    state: Mutex<State>,
}

/// The clocks at one moment, in milliseconds: the monotonic one since the
/// origin, the wall clock since 1970.
#[derive(Debug, Clone, Copy)]
struct Reading {
    monotonic: i64,
    wall: i64,
}

#[derive(Debug)]
struct State {
    /// Milliseconds that the wall clock is ahead of the monotonic one, as believed.
    ahead: i64,
    /// `ahead` at the beginning of the present ten seconds of changes.
    anchor: i64,
    anchored_at: i64,
    /// A place of the clock that is not believed yet.
    doubt: Option<Doubt>,
    /// The beginning of the time that a clock of which nothing is known has stood.
    unknown_since: Option<i64>,
    warned_at: i64,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    ahead: i64,
    since: i64,
}

/// The findings of a closer look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No step.
    Nothing,
    /// A step that is new.
    Stepped,
    /// A step that is in doubt still.
    Doubtful,
    /// The clock is back where it was.
    Back,
    /// The clock has stood since its step, which counts from now on.
    Stood,
}

impl State {
    fn look(&mut self, Reading { monotonic, wall }: Reading) -> Found {
        let ahead = wall.saturating_sub(monotonic);
        if monotonic - self.anchored_at >= STANDS_MS {
            (self.anchor, self.anchored_at) = (self.ahead, monotonic);
        }
        if ahead.abs_diff(self.anchor) <= STEP_MS as u64 {
            self.ahead = ahead;
            let Some(_) = self.doubt.take() else { return Found::Nothing };
            self.stands_anew(monotonic);
            return Found::Back;
        }
        match self.doubt {
            Some(doubt) if ahead.abs_diff(doubt.ahead) <= STEP_MS as u64 => {
                if monotonic - doubt.since < STANDS_MS {
                    return Found::Doubtful;
                }
                (self.ahead, self.anchor, self.anchored_at) = (ahead, ahead, monotonic);
                (self.doubt, self.unknown_since) = (None, None);
                Found::Stood
            }
            _ => {
                self.doubt = Some(Doubt { ahead, since: monotonic });
                self.stands_anew(monotonic);
                Found::Stepped
            }
        }
    }

    fn stands_anew(&mut self, monotonic: i64) {
        self.unknown_since = self.unknown_since.map(|_| monotonic);
    }
}

impl SteadyClock {
    /// A guard of `clock`, given what the store has kept of it. A clock stepped
    /// since then is in doubt from the start.
    pub(super) fn starting(clock: Arc<dyn Clock>, kept: KeptClock) -> Self {
        let (origin, (wall, booted)) = at_once(&*clock, || (clock.now(), clock.since_boot()));
        let reference = kept.reference.zip(booted);
        let expected = reference.and_then(|(reference, booted)| {
            (reference.boot == booted.boot).then(|| reference.booted_at + booted.elapsed)
        });
        let is_unknown = expected.is_none() && kept.has_holds;
        let ahead = millis(expected.unwrap_or(wall));
        if is_unknown {
            info!(
                "nothing tells whether the clock is right: holds end once it has stood for ten seconds"
            );
        }
        Self {
            clock,
            origin,
            ahead_ms: AtomicI64::new(ahead),
            is_in_doubt: AtomicBool::new(false),
            state: Mutex::new(State {
                ahead,
                anchor: ahead,
                anchored_at: 0,
                doubt: None,
                unknown_since: is_unknown.then_some(0),
                warned_at: -WARN_EVERY_MS,
            }),
        }
    }

    /// The present time.
    pub(super) fn now(&self) -> Timestamp {
        let Reading { monotonic, wall } = self.reading(self.clock.monotonic(), self.clock.now());
        let change = wall.saturating_sub(monotonic) - self.ahead_ms.load(Ordering::Relaxed);
        if change.abs() <= NEGLIGIBLE_MS && !self.is_in_doubt.load(Ordering::Relaxed) {
            return timestamp(wall);
        }
        self.look()
    }

    /// Whether the clock is known to be right, or has stood for ten seconds.
    pub(super) fn is_known(&self) -> bool {
        self.now();
        let mut state = self.lock();
        let Some(since) = state.unknown_since else { return true };
        let monotonic = self.reading(self.clock.monotonic(), Timestamp::default()).monotonic;
        if state.doubt.is_some() || monotonic - since < STANDS_MS {
            return false;
        }
        state.unknown_since = None;
        true
    }

    /// The position of the clock, unless that is unknown or in doubt.
    pub(super) fn reference(&self) -> Option<ClockReference> {
        let (_, (now, booted)) = at_once(&*self.clock, || (self.now(), self.clock.since_boot()));
        let booted = booted?;
        if !self.is_known() || self.is_in_doubt.load(Ordering::Relaxed) {
            return None;
        }
        let booted_at = millis(now).saturating_sub_unsigned(booted.elapsed.as_millis() as u64);
        Some(ClockReference::new(booted.boot, timestamp(booted_at)))
    }

    /// Looks closely, and says what is new.
    #[cold]
    fn look(&self) -> Timestamp {
        let mut state = self.lock();
        let (monotonic, wall) = at_once(&*self.clock, || self.clock.now());
        let reading = self.reading(monotonic, wall);
        let by_old = reading.monotonic + state.ahead;
        let found = state.look(reading);
        self.ahead_ms.store(state.ahead, Ordering::Relaxed);
        self.is_in_doubt.store(state.doubt.is_some(), Ordering::Relaxed);
        let in_doubt = state.doubt.map_or(0, |doubt| doubt.ahead - state.ahead);
        let warns = found == Found::Stepped && reading.monotonic - state.warned_at >= WARN_EVERY_MS;
        if warns {
            state.warned_at = reading.monotonic;
        }
        if !matches!(found, Found::Nothing | Found::Doubtful) {
            metrics::gauge!("flux_clock_doubt_seconds").set(in_doubt as f64 / 1e3);
        }
        drop(state);
        let was = timestamp(by_old);
        match found {
            Found::Nothing => {}
            Found::Doubtful => return was,
            Found::Stepped => {
                metrics::counter!("flux_clock_steps_total").increment(1);
                if warns {
                    warn!(
                        shows = %wall, %was,
                        "the clock was stepped: nothing ends, opens or closes by it until it has \
                         stood for ten seconds"
                    );
                } else {
                    debug!(shows = %wall, %was, "the clock was stepped again");
                }
                return was;
            }
            Found::Back => info!(shows = %wall, "the clock is back where it was"),
            Found::Stood => warn!(shows = %wall, %was, "the clock has stood: its step counts"),
        }
        wall
    }

    fn reading(&self, monotonic: Instant, wall: Timestamp) -> Reading {
        let monotonic = monotonic.saturating_duration_since(self.origin).as_millis();
        Reading { monotonic: monotonic as i64, wall: millis(wall) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a look does not panic")
    }
}

/// Reads clocks as if at one moment: again if the thread was held up meanwhile.
fn at_once<T>(clock: &dyn Clock, read: impl Fn() -> T) -> (Instant, T) {
    let mut tries = 0;
    loop {
        let monotonic = clock.monotonic();
        let what = read();
        tries += 1;
        if tries == TRIES || clock.monotonic().saturating_duration_since(monotonic) < MOMENT {
            return (monotonic, what);
        }
    }
}

fn millis(time: Timestamp) -> i64 {
    // A quarter of what fits, so that sums fit.
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::clock::SinceBoot;

    const NOON: u64 = 1_700_000_000_000;
    const HOUR: i64 = 3_600_000;

    /// A clock whose hands are moved by the test, in milliseconds.
    #[derive(Debug)]
    struct Hands {
        base: Instant,
        monotonic: AtomicU64,
        asleep: AtomicU64,
        ahead: AtomicI64,
        boot: AtomicU64,
        /// Time by which the thread is held up after each reading, and after the next.
        held_up: AtomicU64,
        held_up_once: AtomicU64,
    }

    impl Hands {
        fn new() -> Arc<Self> {
            let zero = AtomicU64::default;
            Arc::new(Self {
                base: Instant::now(),
                monotonic: zero(),
                asleep: zero(),
                ahead: AtomicI64::default(),
                boot: zero(),
                held_up: zero(),
                held_up_once: zero(),
            })
        }

        fn pass(&self, millis: u64) {
            self.monotonic.fetch_add(millis, Ordering::Relaxed);
        }

        fn step(&self, millis: i64) {
            self.ahead.fetch_add(millis, Ordering::Relaxed);
        }

        fn sleep(&self, millis: u64) {
            self.asleep.fetch_add(millis, Ordering::Relaxed);
            self.step(millis as i64);
        }

        fn start(self: &Arc<Self>, kept: KeptClock) -> SteadyClock {
            SteadyClock::starting(Arc::clone(self) as Arc<dyn Clock>, kept)
        }

        fn started(self: &Arc<Self>) -> SteadyClock {
            self.start(KeptClock::default())
        }

        /// The milliseconds that the guard shows beside those that passed.
        fn shown_ahead(&self, guard: &SteadyClock) -> i64 {
            let passed = self.monotonic.load(Ordering::Relaxed) + NOON;
            guard.now().as_millis() as i64 - passed as i64
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            let once = self.held_up_once.swap(0, Ordering::Relaxed);
            let held_up = self.held_up.load(Ordering::Relaxed) + once;
            let passed = self.monotonic.fetch_add(held_up, Ordering::Relaxed) + held_up;
            let ahead = self.ahead.load(Ordering::Relaxed);
            Timestamp::from_millis((NOON + passed).saturating_add_signed(ahead))
        }

        fn monotonic(&self) -> Instant {
            self.base + Duration::from_millis(self.monotonic.load(Ordering::Relaxed))
        }

        fn since_boot(&self) -> Option<SinceBoot> {
            let passed =
                self.monotonic.load(Ordering::Relaxed) + self.asleep.load(Ordering::Relaxed);
            let boot = self.boot.load(Ordering::Relaxed);
            Some(SinceBoot::new(boot, Duration::from_millis(5_000_000 + passed)))
        }
    }

    #[test]
    fn a_step_counts_once_it_has_stood_for_ten_seconds() {
        for step in [1_001, -1_001, HOUR, -HOUR, 300 * 24 * HOUR] {
            let hands = Hands::new();
            let guard = hands.started();
            hands.pass(60_000);
            hands.step(step);
            for _ in 0..100 {
                assert_eq!(hands.shown_ahead(&guard), 0, "{step}");
                assert_eq!(guard.reference(), None, "{step} is not kept");
                hands.pass(100);
            }
            assert_eq!(hands.shown_ahead(&guard), step);
            assert!(guard.reference().is_some());
        }
    }

    #[test]
    fn ten_seconds_pass_from_the_first_look_at_a_step() {
        let hands = Hands::new();
        let guard = hands.started();
        hands.step(HOUR);
        hands.pass(3_600_000);
        assert_eq!(hands.shown_ahead(&guard), 0);
        hands.pass(9_999);
        assert_eq!(hands.shown_ahead(&guard), 0);
        hands.pass(1);
        assert_eq!(hands.shown_ahead(&guard), HOUR);
    }

    #[test]
    fn a_step_for_a_moment_changes_nothing() {
        let hands = Hands::new();
        let guard = hands.started();
        for step in [HOUR, -HOUR, 5_000, -5_000] {
            // Its moments together are longer than ten seconds.
            for _ in 0..5 {
                hands.step(step);
                assert_eq!(hands.shown_ahead(&guard), 0);
                hands.pass(9_000);
                assert_eq!(hands.shown_ahead(&guard), 0);
                hands.step(-step);
                assert_eq!(hands.shown_ahead(&guard), 0);
                hands.pass(100);
            }
        }
    }

    #[test]
    fn a_clock_that_goes_on_stepping_is_not_believed() {
        let hands = Hands::new();
        let guard = hands.started();
        for _ in 0..100 {
            hands.step(5_000);
            assert_eq!(hands.shown_ahead(&guard), 0);
            hands.pass(5_000);
        }
        assert_eq!(hands.shown_ahead(&guard), 0);
        hands.pass(5_000);
        assert_eq!(hands.shown_ahead(&guard), 500_000, "it has come to stand");
    }

    #[test]
    fn small_changes_are_followed_up_to_a_second_in_ten() {
        let hands = Hands::new();
        let guard = hands.started();
        let mut slewed = 0;
        for _ in 0..1_000 {
            hands.step(50);
            hands.pass(1_000);
            slewed += 50;
            assert_eq!(hands.shown_ahead(&guard), slewed);
        }
        hands.pass(10_000);
        hands.step(900);
        assert_eq!(hands.shown_ahead(&guard), slewed + 900);
        hands.step(900);
        assert_eq!(hands.shown_ahead(&guard), slewed + 900, "too much in too short a time");
        hands.pass(10_000);
        assert_eq!(hands.shown_ahead(&guard), slewed + 1_800);
    }

    #[test]
    fn sleep_counts_ten_seconds_after_waking() {
        let hands = Hands::new();
        let guard = hands.started();
        hands.sleep(8 * 3_600_000);
        assert_eq!(hands.shown_ahead(&guard), 0);
        hands.pass(10_000);
        assert_eq!(hands.shown_ahead(&guard), 8 * HOUR);
    }

    #[test]
    fn a_thread_that_is_held_up_between_two_clocks_sees_no_step() {
        let hands = Hands::new();
        let guard = hands.started();
        hands.held_up.store(3_000, Ordering::Relaxed);
        let torn = guard.reading(guard.clock.monotonic(), guard.clock.now());
        assert_eq!(torn.wall - torn.monotonic, NOON as i64 + 3_000, "so it would look");
        hands.held_up.store(0, Ordering::Relaxed);
        guard.look();
        assert!(guard.lock().doubt.is_none());
        assert_eq!(hands.shown_ahead(&guard), 0);
    }

    #[test]
    fn a_thread_that_is_held_up_at_each_reading_gets_a_time_all_the_same() {
        let hands = Hands::new();
        let guard = hands.started();
        hands.held_up.store(20, Ordering::Relaxed);
        hands.step(100);
        let shown = guard.now().as_millis();
        let passed = hands.monotonic.load(Ordering::Relaxed);
        assert_eq!(shown, NOON + passed + 100);

        hands.held_up.store(0, Ordering::Relaxed);
        hands.held_up_once.store(3_000, Ordering::Relaxed);
        guard.look();
        assert!(guard.lock().doubt.is_none(), "it reads again");
        assert_eq!(hands.shown_ahead(&guard), 100);
    }

    /// The position of a clock as a store has kept it, with holds in it.
    fn kept(hands: &Arc<Hands>) -> KeptClock {
        KeptClock::new(Some(hands.started().reference().expect("it is sure")), true)
    }

    #[test]
    fn a_restart_goes_on_by_the_clock_that_was_kept() {
        let hands = Hands::new();
        let kept = kept(&hands);
        hands.pass(3_600_000);
        hands.sleep(3_600_000);
        let guard = hands.start(kept);
        assert!(guard.is_known(), "asleep or not");
        assert_eq!(hands.shown_ahead(&guard), HOUR);
        assert_eq!(guard.reference(), kept.reference);

        // Stepped while nothing ran.
        hands.step(HOUR);
        let guard = hands.start(kept);
        for _ in 0..100 {
            assert!(guard.is_known(), "by the old time holds end");
            assert_eq!(hands.shown_ahead(&guard), HOUR);
            assert_eq!(guard.reference(), None);
            hands.pass(100);
        }
        assert_eq!(hands.shown_ahead(&guard), 2 * HOUR);
        assert_ne!(guard.reference(), kept.reference);
    }

    #[test]
    fn after_a_boot_holds_wait_until_the_clock_has_stood() {
        let hands = Hands::new();
        let of_old = kept(&hands);
        hands.boot.store(7, Ordering::Relaxed);
        let empty = KeptClock::new(of_old.reference, false);
        assert!(hands.start(empty).is_known(), "there is no hold");

        for kept in [of_old, KeptClock::new(None, true)] {
            let guard = hands.start(kept);
            hands.pass(9_999);
            assert!(!guard.is_known());
            hands.pass(1);
            assert!(guard.is_known());
        }

        let guard = hands.start(of_old);
        hands.pass(5_000);
        hands.step(HOUR);
        assert!(!guard.is_known());
        hands.pass(9_999);
        assert!(!guard.is_known(), "it has stood since its step only");
        hands.pass(1);
        assert!(guard.is_known());
        assert_eq!(hands.shown_ahead(&guard), HOUR);
    }
}
