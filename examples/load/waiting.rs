//! The memory that a caller takes who waits for an answer.

use std::path::Path;

use anyhow::{Context, Result};
use flux_core::backends::embedded::Embedded;
use flux_core::{Flux, ItemSpec, OrderRequest};

/// Has so many callers place an order at one moment, twice, and shows what the second crowd
/// took at most: what grows once, as buffers do, was there by then.
pub(crate) async fn waiting(dir: &Path, callers: usize) -> Result<()> {
    let dir = dir.join("waiting");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let flux = Flux::builder(Embedded::open(&dir)?.backend()).start();
    flux.put_item(ItemSpec::pool("item-0", 10_000_000)?).await?;
    for crowd in ["first", "second"] {
        let before = memory("VmRSS:")?;
        // The peak is counted anew.
        std::fs::write("/proc/self/clear_refs", "5")?;
        let placing: Vec<_> = (0..callers)
            .map(|n| {
                let flux = flux.clone();
                tokio::spawn(async move {
                    flux.place(OrderRequest::units(format!("buyer-{n}"), "item-0", 1)?).await?;
                    anyhow::Ok(())
                })
            })
            .collect();
        for placed in placing {
            placed.await??;
        }
        let grown = memory("VmHWM:")?.saturating_sub(before);
        println!(
            "{crowd} crowd of {callers} callers: {:.0} bytes each, a task and its order included",
            grown as f64 / callers as f64
        );
    }
    flux.shutdown().await;
    Ok(())
}

fn memory(of: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(of)).context(of.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
