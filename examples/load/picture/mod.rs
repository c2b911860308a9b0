//! The latency picture: how long orders wait at a part of what one hot item can take.

mod open_loop;
mod svg;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use self::open_loop::{Schedule, Waited};
use self::svg::Curve;
use crate::Options;
use crate::measuring::{Load, measure};
use crate::writes::Writes;

/// Parts of the capacity, in percent.
const PARTS: [u32; 3] = [20, 50, 80];

/// Percentiles that the picture names.
const QUANTILES: [(f64, &str); 5] =
    [(0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")];

/// Turns, unless others are asked for.
const TURNS: usize = 3;

/// Measures, prints a table and draws `file`.
pub(crate) async fn picture(dir: &Path, file: &Path, options: &Options) -> Result<()> {
    let dir = dir.join("store");
    let turns = options.turns.unwrap_or(TURNS);
    let capacity = capacity(&dir, turns, options).await?;
    println!("one hot item, {} in flight: {} orders/s", options.in_flight, grouped(capacity));
    let per_second = |part| capacity * f64::from(part) / 100.0;
    let mut all = Vec::new();
    for part in PARTS {
        all.push((part, Waited::nothing()?));
    }
    for turn in 0..turns {
        for (part, waited) in &mut all {
            eprintln!("turn {} of {turns}: {part}%", turn + 1);
            let lasts = Duration::from_secs_f64(options.seconds);
            let schedule = Schedule { per_second: per_second(*part), warms_up: lasts / 10, lasts };
            waited.add(&open_loop::run(&dir, schedule).await?)?;
        }
    }
    print!("{:22} {:>9}", "orders come by schedule", "orders/s");
    for (_, name) in QUANTILES {
        print!(" {name:>9}");
    }
    println!("  sent over 1 ms late");
    let mut curves = Vec::new();
    for (part, waited) in &all {
        let ms = |quantile| waited.latency.value_at_quantile(quantile) as f64 / 1e6;
        let rate = grouped(per_second(*part));
        print!("{:22} {rate:>9}", format!("at {part}% of that"));
        for (quantile, _) in QUANTILES {
            print!(" {:>6.2} ms", ms(quantile));
        }
        let late = 100.0 * waited.late as f64 / waited.latency.len() as f64;
        println!("  {late:.2}%, the latest {:.1} ms", waited.latest.as_secs_f64() * 1e3);
        curves.push(Curve {
            name: format!("{part}%: {rate}/s"),
            ms: svg::points().map(|(x, quantile)| (x, ms(quantile))).collect(),
        });
    }
    std::fs::write(file, svg::draw(&curves, capacity))?;
    println!("drawn: {}", file.display());
    Ok(())
}

/// Measures what a closed loop reaches, as the median of the turns.
async fn capacity(dir: &Path, turns: usize, options: &Options) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..turns {
        rates.push(measure(dir, Load::OneItem, options, &Writes::default()).await?.per_second);
    }
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().context("no turn is asked for")
}

/// Writes a number of orders in thousands: nobody can trust more digits.
fn grouped(number: f64) -> String {
    let thousands = (number / 1e3).round() as u64;
    match thousands {
        0 => format!("{number:.0}"),
        1..1_000 => format!("{thousands},000"),
        _ => format!("{},{:03},000", thousands / 1_000, thousands % 1_000),
    }
}
