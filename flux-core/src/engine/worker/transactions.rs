//! Sorts decisions into atomic writes: orders that share an item, directly or
//! by way of another order, belong together, as far as the store takes that
//! much at once. Further orders on one item may go into writes beside the first,
//! if the store takes them and each order gets what it asks for: turning one
//! down rests on all that was taken before it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::protocol::{Commit, ItemId, Order, OrderWrite, View};
use crate::seams::{CommitMax, Weight};

/// The decisions of one pass, by connected items (a union-find over items,
/// Galler and Fischer, 1964).
#[derive(Debug)]
pub(crate) struct Transactions {
    max: CommitMax,
    /// The decisions, each with one of its items, the number of the write it is
    /// in, and the index of its work in the batch.
    writes: Vec<(OrderWrite, usize, usize, usize)>,
    numbers: HashMap<ItemId, usize, RandomState>,
    items: Vec<ItemSet>,
    /// The item met last; a hot one comes many times in a row.
    last: usize,
}

#[derive(Debug)]
struct ItemSet {
    id: ItemId,
    /// Itself, at the root of its set.
    parent: usize,
    /// At the root: the weight of the set's last write.
    load: Weight,
    /// At the root: the number of items in the set.
    items: usize,
    /// At the root: the number of writes that go beside the first.
    beside: usize,
    /// At the root: whether the set takes no more.
    closed: bool,
}

/// Whether there is room for one more order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Room, whatever is decided on it.
    Whatever,
    /// Room beside the first write, if the order gets what it asks for.
    SeparateTransaction,
    /// No room in this pass.
    No,
}

/// One atomic write, and the index in the batch of each of its decisions' work.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) commit: Commit,
    pub(crate) positions: Vec<usize>,
}

impl Transactions {
    pub(crate) fn new(max: CommitMax, batch_len: usize) -> Self {
        Self {
            max,
            writes: Vec::with_capacity(batch_len),
            numbers: HashMap::default(),
            items: Vec::new(),
            last: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether the decision on an order still has room. Once one had none, its
    /// items take no more, so that nobody behind it goes first.
    pub(crate) fn fit(&mut self, order: &Order, view: &View) -> Fit {
        if self.max == CommitMax::UNLIMITED {
            return Fit::Whatever;
        }
        let roots = self.roots_of(order);
        let is_closed = |root: &usize| self.items[*root].closed;
        let set = |load: Weight, root: &usize| load + self.items[*root].load;
        let load = roots.iter().fold(self.weigh(order, view), set);
        let items = roots.iter().map(|root| self.items[*root].items).sum();
        let beside: usize = roots.iter().map(|root| self.items[*root].beside).sum();
        let fits = self.max.fits(load, items);
        if !roots.iter().any(is_closed) {
            match (fits, beside) {
                (true, 0) => return Fit::Whatever,
                (true, _) if items == 1 => return Fit::SeparateTransaction,
                (false, _) if items == 1 && beside + 1 < self.max.side_by_side => {
                    return Fit::SeparateTransaction;
                }
                // A write can't be made smaller than one order.
                (false, 0) if roots.iter().all(|root| self.items[*root].load.parts == 0) => {
                    return Fit::Whatever;
                }
                _ => {}
            }
        }
        self.close(order);
        Fit::No
    }

    /// Takes no more on the items of an order.
    pub(crate) fn close(&mut self, order: &Order) {
        for root in self.roots_of(order) {
            self.items[root].closed = true;
        }
    }

    fn roots_of(&mut self, order: &Order) -> Vec<usize> {
        let mut roots: Vec<usize> =
            order.lines.iter().map(|line| self.root_of(&line.item)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Adds the decision on an order that had room; `position` is the index of
    /// its work in the batch.
    pub(crate) fn add(&mut self, write: OrderWrite, position: usize, view: &View) {
        let mut root = None;
        for line in write.order.lines.iter() {
            let other = self.root_of(&line.item);
            root = Some(root.map_or(other, |root| self.join(root, other)));
        }
        let root = root.expect("an order has a line");
        if self.max != CommitMax::UNLIMITED {
            let load = self.weigh(&write.order, view);
            let set = &mut self.items[root];
            if set.load.parts > 0 && !self.max.fits(set.load + load, set.items) {
                set.beside += 1;
                set.load = load;
            } else {
                set.load = set.load + load;
            }
        }
        self.writes.push((write, root, self.items[root].beside, position));
    }

    /// The atomic writes, with the claims of the view. An item that could not be
    /// claimed has none: all that was decided on it is that it is unknown.
    pub(crate) fn into_commits(mut self, view: &View) -> Vec<Transaction> {
        let mut transactions: Vec<Transaction> = Vec::new();
        let mut first_of_root = vec![usize::MAX; self.items.len()];
        for number in 0..self.items.len() {
            let root = self.root(number);
            let writes = self.items[root].beside + 1;
            if first_of_root[root] == usize::MAX {
                first_of_root[root] = transactions.len();
                transactions.extend((0..writes).map(|_| Transaction::default()));
            }
            let item = &self.items[number].id;
            if let Some(claim) = view.get(item) {
                for transaction in &mut transactions[first_of_root[root]..][..writes] {
                    let claims = &mut transaction.commit.claims;
                    claims.reserve_exact(1);
                    claims.push((item.clone(), claim.token));
                }
            }
        }
        if let [only] = &mut transactions[..] {
            only.commit.writes.reserve_exact(self.writes.len());
            only.positions.reserve_exact(self.writes.len());
        }
        for (write, number, beside, position) in std::mem::take(&mut self.writes) {
            let transaction = &mut transactions[first_of_root[self.root(number)] + beside];
            transaction.commit.writes.push(write);
            transaction.positions.push(position);
        }
        transactions.retain(|transaction| !transaction.positions.is_empty());
        transactions
    }

    fn weigh(&self, order: &Order, view: &View) -> Weight {
        let is_capped =
            |item: &_| view.get(item).is_some_and(|claim| claim.spec.max_per_buyer.is_some());
        self.max.weigh(order, is_capped)
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
        self.items.push(ItemSet {
            id: item.clone(),
            parent: number,
            load: Weight::default(),
            items: 1,
            beside: 0,
            closed: false,
        });
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
            let (load, items, closed) = (joined.load, joined.items, joined.closed);
            let set = &mut self.items[one];
            set.load = set.load + load;
            set.items += items;
            set.closed |= closed;
        }
        one
    }
}
