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
    numbers: HashMap<ItemId, usize, RandomState>,
    items: Vec<ItemId>,
    parents: Vec<usize>,
    /// For each root: the writes of its set, and whose jobs they are.
    sets: Vec<(Vec<OrderWrite>, Vec<usize>)>,
    closed: Vec<bool>,
    /// The item met last; a hot one comes many times in a row.
    last: usize,
}

impl Plan {
    pub(super) fn new(writes_max: usize) -> Self {
        Self {
            writes_max,
            numbers: HashMap::default(),
            items: Vec::new(),
            parents: Vec::new(),
            sets: Vec::new(),
            closed: Vec::new(),
            last: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.iter().all(|(writes, _)| writes.is_empty())
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
        let together: usize = roots.iter().map(|root| self.sets[*root].0.len()).sum();
        if together < self.writes_max && !roots.iter().any(|root| self.closed[*root]) {
            return true;
        }
        for root in roots {
            self.closed[root] = true;
        }
        false
    }

    /// Adds the decision on the job at `place`.
    pub(super) fn add(&mut self, write: OrderWrite, place: usize) {
        let mut root = None;
        for line in write.order.lines.iter() {
            let other = self.root_of(&line.item);
            root = Some(root.map_or(other, |root| self.join(root, other)));
        }
        let root = root.expect("an order has a line");
        self.sets[root].0.push(write);
        self.sets[root].1.push(place);
    }

    /// The atomic writes. Claims are those of the view; an item nobody could
    /// claim has none, and nothing was decided on it but that it is unknown.
    pub(super) fn commits(&mut self, view: &View) -> Vec<Commit> {
        let mut claims: Vec<Vec<_>> = vec![Vec::new(); self.items.len()];
        for number in 0..self.items.len() {
            let root = self.root(number);
            if let Some(claim) = view.get(&self.items[number]) {
                claims[root].push((self.items[number].clone(), claim.token));
            }
        }
        let sets = self.sets.iter_mut().zip(claims).filter(|((writes, _), _)| !writes.is_empty());
        sets.map(|((writes, _), claims)| Commit { claims, writes: std::mem::take(writes) })
            .collect()
    }

    /// For each of [`commits`](Self::commits), whose jobs its writes are.
    pub(super) fn places(self) -> impl Iterator<Item = Vec<usize>> {
        self.sets.into_iter().map(|(_, places)| places).filter(|places| !places.is_empty())
    }

    fn root_of(&mut self, item: &ItemId) -> usize {
        if self.items.get(self.last) != Some(item) {
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
        self.items.push(item.clone());
        self.parents.push(number);
        self.sets.push((Vec::new(), Vec::new()));
        self.closed.push(false);
        number
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.parents[number] != number {
            self.parents[number] = self.parents[self.parents[number]];
            number = self.parents[number];
        }
        number
    }

    fn join(&mut self, one: usize, other: usize) -> usize {
        if one == other {
            return one;
        }
        self.parents[other] = one;
        self.closed[one] |= self.closed[other];
        let (mut writes, mut places) = std::mem::take(&mut self.sets[other]);
        self.sets[one].0.append(&mut writes);
        self.sets[one].1.append(&mut places);
        one
    }
}
