//! The turns of items where a write is bounded. Messages about one item go in the order
//! they came. Those about several are gathered: a turn takes many that have their items in
//! common, as one write holds up each of its items, and so may take later ones before an
//! earlier one whose items are not all free.
//!
//! How far anybody is overtaken is bounded:
//!
//! - An item has turns with messages about several and turns without by turns, so that
//!   neither kind waits for more than one write of the other.
//! - For the first of the messages about several whose items are all here, these wait once
//!   each has had the turn that it owes to those about it alone. So the first is overtaken
//!   by two writes of each item at most, and any other only as long as there are earlier
//!   ones.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::backlogs::{Backlogs, ItemState, most_with};
use super::work::Work;
use crate::protocol::ItemId;
use crate::seams::{CommitMax, Weight};

/// Most messages about several items that a turn looks at, for each item.
const LOOK_MAX: usize = 512;
/// Most messages that are looked at for the first whose items are all here.
const FIRST_MAX: usize = 32;

/// A turn being put together.
struct Draft {
    items: Vec<ItemId>,
    keys: Vec<usize>,
    taken: HashSet<usize, RandomState>,
    weight: Weight,
    /// Most messages, as one of them may be what fails.
    most: usize,
    suspect_after: u32,
}

impl Draft {
    fn new(items: Vec<ItemId>, suspect_after: u32) -> Self {
        Self {
            items,
            keys: Vec::new(),
            taken: HashSet::default(),
            weight: Weight::default(),
            most: usize::MAX,
            suspect_after,
        }
    }

    /// Takes a message and those of its items that are not here yet, if there is room.
    fn take(&mut self, max: CommitMax, key: usize, work: &Work) -> bool {
        let missing = work.items().filter(|item| !self.items.contains(item));
        let missing: Vec<ItemId> = missing.cloned().collect();
        let order = work.order().expect("it has lines");
        let weight = self.weight + max.weigh(order, |_| false);
        let most = self.most.min(most_with(work, self.suspect_after));
        let fits = max.fits(weight, self.items.len() + missing.len()) && self.keys.len() < most;
        // A write can't be made smaller than one order.
        let is_taken = fits || self.keys.is_empty();
        if is_taken {
            self.items.extend(missing);
            self.keys.push(key);
            self.taken.insert(key);
            (self.weight, self.most) = (weight, most);
        }
        is_taken
    }
}

impl Backlogs {
    /// The next turn where a write is bounded.
    pub(super) fn next_gathered(&mut self, suspect_after: u32) -> Option<(Vec<Work>, Vec<ItemId>)> {
        let first = self.first();
        let is_next = |item: &ItemId| self.is_free(item) && !self.by_item[item].owes_alone();
        let next = first.filter(|key| self.works[*key].items().all(is_next));
        if let Some(key) = next
            && !self.was_for_first
        {
            self.was_for_first = true;
            let draft = self.gather(key, &[], suspect_after);
            return Some(self.begin(draft));
        }
        let reserved: Vec<ItemId> =
            first.iter().flat_map(|key| self.works[*key].items().cloned()).collect();
        let mut waiting = Vec::new();
        let mut turn = None;
        while turn.is_none()
            && let Some(item) = self.ready.pop()
        {
            let Some(backlog) = self.by_item.get_mut(&item) else { continue };
            if backlog.state != ItemState::Free || backlog.is_empty() {
                backlog.is_ready = false;
            } else if reserved.contains(&item) && !backlog.owes_alone() {
                waiting.push(item);
            } else {
                backlog.is_ready = false;
                turn = self.turn_of(&item, &reserved, suspect_after);
            }
        }
        for item in waiting {
            let rank = self.by_item[&item].first_rank().expect("it has a backlog");
            self.ready.push(item, rank);
        }
        self.was_for_first = turn.is_none() && next.is_some();
        turn.or_else(|| {
            let draft = self.gather(next?, &[], suspect_after);
            Some(self.begin(draft))
        })
    }

    /// A turn of an item: of messages about several, or about this one alone, by turns.
    fn turn_of(
        &mut self,
        item: &ItemId,
        reserved: &[ItemId],
        suspect_after: u32,
    ) -> Option<(Vec<Work>, Vec<ItemId>)> {
        let backlog = &self.by_item[item];
        if !backlog.owes_alone() {
            let can_go = |key: &usize| {
                self.works[*key].items().all(|i| self.is_free(i) && !reserved.contains(i))
            };
            let keys = backlog.several.iter().take(LOOK_MAX).map(|(_, key)| *key);
            if let Some(key) = keys.into_iter().find(can_go) {
                let draft = self.gather(key, reserved, suspect_after);
                return Some(self.begin(draft));
            }
        }
        if backlog.alone.is_empty() {
            return None;
        }
        // Several writes side by side, where the store takes them.
        let parts = self.max.parts.saturating_mul(self.max.side_by_side);
        let mut draft = Draft::new(vec![item.clone()], suspect_after);
        self.fill(&mut draft, CommitMax { parts, ..self.max });
        Some(self.begin(draft))
    }

    /// Gathers a message about several items and others that have these in common, each
    /// time with the item that adds most of them.
    fn gather(&self, key: usize, reserved: &[ItemId], suspect_after: u32) -> Draft {
        let mut draft = Draft::new(Vec::new(), suspect_after);
        draft.take(self.max, key, &self.works[key]);
        // The number of messages that lack this item alone.
        let mut lacking: HashMap<ItemId, usize, RandomState> = HashMap::default();
        let mut looked_at = 0;
        while let Some(item) = draft.items.get(looked_at).cloned() {
            looked_at += 1;
            for (_, key) in self.by_item[&item].several.iter().take(LOOK_MAX) {
                let work = &self.works[*key];
                let mut missing = work.items().filter(|item| !draft.items.contains(item));
                match (missing.next(), missing.next()) {
                    (None, _) if !draft.taken.contains(key) => {
                        draft.take(self.max, *key, work);
                    }
                    (Some(item), None) if self.is_free(item) && !reserved.contains(item) => {
                        *lacking.entry(item.clone()).or_default() += 1;
                    }
                    _ => {}
                }
            }
            if looked_at < draft.items.len() {
                continue;
            }
            let most = lacking.iter().max_by_key(|(item, count)| (**count, Reverse(*item)));
            let Some(item) = most.map(|(item, _)| item.clone()) else { break };
            lacking.remove(&item);
            let has_room = self.max.fits(draft.weight, draft.items.len() + 1);
            if !has_room || draft.keys.len() >= draft.most {
                break;
            }
            draft.items.push(item);
        }
        // One for which there was no room in the end is left to others.
        let used: HashSet<&ItemId> =
            draft.keys.iter().flat_map(|key| self.works[*key].items()).collect();
        draft.items.retain(|item| used.contains(item));
        self.fill(&mut draft, self.max);
        draft
    }

    /// Fills a turn up with messages about one of its items alone.
    fn fill(&self, draft: &mut Draft, max: CommitMax) {
        let items = draft.items.clone();
        let mut waiting: Vec<_> =
            items.iter().map(|item| self.by_item[item].alone.iter().peekable()).collect();
        loop {
            // Of those in front the one that came first.
            let fronts = waiting.iter_mut().enumerate();
            let fronts = fronts.filter_map(|(at, waiting)| Some((**waiting.peek()?, at)));
            let Some(((_, key), at)) = fronts.min() else { break };
            if !draft.take(max, key, &self.works[key]) {
                break;
            }
            waiting[at].next();
        }
    }

    /// Takes a turn's messages out, in the order they came; its items are busy from now on.
    fn begin(&mut self, draft: Draft) -> (Vec<Work>, Vec<ItemId>) {
        let Draft { items, keys, .. } = draft;
        let mut works = Vec::with_capacity(keys.len());
        let mut is_gathered = false;
        for key in keys {
            let work = self.works.remove(key);
            is_gathered |= self.several.remove(&work.rank).is_some();
            for item in work.items() {
                self.by_item.get_mut(item).expect("it is there").remove(work.rank);
            }
            works.push(work);
        }
        for item in &items {
            let backlog = self.by_item.get_mut(item).expect("it is there");
            (backlog.state, backlog.was_gathered) = (ItemState::Busy, is_gathered);
        }
        works.sort_unstable_by_key(|work| work.rank);
        (works, items)
    }

    /// The first of the messages about several items whose items are all here: free, or
    /// with a write on their way.
    fn first(&self) -> Option<usize> {
        let is_here = |item: &ItemId| {
            let state = self.by_item.get(item).map(|backlog| backlog.state);
            matches!(state, Some(ItemState::Free | ItemState::Busy))
        };
        let mut keys = self.several.values().take(FIRST_MAX).copied();
        keys.find(|key| self.works[*key].items().all(is_here))
    }

    fn is_free(&self, item: &ItemId) -> bool {
        self.by_item.get(item).is_some_and(|backlog| backlog.state == ItemState::Free)
    }
}
