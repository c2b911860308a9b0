//! The backend on SQS, DynamoDB and Redis, as the configuration names them.

use std::time::Duration;

use anyhow::{Context, Result};
use flux_aws::Aws;
use flux_aws::bill::Meter;
use flux_aws::redis::RedisSettings;
use flux_core::{Flux, InvalidInput};
use tracing::warn;

use crate::setup::config::{
    Command, Config, REDIS_HOST, REDIS_PASSWORD, REDIS_PORT, REDIS_URL, variable,
};

/// Opens the backend and starts its engine, whose calls the meter counts.
pub(super) async fn open(config: &Config) -> Result<(Flux, Meter)> {
    let (queue, table) = config
        .queue_and_table()
        .context("--backend aws needs SQS_QUEUE_URL and DYNAMODB_TABLE, names will do")?;
    // Sales on one Redis are told apart by their tables.
    let redis = redis()?.map(|redis| redis.prefix(&table));
    if redis.is_none() && config.command != Command::Serve {
        warn!(
            "no REDIS_URL and no REDIS_HOST: workers get in each other's way, and outcomes are heard of late"
        );
    }
    let aws = Aws::builder()
        .queue(queue)
        .maybe_partitions(config.partitions)
        .table(table)
        .maybe_redis(redis)
        .create_missing(config.create)
        .stripes(config.stripes)
        .keep_rejected(Duration::from_secs(config.keep_rejected))
        .buyer_rules(config.buyer_rules())
        .open()
        .await?;
    let role = config.command.role();
    let flux = Flux::builder(aws.backend).settings(aws.settings).role(role).start();
    Ok((flux, aws.meter))
}

/// The Redis of the environment, if there is one.
fn redis() -> Result<Option<RedisSettings>, InvalidInput> {
    if let Some(url) = variable(REDIS_URL) {
        return Ok(Some(RedisSettings::url(url)));
    }
    let Some(host) = variable(REDIS_HOST) else { return Ok(None) };
    let port = variable(REDIS_PORT).map(|port| {
        let wrong = |_| InvalidInput::new(REDIS_PORT, format!("must be a port, was {port:?}"));
        port.parse::<u16>().map_err(wrong)
    });
    let server = RedisSettings::server(host).maybe_port(port.transpose()?);
    Ok(Some(server.maybe_password(variable(REDIS_PASSWORD)).build()))
}
