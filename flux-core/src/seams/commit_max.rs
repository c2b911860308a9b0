//! How much one commit may hold, and what a decision weighs against it.

use crate::protocol::{ItemId, Order};

/// How much one [`Commit`](crate::protocol::Commit) may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMax {
    /// Parts it may be made of, as [`Weight`] and [`fits`](Self::fits) count
    /// them.
    pub parts: usize,
    /// Bytes of its orders in all, by [`Order::weight`].
    pub bytes: usize,
    /// Commits of one call that may rest on one claim, if each is about that
    /// item alone. They are applied at the same time, so whether one of them is
    /// applied must not depend on another.
    pub side_by_side: usize,
}

/// What decisions weigh in a commit, but for the items they are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// One for each order, and one more for each of its lines on a capped item.
    pub parts: usize,
    /// The orders' bytes, by [`Order::weight`].
    pub bytes: usize,
}

impl Weight {
    /// What a decision on `order` weighs; `is_capped` tells which items have a
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
    /// One commit holds whatever there is to write.
    pub const UNLIMITED: Self = Self { parts: usize::MAX, bytes: usize::MAX, side_by_side: 1 };

    /// Whether one commit holds decisions of this weight on so many items, each
    /// of which counts as two parts more: its stock and its log.
    #[must_use]
    pub fn fits(&self, decisions: Weight, items: usize) -> bool {
        decisions.parts.saturating_add(2 * items) <= self.parts && decisions.bytes <= self.bytes
    }
}
