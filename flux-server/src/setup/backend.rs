//! Where orders and items live: in files, or on AWS.

use anyhow::{Context, Result};
use flux_aws::Aws;
use flux_aws::bill::Meter;
use flux_core::Flux;
use flux_core::backends::embedded::Embedded;
use tracing::warn;

use crate::setup::config::{BackendKind, Command, Config};

/// An engine on its backend.
pub struct Opened {
    /// The engine.
    pub flux: Flux,
    /// Counts what is billed; nothing is with the embedded backend.
    pub meter: Option<Meter>,
}

/// Opens the backend that the configuration names and starts its engine.
///
/// # Errors
/// What is missing or in the way, and what to do about it.
pub async fn open(config: &Config) -> Result<Opened> {
    match config.backend() {
        BackendKind::Embedded => open_embedded(config).await,
        BackendKind::Aws => open_aws(config).await,
    }
}

async fn open_embedded(config: &Config) -> Result<Opened> {
    let data_dir = config.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(data_dir)).await?;
    let embedded = opened.with_context(|| format!("can't open {}", config.data_dir.display()))?;
    match config.command {
        Command::Api => warn!(
            "api with the embedded backend: orders are accepted and nobody decides them, as no worker can open this data directory; run `serve` to have both"
        ),
        Command::Worker => warn!(
            "worker with the embedded backend: it decides what this data directory has and no more, as nothing that accepts orders can open it; run `serve` to have both"
        ),
        _ => {}
    }
    let flux = Flux::builder(embedded.backend()).role(config.command.role()).start();
    Ok(Opened { flux, meter: None })
}

async fn open_aws(config: &Config) -> Result<Opened> {
    let (queue, table) = config
        .queue_and_table()
        .context("--backend aws needs SQS_QUEUE_URL and DYNAMODB_TABLE, names will do")?;
    // Sales on one Redis are told apart by their tables.
    let redis = config.redis()?.map(|redis| redis.prefix(&table));
    if redis.is_none() && config.command != Command::Serve {
        warn!(
            "no REDIS_URL and no REDIS_HOST: workers get in each other's way, and outcomes are heard of late"
        );
    }
    let aws = Aws::builder()
        .queue(queue)
        .table(table)
        .maybe_redis(redis)
        .create_missing(config.create)
        .stripes(config.stripes)
        .open()
        .await?;
    let role = config.command.role();
    let flux = Flux::builder(aws.backend).settings(aws.settings).role(role).start();
    Ok(Opened { flux, meter: Some(aws.meter) })
}
