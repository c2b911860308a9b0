//! The options of the command line.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Parser;
use stage::{Sale, Stock};

/// A flash sale: a crowd storms a few units, and the books are checked after.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Buyers who come; each wants one unit
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    buyers: u32,
    /// Units of each item
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    units: u32,
    /// Items on sale; every item gets its share of the buyers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    items: u32,
    /// Sell this many named seats of each item instead of units
    #[arg(long, conflicts_with = "units", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    seats: Option<u32>,
    /// Buyers of a hundred who send their order twice, under the same id
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = percent())]
    duplicates: u32,
    /// Buyers of a hundred who pay for what they hold
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = percent())]
    pay: u32,
    /// Buyers served at once
    #[arg(long, default_value_t = 512)]
    in_flight: usize,
    /// Keep the books here; without it they are thrown away after the sale
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep the books in memory only
    #[arg(long, conflicts_with_all = ["data_dir", "crash"])]
    pub(crate) memory: bool,
    /// Kill the selling process in the middle of the sale (SIGKILL), and go on
    #[arg(long)]
    pub(crate) crash: bool,
    /// Decides whatever is left to chance; without it chance does
    #[arg(long)]
    seed: Option<u64>,
}

fn percent() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=100)
}

impl Options {
    /// The sale they describe, opening now.
    pub(crate) fn sale(&self) -> Sale {
        let opened_at = SystemTime::now().into();
        Sale {
            opened_at,
            seed: self.seed.unwrap_or_else(rand::random),
            buyers: self.buyers,
            items: self.items,
            stock: self.seats.map_or(Stock::Units(self.units), Stock::Seats),
            in_flight: self.in_flight,
            repeat_percent: self.duplicates,
            pay_percent: self.pay,
        }
    }
}
