//! Outcomes as they travel: `{"v":1,"from":"…","orders":[…],"levels":[…]}`. `from`
//! names the bus that sent it, which has told its own subscribers already.
//! Fields may be added within a version; another version is not read.

use std::collections::HashSet;
use std::sync::Arc;

use flux_core::ItemId;
use flux_core::protocol::Order;
use flux_core::seams::{Availability, Outcomes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const VERSION: u32 = 1;
/// Outcomes are cut into messages of about this size.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Bound on the size of our messages: one order may be above the size to cut at.
const MESSAGE_BYTES_MAX: usize = 4 * MESSAGE_BYTES;

#[derive(Serialize)]
struct Sent<'n> {
    v: u32,
    from: Uuid,
    orders: &'n [&'n Order],
    levels: &'n [&'n Availability],
}

#[derive(Deserialize)]
struct Heard {
    v: u32,
    orders: Vec<Order>,
    levels: Vec<Availability>,
}

/// One sender's side of the format.
#[derive(Debug)]
pub(super) struct Wire {
    from: Uuid,
    /// The beginning of every message of ours.
    start: String,
}

impl Wire {
    pub(super) fn new() -> Self {
        let from = Uuid::now_v7();
        Self { from, start: format!(r#"{{"v":{VERSION},"from":"{from}","#) }
    }

    /// All the outcomes in as few messages as their size allows. Of an item's
    /// levels only the last is told.
    pub(super) fn write(&self, all: &[Arc<Outcomes>]) -> Vec<String> {
        let orders: Vec<&Order> = all.iter().flat_map(|outcomes| &outcomes.orders).collect();
        let mut told: HashSet<&ItemId> = HashSet::new();
        let latest_first = all.iter().rev().flat_map(|outcomes| outcomes.availability.iter().rev());
        let mut levels: Vec<_> = latest_first.filter(|level| told.insert(&level.item)).collect();
        levels.reverse();
        let mut messages = Vec::new();
        self.cut(&orders, &levels, &mut messages);
        messages
    }

    fn cut(&self, orders: &[&Order], levels: &[&Availability], messages: &mut Vec<String>) {
        let sent = Sent { v: VERSION, from: self.from, orders, levels };
        let message =
            serde_json::to_string(&sent).expect("outcomes are plain data with string keys");
        if message.len() <= MESSAGE_BYTES || orders.len() + levels.len() <= 1 {
            return messages.push(message);
        }
        let (orders, more_orders) = orders.split_at(orders.len() / 2);
        let (levels, more_levels) = levels.split_at(levels.len().div_ceil(2));
        self.cut(orders, levels, messages);
        self.cut(more_orders, more_levels, messages);
    }

    /// Reads a message of another process; none if it is our own.
    pub(super) fn read(&self, message: &[u8]) -> Result<Option<Outcomes>, Junk> {
        if message.starts_with(self.start.as_bytes()) {
            return Ok(None);
        }
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Junk);
        }
        match serde_json::from_slice(message) {
            Ok(Heard { v: VERSION, orders, levels }) => {
                Ok(Some(Outcomes { orders, availability: levels }))
            }
            _ => Err(Junk),
        }
    }
}

/// A message that is none of Flux's, or not of this version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Junk;

#[cfg(test)]
mod tests {
    use super::*;

    fn level(item: &str, available: u32) -> Availability {
        Availability { item: ItemId::new(item).expect("a name"), available }
    }

    #[test]
    fn what_is_written_is_read_by_others_and_an_items_last_level_wins() {
        let (ours, theirs) = (Wire::new(), Wire::new());
        let outcomes = |levels| Arc::new(Outcomes { orders: Vec::new(), availability: levels });
        let all = [
            outcomes(vec![level("a", 3), level("b", 2)]),
            outcomes(vec![level("c", 1), level("a", 2), level("a", 1)]),
        ];
        let messages = ours.write(&all);
        let [message] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(ours.read(message.as_bytes()), Ok(None));
        let levels = vec![level("b", 2), level("c", 1), level("a", 1)];
        let heard = Outcomes { orders: Vec::new(), availability: levels };
        assert_eq!(theirs.read(message.as_bytes()), Ok(Some(heard)));
        let later = message.replacen("\"v\":1", "\"v\":1,\"added\":[7]", 1);
        assert!(matches!(theirs.read(later.as_bytes()), Ok(Some(_))), "{later}");
    }

    #[test]
    fn outcomes_are_cut_where_they_grow_too_large_and_nothing_is_lost() {
        let levels: Vec<_> = (0..20_000).map(|n| level(&n.to_string(), n)).collect();
        let messages =
            Wire::new().write(&[Arc::new(Outcomes { orders: vec![], availability: levels })]);
        assert!(messages.len() > 1);
        let mut told = Vec::new();
        for message in &messages {
            assert!(message.len() <= MESSAGE_BYTES);
            let outcomes = Wire::new().read(message.as_bytes()).expect("ours").expect("another's");
            told.extend(outcomes.availability.iter().map(|level| level.available));
        }
        assert_eq!(told, (0..20_000).collect::<Vec<u32>>());
    }
}
