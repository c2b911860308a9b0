//! The rulings on a payment: on one in time by the order alone, on one that came
//! too late with the stock; and on a refund.

use super::commit::{Expect, OrderWrite};
use super::debt::{Debt, Money, Refund};
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
    /// The order was released or rejected, so the money is owed: write this. It is no
    /// less refused.
    Owe(OrderWrite),
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
        _ => stray(order, payment, now).map_or(ConfirmRuling::NotHeld, ConfirmRuling::Owe),
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

/// Rules on money that came at `at` for an order that was released or rejected: it is
/// owed. `None` for an order in another state, and for one that owes already: of two
/// payments the second is its caller's to return.
pub(super) fn stray(order: &Order, payment: &PaymentRef, at: Timestamp) -> Option<OrderWrite> {
    let status = order.status();
    let buys_nothing = matches!(status, OrderStatus::Released | OrderStatus::Rejected);
    if !buys_nothing || order.money() != Money::None {
        return None;
    }
    // G9: money that bought nothing is never forgotten.
    let debt = Debt { stray: Some(payment.clone()), ..Debt::since(at) };
    let order = Order { debt: Some(Box::new(debt)), ..order.clone() };
    Some(OrderWrite { order, expect: Expect::Money(status, Money::None) })
}

/// The ruling on a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundRuling {
    /// The money is owed: write this.
    Write(OrderWrite),
    /// This refund was told of already; the order stands as it is.
    Repeat,
    /// Another refund was.
    Another,
    /// Nothing is owed.
    NotOwed,
}

/// Rules on a refund. It touches no stock, so it needs no claim: the write's own condition
/// lets one of two refunds win.
#[must_use]
pub fn refund(order: &Order, refund: &Refund) -> RefundRuling {
    match order.money() {
        Money::Owed => {
            let since = order.owed_since().unwrap_or(refund.at);
            let debt = order.debt.as_deref().cloned().unwrap_or(Debt::since(since));
            let debt = Debt { refund: Some(refund.clone()), ..debt };
            // G9: once; the second finds nothing owed.
            RefundRuling::Write(OrderWrite {
                order: Order { debt: Some(Box::new(debt)), ..order.clone() },
                expect: Expect::Money(order.status(), Money::Owed),
            })
        }
        Money::Refunded if order.refund().is_some_and(|was| was.reference == refund.reference) => {
            RefundRuling::Repeat
        }
        Money::Refunded => RefundRuling::Another,
        Money::None | Money::Paid => RefundRuling::NotOwed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Hold, Line, Lines, OrderId, Reason, RefundRef};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn pay(name: &str) -> PaymentRef {
        PaymentRef::new(name).expect("a name")
    }

    fn back(name: &str) -> Refund {
        Refund::new(RefundRef::new(name).expect("a name"), at(90))
    }

    fn order(state: OrderState) -> Order {
        let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
        Order::queued(OrderId::new(), "ann".parse().expect("a name"), lines, at(1))
            .with_state(state)
    }

    fn written(ruling: RefundRuling) -> OrderWrite {
        match ruling {
            RefundRuling::Write(write) => write,
            other => panic!("{other:?}"),
        }
    }

    const HOLD: Hold = Hold::between(at_const(5), at_const(9));
    const fn at_const(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn money_is_owed_until_it_is_returned_and_returned_once() {
        for state in [OrderState::Cancelled(HOLD, pay("p")), OrderState::RefundDue(HOLD, pay("p"))]
        {
            let owing = order(state);
            assert_eq!((owing.money(), owing.owed_since()), (Money::Owed, Some(HOLD.expires_at)));
            let write = written(refund(&owing, &back("r")));
            assert_eq!(write.expect, Expect::Money(owing.status(), Money::Owed));
            let returned = write.order;
            assert_eq!((returned.state.clone(), returned.money()), (owing.state, Money::Refunded));
            assert_eq!(
                (returned.refund(), returned.owed_since()),
                (Some(&back("r")), Some(HOLD.expires_at))
            );
            let again = Refund::new(back("r").reference, at(99));
            assert_eq!(refund(&returned, &again), RefundRuling::Repeat);
            assert_eq!(refund(&returned, &back("other")), RefundRuling::Another);
        }
    }

    #[test]
    fn where_nothing_came_or_it_bought_something_nothing_is_owed() {
        for state in [
            OrderState::Queued,
            OrderState::Held(HOLD),
            OrderState::Confirmed(HOLD, pay("p")),
            OrderState::Released(HOLD),
            OrderState::Expired(HOLD),
            OrderState::Rejected(at(5), Reason::SoldOut),
        ] {
            let order = order(state);
            assert_eq!(refund(&order, &back("r")), RefundRuling::NotOwed, "{order:?}");
            assert_eq!(order.owed_since(), None);
        }
    }

    #[test]
    fn money_for_what_was_released_or_rejected_is_owed_once() {
        for state in [OrderState::Released(HOLD), OrderState::Rejected(at(5), Reason::SoldOut)] {
            let gone = order(state);
            let ConfirmRuling::Owe(write) = confirm(&gone, &pay("p"), at(20)) else {
                panic!("it is owed")
            };
            assert_eq!(write.expect, Expect::Money(gone.status(), Money::None));
            let owing = write.order;
            assert_eq!((owing.money(), owing.owed_since()), (Money::Owed, Some(at(20))));
            assert_eq!((owing.payment_ref(), &owing.state), (Some(&pay("p")), &gone.state));
            for repeated in ["p", "q"] {
                assert_eq!(confirm(&owing, &pay(repeated), at(30)), ConfirmRuling::NotHeld);
            }
            let returned = written(refund(&owing, &back("r"))).order;
            assert_eq!(
                (returned.money(), returned.payment_ref()),
                (Money::Refunded, Some(&pay("p")))
            );
            assert_eq!(confirm(&returned, &pay("p"), at(40)), ConfirmRuling::NotHeld);
        }
    }
}
