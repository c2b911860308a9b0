//! The cheap early no: each item's definition and availability, known without
//! asking the store. It may lag behind; only the store decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use papaya::HashMap;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use crate::engine::error::Error;
use crate::protocol::{Ask, InvalidInput, ItemId, ItemKind, ItemSpec, Line, Timestamp};
use crate::seams::{Availability, InventoryStore, SeamError};

/// Most items that the gate remembers; past that it forgets all and learns again.
const ITEMS_MAX: usize = 100_000;
/// Most shut items read again in one call.
const REFRESH_AT_ONCE: usize = 1_000;
/// The age past which what is known of an item is read again before an order is
/// refused by it: it may have changed elsewhere.
const KNOWN_AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Cell {
    spec: Arc<ItemSpec>,
    learned_at: Instant,
    available: AtomicU32,
    /// Has one caller read the item again, and the others wait for it.
    reading: Arc<Mutex<()>>,
}

/// What the gate has to say about a line.
enum Glance {
    Passes,
    Refused(Error),
    /// It would be refused, by what may be out of date.
    Doubtful,
    Unknown,
}

/// The availability of each item, as far as this process has heard.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    cells: HashMap<ItemId, Cell, RandomState>,
}

impl Gate {
    /// Checks the lines of an order placed `at` against what is known of their
    /// items, and returns the reason to refuse it, if there is one: a line that
    /// fits no item before one whose sale is not open, and that before one of
    /// which too little is left. No I/O for items that are known and let it
    /// pass, or are sold out; one read a second at most for each that refuses
    /// it otherwise.
    pub(crate) async fn check(
        &self,
        lines: &[Line],
        at: Timestamp,
        store: &dyn InventoryStore,
    ) -> Result<Option<Error>, SeamError> {
        let (mut not_on_sale, mut sold_out) = (None, None);
        for line in lines {
            let mut glance = self.glance(line, at, KNOWN_AGE_MAX);
            if matches!(glance, Glance::Doubtful | Glance::Unknown) {
                if !self.read(&line.item, store).await? {
                    return Ok(Some(Error::UnknownItem(line.item.clone())));
                }
                glance = self.glance(line, at, Duration::MAX);
            }
            let Glance::Refused(refusal) = glance else { continue };
            let place = match refusal {
                Error::SoldOut(_) => &mut sold_out,
                Error::NotOpen(_) | Error::Closed(_) => &mut not_on_sale,
                _ => return Ok(Some(refusal)),
            };
            place.get_or_insert(refusal);
        }
        Ok(not_on_sale.or(sold_out))
    }

    /// Whether what is known of the items lets an order pass, with nothing to read.
    pub(crate) fn passes(&self, lines: &[Line], at: Timestamp) -> bool {
        let passes = |line| matches!(self.glance(line, at, KNOWN_AGE_MAX), Glance::Passes);
        lines.iter().all(passes)
    }

    fn glance(&self, line: &Line, at: Timestamp, age_max: Duration) -> Glance {
        let cells = self.cells.pin();
        let Some(cell) = cells.get(&line.item) else { return Glance::Unknown };
        let spec = &cell.spec;
        let available = cell.available.load(Ordering::Relaxed);
        let refusal = if let Err(wrong) = fits(line, spec) {
            wrong.into()
        } else if spec.opens_at.is_some_and(|opens| at < opens) {
            Error::NotOpen(spec.id.clone())
        } else if spec.closes_at.is_some_and(|closes| at >= closes) {
            Error::Closed(spec.id.clone())
        } else if available == 0 {
            // Read again in the background for as long as it is.
            return Glance::Refused(Error::SoldOut(spec.id.clone()));
        } else if matches!(line.ask, Ask::Units(asked) if available < asked.get()) {
            Error::SoldOut(spec.id.clone())
        } else {
            // Whether seats that are named are free, only the store knows.
            return Glance::Passes;
        };
        // G8: nobody is refused for longer than that by what is true no more.
        match cell.learned_at.elapsed() < age_max {
            true => Glance::Refused(refusal),
            false => Glance::Doubtful,
        }
    }

    /// Reads an item, unless that was done a moment ago; `false` if there is no
    /// such item. Of those who want to know at once, one reads.
    async fn read(&self, item: &ItemId, store: &dyn InventoryStore) -> Result<bool, SeamError> {
        let reading = self.cells.pin().get(item).map(|cell| Arc::clone(&cell.reading));
        let _reader = match &reading {
            Some(reading) => Some(reading.lock().await),
            None => None,
        };
        if let Some((_, _, age)) = self.known(item)
            && age < KNOWN_AGE_MAX
        {
            return Ok(true);
        }
        match store.stock(item).await {
            Ok(Some((spec, stock))) => self.set(spec, stock.available()),
            Ok(None) => return Ok(false),
            Err(error) => {
                // Those who wait are told what was known, lest each try in turn.
                if let Some((spec, available, _)) = self.known(item) {
                    self.set(spec, available);
                }
                return Err(error);
            }
        }
        Ok(true)
    }

    fn known(&self, item: &ItemId) -> Option<(Arc<ItemSpec>, u32, Duration)> {
        let cells = self.cells.pin();
        let Cell { spec, learned_at, available, .. } = cells.get(item)?;
        Some((Arc::clone(spec), available.load(Ordering::Relaxed), learned_at.elapsed()))
    }

    /// Learns an item's definition and availability.
    pub(crate) fn set(&self, spec: Arc<ItemSpec>, available: u32) {
        let cells = self.cells.pin();
        if cells.len() >= ITEMS_MAX {
            cells.clear();
        }
        let reading = cells.get(&spec.id).map(|cell| Arc::clone(&cell.reading));
        let (id, available) = (spec.id.clone(), AtomicU32::new(available));
        let reading = reading.unwrap_or_default();
        cells.insert(id, Cell { spec, learned_at: Instant::now(), available, reading });
    }

    /// Forgets an item that is gone.
    pub(crate) fn forget(&self, item: &ItemId) {
        self.cells.pin().remove(item);
    }

    /// Learns the availability of those items that the gate knows.
    pub(crate) fn set_availability(&self, availability: &[Availability]) {
        let cells = self.cells.pin();
        for Availability { item, available } in availability {
            if let Some(cell) = cells.get(item) {
                cell.available.store(*available, Ordering::Relaxed);
            }
        }
    }

    /// Reads the items again that the gate is shut for, lest a lost message
    /// keep it shut. The store is asked even for none: it may have stopped.
    pub(crate) async fn refresh_shut(&self, store: &dyn InventoryStore) -> Result<(), SeamError> {
        let shut: Vec<ItemId> = {
            let cells = self.cells.pin();
            let shut = cells.iter().filter(|(_, cell)| cell.available.load(Ordering::Relaxed) == 0);
            shut.map(|(id, _)| id.clone()).collect()
        };
        // G8: no item with stock left stays shut.
        let mut rest = shut.as_slice();
        loop {
            let (shut, later) = rest.split_at(rest.len().min(REFRESH_AT_ONCE));
            let levels = shut.iter().zip(store.availability(shut).await?);
            let level = |(item, available): (&ItemId, Option<u32>)| {
                Some(Availability { item: item.clone(), available: available? })
            };
            self.set_availability(&levels.filter_map(level).collect::<Vec<_>>());
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

fn fits(line: &Line, spec: &ItemSpec) -> Result<(), InvalidInput> {
    match (&line.ask, &spec.kind) {
        (Ask::Units(_), ItemKind::Pool(_)) => Ok(()),
        (Ask::Seats(seats), ItemKind::Seats(hall)) => {
            match seats.iter().find(|seat| hall.index_of(seat).is_none()) {
                Some(seat) => {
                    Err(InvalidInput::new("seats", format!("{} has no seat {seat}", spec.id)))
                }
                None => Ok(()),
            }
        }
        (Ask::Units(_), ItemKind::Seats(_)) => {
            Err(InvalidInput::new("quantity", format!("{} is sold by named seats", spec.id)))
        }
        (Ask::Seats(_), ItemKind::Pool(_)) => {
            Err(InvalidInput::new("seats", format!("{} is sold by quantity", spec.id)))
        }
    }
}
