//! What the rules about buyers ask a store to keep: each buyer's live holds, and
//! the pauses after holds that ended unpaid. It is derived from the orders, so no
//! store writes it down.
//!
//! Its memory is bounded by the holds that live, and by those that ended unpaid
//! within one pause: each look for due holds drops the pauses that are over.

use std::collections::BTreeMap;

use super::sharded::Sharded;
use crate::protocol::{BuyerChanges, BuyerId, BuyerRules, BuyersNow, ItemId, Timestamp};

/// The live holds and the pauses of all buyers.
#[derive(Debug, Default)]
pub(crate) struct BuyerBook {
    rules: BuyerRules,
    holds: Sharded<BuyerId, u32>,
    pauses: Sharded<(ItemId, BuyerId), Timestamp>,
    /// The pauses by their end. One that became longer is here under both ends.
    ends: BTreeMap<Timestamp, Vec<(ItemId, BuyerId)>>,
}

impl BuyersNow for BuyerBook {
    fn rules(&self) -> BuyerRules {
        self.rules
    }

    fn holds(&self, buyer: &BuyerId) -> u32 {
        self.holds.get(buyer).copied().unwrap_or(0)
    }

    fn paused_until(&self, item: &ItemId, buyer: &BuyerId) -> Option<Timestamp> {
        self.pauses.get(&(item.clone(), buyer.clone())).copied()
    }
}

impl BuyerBook {
    /// An empty book; none if the rules ask for nothing.
    pub(crate) fn of(rules: BuyerRules) -> Option<Self> {
        (!rules.are_off()).then(|| Self { rules, ..Self::default() })
    }

    /// Enters the effects of a commit.
    pub(crate) fn enter(&mut self, changes: BuyerChanges<'_>) {
        for (buyer, gain) in changes.holds {
            self.move_holds(buyer, gain.holds);
        }
        for ((item, buyer), change) in changes.pauses {
            if let Some(until) = change.until {
                self.pause(item.clone(), buyer.clone(), until);
            }
        }
    }

    /// Enters holds that a buyer gained, or that ended.
    pub(crate) fn move_holds(&mut self, buyer: &BuyerId, gained: i64) {
        if self.rules.holds_max.is_none() || gained == 0 {
            return;
        }
        let holds = i64::from(self.holds(buyer)) + gained;
        debug_assert!(holds >= 0, "more holds ended than there were");
        let shard = self.holds.shard_mut(buyer);
        match u32::try_from(holds) {
            Ok(0) | Err(_) => shard.remove(buyer),
            Ok(holds) => shard.insert(buyer.clone(), holds),
        };
    }

    /// Enters the end of a hold that ended unpaid, as it is found when a store opens.
    #[cfg(feature = "embedded")]
    pub(crate) fn ended_unpaid(&mut self, item: ItemId, buyer: BuyerId, at: Timestamp) {
        let pause = self.rules.pause().unwrap_or_default();
        self.pause(item, buyer, at + pause);
    }

    fn pause(&mut self, item: ItemId, buyer: BuyerId, until: Timestamp) {
        let key = (item, buyer);
        let end = self.pauses.shard_mut(&key).entry(key.clone()).or_default();
        if *end < until {
            *end = until;
            self.ends.entry(until).or_default().push(key);
        }
    }

    /// Forgets pauses that are over by `now`, at most `max`.
    pub(crate) fn drop_pauses(&mut self, now: Timestamp, max: usize) {
        for _ in 0..max {
            let Some(mut first) = self.ends.first_entry().filter(|end| *end.key() <= now) else {
                return;
            };
            let (end, key) = (*first.key(), first.get_mut().pop());
            if first.get().is_empty() {
                first.remove();
            }
            let Some(key) = key else { continue };
            let shard = self.pauses.shard_mut(&key);
            if shard.get(&key).is_some_and(|longest| *longest == end) {
                shard.remove(&key);
            }
        }
    }
}

#[cfg(test)]
impl BuyerBook {
    /// Pauses that are remembered.
    pub(crate) fn pauses_kept(&self) -> usize {
        self.ends.values().map(Vec::len).sum()
    }
}
