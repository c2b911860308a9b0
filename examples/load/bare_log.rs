//! The limit: a bare log on the same disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

/// Bytes of a row as the embedded backend writes it for these orders.
const ROW_BYTES: usize = 60;

/// Orders a second that a bare log takes in such batches.
pub(crate) fn bare_log(path: &Path, batch: usize, seconds: f64) -> Result<f64> {
    let mut log = File::create(path)?;
    let bytes = vec![7; batch * ROW_BYTES];
    let (started, mut orders) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds / 2.0 {
        log.write_all(&bytes)?;
        log.sync_data()?;
        orders += batch;
    }
    Ok(orders as f64 / started.elapsed().as_secs_f64())
}
