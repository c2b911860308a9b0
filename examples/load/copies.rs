//! Backups that are made while orders are placed.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use flux_core::backends::embedded::Embedded;
use tokio::task::{JoinHandle, spawn_blocking};

/// Backups of a store to one file, one after the other.
pub(crate) struct Copies {
    stops: Arc<AtomicBool>,
    copying: JoinHandle<Result<u64>>,
}

impl Copies {
    pub(crate) fn begin(embedded: Embedded, path: PathBuf) -> Self {
        let stops = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stops);
        let copying = spawn_blocking(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                embedded.backup(File::create(&path)?)?;
                count += 1;
            }
            Ok(count)
        });
        Self { stops, copying }
    }

    /// Ends them after the one that is being made.
    pub(crate) async fn end(self) -> Result<u64> {
        self.stops.store(true, Ordering::Relaxed);
        self.copying.await?
    }
}
