//! A hash map in shards. A map of ten million entries that grows copies them
//! all while its owner waits; a shard copies its 64th part. The last shard has twice
//! as many as the first, and each a little more than the one before: so they grow one
//! by one, spread over all the time in which the map doubles.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

const SHARDS: usize = 64;

/// Clients choose the keys, so both hashes are seeded at random.
#[derive(Debug)]
pub(crate) struct Sharded<K, V> {
    chooser: RandomState,
    shards: Box<[HashMap<K, V, RandomState>]>,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| HashMap::default()).collect();
        Self { chooser: RandomState::default(), shards }
    }
}

/// Deals keys out so that the shards' shares are a geometric series, from 1 to 2.
fn shard_of<K: Hash>(chooser: &RandomState, key: &K) -> usize {
    let from_1_to_2 = 1.0 + (chooser.hash_one(key) >> 32) as f64 / (1_u64 << 32) as f64;
    (from_1_to_2.log2() * SHARDS as f64) as usize
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    /// The shard of `key`.
    pub(crate) fn shard_mut(&mut self, key: &K) -> &mut HashMap<K, V, RandomState> {
        &mut self.shards[shard_of(&self.chooser, key)]
    }

    /// Takes an entry out. A shard that has become far too large for what is left
    /// gives memory back.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let shard = self.shard_mut(key);
        let removed = shard.remove(key);
        if shard.capacity() > 1_024 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to(shard.len() * 2);
        }
        removed
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.shards[shard_of(&self.chooser, key)].get(key)
    }
}

/// Entries of a [`Sharded`] to be, dealt out by shard. Filling one shard after
/// the other stays within the processor's caches; filling all at random is some
/// five times slower.
#[cfg(feature = "embedded")]
pub(crate) struct Dealt<K, V> {
    chooser: RandomState,
    hands: Vec<Vec<(K, V)>>,
}

#[cfg(feature = "embedded")]
impl<K: Hash + Eq + Copy + Send, V: Copy + Send> Dealt<K, V> {
    /// `chooser` must be the same for all that are filled together.
    pub(crate) fn new(chooser: RandomState, entries: usize) -> Self {
        let share = |shard: usize| {
            let until = |shard: usize| (shard as f64 / SHARDS as f64).exp2();
            (entries as f64 * (until(shard + 1) - until(shard)) * 1.06) as usize
        };
        Self { chooser, hands: (0..SHARDS).map(|at| Vec::with_capacity(share(at))).collect() }
    }

    pub(crate) fn push(&mut self, key: K, value: V) {
        self.hands[shard_of(&self.chooser, &key)].push((key, value));
    }

    /// Fills the map with everything dealt, or names a key that came twice.
    pub(crate) fn fill(
        dealt: Vec<Self>,
        chooser: RandomState,
        threads: usize,
    ) -> Result<Sharded<K, V>, K> {
        let mut piles: Vec<Vec<Vec<(K, V)>>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for one in dealt {
            for (pile, hand) in piles.iter_mut().zip(one.hands) {
                pile.push(hand);
            }
        }
        let shards: Result<Vec<_>, K> = std::thread::scope(|scope| {
            let fillers: Vec<_> = piles
                .chunks_mut(SHARDS.div_ceil(threads.max(1)))
                .map(|piles| {
                    scope.spawn(|| piles.iter_mut().map(std::mem::take).map(fill_one).collect())
                })
                .collect();
            let filled = fillers.into_iter().map(|filler| filler.join().expect("no filler panics"));
            let filled: Result<Vec<Vec<_>>, K> = filled.collect();
            filled.map(|shards| shards.into_iter().flatten().collect())
        });
        Ok(Sharded { chooser, shards: shards?.into() })
    }
}

#[cfg(feature = "embedded")]
fn fill_one<K: Hash + Eq + Copy, V>(
    pile: Vec<Vec<(K, V)>>,
) -> Result<HashMap<K, V, RandomState>, K> {
    let entries = pile.iter().map(Vec::len).sum();
    let mut shard = HashMap::with_capacity_and_hasher(entries, RandomState::default());
    for (key, value) in pile.into_iter().flatten() {
        if shard.insert(key, value).is_some() {
            return Err(key);
        }
    }
    Ok(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(map: &Sharded<u64, u64>) -> usize {
        map.shards.iter().map(HashMap::capacity).sum()
    }

    /// Entries that grow are copied, which takes as long as the work of as many orders.
    #[test]
    fn as_the_map_doubles_its_shards_grow_one_after_the_other() {
        const EVERY: u64 = 8_000;
        let mut map = Sharded::default();
        let mut copied = 0;
        for key in 0..400_000_u64 {
            let shard = map.shard_mut(&key);
            let (len, room) = (shard.len(), shard.capacity());
            shard.insert(key, key);
            if shard.capacity() > room {
                copied += len;
            }
            if key % EVERY == 0 {
                // All at once would copy 229,000 where there are so many; one by one 18,000.
                assert!(copied < 100_000, "{copied} of {key} in a stretch of {EVERY}");
                copied = 0;
            }
        }
    }

    #[test]
    fn after_a_flood_memory_is_given_back_and_what_is_left_is_there() {
        let mut map = Sharded::default();
        for key in 0..200_000 {
            map.shard_mut(&key).insert(key, key);
        }
        let flooded = room(&map);
        for key in 100..200_000 {
            assert_eq!(map.remove(&key), Some(key));
        }
        assert!(room(&map) < flooded / 2, "{} of {flooded}", room(&map));
        for key in 0..200_000 {
            assert_eq!(map.get(&key).copied(), (key < 100).then_some(key));
        }
    }
}
