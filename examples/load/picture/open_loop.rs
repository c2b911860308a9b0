//! An open loop: orders come by a schedule, whether or not earlier ones are answered.
//!
//! A latency is counted from the moment at which the order was due, so a pause, of the
//! engine or of the generator, counts for each order that is due meanwhile. A closed loop
//! asks nothing during a pause, and its figures leave those orders out: Gil Tene calls it
//! "coordinated omission" ("How NOT to Measure Latency"; his `wrk2` counts as we do).

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flux_core::backends::embedded::Embedded;
use flux_core::{Flux, ItemSpec, OrderRequest, OrderStatus, Settings};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};

const ITEM: &str = "item-0";
const UNITS: u64 = 10_000_000;

/// Orders are due in a bunch each so often: timers are not finer.
const TICK: Duration = Duration::from_micros(100);

/// What a generator may be late by before it is told of.
const LATE: Duration = Duration::from_millis(1);

/// Orders at a steady rate.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    pub(super) per_second: f64,
    /// The time before the first order that counts.
    pub(super) warms_up: Duration,
    /// The time in which orders count.
    pub(super) lasts: Duration,
}

/// What came of it.
pub(super) struct Waited {
    /// Nanoseconds from the moment an order was due to its answer.
    pub(super) latency: Histogram<u64>,
    /// Orders that the generator sent more than a millisecond late.
    pub(super) late: u64,
    /// The latest that it was.
    pub(super) latest: Duration,
}

/// Runs a schedule on a fresh embedded store.
pub(super) async fn run(dir: &Path, schedule: Schedule) -> Result<Waited> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    // However many come during a pause, they wait.
    let settings = Settings::builder().calls_max(UNITS as usize).build();
    let flux = Flux::builder(Embedded::open(dir)?.backend()).settings(settings).start();
    flux.put_item(ItemSpec::pool(ITEM, UNITS)?).await?;
    let (buyers, runtime) = (flux.clone(), Handle::current());
    let waited = spawn_blocking(move || generate(&buyers, schedule, &runtime)).await??;
    let audit = flux.audit().await?;
    flux.shutdown().await;
    ensure!(audit.is_clean(), "{audit:?}");
    Ok(waited)
}

/// Sends each bunch when it is due, on a thread of its own.
fn generate(flux: &Flux, schedule: Schedule, runtime: &Handle) -> Result<Waited> {
    let mut waited = Waited::nothing()?;
    let mut bunches = JoinSet::new();
    let mut sent = 0;
    let began = Instant::now();
    let counts_from = began + schedule.warms_up;
    let until = counts_from + schedule.lasts;
    let mut due = began;
    while due < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let all = ((due + TICK - began).as_secs_f64() * schedule.per_second) as u64;
        let orders = all - sent;
        sent = all;
        let late = due.elapsed();
        if due >= counts_from {
            waited.latest = waited.latest.max(late);
            waited.late += if late > LATE { orders } else { 0 };
        }
        bunches.spawn_on(bunch(flux.clone(), orders, due), runtime);
        while let Some(answered) = bunches.try_join_next() {
            waited.count(answered??, counts_from)?;
        }
        due += TICK;
    }
    for answered in runtime.block_on(bunches.join_all()) {
        waited.count(answered?, counts_from)?;
    }
    Ok(waited)
}

/// A bunch of orders that were due together, and the time of each until its answer.
struct Answered {
    due: Instant,
    after: Vec<Duration>,
}

async fn bunch(flux: Flux, orders: u64, due: Instant) -> Result<Answered> {
    let request = OrderRequest::units("buyer", ITEM, 1)?;
    let placed = (0..orders).map(|_| flux.place(request.clone()));
    let mut placed = placed.collect::<FuturesUnordered<_>>();
    let mut after = Vec::with_capacity(placed.len());
    while let Some(order) = placed.next().await {
        ensure!(order?.status() == OrderStatus::Held, "an order got no unit");
        after.push(due.elapsed());
    }
    Ok(Answered { due, after })
}

impl Waited {
    pub(super) fn nothing() -> Result<Self> {
        Ok(Self { latency: Histogram::new(3)?, late: 0, latest: Duration::ZERO })
    }

    /// Adds what came of another turn.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.latency.add(&other.latency)?;
        self.late += other.late;
        self.latest = self.latest.max(other.latest);
        Ok(())
    }

    fn count(&mut self, answered: Answered, counts_from: Instant) -> Result<()> {
        if answered.due >= counts_from {
            for after in answered.after {
                self.latency.record(after.as_nanos() as u64)?;
            }
        }
        Ok(())
    }
}
