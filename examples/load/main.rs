//! The speed of deciding: closed-loop load on the embedded backend, in turns
//! with its limit: a bare append-and-fdatasync log that writes the same bytes
//! in the same batches. Medians over the turns; trust the ratios.
//!
//! `cargo run --release --example load` (`-- --help` for the options)

mod bare_log;
mod compare;
mod copies;
mod fill;
mod measuring;
mod writes;

use anyhow::Result;
use clap::Parser;

use self::compare::compare;
use self::fill::fill;

#[derive(Parser)]
struct Options {
    /// Orders in flight.
    #[arg(long, default_value_t = 512)]
    in_flight: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns of each measurement.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Only the measurement whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Instead: fill one store with so many orders and show rate and reopening.
    #[arg(long)]
    fill: Option<u64>,
    /// Directory of the files (default: a fresh one that is removed).
    #[arg(long)]
    data_dir: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let kept = options.data_dir.clone();
    let fresh = tempfile::tempdir()?;
    let dir = kept.as_deref().unwrap_or(fresh.path());
    match options.fill {
        Some(orders) => fill(dir, orders, options.in_flight).await,
        None => compare(dir, &options).await,
    }
}
