//! Writes an archive: under another name until all of it is on disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::{
    ArchiveError, ArchivedFile, ArchivedItem, FORMAT, MANIFEST, Manifest, ORDERS, damaged, hex,
    io_error,
};
use crate::protocol::{Item, ItemKind, Order, OrderStatus, Timestamp};
use crate::seams::{ArchiveId, Digest};
use crate::views::{ItemView, OrderView};

const BUFFER: usize = 256 << 10;

/// An archive that is being written.
pub(crate) struct Draft {
    archive: ArchiveId,
    dir: PathBuf,
    part: PathBuf,
    orders: GzEncoder<Hashing<BufWriter<File>>>,
    counts: BTreeMap<OrderStatus, u64>,
}

impl Draft {
    /// Begins an archive in a directory, which is made if it is missing, in place of what
    /// an earlier try may have left.
    pub(crate) fn begin(dir: &Path, archive: ArchiveId) -> Result<Self, ArchiveError> {
        make_dirs(dir).map_err(io_error(dir))?;
        let part = dir.join(format!("{archive}.part"));
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&part)(error));
            }
            _ => {}
        }
        make_private_dir(&part).map_err(io_error(&part))?;
        let file = part.join(ORDERS);
        let out = make_private_file(&file).map_err(io_error(&file))?;
        let out = Hashing::new(BufWriter::with_capacity(BUFFER, out));
        Ok(Self {
            archive,
            dir: dir.to_owned(),
            part,
            orders: GzEncoder::new(out, Compression::default()),
            counts: BTreeMap::new(),
        })
    }

    /// Adds an order.
    pub(crate) fn add(&mut self, order: &Order) -> Result<(), ArchiveError> {
        let path = self.part.join(ORDERS);
        serde_json::to_writer(&mut self.orders, &OrderView::from(order))
            .map_err(|error| io_error(&path)(error.into()))?;
        self.orders.write_all(b"\n").map_err(io_error(&path))?;
        *self.counts.entry(order.status()).or_default() += 1;
        Ok(())
    }

    /// The orders so far.
    pub(crate) fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Puts the archive in its place, and returns its manifest's checksum once all of it
    /// outlives a loss of power.
    pub(crate) fn finish(self, items: &[Item], at: Timestamp) -> Result<Digest, ArchiveError> {
        let Self { archive, dir, part, orders, counts } = self;
        let file = part.join(ORDERS);
        let failed = || io_error(&file);
        let Hashing { inner, sum, bytes } = orders.finish().map_err(failed())?;
        let out = inner.into_inner().map_err(|error| failed()(error.into_error()))?;
        out.sync_all().map_err(failed())?;
        let orders = ArchivedFile { name: ORDERS.into(), bytes, sha256: hex(&sum.finalize()) };
        let manifest = Manifest {
            format: FORMAT,
            archive,
            archived_at: at,
            items: items.iter().map(|item| ArchivedItem::new(item, at)).collect(),
            orders: counts,
            files: vec![orders],
        };
        let file = part.join(MANIFEST);
        let mut text =
            serde_json::to_vec_pretty(&manifest).map_err(|error| damaged(&file, error))?;
        text.push(b'\n');
        let failed = || io_error(&file);
        let mut out = make_private_file(&file).map_err(failed())?;
        out.write_all(&text).map_err(failed())?;
        out.sync_all().map_err(failed())?;
        sync_dir(&part).map_err(io_error(&part))?;
        let place = dir.join(archive.to_string());
        fs::rename(&part, &place).map_err(io_error(&place))?;
        sync_dir(&dir).map_err(io_error(&dir))?;
        Ok(Sha256::digest(&text).into())
    }

    /// Removes what was written, best effort.
    pub(crate) fn give_up(self) {
        let part = self.part.clone();
        drop(self);
        if let Err(error) = fs::remove_dir_all(&part) {
            tracing::warn!(%error, "{} is of no use and could not be removed", part.display());
        }
    }
}

impl ArchivedItem {
    fn new(item: &Item, at: Timestamp) -> Self {
        let seats = match &item.spec.kind {
            ItemKind::Seats(hall) => Some(hall.names().to_vec()),
            ItemKind::Pool(_) => None,
        };
        Self { item: ItemView::new(item, at).into_owned(), seats }
    }
}

/// Takes the SHA-256 of what is written.
struct Hashing<W> {
    inner: W,
    sum: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, sum: Sha256::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Makes a directory and those it is in, and has their names outlive a loss of power.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Makes a directory that is its owner's alone: there are names of buyers in it.
fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn make_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    // Elsewhere a directory can't be opened, nor does it need to be.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
