//! The bill: what an order takes of each service, by the meter that counts
//! every call, and what an idle worker does.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flux_aws::Aws;
use flux_aws::bill::{Bill, Meter};
use flux_core::{Error, Flux, OrderRequest, OrderStatus, Role};
use tokio::task::JoinSet;

use crate::services::{Kind, Sale, Services, engine};
use crate::workers::{put_items, submit_all};

/// Units of an item that sells out.
const FEW: u32 = 1;
/// A crowd that comes too late.
const LATE: u32 = 10_000;
const DECIDED_WITHIN: Duration = Duration::from_secs(60);

/// The bill of one order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Each {
    pub(crate) write_units: f64,
    pub(crate) read_units: f64,
    pub(crate) sqs_requests: f64,
    pub(crate) redis_commands: f64,
}

impl Each {
    fn of(bill: &Bill, orders: u32) -> Self {
        let each = |count: f64| count / f64::from(orders);
        Self {
            write_units: each(bill.write_units),
            read_units: each(bill.read_units),
            sqs_requests: each(bill.sqs_requests as f64),
            redis_commands: each(bill.redis_commands as f64),
        }
    }
}

/// The bill of an order on each path.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Accepted, decided by a worker, and waited for.
    pub(crate) held: Each,
    /// In the queue when the item sold out.
    pub(crate) rejected: Each,
    /// Turned away at the gate.
    pub(crate) turned_away: Each,
    pub(crate) whole: Bill,
}

/// Two engines on one sale, one that accepts and one that decides.
struct Pair {
    sale: Sale,
    accepting: Aws,
    shop: Flux,
    deciding: Aws,
}

impl Pair {
    async fn open(services: &Services) -> Result<Self> {
        let sale = Sale::new(Kind::Standard);
        let accepting = services.open(&sale).await?;
        let deciding = services.open(&sale).await?;
        Ok(Self { shop: engine(&accepting, Role::AcceptOnly), sale, accepting, deciding })
    }

    /// The bill so far, of both sides.
    fn bill(&self) -> Bill {
        self.accepting.meter.bill() + &self.deciding.meter.bill()
    }
}

/// Measures them with so many orders on each path.
pub(crate) async fn measure(services: &Services, orders: u32) -> Result<Costs> {
    let pair = Pair::open(services).await?;
    put_items(&pair.shop, 1, orders).await?;
    let before = pair.bill();
    let worker = engine(&pair.deciding, Role::Both);
    place_all(&pair.shop, orders).await?;
    worker.shutdown().await;
    let whole = pair.bill() - &before;
    let held = Each::of(&whole, orders);
    pair.shop.shutdown().await;
    pair.sale.remove(services).await?;

    let pair = Pair::open(services).await?;
    put_items(&pair.shop, 1, FEW).await?;
    let before = pair.bill();
    // All are past the gate before anything is decided.
    submit_all(&pair.shop, 1, orders).await?;
    // Looking how many wait is no part of an order's bill.
    let watching = engine(&services.open(&pair.sale).await?, Role::AcceptOnly);
    let worker = engine(&pair.deciding, Role::Both);
    let since = Instant::now();
    let shut = || pair.shop.submit(OrderRequest::units("late", "item-0", 1).expect("a request"));
    while watching.depth().await.map(|depth| depth.waiting + depth.in_flight)? > 0 {
        if since.elapsed() > DECIDED_WITHIN {
            bail!("the queue is not empty");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    worker.shutdown().await;
    watching.shutdown().await;
    let rejected = Each::of(&(pair.bill() - &before), orders);
    let audit = pair.shop.audit().await?;
    if audit.count(OrderStatus::Rejected) != u64::from(orders - FEW) || !audit.is_clean() {
        bail!("{} of {orders} orders should be rejected: {audit}", orders - FEW);
    }

    let since = Instant::now();
    while !matches!(shut().await, Err(Error::SoldOut(_))) {
        if since.elapsed() > DECIDED_WITHIN {
            bail!("the gate does not shut");
        }
    }
    let before = pair.bill();
    for _ in 0..LATE {
        if !matches!(shut().await, Err(Error::SoldOut(_))) {
            bail!("the gate is open");
        }
    }
    let turned_away = Each::of(&(pair.bill() - &before), LATE);
    pair.shop.shutdown().await;
    pair.sale.remove(services).await?;
    Ok(Costs { held, rejected, turned_away, whole })
}

/// Places orders and waits for each to be decided, all at once, as a crowd does.
async fn place_all(shop: &Flux, orders: u32) -> Result<()> {
    let mut calls = JoinSet::new();
    for n in 0..orders {
        let shop = shop.clone();
        calls.spawn(async move {
            let order = shop.place(OrderRequest::units(format!("buyer-{n}"), "item-0", 1)?).await?;
            if order.status() != OrderStatus::Held {
                bail!("there is stock for all: {order:?}");
            }
            Ok(())
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}

/// A worker with nothing to do, on a sale of its own.
pub(crate) struct Idle {
    sale: Sale,
    meter: Meter,
    flux: Flux,
    before: Bill,
    since: Instant,
}

impl Idle {
    pub(crate) async fn start(services: &Services) -> Result<Self> {
        let sale = Sale::new(Kind::Standard);
        let aws = services.open(&sale).await?;
        let flux = engine(&aws, Role::Both);
        let (before, since) = (aws.meter.bill(), Instant::now());
        Ok(Self { sale, meter: aws.meter, flux, before, since })
    }

    /// Time since its calls are counted.
    pub(crate) fn watched(&self) -> Duration {
        self.since.elapsed()
    }

    /// Counts from now on.
    pub(crate) fn count_anew(&mut self) {
        (self.before, self.since) = (self.meter.bill(), Instant::now());
    }

    /// Ends it; its bill, and the time it took.
    pub(crate) async fn finish(self, services: &Services) -> Result<(Bill, Duration)> {
        let (bill, took) = (self.meter.bill() - &self.before, self.since.elapsed());
        self.flux.shutdown().await;
        self.sale.remove(services).await?;
        Ok((bill, took))
    }
}
