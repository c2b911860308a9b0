//! The rules against hoarding: how many live holds a buyer may have over all
//! items, and how long a buyer waits for an item after a hold of it ended unpaid.
//!
//! They are kept by the store's conditional write, as caps are: a worker knows
//! nothing of a buyer's other holds, and learns from a refusal which orders are
//! barred.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::num::NonZeroU32;
use std::time::Duration;

use bon::Builder;
use serde::{Deserialize, Serialize};

use super::commit::{Expect, OrderWrite};
use super::ids::{BuyerId, ItemId, OrderId};
use super::limits::Timestamp;
use super::order::{Hold, Order, OrderState, OrderStatus};

/// What a store asks of buyers before they get another hold; nothing, by default.
///
/// All who share a store must give it the same rules. Who breaks one is turned
/// down with [`Reason::BuyerLimit`](super::Reason::BuyerLimit).
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
///
/// use flux_core::{Backend, BuyerRules};
///
/// let rules = BuyerRules::builder()
///     .maybe_holds_max(NonZeroU32::new(4))
///     .hold_again_after(Duration::from_secs(300))
///     .build();
/// let backend = Backend::memory_with().buyer_rules(rules).build();
/// assert!(BuyerRules::default().are_off() && !rules.are_off());
/// # drop(backend);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Builder, Serialize, Deserialize)]
#[builder(builder_type(doc {
    /// Builds [`BuyerRules`]; made by [`BuyerRules::builder`]. What is left out is
    /// not asked.
}))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BuyerRules {
    /// Most live holds of one buyer over all items: orders that are
    /// [`OrderStatus::Held`], one whose time is over and whose stock is not back
    /// yet among them.
    pub holds_max: Option<NonZeroU32>,
    /// The time for which a buyer gets no hold of an item, after one of that item
    /// ended unpaid: expired, or released. It counts from the moment that hold
    /// ended, and bars what is decided once that end is written. An order that
    /// took its stock again for a late payment stands, as it is a sale. Zero is
    /// no time.
    pub hold_again_after: Option<Duration>,
}

impl BuyerRules {
    /// Whether nothing is asked.
    #[must_use]
    pub fn are_off(&self) -> bool {
        self.holds_max.is_none() && self.pause().is_none()
    }

    /// The pause, if there is one.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.hold_again_after.filter(|pause| !pause.is_zero())
    }

    /// The moment from which the buyer of `order` may hold its items again, if
    /// its hold ended unpaid.
    #[must_use]
    pub fn paused_until(&self, order: &Order) -> Option<Timestamp> {
        self.pause().and_then(|pause| Some(ended_unpaid(order)?.expires_at + pause))
    }
}

/// The hold of an order that ended unpaid. (Of one that was released it lasted
/// until then.)
fn ended_unpaid(order: &Order) -> Option<Hold> {
    match &order.state {
        OrderState::Released(hold) | OrderState::Expired(hold) => Some(*hold),
        _ => None,
    }
}

/// The rules and the buyers as a store has them when a commit is judged.
pub trait BuyersNow {
    /// The rules.
    fn rules(&self) -> BuyerRules;

    /// Live holds of the buyer; asked if there is a
    /// [`holds_max`](BuyerRules::holds_max).
    fn holds(&self, buyer: &BuyerId) -> u32;

    /// The moment from which the buyer may hold the item again; asked if there
    /// is a [`pause`](BuyerRules::pause).
    fn paused_until(&self, item: &ItemId, buyer: &BuyerId) -> Option<Timestamp>;
}

/// Live holds that a commit gives to a buyer, or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldGain {
    /// Holds gained; below zero when more end.
    pub holds: i64,
    /// Holds that begin.
    pub begun: u32,
}

impl HoldGain {
    /// The most live holds the buyer may have before, for the gain to stay within
    /// the rule. `None` when no hold begins.
    #[must_use]
    pub fn live_max(self, holds_max: NonZeroU32) -> Option<i64> {
        // G6: the holds there are and those that begin, over all items.
        (self.begun > 0).then(|| i64::from(holds_max.get()) - self.holds)
    }
}

/// The effect of a commit on a buyer's pause for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PauseChange {
    /// The earliest decision on a hold that begins: the pause must be over by then.
    pub over_by: Option<Timestamp>,
    /// The end of the pause that begins.
    pub until: Option<Timestamp>,
}

/// The effects of a commit on what the rules ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuyerChanges<'c> {
    /// Buyers' live holds; empty if nobody counts them.
    pub holds: BTreeMap<&'c BuyerId, HoldGain>,
    /// Buyers' pauses for items; empty if there are none.
    pub pauses: BTreeMap<(&'c ItemId, &'c BuyerId), PauseChange>,
}

/// The part of a judgement that is about the rules.
pub(super) struct BuyerDraft<'c, 's> {
    now: &'s dyn BuyersNow,
    rules: BuyerRules,
    changes: BuyerChanges<'c>,
    begins: Vec<&'c Order>,
    barred: Vec<OrderId>,
}

impl<'c, 's> BuyerDraft<'c, 's> {
    pub(super) fn new(now: &'s dyn BuyersNow) -> Self {
        let (changes, rules) = (BuyerChanges::default(), now.rules());
        Self { now, rules, changes, begins: Vec::new(), barred: Vec::new() }
    }

    /// Follows a write. What a hold's end pauses it pauses for the writes behind
    /// it as well.
    pub(super) fn write(&mut self, write: &'c OrderWrite) {
        let order = &write.order;
        let was_held = write.expect == Expect::Status(OrderStatus::Held);
        match (was_held, order.hold(), order.status() == OrderStatus::Held) {
            (true, _, false) => self.end(order),
            (false, Some(hold), true) => self.begin(order, hold.decided_at),
            _ => {}
        }
    }

    fn end(&mut self, order: &'c Order) {
        if self.rules.holds_max.is_some() {
            self.changes.holds.entry(&order.buyer).or_default().holds -= 1;
        }
        let Some(until) = self.rules.paused_until(order) else { return };
        for line in order.lines.iter() {
            let pause = self.changes.pauses.entry((&line.item, &order.buyer)).or_default();
            pause.until = pause.until.max(Some(until));
        }
    }

    fn begin(&mut self, order: &'c Order, at: Timestamp) {
        if self.rules.pause().is_some() {
            // G6: nobody who let a hold of an item go gets the next one at once.
            if order.lines.iter().any(|line| self.is_paused(&line.item, &order.buyer, at)) {
                self.barred.push(order.id);
                return;
            }
            for line in order.lines.iter() {
                let pause = self.changes.pauses.entry((&line.item, &order.buyer)).or_default();
                pause.over_by = Some(pause.over_by.map_or(at, |earliest| earliest.min(at)));
            }
        }
        if self.rules.holds_max.is_some() {
            self.begins.push(order);
        }
    }

    fn is_paused(&self, item: &ItemId, buyer: &BuyerId, at: Timestamp) -> bool {
        let here = self.changes.pauses.get(&(item, buyer)).and_then(|pause| pause.until);
        here.max(self.now.paused_until(item, buyer)).is_some_and(|until| at < until)
    }

    /// The changes, and the orders that get no hold: of a buyer's those that come
    /// last in the commit.
    pub(super) fn finish(mut self) -> (BuyerChanges<'c>, Vec<OrderId>) {
        let Some(holds_max) = self.rules.holds_max else { return (self.changes, self.barred) };
        let mut live: BTreeMap<&BuyerId, u32> = BTreeMap::new();
        for order in self.begins {
            let live = match live.entry(&order.buyer) {
                Occupied(known) => *known.get(),
                Vacant(asked) => *asked.insert(self.now.holds(&order.buyer)),
            };
            let gain = self.changes.holds.entry(&order.buyer).or_default();
            let more = HoldGain { holds: gain.holds + 1, begun: gain.begun + 1 };
            if more.live_max(holds_max).is_some_and(|live_max| i64::from(live) <= live_max) {
                *gain = more;
            } else {
                self.barred.push(order.id);
            }
        }
        (self.changes, self.barred)
    }
}

#[cfg(test)]
#[path = "buyer_rules_tests.rs"]
mod tests;
