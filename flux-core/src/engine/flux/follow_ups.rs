//! The calls that change an order which is decided: paying, releasing,
//! cancelling.

use std::sync::Arc;

use tracing::Span;

use super::Flux;
use crate::engine::core::is_decided;
use crate::engine::error::Error;
use crate::engine::worker::completion;
use crate::protocol::{Message, Money, Order, OrderId, OrderStatus, PaymentRef};
use crate::seams::{ConfirmOutcome, Outcomes, Payment};

impl Flux {
    /// Pays a held order and returns it confirmed, once that is durable. Money
    /// that comes after the hold ended takes the stock again if it is still
    /// there. Money for an order that was released or rejected buys nothing; the first
    /// that comes is noted as [owed](Order::money), any other is for the caller to
    /// return. Cancel safety: a dropped call may have paid; repeating it with
    /// the same payment is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let order = flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    /// assert_eq!(order.status(), OrderStatus::Confirmed);
    ///
    /// let second = flux.confirm(order.id, PaymentRef::new("payment_2")?).await;
    /// assert!(matches!(second, Err(Error::AlreadyPaid(_))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::RefundDue`] when it came too late and the stock is gone,
    /// [`Error::AlreadyPaid`] when another payment counts, [`Error::NotHeld`]
    /// in every other state, [`Error::NotFound`], [`Error::OutcomePending`],
    /// [`Error::Overloaded`], [`Error::ShuttingDown`], [`Error::Backend`].
    pub async fn confirm(&self, id: OrderId, payment: PaymentRef) -> Result<Order, Error> {
        let order = match self.pay(id, &payment).await? {
            Some(ConfirmOutcome::Settled(order)) => {
                let outcomes = Outcomes { orders: vec![order.clone()], availability: Vec::new() };
                completion::count(&outcomes);
                self.core().publish(Arc::new(outcomes)).await;
                order
            }
            Some(ConfirmOutcome::Late(late)) => {
                let ruled = |order: &Order| {
                    !matches!(order.status(), OrderStatus::Held | OrderStatus::Expired)
                };
                let message = Message::LatePayment(id, payment.clone());
                self.core().rule(message, &late.lines, ruled, &Span::current()).await?
            }
            Some(ConfirmOutcome::NotHeld(order)) => return Err(not_payable(order)),
            Some(ConfirmOutcome::NotFound) | None => {
                let queued = self.order(id).await?.ok_or(Error::NotFound(id))?;
                return Err(not_payable(queued));
            }
        };
        match order.status() {
            OrderStatus::Confirmed if order.payment_ref() == Some(&payment) => Ok(order),
            OrderStatus::RefundDue if order.payment_ref() == Some(&payment) => {
                Err(Error::RefundDue(Box::new(order)))
            }
            // G9: released while the payment was on its way: it is noted as owed.
            OrderStatus::Released if order.money() == Money::None => {
                match self.pay(id, &payment).await? {
                    Some(ConfirmOutcome::NotHeld(owing)) => Err(not_payable(owing)),
                    _ => Err(not_payable(order)),
                }
            }
            // G9: a payment for it is ruled on, so it was not yet.
            OrderStatus::Expired => Err(Error::OutcomePending(id)),
            _ => Err(not_payable(order)),
        }
    }

    async fn pay(
        &self,
        id: OrderId,
        payment: &PaymentRef,
    ) -> Result<Option<ConfirmOutcome>, Error> {
        let payment = Payment { order: id, payment: payment.clone(), at: self.core().clock.now() };
        let ruled = self.core().backend.store.confirm(std::slice::from_ref(&payment)).await?;
        Ok(ruled.into_iter().next())
    }

    /// Gives a held order's stock back and returns the order released, once
    /// that is durable; a queued order is decided first. Cancel safety: a
    /// dropped call may have released it; repeating it is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 2)?).await?;
    /// let order = flux.release(order.id).await?;
    /// assert_eq!(order.status(), OrderStatus::Released);
    /// let item = flux.item(&ItemId::new("ticket")?).await?.expect("it was put");
    /// assert_eq!(item.available, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotHeld`], [`Error::NotFound`], [`Error::OutcomePending`],
    /// [`Error::Overloaded`], [`Error::ShuttingDown`], [`Error::Backend`].
    pub async fn release(&self, id: OrderId) -> Result<Order, Error> {
        let known = self.order(id).await?.ok_or(Error::NotFound(id))?;
        let order = match is_decided(&known) {
            true => known,
            false => self.wait(id, self.core().settings.decision_timeout).await?,
        };
        let order = match order.status() {
            OrderStatus::Queued => return Err(Error::OutcomePending(id)),
            OrderStatus::Held => {
                let ruled = |order: &Order| order.status() != OrderStatus::Held;
                let message = Message::Release(id);
                self.core().rule(message, &order.lines, ruled, &Span::current()).await?
            }
            _ => order,
        };
        match order.status() {
            OrderStatus::Released => Ok(order),
            _ => Err(Error::NotHeld(Box::new(order))),
        }
    }

    /// Takes a confirmed order back, frees its stock and returns the order
    /// cancelled, once that is durable. To return the money is the
    /// application's, which tells so by [`refunded`](Self::refunded). Cancel safety: a dropped call may have cancelled it;
    /// repeating it is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let early = flux.cancel(order.id).await;
    /// assert!(matches!(early, Err(Error::NotConfirmed(_))), "it is held: release it");
    ///
    /// flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    /// let order = flux.cancel(order.id).await?;
    /// assert_eq!(order.status(), OrderStatus::Cancelled);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotConfirmed`], [`Error::NotFound`], [`Error::BeingArchived`],
    /// [`Error::OutcomePending`], [`Error::Overloaded`], [`Error::ShuttingDown`], [`Error::Backend`].
    pub async fn cancel(&self, id: OrderId) -> Result<Order, Error> {
        let order = self.order(id).await?.ok_or(Error::NotFound(id))?;
        let order = match order.status() {
            OrderStatus::Confirmed => {
                let ruled = |order: &Order| order.status() != OrderStatus::Confirmed;
                let message = Message::Cancel(id);
                self.core().rule(message, &order.lines, ruled, &Span::current()).await?
            }
            _ => order,
        };
        match order.status() {
            OrderStatus::Cancelled => Ok(order),
            // Nobody could take it back.
            OrderStatus::Confirmed => Err(Error::BeingArchived(id)),
            _ => Err(Error::NotConfirmed(Box::new(order))),
        }
    }
}

fn not_payable(order: Order) -> Error {
    match order.status() {
        OrderStatus::Confirmed => Error::AlreadyPaid(Box::new(order)),
        _ => Error::NotHeld(Box::new(order)),
    }
}
