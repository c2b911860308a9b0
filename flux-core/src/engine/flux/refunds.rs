//! The calls about money that is owed and returned.

use super::Flux;
use crate::engine::error::Error;
use crate::protocol::{Order, OrderId, Refund, RefundRef};
use crate::seams::{Owed, RefundOutcome, Repayment};

impl Flux {
    /// Notes that the money of an order was returned, and returns the order, once that is
    /// durable: of one that is `refund_due` or was cancelled, and of one that was released
    /// or rejected and paid for all the same. Flux moves no money. Cancel safety: a
    /// dropped call may have noted it; repeating it with the same refund is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    /// let order = flux.cancel(order.id).await?;
    /// assert_eq!(order.money(), Money::Owed);
    ///
    /// let order = flux.refunded(order.id, RefundRef::new("refund_1")?).await?;
    /// assert_eq!(order.money(), Money::Refunded);
    /// let second = flux.refunded(order.id, RefundRef::new("refund_2")?).await;
    /// assert!(matches!(second, Err(Error::AlreadyRefunded(_))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOwed`] when nothing is, [`Error::AlreadyRefunded`] when another refund
    /// was told of, [`Error::NotFound`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn refunded(&self, id: OrderId, refund: RefundRef) -> Result<Order, Error> {
        let told = Repayment { order: id, refund: Refund::new(refund, self.core().clock.now()) };
        let ruled = self.core().backend.store.refund(std::slice::from_ref(&told)).await?;
        match ruled.into_iter().next() {
            Some(RefundOutcome::Refunded(order)) => Ok(order),
            Some(RefundOutcome::ByAnother(order)) => Err(Error::AlreadyRefunded(Box::new(order))),
            Some(RefundOutcome::NotOwed(order)) => Err(Error::NotOwed(Box::new(order))),
            Some(RefundOutcome::NotFound) | None => {
                let queued = self.order(id).await?.ok_or(Error::NotFound(id))?;
                Err(Error::NotOwed(Box::new(queued)))
            }
        }
    }

    /// Counts the orders whose money is owed, and tells since when the oldest is.
    /// [`orders`](Self::orders) lists them, by a filter on
    /// [`Money::Owed`](crate::Money::Owed). Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// flux.release(order.id).await?;
    /// let late = flux.confirm(order.id, PaymentRef::new("payment_1")?).await;
    /// assert!(matches!(late, Err(Error::NotHeld(_))));
    /// assert_eq!(flux.owed().await?.orders, 1);
    ///
    /// let filter = OrderFilter::builder().money(Money::Owed).build();
    /// let page = flux.orders(&filter, None, 100).await?;
    /// assert_eq!(page.orders[0].id, order.id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn owed(&self) -> Result<Owed, Error> {
        Ok(self.core().backend.store.owed().await?)
    }
}
