//! Money that is owed back, and its return.

use serde::{Deserialize, Serialize};

use super::ids::{PaymentRef, RefundRef};
use super::limits::Timestamp;
use super::words::words;

/// Where the money of an order stands, by [`Order::money`](super::Order::money).
///
/// ```
/// use flux_core::{BuyerId, Line, Lines, Money, Order, OrderId, Timestamp};
///
/// let lines = Lines::new(vec![Line::units("ticket_1", 1)?])?;
/// let order = Order::queued(OrderId::new(), "ann".parse()?, lines, Timestamp::default());
/// assert_eq!(order.money(), Money::None);
/// assert_eq!(Money::Owed.to_string(), "owed");
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Money {
    /// None came.
    None,
    /// It came, and the order's units are its buyer's.
    Paid,
    /// It came and buys nothing, or nothing any more: it is to be returned.
    Owed,
    /// It was returned.
    Refunded,
}

words! {
    Money, "money":
    None = "none", Paid = "paid", Owed = "owed" or Refunded = "refunded"
}

/// Money that bought nothing, or buys nothing any more.
///
/// ```
/// use flux_core::{Debt, Timestamp};
///
/// let debt = Debt::since(Timestamp::from_millis(1_790_000_000_000));
/// assert_eq!((debt.stray, debt.refund), (None, None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Debt {
    /// The moment from which it is owed.
    pub since: Timestamp,
    /// The payment, of an order that was released or rejected when it came. Of any
    /// other the state has it.
    #[serde(default)]
    pub stray: Option<PaymentRef>,
    /// Its return.
    #[serde(default)]
    pub refund: Option<Refund>,
}

impl Debt {
    /// Money that is owed since then.
    #[must_use]
    pub const fn since(since: Timestamp) -> Self {
        Self { since, stray: None, refund: None }
    }
}

/// Money that was returned.
///
/// ```
/// use flux_core::{Refund, RefundRef, Timestamp};
///
/// let refund = Refund::new(RefundRef::new("re_81")?, Timestamp::default());
/// assert_eq!(refund.reference.as_str(), "re_81");
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refund {
    /// The payment provider's name of the refund.
    pub reference: RefundRef,
    /// The moment it was told of.
    pub at: Timestamp,
}

impl Refund {
    /// The refund of that name, told of at that moment.
    #[must_use]
    pub const fn new(reference: RefundRef, at: Timestamp) -> Self {
        Self { reference, at }
    }
}
