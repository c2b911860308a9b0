//! Adds workers to a modelled region, in virtual time, and prints how many orders a
//! second they decide: the same on any machine.

use clap::Parser;
use stage::region::Rush;

/// How many more orders do more workers decide?
#[derive(Debug, Parser)]
struct Options {
    /// Workers; a line of the table for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    workers: Vec<usize>,
    /// Items on sale; a part of the table for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 300, 5_000])]
    items: Vec<usize>,
    /// Orders, which come all at once
    #[arg(long, default_value_t = 300_000)]
    orders: usize,
    /// Share of the orders that are over two items, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pairs: f64,
    /// Exponent of the demand for the items (Zipf); 0: the same for all
    #[arg(long, default_value_t = 0.0)]
    skew: f64,
    /// Transactions that one worker has on their way at once
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Partitions of the queue
    #[arg(long, default_value_t = 16)]
    partitions: usize,
}

fn main() -> anyhow::Result<()> {
    let Options { workers, items, orders, pairs, skew, at_once, partitions } = Options::parse();
    println!("  items  workers   orders/s  claims/1,000  orders/write  refused  seconds");
    for &items in &items {
        for &workers in &workers {
            let rush = Rush { workers, items, orders, pairs, skew, at_once, partitions };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()?;
            let figures = runtime.block_on(rush.run())?;
            let counts = figures.counts;
            println!(
                "{items:7} {workers:8} {:10.0} {:13.1} {:13.1} {:8} {:8.2}",
                figures.rate(),
                counts.claims as f64 * 1e3 / counts.orders as f64,
                counts.orders as f64 / counts.commits as f64,
                counts.refused,
                figures.took.as_secs_f64(),
            );
        }
    }
    Ok(())
}
