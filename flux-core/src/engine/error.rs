//! The error of the calls: why an application didn't get what it asked for.

use std::time::Duration;

use crate::protocol::{InvalidInput, ItemId, Order, OrderId, PaymentRef, PutItemError};
use crate::seams::{RemovalRefused, SeamError};

/// The reason why a call of [`Flux`](super::Flux) did not do as it says. An
/// order that was turned down is no error: it is an [`Order`] with a
/// [`reason`](Order::reason).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input broke a rule; nothing was recorded.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// No such item; nothing was recorded.
    #[error("no item is called {0}")]
    UnknownItem(ItemId),
    /// Turned away at the gate: the item is sold out, or has fewer units left
    /// than were asked for. Nothing was recorded, and the same id may be sent
    /// again.
    #[error("{0} is sold out, or has less left than was asked for")]
    SoldOut(ItemId),
    /// Turned away at the gate: the item's sale is not open yet. Nothing was
    /// recorded, and the same id may be sent again.
    #[error("the sale of {0} is not open yet")]
    NotOpen(ItemId),
    /// Turned away at the gate: the item's sale is closed. Nothing was recorded,
    /// and the same id may be sent again.
    #[error("the sale of {0} is closed")]
    Closed(ItemId),
    /// Another order, with other contents, has this id; nothing was changed.
    #[error("order id {0} belongs to another order; use a fresh id for a new order")]
    IdReused(OrderId),
    /// No such order.
    #[error("no order has the id {0}")]
    NotFound(OrderId),
    /// The order is not held, so it can't be paid or released; nothing was changed.
    #[error("order {} is not held, it is {}", .0.id, .0.status())]
    NotHeld(Box<Order>),
    /// Another payment counts for the order; nothing was changed, so return the
    /// money of this one.
    #[error(
        "order {} is paid already, with payment {}: refund this one",
        .0.id,
        .0.payment_ref().map_or("unknown", PaymentRef::as_str)
    )]
    AlreadyPaid(Box<Order>),
    /// The order is not confirmed, so it can't be cancelled; nothing was changed.
    #[error("order {} is not confirmed, it is {}", .0.id, .0.status())]
    NotConfirmed(Box<Order>),
    /// Paid after the hold ended, when the stock was gone: return the money.
    #[error("order {} was paid after its hold ended and its stock is gone: refund it", .0.id)]
    RefundDue(Box<Order>),
    /// The order's money is not owed, so there is nothing to return; nothing was changed.
    #[error("the money of order {} is not owed: it is {}", .0.id, .0.money())]
    NotOwed(Box<Order>),
    /// Another refund of the order's money was told of; nothing was changed, so see which
    /// of the two was made.
    #[error(
        "the money of order {} is returned already, by refund {}",
        .0.id,
        .0.refund().map_or("unknown", |refund| refund.reference.as_str())
    )]
    AlreadyRefunded(Box<Order>),
    /// The new definition doesn't fit what is sold; nothing was changed.
    #[error(transparent)]
    PutItem(#[from] PutItemError),
    /// A bound was reached; nothing was accepted.
    #[error("too much is waiting; try again in {retry_after:?}")]
    Overloaded {
        /// The time after which to come back.
        retry_after: Duration,
    },
    /// The engine is stopping, or has [failed](super::Flux::failed); nothing was
    /// accepted.
    #[error("the engine is shutting down; nothing was accepted")]
    ShuttingDown,
    /// There was no decision in time. The call may still take effect; repeating
    /// it is safe.
    #[error("order {0} is not settled yet; ask again, repeating the call is safe")]
    OutcomePending(OrderId),
    /// The store keeps no change feed.
    #[error("no change feed is kept here")]
    NoFeed,
    /// The items can't leave the store now; nothing was changed.
    #[error(transparent)]
    CantLeave(RemovalRefused),
    /// The order is on its way into an archive, and stays as it is.
    #[error("order {0} is being archived, and stays as it is")]
    BeingArchived(OrderId),
    /// No item leaves this store.
    #[error("this store keeps what it has: nothing can be archived or deleted")]
    NothingLeaves,
    /// The files of an archive could not be written or read. Nothing is lost: archive the
    /// same items again.
    #[cfg(feature = "archive")]
    #[error("the archive was not made")]
    Archive(#[source] std::sync::Arc<crate::archive::ArchiveError>),
    /// A backend failed.
    #[error(transparent)]
    Backend(SeamError),
}

impl Error {
    /// Whether the order was turned away at the gate: nothing was recorded, and
    /// the same id may be sent again.
    ///
    /// ```
    /// use flux_core::{Error, ItemId};
    ///
    /// assert!(Error::Closed(ItemId::new("ticket_1")?).is_of_the_gate());
    /// assert!(!Error::ShuttingDown.is_of_the_gate());
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    #[must_use]
    pub fn is_of_the_gate(&self) -> bool {
        matches!(self, Self::SoldOut(_) | Self::NotOpen(_) | Self::Closed(_))
    }
}

impl From<SeamError> for Error {
    fn from(error: SeamError) -> Self {
        match error {
            SeamError::Overloaded { retry_after, .. } => Self::Overloaded { retry_after },
            error => Self::Backend(error),
        }
    }
}
