//! Counts the units held of each item over the index of holds: no item's row
//! has the count, lest each payment write it. One count serves
//! all items and all who ask meanwhile, and for ten times as long as it took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::ItemId;
use flux_core::seams::SeamError;
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::format::Format;
use super::rows::taken;
use super::store::not_batched;
use super::table::{Table, in_order};
use crate::batcher::Batcher;

/// The least time that a count serves.
const FRESH_MIN: Duration = Duration::from_millis(250);
/// The most time that a count serves.
const FRESH_MAX: Duration = Duration::from_secs(60);

/// A count of so few holds is cheap: it may be made anew for every change.
const CHEAP: usize = 1_000;

type Units = Arc<HashMap<ItemId, u32>>;

#[derive(Debug)]
struct Counted {
    units: Units,
    holds: usize,
    /// The end of its service.
    until: Instant,
}

#[derive(Debug)]
pub(super) struct HeldUnits {
    counted: Arc<Mutex<Option<Counted>>>,
    /// One count at a time, in a task that outlives who asked for it.
    counting: Batcher<(), Result<Units, SeamError>>,
}

/// Callers that may wait for a count.
const WAITING_MAX: usize = 65_536;

impl HeldUnits {
    pub(super) fn new(table: Table, format: Arc<Format>) -> Self {
        let counted: Arc<Mutex<Option<Counted>>> = Arc::default();
        let keep = Arc::clone(&counted);
        let counting = Batcher::new(WAITING_MAX, WAITING_MAX, 1, move |callers: Vec<()>| {
            let (table, format) = (table.clone(), Arc::clone(&format));
            let counted = Arc::clone(&keep);
            async move {
                let units = match fresh(&counted) {
                    Some(units) => Ok(units),
                    None => count_all(&table, &format, &counted).await,
                };
                callers.into_iter().map(|()| units.clone()).collect()
            }
        });
        Self { counted, counting }
    }

    /// Notes that a hold began or ended here: if counting is cheap, the next to
    /// ask has it counted anew.
    pub(super) fn changed(&self) {
        lock(&self.counted).take_if(|counted| counted.holds <= CHEAP);
    }

    /// Units held of each item; an item without any may be missing.
    pub(super) async fn units(&self) -> Result<Units, SeamError> {
        if let Some(units) = fresh(&self.counted) {
            return Ok(units);
        }
        self.counting.call(()).await.map_err(not_batched)?
    }
}

fn lock(counted: &Mutex<Option<Counted>>) -> MutexGuard<'_, Option<Counted>> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh(counted: &Mutex<Option<Counted>>) -> Option<Units> {
    let counted = lock(counted);
    let counted = counted.as_ref().filter(|counted| Instant::now() < counted.until)?;
    Some(Arc::clone(&counted.units))
}

async fn count_all(
    table: &Table,
    format: &Format,
    counted: &Mutex<Option<Counted>>,
) -> Result<Units, SeamError> {
    let began = Instant::now();
    let mut units: HashMap<ItemId, u32> = HashMap::new();
    let keys = format.due_keys().await?.all();
    let of_keys: Vec<(usize, HashMap<ItemId, u32>)> =
        in_order(keys.map(|key| count(table, key))).try_collect().await?;
    let mut holds = 0;
    for (holds_of_key, of_key) in of_keys {
        holds += holds_of_key;
        for (item, held) in of_key {
            *units.entry(item).or_default() += held;
        }
    }
    let units = Arc::new(units);
    let took = began.elapsed();
    let until = Instant::now() + (took * 10).clamp(FRESH_MIN, FRESH_MAX);
    *lock(counted) = Some(Counted { units: Arc::clone(&units), holds, until });
    Ok(units)
}

/// The holds of one key of the index, and the units of each item.
async fn count(table: &Table, key: u64) -> Result<(usize, HashMap<ItemId, u32>), SeamError> {
    let mut units: HashMap<ItemId, u32> = HashMap::new();
    let mut holds = 0;
    let mut next = None;
    loop {
        let query = table.due_query(key).set_exclusive_start_key(next);
        let (rows, more) = table.page(query).await?;
        holds += rows.len();
        for row in &rows {
            for (item, held) in taken(row)? {
                *units.entry(item).or_default() += held;
            }
        }
        match more {
            Some(more) => next = Some(more),
            None => return Ok((holds, units)),
        }
    }
}
