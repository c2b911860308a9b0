//! The partition of the queue that an order belongs in.

use crate::protocol::{ItemId, Line};
use crate::random::mix;

/// The partition, of so many, of the orders over these lines: that of their item if it is
/// one, and else the first. So whoever serves that one decides all that ties items
/// together: it has many such orders to put into one write, and no two workers wait for
/// each other's items.
///
/// ```
/// use flux_core::Line;
/// use flux_core::seams::{partition_of, partition_of_lines};
///
/// let [hall, bar] = ["hall", "bar"].map(|item| Line::units(item, 1).expect("in bounds"));
/// assert_eq!(partition_of_lines(&[hall.clone()], 16), partition_of(&hall.item, 16));
/// assert_eq!(partition_of_lines(&[hall, bar], 16), 0);
/// ```
pub fn partition_of_lines(lines: &[Line], partitions: usize) -> usize {
    match lines {
        [line, others @ ..] if others.iter().all(|other| other.item == line.item) => {
            partition_of(&line.item, partitions)
        }
        _ => 0,
    }
}

/// The partition, of so many, of the orders over this item alone.
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
    fn orders_over_several_items_are_all_in_one_partition() {
        let of = |items: &[&str]| {
            let line = |item: &&str| Line::units(*item, 1).expect("in bounds");
            partition_of_lines(&items.iter().map(line).collect::<Vec<_>>(), 16)
        };
        assert_eq!([of(&["a"]), of(&["b"]), of(&["b", "b"])], [8, 5, 5]);
        assert_eq!([of(&["a", "b"]), of(&["b", "a"]), of(&["ticket", "item-0001"])], [0; 3]);
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
