//! The change feed: what happened to orders and items, for whoever follows a sale.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Cursor, Removed, SeamError};
use crate::protocol::{ConsumerName, ItemSpec, Order, Timestamp};

/// Most consumers whose cursors one feed keeps.
pub const CONSUMERS_MAX: usize = 100;

/// What a change made of its order or item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Changed {
    /// An order, as the change left it.
    Order(Order),
    /// An item's definition, as the change left it. What is left of it follows from the
    /// orders.
    Item(ItemSpec),
    /// An item that is gone, archived with its orders or deleted. What comes of an item of
    /// that id later is another's.
    Removed(Removed),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// Its place in the feed: the next read goes on after it.
    pub cursor: Cursor,
    /// The engine's time when it was written, or shortly before.
    pub at: Timestamp,
    /// What is so now.
    pub changed: Changed,
}

impl Change {
    /// A change at a place of the feed.
    #[must_use]
    pub fn new(cursor: Cursor, at: Timestamp, changed: Changed) -> Self {
        Self { cursor, at, changed }
    }
}

/// Changes that were read together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangePage {
    /// The changes, oldest first; none if nothing came.
    pub changes: Vec<Change>,
    /// The place to go on after.
    pub next: Cursor,
}

impl ChangePage {
    /// Changes behind which the feed goes on after `next`.
    #[must_use]
    pub fn new(changes: Vec<Change>, next: Cursor) -> Self {
        Self { changes, next }
    }
}

/// A consumer and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Consumer {
    /// Its name.
    pub name: ConsumerName,
    /// The last change it is done with.
    pub after: Cursor,
}

impl Consumer {
    /// A consumer that is done with all up to `after`.
    #[must_use]
    pub fn new(name: ConsumerName, after: Cursor) -> Self {
        Self { name, after }
    }
}

/// Every change of an order or an item, in a store that keeps them.
///
/// A change is in the feed exactly if it is in the store, durable with the commit that
/// made it. Those of one order come in the order they were made, as do those of one item.
/// A reader who goes on from the cursor of the last change it is done with misses none,
/// and sees a change again that it had not got that far with: at least once.
///
/// Changes are kept for a time, and no more than so many. Who comes later is told by
/// [`SeamError::ChangesGone`]: it takes the [newest](Self::newest) cursor, reads the
/// orders as they are, and goes on from that cursor.
///
/// ```
/// use std::time::Duration;
/// use flux_core::seams::Changed;
/// use flux_core::{Backend, Flux, ItemSpec, OrderRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = Backend::memory();
/// let feed = backend.store.feed().expect("this store has one");
/// let flux = Flux::builder(backend).start();
/// flux.put_item(ItemSpec::pool("ticket_1", 100)?).await?;
/// let held = flux.place(OrderRequest::units("ann", "ticket_1", 2)?).await?;
///
/// let page = feed.changes(None, 10, Duration::from_secs(1)).await?;
/// assert_eq!(page.changes[1].changed, Changed::Order(held));
/// assert!(feed.changes(Some(&page.next), 10, Duration::ZERO).await?.changes.is_empty());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ChangeFeed: Send + Sync + 'static {
    /// Reads up to `limit` changes behind `after`, from the oldest that is kept without
    /// one, and waits up to `wait` for the first. Cancel-safe.
    ///
    /// # Errors
    /// [`SeamError::ChangesGone`] when changes behind `after` are not kept any more;
    /// [`SeamError::UnknownCursor`] for one that is not of this feed.
    async fn changes(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangePage, SeamError>;

    /// The place behind all changes made so far.
    async fn newest(&self) -> Result<Cursor, SeamError>;

    /// Keeps how far a consumer came, durable when it returns. It may go back.
    ///
    /// # Errors
    /// [`SeamError::UnknownCursor`], and [`SeamError::TooManyConsumers`] for one more than
    /// [`CONSUMERS_MAX`].
    async fn keep_cursor(&self, consumer: &Consumer) -> Result<(), SeamError>;

    /// Lists the consumers by name.
    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError>;

    /// Forgets a consumer, and tells whether there was one.
    async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, SeamError>;

    /// Tells how far a consumer came, if it is known.
    async fn cursor_of(&self, name: &ConsumerName) -> Result<Option<Cursor>, SeamError> {
        let consumers = self.consumers().await?.into_iter();
        Ok(consumers.filter(|consumer| consumer.name == *name).map(|known| known.after).next())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
