//! The time until holds that all end at one moment are back on sale, and what a
//! sale beside them notices of it.
//!
//! `cargo run --release --example expiry` (`-- --help` for the options)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use flux_core::backends::embedded::Embedded;
use flux_core::clock::{Clock, TokioClock};
use flux_core::protocol::{Commit, CommitOutcome, Expect, OrderWrite};
use flux_core::{
    Backend, BuyerId, Error, Flux, Hold, ItemId, ItemSpec, Line, Lines, Order, OrderId,
    OrderRequest, OrderState, Timestamp,
};
use hdrhistogram::Histogram;

/// Holds that one commit makes.
const COMMIT: usize = 10_000;
/// Time with the sale alone, before the holds end.
const ALONE: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Options {
    /// Holds that end at one moment.
    #[arg(long, default_value_t = 600_000)]
    holds: usize,
    /// Buyers of the sale beside them.
    #[arg(long, default_value_t = 16)]
    beside: usize,
    /// Where they are kept.
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    backend: Kind,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Memory,
    Embedded,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let backend = match options.backend {
        Kind::Memory => Backend::memory(),
        Kind::Embedded => Embedded::open(dir.path())?.backend(),
    };
    let (held, beside) = (ItemId::new("held")?, ItemId::new("beside")?);
    backend.store.put_item(&ItemSpec::pool("held", options.holds as u64)?).await?;
    backend.store.put_item(&ItemSpec::pool("beside", 10_000_000)?).await?;
    let start = Timestamp::now();
    hold(&backend, &held, options.holds, start, start + ALONE).await?;

    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(start));
    let flux = Flux::builder(backend).clock(clock).start();
    let (begun, ended) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let buyers: Vec<_> = (0..options.beside)
        .map(|_| tokio::spawn(buy(flux.clone(), beside.clone(), begun, Arc::clone(&ended))))
        .collect();
    let available = async || -> Result<usize> {
        let item = flux.item(&held).await?;
        Ok(item.map_or(0, |item| item.available as usize))
    };
    ensure!(available().await? == 0, "all are held");
    tokio::time::sleep(ALONE.saturating_sub(begun.elapsed())).await;
    while available().await? < options.holds {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed().saturating_sub(ALONE);
    ended.store(true, Ordering::Relaxed);
    let [mut alone, mut during] = [histogram(), histogram()];
    for buyer in buyers {
        let [one, other] = buyer.await??;
        alone.add(one)?;
        during.add(other)?;
    }
    println!("{} holds are back on sale {took:.2?} after their end", options.holds);
    for (name, times) in [("alone", alone), ("meanwhile", during)] {
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        println!(
            "the sale beside them, {name}: {} orders, p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    flux.shutdown().await;
    let audit = flux.audit().await?;
    ensure!(audit.is_clean(), "{audit}");
    println!("{audit}");
    Ok(())
}

/// Makes holds from `start` to `end`, each of one unit.
async fn hold(
    backend: &Backend,
    item: &ItemId,
    holds: usize,
    start: Timestamp,
    end: Timestamp,
) -> Result<()> {
    let claim = backend.store.claim(std::slice::from_ref(item)).await?;
    let token = claim.into_iter().flatten().next().expect("it was put").token;
    let state = OrderState::Held(Hold::between(start, end));
    let lines = Lines::new(vec![Line::units(item, 1)?])?;
    for first in (0..holds).step_by(COMMIT) {
        let write = |number: usize| -> Result<OrderWrite> {
            let buyer = BuyerId::new(format!("buyer-{number}"))?;
            let order = Order::queued(OrderId::new(), buyer, lines.clone(), start);
            Ok(OrderWrite { order: order.with_state(state.clone()), expect: Expect::Absent })
        };
        let writes = (first..holds.min(first + COMMIT)).map(write).collect::<Result<_>>()?;
        let commit = Commit { claims: vec![(item.clone(), token)], writes };
        let outcome = backend.store.commit(&[commit]).await?;
        ensure!(outcome == [CommitOutcome::Applied], "{outcome:?}");
    }
    Ok(())
}

/// Buys one unit after the other; the times before the holds end, and after.
async fn buy(
    flux: Flux,
    item: ItemId,
    begun: Instant,
    ended: Arc<AtomicBool>,
) -> Result<[Histogram<u64>; 2]> {
    let mut times = [histogram(), histogram()];
    while !ended.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match flux.place(OrderRequest::units("ann", &item, 1)?).await {
            Ok(_) => {}
            Err(Error::Overloaded { retry_after }) => tokio::time::sleep(retry_after).await,
            Err(error) => return Err(error.into()),
        }
        let part = usize::from(begun.elapsed() > ALONE);
        times[part].record(asked.elapsed().as_micros() as u64)?;
    }
    Ok(times)
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits can be had")
}
