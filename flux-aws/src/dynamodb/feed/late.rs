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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SKIPPING: Position = Position::Skipping { since: 7, after: None };

    /// Shards by their parents, who come first.
    fn listed(shards: &[(&str, &str)]) -> Vec<Shard> {
        let parent = |parent: &str| (!parent.is_empty()).then(|| parent.to_owned());
        let shard = |(id, of): &(&str, &str)| Shard { id: (*id).to_owned(), parent: parent(of) };
        shards.iter().map(shard).collect()
    }

    /// The shards that a reader in some is in afterwards.
    fn adopted(reader: &[(&str, Position)], shards: &[(&str, &str)]) -> BTreeMap<String, Position> {
        let shards_of_reader = reader.iter().map(|(id, at)| ((*id).to_owned(), at.clone()));
        let mut frontier =
            Frontier { stream: "label".to_owned(), shards: shards_of_reader.collect() };
        adopt(&mut frontier, &listed(shards));
        frontier.shards
    }

    #[test]
    fn a_sibling_that_was_never_entered_is_taken_in_and_no_other() {
        let tree =
            [("p", ""), ("a", "p"), ("b", "p"), ("a1", "a"), ("a2", "a"), ("b1", "b"), ("q", "")];
        let ids = |reader: &[&str]| {
            let reader: Vec<_> = reader.iter().map(|id| (*id, Position::Start)).collect();
            adopted(&reader, &tree).into_keys().collect::<Vec<_>>().join(" ")
        };
        for (reader, then) in [
            (&["p", "q"][..], "p q"),
            (&["a", "b"], "a b"),
            (&["a1", "a2", "b1"], "a1 a2 b1"),
            (&["a"], "a b"),
            (&["a1", "b"], "a1 a2 b"),
            (&["a2"], "a1 a2 b"),
            (&["a1", "a2", "q"], "a1 a2 b q"),
        ] {
            assert_eq!(ids(reader), then, "{reader:?}");
        }
    }

    #[test]
    fn a_list_that_is_older_than_the_reader_tells_nothing() {
        // It was in `a` before, and is in its child.
        let reader = [("a1", Position::Start), ("b", Position::Start)];
        assert_eq!(adopted(&reader, &[("p", ""), ("a", "p"), ("b", "p")]).len(), 2);
    }

    #[test]
    fn whoever_goes_by_the_time_does_so_there_too() {
        let reader = [("a", Position::After("9".to_owned())), ("q", SKIPPING)];
        let then = adopted(&reader, &[("p", ""), ("a", "p"), ("b", "p"), ("q", "")]);
        assert_eq!(then.get("b"), Some(&SKIPPING));
    }
}
