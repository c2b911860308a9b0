//! The calls about items.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Flux;
use crate::engine::error::Error;
use crate::protocol::{Item, ItemId, ItemKind, ItemSpec, SeatId, Stock};
use crate::seams::{Availability, Outcomes, PutOutcome};

/// A seat of a hall, from [`Flux::seats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Seat {
    /// Its name.
    pub id: SeatId,
    /// Whether it can be ordered.
    pub state: SeatState,
}

/// Whether a seat can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum SeatState {
    /// No order holds or owns it.
    Free,
    /// An order holds or owns it.
    Taken,
}

impl Flux {
    /// Creates an item, or replaces its definition by this one as a whole,
    /// whoever put the other. Units that orders hold or own stay theirs, so a
    /// pool can't shrink below them, a hall can't lose their seats, and a pool
    /// can't become a hall. Putting the same twice is safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let made = flux.put_item(ItemSpec::pool("poster", 10)?).await?;
    /// let more = ItemSpec::builder().id("poster").capacity(20).max_per_buyer(4).build()?;
    /// let replaced = flux.put_item(more).await?;
    /// assert_eq!((made, replaced), (PutOutcome::Created, PutOutcome::Changed));
    ///
    /// flux.place(OrderRequest::units("ann", "poster", 4)?).await?;
    /// let fewer = flux.put_item(ItemSpec::pool("poster", 3)?).await;
    /// assert!(matches!(fewer, Err(Error::PutItem(PutItemError::CapacityInUse { .. }))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::PutItem`] when the new definition doesn't fit what is held and
    /// sold, [`Error::Overloaded`], [`Error::Backend`].
    pub async fn put_item(&self, spec: ItemSpec) -> Result<PutOutcome, Error> {
        let outcome = match self.core().backend.store.put_item(&spec).await? {
            PutOutcome::Refused(why) => return Err(Error::PutItem(why)),
            outcome => outcome,
        };
        if let Some(item) = self.item(&spec.id).await? {
            let level = Availability { item: spec.id, available: item.available };
            self.core().gate.set(item.spec, item.available);
            self.core()
                .publish(Arc::new(Outcomes { orders: Vec::new(), availability: vec![level] }))
                .await;
        }
        Ok(outcome)
    }

    /// Reads an item and its units: available, held and sold. `None` when there
    /// is no such item.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let item = flux.item(&ItemId::new("ticket")?).await?.expect("it was put");
    /// assert_eq!((item.available, item.held, item.sold), (1, 1, 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn item(&self, id: &ItemId) -> Result<Option<Item>, Error> {
        let found = self.core().backend.store.items(std::slice::from_ref(id)).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Lists items by id, those after `after`, at most `limit`. Fewer than
    /// `limit` means that there are no more.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.put_item(ItemSpec::pool("poster", 10)?).await?;
    /// let first = flux.items(None, 1).await?;
    /// assert_eq!(first[0].spec.id.as_str(), "poster");
    /// let next = flux.items(Some(&first[0].spec.id), 1).await?;
    /// assert_eq!(next[0].spec.id.as_str(), "ticket");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn items(&self, after: Option<&ItemId>, limit: usize) -> Result<Vec<Item>, Error> {
        Ok(self.core().backend.store.list_items(after, limit).await?)
    }

    /// Lists the seats of a hall in the order they were put; `None` for a pool.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.put_item(ItemSpec::hall("hall", ["A1", "A2"])?).await?;
    /// flux.place(OrderRequest::seats("ann", "hall", ["A2"])?).await?;
    ///
    /// let seats = flux.seats(&ItemId::new("hall")?).await?.expect("it is a hall");
    /// assert_eq!(seats[0].state, SeatState::Free);
    /// assert_eq!((seats[1].id.as_str(), seats[1].state), ("A2", SeatState::Taken));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownItem`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn seats(&self, id: &ItemId) -> Result<Option<Vec<Seat>>, Error> {
        let found = self.core().backend.store.stock(id).await?;
        let (spec, stock) = found.ok_or_else(|| Error::UnknownItem(id.clone()))?;
        let (ItemKind::Seats(hall), Stock::Seats(map)) = (&spec.kind, &stock) else {
            return Ok(None);
        };
        let seat = |(id, index): (&SeatId, _)| Seat {
            id: id.clone(),
            state: if map.is_taken(index) { SeatState::Taken } else { SeatState::Free },
        };
        Ok(Some(hall.names().iter().zip(0..).map(seat).collect()))
    }
}
