//! The request for an order: [`OrderRequest`].

use bon::bon;
use serde::{Deserialize, Serialize};

use crate::protocol::{BuyerId, IdempotencyKey, InvalidInput, Line, Lines, Metadata, OrderId};

/// An order to place. Without an id the engine makes a time-ordered one
/// (UUIDv7); give one of your own, or the buyer's idempotency key, to be able to
/// repeat the request safely.
///
/// An id of your own is any UUID but a version 5 one: those
/// [stand for keys](OrderId::from_idempotency_key), and as anybody can compute them,
/// only the key brings in an order. Given as an id they repeat a request that is known;
/// else it is [`Error::Invalid`](super::Error::Invalid).
///
/// An id of your own, or a key, stands for one request. A repeat gets the order of the
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// The identity to decide it under, if the caller chose one.
    #[serde(default)]
    pub id: Option<OrderId>,
    /// The buyer's word for this request, which then stands in for an id.
    #[serde(default)]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The buyer who asks.
    pub buyer: BuyerId,
    /// The lines asked for: the order gets all of them, or none.
    pub lines: Lines,
    /// What to attach to the order.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

#[bon]
impl OrderRequest {
    /// Builds a request for several lines.
    ///
    /// ```
    /// use flux_core::{Line, OrderId, OrderRequest};
    ///
    /// let request = OrderRequest::builder()
    ///     .id(OrderId::new())
    ///     .buyer("ann")
    ///     .lines(vec![Line::units("parking", 1)?, Line::seats("hall", ["A1", "A2"])?])
    ///     .build()?;
    /// assert_eq!(request.lines.len(), 2);
    /// let wrong = OrderRequest::builder().buyer("ann").lines(Vec::new()).build();
    /// assert_eq!(wrong.unwrap_err().field(), "lines");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    #[builder(builder_type(name = OrderRequestBuilder, doc {
    /// Builds an [`OrderRequest`] for several lines; `build` checks it. For an
    /// example see [`OrderRequest::builder`].
    }))]
    pub fn new(
        /// The id to decide it under, to be able to repeat the request; without
        /// one the engine makes it.
        id: Option<OrderId>,
        /// The buyer's word for the request, instead of an id.
        idempotency_key: Option<IdempotencyKey>,
        /// The buyer who asks: a [`BuyerId`].
        #[builder(into)]
        buyer: String,
        /// The lines, 1 to 10; they get all or nothing.
        lines: Vec<Line>,
        /// What to attach to the order; nothing.
        #[builder(default)]
        metadata: Metadata,
    ) -> Result<Self, InvalidInput> {
        let (buyer, lines) = (BuyerId::new(buyer)?, Lines::new(lines)?);
        Ok(Self { id, idempotency_key, buyer, lines, metadata })
    }
}

impl OrderRequest {
    /// A request of parts that are checked already.
    #[must_use]
    pub fn of(buyer: BuyerId, lines: Lines) -> Self {
        Self { id: None, idempotency_key: None, buyer, lines, metadata: Metadata::default() }
    }

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

    /// The same request under an id the caller chose, if one was.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Option<OrderId>>) -> Self {
        self.id = id.into();
        self
    }

    /// The same request under a key of the buyer's, if there is one.
    ///
    /// ```
    /// use flux_core::{IdempotencyKey, OrderRequest};
    ///
    /// let key = IdempotencyKey::new("basket_7")?;
    /// let request = OrderRequest::units("ann", "ticket_1", 2)?.with_idempotency_key(key);
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<Option<IdempotencyKey>>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    /// The same request with this attached to it, which a repeat must have too.
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// The id that the caller, or the buyer's key, stands for it under.
    pub(super) fn chosen_id(&self) -> Result<Option<OrderId>, InvalidInput> {
        match (self.id, &self.idempotency_key) {
            (id, None) => Ok(id),
            (None, Some(key)) => Ok(Some(OrderId::of_key(&self.buyer, key))),
            (Some(_), Some(_)) => {
                Err(InvalidInput::new("order_id", "can't stand beside an Idempotency-Key"))
            }
        }
    }

    fn one_line(buyer: impl AsRef<str>, line: Line) -> Result<Self, InvalidInput> {
        Ok(Self::of(BuyerId::new(buyer)?, Lines::one(line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written() -> Result<(), Box<dyn std::error::Error>> {
        let request = OrderRequest::seats("ann", "hall", ["A1"])?;
        for request in [
            request.clone(),
            request.clone().with_id(OrderId::from_uuid(uuid::Uuid::nil())),
            request.with_idempotency_key(IdempotencyKey::new("k")?),
        ] {
            let text = serde_json::to_string(&request)?;
            assert_eq!(serde_json::from_str::<OrderRequest>(&text)?, request);
        }
        let nobody = r#"{"buyer": "", "lines": [{"item": "a", "ask": {"Units": 1}}]}"#;
        assert!(serde_json::from_str::<OrderRequest>(nobody).is_err());
        let without_a_key = r#"{"buyer": "ann", "lines": [{"item": "a", "ask": {"Units": 1}}]}"#;
        let read = serde_json::from_str::<OrderRequest>(without_a_key)?;
        assert_eq!(read, OrderRequest::units("ann", "a", 1)?);
        Ok(())
    }
}
