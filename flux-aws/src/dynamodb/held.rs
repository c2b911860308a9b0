//! Counts the units held of each item over the index of holds: no item's row
//! has the count, lest each payment write it. One count serves
//! all items and all who ask meanwhile, and for ten times as long as it took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::ItemId;
use flux_core::seams::SeamError;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::rows::{DUE_SHARDS, taken};
use super::store::not_batched;
use super::table::Table;
use crate::batcher::Batcher;

/// The least time that a count serves.
const FRESH_MIN: Duration = Duration::from_millis(250);
/// The most time that a count serves.
const FRESH_MAX: Duration = Duration::from_secs(60);

/// A count that took no longer is cheap: it may be made anew for every change.
const CHEAP: Duration = Duration::from_millis(50);

type Units = Arc<HashMap<ItemId, u32>>;

#[derive(Debug)]
struct Counted {
    units: Units,
    took: Duration,
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
    pub(super) fn new(table: Table) -> Self {
        let counted: Arc<Mutex<Option<Counted>>> = Arc::default();
        let keep = Arc::clone(&counted);
        let counting = Batcher::new(WAITING_MAX, WAITING_MAX, 1, move |callers: Vec<()>| {
            let (table, counted) = (table.clone(), Arc::clone(&keep));
            async move {
                let units = match fresh(&counted) {
                    Some(units) => Ok(units),
                    None => count_all(&table, &counted).await,
                };
                callers.into_iter().map(|()| units.clone()).collect()
            }
        });
        Self { counted, counting }
    }

    /// Notes that a hold began or ended here: if counting is cheap, the next to
    /// ask has it counted anew.
    pub(super) fn changed(&self) {
        lock(&self.counted).take_if(|counted| counted.took < CHEAP);
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

async fn count_all(table: &Table, counted: &Mutex<Option<Counted>>) -> Result<Units, SeamError> {
    let began = Instant::now();
    let mut units: HashMap<ItemId, u32> = HashMap::new();
    for shard in try_join_all((0..DUE_SHARDS).map(|shard| count(table, shard))).await? {
        for (item, held) in shard {
            *units.entry(item).or_default() += held;
        }
    }
    let units = Arc::new(units);
    let took = began.elapsed();
    let until = Instant::now() + (took * 10).clamp(FRESH_MIN, FRESH_MAX);
    *lock(counted) = Some(Counted { units: Arc::clone(&units), took, until });
    Ok(units)
}

async fn count(table: &Table, shard: u128) -> Result<HashMap<ItemId, u32>, SeamError> {
    let mut units: HashMap<ItemId, u32> = HashMap::new();
    let mut next = None;
    loop {
        let query = table.due_query(shard).set_exclusive_start_key(next);
        let (rows, more) = table.page(query).await?;
        for row in &rows {
            for (item, held) in taken(row)? {
                *units.entry(item).or_default() += held;
            }
        }
        match more {
            Some(more) => next = Some(more),
            None => return Ok(units),
        }
    }
}
