//! Stand-ins on `shuttle`, which runs the tasks of a scene on one thread and chooses at
//! each step which of them goes on. A task that nobody will ever wake again is a deadlock,
//! and the scene fails with the schedule that led there.
//!
//! - Each call is one step, and all see the steps in the same order: what only a weaker
//!   ordering of an atomic allows is not found.
//! - Time stands still until a scene lets it [pass]: a lost wake-up that a time-out would
//!   make good, late, is seen as lost.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use tokio::time::Instant;

pub(crate) use shuttle::future::spawn;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// Runs of a scene by either scheduler, unless `FLUX_SHUTTLE_RUNS` says otherwise.
const RUNS: usize = 2_000;
/// The seed of the schedules, unless `SHUTTLE_RANDOM_SEED` says otherwise.
const SEED: u64 = 1;
/// One more than the steps at which the second scheduler stops a task that could go on
/// (Burckhardt and others, "A randomized scheduler with probabilistic guarantees of finding
/// bugs", ASPLOS 2010).
const DEPTH: usize = 3;
/// Bytes of a task's stack: debug builds need much.
const STACK: usize = 256 * 1024;

/// Runs a scene by many schedules, the same each time: first any task may go on at each
/// step, then one goes on for long.
pub(crate) fn explore<S: Future<Output = ()> + 'static>(scene: fn() -> S) {
    let runs = std::env::var("FLUX_SHUTTLE_RUNS").map_or(RUNS, |runs| runs.parse().expect("runs"));
    let mut clock = tokio::runtime::Builder::new_current_thread();
    let clock = clock.enable_time().start_paused(true).build().expect("a clock");
    let _standing_still = clock.enter();
    run("at random", RandomScheduler::new_from_seed(SEED, runs), scene);
    run("by priority", PctScheduler::new_from_seed(SEED, DEPTH, runs), scene);
}

fn run<S: Future<Output = ()> + 'static>(
    how: &'static str,
    scheduler: impl Scheduler + 'static,
    scene: fn() -> S,
) {
    let mut config = shuttle::Config::new();
    (config.stack_size, config.silence_warnings) = (STACK, true);
    let count = Count { how, runs: Arc::default() };
    let runs = Arc::clone(&count.runs);
    shuttle::Runner::new(scheduler, config).run(move || {
        runs.fetch_add(1, Ordering::Relaxed);
        shuttle::future::block_on(scene());
    });
}

/// Tells in which run a scene failed.
struct Count {
    how: &'static str,
    runs: Arc<std::sync::atomic::AtomicUsize>,
}

impl Drop for Count {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let runs = self.runs.load(Ordering::Relaxed);
            eprintln!("failed in run {runs} of those scheduled {}", self.how);
        }
    }
}

/// Lets others go on.
fn step() {
    // An atomic is what shuttle has for a step and nothing else.
    AtomicBool::new(false).load(Ordering::SeqCst);
}

shuttle::lazy_static! {
    /// Those who wait for a moment.
    static ref ALARMS: std::sync::Mutex<Vec<(Instant, Waker)>> = std::sync::Mutex::default();
}

/// The moment came first.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// As tokio's; the moment comes when the scene lets time [pass].
pub(crate) async fn timeout_at<F: Future>(at: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    // Found before the look at the time: finding them may be a step.
    let alarms = &*ALARMS;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        if Instant::now() >= at {
            return Poll::Ready(Err(Elapsed));
        }
        alarms.lock().expect("no panic").push((at, context.waker().clone()));
        Poll::Pending
    })
    .await
}

/// Lets time pass, and wakes those whose moment has come.
pub(crate) async fn pass(time: Duration) {
    let alarms = &*ALARMS;
    tokio::time::advance(time).await;
    let now = Instant::now();
    let mut waiting = alarms.lock().expect("no panic");
    let due: Vec<_> = waiting.extract_if(.., |(at, _)| *at <= now).collect();
    drop(waiting);
    due.into_iter().for_each(|(_, waker)| waker.wake());
}

/// As the standard library's, each call a step.
#[derive(Debug)]
pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self(std::sync::OnceLock::new())
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        step();
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        step();
        self.0.set(value)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        step();
        self.0.get_or_init(init)
    }
}

/// As tokio's.
#[derive(Debug, Default)]
pub(crate) struct Notify(std::sync::Mutex<Notices>);

#[derive(Debug, Default)]
struct Notices {
    /// A call to wake one that came when nobody waited.
    permit: bool,
    /// The number of calls to wake all.
    broadcasts: u64,
    waiters: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// Those woken who have not looked yet, and whether as one of all.
    woken: HashMap<u64, bool>,
}

impl Notices {
    fn wake_one(&mut self) -> Option<Waker> {
        let Some((waiter, waker)) = self.waiting.pop_front() else {
            self.permit = true;
            return None;
        };
        self.woken.insert(waiter, false);
        waker
    }
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        step();
        let waker = self.notices().wake_one();
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notify_waiters(&self) {
        step();
        let woken = {
            let mut notices = self.notices();
            notices.broadcasts += 1;
            let woken = std::mem::take(&mut notices.waiting);
            notices.woken.extend(woken.iter().map(|&(waiter, _)| (waiter, true)));
            woken
        };
        woken.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        step();
        Notified { notify: self, broadcasts: self.notices().broadcasts, stage: Stage::New }
    }

    fn notices(&self) -> std::sync::MutexGuard<'_, Notices> {
        self.0.lock().expect("no panic")
    }
}

/// As tokio's: it counts from its making for calls to wake all, and from its first poll
/// for those to wake one.
#[derive(Debug)]
pub(crate) struct Notified<'n> {
    notify: &'n Notify,
    broadcasts: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    New,
    Waiting(u64),
    Done,
}

impl Notified<'_> {
    pub(crate) fn enable(mut self: Pin<&mut Self>) -> bool {
        self.look(None).is_ready()
    }

    fn look(&mut self, waker: Option<&Waker>) -> Poll<()> {
        step();
        let mut notices = self.notify.notices();
        let is_done = match self.stage {
            Stage::New => {
                notices.broadcasts != self.broadcasts || std::mem::take(&mut notices.permit)
            }
            Stage::Waiting(waiter) => notices.woken.remove(&waiter).is_some(),
            Stage::Done => true,
        };
        if is_done {
            self.stage = Stage::Done;
            return Poll::Ready(());
        }
        let waker = waker.cloned();
        match self.stage {
            Stage::Waiting(waiter) => {
                let mut waiting = notices.waiting.iter_mut();
                let (_, place) = waiting.find(|(other, _)| *other == waiter).expect("it waits");
                *place = waker.or(place.take());
            }
            _ => {
                notices.waiters += 1;
                self.stage = Stage::Waiting(notices.waiters);
                let waiter = notices.waiters;
                notices.waiting.push_back((waiter, waker));
            }
        }
        Poll::Pending
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.look(Some(context.waker()))
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Stage::Waiting(waiter) = self.stage else { return };
        let mut notices = self.notify.notices();
        notices.waiting.retain(|(other, _)| *other != waiter);
        // Whoever was woken as the only one, and did not see it, wakes the next.
        let next = match notices.woken.remove(&waiter) {
            Some(false) => notices.wake_one(),
            _ => None,
        };
        drop(notices);
        next.into_iter().for_each(Waker::wake);
    }
}
