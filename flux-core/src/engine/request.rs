//! What an application asks for.

use bon::bon;

use crate::protocol::{BuyerId, InvalidInput, Line, Lines, OrderId};

/// An order to place. Without an id the engine makes a time-ordered one
/// (UUIDv7); give one, your own or
/// [from an idempotency key](OrderId::from_idempotency_key), to be able to
/// repeat the request safely.
///
/// An id of your own stands for one request. A repeat gets the order of the
/// first, as placed when that was; another buyer's or for other things, it is
/// [`Error::IdReused`](super::Error::IdReused), whether the first is decided,
/// queued or on its way in this engine. Two engines that are given different
/// requests under one id at the same moment may both queue them, and so may one
/// engine if its queue can't look inside
/// ([`finds_all`](crate::seams::OrderQueue::finds_all)): one of them is decided,
/// and whoever waits for the other is told that the id is reused;
/// [`submit`](super::Flux::submit) doesn't wait.
///
/// ```
/// use flux_core::{Line, OrderRequest};
///
/// let two = OrderRequest::units("ann", "ticket_1", 2)?;
/// let seats = OrderRequest::seats("ann", "hall", ["A1", "A2"])?;
/// let both = OrderRequest::builder()
///     .buyer("ann")
///     .lines(vec![Line::units("parking", 1)?, Line::seats("hall", ["A1"])?])
///     .build()?;
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRequest {
    /// The identity to decide it under, if the caller chose one.
    pub id: Option<OrderId>,
    /// Who asks.
    pub buyer: BuyerId,
    /// What for.
    pub lines: Lines,
}

#[bon]
impl OrderRequest {
    /// Builds a request for several lines.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    #[builder]
    pub fn new(
        id: Option<OrderId>,
        #[builder(into)] buyer: String,
        lines: Vec<Line>,
    ) -> Result<Self, InvalidInput> {
        Ok(Self { id, buyer: BuyerId::new(buyer)?, lines: Lines::new(lines)? })
    }
}

impl OrderRequest {
    /// `quantity` units of a pool.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    pub fn units(
        buyer: impl AsRef<str>,
        item: impl AsRef<str>,
        quantity: u64,
    ) -> Result<Self, InvalidInput> {
        Self::one_line(buyer, Line::units(item, quantity)?)
    }

    /// These seats of a hall.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    pub fn seats<S: AsRef<str>>(
        buyer: impl AsRef<str>,
        item: impl AsRef<str>,
        seats: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidInput> {
        Self::one_line(buyer, Line::seats(item, seats)?)
    }

    /// The same request under an id the caller chose.
    #[must_use]
    pub fn with_id(mut self, id: OrderId) -> Self {
        self.id = Some(id);
        self
    }

    fn one_line(buyer: impl AsRef<str>, line: Line) -> Result<Self, InvalidInput> {
        Ok(Self { id: None, buyer: BuyerId::new(buyer)?, lines: Lines::new(vec![line])? })
    }
}
