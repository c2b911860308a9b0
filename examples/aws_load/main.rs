//! The speed and the cost on SQS, DynamoDB and Redis. Workers
//! beside the usual call-by-call way over the same clients, in turns, on the
//! services as they are and with some milliseconds added to every call; then
//! the bill of an order. Medians over the turns; trust the ratios.
//!
//! `tests/services cargo run --release --features aws --example aws_load` (`-- --help`)

mod baseline;
mod ceiling;
mod costs;
mod services;
mod slow;
mod workers;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use self::costs::{Costs, Idle};
use self::services::{Kind, Services};
use self::workers::Load;

/// Time for which an idle worker's calls are counted, once it has been idle for so
/// long that it knows there is nothing to do.
const IDLE_AFTER: Duration = Duration::from_secs(65);
const IDLE_FOR: Duration = Duration::from_secs(45);

#[derive(Parser)]
struct Options {
    /// Turns of each measurement of speed
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Milliseconds added to every call, as in a real region
    #[arg(long, default_value_t = 5)]
    delay_ms: u64,
    /// Orders that wait when the workers start
    #[arg(long, default_value_t = 10_000)]
    orders: u32,
    /// Only the measurements whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// A short run, for its bill; its speeds say little
    #[arg(long)]
    quick: bool,
    /// Show when orders were decided, and what each worker called
    #[arg(long)]
    bills: bool,
    /// Be a worker on this queue and table, until the standard input ends
    #[arg(long, num_args = 2, hide = true, value_names = ["QUEUE", "TABLE"])]
    work: Option<Vec<String>>,
}

/// Something whose speed is measured.
#[derive(Debug, Clone, Copy)]
enum Measured {
    Baseline { orders: u32 },
    Ceiling { items: u32, orders: u32 },
    Workers(Load),
}

/// One line of the table of speeds.
struct Line {
    name: &'static str,
    measured: Measured,
    /// The line that it is compared with, and how many times as fast it has to be, near and far.
    at_least: Option<(&'static str, [f64; 2])>,
    /// Whether it is measured only in a whole run.
    long: bool,
}

const BASELINE: &str = "call by call, one worker";
const ONE_HOT: &str = "one worker, one item";
const CEILING: &str = "the table alone, 300 items";
const ONE_MANY: &str = "one worker, 300 items";

fn lines(quick: bool, orders: u32) -> Vec<Line> {
    let orders = if quick { 600 } else { orders };
    let load = |kind, workers, items| Measured::Workers(Load { kind, workers, items, orders });
    let line = |name, measured| Line { name, measured, at_least: None, long: false };
    let (standard, fifo) = (Kind::Standard, Kind::Fifo);
    let baseline = Measured::Baseline { orders: if quick { 10 } else { 100 } };
    vec![
        line(BASELINE, baseline),
        Line { at_least: Some((BASELINE, [8.0, 50.0])), ..line(ONE_HOT, load(standard, 1, 1)) },
        Line {
            at_least: Some((ONE_HOT, [1.0, 1.0])),
            ..line("three workers, one item", load(standard, 3, 1))
        },
        line(CEILING, Measured::Ceiling { items: 300, orders }),
        line(ONE_MANY, load(standard, 1, 300)),
        Line {
            at_least: Some((ONE_MANY, [1.0, 1.0])),
            ..line("three workers, 300 items", load(standard, 3, 300))
        },
        Line { long: true, ..line("FIFO, one worker, one item", load(fifo, 1, 1)) },
        Line {
            at_least: Some(("FIFO, one worker, one item", [1.0, 1.0])),
            long: true,
            ..line("FIFO, three workers, one item", load(fifo, 3, 1))
        },
    ]
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some([queue, table]) = options.work.as_deref() {
        return workers::work(queue, table).await;
    }
    let near = Services::from_env()?;
    let far = near.far(Duration::from_millis(options.delay_ms)).await?;
    let mut idle = Idle::start(&near).await?;
    speeds(&near, &far, &options).await?;
    let costs = match "the bill".contains(&options.only) {
        true => Some(costs::measure(&near, if options.quick { 2_000 } else { 8_000 }).await?),
        false => None,
    };
    if !options.quick && "an idle worker".contains(&options.only) {
        tokio::time::sleep(IDLE_AFTER.saturating_sub(idle.watched())).await;
        idle.count_anew();
        tokio::time::sleep(IDLE_FOR).await;
    }
    let (bill, took) = idle.finish(&near).await?;
    println!("\nan idle worker, calls a minute");
    for ((service, operation), calls) in &bill.calls {
        let a_minute = *calls as f64 * 60.0 / took.as_secs_f64();
        let limit = match operation.as_str() {
            "ReceiveMessage" => "48 to 64, long polls of 20 s on 16 partitions",
            "PING" => "12, to know that the outcomes are heard",
            "Query" => "8, a sweep; more in its first minute",
            _ => "",
        };
        println!("  {:38} {a_minute:>12.1}   {limit}", format!("{service} {operation}"));
    }
    costs.map_or(Ok(()), |costs| tell_costs(&costs))
}

async fn speeds(near: &Services, far: &Services, options: &Options) -> Result<()> {
    let lines: Vec<Line> = lines(options.quick, options.orders)
        .into_iter()
        .filter(|line| !(options.quick && line.long) && line.name.contains(&options.only))
        .collect();
    let turns = if options.quick { 1 } else { options.turns.max(1) };
    let mut found: Vec<[Vec<f64>; 2]> = lines.iter().map(|_| Default::default()).collect();
    for turn in 1..=turns {
        for (at, services) in [near, far].into_iter().enumerate() {
            for (line, found) in lines.iter().zip(&mut found) {
                let where_ = ["near", "far"][at];
                eprint!("turn {turn} of {turns}, {where_}: {} … ", line.name);
                let per_second = match line.measured {
                    Measured::Baseline { orders } => {
                        baseline::decisions(near, services, orders).await?
                    }
                    Measured::Ceiling { items, orders } => {
                        ceiling::decisions(near, services, items, orders).await?
                    }
                    Measured::Workers(load) => {
                        workers::decisions(near, services, load, options.bills).await?
                    }
                };
                eprintln!("{per_second:.0}");
                found[at].push(per_second);
            }
        }
    }
    let medians: Vec<[f64; 2]> = found.into_iter().map(|found| found.map(median)).collect();
    let of = |name| lines.iter().zip(&medians).find(|(line, _)| line.name == name);
    let added = format!("+{} ms a call", options.delay_ms);
    println!("{:40} {:>12} {added:>14}", "decisions a second", "as it is");
    for (line, [near, far]) in lines.iter().zip(&medians) {
        println!("{:40} {near:>12.0} {far:>14.0}", line.name);
        let Some((other, at_least)) = line.at_least else { continue };
        let Some((_, theirs)) = of(other) else { continue };
        let times = [near / theirs[0], far / theirs[1]];
        let name = format!("  times {other}");
        print!("{name:40} {:>12.2} {:>14.2}", times[0], times[1]);
        println!("   at least {} and {}{}", at_least[0], at_least[1], {
            let missed = times.iter().zip(at_least).any(|(times, least)| *times < least);
            if missed { ": MISSED" } else { "" }
        });
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints the bill.
///
/// # Errors
/// When an order is dearer than it may be, with each that is.
fn tell_costs(costs: &Costs) -> Result<()> {
    let Costs { held, rejected, turned_away, whole } = costs;
    println!("\n{:40} {:>12} {:>14}", "each order takes", "", "at most");
    let mut dear = Vec::new();
    for (name, takes, at_most) in [
        ("write units, held", held.write_units, Some(3.2)),
        ("write units, queued and rejected", rejected.write_units, Some(2.1)),
        ("write units, turned away at the gate", turned_away.write_units, Some(0.0)),
        ("SQS requests, held", held.sqs_requests, Some(0.05)),
        ("SQS requests, queued and rejected", rejected.sqs_requests, Some(0.05)),
        ("SQS requests, turned away at the gate", turned_away.sqs_requests, Some(0.0)),
        ("Redis commands, held", held.redis_commands, Some(0.05)),
        ("Redis commands, queued and rejected", rejected.redis_commands, Some(0.05)),
        ("read units, held and waited for", held.read_units, None),
        ("read units, queued and rejected", rejected.read_units, None),
    ] {
        let limit = at_most.map_or("-".to_owned(), |at_most| at_most.to_string());
        println!("{name:40} {takes:>12.4} {limit:>14}");
        if at_most.is_some_and(|at_most| takes > at_most) {
            dear.push(name);
        }
    }
    println!("\nheld orders, waited for: {whole}");
    if !dear.is_empty() {
        bail!("dearer than it may be: {}", dear.join(", "));
    }
    Ok(())
}
