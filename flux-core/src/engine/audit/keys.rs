//! What must be there once: order ids, the live owner of a seat, a buyer's units of a
//! capped item. As many of them as fit are kept in one listing; the others are those of
//! further listings.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};

use crate::protocol::{BuyerId, ItemId, OrderId, SeatId};

/// Most keys in memory, some 60 MB.
const KEYS_MAX: usize = 900_000;
/// Most buyers in doubt in one listing.
const BUYERS_MAX: usize = 10_000;

/// The keys whose lowest `bits` are `low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    bits: u32,
    low: u128,
}

impl Share {
    fn has(self, key: u128) -> bool {
        key & ((1 << self.bits) - 1) == self.low
    }
}

#[derive(Debug, Hash)]
enum Name<'a> {
    Order(OrderId),
    Seat(&'a ItemId, &'a SeatId),
    Buyer(&'a ItemId, &'a BuyerId),
}

/// What a key stands for: the order it was found with, or units of its buyer.
#[derive(Debug, Clone, Copy)]
struct Found {
    order: OrderId,
    units: u64,
}

/// One share of the keys, and those that are still to be looked at.
#[derive(Debug)]
pub(super) struct Keys {
    hashers: [RandomState; 2],
    max: usize,
    share: Share,
    later: Vec<Share>,
    found: HashMap<u128, Found>,
    /// Buyers with more units than their cap, each perhaps not at one moment.
    buyers: HashMap<u128, (ItemId, BuyerId)>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::of_at_most(KEYS_MAX)
    }
}

impl Keys {
    fn of_at_most(max: usize) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            max,
            share: Share { bits: 0, low: 0 },
            later: Vec::new(),
            found: HashMap::new(),
            buyers: HashMap::new(),
        }
    }

    /// The buyers in doubt after a listing.
    pub(super) fn take_buyers(&mut self) -> HashSet<(ItemId, BuyerId)> {
        self.buyers.drain().map(|(_, who)| who).collect()
    }

    /// Begins another listing with the keys that had none yet. Whether there are any.
    pub(super) fn next_share(&mut self) -> bool {
        self.found.clear();
        self.buyers.clear();
        match self.later.pop() {
            Some(share) => {
                self.share = share;
                true
            }
            None => false,
        }
    }

    fn key(&self, name: &Name<'_>) -> Option<u128> {
        let [one, other] = self.hashers.each_ref().map(|hasher| hasher.hash_one(name));
        let key = u128::from(one) << 64 | u128::from(other);
        self.share.has(key).then_some(key)
    }

    /// Notes an order, and whether this listing had it before.
    pub(super) fn order(&mut self, order: OrderId) -> bool {
        let Some(key) = self.key(&Name::Order(order)) else { return false };
        self.note(key, order, 0).is_some()
    }

    /// Notes a seat's live owner, and returns another one that the listing showed.
    pub(super) fn seat(&mut self, item: &ItemId, seat: &SeatId, owner: OrderId) -> Option<OrderId> {
        let key = self.key(&Name::Seat(item, seat))?;
        let other = self.note(key, owner, 0)?.order;
        (other != owner).then_some(other)
    }

    /// Notes that a buyer has units of a capped item.
    pub(super) fn buyer(
        &mut self,
        item: &ItemId,
        buyer: &BuyerId,
        order: OrderId,
        units: u64,
        cap: u64,
    ) {
        let Some(key) = self.key(&Name::Buyer(item, buyer)) else { return };
        let before = self.note(key, order, units).map_or(0, |found| found.units);
        if before + units > cap && self.share.has(key) {
            self.buyers.insert(key, (item.clone(), buyer.clone()));
            while self.buyers.len() > BUYERS_MAX {
                self.halve();
            }
        }
    }

    /// Adds to what a key stands for, and returns what it stood for before.
    fn note(&mut self, key: u128, order: OrderId, units: u64) -> Option<Found> {
        let before = match self.found.entry(key) {
            Entry::Occupied(mut there) => {
                let before = *there.get();
                *there.get_mut() = Found { order, units: before.units + units };
                Some(before)
            }
            Entry::Vacant(room) => {
                room.insert(Found { order, units });
                None
            }
        };
        while self.found.len() > self.max {
            self.halve();
        }
        before
    }

    /// Leaves half of the share for a later listing.
    fn halve(&mut self) {
        let Share { bits, low } = self.share;
        self.later.push(Share { bits: bits + 1, low: low | 1 << bits });
        self.share = Share { bits: bits + 1, low };
        self.found.retain(|key, _| self.share.has(*key));
        self.buyers.retain(|key, _| self.share.has(*key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> OrderId {
        OrderId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn what_is_there_twice_is_found_in_one_of_the_listings_however_little_fits() {
        let mut keys = Keys::of_at_most(50);
        let orders: Vec<_> = (0..2_000).chain([7, 1_234, 1_999]).map(id).collect();
        let (mut twice, mut listings, mut most) = (Vec::new(), 0, 0);
        loop {
            listings += 1;
            for order in &orders {
                if keys.order(*order) {
                    twice.push(*order);
                }
                most = most.max(keys.found.len());
            }
            if !keys.next_share() {
                break;
            }
        }
        twice.sort_unstable();
        assert_eq!(twice, [7, 1_234, 1_999].map(id));
        assert!(listings >= 2_000 / 50, "{listings} listings");
        assert!(most <= 50, "{most} at once");
    }

    #[test]
    fn a_buyer_is_in_doubt_from_the_first_unit_above_the_cap() {
        let (item, ann) = (ItemId::new("a").expect("a"), BuyerId::new("ann").expect("ann"));
        let mut keys = Keys::of_at_most(9);
        keys.buyer(&item, &ann, id(1), 2, 3);
        keys.buyer(&item, &ann, id(2), 1, 3);
        assert!(keys.buyers.is_empty());
        keys.buyer(&item, &ann, id(3), 1, 3);
        assert_eq!(keys.buyers.into_values().collect::<Vec<_>>(), [(item, ann)]);
    }
}
