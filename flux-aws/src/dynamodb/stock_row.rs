//! An item as its rows have it: its definition, and its stock on one or more
//! stock rows.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue as Value;
use flux_core::protocol::{FencingToken, ItemNow, SeatMap, Stock};
use flux_core::seams::SeamError;
use flux_core::{BuyerCap, Capacity, Hall, HoldTime, ItemId, ItemKind, ItemSpec, Timestamp};

use super::rows::{
    Entry, FORGOTTEN, Key, Row, bytes, damaged, get_number, number, opt_bytes, opt_number,
    opt_text, string, text,
};

/// Orders that a stock row names itself before they go to a log. Where orders of both
/// kinds came at once it may name as many as one commit has.
pub(super) const TAIL_MAX: usize = 24;

/// A part of an item's stock, in a row of its own, and the claim it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StockRow {
    /// The newest token given for it.
    pub(super) token: FencingToken,
    /// The number of writes, under any token.
    pub(super) revision: u64,
    pub(super) stock: Stock,
    /// Orders that are in its log.
    pub(super) logged: u64,
    /// Orders decided since, not in the log yet.
    pub(super) tail: Vec<Entry>,
    /// The same two of orders that were turned down, which are forgotten in time.
    pub(super) rejected_logged: u64,
    pub(super) rejected: Vec<Entry>,
    /// The second from which none of those need be remembered.
    pub(super) rejected_until: u64,
}

impl StockRow {
    pub(super) fn new(token: FencingToken, stock: Stock) -> Self {
        Self {
            token,
            revision: 0,
            stock,
            logged: 0,
            tail: Vec::new(),
            rejected_logged: 0,
            rejected: Vec::new(),
            rejected_until: 0,
        }
    }

    /// Names an order that was turned down at `second`, to be forgotten at `until`.
    pub(super) fn turn_down(&mut self, entry: Entry, second: u64, until: u64) {
        if self.rejected_until <= second {
            self.rejected_logged += self.rejected.len() as u64;
            self.rejected.clear();
        }
        self.rejected.push(entry);
        self.rejected_until = self.rejected_until.max(until);
    }

    /// Takes what is due for a log: one row, so that a commit has a known size.
    pub(super) fn take_log(&mut self, item: &ItemId, stripe: usize) -> Option<Row> {
        if self.tail.len() + self.rejected.len() <= TAIL_MAX {
            return None;
        }
        let is_rejected = self.rejected.len() > self.tail.len();
        let (entries, logged) = match is_rejected {
            true => (&mut self.rejected, &mut self.rejected_logged),
            false => (&mut self.tail, &mut self.logged),
        };
        let first = *logged;
        *logged += entries.len() as u64;
        let entries = Entry::write_all(&std::mem::take(entries));
        let mut row = match is_rejected {
            true => Key::rejected_log(item, stripe, first),
            false => Key::log(item, stripe, first),
        }
        .into_row();
        row.insert("orders".to_owned(), entries);
        if is_rejected {
            row.insert(FORGOTTEN.to_owned(), number(self.rejected_until));
        }
        Some(row)
    }

    pub(super) fn read(row: &Row, spec: &ItemSpec) -> Result<Self, SeamError> {
        let stock = match &spec.kind {
            ItemKind::Pool(_) => {
                let available = u32::try_from(get_number(row, "available")?);
                Stock::Pool { available: available.map_err(|_| damaged(row, "available"))? }
            }
            ItemKind::Seats(_) => {
                let taken = opt_bytes(row, "taken")?.unwrap_or_default();
                let map = SeatMap::from_bytes(spec.capacity(), taken);
                Stock::Seats(map.ok_or_else(|| damaged(row, "taken"))?)
            }
        };
        Ok(Self {
            token: FencingToken(get_number(row, "epoch")?),
            revision: get_number(row, "revision")?,
            stock,
            logged: get_number(row, "logged")?,
            tail: Entry::read_all(row, "tail")?,
            rejected_logged: opt_number(row, "rejected_logged")?.unwrap_or(0),
            rejected: Entry::read_all(row, "rejected")?,
            rejected_until: opt_number(row, "rejected_until")?.unwrap_or(0),
        })
    }

    /// Its attributes, by name.
    pub(super) fn attributes(&self) -> Vec<(&'static str, Value)> {
        let mut attributes = vec![
            ("epoch", number(self.token.0)),
            ("revision", number(self.revision)),
            ("available", number(self.stock.available())),
            ("logged", number(self.logged)),
            ("tail", Entry::write_all(&self.tail)),
        ];
        // Never again zero.
        if self.rejected_until > 0 {
            attributes.push(("rejected_logged", number(self.rejected_logged)));
            attributes.push(("rejected", Entry::write_all(&self.rejected)));
            attributes.push(("rejected_until", number(self.rejected_until)));
        }
        if let Stock::Seats(map) = &self.stock {
            attributes.push(("taken", bytes(map.to_bytes())));
        }
        attributes
    }
}

/// An item's definition as its first stock row has it; a hall's seats are
/// kept apart, under their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: ItemId,
    pub(super) name: Option<String>,
    pub(super) kind: HeadKind,
    pub(super) hold: HoldTime,
    pub(super) cap: Option<BuyerCap>,
    pub(super) opens_at: Option<Timestamp>,
    pub(super) closes_at: Option<Timestamp>,
    pub(super) stripes: usize,
    /// The name of the counts of buyers; they start over with each cap that comes
    /// where there was none.
    pub(super) capped_since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeadKind {
    Pool(Capacity),
    Hall { version: String },
}

impl Head {
    pub(super) fn of(spec: &ItemSpec, version: String, stripes: usize, capped_since: u64) -> Self {
        let (kind, stripes) = match &spec.kind {
            ItemKind::Pool(capacity) => (HeadKind::Pool(*capacity), stripes),
            ItemKind::Seats(_) => (HeadKind::Hall { version }, 1),
        };
        Self {
            id: spec.id.clone(),
            name: spec.name.clone(),
            kind,
            hold: spec.hold,
            cap: spec.max_per_buyer,
            opens_at: spec.opens_at,
            closes_at: spec.closes_at,
            stripes,
            capped_since,
        }
    }

    pub(super) fn read(row: &Row) -> Result<Self, SeamError> {
        let id = text(row, "pk")?.strip_prefix("item ").and_then(|id| ItemId::new(id).ok());
        let capacity = opt_number(row, "pool_size")?;
        let hall = opt_text(row, "hall")?.map(str::to_owned);
        let kind = match (capacity, hall) {
            (Some(capacity), None) => {
                HeadKind::Pool(Capacity::new(capacity).map_err(|_| damaged(row, "pool_size"))?)
            }
            (None, Some(version)) => HeadKind::Hall { version },
            _ => return Err(damaged(row, "pool_size or hall")),
        };
        let cap = opt_number(row, "max_per_buyer")?.map(BuyerCap::new).transpose();
        let stripes = opt_number(row, "stripes")?.unwrap_or(1);
        Ok(Self {
            id: id.ok_or_else(|| damaged(row, "pk"))?,
            name: opt_text(row, "title")?.map(str::to_owned),
            kind,
            hold: HoldTime::new(get_number(row, "hold_seconds")?)
                .map_err(|_| damaged(row, "hold_seconds"))?,
            cap: cap.map_err(|_| damaged(row, "max_per_buyer"))?,
            opens_at: opt_number(row, "opens_at")?.map(Timestamp::from_millis),
            closes_at: opt_number(row, "closes_at")?.map(Timestamp::from_millis),
            stripes: usize::try_from(stripes).map_err(|_| damaged(row, "stripes"))?.max(1),
            capped_since: opt_number(row, "capped_since")?.unwrap_or(0),
        })
    }

    /// Whether both are of one definition, however buyers and stock are counted.
    pub(super) fn defines_the_same_as(&self, other: &Self) -> bool {
        let Self { stripes, capped_since, .. } = *other;
        Self { stripes, capped_since, ..self.clone() } == *other
    }

    /// Its attributes, by name; an absent one has none.
    pub(super) fn attributes(&self) -> Vec<(&'static str, Option<Value>)> {
        let (capacity, hall) = match &self.kind {
            HeadKind::Pool(capacity) => (Some(number(capacity)), None),
            HeadKind::Hall { version } => (None, Some(string(version))),
        };
        let time = |time: Option<Timestamp>| time.map(|time| number(time.as_millis()));
        vec![
            ("title", self.name.as_ref().map(string)),
            ("pool_size", capacity),
            ("hall", hall),
            ("hold_seconds", Some(number(self.hold))),
            ("max_per_buyer", self.cap.map(number)),
            ("opens_at", time(self.opens_at)),
            ("closes_at", time(self.closes_at)),
            ("stripes", (self.stripes > 1).then(|| number(self.stripes))),
            ("capped_since", self.cap.map(|_| number(self.capped_since))),
        ]
    }

    /// The definition, given the hall's seats.
    pub(super) fn spec(&self, hall: Option<Arc<Hall>>) -> Result<ItemSpec, SeamError> {
        let kind = match (&self.kind, hall) {
            (HeadKind::Pool(capacity), _) => ItemKind::Pool(*capacity),
            (HeadKind::Hall { .. }, Some(hall)) => ItemKind::Seats(Hall::clone(&hall)),
            (HeadKind::Hall { .. }, None) => unreachable!("a hall is read with its seats"),
        };
        let mut spec = ItemSpec::new(self.id.clone(), kind);
        spec.name.clone_from(&self.name);
        spec.hold = self.hold;
        spec.max_per_buyer = self.cap;
        (spec.opens_at, spec.closes_at) = (self.opens_at, self.closes_at);
        match spec.check() {
            Ok(()) => Ok(spec),
            Err(error) => Err(SeamError::broken(
                super::rows::SERVICE,
                format!("item {}: its definition as stored breaks a rule: {error}", self.id),
            )),
        }
    }
}

/// An item whose every stock row was claimed or read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) head: Arc<Head>,
    pub(super) spec: Arc<ItemSpec>,
    /// One for each stripe.
    pub(super) stock_rows: Vec<StockRow>,
}

impl Known {
    /// The stripe that has most of the stock.
    pub(super) fn fullest(&self) -> usize {
        let available = |stripe: &usize| self.stock_rows[*stripe].stock.available();
        (0..self.stock_rows.len()).max_by_key(available).unwrap_or(0)
    }

    /// The state that a commit is judged by when it keeps to one stripe.
    pub(super) fn now(&self, stripe: usize) -> ItemNow<'_> {
        let StockRow { token, stock, .. } = &self.stock_rows[stripe];
        ItemNow { token: *token, spec: &self.spec, stock }
    }

    /// The stock of all stock rows together.
    pub(super) fn stock(&self) -> Stock {
        match &self.stock_rows[..] {
            [only] => only.stock.clone(),
            // Only pools are striped.
            many => Stock::Pool { available: many.iter().map(|s| s.stock.available()).sum() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_reads_as_it_was_written() {
        let full = ItemSpec::builder().id("pool").name("Ünë ~").capacity(7).hold_seconds(61);
        let full = full.max_per_buyer(3).opens_at(Timestamp::from_millis(5));
        let full = full.closes_at(Timestamp::from_millis(6)).build().expect("good");
        for (spec, stripes) in [
            (ItemSpec::pool("pool", 0).expect("good"), 4),
            (full, 1),
            (ItemSpec::hall("hall", ["A1", "~"]).expect("good"), 1),
        ] {
            let head = Head::of(&spec, "v1".into(), stripes, if stripes == 1 { 9 } else { 0 });
            let stock_row = StockRow::new(FencingToken(3), Stock::full(&spec));
            let mut row = Key::stock_row(&spec.id, 0).into_row();
            for (name, value) in head.attributes() {
                row.extend(value.map(|value| (name.to_owned(), value)));
            }
            row.extend(stock_row.attributes().into_iter().map(|(name, v)| (name.to_owned(), v)));
            let read = Head::read(&row).expect("whole");
            assert_eq!(read.stripes, head.stripes);
            let hall = match &spec.kind {
                ItemKind::Seats(hall) => Some(Arc::new(hall.clone())),
                ItemKind::Pool(_) => None,
            };
            assert_eq!(read.spec(hall).expect("good"), spec);
            assert_eq!(StockRow::read(&row, &spec).expect("whole"), stock_row);
            row.remove("epoch");
            assert!(StockRow::read(&row, &spec).is_err());
        }
    }
}
