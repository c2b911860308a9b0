//! The calls an application makes; those that bring an order in are in
//! `placing`.

use std::sync::Arc;
use std::time::Duration;

use bon::bon;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Span;

use super::accept::gate::Gate;
use super::accept::id_guard::GuardedIds;
use super::accept::inbox::Inbox;
use super::accept::queued_spans::QueuedSpans;
use super::accept::waiters::{Waiters, Waiting};
use super::audit::{self, Audit};
use super::core::{Core, from_now};
use super::error::Error;
use super::settings::Settings;
use super::worker;
use super::worker::completion;
use crate::backends::Backend;
#[cfg(feature = "embedded")]
use crate::backends::embedded::Embedded;
use crate::clock::{Clock, SystemClock};
use crate::protocol::{
    Item, ItemId, ItemKind, ItemSpec, Message, Order, OrderId, OrderStatus, PaymentRef, SeatId,
    Stock,
};
use crate::seams::{
    Availability, ConfirmOutcome, Cursor, DeadLetter, OrderFilter, OrderPage, OutcomeReceiver,
    Outcomes, Payment, PutOutcome,
};

/// A sale: items, orders and the worker that decides them. Cheap to clone;
/// the worker stops when the last clone is dropped or
/// [`shutdown`](Self::shutdown) is called.
///
/// Every call may be dropped at any point and repeated: an order id is decided
/// once. A dropped call may still take effect.
#[derive(Debug, Clone)]
pub struct Flux {
    pub(super) core: Arc<Core>,
    pub(super) running: Arc<Running>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    pub(super) has_worker: bool,
}

/// Whether an engine decides orders itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Accepts orders and decides them.
    #[default]
    Both,
    /// Accepts orders; a worker elsewhere, on the same queue and store,
    /// decides them.
    AcceptOnly,
}

#[bon]
impl Flux {
    /// Starts an engine on `backend`. Must be called within a tokio runtime,
    /// and after the application installed its metrics recorder.
    #[builder(finish_fn = start)]
    pub fn builder(
        #[builder(start_fn)] backend: Backend,
        #[builder(default)] settings: Settings,
        #[builder(default = Arc::new(SystemClock))] clock: Arc<dyn Clock>,
        #[builder(default)] role: Role,
    ) -> Self {
        let settings = settings.within_reason();
        let core = Arc::new(Core {
            backend,
            clock,
            gate: Gate::default(),
            guarded_ids: Arc::new(GuardedIds::default()),
            inbox: Inbox::new(settings.batch_max, settings.calls_max),
            waiters: Waiters::new(settings.outcome_waits_max),
            queued_spans: QueuedSpans::default(),
            turned_away: metrics::counter!("flux_gate_turned_away_total"),
            settings,
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![
            tokio::spawn(worker::listen(Arc::clone(&core), stopped.clone())),
            tokio::spawn(worker::refresh(Arc::clone(&core), stopped.clone())),
        ];
        if role == Role::Both {
            tasks.push(tokio::spawn(worker::work(Arc::clone(&core), stopped)));
        }
        let has_worker = role == Role::Both;
        Self { core, running: Arc::new(Running { stop, tasks: Mutex::new(tasks), has_worker }) }
    }
}

#[cfg(feature = "embedded")]
impl Flux {
    /// Opens the sale kept in a directory, which is made if it is missing, and
    /// starts its worker: the [embedded backend](crate::backends::embedded) with
    /// the defaults of everything.
    ///
    /// # Errors
    /// [`OpenError`](crate::backends::embedded::OpenError) when the directory
    /// is in use, damaged or can't be read.
    pub async fn open(
        path: impl Into<std::path::PathBuf>,
    ) -> Result<Self, crate::backends::embedded::OpenError> {
        let path = path.into();
        let opening = tokio::task::spawn_blocking(move || Embedded::open(path));
        let embedded =
            opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(Self::builder(embedded.backend()).start())
    }
}

impl Flux {
    /// Creates an item or replaces its definition; what is taken stays taken.
    ///
    /// # Errors
    /// [`Error::PutItem`] when the new definition doesn't fit what is sold.
    pub async fn put_item(&self, spec: ItemSpec) -> Result<PutOutcome, Error> {
        let store = &self.core.backend.store;
        let outcome = match store.put_item(&spec).await? {
            PutOutcome::Refused(why) => return Err(Error::PutItem(why)),
            outcome => outcome,
        };
        if let Some(item) = self.item(&spec.id).await? {
            let level = Availability { item: spec.id, available: item.available };
            self.core.gate.set(item.spec, item.available);
            self.core
                .publish(Arc::new(Outcomes { orders: Vec::new(), availability: vec![level] }))
                .await;
        }
        Ok(outcome)
    }

    /// An item and where its units are.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn item(&self, id: &ItemId) -> Result<Option<Item>, Error> {
        let found = self.core.backend.store.items(std::slice::from_ref(id)).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Items by id, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn items(&self, after: Option<&ItemId>, limit: usize) -> Result<Vec<Item>, Error> {
        Ok(self.core.backend.store.list_items(after, limit).await?)
    }

    /// The seats of a hall in order, each with whether it is taken; `None` for
    /// a pool.
    ///
    /// # Errors
    /// [`Error::UnknownItem`], [`Error::Backend`].
    pub async fn seats(&self, id: &ItemId) -> Result<Option<Vec<(SeatId, bool)>>, Error> {
        let found = self.core.backend.store.stock(id).await?;
        let (spec, stock) = found.ok_or_else(|| Error::UnknownItem(id.clone()))?;
        let (ItemKind::Seats(hall), Stock::Seats(map)) = (&spec.kind, &stock) else {
            return Ok(None);
        };
        let places = hall.names().iter().zip(0..);
        Ok(Some(places.map(|(seat, place)| (seat.clone(), map.is_taken(place))).collect()))
    }

    /// Waits until the order is decided, up to `longest`; returns it as it then
    /// stands, which is queued when the wait ran out.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn wait(&self, id: OrderId, longest: Duration) -> Result<Order, Error> {
        let waiting = self.core.waiters.register(id)?;
        self.until(id, &waiting, longest, is_decided).await?.ok_or(Error::NotFound(id))
    }

    /// The order as it stands, queued ones included.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, Error> {
        let backend = &self.core.backend;
        if let Some(order) = self.decided(id).await? {
            return Ok(Some(order));
        }
        match backend.queue.find(id).await? {
            Some(order) => Ok(Some(order)),
            // Decided and acknowledged between the two looks.
            None => self.decided(id).await,
        }
    }

    async fn decided(&self, id: OrderId) -> Result<Option<Order>, Error> {
        let found = self.core.backend.store.orders(&[id]).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Lists decided orders, oldest first where the store can; pages may be
    /// short.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, Error> {
        Ok(self.core.backend.store.list_orders(filter, after, limit).await?)
    }

    /// Pays a held order. Repeating it with the same payment is safe. Money
    /// that comes after the hold ended takes the stock again if it is still
    /// there.
    ///
    /// # Errors
    /// [`Error::RefundDue`] when it came too late and the stock is gone,
    /// [`Error::NotHeld`], [`Error::NotFound`], [`Error::OutcomePending`],
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn confirm(&self, id: OrderId, payment: PaymentRef) -> Result<Order, Error> {
        let at = self.core.clock.now();
        let asked = Payment { order: id, payment: payment.clone(), at };
        let ruled = self.core.backend.store.confirm(std::slice::from_ref(&asked)).await?;
        let order = match ruled.into_iter().next() {
            Some(ConfirmOutcome::Settled(order)) => {
                let outcomes = Outcomes { orders: vec![order.clone()], availability: Vec::new() };
                completion::count(&outcomes);
                self.core.publish(Arc::new(outcomes)).await;
                order
            }
            Some(ConfirmOutcome::Late(_)) => {
                let ruled = |order: &Order| {
                    !matches!(order.status(), OrderStatus::Held | OrderStatus::Expired)
                };
                self.rule(Message::LatePayment(id, payment.clone()), ruled, &Span::current())
                    .await?
            }
            Some(ConfirmOutcome::NotHeld(order)) => return Err(Error::NotHeld(Box::new(order))),
            Some(ConfirmOutcome::NotFound) | None => {
                let queued = self.order(id).await?.ok_or(Error::NotFound(id))?;
                return Err(Error::NotHeld(Box::new(queued)));
            }
        };
        match order.status() {
            OrderStatus::Confirmed if order.payment_ref() == Some(&payment) => Ok(order),
            OrderStatus::RefundDue if order.payment_ref() == Some(&payment) => {
                Err(Error::RefundDue(Box::new(order)))
            }
            _ => Err(Error::NotHeld(Box::new(order))),
        }
    }

    /// Gives a held order's stock back. Repeating it is safe; a queued order
    /// is decided first.
    ///
    /// # Errors
    /// [`Error::NotHeld`], [`Error::NotFound`], [`Error::OutcomePending`],
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn release(&self, id: OrderId) -> Result<Order, Error> {
        let known = self.order(id).await?.ok_or(Error::NotFound(id))?;
        let order = match is_decided(&known) {
            true => known,
            false => self.wait(id, self.core.settings.decision_timeout).await?,
        };
        let order = match order.status() {
            OrderStatus::Queued => return Err(Error::OutcomePending(id)),
            OrderStatus::Held => {
                let ruled = |order: &Order| order.status() != OrderStatus::Held;
                self.rule(Message::Release(id), ruled, &Span::current()).await?
            }
            _ => order,
        };
        match order.status() {
            OrderStatus::Released => Ok(order),
            _ => Err(Error::NotHeld(Box::new(order))),
        }
    }

    /// Takes a confirmed order back and frees its stock. Repeating it is safe.
    ///
    /// # Errors
    /// [`Error::NotConfirmed`], [`Error::NotFound`], [`Error::OutcomePending`],
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn cancel(&self, id: OrderId) -> Result<Order, Error> {
        let order = self.order(id).await?.ok_or(Error::NotFound(id))?;
        let order = match order.status() {
            OrderStatus::Confirmed => {
                let ruled = |order: &Order| order.status() != OrderStatus::Confirmed;
                self.rule(Message::Cancel(id), ruled, &Span::current()).await?
            }
            _ => order,
        };
        match order.status() {
            OrderStatus::Cancelled => Ok(order),
            _ => Err(Error::NotConfirmed(Box::new(order))),
        }
    }

    /// Asks store and queue for something small, and returns when both have
    /// answered.
    ///
    /// # Errors
    /// [`Error::Backend`] when one of them does not work.
    pub async fn check_backends(&self) -> Result<(), Error> {
        self.decided(OrderId::from_uuid(uuid::Uuid::nil())).await?;
        self.core.backend.queue.depth().await?;
        Ok(())
    }

    /// Hears of every decision and change of level from now on. A receiver
    /// that falls behind loses the oldest outcomes and is told so.
    #[must_use]
    pub fn subscribe(&self) -> OutcomeReceiver {
        self.core.backend.bus.subscribe()
    }

    /// Counts the whole store anew and holds it against the guarantees. For a
    /// store at rest; it reads every order.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn audit(&self) -> Result<Audit, Error> {
        Ok(audit::run(&*self.core.backend.store, self.core.clock.now()).await?)
    }

    /// Up to `max` messages the worker gave up, oldest first, each with why.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.core.backend.queue.dead_letters(max).await?)
    }

    /// Puts up to `max` dead letters back in the queue and says how many.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn redrive(&self, max: usize) -> Result<usize, Error> {
        Ok(self.core.backend.queue.redrive(max).await?)
    }

    /// How much waits in the queue and in the inbox.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn depth(&self) -> Result<crate::seams::QueueDepth, Error> {
        let mut depth = self.core.backend.queue.depth().await?;
        depth.waiting += self.core.inbox.len() as u64;
        Ok(depth)
    }

    /// Stops: accepts nothing more, decides what was asked of this engine's
    /// worker, hands the rest back to the queue, and returns when the worker
    /// is done. Bound it with a time-out of your own; dropping it leaves the
    /// engine stopping.
    pub async fn shutdown(&self) {
        self.core.inbox.close();
        // Nobody listening means it has stopped.
        self.running.stop.send_replace(true);
        // A call that is dropped half-way leaves the rest to the next.
        let mut tasks = self.running.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the engine failed");
            }
            tasks.pop();
        }
    }

    /// Has the worker rule, here or elsewhere, and returns the order once
    /// `ruled` says it did. `asking` is the span that asks.
    pub(super) async fn rule(
        &self,
        message: Message,
        ruled: impl Fn(&Order) -> bool,
        asking: &Span,
    ) -> Result<Order, Error> {
        if self.running.has_worker {
            return self.core.inbox.ask(message, None, asking).await;
        }
        Box::pin(self.rule_elsewhere(message, ruled)).await
    }

    async fn rule_elsewhere(
        &self,
        message: Message,
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        let id = message.order_id();
        let waiting = self.core.waiters.register(id)?;
        self.core.backend.queue.send(&[message]).await?;
        self.ruling(id, &waiting, ruled).await
    }

    /// What a worker elsewhere makes of a message in the queue.
    pub(super) async fn ruling(
        &self,
        id: OrderId,
        waiting: &Waiting<'_>,
        ruled: impl Fn(&Order) -> bool,
    ) -> Result<Order, Error> {
        // It may take effect, whatever else goes wrong.
        match self.until(id, waiting, self.core.settings.decision_timeout, &ruled).await {
            Ok(Some(order)) if ruled(&order) => Ok(order),
            _ => Err(Error::OutcomePending(id)),
        }
    }

    /// The order once `done` holds, or as it stands when the wait runs out;
    /// at once `None` if there is no such order and the queue would know.
    async fn until(
        &self,
        id: OrderId,
        waiting: &Waiting<'_>,
        longest: Duration,
        done: impl Fn(&Order) -> bool,
    ) -> Result<Option<Order>, Error> {
        const LOOK_MIN: Duration = Duration::from_millis(100);
        const LOOK_MAX: Duration = Duration::from_secs(2);
        let deadline = from_now(longest);
        let mut look = LOOK_MIN;
        loop {
            let outcomes = waiting.outcomes();
            tokio::pin!(outcomes);
            // Registered before the look, or outcomes could fall in between.
            outcomes.as_mut().enable();
            let now = Instant::now();
            let order = match self.order(id).await {
                Ok(order) => order,
                Err(Error::Backend(error)) if error.can_retry() && now < deadline => {
                    tracing::debug!(%error, "the order could not be read; looking again");
                    tokio::time::sleep_until(deadline.min(now + look)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let settled = match &order {
                Some(order) => done(order),
                None => self.core.backend.queue.finds_all(),
            };
            if settled || now >= deadline {
                return Ok(order);
            }
            // The bus may lose a message, so look again now and then.
            let _ = tokio::time::timeout_at(deadline.min(now + look), outcomes).await;
            look = (look * 2).min(LOOK_MAX);
        }
    }
}

pub(super) fn is_decided(order: &Order) -> bool {
    order.status() != OrderStatus::Queued
}
