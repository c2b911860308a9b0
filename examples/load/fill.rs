//! One store that grows: its rate, its memory, its file, and how long it takes to open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use flux_core::backends::embedded::Embedded;
use flux_core::{Flux, ItemSpec, OrderRequest};

/// Fills one store and shows how the rate holds and how long it takes to open.
pub(crate) async fn fill(dir: &Path, orders: u64, in_flight: usize) -> Result<()> {
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
