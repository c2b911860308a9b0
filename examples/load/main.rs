//! The speed of deciding: closed-loop load on the embedded backend, in turns
//! with its limit: a bare append-and-fdatasync log that writes the same bytes
//! in the same batches. Medians over the turns; trust the ratios.
//!
//! `cargo run --release --example load` (`-- --help` for the options)
//!
//! With `--beside redis,postgres` in turns with what else sells one hot item; with
//! `--picture FILE.svg` the latency of an open loop.

mod bare_log;
mod beside;
mod compare;
mod copies;
mod fill;
mod measuring;
mod picture;
mod waiting;
mod writes;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use self::beside::{Other, beside};
use self::compare::compare;
use self::fill::fill;
use self::picture::picture;
use self::waiting::waiting;

// The server's: orders are made on one thread and dropped on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Options {
    /// Orders in flight.
    #[arg(long, default_value_t = 512)]
    in_flight: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns of each measurement (default: 3, beside others 5).
    #[arg(long)]
    turns: Option<usize>,
    /// Only the measurement whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Instead: fill one store with so many orders and show rate and reopening.
    #[arg(long)]
    fill: Option<u64>,
    /// Instead: show the memory that so many callers take who wait at once.
    #[arg(long)]
    waiting: Option<usize>,
    /// Instead: compare with what others sell by, each on a server of our own.
    #[arg(long, value_delimiter = ',')]
    beside: Vec<Other>,
    /// Instead: draw how long orders wait that come by a schedule.
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<PathBuf>,
    /// Directory of the files (default: a fresh one that is removed).
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // As the server, and for its reason.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true)?;
    let kept = options.data_dir.clone();
    // PostgreSQL, as a user of its own, has to find its part of it.
    let mut fresh = tempfile::Builder::new();
    let fresh = fresh.permissions(Permissions::from_mode(0o711)).tempdir()?;
    let dir = kept.as_deref().unwrap_or(fresh.path());
    if let Some(callers) = options.waiting {
        return waiting(dir, callers).await;
    }
    match (options.fill, &options.picture) {
        (Some(orders), _) => fill(dir, orders, options.in_flight).await,
        (None, Some(file)) => picture(dir, file, &options).await,
        (None, None) if options.beside.is_empty() => compare(dir, &options).await,
        (None, None) => beside(dir, &options.beside, &options).await,
    }
}
