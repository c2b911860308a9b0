//! A flash sale over processes, as it would run on AWS: an api that takes
//! orders, three workers that decide them, SQS, DynamoDB and Redis between
//! them, and 20,000 buyers over HTTP. One worker is killed in the middle.
//!
//! ```sh
//! tests/services cargo run --release --features aws --example aws_flash_sale
//! ```
//!
//! SQS and DynamoDB are stand-ins on this machine, not AWS: what they sell,
//! and what they bill, is what AWS would; how fast they are, is not.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use stage::fleet::{Bills, Crowd, Process, Services, Told, flux_server};
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;
use uuid::Uuid;

const ITEM: &str = "ticket_1";
/// Time that the fleet stands before the sale opens.
const STANDS_FOR: Duration = Duration::from_secs(4);
/// Far more than any sale takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A flash sale over an api and workers, one of which is killed.
#[derive(Debug, Parser)]
struct Options {
    /// Buyers who come; each wants one unit
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    buyers: u32,
    /// Units on sale
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    units: u32,
    /// Workers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// Buyers served at once
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    in_flight: u16,
    /// Buyers of a hundred who send their order twice, under the same id
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    duplicates: u32,
}

struct Fleet {
    program: PathBuf,
    services: Services,
    home: TempDir,
    bills: Bills,
}

impl Fleet {
    fn start(&mut self, name: &str, args: &[&str]) -> Result<Process> {
        let (program, home) = (&self.program, self.home.path());
        let started = block_in_place(|| Process::start(program, name, args, &self.services, home))?;
        println!("  {name}, process {}, on http://{}", started.pid(), started.address());
        Ok(started)
    }

    /// Runs a command; its output, and whether all is well.
    fn run(&self, command: &str) -> Result<(String, bool)> {
        let output = block_in_place(|| {
            Process::run(&self.program, &[command], &self.services, self.home.path())
        })?;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok((said, output.status.success()))
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let sale = Uuid::now_v7();
    let services = Services::from_env(&format!("flux-sale-{sale}"))?;
    let program = block_in_place(flux_server)?;
    let home = tempfile::tempdir().context("no temporary directory can be made")?;
    let mut fleet = Fleet { program, services, home, bills: Bills::default() };

    println!("{} buyers want {} units", human(options.buyers), human(options.units));
    println!("Redis is real; SQS and DynamoDB are stand-ins on this machine, not AWS");
    let stock = format!("{ITEM}={}", options.units);
    let api = fleet.start("api", &["api", "--create", "--item", &stock])?;
    let mut workers = Vec::new();
    for number in 1..=options.workers {
        workers.push(fleet.start(&format!("worker {number}"), &["worker"])?);
    }

    // As before any sale. In its first seconds an api takes Redis' word for nothing.
    sleep(STANDS_FOR).await;

    let told = Arc::new(Told::default());
    let crowd = Crowd {
        api: api.address(),
        item: ITEM.to_owned(),
        sale,
        buyers: options.buyers,
        in_flight: options.in_flight.into(),
        repeat_percent: options.duplicates,
        patience: PATIENCE,
    };
    let half = options.units.min(options.buyers) / 2;
    let (restarted, (), ()) = tokio::join!(
        kill_one(&mut fleet, &mut workers[0], &told, half),
        crowd.storm(&told),
        progress(&told, options.buyers),
    );
    let restarted = restarted?;
    // Messages acknowledged after the last answer belong to the bill too.
    sleep(Duration::from_millis(500)).await;
    for process in workers[1..].iter().chain([&api, &restarted]) {
        fleet.bills.ask(process).await?;
    }
    let bill = fleet.bills.sum();

    outcome(&told, &options);
    let mut faults = told.faults();
    let held = told.count(Some("held"));
    let expected = options.units.min(options.buyers);
    if held != expected {
        faults.push(format!("{expected} buyers must hold a unit, {held} do"));
    }
    faults.extend(crowd.changed(&told).await?);
    println!("\n{}", bill.for_orders(u64::from(options.buyers)));
    println!("  (as the stand-ins count; of the killed worker, what it told just before)");

    let (audit, is_clean) = fleet.run("audit")?;
    println!("\n{audit}");
    let (letters, listed) = fleet.run("dead-letters")?;
    println!("{letters}");
    for fault in &faults {
        println!("  {fault}");
    }
    println!("what the buyers were told: {} faults", faults.len());
    drop((api, workers, restarted));
    let no_letters = listed && letters.ends_with("0 dead letters") && !letters.contains('\n');
    let all_is_well = is_clean && no_letters && faults.is_empty();
    Ok(if all_is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kills a worker once so many buyers hold a unit, and starts another.
async fn kill_one(
    fleet: &mut Fleet,
    worker: &mut Process,
    told: &Told,
    held: u32,
) -> Result<Process> {
    let polls = PATIENCE.as_millis() / 2;
    for _ in 0..polls {
        if told.held() >= held {
            fleet.bills.ask(worker).await?;
            block_in_place(|| worker.kill())?;
            let (name, held) = (worker.name(), human(told.held()));
            println!("killed {name} (SIGKILL) when {held} units were held;");
            println!("  SQS hands out what it had received once 10 s have passed");
            return fleet.start(&format!("{} again", worker.name()), &["worker"]);
        }
        sleep(Duration::from_millis(2)).await;
    }
    bail!("after {PATIENCE:?} only {} units were held", told.held())
}

/// Shows the crowd's progress: a bar on a terminal, a line now and then
/// elsewhere, until all are answered.
async fn progress(told: &Told, buyers: u32) {
    let bar = stdout().is_terminal().then(|| {
        let style = "{bar:40} {human_pos} of {human_len} buyers answered";
        let style = ProgressStyle::with_template(style).expect("the template is well formed");
        let target = ProgressDrawTarget::stdout();
        ProgressBar::with_draw_target(Some(u64::from(buyers)), target).with_style(style)
    });
    let step = buyers.div_ceil(5).max(1);
    let mut shown = 0;
    loop {
        let answered = told.answered();
        match &bar {
            Some(bar) => bar.set_position(u64::from(answered)),
            None if answered / step > shown => {
                shown = answered / step;
                let (answered, held) = (human(answered), human(told.held()));
                println!("  {answered} buyers answered, {held} hold a unit");
            }
            None => {}
        }
        if answered >= buyers {
            bar.inspect(ProgressBar::finish);
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn outcome(told: &Told, options: &Options) {
    let row = |count: u64, what: &str| println!("{:>11} {what}", HumanCount(count).to_string());
    println!();
    let held = told.count(Some("held"));
    row(held.into(), &format!("hold a unit, of {} on sale", human(options.units)));
    row(told.count(Some("rejected")).into(), "were turned down by a worker: sold out");
    row(told.count(None).into(), "were turned away at the gate");
    let (repeats, requests) = told.repeats_and_tries();
    row(repeats, "orders were sent twice");
    row(requests, "requests in all");
    let [decided, gate, answered] = told.latencies();
    let most = answered.value_at_quantile(0.99);
    let rate = 0.99 * answered.len() as f64 / (most.max(1) as f64 / 1e6);
    println!(
        "\n  99 of 100 buyers were answered within {}, {} a second; all within {}",
        time(most),
        HumanCount(rate as u64),
        time(answered.max()),
    );
    println!("\n  latency       p50      p90      p99      max");
    for (what, histogram) in [("decision", decided), ("the gate", gate)] {
        latency(what, &histogram);
    }
}

fn latency(what: &str, histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    print!("  {what}");
    for quantile in [0.5, 0.9, 0.99, 1.0] {
        print!("{:>9}", time(histogram.value_at_quantile(quantile)));
    }
    println!();
}

fn human(count: u32) -> HumanCount {
    HumanCount(count.into())
}

/// Three digits and a unit.
fn time(micros: u64) -> String {
    let (value, unit) = match micros as f64 {
        micros if micros < 1e3 => (micros, "µs"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}
