//! The first life of a sale that is killed: another process sells, and is
//! shot in the middle.

use std::time::Duration;

use indicatif::HumanCount;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stage::{Heard, Job, Moment};

use crate::report::time;

/// Lets another process sell and kills it; every answer that reached a buyer
/// goes to `hear`. Blocks.
pub(crate) fn first_life(job: &Job, hear: impl Fn(Heard) + Send) -> std::io::Result<()> {
    let mut chance = StdRng::seed_from_u64(job.sale.seed);
    let moment = Moment {
        decisions: chance.random_range(1..=job.sale.tickets().max(1)),
        then: Duration::from_micros(chance.random_range(0..2_000)),
    };
    println!(
        "it will be killed {} after decision {}",
        time(moment.then),
        HumanCount(moment.decisions.into()),
    );
    let death = job.sell_until(moment, hear)?;
    match death.killed {
        true => print!("killed process {} (SIGKILL)", death.pid),
        false => print!("process {} was done before it could be killed", death.pid),
    }
    println!("; {} answers had reached their buyers", HumanCount(death.answers));
    Ok(())
}
