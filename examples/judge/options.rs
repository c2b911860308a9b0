//! The options of the command line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// A judge of servers that sell: many clients buy, the server is killed, and
/// what the clients were told is judged.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Options {
    /// Address of the server: http://HOST:PORT
    #[arg(long)]
    pub(super) url: String,
    /// Seconds for which clients buy
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seconds: u64,
    /// Token for the calls of the operator
    #[arg(long, env = "FLUX_OPERATOR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with that token, which counts before it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Start this process, and again each time it is killed; repeatable, first the one that
    /// answers at the address
    #[arg(long, value_name = "COMMAND")]
    pub(super) spawn: Vec<String>,
    /// Kill this process, once; something else starts it again; repeatable
    #[arg(long, value_name = "PID")]
    pub(super) kill: Vec<u32>,
    /// Kill the process whose id is in this file then; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Vec<PathBuf>,
    /// Seconds from one kill, or freeze, to the next
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) kill_every: u64,
    /// Of a hundred times, freeze it for some seconds instead of killing it
    #[arg(long, value_name = "PERCENT", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=100))]
    pub(super) freeze: u32,
    /// Seconds that the server may need after a restart until it works as before
    #[arg(long, default_value_t = 0)]
    recovery: u64,
    /// The server can't look into its queue, as on SQS: it may not know an order again until
    /// that is decided
    #[arg(long)]
    pub(super) hidden_queue: bool,

    /// Seconds after the end of a hold within which its stock must be on sale again
    #[arg(long, default_value_t = 5)]
    tolerance: u64,
    /// Milliseconds by which the clocks of the server may differ
    #[arg(long, default_value_t = 100)]
    clock_slack_ms: u64,

    /// Clients at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) clients: u32,
    /// Seconds until fresh items are put on sale, and those before are sold out and judged
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) round_seconds: u64,
    /// Pools on sale in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) items: u32,
    /// Units of each pool
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) units: u32,
    /// Seats of the hall of each round; 0 for no hall
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub(super) seats: u32,
    /// Units that one buyer may have of the last pool; 0 for no cap
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1_000))]
    pub(super) cap: u32,
    /// Orders of a hundred that are over two pools
    #[arg(long, value_name = "PERCENT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(..=100))]
    pub(super) pairs: u32,
    /// Seconds that a hold lasts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) hold_seconds: u64,
    /// Decides whatever is left to chance; without it chance does
    #[arg(long)]
    pub(super) seed: Option<u64>,

    /// Go on after the first fault
    #[arg(long)]
    pub(super) keep_going: bool,
    /// File for the plot, an SVG
    #[arg(long, value_name = "FILE", default_value = "target/judge/plot.svg")]
    pub(super) plot: PathBuf,
    /// Folder for what the started processes say
    #[arg(long, value_name = "DIR", default_value = "target/judge")]
    pub(super) logs: PathBuf,
}

impl Options {
    /// The operator's token; a server makes its file at its first start.
    pub(super) fn token(&self) -> Result<String> {
        let Some(file) = &self.token_file else {
            return self
                .token
                .clone()
                .context("give --token or --token-file: items are put on sale");
        };
        let read = fs::read_to_string(file);
        let token = read.with_context(|| format!("{} can't be read", file.display()))?;
        Ok(token.trim().to_owned())
    }

    pub(super) fn tolerance(&self) -> Duration {
        Duration::from_secs(self.tolerance)
    }

    pub(super) fn clock_slack(&self) -> Duration {
        Duration::from_millis(self.clock_slack_ms)
    }

    pub(super) fn recovery(&self) -> Duration {
        Duration::from_secs(self.recovery)
    }

    pub(super) fn hold(&self) -> Duration {
        Duration::from_secs(self.hold_seconds)
    }
}
