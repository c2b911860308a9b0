//! The worker's loop: takes a batch of the messages that wait, works on it, and
//! hands it over to be completed.

mod batch;
pub(super) mod completion;
mod decision_metrics;
mod leases;
mod transactions;

use std::sync::Arc;
// Measures spans too short for tokio's timers, paused or not.
use std::time::{Duration, Instant as Stopwatch};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, warn};

use crate::backoff::{Backoff, spread};
use crate::engine::accept::inbox::{Answer, ENOUGH, Taken, TakenBatch};
use crate::engine::core::{Core, from_now, stopped};
use crate::protocol::Message;
use crate::seams::{Delivery, DueHolds, Receipt};
use batch::{BatchProcessor, Done, Work};
use completion::{Completer, DecidedBatch};
use decision_metrics::PendingMetrics;

/// Longest wait of one receive for messages: SQS allows no more.
const LONG_POLL: Duration = Duration::from_secs(20);
/// Most holds ended in one sweep.
const SWEEP_MAX: usize = 1_000;
/// The time from one extension of visibility to the next, while a batch takes
/// its time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for a fuller batch.
const LINGER_MAX: Duration = Duration::from_micros(300);
/// Deliveries past which a message is worked on by itself.
const SUSPECT_AFTER: u32 = 3;
/// Pauses between receives that fail.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
/// Longest time deliveries are left alone while the backends fail.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Least time from one sweep to the next.
const SWEEP_GAP_MIN: Duration = Duration::from_millis(50);
/// Time without work after which a worker that knows of no hold is idle.
const QUIET_AFTER: Duration = Duration::from_secs(60);

/// Works until `stop` says so or its sender is gone, then finishes what waits
/// in the inbox and hands deliveries back.
pub(crate) async fn work(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    // However this ends, no caller is left waiting for a worker that is gone.
    let _abandon = Abandon(Arc::clone(&core));
    let (hand_over, mut delivered) = mpsc::channel(1);
    let receiver = tokio::spawn(receive(Arc::clone(&core), hand_over, stop.clone()));
    let mut worker = Worker::new(Arc::clone(&core));
    loop {
        let mut deliveries = Vec::new();
        tokio::select! {
            () = core.inbox.filled() => {}
            more = delivered.recv(), if worker.receives() => match more {
                Some(more) => deliveries = more,
                None => break,
            },
            () = sleep_until(worker.next_sweep) => {}
            () = sleep_until(worker.idle_at()), if worker.holds_items => {}
            () = sleep_until(worker.pause_until), if !worker.receives() => {}
            () = stopped(&mut stop) => break,
        }
        if deliveries.is_empty() && worker.receives() {
            deliveries = delivered.try_recv().unwrap_or_default();
        }
        if !worker.next_batch(deliveries).await {
            warn!("the worker can't go on");
            delivered.close();
            break;
        }
    }
    core.inbox.close();
    while core.inbox.len() > 0 && worker.next_batch(Vec::new()).await {}
    worker.processor.let_go().await;
    worker.completer.finish().await;
    // Told to stop as well, or sent away, the receiver drops its end.
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

struct Abandon(Arc<Core>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.inbox.abandon();
    }
}

async fn receive(
    core: Arc<Core>,
    hand_over: mpsc::Sender<Vec<Delivery>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut failures = 0;
    loop {
        // Deliveries that wait for this worker could be with another.
        let permit = tokio::select! {
            permit = hand_over.reserve() => match permit {
                Ok(permit) => permit,
                Err(_) => return,
            },
            () = stopped(&mut stop) => return,
        };
        let received = tokio::select! {
            received = core.backend.queue.receive(core.settings.batch_max, LONG_POLL) => received,
            () = stopped(&mut stop) => return,
        };
        match received {
            Ok(deliveries) if deliveries.is_empty() => {}
            Ok(deliveries) => {
                failures = 0;
                permit.send(deliveries);
            }
            Err(error) => {
                failures += 1;
                debug!(%error, failures, "nothing could be received");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE.full_jitter(failures)) => {}
                    () = stopped(&mut stop) => return,
                }
            }
        }
    }
}

struct Worker {
    core: Arc<Core>,
    processor: BatchProcessor,
    completer: Completer,
    next_sweep: Instant,
    busy_at: Instant,
    holds_items: bool,
    /// The number of callers that the last batch had.
    last_asked: usize,
    /// The number of batches in a row that the backends failed.
    failures: u32,
    failed_at: Option<Instant>,
    pause_until: Instant,
}

/// A batch to be worked on: the callers' messages, then deliveries, then what
/// the worker itself found to do.
struct PendingBatch {
    batch: Vec<Work>,
    /// The number of messages that callers wait for.
    asked: usize,
    callers: Option<TakenBatch>,
    receipts: Vec<Receipt>,
    started: Stopwatch,
    metrics: PendingMetrics,
}

impl Worker {
    fn new(core: Arc<Core>) -> Self {
        let now = Instant::now();
        Self {
            processor: BatchProcessor::new(Arc::clone(&core)),
            completer: Completer::start(Arc::clone(&core)),
            core,
            next_sweep: now,
            busy_at: now,
            holds_items: false,
            last_asked: 0,
            failures: 0,
            failed_at: None,
            pause_until: now,
        }
    }

    /// Whether to take deliveries. Not while the backends fail: each delivery
    /// counts against its message, and an outage is not the message's fault.
    fn receives(&self) -> bool {
        Instant::now() >= self.pause_until
    }

    /// Works on one batch of the inbox, the deliveries, and the holds that
    /// ended. `false` when the completer is gone.
    async fn next_batch(&mut self, deliveries: Vec<Delivery>) -> bool {
        self.linger().await;
        let started = Stopwatch::now();
        let (messages, mut metrics, callers) = match self.core.inbox.take() {
            Some(Taken { messages, asked, spans, callers }) => {
                let metrics = PendingMetrics::of_callers(started, &messages, asked, spans);
                (messages, metrics, Some(callers))
            }
            None => (Vec::new(), PendingMetrics::default(), None),
        };
        let asked = messages.len();
        let mut batch: Vec<Work> = messages.into_iter().map(Work::new).collect();
        let mut receipts = Vec::with_capacity(deliveries.len());
        // A message that came often because the backends failed is no suspect yet.
        let failed_lately = self.failed_at.is_some_and(|at| at.elapsed() < QUIET_AFTER);
        let often = match failed_lately {
            true => self.core.settings.deliveries_max.max(SUSPECT_AFTER),
            false => SUSPECT_AFTER,
        };
        let (suspects, deliveries): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.attempt > often);
        for delivery in deliveries {
            self.add_delivery(&mut metrics, &delivery.message);
            batch.push(match delivery.attempt {
                0 | 1 => Work::new(delivery.message),
                _ => Work::again(delivery.message),
            });
            receipts.push(delivery.receipt);
        }
        batch.extend(self.ended_holds().await.into_iter().map(Work::spare));
        if batch.is_empty() && suspects.is_empty() {
            if self.holds_items && Instant::now() >= self.idle_at() {
                self.processor.let_go().await;
                self.holds_items = false;
            }
            self.last_asked = 0;
            return true;
        }
        self.last_asked = asked;
        let mut goes_on = true;
        if !batch.is_empty() {
            let pending = PendingBatch { batch, asked, callers, receipts, started, metrics };
            goes_on = self.work_through(pending).await;
        }
        for suspect in suspects {
            goes_on &= self.try_alone(suspect).await;
        }
        goes_on
    }

    /// Adds a delivered message to those whose decisions are measured and traced.
    fn add_delivery(&self, metrics: &mut PendingMetrics, message: &Message) {
        let id = message.order_id();
        let waited = match message {
            Message::Place(order) => self.core.clock.now().since(order.placed_at),
            _ => Duration::ZERO,
        };
        metrics.add(id, waited, self.core.queued_spans.pick_up(id).as_ref());
    }

    /// The moment to let go of the items if there is nothing more to do: at once,
    /// if others want them.
    fn idle_at(&self) -> Instant {
        if self.processor.is_crowded() {
            return self.busy_at;
        }
        self.busy_at + self.core.settings.idle_max.min(PAUSE_MAX)
    }

    async fn work_through(&mut self, pending: PendingBatch) -> bool {
        let PendingBatch { mut batch, asked, callers, receipts, started, metrics } = pending;
        let done = self.work_on(&mut batch, &receipts).await;
        self.busy_at = Instant::now();
        metrics::histogram!("flux_batch_orders").record(batch.len() as f64);
        let metrics = metrics.decided(&batch);
        let mut answers: Vec<Answer> =
            batch.into_iter().map(|work| work.answer.unwrap_or(Answer::GivenUp)).collect();
        self.note_health(&answers);
        let delivered = receipts.into_iter().zip(answers.split_off(asked)).collect();
        let retry_after = pause_after(self.failures);
        let decided =
            DecidedBatch { started, done, callers, answers, delivered, retry_after, metrics };
        self.completer.hand_over(decided).await
    }

    fn note_health(&mut self, answers: &[Answer]) {
        if answers.iter().any(Answer::is_failure) {
            self.failures += 1;
            self.failed_at = Some(self.busy_at);
            self.pause_until = self.busy_at + pause_after(self.failures).min(PAUSE_MAX);
        } else if !answers.is_empty() {
            self.failures = 0;
            self.pause_until = self.busy_at;
        }
    }

    /// Works on a message that came several times, by itself, lest it spoil
    /// the batch of others. A message that came too often and fails while others
    /// do well is given up: the fault is its own. One that came ten times too
    /// often, while nothing ever failed here, is not even tried: it may be what
    /// ends the process each time.
    async fn try_alone(&mut self, suspect: Delivery) -> bool {
        let Delivery { message, receipt, attempt } = suspect;
        let most = self.core.settings.deliveries_max;
        if self.failed_at.is_some() || attempt <= most.saturating_mul(10) {
            let mut metrics = PendingMetrics::default();
            self.add_delivery(&mut metrics, &message);
            let mut work = [Work::again(message)];
            let started = Stopwatch::now();
            let done = self.work_on(&mut work, std::slice::from_ref(&receipt)).await;
            let metrics = metrics.decided(&work);
            let [Work { answer, .. }] = work;
            let answer = answer.unwrap_or(Answer::GivenUp);
            if !answer.is_failure() || attempt <= most || self.failures > 0 {
                if !answer.is_failure() {
                    self.note_health(std::slice::from_ref(&answer));
                }
                let retry_after = pause_after(attempt);
                let (callers, answers, delivered) = (None, Vec::new(), vec![(receipt, answer)]);
                let decided = DecidedBatch {
                    started,
                    done,
                    callers,
                    answers,
                    delivered,
                    retry_after,
                    metrics,
                };
                return self.completer.hand_over(decided).await;
            }
        }
        metrics::counter!("flux_buried_total").increment(1);
        warn!(attempt, "a message is given up");
        let reason = format!("delivered {attempt} times and never settled, while others were");
        if let Err(error) = self.core.backend.queue.bury(&[(receipt, reason)]).await {
            debug!(%error, "the message was not buried; it comes back");
        }
        true
    }

    /// Waits for a fuller batch: while the last one is on its way to the disk,
    /// and after that, under load, for about one write's time, in which the
    /// callers of the last batch come back. One write for all of them is cheaper
    /// than two. An idle worker, or one with few callers, goes on at once.
    async fn linger(&self) {
        tokio::select! {
            () = self.completer.completed() => {}
            () = self.core.inbox.full_enough() => return,
        }
        let enough = (self.last_asked / 2).min(ENOUGH);
        if self.last_asked < 8 {
            return;
        }
        let (since, longest) = (Stopwatch::now(), self.completer.last_took().min(LINGER_MAX));
        // Timers are coarser than this wait; yielding lets the callers run.
        while self.core.inbox.len() < enough && since.elapsed() < longest {
            tokio::task::yield_now().await;
        }
    }

    async fn work_on(&mut self, batch: &mut [Work], receipts: &[Receipt]) -> Done {
        (self.holds_items, self.busy_at) = (true, Instant::now());
        let working = self.processor.work(batch);
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

    async fn ended_holds(&mut self) -> Vec<Message> {
        let now = Instant::now();
        if now < self.next_sweep {
            return Vec::new();
        }
        let today = self.core.clock.now();
        let DueHolds { due, next } =
            self.core.backend.store.due_holds(today, SWEEP_MAX).await.unwrap_or_else(|error| {
                debug!(%error, "ended holds could not be read");
                DueHolds { due: Vec::new(), next: Some(today) }
            });
        // G8: what an ended hold set aside is sold again. A full sweep means more.
        if due.len() < SWEEP_MAX {
            let settings = &self.core.settings;
            let is_idle = due.is_empty() && next.is_none() && self.busy_at.elapsed() >= QUIET_AFTER;
            let every = if is_idle { settings.idle_sweep_every } else { settings.sweep_every };
            // Not all workers at once: one is enough.
            let ends_in = next.map_or(Duration::MAX, |next| next.since(today).max(SWEEP_GAP_MIN));
            self.next_sweep =
                from_now(spread(every).min(ends_in.saturating_add(spread(SWEEP_GAP_MIN))));
        }
        due.into_iter().map(Message::Expire).collect()
    }
}

/// Time to leave a message alone that failed so many times.
fn pause_after(failures: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << failures.min(10)).min(Duration::from_secs(30))
}
