//! Whole sales under seeded faults, on tokio's paused clock: engines that come, stop,
//! crash and freeze on one store, each with a network of its own that fails before and
//! after the fact, delays, repeats and reorders. The queue has partitions, the store
//! bounds its writes or comes back from a power failure, as the seed has it.
//!
//! `FLUX_SIMULATION_SEEDS=1000 cargo test -p flux-core --all-features --test simulation`
//!
//! A nightly run has `FLUX_SIMULATION_SEEDS=50000`, and `FLUX_SIMULATION_FROM=N` goes on
//! where another ended. The command that repeats a seed is printed when it fails.
#![cfg(feature = "conformance")]

mod dice;
mod fleet;
mod judge;
mod power;
mod sale;
mod volatile;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use flux_core::layers::{Fault, Faults, Operation};
use tokio::time::{Instant, timeout_at};

use dice::Dice;
use sale::{Sale, Terms};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

const BUYERS: u64 = 240;
/// Time in which every buyer has an answer, whatever happens meanwhile.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3_600);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds(usual: u64) -> Range<u64> {
    let from = number("FLUX_SIMULATION_FROM").unwrap_or(0);
    from..from + number("FLUX_SIMULATION_SEEDS").unwrap_or(usual)
}

/// Runs one sale on a clock that jumps to whatever happens next, with engines of these
/// faults, and others that come and go if `life` has a seed for them.
fn simulate(terms: Terms, faults: Vec<Faults>, life: Option<u64>, seed: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sale = Sale::open(terms, seed).await.expect("opened");
        faults.into_iter().for_each(|faults| sale.fleet.start(faults));
        let mut buyers = tokio::task::JoinSet::new();
        for n in 0..BUYERS {
            buyers.spawn(Arc::clone(&sale).buy(seed * 1_000 + n));
        }
        let living = life.map(|seed| tokio::spawn(Arc::clone(&sale.fleet).live(seed)));
        let end = Instant::now() + ANSWERED_WITHIN;
        while !buyers.is_empty() {
            let bought = timeout_at(end, buyers.join_next()).await;
            let bought = bought.unwrap_or_else(|_| panic!("{} wait for ever", buyers.len()));
            bought.expect("one").expect("no panic").unwrap_or_else(|error| panic!("{error}"));
        }
        if let Some(living) = living {
            living.abort();
        }
        sale.judge().await.unwrap_or_else(|error| panic!("{error}"));
        sale.fleet.injected()
    })
}

/// Runs the sale of a seed; one that fails says how to repeat it.
fn simulate_seed(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let terms = Terms::by(&mut dice);
    let faults = (0..3 + dice.roll(4)).map(|n| Faults::harsh(seed * 1_000 + n)).collect();
    let life = Some(dice.roll(u64::MAX >> 32));
    let run = AssertUnwindSafe(|| simulate(terms, faults, life, seed));
    catch_unwind(run).unwrap_or_else(|failure| {
        eprintln!(
            "seed {seed} failed, {terms:?}; again:\n\
             FLUX_SIMULATION_FROM={seed} FLUX_SIMULATION_SEEDS=1 \
             cargo test -p flux-core --all-features --test simulation harsh"
        );
        resume_unwind(failure)
    })
}

#[test]
fn harsh_networks_sell_each_unit_once() {
    let seeds = seeds(20);
    for seed in seeds.clone() {
        let injected = simulate_seed(seed);
        assert!(injected > 100, "only {injected} faults");
        if (seed + 1 - seeds.start).is_multiple_of(100) {
            eprintln!("{} sales, to seed {seed}", seed + 1 - seeds.start);
        }
    }
}

#[test]
fn a_worker_may_freeze_at_any_step() {
    use Operation::{Ack, Acquire, Claim, Commit, DueHolds, Orders, Publish, Receive};
    for operation in [Receive, Acquire, Claim, Orders, Commit, Ack, Publish, DueHolds] {
        for nth in [1, 3] {
            let frozen = Faults::script([(operation, nth, Fault::Freeze)]).expect("fits");
            let well = || Faults::script([]).expect("nothing");
            let faults = vec![frozen, well(), well()];
            println!("frozen at {operation:?} {nth}");
            simulate(Terms::PLAIN, faults, None, nth);
        }
    }
}
