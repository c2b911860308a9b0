//! What travels the queue.

use serde::{Deserialize, Serialize};

use super::ids::{OrderId, PaymentRef};
use super::order::Order;

/// Work for the worker of an item: everything that changes stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Decide this order.
    Place(Order),
    /// Give the units of a held order back.
    Release(OrderId),
    /// Give the units of a confirmed order back.
    Cancel(OrderId),
    /// End the hold if its time has come.
    Expire(OrderId),
    /// Money came after the hold: take the stock again, or owe a refund.
    LatePayment(OrderId, PaymentRef),
}

impl Message {
    /// The order it is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Place(order) => order.id,
            Self::Release(id) | Self::Cancel(id) | Self::Expire(id) | Self::LatePayment(id, _) => {
                *id
            }
        }
    }
}
