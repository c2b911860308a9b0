//! A judge for any server that speaks the HTTP contract: clients that are many, repeat
//! themselves and lose patience buy what it put on sale; the server is killed
//! and frozen meanwhile; and what the clients were told, and when, is judged.
//! The server's books are not looked into.
//!
//! ```sh
//! cargo build --release -p flux-server
//! cargo run --release --example judge -- --url http://127.0.0.1:21000 --seconds 120 \
//!     --spawn 'target/release/flux-server --listen 127.0.0.1:21000 --data-dir target/judge/data' \
//!     --token-file target/judge/data/operator-token
//! ```
//!
//! On AWS, or stand-ins for it, a second `--spawn` starts a worker, `--recovery 40` allows
//! for the queue, which hands out again what a killed worker had after 10 s, and
//! `--hidden-queue` for an api that was killed, and knows what it accepted once that is
//! decided.
//!
//! A server that already runs is judged under fresh items beside its own: `--url`,
//! `--token`, and `--kill PID` or `--pid-file FILE` if it may be killed and
//! something starts it again. `broken/run` lets the judge at servers with a
//! bug built in.

mod buyer;
mod closing;
mod figures;
mod goods;
mod keeper;
mod notes;
mod options;
mod plot;
mod report;
mod round;
mod teller;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

pub(crate) use self::options::Options;
pub(crate) use self::verdict::run;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let verdict = run(&options).await?;
    print!("\n{verdict}");
    plot::write(&options.plot, &verdict)?;
    println!("the plot is in {}", options.plot.display());
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
