//! The partition of the queue that an order belongs in.

use crate::protocol::ItemId;
use crate::random::mix;

/// The partition, of so many, of the orders whose first item this is.
pub fn partition_of(item: &ItemId, partitions: usize) -> usize {
    match partitions {
        0 | 1 => 0,
        _ => (hash(item.as_str(), 0) % partitions as u64) as usize,
    }
}

/// FNV-1a with a finisher: the same in every process and version.
pub(crate) fn hash(text: &str, seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_stays_in_its_partition_in_every_version() {
        let of = |item: &str| partition_of(&ItemId::new(item).expect("an item"), 16);
        assert_eq!(["a", "b", "ticket", "item-0001"].map(of), [8, 5, 7, 14]);
        assert_eq!(partition_of(&ItemId::new("a").expect("an item"), 1), 0);
    }

    #[test]
    fn items_are_spread_over_the_partitions() {
        let mut counts = [0; 16];
        for n in 0..16_000 {
            counts[partition_of(&ItemId::new(format!("item-{n}")).expect("an item"), 16)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
