//! The state that the calls, the worker and the listener share, and how an
//! order is looked up, waited for and put to the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Span, debug, error};

use super::accept::gate::Gate;
use super::accept::id_guard::{GuardedIds, IdGuard};
use super::accept::inbox::Inbox;
use super::accept::queued_spans::QueuedSpans;
use super::accept::sweep_alarm::SweepAlarm;
use super::accept::waiters::{Waiters, Waiting};
use super::clock_watch::ClockWatch;
use super::error::Error;
use super::failure::Failure;
use super::settings::{Role, Settings};
use super::steady_clock::SteadyClock;
use crate::backends::Backend;
use crate::backoff::spread_by;
use crate::clock::Clock;
use crate::protocol::{Line, Message, Order, OrderId, OrderStatus, Timestamp};
use crate::random::Random;
use crate::seams::{Outcomes, Recalled, SeamError, Sight, partition_of_lines};
use crate::sync::timeout_at;

/// Longest time that the bus gets to take outcomes.
const PUBLISH_MAX: Duration = Duration::from_secs(1);
/// The first and the longest time between two looks at an order that a call
/// waits for: the bus may lose its outcome.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Time after which an engine's own worker decides what another serves and did not decide.
pub(super) const UNSERVED_AFTER: Duration = Duration::from_secs(1);
/// The age of an id by its own word up to which its order may be decided right now: time for
/// the decision, for reads that lag, and for clocks that differ.
const MADE_OF_LATE: Duration = Duration::from_secs(60);
/// Least time from one sweep to the next.
const SWEEP_GAP_MIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Backend,
    pub(super) clock: SteadyClock,
    pub(super) clock_watch: ClockWatch,
    pub(super) settings: Settings,
    pub(super) role: Role,
    /// Chooses the waits that are left to chance.
    pub(super) chance: Random,
    pub(super) gate: Gate,
    pub(super) guarded_ids: Arc<GuardedIds>,
    pub(super) inbox: Inbox,
    pub(super) waiters: Waiters,
    pub(super) sweep_alarm: SweepAlarm,
    pub(super) queued_spans: QueuedSpans,
    /// Whether the worker serves each of the queue's partitions.
    pub(super) serves: Vec<AtomicBool>,
    /// The reason why it can't go on, once there is one.
    pub(super) failure: watch::Sender<Option<Failure>>,
    /// The counter of orders refused at the gate; kept, because looking it up
    /// costs as much as the gate's answer.
    pub(super) turned_away: metrics::Counter,
}

impl Core {
    pub(super) fn new(
        backend: Backend,
        clock: Arc<dyn Clock>,
        settings: Settings,
        role: Role,
        chance: Random,
    ) -> Self {
        let settings = settings.within_reason();
        let kept = backend.store.kept_clock();
        let serves = backend.queues().iter().map(|_| AtomicBool::new(true)).collect();
        Self {
            backend,
            clock: SteadyClock::starting(clock, kept),
            clock_watch: ClockWatch::starting(kept.reference),
            role,
            chance,
            gate: Gate::default(),
            guarded_ids: Arc::new(GuardedIds::default()),
            inbox: Inbox::new(settings.batch_max, settings.calls_max),
            waiters: Waiters::new(settings.outcome_waits_max),
            sweep_alarm: SweepAlarm::new(),
            queued_spans: QueuedSpans::default(),
            serves,
            failure: watch::Sender::new(None),
            turned_away: metrics::counter!("flux_gate_turned_away_total"),
            settings,
        }
    }

    /// Whether this engine's own worker decides orders.
    pub(super) fn has_worker(&self) -> bool {
        self.role == Role::Both
    }

    /// Whether this engine's own worker decides the orders over these lines: it has their
    /// partition, as far as is known.
    pub(super) fn decides(&self, lines: &[Line]) -> bool {
        let partitions = self.serves.len();
        self.has_worker()
            && (partitions < 2
                || self.serves[partition_of_lines(lines, partitions)].load(Ordering::Relaxed))
    }

    /// Takes nothing more, as the engine can't go on. The first reason counts.
    pub(super) fn fail(&self, failure: &Failure) {
        self.inbox.close();
        let is_first = self.failure.send_if_modified(|known| match known {
            Some(_) => false,
            None => {
                *known = Some(failure.clone());
                true
            }
        });
        if is_first {
            error!(error = failure as &dyn std::error::Error, "the engine has failed");
        }
    }

    /// Takes note of what a call of the store or the queue answered: one that has
    /// stopped is the end of the engine.
    pub(super) fn note(&self, error: &SeamError) {
        if matches!(error, SeamError::Stopped { .. }) {
            self.fail(&Failure::Backend(error.clone()));
        }
    }

    /// Publishes outcomes, best effort: calls that wait look at the store now and
    /// then.
    pub(super) async fn publish(&self, outcomes: Arc<Outcomes>) {
        let published = timeout(PUBLISH_MAX, self.backend.bus.publish(outcomes)).await;
        if !matches!(published, Ok(Ok(()))) {
            metrics::counter!("flux_unpublished_total").increment(1);
            debug!(?published, "the outcomes were not published");
        }
    }

    /// Has the worker look for ended holds in time for those of `orders`.
    pub(super) fn expect_ends(&self, orders: &[Order]) {
        let held = orders.iter().filter(|order| order.status() == OrderStatus::Held);
        let ends = held.filter_map(Order::hold).map(|hold| hold.expires_at);
        if let Some(first_end) = ends.min() {
            self.expect_end(Some(first_end));
        }
    }

    /// Has the worker look for ended holds by `first_end`, or soon where it is
    /// not known which holds there are.
    pub(super) fn expect_end(&self, first_end: Option<Timestamp>) {
        if self.has_worker() {
            self.sweep_alarm.expect(self.sweep_at(self.settings.sweep_every, first_end));
        }
    }

    /// The moment of the next sweep, if the first hold ends at `first_end`.
    pub(super) fn sweep_at(&self, every: Duration, first_end: Option<Timestamp>) -> Instant {
        let ends_in = |end: Timestamp| end.since(self.clock.now()).max(SWEEP_GAP_MIN);
        let ends_in = first_end.map_or(Duration::MAX, ends_in);
        // Not all workers at once: one is enough.
        let gap = spread_by(SWEEP_GAP_MIN, &self.chance);
        from_now(spread_by(every, &self.chance).min(ends_in.saturating_add(gap)))
    }

    /// The order as it stands, queued ones included.
    pub(super) async fn order(&self, id: OrderId) -> Result<Option<Order>, Error> {
        if let Some(order) = self.known(id).await? {
            return Ok(Some(order));
        }
        match self.backend.find_queued(id).await? {
            Some(order) => Ok(Some(order)),
            // Decided and acknowledged between the two looks.
            None => self.known(id).await,
        }
    }

    /// As [`order`](Self::order), for an id that is new most likely: with one look at the
    /// store. The queue is asked first, as it has an order until its decision is durable. If
    /// it recalls nothing of late, a look that may lag is enough to see what is not there.
    pub(super) async fn order_of_new_id(&self, id: OrderId) -> Result<Option<Order>, Error> {
        // G3: a repeat is known by its id; in doubt the store is asked for what is so now.
        let queued = match self.backend.recall(id).await? {
            Recalled::Unheard if !self.is_made_of_late(id) => {
                match self.backend.store.known(&[id], Sight::MayLag).await?.pop().flatten() {
                    None => return Ok(None),
                    Some(_before) => None,
                }
            }
            Recalled::Waits(order) => Some(order),
            Recalled::Unheard | Recalled::Unknown => None,
        };
        Ok(self.known(id).await?.or(queued))
    }

    /// Whether an engine may have made an id in the last minute. Nobody announces these.
    fn is_made_of_late(&self, id: OrderId) -> bool {
        let now = self.clock.now();
        id.made_at().is_some_and(|at| at.since(now).max(now.since(at)) < MADE_OF_LATE)
    }

    /// The order as the store has it, decided or noted.
    pub(super) async fn known(&self, id: OrderId) -> Result<Option<Order>, Error> {
        Ok(self.backend.store.known(&[id], Sight::Now).await?.pop().flatten())
    }

    /// Waits until the order is decided, up to `longest`; returns it as it then
    /// stands.
    pub(super) async fn wait(&self, id: OrderId, longest: Duration) -> Result<Order, Error> {
        let waiting = self.waiters.register(id)?;
        self.until(id, &waiting, longest, is_decided).await?.ok_or(Error::NotFound(id))
    }

    /// Hands a message about an order over these lines to the worker that serves its
    /// partition, here or elsewhere, and returns the order once `ruled` says
    /// that it was ruled on. `asking` is the span of the request.
    pub(super) async fn rule(
        &self,
        message: Message,
        lines: &[Line],
        ruled: impl Fn(&Order) -> bool,
        asking: &Span,
    ) -> Result<Order, Error> {
        if self.decides(lines) {
            return self.inbox.ask(message, None, asking).await;
        }
        Box::pin(self.rule_elsewhere(message, lines, ruled)).await
    }

    async fn rule_elsewhere(
        &self,
        message: Message,
        lines: &[Line],
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        let waiting = self.waiters.register(message.order_id())?;
        self.backend.queue_of(lines).send(std::slice::from_ref(&message)).await?;
        self.ruling(message, None, &waiting, ruled).await
    }

    /// Waits for a ruling on a message in the queue: by a worker elsewhere or, as whoever
    /// serves it may have died a moment ago, by the engine's own after a while.
    pub(super) async fn ruling(
        &self,
        message: Message,
        guard: Option<Arc<IdGuard>>,
        waiting: &Waiting<'_>,
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        let id = message.order_id();
        let patience = match self.has_worker() {
            true => UNSERVED_AFTER,
            false => self.settings.decision_timeout,
        };
        // It may take effect, whatever else goes wrong.
        let pending = Error::OutcomePending(id);
        match self.until(id, waiting, patience, &ruled).await {
            Ok(Some(order)) if ruled(&order) => Ok(order),
            _ if self.has_worker() => {
                let asked = self.inbox.ask(message, guard, &Span::current()).await;
                asked.map_err(|_| pending)
            }
            _ => Err(pending),
        }
    }

    /// The order once it is `done`, or as it stands when the wait runs out;
    /// `None` at once if there is no such order and the queue would know.
    async fn until(
        &self,
        id: OrderId,
        waiting: &Waiting<'_>,
        longest: Duration,
        done: impl Fn(&Order) -> bool,
    ) -> Result<Option<Order>, Error> {
        let [mut look, look_max] = LOOK_EVERY;
        let deadline = from_now(longest);
        loop {
            let told = waiting.told();
            tokio::pin!(told);
            // Registered before the look, or the outcome could fall in between.
            told.as_mut().enable();
            let now = Instant::now();
            match self.order(id).await {
                Ok(order) => {
                    let is_over = match &order {
                        Some(order) => done(order),
                        None => self.backend.queues().iter().all(|queue| queue.finds_all()),
                    };
                    if is_over || now >= deadline {
                        return Ok(order);
                    }
                }
                Err(Error::Backend(error)) if error.can_retry() && now < deadline => {
                    debug!(%error, "the order could not be read; looking again");
                }
                Err(error) => return Err(error),
            }
            let _ = timeout_at(deadline.min(now + look), told).await;
            look = (look * 2).min(look_max);
        }
    }
}

pub(super) fn is_decided(order: &Order) -> bool {
    order.status() != OrderStatus::Queued
}

/// Completes when the engine is told to stop, or when no handle to it is left.
/// Cancel-safe.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// `after` from now; a time past all reason becomes a year.
pub(super) fn from_now(after: Duration) -> Instant {
    Instant::now() + after.min(Duration::from_secs(365 * 24 * 3600))
}
