//! A hash map in shards. A map of ten million entries that grows copies them
//! all while its owner waits; a shard copies its 64th part.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
#[cfg(feature = "embedded")]
use std::sync::Mutex;

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

fn shard_of<K: Hash>(chooser: &RandomState, key: &K) -> usize {
    chooser.hash_one(key) as usize % SHARDS
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    /// The map that holds `key`, if any does.
    pub(crate) fn shard_mut(&mut self, key: &K) -> &mut HashMap<K, V, RandomState> {
        &mut self.shards[shard_of(&self.chooser, key)]
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.shards[shard_of(&self.chooser, key)].get(key)
    }
}

/// Fills a [`Sharded`] from several threads at once.
#[cfg(feature = "embedded")]
pub(crate) struct ShardedFill<K, V> {
    chooser: RandomState,
    shards: Vec<Mutex<HashMap<K, V, RandomState>>>,
}

#[cfg(feature = "embedded")]
impl<K: Hash + Eq, V> ShardedFill<K, V> {
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let each = entries / SHARDS + entries / SHARDS / 16;
        let shard = || Mutex::new(HashMap::with_capacity_and_hasher(each, RandomState::default()));
        Self { chooser: RandomState::default(), shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Returns the value that was there.
    pub(crate) fn insert(&self, key: K, value: V) -> Option<V> {
        let shard = &self.shards[shard_of(&self.chooser, &key)];
        shard.lock().expect("a filler does not panic").insert(key, value)
    }

    pub(crate) fn finish(self) -> Sharded<K, V> {
        let shards = self.shards.into_iter();
        let shards =
            shards.map(|shard| shard.into_inner().expect("a filler does not panic")).collect();
        Sharded { chooser: self.chooser, shards }
    }
}
