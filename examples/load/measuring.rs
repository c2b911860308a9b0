//! One measurement: closed-loop load on a fresh embedded store.

use std::iter::repeat_n;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flux_core::backends::embedded::Embedded;
use flux_core::{Error, Flux, ItemSpec, OrderId, OrderRequest};
use hdrhistogram::Histogram;
use uuid::Uuid;

use crate::Options;
use crate::copies::Copies;
use crate::writes::Writes;

/// Callers who place many orders in one call, and how many.
const CALLERS: usize = 8;
const PACK: usize = 100;

/// One measurement.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) batch: f64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Load {
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
    pub(crate) const ALL: [Self; 8] = [
        Self::OneItem,
        Self::ThousandItems,
        Self::RandomIds,
        Self::WithoutFeed,
        Self::Gate,
        Self::Lone,
        Self::Together,
        Self::BackedUp,
    ];

    pub(crate) fn name(self) -> &'static str {
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

pub(crate) async fn measure(
    dir: &Path,
    load: Load,
    options: &Options,
    writes: &Writes,
) -> Result<Measured> {
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
        for nanos in buyer.await?? {
            latency.record(u64::from(nanos))?;
        }
    }
    let per_second = latency.len() as f64 / started.elapsed().as_secs_f64();
    let batch = writes.batch();
    if let Some(copies) = copies {
        eprintln!("{} backups", copies.end().await?);
    }
    flux.shutdown().await;
    Ok(Measured { per_second, latency, batch })
}

/// Buys until then, and tells how many nanoseconds each order took: in a list, as the
/// histograms of so many buyers would not stay in the processor's caches.
async fn buy(flux: Flux, load: Load, n: usize, until: Instant) -> Result<Vec<u32>> {
    let mut took = Vec::with_capacity(1 << 12);
    let nanos = |asked: Instant| u32::try_from(asked.elapsed().as_nanos()).unwrap_or(u32::MAX);
    let buyer = format!("buyer-{n}");
    let items: Vec<String> = (0..load.items()).map(|n| format!("item-{n}")).collect();
    let mut turn = n;
    while Instant::now() < until {
        turn = turn.wrapping_add(1);
        let item = &items[turn % items.len()];
        let mut request = OrderRequest::units(&buyer, item, 1)?;
        if load == Load::Together {
            let asked = Instant::now();
            for placed in flux.place_all(vec![request; PACK]).await {
                placed?;
            }
            took.extend(repeat_n(nanos(asked), PACK));
            continue;
        }
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
        took.push(nanos(asked));
    }
    Ok(took)
}
