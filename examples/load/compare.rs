//! All loads in turns with the bare log, as a table.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::Options;
use crate::bare_log::bare_log;
use crate::measuring::{Load, Measured, measure};
use crate::writes::{Metrics, Writes};

/// Turns, unless others are asked for.
const TURNS: usize = 3;

pub(crate) async fn compare(dir: &Path, options: &Options) -> Result<()> {
    let writes = Arc::new(Writes::default());
    if metrics::set_global_recorder(Metrics(Arc::clone(&writes))).is_err() {
        bail!("somebody else records the metrics");
    }
    let mut results: Vec<Vec<(Measured, f64)>> = Load::ALL.iter().map(|_| Vec::new()).collect();
    let turns = options.turns.unwrap_or(TURNS);
    for turn in 0..turns {
        for (load, results) in
            Load::ALL.into_iter().filter(|l| l.name().contains(&options.only)).zip(&mut results)
        {
            eprintln!("turn {} of {turns}: {}", turn + 1, load.name());
            let measured = measure(&dir.join("store"), load, options, &writes).await?;
            let batch = (measured.batch.round() as usize).max(1);
            let log = bare_log(&dir.join("bare.log"), batch, options.seconds)?;
            results.push((measured, log));
        }
    }
    println!(
        "{:32} {:>12} {:>8} {:>12} {:>9} {:>9} {:>9}",
        "", "orders/s", "batch", "bare log/s", "of log", "p50 µs", "p99 µs"
    );
    let mut medians = Vec::new();
    for (load, results) in
        Load::ALL.into_iter().filter(|l| l.name().contains(&options.only)).zip(&mut results)
    {
        results.sort_by(|a, b| a.0.per_second.total_cmp(&b.0.per_second));
        let (measured, log) = &results[results.len() / 2];
        let of_log = if load == Load::Gate {
            "-".to_owned()
        } else {
            format!("{:.0}%", 100.0 * measured.per_second / log)
        };
        println!(
            "{:32} {:>12.0} {:>8.1} {:>12.0} {:>9} {:>9.1} {:>9.1}",
            load.name(),
            measured.per_second,
            measured.batch,
            log,
            of_log,
            measured.latency.value_at_quantile(0.5) as f64 / 1e3,
            measured.latency.value_at_quantile(0.99) as f64 / 1e3,
        );
        medians.push((measured.per_second, measured.latency.value_at_quantile(0.5), *log));
    }
    if medians.len() < Load::ALL.len() {
        return Ok(());
    }
    let (one, lone) = (medians[0].0, medians[5]);
    println!("\n1,000 items run at {:.0}% of the one-item rate", 100.0 * medians[1].0 / one);
    println!("random ids run at {:.0}% of the time-ordered rate", 100.0 * medians[2].0 / one);
    println!("the change feed leaves {:.0}% of the rate", 100.0 * one / medians[3].0);
    println!("place_all runs at {:.1} times the one-by-one rate", medians[6].0 / one);
    println!("backups, one after the other, leave {:.0}% of the rate", 100.0 * medians[7].0 / one);
    println!(
        "a lone order takes {:.1} times one append and fdatasync (median)",
        lone.1 as f64 / 1e9 * lone.2
    );
    Ok(())
}
