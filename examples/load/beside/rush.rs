//! A closed loop of callers who buy one hot item, whoever sells it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use uuid::Uuid;

/// The name of the hot item.
pub(super) const ITEM: &str = "item-0";

/// Units of it, more than any measurement sells.
pub(super) const UNITS: u32 = 10_000_000;

/// Sells the hot item: by one connection of a pool, or by a handle of the engine.
pub(super) trait Seller: Clone + Send + 'static {
    /// Places an order for one unit under each id, and returns when all of them are
    /// recorded as held.
    fn place(&mut self, buyer: &str, ids: &[Uuid]) -> impl Future<Output = Result<()>> + Send;
}

/// How many callers there are, how many orders each places in a call, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Rush {
    pub(super) callers: usize,
    pub(super) pack: usize,
    pub(super) seconds: f64,
}

/// What the callers were told.
pub(super) struct Told {
    pub(super) per_second: f64,
    pub(super) latency: Histogram<u64>,
    /// Orders that were answered.
    pub(super) held: u64,
}

/// What the service has on its books.
#[derive(Debug, PartialEq)]
pub(super) struct Books {
    /// Orders that have their unit.
    pub(super) held: u64,
    /// Units that are no longer available.
    pub(super) gone: u64,
}

impl Rush {
    /// Runs it; the callers share the sellers out among them.
    pub(super) async fn run<S: Seller>(self, sellers: &[S]) -> Result<Told> {
        let started = Instant::now();
        let until = started + Duration::from_secs_f64(self.seconds);
        let callers: Vec<_> = (0..self.callers)
            .map(|n| {
                let seller = sellers[n % sellers.len()].clone();
                tokio::spawn(self.call(seller, format!("buyer-{n}"), until))
            })
            .collect();
        let mut latency = Histogram::new(3)?;
        for caller in callers {
            latency += caller.await??;
        }
        let held = latency.len();
        Ok(Told { per_second: held as f64 / started.elapsed().as_secs_f64(), latency, held })
    }

    async fn call<S: Seller>(
        self,
        mut seller: S,
        buyer: String,
        until: Instant,
    ) -> Result<Histogram<u64>> {
        let mut latency = Histogram::new(3)?;
        let mut ids = Vec::new();
        while Instant::now() < until {
            ids.clear();
            ids.extend((0..self.pack).map(|_| Uuid::now_v7()));
            let asked = Instant::now();
            seller.place(&buyer, &ids).await?;
            latency.record_n(asked.elapsed().as_nanos() as u64, self.pack as u64)?;
        }
        // A repeat has the same answer, and takes nothing: the books will tell. Who came too
        // late to place anything has nothing to repeat.
        if !ids.is_empty() {
            seller.place(&buyer, &ids).await.context("of a repeat")?;
        }
        Ok(latency)
    }
}

impl Told {
    /// Compares the answers with the books.
    pub(super) fn verify(&self, books: &Books) -> Result<()> {
        let told = Books { held: self.held, gone: self.held };
        ensure!(*books == told, "the callers were told of {} orders: {books:?}", self.held);
        Ok(())
    }
}
