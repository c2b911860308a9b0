//! How an order comes in: past the gate, to the durable queue or straight to
//! the worker.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use tokio::time::timeout;
use tracing::{Instrument, Span, debug, debug_span};
use uuid::Uuid;

use super::id_guard::IdGuard;
use crate::engine::error::Error;
use crate::engine::flux::{Flux, is_decided};
use crate::engine::request::OrderRequest;
use crate::protocol::{Message, Order, OrderId};

impl Flux {
    /// Accepts an order and returns it queued, once the acceptance is durable:
    /// it will be decided, whatever crashes. A repeat returns the order as it
    /// now stands.
    ///
    /// # Errors
    /// [`Error::SoldOut`] at the gate (nothing is recorded),
    /// [`Error::UnknownItem`], [`Error::Invalid`], [`Error::IdReused`],
    /// [`Error::Overloaded`], [`Error::ShuttingDown`], [`Error::Backend`].
    pub async fn submit(&self, request: OrderRequest) -> Result<Order, Error> {
        match self.admit(request).await? {
            Admitted::Decided(order) => Ok(order),
            Admitted::New(order, held) => self.enqueue(order, held).await,
        }
    }

    /// Places an order and returns it decided, once the decision is durable:
    /// held, or rejected with a reason. A repeat returns the order as it now
    /// stands.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`Error::OutcomePending`] when a worker
    /// elsewhere gave no decision within
    /// [`decision_timeout`](crate::Settings::decision_timeout).
    pub async fn place(&self, request: OrderRequest) -> Result<Order, Error> {
        match self.admit(request).await? {
            Admitted::Decided(order) => Ok(order),
            Admitted::New(order, held) => self.decided_now(order, held).await,
        }
    }

    /// Places an order and returns it decided if that takes no longer than
    /// `longest` past the gate; else as [`submit`](Self::submit) does: queued,
    /// once that is durable. A repeat returns the order as it then stands.
    /// With `longest` of zero it is `submit`.
    ///
    /// Cancel safety: a dropped call may leave the order undone, accepted or
    /// decided. Under an id of the caller's own, repeating it is safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use flux_core::{Backend, Flux, ItemSpec, OrderRequest, OrderStatus};
    ///
    /// let flux = Flux::builder(Backend::memory()).start();
    /// flux.put_item(ItemSpec::pool("ticket_1", 1)?).await?;
    /// let request = OrderRequest::units("ann", "ticket_1", 1)?;
    /// let order = flux.place_within(request, Duration::from_secs(5)).await?;
    /// assert_eq!(order.status(), OrderStatus::Held);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`Error::OutcomePending`] when the worker
    /// has the order and it could not be made durable in the queue as well.
    pub async fn place_within(
        &self,
        request: OrderRequest,
        longest: Duration,
    ) -> Result<Order, Error> {
        if longest.is_zero() {
            return self.submit(request).await;
        }
        let (order, held) = match self.admit(request).await? {
            Admitted::Decided(order) => return Ok(order),
            Admitted::New(order, held) => (order, held),
        };
        if self.running.has_worker {
            let deciding = self.decided_now(order.clone(), held.clone());
            return match timeout(longest, deciding).await {
                Ok(decided) => decided,
                Err(_) => self.enqueue_too(order, held).await,
            };
        }
        let accepted = self.enqueue(order, held.clone()).await?;
        if is_decided(&accepted) {
            return Ok(accepted);
        }
        match self.wait(accepted.id, longest).await {
            Ok(order) => same(&accepted, order),
            Err(error) => {
                debug!(%error, "an order is accepted and could not be waited for");
                Ok(accepted)
            }
        }
    }

    async fn admit(&self, request: OrderRequest) -> Result<Admitted, Error> {
        if *self.running.stop.borrow() || self.core.inbox.is_closed() {
            return Err(Error::ShuttingDown);
        }
        let OrderRequest { id, buyer, lines } = request;
        let looked = self.core.gate.check(&lines, &*self.core.backend.store).await;
        let refusal = match looked {
            Ok(None) => None,
            Ok(Some(item)) => Some(Error::SoldOut(item.clone())),
            Err(error @ (Error::Invalid(_) | Error::UnknownItem(_))) => Some(error),
            Err(error) => return Err(error),
        };
        let now = self.core.clock.now();
        if let Some(id) = id {
            return self.admit_chosen(Order::queued(id, buyer, lines, now), refusal).await;
        }
        let id = OrderId::from_uuid(Uuid::now_v7());
        match refusal {
            None => Ok(Admitted::New(Order::queued(id, buyer, lines, now), None)),
            Some(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Admits an order under an id of the caller's own: as the order that has
    /// the id already, if it is a repeat of that. What the gate thinks of it
    /// now doesn't change a known order.
    async fn admit_chosen(&self, order: Order, refusal: Option<Error>) -> Result<Admitted, Error> {
        let guarded_ids = &self.core.guarded_ids;
        let held = match refusal {
            None => Ok(guarded_ids.take(&order)),
            Some(refusal) => guarded_ids.get(order.id).ok_or(refusal),
        };
        let refusal = match held {
            Ok(held) if order.asks_the_same_as(held.order()) => {
                return Ok(Admitted::New(held.order().clone(), Some(held)));
            }
            // It is in the wrong hands if this is a repeat of a known order.
            Ok(_other) => Error::IdReused(order.id),
            Err(refusal) => refusal,
        };
        let Some(known) = self.order(order.id).await? else { return Err(self.refused(refusal)) };
        let known = same(&order, known)?;
        if is_decided(&known) {
            return Ok(Admitted::Decided(known));
        }
        let held = guarded_ids.take(&known);
        Ok(Admitted::New(known, Some(held)))
    }

    fn refused(&self, refusal: Error) -> Error {
        if matches!(refusal, Error::SoldOut(_)) {
            self.core.turned_away.increment(1);
        }
        refusal
    }

    async fn decided_now(&self, order: Order, held: Option<Arc<IdGuard>>) -> Result<Order, Error> {
        let span = debug_span!(target: "flux", "place", order = %order.id);
        let deciding = async {
            match held {
                None => self.rule(Message::Place(order), is_decided, &span).await,
                // Boxed, so that calls without an id of their own stay small.
                Some(held) => Box::pin(self.decide_chosen(order, held, &span)).await,
            }
        };
        deciding.instrument(span.clone()).await
    }

    /// Has an order decided whose id is in hand. If the queue has an order
    /// under this id, it is that one that is decided: it was accepted, and when
    /// it was counts.
    async fn decide_chosen(
        &self,
        order: Order,
        held: Arc<IdGuard>,
        span: &Span,
    ) -> Result<Order, Error> {
        let queue = &self.core.backend.queue;
        let queued = match queue.find(order.id).await? {
            Some(queued) => Some(same(&order, queued)?),
            None => None,
        };
        let decided = if self.running.has_worker {
            let message = Message::Place(queued.unwrap_or_else(|| order.clone()));
            self.core.inbox.ask(message, Some(held), span).await?
        } else {
            let waiting = self.core.waiters.register(order.id)?;
            if queued.is_none() {
                queue.send(&[Message::Place(order.clone())]).await?;
            }
            self.ruling(order.id, &waiting, is_decided).await?
        };
        same(&order, decided)
    }

    async fn enqueue(&self, order: Order, held: Option<Arc<IdGuard>>) -> Result<Order, Error> {
        let started = Stopwatch::now();
        let span = debug_span!(target: "flux", "submit", order = %order.id);
        let id = order.id;
        let accepting = async {
            if held.is_some()
                && let Some(known) = self.order(id).await?
            {
                return same(&order, known);
            }
            if self.running.has_worker {
                self.core.queued_spans.leave(id, &span);
            }
            let message = Message::Place(order);
            if let Err(error) = self.core.backend.queue.send(std::slice::from_ref(&message)).await {
                drop(self.core.queued_spans.pick_up(id));
                return Err(error.into());
            }
            metrics::histogram!("flux_accept_seconds").record(started.elapsed());
            match message {
                Message::Place(order) => Ok(order),
                _ => unreachable!("it was made as an order"),
            }
        };
        accepting.instrument(span.clone()).await
    }

    /// Queues an order that the worker was handed and has not decided in time.
    /// It may still do so, and decides an id once; so only success and what is
    /// known of the order may be told.
    async fn enqueue_too(&self, order: Order, held: Option<Arc<IdGuard>>) -> Result<Order, Error> {
        let held = held.unwrap_or_else(|| self.core.guarded_ids.take(&order));
        let error = match self.enqueue(order.clone(), Some(held)).await {
            Err(error) if !matches!(error, Error::IdReused(_)) => error,
            answer => return answer,
        };
        debug!(%error, order = %order.id, "an order in the worker's hands was not queued");
        match self.order(order.id).await {
            Ok(Some(known)) => same(&order, known),
            _ => Err(Error::OutcomePending(order.id)),
        }
    }
}

enum Admitted {
    /// To be brought in; in hand if its id is the caller's own.
    New(Order, Option<Arc<IdGuard>>),
    /// A repeat of this one.
    Decided(Order),
}

fn same(asked: &Order, known: Order) -> Result<Order, Error> {
    if asked.asks_the_same_as(&known) { Ok(known) } else { Err(Error::IdReused(asked.id)) }
}
