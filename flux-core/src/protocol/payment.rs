//! The rulings on a payment: on one in time by the order alone, on one that came
//! too late with the stock.

use super::commit::{Expect, OrderWrite};
use super::ids::PaymentRef;
use super::limits::Timestamp;
use super::order::{Order, OrderState, OrderStatus};

/// The ruling on a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmRuling {
    /// The hold is live: write this.
    Write(OrderWrite),
    /// This payment was taken already; the order stands as it is.
    Repeat,
    /// The hold is over: send a [`Message::LatePayment`](super::Message::LatePayment).
    Late,
    /// The order is in no state to be paid for.
    NotHeld,
}

/// Rules on a payment that arrives at `now`. It touches no stock, so it needs
/// no claim: the write's own condition decides a race with the expiry.
#[must_use]
pub fn confirm(order: &Order, payment: &PaymentRef, now: Timestamp) -> ConfirmRuling {
    // G9: money in time is a ticket; late money is ruled on by `late`.
    match &order.state {
        OrderState::Held(hold) if now < hold.expires_at => ConfirmRuling::Write(OrderWrite {
            order: order.with_state(OrderState::Confirmed(*hold, payment.clone())),
            expect: Expect::Status(OrderStatus::Held),
        }),
        OrderState::Held(_) | OrderState::Expired(_) => ConfirmRuling::Late,
        OrderState::Confirmed(_, paid) | OrderState::RefundDue(_, paid) if paid == payment => {
            ConfirmRuling::Repeat
        }
        _ => ConfirmRuling::NotHeld,
    }
}

/// Rules on a payment that came after the hold's end, or nearly so: a ticket if
/// the order's units are still there, else a refund. `take` takes them again.
/// `None` for an order that neither is owed.
pub(super) fn late<E>(
    order: &Order,
    payment: &PaymentRef,
    take: impl FnOnce() -> Result<(), E>,
) -> Option<OrderState> {
    match &order.state {
        // The hold is not given back yet, so the units are still its own.
        OrderState::Held(hold) => Some(OrderState::Confirmed(*hold, payment.clone())),
        // G9: a ticket or a refund; both are other states, so never a second time.
        OrderState::Expired(hold) => Some(match take() {
            Ok(()) => OrderState::Confirmed(*hold, payment.clone()),
            Err(_) => OrderState::RefundDue(*hold, payment.clone()),
        }),
        _ => None,
    }
}
