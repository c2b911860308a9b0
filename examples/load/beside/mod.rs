//! What else sells a hot item, in turns with Flux: the same orders, as many in flight, and
//! answers that are as durable.
//!
//! Redis and PostgreSQL are called in each of several ways first, for half a measurement,
//! and compared in the one that was fastest for them.

mod flux;
mod postgres;
mod redis;
mod rush;
mod service;

use std::path::Path;

use anyhow::{Context, Result};
use async_trait::async_trait;
use clap::ValueEnum;

use self::flux::Embedded;
use self::postgres::Cluster;
use self::redis::Fsync;
use self::rush::{Rush, Told};
use crate::Options;

/// Orders of one call, where it may have many.
const PACK: usize = 100;

/// Turns, unless others are asked for.
const TURNS: usize = 5;

/// Somebody else.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Other {
    Redis,
    Postgres,
}

/// One way to sell: a service and how it is called.
#[async_trait(?Send)]
trait Way {
    /// Says how it is called.
    fn note(&self) -> String;

    /// Runs a rush on a fresh stock, and compares the answers with the books.
    async fn measure(&self, rush: Rush) -> Result<Told>;
}

/// One line of the table.
struct Line {
    name: &'static str,
    of: Option<Other>,
    is_durable: bool,
    rush: Rush,
    /// The ways it may be called, of which the fastest is kept.
    ways: Vec<Box<dyn Way>>,
    told: Vec<Told>,
}

impl Line {
    fn is_in_packs(&self) -> bool {
        self.rush.pack > 1
    }

    /// Keeps the way that is fastest.
    async fn choose(&mut self) -> Result<()> {
        if self.ways.len() == 1 {
            return Ok(());
        }
        let rush = Rush { seconds: self.rush.seconds / 2.0, ..self.rush };
        let mut rates = Vec::new();
        for way in &self.ways {
            let told = way.measure(rush).await.with_context(|| self.context(&**way))?;
            eprintln!("{}, {}: {:.0} orders/s", self.name, way.note(), told.per_second);
            rates.push(told.per_second);
        }
        let best = (0..rates.len()).max_by(|a, b| rates[*a].total_cmp(&rates[*b]));
        self.ways.swap(0, best.unwrap_or_default());
        self.ways.truncate(1);
        Ok(())
    }

    async fn measure(&mut self) -> Result<()> {
        let way = &self.ways[0];
        self.told.push(way.measure(self.rush).await.with_context(|| self.context(&**way))?);
        Ok(())
    }

    fn context(&self, way: &dyn Way) -> String {
        format!("{}, {}", self.name, way.note())
    }

    /// The turn with the median rate, once the turns are sorted.
    fn median(&self) -> &Told {
        &self.told[self.told.len() / 2]
    }
}

/// Compares Flux with `others`.
pub(crate) async fn beside(dir: &Path, others: &[Other], options: &Options) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    // The servers work in directories of their own.
    let dir = dir.canonicalize()?;
    let mut lines = lines(&dir, others, options).await?;
    lines.retain(|line| line.name.contains(&options.only));
    for line in &mut lines {
        line.choose().await?;
    }
    let turns = options.turns.unwrap_or(TURNS);
    for turn in 0..turns {
        for line in &mut lines {
            eprintln!("turn {} of {turns}: {}", turn + 1, line.name);
            line.measure().await?;
        }
    }
    for line in &mut lines {
        line.told.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    }
    print(&lines);
    Ok(())
}

async fn lines(dir: &Path, others: &[Other], options: &Options) -> Result<Vec<Line>> {
    let seconds = options.seconds;
    let one = Rush { callers: options.in_flight, pack: 1, seconds };
    let callers = (options.in_flight / PACK).max(1);
    let packs = Rush { callers, pack: PACK, seconds };
    let line = |name, of, rush, ways| Line { name, of, is_durable: true, rush, ways, told: vec![] };
    let flux = || vec![Box::new(Embedded { dir: dir.join("store") }) as Box<dyn Way>];
    let mut lines = vec![
        line("Flux, one hot item", None, one, flux()),
        line("Flux, place_all, packs of 100", None, packs, flux()),
    ];
    if others.contains(&Other::Redis) {
        let of = Some(Other::Redis);
        let (always, later) = (Fsync::Always, Fsync::EverySecond);
        let calls = |sync| redis::one_by_one(dir, sync);
        let in_packs = |sync| redis::in_packs(dir, sync, callers);
        lines.extend([
            line("Redis, script", of, one, calls(always)?),
            line("Redis, script, packs of 100", of, packs, in_packs(always)?),
            Line { is_durable: false, ..line("Redis everysec, script", of, one, calls(later)?) },
            Line {
                is_durable: false,
                ..line("Redis everysec, packs of 100", of, packs, in_packs(later)?)
            },
        ]);
    }
    if others.contains(&Other::Postgres) {
        let of = Some(Other::Postgres);
        let cluster = Cluster::start(dir).await?;
        lines.extend([
            line("PostgreSQL, counter", of, one, cluster.by_count()),
            line("PostgreSQL, SKIP LOCKED tickets", of, one, cluster.by_ticket()),
            line("PostgreSQL, counter, packs of 100", of, packs, cluster.in_packs(callers)),
        ]);
    }
    Ok(lines)
}

fn print(lines: &[Line]) {
    let flux = lines.iter().find(|line| line.of.is_none() && !line.is_in_packs());
    let flux = flux.map(|line| line.median().per_second);
    println!(
        "{:34} {:>9} {:>8} {:>8} {:>8}  {:11}  called by",
        "", "orders/s", "p50 ms", "p99 ms", "of Flux", "durable"
    );
    for line in lines {
        let told = line.median();
        let ms = |quantile| told.latency.value_at_quantile(quantile) as f64 / 1e6;
        println!(
            "{:34} {:>9.0} {:>8.2} {:>8.2} {:>8}  {:11}  {}",
            line.name,
            told.per_second,
            ms(0.5),
            ms(0.99),
            flux.map_or("-".to_owned(), |flux| format!("{:.0}%", 100.0 * told.per_second / flux)),
            if line.is_durable { "yes" } else { "not durable" },
            line.ways[0].note(),
        );
    }
    let told = lines.iter().flat_map(|line| &line.told);
    let (runs, held) = told.fold((0, 0), |(runs, held), told| (runs + 1, held + told.held));
    println!(
        "\nin each of {runs} runs as many orders were answered as recorded and as units gone: {held}"
    );
    if let Some(flux) = flux {
        ratio(lines, "one hot item", flux);
    }
    let packs = lines.iter().find(|line| line.of.is_none() && line.is_in_packs());
    if let Some(packs) = packs {
        ratio(lines, "place_all", packs.median().per_second);
    }
}

/// Says how many times as fast as the others' best durable ways this one is.
fn ratio(lines: &[Line], name: &str, rate: f64) {
    for (other, of) in [("Redis", Other::Redis), ("PostgreSQL", Other::Postgres)] {
        let best = |in_packs| {
            let lines = lines.iter().filter(|line| line.of == Some(of) && line.is_durable);
            let lines = lines.filter(|line| line.is_in_packs() == in_packs);
            lines.map(|line| rate / line.median().per_second).min_by(f64::total_cmp)
        };
        if let (Some(one), Some(packs)) = (best(false), best(true)) {
            println!("{name} runs at {one:.1} times {other}, {packs:.1} times its packs of 100");
        }
    }
}
