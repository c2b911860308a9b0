//! Sorts decisions into atomic writes: orders that share an item, directly or
//! by way of another order, belong together.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::protocol::{Commit, ItemId, Line, OrderWrite, View};

/// The decisions of one pass, by connected items (a union-find over items,
/// Galler and Fischer, 1964).
#[derive(Debug)]
pub(super) struct Plan {
    writes_max: usize,
    /// Each with one of its items, and whose job it is.
    writes: Vec<(OrderWrite, usize, usize)>,
    numbers: HashMap<ItemId, usize, RandomState>,
    items: Vec<PlannedItem>,
    /// The item met last; a hot one comes many times in a row.
    last: usize,
}

#[derive(Debug)]
struct PlannedItem {
    id: ItemId,
    /// Itself, at the root of its set.
    parent: usize,
    /// At the root: writes of the set.
    writes: usize,
    /// At the root: whether the set takes no more.
    closed: bool,
}

/// One atomic write, and whose jobs its writes are.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) commit: Commit,
    pub(super) jobs: Vec<usize>,
}

impl Plan {
    pub(super) fn new(writes_max: usize, jobs: usize) -> Self {
        Self {
            writes_max,
            writes: Vec::with_capacity(jobs),
            numbers: HashMap::default(),
            items: Vec::new(),
            last: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether an order with these lines still fits into one atomic write with
    /// all it is connected to. Once one did not, its items take no more, so
    /// that nobody behind it goes first.
    pub(super) fn admits(&mut self, lines: &[Line]) -> bool {
        if self.writes_max == usize::MAX {
            return true;
        }
        let mut roots: Vec<usize> = lines.iter().map(|line| self.root_of(&line.item)).collect();
        roots.sort_unstable();
        roots.dedup();
        let together: usize = roots.iter().map(|root| self.items[*root].writes).sum();
        if together < self.writes_max && !roots.iter().any(|root| self.items[*root].closed) {
            return true;
        }
        for root in roots {
            self.items[root].closed = true;
        }
        false
    }

    /// Adds the decision on a job.
    pub(super) fn add(&mut self, write: OrderWrite, job: usize) {
        let mut root = None;
        for line in write.order.lines.iter() {
            let other = self.root_of(&line.item);
            root = Some(root.map_or(other, |root| self.join(root, other)));
        }
        let root = root.expect("an order has a line");
        self.items[root].writes += 1;
        self.writes.push((write, root, job));
    }

    /// The atomic writes. Claims are those of the view; an item nobody could
    /// claim has none, and nothing was decided on it but that it is unknown.
    pub(super) fn into_commits(mut self, view: &View) -> Vec<Planned> {
        let mut planned: Vec<Planned> = Vec::new();
        let mut place_of_root = vec![usize::MAX; self.items.len()];
        for number in 0..self.items.len() {
            let root = self.root(number);
            if place_of_root[root] == usize::MAX {
                place_of_root[root] = planned.len();
                let writes = Vec::with_capacity(self.items[root].writes);
                let jobs = Vec::with_capacity(self.items[root].writes);
                planned.push(Planned { commit: Commit { claims: Vec::new(), writes }, jobs });
            }
            let item = &self.items[number].id;
            if let Some(claim) = view.get(item) {
                let claims = &mut planned[place_of_root[root]].commit.claims;
                claims.reserve_exact(1);
                claims.push((item.clone(), claim.token));
            }
        }
        for (write, number, job) in std::mem::take(&mut self.writes) {
            let planned = &mut planned[place_of_root[self.root(number)]];
            planned.commit.writes.push(write);
            planned.jobs.push(job);
        }
        planned.retain(|planned| !planned.jobs.is_empty());
        planned
    }

    fn root_of(&mut self, item: &ItemId) -> usize {
        if self.items.get(self.last).is_none_or(|last| last.id != *item) {
            self.last = match self.numbers.get(item) {
                Some(number) => *number,
                None => self.number(item),
            };
        }
        self.root(self.last)
    }

    fn number(&mut self, item: &ItemId) -> usize {
        let number = self.items.len();
        self.numbers.insert(item.clone(), number);
        let item = PlannedItem { id: item.clone(), parent: number, writes: 0, closed: false };
        self.items.push(item);
        number
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.items[number].parent != number {
            self.items[number].parent = self.items[self.items[number].parent].parent;
            number = self.items[number].parent;
        }
        number
    }

    fn join(&mut self, one: usize, other: usize) -> usize {
        if one != other {
            let joined = &mut self.items[other];
            joined.parent = one;
            let (writes, closed) = (joined.writes, joined.closed);
            self.items[one].writes += writes;
            self.items[one].closed |= closed;
        }
        one
    }
}
