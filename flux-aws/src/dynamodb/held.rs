//! How many units of each item are held: counted over the index of holds,
//! since no row of an item tells, lest each payment write it. One count serves
//! all items and all who ask meanwhile, and for ten times as long as it took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flux_core::ItemId;
use flux_core::seams::SeamError;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::rows::{DUE_SHARDS, taken};
use super::table::Table;

/// A count serves at least so long,
const FRESH_MIN: Duration = Duration::from_millis(250);
/// and at most so long.
const FRESH_MAX: Duration = Duration::from_secs(60);

/// A count that took no longer may be made for every change.
const CHEAP: Duration = Duration::from_millis(50);

type Units = Arc<HashMap<ItemId, u32>>;

#[derive(Debug)]
struct Counted {
    units: Units,
    took: Duration,
    /// How long it serves.
    until: Instant,
}

#[derive(Debug)]
pub(super) struct HeldUnits {
    table: Table,
    counted: Mutex<Option<Counted>>,
    /// One counts; the others wait for what it finds.
    counting: tokio::sync::Semaphore,
}

impl HeldUnits {
    pub(super) fn new(table: Table) -> Self {
        Self { table, counted: Mutex::default(), counting: tokio::sync::Semaphore::new(1) }
    }

    fn fresh(&self) -> Option<Units> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counted.as_ref()?;
        (Instant::now() < counted.until).then(|| Arc::clone(&counted.units))
    }

    /// Something was held or paid for here: if counting is cheap, the next to
    /// ask has it counted anew.
    pub(super) fn changed(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.take_if(|counted| counted.took < CHEAP);
    }

    /// Units held of each item; an item without any may be missing.
    pub(super) async fn units(&self) -> Result<Units, SeamError> {
        if let Some(units) = self.fresh() {
            return Ok(units);
        }
        let _turn = self.counting.acquire().await.expect("it is never closed");
        if let Some(units) = self.fresh() {
            return Ok(units);
        }
        let began = Instant::now();
        let mut units: HashMap<ItemId, u32> = HashMap::new();
        for shard in try_join_all((0..DUE_SHARDS).map(|shard| self.count(shard))).await? {
            for (item, held) in shard {
                *units.entry(item).or_default() += held;
            }
        }
        let units = Arc::new(units);
        let took = began.elapsed();
        let until = Instant::now() + (took * 10).clamp(FRESH_MIN, FRESH_MAX);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = Some(Counted { units: Arc::clone(&units), took, until });
        Ok(units)
    }

    async fn count(&self, shard: u128) -> Result<HashMap<ItemId, u32>, SeamError> {
        let mut units: HashMap<ItemId, u32> = HashMap::new();
        let mut next = None;
        loop {
            let query = self.table.due_query(shard).set_exclusive_start_key(next);
            let (rows, more) = self.table.page(query).await?;
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
}
