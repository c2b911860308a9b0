//! A hash map in shards. A map of ten million entries that grows copies them
//! all while its owner waits; a shard copies its 64th part.

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
