//! The worker's loop: gather what waits, work on it, hand it over. And the
//! listener's: hear the news, wake those who wait, keep the gate true.

use std::sync::Arc;
// Measures spans too short for tokio's timers, paused or not.
use std::time::{Duration, Instant as Stopwatch};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, warn};

use super::backoff::jittered;
use super::batch::{Desk, Done, Job};
use super::core::Core;
use super::lane::{Answer, ENOUGH};
use super::settle::{Settler, Unsettled};
use crate::protocol::Message;
use crate::seams::{Delivery, Receipt};

/// How long one receive waits for messages: SQS allows no more.
const LONG_POLL: Duration = Duration::from_secs(20);
/// Holds ended in one sweep.
const SWEEP_MAX: usize = 1_000;
/// An idle worker keeps its items so long.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// Visibility is extended this often while a batch takes its time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for a fuller round.
const LINGER_MAX: Duration = Duration::from_micros(300);
/// Shut items read again at a time, and how often.
const REFRESH_MAX: usize = 1_000;
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Works until `stop` says so or its sender is gone, then finishes what waits
/// in the lane and hands deliveries back.
pub(super) async fn work(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    // However this ends, nobody is left waiting for a worker that is gone.
    let _abandon = Abandon(Arc::clone(&core));
    let (hand_over, mut delivered) = mpsc::channel(1);
    let receiver = tokio::spawn(receive(Arc::clone(&core), hand_over, stop.clone()));
    let mut worker = Worker::new(Arc::clone(&core));
    loop {
        let mut deliveries = Vec::new();
        tokio::select! {
            () = core.lane.filled() => {}
            Some(more) = delivered.recv() => deliveries = more,
            () = sleep_until(worker.next_sweep) => {}
            () = stopped(&mut stop) => break,
        }
        if deliveries.is_empty() {
            deliveries = delivered.try_recv().unwrap_or_default();
        }
        worker.round(deliveries).await;
    }
    core.lane.close();
    while core.lane.len() > 0 {
        worker.round(Vec::new()).await;
    }
    worker.desk.let_go().await;
    worker.settler.finish().await;
    // Told to stop as well, the receiver drops its end when it is done.
    while let Some(deliveries) = delivered.recv().await {
        let receipts: Vec<Receipt> = deliveries.into_iter().map(|d: Delivery| d.receipt).collect();
        if let Err(error) = core.backend.queue.retry(&receipts, Duration::ZERO).await {
            debug!(%error, "messages were not handed back; they come back by themselves");
        }
    }
    if let Err(error) = receiver.await {
        warn!(%error, "the receiver failed");
    }
}

/// Completes when told to stop, or when nobody is left to tell. Cancel-safe.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Abandon(Arc<Core>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.lane.abandon();
    }
}

async fn receive(
    core: Arc<Core>,
    hand_over: mpsc::Sender<Vec<Delivery>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut failures = 0;
    loop {
        let received = tokio::select! {
            received = core.backend.queue.receive(core.settings.round_max, LONG_POLL) => received,
            () = stopped(&mut stop) => return,
        };
        match received {
            Ok(deliveries) if deliveries.is_empty() => {}
            Ok(deliveries) => {
                failures = 0;
                if hand_over.send(deliveries).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                debug!(%error, failures, "nothing could be received");
                tokio::select! {
                    () = tokio::time::sleep(jittered(failures, Duration::from_millis(50))) => {}
                    () = stopped(&mut stop) => return,
                }
            }
        }
    }
}

struct Worker {
    core: Arc<Core>,
    desk: Desk,
    settler: Settler,
    next_sweep: Instant,
    busy_at: Instant,
    holds_items: bool,
    last_round: usize,
}

impl Worker {
    fn new(core: Arc<Core>) -> Self {
        let now = Instant::now();
        Self {
            desk: Desk::new(Arc::clone(&core)),
            settler: Settler::start(Arc::clone(&core)),
            core,
            next_sweep: now,
            busy_at: now,
            holds_items: false,
            last_round: 0,
        }
    }

    /// Works on one round of the lane, the deliveries, and the holds that ended.
    async fn round(&mut self, deliveries: Vec<Delivery>) {
        self.gather().await;
        let (messages, round) = match self.core.lane.take() {
            Some((messages, round)) => (messages, Some(round)),
            None => (Vec::new(), None),
        };
        let asked = messages.len();
        let mut jobs: Vec<Job> = messages.into_iter().map(Job::new).collect();
        let mut receipts = Vec::with_capacity(deliveries.len());
        for delivery in self.without_poison(deliveries).await {
            jobs.push(Job::new(delivery.message));
            receipts.push(delivery.receipt);
        }
        jobs.extend(self.ended_holds().await.into_iter().map(Job::new));
        if jobs.is_empty() {
            if self.holds_items && self.busy_at.elapsed() >= IDLE_MAX {
                self.desk.let_go().await;
                self.holds_items = false;
            }
            self.last_round = 0;
            return;
        }
        let started = Stopwatch::now();
        let done = self.work_on(&mut jobs, &receipts).await;
        self.holds_items = true;
        self.busy_at = Instant::now();
        self.last_round = asked;
        metrics::histogram!("flux_round_orders").record(jobs.len() as f64);
        let mut answers: Vec<Answer> =
            jobs.into_iter().map(|job| job.answer.unwrap_or(Answer::GivenUp)).collect();
        let delivered = receipts.into_iter().zip(answers.split_off(asked)).collect();
        self.settler.hand_over(Unsettled { started, done, round, answers, delivered }).await;
    }

    /// While the last round is on its way to the disk, this one may as well
    /// grow. After that, under load, it gives the callers of the last round
    /// about one write's time to come back: one write for all of them is
    /// cheaper than two. An idle worker, or one with few callers, goes on at
    /// once.
    async fn gather(&self) {
        tokio::select! {
            () = self.settler.settled() => {}
            () = self.core.lane.full_enough() => return,
        }
        let enough = (self.last_round / 2).min(ENOUGH);
        if self.last_round < 8 {
            return;
        }
        let (since, longest) = (Stopwatch::now(), self.settler.last_took().min(LINGER_MAX));
        // Timers are coarser than this wait; yielding lets the callers run.
        while self.core.lane.len() < enough && since.elapsed() < longest {
            tokio::task::yield_now().await;
        }
    }

    async fn work_on(&mut self, jobs: &mut [Job], receipts: &[Receipt]) -> Done {
        let working = self.desk.work(jobs);
        tokio::pin!(working);
        if receipts.is_empty() {
            return working.await;
        }
        let mut extend = interval(EXTEND_EVERY);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        extend.tick().await;
        loop {
            tokio::select! {
                done = &mut working => return done,
                _ = extend.tick() => {
                    if let Err(error) = self.core.backend.queue.extend(receipts).await {
                        debug!(%error, "visibility was not extended; messages may come twice");
                    }
                }
            }
        }
    }

    async fn without_poison(&self, deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let most = self.core.settings.deliveries_max;
        let (poison, good): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.attempt > most);
        if !poison.is_empty() {
            metrics::counter!("flux_buried_total").increment(poison.len() as u64);
            warn!(messages = poison.len(), "messages are given up after {most} deliveries");
            let reason = format!("delivered more than {most} times without being settled");
            let receipts: Vec<_> =
                poison.into_iter().map(|delivery| (delivery.receipt, reason.clone())).collect();
            if let Err(error) = self.core.backend.queue.bury(&receipts).await {
                debug!(%error, "messages were not buried; they come back");
            }
        }
        good
    }

    async fn ended_holds(&mut self) -> Vec<Message> {
        let now = Instant::now();
        if now < self.next_sweep {
            return Vec::new();
        }
        let due = self.core.backend.store.due_holds(self.core.clock.now(), SWEEP_MAX).await;
        let due = due.unwrap_or_else(|error| {
            debug!(%error, "ended holds could not be read");
            Vec::new()
        });
        // A full sweep means there are more.
        if due.len() < SWEEP_MAX {
            self.next_sweep = now + self.core.settings.sweep_every;
        }
        due.into_iter().map(Message::Expire).collect()
    }
}

/// Hears the news until told to stop.
pub(super) async fn listen(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut news = core.backend.bus.subscribe();
    let mut refresh = interval(REFRESH_EVERY);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = true;
    loop {
        tokio::select! {
            heard = news.recv(), if connected => match heard {
                Ok(news) => {
                    core.gate.set_levels(&news.levels);
                    core.waiters.tell(&news);
                }
                Err(RecvError::Lagged(_)) => core.waiters.tell_all(),
                Err(RecvError::Closed) => connected = false,
            },
            _ = refresh.tick() => {
                let store = &*core.backend.store;
                if let Err(error) = core.gate.refresh_shut(REFRESH_MAX, store).await {
                    debug!(%error, "the gate could not be refreshed");
                }
            }
            () = stopped(&mut stop) => return,
        }
    }
}
