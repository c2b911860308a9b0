//! The files of a sale that is over.
//!
//! An archive is a directory, named after its [`ArchiveId`]:
//!
//! | file | what is in it |
//! |---|---|
//! | `orders.ndjson.gz` | each order on a line of its own, as `GET /v1/orders/{id}` shows it ([`OrderView`](crate::views::OrderView)), compressed with gzip |
//! | `manifest.json` | [`Manifest`]: the items as they were last, how many orders there are in each state, and the size and SHA-256 of the other file |
//!
//! It is in its place only when it is whole and on disk; before that it is called
//! `ARCHIVE.part`. [`Flux::archive`](crate::Flux::archive) makes one, and [`Archive`] reads
//! it. Any tool for JSON does too: `gunzip -c orders.ndjson.gz | jq .`, and `sha256sum`
//! checks it. What later versions write, with another [`format`](Manifest::format), they
//! will go on reading.
//!
//! An order is in one archive: that of its items. One over several items goes where all of
//! them go together, unless it owns nothing: then it goes with the first.

mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::protocol::{ItemId, OrderStatus, SeatId, Timestamp};
use crate::seams::ArchiveId;
use crate::views::{ItemView, time};

pub use read::{Archive, Orders};
pub(crate) use write::Draft;

/// The form of the files.
const FORMAT: u32 = 1;
const ORDERS: &str = "orders.ndjson.gz";
const MANIFEST: &str = "manifest.json";

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The form of the files, 1.
    pub format: u32,
    /// Its name.
    pub archive: ArchiveId,
    /// The time whose state it has.
    #[serde(with = "time")]
    pub archived_at: Timestamp,
    /// The items as they were last.
    pub items: Vec<ArchivedItem>,
    /// The orders in each state.
    pub orders: BTreeMap<OrderStatus, u64>,
    /// The other files.
    pub files: Vec<ArchivedFile>,
}

impl Manifest {
    /// The orders in all states.
    #[must_use]
    pub fn order_count(&self) -> u64 {
        self.orders.values().sum()
    }
}

/// An item in a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArchivedItem {
    /// The item and its numbers.
    #[serde(flatten)]
    pub item: ItemView<'static>,
    /// The names of a hall's seats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<Vec<SeatId>>,
}

/// A file in a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArchivedFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// An archive that was made, by [`Flux::archive`](crate::Flux::archive).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Archived {
    /// Its name: that of its directory.
    pub archive: ArchiveId,
    /// The time whose state it has.
    #[serde(with = "time")]
    pub archived_at: Timestamp,
    /// Its items.
    pub items: Vec<ItemId>,
    /// The orders in it.
    pub orders: u64,
}

/// How far an archive has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveProgress {
    /// So many orders are written to the file.
    Written(u64),
    /// The files are in their place, and so many orders of them left the store.
    TakenOut(u64),
}

/// The failure of writing or reading an archive's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The operating system refused.
    #[error("can't write or read {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The archive is not what was written.
    #[error("{} is not what was written: {what}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// The fault.
        what: String,
    },
    /// The archive that the items go into is not here: its orders have begun to leave the
    /// store, so it is not made again.
    #[error("archive {archive} is not in {}: name the directory that has it", dir.display())]
    Elsewhere {
        /// The archive.
        archive: ArchiveId,
        /// The directory that was named.
        dir: PathBuf,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, what: impl fmt::Display) -> ArchiveError {
    ArchiveError::Damaged { path: path.to_owned(), what: what.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
