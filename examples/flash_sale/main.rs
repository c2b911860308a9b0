//! A flash sale: 100,000 buyers storm 1,000 tickets, and the books are checked
//! afterwards.
//!
//! ```sh
//! cargo run --release --example flash_sale
//! cargo run --release --example flash_sale -- --seats 1000 --duplicates 50
//! cargo run --release --example flash_sale -- --crash
//! ```

mod crash;
mod options;
mod progress;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use flux_core::{Backend, Flux};
use stage::{Job, Witness, storm};

use crate::options::Options;
use crate::progress::Progress;

const FAULTS_SHOWN: usize = 10;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if let Some(job) = Job::of_this_process() {
        job.sell().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let sale = options.sale();
    let scratch = tempfile::tempdir().context("no temporary directory can be made")?;
    let dir = options.data_dir.as_deref().unwrap_or(scratch.path());
    let books = match options.memory {
        true => "in memory".to_owned(),
        false => format!("in {}, durable", dir.display()),
    };
    report::opening(&sale, &books);

    // Everybody's answers are remembered and compared with each other and, in
    // the end, with the books.
    let witness = Arc::new(Witness::new(&sale));
    let progress = Arc::new(Progress::of(sale.buyers));
    let hear = {
        let (witness, progress) = (Arc::clone(&witness), Arc::clone(&progress));
        move |heard| {
            progress.heard(&heard);
            witness.hear(heard);
        }
    };

    if options.crash {
        let job = Job { dir: dir.to_owned(), sale: sale.clone() };
        let hear = hear.clone();
        tokio::task::spawn_blocking(move || crash::first_life(&job, hear)).await??;
    }

    let opening = Instant::now();
    let flux = match options.memory {
        true => Flux::builder(Backend::memory()).start(),
        false => Flux::open(dir).await?,
    };
    sale.put_items(&flux).await?;
    let who = witness.waiting();
    if options.crash {
        let opened = opening.elapsed();
        report::reopened(opened, sale.taken(&flux).await?, who.len());
    }
    let tally = storm(&flux, &sale, who, hear).await;
    progress.done();

    report::outcome(&sale, &witness.outcome());
    if options.crash {
        println!("\nafter the crash:");
    }
    report::pace(&tally);

    let audit = flux.audit().await?;
    let mut faults = tally.notes;
    // Exactly the stock is sold, and nobody goes back on an answer.
    faults.extend(sale.faults(&flux).await?);
    faults.extend(witness.faults(&flux).await?);
    flux.shutdown().await;
    println!("\n{audit}");
    for fault in faults.iter().take(FAULTS_SHOWN) {
        println!("  {fault}");
    }
    println!("what the buyers were told: {} faults", faults.len());
    let clean = audit.is_clean() && faults.is_empty();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
