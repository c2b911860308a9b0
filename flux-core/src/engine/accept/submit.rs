//! Brings an order in: past the gate, to the durable queue or straight to the
//! worker.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use tokio::time::timeout;
use tracing::{Instrument, Span, debug, debug_span};

use super::id_guard::IdGuard;
use super::repeats::{Admitted, same};
use crate::engine::core::{Core, UNSERVED_AFTER, is_decided};
use crate::engine::error::Error;
use crate::engine::request::OrderRequest;
use crate::protocol::{InvalidInput, Message, Order, OrderId, Timestamp};
use crate::seams::SeamError;

/// What is known of an order under an id of its caller's own.
pub(super) enum Chosen {
    /// Nothing.
    New,
    /// The queue has it: that one was accepted, and its time of acceptance counts.
    Queued(Order),
    /// It is decided.
    Decided(Order),
}

impl Core {
    /// Accepts an order into the queue.
    pub(crate) async fn submit(&self, request: OrderRequest) -> Result<Order, Error> {
        match self.admit(request).await? {
            Admitted::Decided(order) => Ok(order),
            Admitted::New(order, guard) => self.enqueue(order, guard).await,
        }
    }

    /// Has an order decided.
    pub(crate) async fn place(&self, request: OrderRequest) -> Result<Order, Error> {
        match self.admit(request).await? {
            Admitted::Decided(order) => Ok(order),
            Admitted::New(order, guard) => self.decided_now(order, guard).await,
        }
    }

    /// Has an order decided if that takes no longer than `longest`, else
    /// accepts it.
    pub(crate) async fn place_within(
        &self,
        request: OrderRequest,
        longest: Duration,
    ) -> Result<Order, Error> {
        if longest.is_zero() {
            return self.submit(request).await;
        }
        match self.admit(request).await? {
            Admitted::Decided(order) => Ok(order),
            Admitted::New(order, guard) => self.accepted_within(order, guard, longest).await,
        }
    }

    /// An admitted order, decided if that takes no longer than `longest`, else accepted.
    pub(super) async fn accepted_within(
        &self,
        order: Order,
        guard: Option<Arc<IdGuard>>,
        longest: Duration,
    ) -> Result<Order, Error> {
        if self.decides(&order.lines) {
            let deciding = self.decided_now(order.clone(), guard.clone());
            return match timeout(longest, deciding).await {
                Ok(decided) => decided,
                Err(_) => self.enqueue_too(order, guard).await,
            };
        }
        let accepted = self.enqueue(order, guard.clone()).await?;
        if is_decided(&accepted) {
            return Ok(accepted);
        }
        let patience = match self.has_worker() {
            true => longest.min(UNSERVED_AFTER),
            false => longest,
        };
        match self.wait(accepted.id, patience).await {
            // Whoever serves it may have died a moment ago.
            Ok(order) if !is_decided(&order) && patience < longest => {
                let (message, span) = (Message::Place(order.clone()), Span::none());
                let deciding = self.inbox.ask(message, guard, &span);
                match timeout(longest - patience, deciding).await {
                    Ok(Ok(decided)) => same(&accepted, decided),
                    Ok(Err(_)) | Err(_) => Ok(order),
                }
            }
            Ok(order) => same(&accepted, order),
            Err(error) => {
                debug!(%error, "an order is accepted and could not be waited for");
                Ok(accepted)
            }
        }
    }

    async fn admit(&self, request: OrderRequest) -> Result<Admitted, Error> {
        self.admit_at(self.clock.now(), request).await
    }

    /// Admits an order that is placed `now`: opening and closing are judged by the same
    /// reading as in the decision.
    pub(super) async fn admit_at(
        &self,
        now: Timestamp,
        request: OrderRequest,
    ) -> Result<Admitted, Error> {
        if self.inbox.is_closed() {
            return Err(Error::ShuttingDown);
        }
        let chosen = request.chosen_id()?;
        let OrderRequest { id, buyer, lines, metadata, .. } = request;
        if let Some(id) = id.filter(OrderId::stands_for_a_key) {
            let order = Order::queued(id, buyer, lines, now).with_metadata(metadata);
            return Box::pin(self.admit_chosen(order, Some(a_keys_id()))).await;
        }
        let refusal = self.gate.check(&lines, now, &*self.backend.store).await?;
        if let Some(id) = chosen {
            let order = Order::queued(id, buyer, lines, now).with_metadata(metadata);
            return Box::pin(self.admit_chosen(order, refusal)).await;
        }
        match refusal {
            None => {
                let order = Order::queued(OrderId::new(), buyer, lines, now);
                Ok(Admitted::New(order.with_metadata(metadata), None))
            }
            Some(refusal) => Err(self.refused(refusal)),
        }
    }

    pub(super) fn refused(&self, refusal: Error) -> Error {
        if refusal.is_of_the_gate() {
            self.turned_away.increment(1);
        }
        refusal
    }

    pub(super) async fn decided_now(
        &self,
        order: Order,
        guard: Option<Arc<IdGuard>>,
    ) -> Result<Order, Error> {
        let span = debug_span!(target: "flux", "place", order = %order.id);
        let deciding = async {
            match guard {
                None => {
                    let lines = order.lines.clone();
                    self.rule(Message::Place(order), &lines, is_decided, &span).await
                }
                // Boxed, so that calls without an id of their own stay small.
                Some(guard) => Box::pin(self.decide_chosen(order, guard, &span)).await,
            }
        };
        deciding.instrument(span.clone()).await
    }

    /// Has an order decided whose id is guarded. An order that the queue has
    /// under this id is decided in its stead: that one was accepted, and its
    /// time of acceptance counts.
    async fn decide_chosen(
        &self,
        order: Order,
        guard: Arc<IdGuard>,
        span: &Span,
    ) -> Result<Order, Error> {
        let (queued, is_queued) = match self.chosen(&order).await? {
            Chosen::Decided(decided) => return Ok(decided),
            Chosen::Queued(queued) => (queued, true),
            Chosen::New => (order.clone(), false),
        };
        let message = Message::Place(queued);
        let decided = if self.decides(&order.lines) {
            self.inbox.ask(message, Some(guard), span).await?
        } else {
            let waiting = self.waiters.register(order.id)?;
            if !is_queued {
                match self.reserve(&order).await? {
                    Some(known) => drop(same(&order, known)?),
                    None => drop(self.send(order.clone()).await?),
                }
            }
            self.ruling(message, Some(guard), &waiting, is_decided).await?
        };
        same(&order, decided)
    }

    /// What is known under a guarded id, before its order is handed to the worker.
    pub(super) async fn chosen(&self, order: &Order) -> Result<Chosen, Error> {
        let mut queued = self.backend.announce(order.id).await?;
        if queued.is_none() && !self.tells_of(order) {
            queued = self.known(order.id).await?;
        }
        Ok(match queued.map(|queued| same(order, queued)).transpose()? {
            Some(known) if is_decided(&known) => Chosen::Decided(known),
            Some(queued) => Chosen::Queued(queued),
            None => Chosen::New,
        })
    }

    async fn enqueue(&self, order: Order, guard: Option<Arc<IdGuard>>) -> Result<Order, Error> {
        let started = Stopwatch::now();
        let span = debug_span!(target: "flux", "submit", order = %order.id);
        let id = order.id;
        let accepting = async {
            if guard.is_some() {
                let known = match self.order_of_new_id(id).await? {
                    None => self.reserve(&order).await?,
                    known => known,
                };
                if let Some(known) = known {
                    return same(&order, known);
                }
            }
            if self.has_worker() {
                self.queued_spans.leave(id, &span);
            }
            let sent = self.send(order).await.inspect_err(|error| {
                drop(self.queued_spans.pick_up(id));
                self.note(error);
            })?;
            metrics::histogram!("flux_accept_seconds").record(started.elapsed());
            Ok(sent)
        };
        accepting.instrument(span.clone()).await
    }

    /// Reserves an id of a caller's own where other processes would not find its order in
    /// the queue; or the order that has it.
    // G3: what one process accepts under an id, no other accepts in another form.
    async fn reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        match self.tells_of(order) {
            true => Ok(None),
            false => self.backend.store.reserve(order).await,
        }
    }

    /// Sends a new order to the queue, and has it noted in the store where other processes
    /// don't find it there.
    async fn send(&self, order: Order) -> Result<Order, SeamError> {
        let message = Message::Place(order);
        let lines = match &message {
            Message::Place(order) => &order.lines,
            _ => unreachable!("it was made as an order"),
        };
        self.backend.queue_of(lines).send(std::slice::from_ref(&message)).await?;
        let Message::Place(order) = message else { unreachable!("it was made as an order") };
        if !self.tells_of(&order)
            && let Err(error) = self.backend.store.note_accepted(&order).await
        {
            debug!(%error, order = %order.id, "an accepted order is not known everywhere");
        }
        Ok(order)
    }

    fn tells_of(&self, order: &Order) -> bool {
        self.backend.queue_of(&order.lines).tells_of(order.id)
    }

    /// Queues an order that the worker was handed and has not decided in time.
    /// The worker may still decide it, so an error would say too much: only an
    /// acceptance, or the order as it is known, is told.
    pub(super) async fn enqueue_too(
        &self,
        order: Order,
        guard: Option<Arc<IdGuard>>,
    ) -> Result<Order, Error> {
        let guard = guard.unwrap_or_else(|| self.guarded_ids.take(&order));
        let error = match self.enqueue(order.clone(), Some(guard)).await {
            Err(error) if !matches!(error, Error::IdReused(_)) => error,
            answer => return answer,
        };
        debug!(%error, order = %order.id, "an order that the worker was handed was not queued");
        match self.order(order.id).await {
            Ok(Some(known)) => same(&order, known),
            _ => Err(Error::OutcomePending(order.id)),
        }
    }
}

/// The refusal of an id that a buyer's key stands for and that no order has: it may be
/// somebody's who did not come yet.
fn a_keys_id() -> Error {
    let rule = "is of version 5, which stands for an Idempotency-Key; send the key, or another id";
    Error::Invalid(InvalidInput::new("order_id", rule))
}
