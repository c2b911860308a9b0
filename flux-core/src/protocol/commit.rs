//! One atomic write: the orders it changes, what each must still be for the
//! write to count, and the claims it rests on. What a commit does to the stock
//! follows from its orders, so it is not written down twice.

use serde::{Deserialize, Serialize};

use super::ids::{BuyerId, ItemId, OrderId};
use super::order::{Order, OrderStatus};

/// Minted by the store each time an item is claimed, ever larger. A commit
/// carries the token of its claim, and is refused once a later claim was made:
/// a worker that slept through the end of its lease can't write (Kleppmann,
/// "How to do distributed locking", 2016, calls it a fencing token).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

/// What an order must be in the store for a write to it to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Not there: nobody has decided this id.
    Absent,
    /// In this state.
    Status(OrderStatus),
}

/// What a write does to the stock of its order's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The units are taken.
    Takes,
    /// The units are given back.
    GivesBack,
    /// The stock stays as it is.
    None,
}

/// One order, written if it still is what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderWrite {
    /// The order as it shall be.
    pub order: Order,
    /// What it must be now.
    pub expect: Expect,
}

impl OrderWrite {
    /// What this does to the stock.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let owned = matches!(self.expect, Expect::Status(status) if status.owns_stock());
        match (owned, self.order.status().owns_stock()) {
            (false, true) => Effect::Takes,
            (true, false) => Effect::GivesBack,
            _ => Effect::None,
        }
    }
}

/// Decisions to write together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Every item the decisions rest on, each with the token of the claim.
    pub claims: Vec<(ItemId, FencingToken)>,
    /// The orders, each at most once.
    pub writes: Vec<OrderWrite>,
}

/// A buyer whose cap a commit would have broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverCap {
    /// The capped item.
    pub item: ItemId,
    /// Who.
    pub buyer: BuyerId,
    /// Units of the item the buyer holds or owns already.
    pub live: u32,
}

/// What became of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Every write took effect.
    Applied,
    /// Somebody claimed one of the items after us; nothing took effect. Drop
    /// what is known of these items and claim again.
    Fenced(Vec<ItemId>),
    /// Nothing took effect; decide again without these.
    Conflict {
        /// Orders that are not what was expected; read them.
        moved: Vec<OrderId>,
        /// Buyers over their cap.
        over_cap: Vec<OverCap>,
    },
    /// The store can't tell whether it took effect.
    Unknown,
}
