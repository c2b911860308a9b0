//! What is on sale in a round: pools, one of them capped and one that opens
//! late, and a hall.

use std::time::Duration;

use anyhow::Result;
use flux_core::{ItemKind, ItemSpec, Line, Lines, Timestamp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Value, json};

use super::options::Options;

/// Time after the start of a round at which its last item opens.
const OPENS_AFTER: Duration = Duration::from_secs(3);
/// No round is near the end of its sale.
const CLOSES_AFTER: Duration = Duration::from_secs(86_400);

/// The items of a round.
#[derive(Debug, Clone)]
pub(super) struct Goods {
    pub(super) items: Vec<ItemSpec>,
    pairs: u32,
}

impl Goods {
    pub(super) fn of(options: &Options, sale: &str, round: u32) -> Result<Self> {
        let name = |what: &str| format!("judge-{sale}-{round}-{what}");
        let spec = |id: String| ItemSpec::builder().id(id).hold_seconds(options.hold_seconds);
        let units = u64::from(options.units);
        let mut items = Vec::new();
        for n in 1..=options.items {
            let is_last = n == options.items;
            let cap = (is_last && options.cap > 0).then_some(u64::from(options.cap));
            let pool = spec(name(&format!("pool-{n}"))).capacity(units).maybe_max_per_buyer(cap);
            items.push(pool.build()?);
        }
        let opens = Timestamp::now() + OPENS_AFTER;
        let late = spec(name("late")).capacity(units).opens_at(opens);
        items.push(late.closes_at(opens + CLOSES_AFTER).build()?);
        if options.seats > 0 {
            let seats = (1..=options.seats).map(|seat| format!("S{seat}"));
            items.push(spec(name("hall")).seats(seats).build()?);
        }
        Ok(Self { items, pairs: options.pairs })
    }

    /// The lines of any order.
    pub(super) fn any_lines(&self, chance: &mut StdRng) -> Lines {
        let item = any(&self.items, chance);
        let mut lines = vec![any_line(item, chance)];
        if chance.random_ratio(self.pairs, 100) {
            let other = any(&self.items, chance);
            if other.id != item.id {
                lines.push(any_line(other, chance));
            }
        }
        Lines::new(lines).expect("one line or two, each seat named once")
    }
}

fn any<'g>(items: &'g [ItemSpec], chance: &mut impl Rng) -> &'g ItemSpec {
    items.choose(chance).expect("there is always a pool")
}

fn any_line(item: &ItemSpec, chance: &mut StdRng) -> Line {
    let line = match &item.kind {
        ItemKind::Seats(hall) => {
            let many = chance.random_range(1..=2);
            let seats: Vec<_> = hall.names().sample(chance, many).collect();
            Line::seats(&item.id, seats)
        }
        ItemKind::Pool(_) => Line::units(&item.id, chance.random_range(1..=2)),
    };
    line.expect("the names are the item's own")
}

/// The body that puts an item on sale.
pub(super) fn definition(item: &ItemSpec) -> Value {
    let mut body = json!({ "hold_seconds": item.hold.get() });
    match &item.kind {
        ItemKind::Seats(hall) => body["seats"] = json!(hall.names()),
        ItemKind::Pool(_) => body["capacity"] = json!(item.capacity()),
    }
    if let Some(cap) = item.max_per_buyer {
        body["max_per_buyer"] = json!(cap.get());
    }
    for (field, time) in [("opens_at", item.opens_at), ("closes_at", item.closes_at)] {
        if let Some(time) = time {
            body[field] = json!(time.to_string());
        }
    }
    body
}
