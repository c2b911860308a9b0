//! Shards that were listed after their siblings. When a shard ends in several children and a
//! reader finds only some of them, it goes on to these; the others are taken in later.

use std::collections::{HashMap, HashSet};

use super::frontier::{Frontier, Position};
use super::stream::Shard;

/// Takes in the shards that the reader never entered, although it left their parents. It is
/// behind a shard's parent if it is in another shard that comes of that; and it entered a
/// shard if it is in that or in one that comes of it.
pub(super) fn adopt(frontier: &mut Frontier, listed: &[Shard]) {
    let parents: HashMap<&str, Option<&str>> =
        listed.iter().map(|shard| (shard.id.as_str(), shard.parent.as_deref())).collect();
    if !frontier.shards.keys().all(|id| parents.contains_key(id.as_str())) {
        // The list is older than the reader: what it lacks may come of what it has.
        return;
    }
    let mut left = HashSet::new();
    for id in frontier.shards.keys() {
        let mut at = id.as_str();
        while let Some(Some(parent)) = parents.get(at)
            && left.insert(*parent)
        {
            at = parent;
        }
    }
    let is_late = |shard: &&Shard| {
        let is_left = |parent: &String| {
            left.contains(parent.as_str()) && !frontier.shards.contains_key(parent)
        };
        shard.parent.as_ref().is_some_and(is_left)
            && !left.contains(shard.id.as_str())
            && !frontier.shards.contains_key(&shard.id)
    };
    let late: Vec<String> = listed.iter().filter(is_late).map(|shard| shard.id.clone()).collect();
    // All who go by the time in one reader go by the same.
    let skipping = frontier.shards.values().find(|position| position.since() > 0);
    let start = skipping.map_or(Position::Start, Position::of_child);
    frontier.shards.extend(late.into_iter().map(|id| (id, start.clone())));
}
