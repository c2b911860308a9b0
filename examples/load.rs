//! The speed of deciding: closed-loop load on the embedded backend, in turns
//! with its limit: a bare append-and-fdatasync log that writes the same bytes
//! in the same batches. Medians over the turns; trust the ratios.
//!
//! `cargo run --release --example load` (`-- --help` for the options)

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use flux_core::backends::embedded::Embedded;
use flux_core::{Error, Flux, ItemSpec, OrderId, OrderRequest};
use hdrhistogram::Histogram;
use metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

/// Bytes of a row as the embedded backend writes it for these orders.
const ROW_BYTES: usize = 60;

/// Callers who place many orders in one call, and how many.
const CALLERS: usize = 8;
const PACK: usize = 100;

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

/// One measurement.
struct Measured {
    per_second: f64,
    latency: Histogram<u64>,
    batch: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    OneItem,
    ThousandItems,
    RandomIds,
    WithoutFeed,
    Gate,
    Lone,
    Together,
    BackedUp,
}

impl Load {
    const ALL: [Self; 8] = [
        Self::OneItem,
        Self::ThousandItems,
        Self::RandomIds,
        Self::WithoutFeed,
        Self::Gate,
        Self::Lone,
        Self::Together,
        Self::BackedUp,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OneItem => "one hot item, time-ordered ids",
            Self::ThousandItems => "1,000 items",
            Self::RandomIds => "one hot item, random client ids",
            Self::WithoutFeed => "one hot item, no change feed",
            Self::Gate => "turned away at the gate",
            Self::Lone => "a lone order",
            Self::Together => "place_all, 8 callers, 100 each",
            Self::BackedUp => "one hot item, being backed up",
        }
    }

    fn items(self) -> usize {
        if self == Self::ThousandItems { 1_000 } else { 1 }
    }
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

async fn compare(dir: &Path, options: &Options) -> Result<()> {
    let writes = Arc::new(Writes::default());
    if metrics::set_global_recorder(Metrics(Arc::clone(&writes))).is_err() {
        bail!("somebody else records the metrics");
    }
    let mut results: Vec<Vec<(Measured, f64)>> = Load::ALL.iter().map(|_| Vec::new()).collect();
    for turn in 0..options.turns {
        for (load, results) in
            Load::ALL.into_iter().filter(|l| l.name().contains(&options.only)).zip(&mut results)
        {
            eprintln!("turn {} of {}: {}", turn + 1, options.turns, load.name());
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

async fn measure(dir: &Path, load: Load, options: &Options, writes: &Writes) -> Result<Measured> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let embedded = match load {
        Load::WithoutFeed => Embedded::builder(dir).keep_changes(Duration::ZERO).open()?,
        _ => Embedded::open(dir)?,
    };
    let flux = Flux::builder(embedded.backend()).start();
    let capacity = if load == Load::Gate { 0 } else { 10_000_000 };
    for n in 0..load.items() {
        flux.put_item(ItemSpec::pool(format!("item-{n}"), capacity)?).await?;
    }
    let tasks = match load {
        Load::Lone => 1,
        Load::Together => CALLERS,
        _ => options.in_flight,
    };
    let copies = (load == Load::BackedUp).then(|| Copies::begin(embedded, dir.join("copy")));
    writes.batch();
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let buyers: Vec<_> =
        (0..tasks).map(|n| tokio::spawn(buy(flux.clone(), load, n, until))).collect();
    let mut latency = Histogram::new(3)?;
    for buyer in buyers {
        latency += buyer.await??;
    }
    let per_second = latency.len() as f64 / started.elapsed().as_secs_f64();
    let batch = writes.batch();
    if let Some(copies) = copies {
        eprintln!("{} backups", copies.end().await?);
    }
    flux.shutdown().await;
    Ok(Measured { per_second, latency, batch })
}

/// Backups of a store to one file, one after the other.
struct Copies {
    stops: Arc<AtomicBool>,
    copying: JoinHandle<Result<u64>>,
}

impl Copies {
    fn begin(embedded: Embedded, path: PathBuf) -> Self {
        let stops = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stops);
        let copying = spawn_blocking(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                embedded.backup(File::create(&path)?)?;
                count += 1;
            }
            Ok(count)
        });
        Self { stops, copying }
    }

    /// Ends them after the one that is being made.
    async fn end(self) -> Result<u64> {
        self.stops.store(true, Ordering::Relaxed);
        self.copying.await?
    }
}

/// Counts the embedded store's writes, and the orders in them.
#[derive(Debug, Default)]
struct Writes {
    writes: AtomicU64,
    orders: AtomicU64,
}

impl HistogramFn for Writes {
    fn record(&self, orders: f64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.orders.fetch_add(orders as u64, Ordering::Relaxed);
    }
}

impl Writes {
    /// Orders in a write since the last call.
    fn batch(&self) -> f64 {
        let writes = self.writes.swap(0, Ordering::Relaxed).max(1);
        self.orders.swap(0, Ordering::Relaxed) as f64 / writes as f64
    }
}

/// Hears of one metric only.
struct Metrics(Arc<Writes>);

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        match key.name() {
            "flux_commit_orders" => metrics::Histogram::from_arc(Arc::clone(&self.0)),
            _ => metrics::Histogram::noop(),
        }
    }
}

async fn buy(flux: Flux, load: Load, n: usize, until: Instant) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new(3)?;
    let buyer = format!("buyer-{n}");
    let mut turn = n;
    while Instant::now() < until {
        turn = turn.wrapping_add(1);
        let item = format!("item-{}", turn % load.items());
        if load == Load::Together {
            let request = OrderRequest::units(&buyer, &item, 1)?;
            let asked = Instant::now();
            for placed in flux.place_all(vec![request; PACK]).await {
                placed?;
            }
            latency.record_n(asked.elapsed().as_nanos() as u64, PACK as u64)?;
            continue;
        }
        let mut request = OrderRequest::units(&buyer, &item, 1)?;
        if load == Load::RandomIds {
            request = request.with_id(OrderId::from_uuid(Uuid::new_v4()));
        }
        let asked = Instant::now();
        match flux.place(request).await {
            Ok(_) => {}
            Err(Error::SoldOut(_)) if load == Load::Gate => {
                // A call with nothing to wait for does not yield by itself.
                if turn.is_multiple_of(256) {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => bail!(error),
        }
        latency.record(asked.elapsed().as_nanos() as u64)?;
    }
    Ok(latency)
}

/// Orders a second that a bare log takes in such batches.
fn bare_log(path: &Path, batch: usize, seconds: f64) -> Result<f64> {
    let mut log = File::create(path)?;
    let bytes = vec![7; batch * ROW_BYTES];
    let (started, mut orders) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds / 2.0 {
        log.write_all(&bytes)?;
        log.sync_data()?;
        orders += batch;
    }
    Ok(orders as f64 / started.elapsed().as_secs_f64())
}

/// Fills one store and shows how the rate holds and how long it takes to open.
async fn fill(dir: &Path, orders: u64, in_flight: usize) -> Result<()> {
    let dir = dir.join("filled");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let before = resident_bytes();
    let flux = Flux::builder(Embedded::open(&dir)?.backend()).start();
    flux.put_item(ItemSpec::builder().id("item-0").capacity(10_000_000).build()?).await?;
    let mut rates = Vec::new();
    for tenth in 0..10 {
        let started = Instant::now();
        let left = Arc::new(AtomicU64::new(orders / 10));
        let buyers: Vec<_> = (0..in_flight)
            .map(|n| {
                let (flux, left) = (flux.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let buyer = format!("buyer-{n}");
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                    {
                        flux.place(OrderRequest::units(&buyer, "item-0", 1)?).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for buyer in buyers {
            buyer.await??;
        }
        rates.push((orders / 10) as f64 / started.elapsed().as_secs_f64());
        println!("tenth {:2}: {:>9.0} orders/s", tenth + 1, rates[tenth]);
    }
    println!("the last tenth ran at {:.0}% of the first", 100.0 * rates[9] / rates[0]);
    let grown = resident_bytes().saturating_sub(before);
    println!("memory: {:.0} bytes an order", grown as f64 / orders as f64);
    flux.shutdown().await;
    drop(flux);
    let disk: u64 =
        std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.metadata()?.len())).sum::<Result<u64>>()?;
    println!("disk: {:.0} bytes an order", disk as f64 / orders as f64);
    let started = Instant::now();
    let reopened = Embedded::open(&dir)?;
    println!("reopened in {:.2} s", started.elapsed().as_secs_f64());
    drop(reopened);
    Ok(())
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
