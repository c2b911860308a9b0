//! The durable backend: one redb file in a directory, no service to start.
//!
//! Every answered write is on disk, by a real sync. Those that come meanwhile
//! go to the disk together, so the cost of a sync is shared by the crowd. The
//! file has definitions, orders and messages; indexes and stock are derived
//! from it at open. One process has it open at a time.
//!
//! When a write fails the store stops: the calls that wait for it answer
//! [`SeamError::Broken`](crate::seams::SeamError::Broken), as it may count, and
//! all later ones [`SeamError::Stopped`](crate::seams::SeamError::Stopped). The
//! sources of both end in the [`std::io::Error`] of, say, a full disk. What is on
//! disk can be read still; only what was on its way is not told. Opening the file
//! anew recovers everything that was acknowledged: in place, by
//! [`Flux::reopen`](crate::Flux::reopen), once there is room again.
//!
//! Metrics: `flux_commit_orders` and `flux_commit_seconds`, histograms of the
//! orders written at once and of the time that took.
//!
//! I/O runs in real time on threads of its own, so do not wait for it under a
//! paused tokio clock with a time-out: the clock jumps while the disk works.

#![doc = include_str!("design.md")]

mod backup;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod disk;
mod feed;
mod fields;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod private;
mod queue;
mod recover;
mod removals;
mod reopen;
mod rows;
mod store;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bon::bon;
use redb::{Builder, Database, DatabaseError};
use uuid::Uuid;

pub use backup::{BackupCounts, BackupError, RestoreError, verify_backup};
pub use queue::EmbeddedQueue;
pub use store::EmbeddedStore;

use self::feed::{EmbeddedFeed, KeepChanges};
use self::journal::{FORMAT_WITH_CHANGES, Journal};
use self::recover::{Failure, Limits, Recovered, initialise};
use self::reopen::{OpenFile, Reopens};
use super::Backend;
use super::memory::{DEPTH_MAX, MemoryBus, MemoryLocks, VISIBILITY};
use super::state::queue::QueueLimits;
use super::state::rejected::Retention;
use crate::clock::{Clock, SystemClock};
use crate::protocol::BuyerRules;
#[cfg(doc)]
use crate::seams::InventoryStore;

pub(crate) const SERVICE: &str = "embedded store";
const FILE_NAME: &str = "flux.redb";
const CACHE_BYTES: usize = 64 << 20;

/// The failure of an open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("{} is in use; stop the process that has it open", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this library.
    #[error("the data is of format {found}, this program reads up to format {expected}")]
    Version {
        /// The version of the file.
        found: u64,
        /// The newest version this program reads.
        expected: u64,
    },
    /// The contents are not what was written, or not a store at all.
    #[error("{} is damaged, or no store of Flux: {what}; restore a backup (Embedded::restore, flux-server restore)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault and where it is.
        what: String,
    },
    /// The operating system refused.
    #[error("can't open {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// An open directory: a durable queue and store, and locks and a bus for the
/// one process that may have it open. It is closed when the last handle from
/// [`backend`](Self::backend) is dropped, which may wait for the disk.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use flux_core::ItemSpec;
/// use flux_core::backends::embedded::Embedded;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let backend = Embedded::open(path)?.backend();
/// backend.store.put_item(&ItemSpec::pool("ticket", 100)?).await?;
/// drop(backend);
///
/// let backend = Embedded::open(path)?.backend();
/// assert_eq!(backend.store.list_items(None, 10).await?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Embedded {
    queue: Arc<EmbeddedQueue>,
    store: Arc<EmbeddedStore>,
    locks: Arc<MemoryLocks>,
    bus: Arc<MemoryBus>,
}

#[bon]
impl Embedded {
    /// Opens the directory, with the defaults of [`builder`](Self::builder).
    /// Blocks for as long as it takes to read all orders: a second or so for
    /// each five million.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder(path).open()
    }

    /// Opens the directory, which is made if it is missing. What is made is its
    /// owner's alone: mode 0700, and 0600 the file.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    #[builder(start_fn = builder, finish_fn = open)]
    #[expect(clippy::needless_pass_by_value, reason = "a builder owns what it is given")]
    pub fn build(
        /// The directory.
        #[builder(start_fn, into)]
        path: PathBuf,
        /// Memory for pages of the file; 64 MiB.
        #[builder(default = CACHE_BYTES)]
        cache_bytes: usize,
        /// Time for a delivery to be acknowledged before it comes again; 30 s.
        #[builder(default = VISIBILITY)]
        visibility: Duration,
        /// Most messages in the queue, delivered ones included; 1,000,000.
        #[builder(default = DEPTH_MAX)]
        queue_depth_max: usize,
        /// Time for which a rejected order is remembered; a day. After that, its
        /// id is a new order's.
        #[builder(default = Retention::DEFAULT.keep)]
        keep_rejected: Duration,
        /// Most rejected orders remembered, the newest; 10,000,000.
        #[builder(default = Retention::DEFAULT.max)]
        rejected_max: u64,
        /// What the store asks of buyers before they get another hold; nothing. They
        /// may be others at each open: the orders in the file count.
        #[builder(default)]
        buyer_rules: BuyerRules,
        /// Time for which changes stay in the [feed](InventoryStore::feed); seven days.
        /// None are kept for no time, and there is no feed: one that is opened again
        /// later starts anew.
        #[builder(default = KeepChanges::DEFAULT.keep)]
        keep_changes: Duration,
        /// Most changes in the feed, the newest, some 80 bytes of file each; 20,000,000.
        #[builder(default = KeepChanges::DEFAULT.max)]
        changes_max: u64,
        /// Dates the queue's messages; the machine's clock.
        #[builder(default = Arc::new(SystemClock))]
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let limits = Limits {
            queue: QueueLimits { visibility, depth_max: queue_depth_max },
            rejected: Retention { keep: keep_rejected, max: rejected_max },
            buyers: buyer_rules,
            changes: (!keep_changes.is_zero())
                .then_some(KeepChanges { keep: keep_changes, max: changes_max }),
        };
        let file = path.join(FILE_NAME);
        make_dir(&path).map_err(|error| io_error(&path, error))?;
        if !file.exists() {
            create(&path, &file)?;
        }
        private::close_to_others(&path, &file).map_err(|error| io_error(&file, error))?;
        let opened = file.clone();
        let open = move || {
            let mut builder = Builder::new();
            // Else a damaged page is noticed only if a crash came after it.
            builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
            builder.open(&opened)
        };
        Self::open_database(&file, Some(&path), limits, clock, open)
    }

    fn open_database(
        path: &Path,
        dir: Option<&Path>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let file = OpenFile {
            path: path.to_owned(),
            dir: dir.map(Path::to_owned),
            limits,
            clock: clock.clone(),
            open: Box::new(open),
        };
        let (db, recovered) = file.open()?;
        let Recovered { was_closed: _, crashes, clock: kept, ledger, items: _, rows, queue, feed } =
            recovered;
        let has_feed = feed.is_some();
        let journal = Journal::start(db, rows, feed).map_err(|error| io_error(path, error))?;
        let journal = Arc::new(journal);
        let feed = has_feed.then(|| Arc::new(EmbeddedFeed::new(journal.clone())));
        let queue = Arc::new(EmbeddedQueue::new(journal.clone(), queue, crashes, clock));
        let reopens = Reopens { file: Arc::new(file), queue: queue.clone() };
        Ok(Self {
            queue,
            store: Arc::new(EmbeddedStore::new(journal, ledger, kept, feed, reopens)),
            locks: Arc::default(),
            bus: Arc::default(),
        })
    }

    /// Writes a copy of the store as it is at this moment, while it goes on: every order
    /// that was answered before is in it. It pauses for most of the time, so that the sale
    /// has the machine, and blocks for as long as that takes: some seconds for each million
    /// orders. Meanwhile no page of the file is used again, so it grows by all that is
    /// written. [`restore`](Self::restore) makes a store of it, with this version or a later
    /// one.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use flux_core::ItemSpec;
    /// use flux_core::backends::embedded::Embedded;
    ///
    /// # let dirs = tempfile::tempdir()?;
    /// # let (path, elsewhere) = (dirs.path().join("a"), dirs.path().join("b"));
    /// let embedded = Embedded::open(path)?;
    /// embedded.backend().store.put_item(&ItemSpec::pool("ticket", 100)?).await?;
    /// let mut copy = Vec::new();
    /// assert_eq!(embedded.backup(&mut copy)?.items, 1);
    ///
    /// Embedded::restore(&copy[..], &elsewhere)?;
    /// let restored = Embedded::open(elsewhere)?.backend();
    /// assert_eq!(restored.store.list_items(None, 10).await?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BackupError`]; what was written is then no whole copy, and
    /// [`restore`](Self::restore) refuses it.
    pub fn backup(&self, mut out: impl io::Write) -> Result<BackupCounts, BackupError> {
        self.store.backup(&mut out)
    }

    /// Makes a store of a [copy](Self::backup) in a directory that has none, and is made
    /// if it is missing. Whoever worked on the store that the copy is of is fenced by the
    /// new one, and cursors of its change feed are told that changes are gone. Blocks for
    /// as long as that takes.
    ///
    /// # Errors
    /// [`RestoreError`]: nothing was made.
    pub fn restore(
        copy: impl io::Read,
        path: impl AsRef<Path>,
    ) -> Result<BackupCounts, RestoreError> {
        let path = path.as_ref();
        backup::restore(copy, path, &path.join(FILE_NAME))
    }

    /// Gives the room in the file of a directory that is not used back to the system, and
    /// returns its bytes before and after: after items were
    /// [archived](crate::Flux::archive), which leaves it to be used again. Nobody may have it
    /// open. Blocks for as long as it takes to move what is left: seconds for each gigabyte.
    ///
    /// # Errors
    /// [`OpenError`]: the file is as it was.
    pub fn compact(path: impl AsRef<Path>) -> Result<(u64, u64), OpenError> {
        let file = path.as_ref().join(FILE_NAME);
        let bytes = || Ok::<_, OpenError>(file.metadata().map_err(|e| io_error(&file, e))?.len());
        let before = bytes()?;
        let compacted = catch_unwind(AssertUnwindSafe(|| {
            let mut db = Builder::new().set_cache_size(CACHE_BYTES).open(&file)?;
            compact(&mut db)?;
            Ok(db.close()?)
        }));
        compacted
            .unwrap_or_else(|_| Err(Failure::Damaged("moving it failed badly".to_owned())))
            .map_err(|failure| open_error(&file, failure))?;
        Ok((before, bytes()?))
    }

    /// The four seams. All clones and calls share this one open directory.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend {
            queue: self.queue.clone(),
            locks: self.locks.clone(),
            store: self.store.clone(),
            bus: self.bus.clone(),
            partitions: Vec::new(),
        }
    }
}

fn compact(db: &mut Database) -> Result<(), Failure> {
    match db.compact() {
        Ok(_) => Ok(()),
        Err(redb::CompactionError::Storage(error)) => Err(error.into()),
        Err(error) => Err(Failure::Damaged(error.to_string())),
    }
}

/// Makes an empty store, under another name until it is whole: a crash leaves
/// none, or one that opens.
fn create(dir: &Path, file: &Path) -> Result<(), OpenError> {
    let draft = draft_of(dir);
    private::make_file(&draft).map_err(|error| io_error(&draft, error))?;
    let created = Builder::new().create(&draft).map_err(Failure::from).and_then(|db| {
        initialise(&db)?;
        Ok(db.close()?)
    });
    let created = created.map_err(|failure| open_error(&draft, failure));
    let linked = created.and_then(|()| publish(&draft, file));
    let removed = std::fs::remove_file(&draft).map_err(|error| io_error(&draft, error));
    linked?;
    removed?;
    // The name must outlive a power loss as well as the contents.
    sync_dir(dir).map_err(|error| io_error(dir, error))
}

/// A name for a store that is being made.
fn draft_of(dir: &Path) -> PathBuf {
    dir.join(format!("{FILE_NAME}.{}", Uuid::now_v7()))
}

/// Gives a store its name, and tells whether there was none of that name. A link, unlike
/// a rename, can't replace the file that another process made meanwhile.
fn publish(draft: &Path, file: &Path) -> Result<bool, OpenError> {
    match std::fs::hard_link(draft, file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error(file, error)),
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    private::make_dir(path)?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    // Elsewhere a directory can't be opened, nor does it need to be.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Takes the operating system's error out of redb's, which has it and names no source.
fn cause(error: redb::Error) -> Box<dyn Error + Send + Sync> {
    match error {
        redb::Error::Io(error) => error.into(),
        error => error.into(),
    }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: source.into() }
}

fn open_error(path: &Path, failure: Failure) -> OpenError {
    let path = path.to_owned();
    match failure {
        Failure::Version(found) => OpenError::Version { found, expected: FORMAT_WITH_CHANGES },
        Failure::Damaged(what) => OpenError::Damaged { path, what },
        Failure::Database(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse { path },
        // These kinds tell of contents, not of a device.
        Failure::Database(redb::Error::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Io { path, source: error.into() }
        }
        Failure::Database(error) => OpenError::Damaged { path, what: error.to_string() },
    }
}
