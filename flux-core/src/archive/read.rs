//! Reads an archive, and checks that it is what was written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{ArchiveError, FORMAT, MANIFEST, Manifest, damaged, hex, io_error};
use crate::protocol::{Order, OrderStatus};
use crate::seams::Digest;
use crate::views::OrderView;

const BUFFER: usize = 256 << 10;

/// An archive whose files are as they were written.
///
/// ```
/// # use flux_core::*;
/// use flux_core::archive::Archive;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let flux = Flux::builder(Backend::memory()).start();
/// # let mut item = ItemSpec::pool("ticket", 2)?;
/// # flux.put_item(item.clone()).await?;
/// # let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
/// # let order = flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
/// # item.closes_at = Some(flux.now());
/// # flux.put_item(item.clone()).await?;
/// let made = flux.archive(&[item.id], dir.path()).await?;
///
/// let archive = Archive::open(dir.path().join(made.archive.to_string()))?;
/// assert_eq!(archive.manifest().order_count(), 1);
/// for archived in archive.orders()? {
///     assert_eq!(archived?, order);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    manifest: Manifest,
    digest: Digest,
}

impl Archive {
    /// Opens an archive, and reads it once to compare every checksum. Blocks for as long as
    /// that takes: a second or so for 300 MB.
    ///
    /// # Errors
    /// [`ArchiveError`], unless it is whole and as it was written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let path = path.into();
        let file = path.join(MANIFEST);
        let text = fs::read(&file).map_err(io_error(&file))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(&file, error))?;
        if manifest.format != FORMAT {
            let found = manifest.format;
            let what = format!("it is of form {found}, this program reads {FORMAT}");
            return Err(damaged(&file, what));
        }
        for expected in &manifest.files {
            let file = path.join(&expected.name);
            let (bytes, sum) = sum(&file).map_err(io_error(&file))?;
            if (bytes, &sum) != (expected.bytes, &expected.sha256) {
                return Err(damaged(&file, "its checksum is wrong"));
            }
        }
        Ok(Self { path, manifest, digest: Sha256::digest(&text).into() })
    }

    /// What is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The SHA-256 of the manifest, and so of all of it.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads the orders, one by one. After the last there is an error if they are not those
    /// that the manifest counts.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn orders(&self) -> Result<Orders, ArchiveError> {
        let path = self.path.join(super::ORDERS);
        let file = File::open(&path).map_err(io_error(&path))?;
        let lines = BufReader::with_capacity(BUFFER, GzDecoder::new(file));
        let expected = Some(self.manifest.orders.clone());
        Ok(Orders { path, lines, line: String::new(), counts: BTreeMap::new(), expected })
    }
}

/// The orders of an [`Archive`], by [`Archive::orders`].
#[derive(Debug)]
pub struct Orders {
    path: PathBuf,
    lines: BufReader<GzDecoder<File>>,
    line: String,
    counts: BTreeMap<OrderStatus, u64>,
    /// `None` once all were read.
    expected: Option<BTreeMap<OrderStatus, u64>>,
}

impl Orders {
    /// Reads up to so many.
    pub(crate) fn part(&mut self, most: usize) -> Result<Vec<Order>, ArchiveError> {
        self.take(most).collect()
    }

    fn order(&self) -> Result<Order, ArchiveError> {
        let view: OrderView<'_> =
            serde_json::from_str(&self.line).map_err(|error| damaged(&self.path, error))?;
        Order::try_from(view).map_err(|error| damaged(&self.path, error))
    }
}

impl Iterator for Orders {
    type Item = Result<Order, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.expected.as_ref()?;
        self.line.clear();
        match self.lines.read_line(&mut self.line) {
            Ok(0) => {
                let expected = self.expected.take()?;
                let is_whole = expected == self.counts;
                (!is_whole).then(|| Err(damaged(&self.path, "it has not the orders it should")))
            }
            Ok(_) => {
                let order = self.order();
                match &order {
                    Ok(order) => *self.counts.entry(order.status()).or_default() += 1,
                    Err(_) => self.expected = None,
                }
                Some(order)
            }
            Err(error) => {
                self.expected = None;
                Some(Err(io_error(&self.path)(error)))
            }
        }
    }
}

/// The size of a file, and its SHA-256.
fn sum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut sum, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex(&sum.finalize()))),
            read => {
                sum.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
