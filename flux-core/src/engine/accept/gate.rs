//! The cheap early "sold out": each item's definition and availability, known
//! without asking the store. It may lag behind; only the store decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use papaya::HashMap;
use tokio::time::{Duration, Instant};

use crate::engine::error::Error;
use crate::protocol::{Ask, InvalidInput, ItemId, ItemKind, ItemSpec, Line};
use crate::seams::{Availability, InventoryStore, SeamError};

/// Most items that the gate remembers; past that it forgets all and learns again.
const ITEMS_MAX: usize = 100_000;
/// Most shut items read again in one call.
const REFRESH_AT_ONCE: usize = 1_000;
/// The age past which a definition is read again before a buyer is told that
/// a seat doesn't exist.
const SPEC_AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Cell {
    spec: Arc<ItemSpec>,
    learned_at: Instant,
    available: AtomicU32,
}

/// The availability of each item, as far as this process has heard.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    cells: HashMap<ItemId, Cell, RandomState>,
}

impl Gate {
    /// Checks the lines against the items' definitions. `Some` names a line's
    /// item that is known to be sold out. No I/O for items that are known.
    pub(crate) async fn check<'l>(
        &self,
        lines: &'l [Line],
        store: &dyn InventoryStore,
    ) -> Result<Option<&'l ItemId>, Error> {
        let mut sold_out = None;
        for line in lines {
            let available = match self.glance(line) {
                Some(Ok(available)) => available,
                Some(Err(wrong)) if self.knows_well(&line.item) => return Err(wrong.into()),
                // Unknown, or changed elsewhere since it was learned.
                _ => {
                    self.learn(&line.item, store).await?;
                    self.glance(line).unwrap_or(Ok(1))?
                }
            };
            if available == 0 {
                sold_out = Some(&line.item);
            }
        }
        Ok(sold_out)
    }

    fn glance(&self, line: &Line) -> Option<Result<u32, InvalidInput>> {
        let cells = self.cells.pin();
        let cell = cells.get(&line.item)?;
        Some(fits(line, &cell.spec).map(|()| cell.available.load(Ordering::Relaxed)))
    }

    fn knows_well(&self, item: &ItemId) -> bool {
        let cells = self.cells.pin();
        cells.get(item).is_some_and(|cell| cell.learned_at.elapsed() < SPEC_AGE_MAX)
    }

    async fn learn(&self, item: &ItemId, store: &dyn InventoryStore) -> Result<(), Error> {
        let Some((spec, stock)) = store.stock(item).await? else {
            return Err(Error::UnknownItem(item.clone()));
        };
        self.set(spec, stock.available());
        Ok(())
    }

    /// Learns an item's definition and availability.
    pub(crate) fn set(&self, spec: Arc<ItemSpec>, available: u32) {
        let cells = self.cells.pin();
        if cells.len() >= ITEMS_MAX {
            cells.clear();
        }
        let (id, available) = (spec.id.clone(), AtomicU32::new(available));
        cells.insert(id, Cell { spec, learned_at: Instant::now(), available });
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
    /// keep it shut.
    pub(crate) async fn refresh_shut(&self, store: &dyn InventoryStore) -> Result<(), SeamError> {
        let shut: Vec<ItemId> = {
            let cells = self.cells.pin();
            let shut = cells.iter().filter(|(_, cell)| cell.available.load(Ordering::Relaxed) == 0);
            shut.map(|(id, _)| id.clone()).collect()
        };
        // G8: no item with stock left stays shut.
        for shut in shut.chunks(REFRESH_AT_ONCE) {
            let levels = shut.iter().zip(store.availability(shut).await?);
            let level = |(item, available): (&ItemId, Option<u32>)| {
                Some(Availability { item: item.clone(), available: available? })
            };
            self.set_availability(&levels.filter_map(level).collect::<Vec<_>>());
        }
        Ok(())
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
