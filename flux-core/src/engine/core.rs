//! The state that the calls, the worker and the listener share, and how an
//! order is looked up, waited for and put to the worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Span, debug};

use super::accept::gate::Gate;
use super::accept::id_guard::GuardedIds;
use super::accept::inbox::Inbox;
use super::accept::queued_spans::QueuedSpans;
use super::accept::waiters::{Waiters, Waiting};
use super::error::Error;
use super::settings::{Role, Settings};
use crate::backends::Backend;
use crate::clock::Clock;
use crate::protocol::{Message, Order, OrderId, OrderStatus};
use crate::seams::Outcomes;

/// Longest time that the bus gets to take outcomes.
const PUBLISH_MAX: Duration = Duration::from_secs(1);
/// The first and the longest time between two looks at an order that a call
/// waits for: the bus may lose its outcome.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Backend,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) role: Role,
    pub(super) gate: Gate,
    pub(super) guarded_ids: Arc<GuardedIds>,
    pub(super) inbox: Inbox,
    pub(super) waiters: Waiters,
    pub(super) queued_spans: QueuedSpans,
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
    ) -> Self {
        let settings = settings.within_reason();
        Self {
            backend,
            clock,
            role,
            gate: Gate::default(),
            guarded_ids: Arc::new(GuardedIds::default()),
            inbox: Inbox::new(settings.batch_max, settings.calls_max),
            waiters: Waiters::new(settings.outcome_waits_max),
            queued_spans: QueuedSpans::default(),
            turned_away: metrics::counter!("flux_gate_turned_away_total"),
            settings,
        }
    }

    /// Whether this engine's own worker decides orders.
    pub(super) fn has_worker(&self) -> bool {
        self.role == Role::Both
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

    /// The order as it stands, queued ones included.
    pub(super) async fn order(&self, id: OrderId) -> Result<Option<Order>, Error> {
        if let Some(order) = self.decided(id).await? {
            return Ok(Some(order));
        }
        match self.backend.queue.find(id).await? {
            Some(order) => Ok(Some(order)),
            // Decided and acknowledged between the two looks.
            None => self.decided(id).await,
        }
    }

    /// The order as the store has it.
    pub(super) async fn decided(&self, id: OrderId) -> Result<Option<Order>, Error> {
        let found = self.backend.store.orders(&[id]).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Waits until the order is decided, up to `longest`; returns it as it then
    /// stands.
    pub(super) async fn wait(&self, id: OrderId, longest: Duration) -> Result<Order, Error> {
        let waiting = self.waiters.register(id)?;
        self.until(id, &waiting, longest, is_decided).await?.ok_or(Error::NotFound(id))
    }

    /// Hands a message to a worker, here or elsewhere, and returns the order once
    /// `ruled` says that it was ruled on. `asking` is the span of the request.
    pub(super) async fn rule(
        &self,
        message: Message,
        ruled: impl Fn(&Order) -> bool,
        asking: &Span,
    ) -> Result<Order, Error> {
        if self.has_worker() {
            return self.inbox.ask(message, None, asking).await;
        }
        Box::pin(self.rule_elsewhere(message, ruled)).await
    }

    async fn rule_elsewhere(
        &self,
        message: Message,
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        let id = message.order_id();
        let waiting = self.waiters.register(id)?;
        self.backend.queue.send(&[message]).await?;
        self.ruling(id, &waiting, ruled).await
    }

    /// Waits for a worker elsewhere to rule on a message in the queue.
    pub(super) async fn ruling(
        &self,
        id: OrderId,
        waiting: &Waiting<'_>,
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        // It may take effect, whatever else goes wrong.
        match self.until(id, waiting, self.settings.decision_timeout, &ruled).await {
            Ok(Some(order)) if ruled(&order) => Ok(order),
            _ => Err(Error::OutcomePending(id)),
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
            let order = match self.order(id).await {
                Ok(order) => order,
                Err(Error::Backend(error)) if error.can_retry() && now < deadline => {
                    debug!(%error, "the order could not be read; looking again");
                    tokio::time::sleep_until(deadline.min(now + look)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_over = match &order {
                Some(order) => done(order),
                None => self.backend.queue.finds_all(),
            };
            if is_over || now >= deadline {
                return Ok(order);
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
