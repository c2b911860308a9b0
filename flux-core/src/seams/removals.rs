//! How items leave a store: with their orders, once these are in an archive, or alone, if
//! they never sold anything.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SeamError;
use crate::protocol::{InvalidInput, ItemId, Order, OrderId, Timestamp};

/// The name of an archive: that of its directory, and in it.
///
/// ```
/// use flux_core::seams::ArchiveId;
///
/// let id = ArchiveId::new();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArchiveId(Uuid);

impl ArchiveId {
    /// Makes a fresh one; later ones sort after earlier ones.
    #[expect(clippy::new_without_default, reason = "a default is the same each time")]
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ArchiveId {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        text.parse().map(Self).map_err(|_| InvalidInput::new("archive", "must be a UUID"))
    }
}

/// The SHA-256 of an archive's manifest.
pub type Digest = [u8; 32];

/// Items that are on their way into an archive: nothing that concerns them changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Leaving {
    /// The archive that they go into.
    pub archive: ArchiveId,
    /// The items, sorted.
    pub items: Vec<ItemId>,
    /// The engine's time when they were sealed.
    pub since: Timestamp,
    /// What the archive's manifest has for a checksum, once all of it is in its place:
    /// from then on orders may be taken out of the store.
    pub filed: Option<Digest>,
}

impl Leaving {
    /// Items that are sealed from `since` on, to go into `archive`.
    #[must_use]
    pub fn new(archive: ArchiveId, mut items: Vec<ItemId>, since: Timestamp) -> Self {
        items.sort_unstable();
        items.dedup();
        Self { archive, items, since, filed: None }
    }
}

/// What a store keeps of an item that is in an archive: some 100 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tombstone {
    /// The item.
    pub item: ItemId,
    /// The archive that has it.
    pub archive: ArchiveId,
    /// The engine's time when it was sealed: the archive has its state of then.
    pub archived_at: Timestamp,
    /// The orders in that archive, over all of its items.
    pub orders: u64,
}

impl Tombstone {
    /// The tombstone of an item that is in an archive.
    #[must_use]
    pub fn new(item: ItemId, archive: ArchiveId, archived_at: Timestamp, orders: u64) -> Self {
        Self { item, archive, archived_at, orders }
    }
}

/// An item that is gone from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Removed {
    /// The item.
    pub item: ItemId,
    /// Where it is kept; `None` for one that was deleted, as it never sold anything.
    pub tombstone: Option<Tombstone>,
}

impl Removed {
    /// An item that is gone, and what is kept of it.
    #[must_use]
    pub fn new(item: ItemId, tombstone: Option<Tombstone>) -> Self {
        Self { item, tombstone }
    }
}

/// The reason why items can't leave the store now; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemovalRefused {
    /// No such item.
    #[error("no item is called {0}")]
    UnknownItem(ItemId),
    /// Its sale is not over.
    #[error("the sale of {0} is not over: give it a closes_at in the past")]
    NotClosed(ItemId),
    /// Units of it are held.
    #[error("{units} units of {item} are held: they must be paid for, released or expire")]
    Held {
        /// The item.
        item: ItemId,
        /// Units held.
        units: u32,
    },
    /// It sold something, so it can't be deleted.
    #[error("{0} sold something: archive it instead")]
    Sold(ItemId),
    /// An order owns units of another item too, and goes where both do.
    #[error("order {order} owns units of {other} as well as of {item}: archive both together")]
    Shared {
        /// The item.
        item: ItemId,
        /// The other one, which is not among those to archive.
        other: ItemId,
        /// The order.
        order: OrderId,
    },
    /// The money of an order is owed: tell of its refund first.
    #[error("the money of order {order} is owed, and {item} can't go before it is refunded")]
    Owed {
        /// The item.
        item: ItemId,
        /// The order.
        order: OrderId,
    },
    /// It is being archived, or was left half-way.
    #[error("{} being archived: archive {} again to go on", are(.0), list(.0))]
    Leaving(Vec<ItemId>),
    /// Some of the items are archived already, and others are not.
    #[error("{} is in archive {} already", .0.item, .0.archive)]
    Archived(Tombstone),
    /// The queue has messages from before the end of the sale.
    #[error("messages from before the end of the sale of {0} still wait in the queue")]
    Waiting(ItemId),
    /// Dead letters concern the item, or there are too many to tell.
    #[error("dead letters may be about {0}: redrive them first")]
    DeadLetters(ItemId),
}

fn list(items: &[ItemId]) -> String {
    items.iter().map(ItemId::as_str).collect::<Vec<_>>().join(", ")
}

fn are(items: &[ItemId]) -> String {
    format!("{} {}", list(items), if items.len() == 1 { "is" } else { "are" })
}

/// The outcome of [`Removals::seal`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sealing {
    /// They are sealed, by this call or by an earlier one that did not come to its end.
    Sealed(Leaving),
    /// They are all in archives, and gone.
    Archived(Vec<Tombstone>),
    /// They can't leave.
    Refused(RemovalRefused),
}

/// The outcome of [`Removals::delete`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deletion {
    /// The item is gone.
    Deleted,
    /// It was archived before; now its tombstone is gone, and its id can be used anew.
    Forgotten(Tombstone),
    /// It can't be deleted.
    Refused(RemovalRefused),
}

/// How items leave a store that lets them go.
///
/// An archive is made in steps, each of which may be repeated:
///
/// 1. [`seal`](Self::seal): nothing that concerns the items changes any more. Their orders
///    are listed and written to files.
/// 2. [`file`](Self::file), once these are in their place for good: or
///    [`unseal`](Self::unseal), if there won't be any.
/// 3. [`take_out`](Self::take_out): the orders leave, as they are read from the files.
/// 4. [`bury`](Self::bury): the items leave, and their tombstones stay.
///
/// So what leaves is what is in the files, whenever the process dies.
#[async_trait]
pub trait Removals: Send + Sync + 'static {
    /// Seals items whose sale is over at `now`, as one: from then on they can't be put or
    /// claimed, every earlier claim of theirs is fenced, and no order that is there and has
    /// a line on one of them is written. Sealed items are found sealed, under the archive
    /// they go into, if they are the same.
    async fn seal(
        &self,
        items: &[ItemId],
        archive: ArchiveId,
        now: Timestamp,
    ) -> Result<Sealing, SeamError>;

    /// Breaks the seal of items that go into an archive, if it is not filed.
    async fn unseal(&self, archive: ArchiveId) -> Result<(), SeamError>;

    /// Notes that an archive is in its place, by its manifest's checksum.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when nothing goes into that archive, or another is noted.
    async fn file(&self, archive: ArchiveId, digest: Digest) -> Result<(), SeamError>;

    /// Takes orders out of the store that are in an archive which is
    /// [filed](Self::file), and gives back what they own of its items. One that is not
    /// there is passed over. Bound the number: they leave at once.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when the archive is not filed, or an order has no line on its
    /// items or is in another state than in the store: none of them is taken out.
    async fn take_out(&self, archive: ArchiveId, orders: &[Order]) -> Result<(), SeamError>;

    /// Removes the items whose orders are all in the archive, of which there are so many,
    /// and returns their tombstones.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when the archive is not filed, or orders still own units of
    /// its items: none of them is removed.
    async fn bury(&self, archive: ArchiveId, orders: u64) -> Result<Vec<Tombstone>, SeamError>;

    /// Deletes an item of which no unit is held or was ever sold, or the tombstone of an
    /// archived one. Orders on it that own nothing stay.
    async fn delete(&self, item: &ItemId) -> Result<Deletion, SeamError>;

    /// Lists tombstones by item, those after `after`, at most `limit`.
    async fn tombstones(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, SeamError>;

    /// Tells when an item was last archived, and how many tombstones there are.
    async fn buried(&self) -> Result<(usize, Option<Tombstone>), SeamError>;
}
