//! The demand for the items of a region, the same for the same seed.

use flux_core::{ItemId, ItemSpec, Line, Lines, Order, OrderId, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Units of each item: more than anybody will ask for.
const CAPACITY: u64 = 10_000_000;
/// The beginning of every item's name.
const NAME: &str = "item-";

/// Orders for one unit of an item, or of two items.
#[derive(Debug)]
pub struct Demand {
    items: Vec<String>,
    /// The share of orders for one of the items up to each.
    up_to: Vec<f64>,
    pairs: f64,
    dice: StdRng,
    made: u128,
}

impl Demand {
    /// Demand for so many `items`. The share of the `n`th falls as `n^-skew` (Zipf's
    /// law; 0: all the same), and the share `pairs` of all orders is over two items.
    pub fn new(items: usize, skew: f64, pairs: f64, seed: u64) -> Self {
        let weights = (1..=items).map(|n| (n as f64).powf(-skew));
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|share| *share /= sum);
        let items = (0..items).map(|n| format!("{NAME}{n:04}")).collect();
        Self { items, up_to, pairs, dice: StdRng::seed_from_u64(seed), made: 0 }
    }

    /// The items to put on sale.
    pub fn specs(&self) -> impl Iterator<Item = ItemSpec> {
        self.items.iter().map(|item| ItemSpec::pool(item.clone(), CAPACITY).expect("in bounds"))
    }

    /// The next order, accepted at `now`.
    pub fn next(&mut self, now: Timestamp) -> Order {
        let first = self.item();
        let mut items = vec![first];
        if self.items.len() > 1 && self.dice.random_bool(self.pairs) {
            let mut other = self.item();
            while other == first {
                other = self.item();
            }
            items.push(other);
        }
        let line = |item: usize| Line::units(&self.items[item], 1).expect("in bounds");
        let lines = Lines::new(items.into_iter().map(line).collect()).expect("in bounds");
        let buyer = format!("buyer-{}", self.made).parse().expect("in bounds");
        self.made += 1;
        let id = OrderId::from_uuid(Uuid::from_u128(self.made));
        Order::queued(id, buyer, lines, now)
    }

    fn item(&mut self) -> usize {
        let at: f64 = self.dice.random();
        self.up_to.partition_point(|share| *share < at).min(self.items.len() - 1)
    }
}

/// The number of an item, from 0: the smaller, the more it is asked for.
///
/// # Panics
/// When it is none of a region's items.
pub fn number(item: &ItemId) -> usize {
    let of = |item: &str| item.strip_prefix(NAME)?.parse().ok();
    of(item.as_str()).expect("the items are named by their numbers")
}
