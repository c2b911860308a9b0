//! The items whose turn may have come, and which of them is next. By turns it is the one
//! that is ready longest, so that each has its turn however much waits for the others, and
//! the one for which somebody waits longest, so that one asked for by many has a turn
//! more often than one with few.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::protocol::ItemId;

/// Items, each put in once until it is taken out.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// By when they were ready; `None` for those taken out as the others are ordered.
    by_turn: VecDeque<Option<ItemId>>,
    /// The number of the first of these since the beginning.
    first: u64,
    /// By the rank of the first message that waits, with their numbers. Those taken out as
    /// the others are ordered are still here.
    by_wait: BinaryHeap<Reverse<(u64, u64)>>,
    was_by_turn: bool,
}

impl Ready {
    /// Puts in an item for which the message of that rank waits longest.
    pub(super) fn push(&mut self, item: ItemId, rank: u64) {
        let number = self.first + self.by_turn.len() as u64;
        self.by_turn.push_back(Some(item));
        self.by_wait.push(Reverse((rank, number)));
    }

    /// Takes out the next one.
    pub(super) fn pop(&mut self) -> Option<ItemId> {
        self.was_by_turn = !self.was_by_turn;
        let item = match self.was_by_turn {
            true => self.pop_by_turn(),
            false => self.pop_by_wait(),
        };
        if item.is_none() {
            self.take_all();
        }
        item
    }

    fn pop_by_turn(&mut self) -> Option<ItemId> {
        while let Some(item) = self.by_turn.pop_front() {
            self.first += 1;
            if item.is_some() {
                return item;
            }
        }
        None
    }

    fn pop_by_wait(&mut self) -> Option<ItemId> {
        while let Some(Reverse((_, number))) = self.by_wait.pop() {
            let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
            let item = at.and_then(|at| self.by_turn.get_mut(at)?.take());
            if item.is_some() {
                return item;
            }
        }
        None
    }

    /// Takes out all of them.
    pub(super) fn take_all(&mut self) -> Vec<ItemId> {
        self.first += self.by_turn.len() as u64;
        self.by_wait.clear();
        self.by_turn.drain(..).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(items: &[(&str, u64)]) -> Ready {
        let mut ready = Ready::default();
        for (item, rank) in items {
            ready.push(ItemId::new(*item).expect("an item"), *rank);
        }
        ready
    }

    fn all(mut ready: Ready) -> String {
        std::iter::from_fn(|| ready.pop()).map(|item| item.to_string()).collect()
    }

    #[test]
    fn by_turns_it_is_the_one_ready_longest_and_the_one_waited_for_longest() {
        assert_eq!(all(ready(&[("a", 9), ("b", 8), ("c", 7), ("d", 1), ("e", 2)])), "adbec");
    }

    #[test]
    fn each_is_taken_out_once_and_may_come_again() {
        let mut ready = ready(&[("a", 1), ("b", 2)]);
        let next = |ready: &mut Ready| ready.pop().map(|item| item.to_string());
        assert_eq!(next(&mut ready).as_deref(), Some("a"));
        ready.push(ItemId::new("a").expect("an item"), 3);
        assert_eq!(next(&mut ready).as_deref(), Some("b"));
        assert_eq!(next(&mut ready).as_deref(), Some("a"));
        assert_eq!(next(&mut ready), None);
        ready.push(ItemId::new("c").expect("an item"), 1);
        assert_eq!(ready.take_all().len(), 1);
        assert_eq!(next(&mut ready), None);
        assert!(ready.by_wait.is_empty() && ready.by_turn.is_empty());
    }
}
