//! How an order comes in: past the gate, to the durable queue or straight to
//! the worker.

use std::time::{Duration, Instant as Stopwatch};

use tokio::time::timeout;
use tracing::{Instrument, debug, debug_span};
use uuid::Uuid;

use super::error::Error;
use super::flux::{Flux, is_decided};
use super::request::OrderRequest;
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
            Admitted::Known(order) => Ok(order),
            Admitted::New(order, chosen) => self.enqueue(order, chosen).await,
        }
    }

    /// Places an order and returns it decided, once the decision is durable:
    /// held, or rejected with a reason. A repeat returns the order as it now
    /// stands.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`Error::Unsettled`] when a worker
    /// elsewhere gave no decision within
    /// [`ruling_wait`](crate::Settings::ruling_wait).
    pub async fn place(&self, request: OrderRequest) -> Result<Order, Error> {
        match self.admit(request).await? {
            Admitted::Known(order) => Ok(order),
            Admitted::New(order, chosen) => self.decided_now(order, chosen).await,
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
    /// As [`submit`](Self::submit), and [`Error::Unsettled`] when the worker
    /// has the order and it could not be made durable in the queue as well.
    pub async fn place_within(
        &self,
        request: OrderRequest,
        longest: Duration,
    ) -> Result<Order, Error> {
        if longest.is_zero() {
            return self.submit(request).await;
        }
        let accepted = match self.admit(request).await? {
            Admitted::Known(order) => order,
            Admitted::New(order, chosen) if self.running.has_worker => {
                let deciding = self.decided_now(order.clone(), chosen);
                return match timeout(longest, deciding).await {
                    Ok(decided) => decided,
                    Err(_) => self.enqueue_too(order).await,
                };
            }
            Admitted::New(order, chosen) => self.enqueue(order, chosen).await?,
        };
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
        if *self.running.stop.borrow() || self.core.lane.is_closed() {
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
        let chosen = if id.is_some() { Chosen::Yes } else { Chosen::No };
        let id = id.unwrap_or_else(|| OrderId::from_uuid(Uuid::now_v7()));
        let order = Order::queued(id, buyer, lines, self.core.clock.now());
        let Some(refusal) = refusal else { return Ok(Admitted::New(order, chosen)) };
        // What the gate thinks of it now doesn't change a known order.
        if chosen == Chosen::Yes
            && let Some(known) = self.order(id).await?
        {
            return same(&order, known).map(Admitted::Known);
        }
        if matches!(refusal, Error::SoldOut(_)) {
            self.core.turned_away.increment(1);
        }
        Err(refusal)
    }

    async fn decided_now(&self, order: Order, chosen: Chosen) -> Result<Order, Error> {
        let span = debug_span!(target: "flux", "place", order = %order.id);
        let deciding = async {
            match chosen {
                Chosen::No => self.rule(Message::Place(order), is_decided, &span).await,
                Chosen::Yes => {
                    let message = Message::Place(order.clone());
                    same(&order, self.rule(message, is_decided, &span).await?)
                }
            }
        };
        deciding.instrument(span.clone()).await
    }

    async fn enqueue(&self, order: Order, chosen: Chosen) -> Result<Order, Error> {
        let started = Stopwatch::now();
        let span = debug_span!(target: "flux", "submit", order = %order.id);
        let id = order.id;
        let accepting = async {
            if chosen == Chosen::Yes
                && let Some(known) = self.order(id).await?
            {
                return same(&order, known);
            }
            if self.running.has_worker {
                self.core.trails.leave(id, &span);
            }
            let message = Message::Place(order);
            if let Err(error) = self.core.backend.queue.send(std::slice::from_ref(&message)).await {
                drop(self.core.trails.pick_up(id));
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
    async fn enqueue_too(&self, order: Order) -> Result<Order, Error> {
        let error = match self.enqueue(order.clone(), Chosen::Yes).await {
            Err(error) if !matches!(error, Error::IdReused(_)) => error,
            answer => return answer,
        };
        debug!(%error, order = %order.id, "an order in the worker's hands was not queued");
        match self.order(order.id).await {
            Ok(Some(known)) => same(&order, known),
            _ => Err(Error::Unsettled(order.id)),
        }
    }
}

/// Whether the caller chose the order's id, and may be repeating itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Yes,
    No,
}

enum Admitted {
    New(Order, Chosen),
    Known(Order),
}

fn same(asked: &Order, known: Order) -> Result<Order, Error> {
    if asked.asks_the_same_as(&known) { Ok(known) } else { Err(Error::IdReused(asked.id)) }
}
