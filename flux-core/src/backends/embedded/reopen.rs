//! How the file is opened, for the first time and in place after a failed write.

use std::error::Error;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use redb::{Database, DatabaseError};
use tokio::task::spawn_blocking;

use super::queue::EmbeddedQueue;
use super::recover::{Failure, Limits, Recovered, recover};
use super::store::EmbeddedStore;
use super::{OpenError, SERVICE, draft_of, open_error, private};
use crate::clock::Clock;
use crate::seams::SeamError;

/// Room that a disk must have for a file to be opened anew.
const ROOM_BYTES: usize = 1 << 20;

type Open = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// A file, and how to open it.
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    /// The directory it is in, if it is in one.
    pub(super) dir: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) open: Box<Open>,
}

impl OpenFile {
    /// Whether an open would find room for what it writes.
    fn has_room(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let draft = draft_of(dir);
        let mut file = private::make_file(&draft)?;
        let written = file.write_all(&vec![1; ROOM_BYTES]).and_then(|()| file.sync_all());
        std::fs::remove_file(&draft)?;
        written
    }

    /// Opens it, and reads what it stands for.
    pub(super) fn open(&self) -> Result<(Database, Recovered), OpenError> {
        let Self { path, limits, clock, open, .. } = self;
        let started = Instant::now();
        // As redb panics on some damage.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = open()?;
            let recovered = recover(&db, *limits, clock.now())?;
            Ok((db, recovered))
        }));
        let (db, recovered) = opened
            .unwrap_or_else(|_| Err(Failure::Damaged("reading it failed badly".to_owned())))
            .map_err(|failure| open_error(path, failure))?;
        let Recovered { was_closed, items, rows, queue, .. } = &recovered;
        let messages: usize = queue.not_done.values().sum();
        let orders = rows.numbered - rows.forgotten;
        let how = if *was_closed { "it was closed cleanly" } else { "recovered from a crash" };
        let (elapsed, file) = (started.elapsed(), path.display());
        tracing::info!(
            // Whoever filters by it knows no files of ours.
            target: "flux_core::backends::embedded",
            %file, orders, items, messages, ?elapsed, "embedded store opened: {how}"
        );
        Ok((db, recovered))
    }
}

/// What a store needs to open its file anew.
pub(super) struct Reopens {
    pub(super) file: Arc<OpenFile>,
    /// The queue in the same file.
    pub(super) queue: Arc<EmbeddedQueue>,
}

impl std::fmt::Debug for Reopens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reopens").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// After a failed write, closes the file and opens it anew: the store and the queue are
    /// then what is in it, for everybody who has them. Else it does nothing.
    pub(super) async fn open_anew(&self) -> Result<(), SeamError> {
        // One at a time, and while nobody counts buyers by the file of before.
        let _counting = self.late_cap.lock().await;
        if !self.journal.has_failed() {
            return Ok(());
        }
        let file = Arc::clone(&self.reopens.file);
        // While there is none, what is there can be read.
        let looked = {
            let file = Arc::clone(&file);
            spawn_blocking(move || file.has_room()).await
        };
        looked
            .map_err(|error| not_opened(error.into()))?
            .map_err(|error| not_opened(error.into()))?;
        self.journal.close().await?;
        let opening = spawn_blocking(move || file.open()).await;
        let (db, recovered) = opening
            .map_err(|error| not_opened(error.into()))?
            .map_err(|error| not_opened(error.into()))?;
        let Recovered { crashes, clock, ledger, rows, queue: found, feed, .. } = recovered;
        let feed = feed.filter(|_| self.feed.is_some());
        {
            // What changes the one or the other waits, and then goes by what was found.
            let mut inner = self.lock();
            let mut queue = self.reopens.queue.lock();
            inner.start_with(ledger, clock);
            *queue = found;
            self.journal.go_on(db, rows, feed).map_err(|error| not_opened(error.into()))?;
        }
        self.reopens.queue.was_reopened(crashes);
        Ok(())
    }
}

fn not_opened(cause: Box<dyn Error + Send + Sync>) -> SeamError {
    let reason = "it can't be opened anew: make room or mend the disk, then reopen";
    SeamError::stopped(SERVICE, reason).with_source(cause)
}
