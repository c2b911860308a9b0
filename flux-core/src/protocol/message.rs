//! The messages of the queue.

use serde::{Deserialize, Serialize};

use super::ids::{OrderId, PaymentRef};
use super::order::Order;

/// Work for the worker of an item: everything that changes stock. Each member
/// asks for something only the worker can do, and a queue has to carry all of
/// them, so this enum is exhaustive: a message that either does not know must
/// not compile.
///
/// ```
/// use flux_core::OrderId;
/// use flux_core::protocol::Message;
///
/// let id = OrderId::new();
/// assert_eq!(Message::Cancel(id).order_id(), id);
/// ```
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
    /// Pay an order whose hold ended: take the stock again, or owe a refund.
    LatePayment(OrderId, PaymentRef),
}

impl Message {
    /// The id of the order it is about.
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
