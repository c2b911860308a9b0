//! The death of the seller, again and again: a process sells on one store that
//! lives on, and is killed (SIGKILL) at random moments, also while it opens
//! the store. Then the sale is finished, and everybody's answers are compared
//! with each other and with the books.
//!
//! `FLUX_KILL_ROUNDS` sets the rounds, each with a sale of its own and up to
//! three deaths; 25 without it. The full run:
//!
//! ```sh
//! FLUX_KILL_ROUNDS=200 cargo test --release --test kill_loop
//! ```
//!
//! `FLUX_KILL_SEED` repeats the chances of an earlier run; when exactly a
//! process dies is beyond any seed.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flux_core::{Flux, OrderStatus, Timestamp};
use libtest_mimic::{Arguments, Failed, Trial};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stage::{Job, Moment, Sale, Stock, Witness, storm};

const ROUNDS: u64 = 25;
const DEATHS_MAX: u32 = 3;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    if let Some(job) = Job::of_this_process() {
        return match runtime.block_on(job.sell()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let killed = Trial::test("nothing_is_lost_however_often_the_seller_is_killed", move || {
        runtime.block_on(kill_loop())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![killed]).exit_code()
}

/// The deaths of all rounds, counted.
#[derive(Debug, Default)]
struct Deaths {
    while_opening: u64,
    while_selling: u64,
    after_selling: u64,
}

async fn kill_loop() -> Result<(), Failed> {
    let rounds = from_env("FLUX_KILL_ROUNDS")?.unwrap_or(ROUNDS);
    let seed = from_env("FLUX_KILL_SEED")?.unwrap_or_else(rand::random);
    println!("{rounds} rounds, seed {seed}");
    let dir = tempfile::tempdir()?;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut deaths = Deaths::default();
    let mut witnesses = Vec::new();
    let began = Timestamp::from(SystemTime::now());
    for round in 0..rounds {
        let opened_at = began + Duration::from_millis(round);
        let sale = any_sale(opened_at, &mut chance);
        let witness = Arc::new(Witness::new(&sale));
        for _ in 0..chance.random_range(1..=DEATHS_MAX) {
            kill(dir.path(), &sale, &witness, &mut deaths, &mut chance).await?;
        }
        finish(dir.path(), &sale, &witness).await.map_err(|faults| {
            Failed::from(format!("seed {seed}, round {round}, {sale:?}:\n{faults}"))
        })?;
        witnesses.push(witness);
    }

    // No later round may have touched what an earlier one left.
    let flux = Flux::open(dir.path()).await?;
    let mut answers = 0;
    for witness in &witnesses {
        answers += witness.outcome().decisions();
        none(&witness.faults(&flux).await?)?;
    }
    flux.shutdown().await;
    println!("{deaths:?}, {answers} decisions remembered");
    if rounds >= ROUNDS && deaths.while_selling < rounds / 2 {
        return Err("too few died while they sold: this shows nothing".into());
    }
    Ok(())
}

/// A sale with many small commits, so that there is much to interrupt.
fn any_sale(opened_at: Timestamp, chance: &mut StdRng) -> Sale {
    let items = chance.random_range(1..=3);
    let capacity = chance.random_range(100..=400);
    Sale {
        opened_at,
        seed: chance.random(),
        buyers: 2 * items * capacity,
        items,
        stock: match chance.random_bool(0.5) {
            true => Stock::Units(capacity),
            false => Stock::Seats(capacity),
        },
        in_flight: chance.random_range(1..=64),
        repeat_percent: 20,
        pay_percent: 50,
    }
}

async fn kill(
    dir: &Path,
    sale: &Sale,
    witness: &Arc<Witness>,
    deaths: &mut Deaths,
    chance: &mut StdRng,
) -> Result<(), Failed> {
    let opening = chance.random_bool(0.2);
    let moment = Moment {
        decisions: if opening { 0 } else { chance.random_range(1..=sale.tickets()) },
        then: Duration::from_micros(chance.random_range(0..if opening { 20_000 } else { 2_000 })),
    };
    let job = Job { dir: dir.to_owned(), sale: sale.clone() };
    let hear = {
        let witness = Arc::clone(witness);
        move |heard| witness.hear(heard)
    };
    let death = tokio::task::spawn_blocking(move || job.sell_until(moment, hear)).await??;
    match death {
        _ if !death.killed => deaths.after_selling += 1,
        _ if death.answers == 0 => deaths.while_opening += 1,
        _ if witness.waiting().is_empty() => deaths.after_selling += 1,
        _ => deaths.while_selling += 1,
    }
    Ok(())
}

/// Reopens the store, serves those who still wait for an answer, and says what
/// is wrong.
async fn finish(dir: &Path, sale: &Sale, witness: &Arc<Witness>) -> Result<(), String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let flux = Flux::open(dir).await.map_err(|error| say(&error))?;
    // An acknowledged order must be there before anybody asks for it again.
    none(&witness.faults(&flux).await.map_err(|error| say(&error))?)?;
    sale.put_items(&flux).await.map_err(|error| say(&error))?;
    let hear = {
        let witness = Arc::clone(witness);
        move |heard| witness.hear(heard)
    };
    let tally = storm(&flux, sale, witness.waiting(), hear).await;
    let mut faults = tally.notes;
    faults.extend(sale.faults(&flux).await.map_err(|error| say(&error))?);
    faults.extend(witness.faults(&flux).await.map_err(|error| say(&error))?);
    let audit = flux.audit().await.map_err(|error| say(&error))?;
    faults.extend(audit.faults.iter().map(ToString::to_string));
    flux.shutdown().await;

    let outcome = witness.outcome();
    let tickets = outcome.count(OrderStatus::Held) + outcome.count(OrderStatus::Confirmed);
    if tickets != u64::from(sale.tickets()) {
        faults.push(format!("{} must have a ticket, {tickets} know of one", sale.tickets()));
    }
    none(&faults)
}

fn none(faults: &[String]) -> Result<(), String> {
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn from_env(name: &str) -> Result<Option<u64>, Failed> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value.parse().map_err(|error| format!("{name}: {error}"))?)),
        Err(_) => Ok(None),
    }
}
