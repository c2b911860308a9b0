//! The backlogs: for each item the messages that wait for it, in the order they came.
//! A message about several items is in the backlog of each.
//!
//! Where one write takes whatever there is, its turn comes when it heads them all, so that
//! all backlogs agree on who comes first and nobody waits in a circle (Thomson and others,
//! "Calvin", SIGMOD 2012). Where a write is bounded, messages about several items are
//! [gathered](super::gathering) instead, and may be overtaken.
//!
//! An item with a write on its way waits for that write and for nothing else.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;
use slab::Slab;
use tokio::time::Instant;

use super::arrivals::Arrivals;
use super::ready::Ready;
use super::work::Work;
use crate::protocol::{ItemId, Line};
use crate::seams::CommitMax;

/// The backlogs of a worker.
#[derive(Debug)]
pub(crate) struct Backlogs {
    pub(super) works: Slab<Work>,
    pub(super) by_item: HashMap<ItemId, Backlog, RandomState>,
    /// The bounds of one write.
    pub(super) max: CommitMax,
    /// The messages about several items by rank, where a write is bounded.
    pub(super) several: BTreeMap<u64, usize>,
    /// Whether the last turn was for the first of these.
    pub(super) was_for_first: bool,
    /// Items whose turn may have come; each is marked so.
    pub(super) ready: Ready,
    /// Items that must be claimed first.
    unclaimed: Vec<ItemId>,
    /// Items to keep for messages that had to wait too often, and how often.
    kept: Vec<(ItemId, u32)>,
    arrivals: Arrivals,
}

/// What waits for one item.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The rank and the key of each message about this item alone.
    pub(super) alone: VecDeque<(u64, usize)>,
    /// And of each that is about others too.
    pub(super) several: VecDeque<(u64, usize)>,
    pub(super) state: ItemState,
    /// Whether it is in the list of those that are ready, or of the unclaimed.
    pub(super) is_ready: bool,
    is_wanted: bool,
    /// Whether other workers have it. Then a message about it and others waits here
    /// alone, in nobody's way, unless it is gathered.
    is_elsewhere: bool,
    /// Whether its last turn had messages about several items.
    pub(super) was_gathered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ItemState {
    /// Nobody knows its stock.
    #[default]
    Unclaimed,
    /// It is being claimed, or let go of.
    Away,
    /// It is left alone until then.
    Paused(Instant),
    /// Its next turn can begin.
    Free,
    /// A write of it is on its way.
    Busy,
}

impl Backlogs {
    /// The backlogs of a worker whose store takes so much in one write.
    pub(crate) fn new(max: CommitMax) -> Self {
        Self {
            works: Slab::new(),
            by_item: HashMap::default(),
            max,
            several: BTreeMap::new(),
            was_for_first: false,
            ready: Ready::default(),
            unclaimed: Vec::new(),
            kept: Vec::new(),
            arrivals: Arrivals::default(),
        }
    }

    /// The number of messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.works.len()
    }

    /// Puts a message behind all others of its items. It must have a line.
    pub(crate) fn push(&mut self, mut work: Work) {
        work.rank = self.arrivals.rank(work.partition());
        let key = self.works.insert(work);
        self.enter(key);
    }

    /// Puts messages of a turn back to where they were.
    pub(crate) fn put_back(&mut self, works: Vec<Work>) {
        for work in works.into_iter().rev() {
            let key = self.works.insert(work);
            self.enter(key);
        }
    }

    /// Whether messages about several items are gathered.
    fn gathers(&self) -> bool {
        self.max != CommitMax::UNLIMITED
    }

    /// Has a message wait for each of its items, or for the one that others have.
    fn enter(&mut self, key: usize) {
        let gathers = self.gathers();
        let Self { works, by_item, ready, unclaimed, kept, several, .. } = self;
        let work = &works[key];
        let is_elsewhere = |item: &&ItemId| by_item.get(*item).is_some_and(|b| b.is_elsewhere);
        let is_about_several = work.is_about_several();
        let elsewhere = match is_about_several && !gathers {
            // They are waited for by name, so that nobody waits in a circle.
            true => work.items().filter(is_elsewhere).min(),
            false => None,
        };
        if is_about_several && gathers {
            several.insert(work.rank, key);
        }
        let mut wait_for = |item: &ItemId| {
            let backlog = match by_item.get_mut(item) {
                Some(backlog) => backlog,
                None => by_item.entry(item.clone()).or_default(),
            };
            backlog.add(is_about_several, work.rank, key);
            backlog.notice(item, ready, unclaimed);
        };
        match elsewhere.cloned() {
            None => work.items().for_each(wait_for),
            Some(item) => {
                wait_for(&item);
                works[key].wait_for(&item, kept);
            }
        }
    }

    /// Notes that other workers have an item: what waits for others too lets them go
    /// first.
    pub(crate) fn set_elsewhere(&mut self, item: &ItemId) {
        let gathers = self.gathers();
        let Self { works, by_item, ready, unclaimed, kept, .. } = self;
        let Some(backlog) = by_item.get_mut(item) else { return };
        if std::mem::replace(&mut backlog.is_elsewhere, true) {
            return;
        }
        for (rank, key) in backlog.several.clone() {
            works[key].wait_for(item, kept);
            if gathers {
                continue;
            }
            for other in works[key].items().filter(|other| *other != item) {
                if let Some(backlog) = by_item.get_mut(other) {
                    backlog.remove(rank);
                    backlog.notice(other, ready, unclaimed);
                }
            }
        }
    }

    /// The items with a backlog that nobody claimed; each is told once.
    pub(crate) fn take_unclaimed(&mut self) -> Vec<ItemId> {
        let mut items = std::mem::take(&mut self.unclaimed);
        items.retain(|item| {
            let Some(backlog) = self.by_item.get_mut(item) else { return false };
            backlog.is_wanted = false;
            let is_wanted = backlog.state == ItemState::Unclaimed && !backlog.is_empty();
            if is_wanted {
                backlog.state = ItemState::Away;
            }
            is_wanted
        });
        items
    }

    /// Items that are to be kept for a while, so that those who need them and others get
    /// all of them at last. Whoever keeps one waits for a later one, by name, so nobody
    /// waits in a circle (Havender, 1968).
    pub(crate) fn take_kept(&mut self) -> Vec<(ItemId, u32)> {
        std::mem::take(&mut self.kept)
    }

    /// Lets the next turn of an item begin: it is claimed.
    pub(crate) fn set_claimed(&mut self, item: &ItemId) {
        let gathers = self.gathers();
        if let Some(backlog) = self.by_item.get_mut(item)
            && std::mem::take(&mut backlog.is_elsewhere)
            && !gathers
        {
            let several = std::mem::take(&mut backlog.several);
            several.into_iter().for_each(|(_, key)| self.enter(key));
        }
        self.set(item, ItemState::Free);
    }

    /// Has an item claimed again before its next turn.
    pub(crate) fn set_unclaimed(&mut self, item: &ItemId) {
        self.set(item, ItemState::Unclaimed);
    }

    /// Leaves an item alone until it is told otherwise.
    pub(crate) fn set_away(&mut self, item: &ItemId) {
        self.set(item, ItemState::Away);
    }

    /// Leaves an item alone until its pause [ends](Self::end_pause).
    pub(crate) fn pause(&mut self, item: &ItemId, until: Instant) {
        self.set(item, ItemState::Paused(until));
    }

    /// Ends that pause of an item, if nothing else has become of it meanwhile.
    pub(crate) fn end_pause(&mut self, item: &ItemId, until: Instant, is_claimed: bool) {
        if self.by_item.get(item).is_some_and(|b| b.state == ItemState::Paused(until)) {
            match is_claimed {
                true => self.set_claimed(item),
                false => self.set_unclaimed(item),
            }
        }
    }

    /// Ends a turn of these items; what becomes of each must be told.
    pub(crate) fn end_turn(&mut self, items: &[ItemId]) {
        for item in items {
            if let Some(backlog) = self.by_item.get_mut(item) {
                backlog.state = ItemState::Away;
            }
        }
    }

    /// Changes the state of an item, unless it has a write on its way.
    fn set(&mut self, item: &ItemId, state: ItemState) {
        let Some(backlog) = self.by_item.get_mut(item) else { return };
        if backlog.state == ItemState::Busy {
            return;
        }
        backlog.state = state;
        if backlog.is_empty() && state == ItemState::Unclaimed {
            self.by_item.remove(item);
        } else {
            backlog.notice(item, &mut self.ready, &mut self.unclaimed);
        }
    }

    /// Whether an item has neither a backlog nor a write on its way.
    pub(crate) fn is_idle(&self, item: &ItemId) -> bool {
        let backlog = self.by_item.get(item);
        backlog.is_none_or(|backlog| backlog.is_empty() && backlog.state != ItemState::Busy)
    }

    /// Whether an item has a write on its way.
    pub(crate) fn is_busy(&self, item: &ItemId) -> bool {
        self.by_item.get(item).is_some_and(|backlog| backlog.state == ItemState::Busy)
    }

    /// Whether an item waits, claimed, for its turn or for other items.
    pub(crate) fn is_waiting(&self, item: &ItemId) -> bool {
        self.by_item.get(item).is_some_and(|backlog| backlog.state == ItemState::Free)
    }

    /// Takes out what waits for an item and `is_wanted`.
    pub(crate) fn take_where(
        &mut self,
        item: &ItemId,
        mut is_wanted: impl FnMut(&Work) -> bool,
    ) -> Vec<Work> {
        let Some(backlog) = self.by_item.get(item) else { return Vec::new() };
        let mut waiting: Vec<_> = backlog.alone.iter().chain(&backlog.several).copied().collect();
        waiting.sort_unstable();
        waiting.retain(|(_, key)| is_wanted(&self.works[*key]));
        let keys = waiting.into_iter().map(|(_, key)| key);
        keys.map(|key| self.take_out(key)).collect()
    }

    /// Takes out everything that waits and `is_wanted`.
    pub(crate) fn drain_where(&mut self, is_wanted: impl Fn(&Work) -> bool) -> Vec<Work> {
        let wanted = self.works.iter().filter(|(_, work)| is_wanted(work));
        let keys: Vec<usize> = wanted.map(|(key, _)| key).collect();
        keys.into_iter().map(|key| self.take_out(key)).collect()
    }

    fn take_out(&mut self, key: usize) -> Work {
        let work = self.works.remove(key);
        self.several.remove(&work.rank);
        for item in work.items() {
            if let Some(backlog) = self.by_item.get_mut(item) {
                backlog.remove(work.rank);
                // Another may head it now.
                backlog.notice(item, &mut self.ready, &mut self.unclaimed);
            }
        }
        work
    }

    /// The next turn, and its items, which are busy until it
    /// [ends](Self::end_turn). `None` when no item can have one now.
    ///
    /// A message delivered more often than `suspect_after` has few others with it, the
    /// fewer the more often: it may be what fails.
    pub(crate) fn next_turn(&mut self, suspect_after: u32) -> Option<(Vec<Work>, Vec<ItemId>)> {
        match self.gathers() {
            true => self.next_gathered(suspect_after),
            false => self.everything(suspect_after),
        }
    }

    /// All that can be decided now: the heads of all backlogs, and what is behind.
    fn everything(&mut self, suspect_after: u32) -> Option<(Vec<Work>, Vec<ItemId>)> {
        let mut keys: Vec<(u64, usize)> = Vec::new();
        let mut items = Vec::new();
        let mut ready = self.ready.take_all();
        while let Some(item) = ready.pop() {
            let Some(backlog) = self.by_item.get_mut(&item) else { continue };
            backlog.is_ready = false;
            if backlog.state != ItemState::Free || backlog.is_empty() {
                continue;
            }
            backlog.state = ItemState::Busy;
            keys.extend(&backlog.alone);
            items.push(item);
            // Whoever is connected comes along.
            keys.extend(&backlog.several);
            for (_, key) in &backlog.several {
                ready.extend(self.works[*key].items().cloned());
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let mut stopped: HashSet<ItemId> = HashSet::new();
        let mut taken = Vec::with_capacity(keys.len());
        let mut most = usize::MAX;
        for (_, key) in keys {
            let work = &self.works[key];
            let lines = work.lines();
            let is_busy = |line: &Line| {
                self.by_item.get(&line.item).is_some_and(|backlog| backlog.state == ItemState::Busy)
            };
            let is_stopped = |line: &Line| stopped.contains(&line.item);
            let is_blocked = !stopped.is_empty() && lines.iter().any(is_stopped)
                || lines.len() > 1 && !lines.iter().all(is_busy);
            if !is_blocked {
                most = most.min(most_with(work, suspect_after));
            }
            if is_blocked || taken.len() >= most {
                stopped.extend(lines.iter().map(|line| line.item.clone()));
                continue;
            }
            taken.push(self.works.remove(key));
        }
        for item in &items {
            let backlog = self.by_item.get_mut(item).expect("it is ready");
            for waiting in [&mut backlog.alone, &mut backlog.several] {
                if stopped.is_empty() {
                    waiting.clear();
                } else {
                    let waits = |rank, work: &Work| work.rank == rank;
                    waiting.retain(|(rank, key)| {
                        self.works.get(*key).is_some_and(|w| waits(*rank, w))
                    });
                }
            }
        }
        if taken.is_empty() {
            // Those that stopped them will have them looked at again.
            for item in &items {
                self.by_item.get_mut(item).expect("it is ready").state = ItemState::Free;
            }
            return None;
        }
        Some((taken, items))
    }
}

/// The most messages of a turn that has this one: after each delivery too many a
/// quarter.
pub(crate) fn most_with(work: &Work, suspect_after: u32) -> usize {
    match work.attempt().saturating_sub(suspect_after) {
        0 => usize::MAX,
        more => (1_024 >> (2 * more).min(10)).max(1),
    }
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.several.is_empty()
    }

    /// Whether its next turn is for messages about it alone: the last had others.
    pub(super) fn owes_alone(&self) -> bool {
        self.was_gathered && !self.alone.is_empty()
    }

    /// The rank of the message that waits longest.
    pub(super) fn first_rank(&self) -> Option<u64> {
        let fronts = [self.alone.front(), self.several.front()];
        fronts.into_iter().flatten().map(|(rank, _)| *rank).min()
    }

    fn add(&mut self, is_about_several: bool, rank: u64, key: usize) {
        let waiting = if is_about_several { &mut self.several } else { &mut self.alone };
        match waiting.back() {
            Some((last, _)) if *last > rank => {
                // Usually the first place: what is behind came later.
                let at = waiting.partition_point(|(other, _)| *other < rank);
                waiting.insert(at, (rank, key));
            }
            _ => waiting.push_back((rank, key)),
        }
    }

    pub(super) fn remove(&mut self, rank: u64) {
        for waiting in [&mut self.alone, &mut self.several] {
            if let Ok(at) = waiting.binary_search_by_key(&rank, |(rank, _)| *rank) {
                waiting.remove(at);
            }
        }
    }

    /// Puts it on the list where it belongs.
    fn notice(&mut self, item: &ItemId, ready: &mut Ready, unclaimed: &mut Vec<ItemId>) {
        let Some(rank) = self.first_rank() else { return };
        match self.state {
            ItemState::Free if !self.is_ready => {
                self.is_ready = true;
                ready.push(item.clone(), rank);
            }
            ItemState::Unclaimed if !self.is_wanted => {
                self.is_wanted = true;
                unclaimed.push(item.clone());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "backlogs_tests.rs"]
mod tests;
