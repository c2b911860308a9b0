//! The calls that bring orders in and those that read them.

use std::time::Duration;

use super::Flux;
use crate::engine::error::Error;
use crate::engine::request::OrderRequest;
use crate::engine::subscription::Subscription;
use crate::protocol::{Order, OrderId};
use crate::seams::{Cursor, OrderFilter, OrderPage};

impl Flux {
    /// Accepts an order and returns it queued, once the acceptance is durable:
    /// it will be decided, whatever crashes. A repeat returns the order as it
    /// now stands. Cancel safety: a dropped call may leave the order undone or
    /// accepted; under an id of the caller's own, repeating it is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// # use std::time::Duration;
    /// let key = IdempotencyKey::new("basket_7")?;
    /// let request = OrderRequest::units("ann", "ticket", 1)?.with_idempotency_key(key);
    /// let order = flux.submit(request.clone()).await?;
    /// assert_eq!(order.status(), OrderStatus::Queued);
    ///
    /// let order = flux.wait(order.id, Duration::from_secs(5)).await?;
    /// assert_eq!(flux.submit(request).await?, order, "a repeat");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::SoldOut`], [`Error::NotOpen`] and [`Error::Closed`] at the gate
    /// (nothing is recorded), [`Error::UnknownItem`], [`Error::Invalid`],
    /// [`Error::IdReused`],
    /// [`Error::Overloaded`], [`Error::ShuttingDown`], [`Error::Backend`].
    pub async fn submit(&self, request: OrderRequest) -> Result<Order, Error> {
        self.core().submit(request).await
    }

    /// Places an order and returns it decided, once the decision is durable:
    /// held, or rejected with a reason. A repeat returns the order as it now
    /// stands. Cancel safety: a dropped call may leave the order undone or
    /// decided; under an id of the caller's own, repeating it is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let ann = flux.place(OrderRequest::units("ann", "ticket", 2)?).await?;
    /// let hold = ann.hold().expect("it is held");
    /// assert!(hold.expires_at > ann.placed_at);
    ///
    /// let bob = flux.place(OrderRequest::units("bob", "ticket", 1)?).await;
    /// match bob {
    ///     Ok(order) => println!("rejected: {:?}", order.reason()),
    ///     Err(Error::SoldOut(item)) => println!("{item} was gone before anything was recorded"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`Error::OutcomePending`] when a worker
    /// elsewhere gave no decision within
    /// [`decision_timeout`](crate::Settings::decision_timeout), or the worker
    /// here gave the order up for now.
    pub async fn place(&self, request: OrderRequest) -> Result<Order, Error> {
        self.core().place(request).await
    }

    /// Places many orders in one call, and returns each as [`place`](Self::place) would, in
    /// their order: for whoever has them together, as the consumer of a queue. They are
    /// decided one by one, so some may be held and others not; an error is of its own order
    /// alone. Those that find no room for them are [`Error::Overloaded`] while those before
    /// them are decided.
    ///
    /// Cancel safety: as of `place`, for each of them.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let buyers = ["ann", "bob", "cyd"];
    /// let requests = buyers.map(|buyer| OrderRequest::units(buyer, "ticket", 1));
    /// let requests = requests.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let placed = flux.place_all(requests).await;
    /// let held = placed.iter().flatten().filter(|order| order.status() == OrderStatus::Held);
    /// assert_eq!((placed.len(), held.count()), (3, 2));
    /// # Ok(()) }
    /// ```
    pub async fn place_all(&self, requests: Vec<OrderRequest>) -> Vec<Result<Order, Error>> {
        self.core().place_all(requests).await
    }

    /// Places many orders in one call, and returns each as
    /// [`place_within`](Self::place_within) would, in their order. With `longest` of zero
    /// each is [submitted](Self::submit).
    ///
    /// Cancel safety: as of `place_within`, for each of them.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// # use std::time::Duration;
    /// let request = OrderRequest::units("ann", "ticket", 1)?;
    /// let placed = flux.place_all_within(vec![request], Duration::from_secs(5)).await;
    /// assert_eq!(placed[0].as_ref().map(Order::status).ok(), Some(OrderStatus::Held));
    /// # Ok(()) }
    /// ```
    pub async fn place_all_within(
        &self,
        requests: Vec<OrderRequest>,
        longest: Duration,
    ) -> Vec<Result<Order, Error>> {
        self.core().place_all_within(requests, longest).await
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
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// # use std::time::Duration;
    /// let request = OrderRequest::units("ann", "ticket", 1)?;
    /// let order = flux.place_within(request, Duration::from_secs(5)).await?;
    /// assert_eq!(order.status(), OrderStatus::Held);
    /// # Ok(()) }
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
        self.core().place_within(request, longest).await
    }

    /// Waits until the order is decided, up to `longest`; returns it as it then
    /// stands, which is queued when the wait ran out. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// # use std::time::Duration;
    /// let order = flux.submit(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let order = flux.wait(order.id, Duration::from_secs(5)).await?;
    /// assert_eq!(order.status(), OrderStatus::Held);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn wait(&self, id: OrderId, longest: Duration) -> Result<Order, Error> {
        self.core().wait(id, longest).await
    }

    /// Reads an order as it stands, a queued one too; `None` if there is none by
    /// this id. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let placed = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// assert_eq!(flux.order(placed.id).await?, Some(placed));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, Error> {
        self.core().order(id).await
    }

    /// Lists decided orders, up to `limit` to a page, oldest first where the
    /// store can. A page may have fewer orders than `limit`, even none, and
    /// still have a `next`: the store looks through so many orders at a time,
    /// whether they pass the filter or not. The list ends with the page that
    /// has no `next`. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let filter = OrderFilter::builder().buyer(BuyerId::new("ann")?).build();
    /// let (mut orders, mut after) = (Vec::new(), None);
    /// loop {
    ///     let page = flux.orders(&filter, after.as_ref(), 100).await?;
    ///     orders.extend(page.orders);
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(orders.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, Error> {
        Ok(self.core().backend.store.list_orders(filter, after, limit).await?)
    }

    /// Subscribes to every decision and change of availability from this call
    /// on, until the engine has stopped. A receiver that falls behind loses the
    /// oldest outcomes and is told so. Outcomes are best effort; an order's
    /// state in the store is the truth.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let mut outcomes = flux.subscribe();
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// flux.shutdown().await;
    ///
    /// let told = outcomes.recv().await?;
    /// assert_eq!((&told.orders[0], told.availability[0].available), (&order, 1));
    /// assert!(outcomes.recv().await.is_err(), "the engine has stopped");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.core().backend.bus.subscribe(), self.running().alive.clone())
    }
}
