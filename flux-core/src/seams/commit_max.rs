//! The bounds of a commit, and the weight of decisions against them.

use crate::protocol::{ItemId, Order};

/// The bounds of one [`Commit`](crate::protocol::Commit).
///
/// ```
/// use flux_core::seams::CommitMax;
///
/// let max = CommitMax::builder().parts(100).bytes(3_000_000).build();
/// assert_eq!(max.side_by_side, 1);
/// assert_eq!(CommitMax::builder().build(), CommitMax::UNLIMITED);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, bon::Builder)]
#[builder(builder_type(doc {
    /// Builds a [`CommitMax`]; made by [`CommitMax::builder`]. What is left out is
    /// as in [`CommitMax::UNLIMITED`].
}))]
#[non_exhaustive]
pub struct CommitMax {
    /// Most parts, as [`Weight`] and [`fits`](Self::fits) count them.
    #[builder(default = usize::MAX)]
    pub parts: usize,
    /// Most bytes of its orders, by [`Order::weight`].
    #[builder(default = usize::MAX)]
    pub bytes: usize,
    /// Most commits of one call that may carry the same claim. With 1, the
    /// decisions on an item go into one commit, and the rest waits for the next
    /// call. With more, decisions on an item may be split over so many, if no
    /// order among them has another item. The store then applies these
    /// commits at once, in no order, and may apply one and refuse another: the
    /// worker splits off only decisions that are right in either case (orders
    /// that get their units; turning one down would rest on the others).
    #[builder(default = 1)]
    pub side_by_side: usize,
}

/// The weight of decisions in a commit, but for the items they are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// One for each order, and one more for each of its lines on a capped item.
    pub parts: usize,
    /// The orders' bytes, by [`Order::weight`].
    pub bytes: usize,
}

impl Weight {
    /// The weight of a decision on `order`; `is_capped` tells which items have a
    /// cap for each buyer.
    pub fn of(order: &Order, is_capped: impl Fn(&ItemId) -> bool) -> Self {
        let capped = order.lines.iter().filter(|line| is_capped(&line.item)).count();
        Self { parts: 1 + capped, bytes: order.weight() }
    }
}

impl std::ops::Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { parts: self.parts + other.parts, bytes: self.bytes + other.bytes }
    }
}

impl CommitMax {
    /// No bounds: one commit takes whatever there is to write.
    pub const UNLIMITED: Self = Self { parts: usize::MAX, bytes: usize::MAX, side_by_side: 1 };

    /// Whether one commit takes decisions of this weight on so many items, each
    /// of which counts as two parts more: its stock and its log.
    #[must_use]
    pub fn fits(&self, decisions: Weight, items: usize) -> bool {
        decisions.parts.saturating_add(2 * items) <= self.parts && decisions.bytes <= self.bytes
    }
}
