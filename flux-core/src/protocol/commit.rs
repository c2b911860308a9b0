//! One atomic write, and the rule by which every store judges it: [`judge`].
//!
//! A commit names the orders it changes, what each must still be for the write
//! to count, and the claims it rests on. What it does to the stock follows from
//! its orders, so it is not written down twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::buyer_rules::{BuyerChanges, BuyerDraft, BuyersNow};
use super::debt::Money;
use super::ids::{BuyerId, ItemId, OrderId};
use super::item::ItemSpec;
use super::order::{Line, Order, OrderStatus};
use super::stock::Stock;

/// A number that the store mints each time an item is claimed, ever larger. A
/// commit carries the token of its claim, and is refused once a later claim was
/// made: a worker that slept through the end of its lease can't write
/// (Kleppmann, "How to do distributed locking", 2016, calls it a fencing
/// token).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

/// The condition of a write: its order's state in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Absent: the id is not decided.
    Absent,
    /// Present, in this state.
    Status(OrderStatus),
    /// Present, in this state, and its money stands so.
    Money(OrderStatus, Money),
}

impl Expect {
    /// Whether an order that is `found` in the store, in that state and with its money
    /// standing so, or not there, is what was expected.
    #[must_use]
    pub fn is_met_by(self, found: Option<(OrderStatus, Money)>) -> bool {
        // G3: what is there already is not absent, whoever wrote it.
        match (self, found) {
            (Self::Absent, None) => true,
            (Self::Status(expected), Some((found, _))) => expected == found,
            // G9: of two refunds, or two payments that are owed, one finds it so.
            (Self::Money(status, money), Some(found)) => (status, money) == found,
            (Self::Absent, Some(_)) | (Self::Status(_) | Self::Money(..), None) => false,
        }
    }

    /// The state that the order must be in, if it must be there.
    #[must_use]
    pub fn status(self) -> Option<OrderStatus> {
        match self {
            Self::Absent => None,
            Self::Status(status) | Self::Money(status, _) => Some(status),
        }
    }
}

/// The effect of a write on the stock of its order's lines.
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
    /// The state that the order must be in for the write to count.
    pub expect: Expect,
}

impl OrderWrite {
    /// The effect on the stock.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let owned = self.expect.status().is_some_and(OrderStatus::owns_stock);
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
    /// The buyer.
    pub buyer: BuyerId,
    /// Units of the item the buyer holds or owns already.
    pub live: u32,
}

/// The outcome of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Every write took effect.
    Applied,
    /// Another worker claimed these items since; nothing took effect. Forget what
    /// is known of them and claim again.
    Fenced(Vec<ItemId>),
    /// Orders or buyers are not as expected; nothing took effect. Decide again
    /// without these: the claims still stand.
    Conflict {
        /// Orders that are not what was expected; read them.
        moved: Vec<OrderId>,
        /// Buyers over their cap.
        over_cap: Vec<OverCap>,
        /// New orders that the [rules about buyers](super::BuyerRules) bar from
        /// a hold. The others of their buyers get theirs.
        barred: Vec<OrderId>,
    },
    /// The store can't tell whether it took effect.
    Unknown,
}

/// A claimed item as the store has it when a commit is judged.
#[derive(Debug, Clone, Copy)]
pub struct ItemNow<'s> {
    /// The newest token minted for it.
    pub token: FencingToken,
    /// Its definition.
    pub spec: &'s ItemSpec,
    /// Its stock.
    pub stock: &'s Stock,
}

/// The reason to refuse a commit, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The claims of these items are not the newest, or missing.
    Fenced(Vec<ItemId>),
    /// The orders or the buyers are not what the worker took them for.
    Conflict {
        /// Orders that are not what was expected.
        moved: Vec<OrderId>,
        /// Buyers over their cap.
        over_cap: Vec<OverCap>,
        /// New orders that the rules about buyers bar; none are told while there
        /// are buyers over their cap, whose orders won't count.
        barred: Vec<OrderId>,
    },
    /// More is taken of these items than is available. A commit decided under its
    /// claims never does that.
    Overtaken(Vec<ItemId>),
}

impl From<Refusal> for CommitOutcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced(items) | Refusal::Overtaken(items) => Self::Fenced(items),
            Refusal::Conflict { moved, over_cap, barred } => {
                Self::Conflict { moved, over_cap, barred }
            }
        }
    }
}

/// Units of a capped item that a commit gives to a buyer, or takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gain {
    /// Units gained; below zero when more are given back.
    pub units: i64,
    /// Units the buyer may hold or own.
    pub cap: u32,
}

impl Gain {
    /// The most units the buyer may have before, for the gain to stay within
    /// the cap. `None` when nothing is gained: who gives back may be above a
    /// cap that came later.
    #[must_use]
    pub fn live_max(self) -> Option<i64> {
        // G6: what the buyer has and what is gained, over all orders.
        (self.units > 0).then(|| i64::from(self.cap) - self.units)
    }
}

/// The effects of a commit that is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes<'c> {
    /// The new stock of each claimed item, sorted by item.
    pub stocks: Vec<(&'c ItemId, Stock)>,
    /// The gains of buyers of capped items.
    pub gains: BTreeMap<(&'c ItemId, &'c BuyerId), Gain>,
    /// What the rules about buyers ask to be kept.
    pub buyers: BuyerChanges<'c>,
}

/// Judges a commit: returns its effects, or the reason to refuse it. Every
/// refusal of every store is decided here, from what the store has at one
/// moment: the claimed items (`now`), whether an order `is_expected`, asked for
/// each write in order, the units of an item that a buyer holds or owns (`live`),
/// and, in a store with [rules about buyers](super::BuyerRules), what is known of
/// those (`buyers`).
///
/// # Errors
/// The [`Refusal`], in this order: fenced, conflict, overtaken.
pub fn judge<'c, 's>(
    commit: &'c Commit,
    now: impl Fn(&ItemId) -> Option<ItemNow<'s>>,
    mut is_expected: impl FnMut(&'c OrderWrite) -> bool,
    live: impl Fn(&ItemId, &BuyerId) -> u32,
    buyers: Option<&dyn BuyersNow>,
) -> Result<Changes<'c>, Refusal> {
    let mut draft = Draft::of_claims(commit, now)?;
    let mut ruled = buyers.map(BuyerDraft::new);
    // G3: an order is written only if it is what the decision took it for.
    let mut moved = Vec::new();
    for write in &commit.writes {
        if is_expected(write) {
            draft.write(write);
            if let Some(ruled) = &mut ruled {
                ruled.write(write);
            }
        } else {
            moved.push(write.order.id);
        }
    }
    // G6: no buyer comes to own more of an item than its cap.
    let over_cap = draft.over_cap(live);
    // G5: one write in the wrong, and none of the commit takes effect.
    let (buyers, barred) = match ruled {
        Some(ruled) if over_cap.is_empty() => ruled.finish(),
        _ => Default::default(),
    };
    if !moved.is_empty() || !over_cap.is_empty() || !barred.is_empty() {
        return Err(Refusal::Conflict { moved, over_cap, barred });
    }
    // G1: nothing is taken that is not available.
    if !draft.overtaken.is_empty() {
        return Err(Refusal::Overtaken(draft.overtaken));
    }
    let stocks = draft.claimed.into_iter().map(|(item, _, stock)| (item, stock)).collect();
    Ok(Changes { stocks, gains: draft.gains, buyers })
}

/// The stock of the claimed items as the commit would leave it.
struct Draft<'c, 's> {
    /// Sorted by item.
    claimed: Vec<(&'c ItemId, &'s ItemSpec, Stock)>,
    gains: BTreeMap<(&'c ItemId, &'c BuyerId), Gain>,
    overtaken: Vec<ItemId>,
}

impl<'c, 's> Draft<'c, 's> {
    /// The stock the commit starts from.
    fn of_claims(
        commit: &'c Commit,
        now: impl Fn(&ItemId) -> Option<ItemNow<'s>>,
    ) -> Result<Self, Refusal> {
        let mut fenced = Vec::new();
        let mut claimed = Vec::with_capacity(commit.claims.len());
        for (item, token) in &commit.claims {
            // G7: a claim counts as long as no later one was made.
            match now(item).filter(|now| now.token == *token) {
                Some(now) => claimed.push((item, now.spec, now.stock.clone())),
                None => fenced.push(item.clone()),
            }
        }
        claimed.sort_unstable_by_key(|(item, ..)| *item);
        claimed.dedup_by_key(|(item, ..)| *item);
        let draft = Self { claimed, gains: BTreeMap::new(), overtaken: Vec::new() };
        // G7: what moves stock needs a claim on every item it moves.
        for write in commit.writes.iter().filter(|write| write.effect() != Effect::None) {
            for line in write.order.lines.iter() {
                if draft.position(&line.item).is_none() && !fenced.contains(&line.item) {
                    fenced.push(line.item.clone());
                }
            }
        }
        if fenced.is_empty() { Ok(draft) } else { Err(Refusal::Fenced(fenced)) }
    }

    fn position(&self, item: &ItemId) -> Option<usize> {
        // Most commits are about one item.
        match &self.claimed[..] {
            [(only, ..)] => (*only == item).then_some(0),
            many => many.binary_search_by_key(&item, |(item, ..)| item).ok(),
        }
    }

    /// Moves the stock of every line of a write.
    fn write(&mut self, write: &'c OrderWrite) {
        let effect = write.effect();
        if effect == Effect::None {
            return;
        }
        for line in write.order.lines.iter() {
            self.line(&write.order.buyer, line, effect);
        }
    }

    /// Moves the stock of a line.
    // G2: stock moves only by what the orders of the same commit gain or lose.
    fn line(&mut self, buyer: &'c BuyerId, line: &'c Line, effect: Effect) {
        let position = self.position(&line.item).expect("an unclaimed item is fenced");
        let (_, spec, stock) = &mut self.claimed[position];
        let mut units = i64::from(line.ask.units());
        if effect == Effect::Takes {
            if stock.take(spec, &line.ask).is_err() && !self.overtaken.contains(&line.item) {
                self.overtaken.push(line.item.clone());
            }
        } else {
            stock.give_back(spec, &line.ask);
            units = -units;
        }
        if let Some(cap) = spec.max_per_buyer {
            let gain = self.gains.entry((&line.item, buyer));
            gain.or_insert(Gain { units: 0, cap: cap.get() }).units += units;
        }
    }

    fn over_cap(&self, live: impl Fn(&ItemId, &BuyerId) -> u32) -> Vec<OverCap> {
        let mut over = Vec::new();
        for (&(item, buyer), gain) in &self.gains {
            let Some(live_max) = gain.live_max() else { continue };
            let live = live(item, buyer);
            if i64::from(live) > live_max {
                over.push(OverCap { item: item.clone(), buyer: buyer.clone(), live });
            }
        }
        over
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
