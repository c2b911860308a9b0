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
    /// Parts of each order, but for its lines: its own row, and one of its buyer
    /// where the store counts that one's holds.
    #[builder(default = 1)]
    pub parts_per_order: usize,
    /// Parts of each line, beside that of a capped item: 1 where the store looks
    /// at a row of the buyer and the item.
    #[builder(default = 0)]
    pub parts_per_line: usize,
}

/// The weight of decisions in a commit, but for the items they are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// The rows of the orders and of their buyers, the most there can be.
    pub parts: usize,
    /// The orders' bytes, by [`Order::weight`].
    pub bytes: usize,
}

impl std::ops::Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { parts: self.parts + other.parts, bytes: self.bytes + other.bytes }
    }
}

impl CommitMax {
    /// No bounds: one commit takes whatever there is to write.
    pub const UNLIMITED: Self = Self {
        parts: usize::MAX,
        bytes: usize::MAX,
        side_by_side: 1,
        parts_per_order: 1,
        parts_per_line: 0,
    };

    /// The weight of a decision on `order`; `is_capped` tells which items have a
    /// cap for each buyer, which costs one part more for each line.
    pub fn weigh(&self, order: &Order, is_capped: impl Fn(&ItemId) -> bool) -> Weight {
        let capped = order.lines.iter().filter(|line| is_capped(&line.item)).count();
        let lines = order.lines.len() * self.parts_per_line + capped;
        Weight { parts: self.parts_per_order + lines, bytes: order.weight() }
    }

    /// Whether one commit takes decisions of this weight on so many items, each
    /// of which counts as two parts more: its stock and its log.
    #[must_use]
    pub fn fits(&self, decisions: Weight, items: usize) -> bool {
        decisions.parts.saturating_add(2 * items) <= self.parts && decisions.bytes <= self.bytes
    }
}
