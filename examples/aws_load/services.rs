//! The addresses of the services, near or as far as a region, and a sale of its own on
//! them for each measurement.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flux_aws::Aws;
use flux_aws::redis::RedisSettings;
use flux_core::{Flux, Role};
use uuid::Uuid;

use crate::slow;

/// The addresses of the three services.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) sqs_url: String,
    pub(crate) dynamodb_url: String,
    pub(crate) redis_url: String,
}

impl Services {
    const VARIABLES: [&str; 3] = ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_DYNAMODB", "REDIS_URL"];

    /// Reads them from the standard variables.
    pub(crate) fn from_env() -> Result<Self> {
        let url = |name: &str| {
            let url = env::var(name).with_context(|| {
                format!("{name} is not set; start the services: tests/services cargo run --release --features aws --example aws_load")
            })?;
            let host = url.split_once("://").map_or("", |(_, host)| host);
            if !["127.0.0.1:", "localhost:", "[::1]:"].iter().any(|here| host.starts_with(here)) {
                bail!("{name} is {url}: load is for stand-ins on this machine");
            }
            Ok(url)
        };
        let [sqs_url, dynamodb_url, redis_url] = Self::VARIABLES.map(url);
        Ok(Self { sqs_url: sqs_url?, dynamodb_url: dynamodb_url?, redis_url: redis_url? })
    }

    /// The same, with so much added to every call.
    pub(crate) async fn far(&self, delay: Duration) -> Result<Self> {
        let far = async |url: &str| {
            let (scheme, rest) = url.split_once("://").context("a URL")?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let address = slow::in_front_of(host, delay).await?;
            anyhow::Ok(format!("{scheme}://{address}/{path}"))
        };
        Ok(Self {
            sqs_url: far(&self.sqs_url).await?,
            dynamodb_url: far(&self.dynamodb_url).await?,
            redis_url: far(&self.redis_url).await?,
        })
    }

    /// The standard variables for a process that is to find them.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 3] {
        let [sqs, dynamodb, redis] = Self::VARIABLES;
        [(sqs, &self.sqs_url), (dynamodb, &self.dynamodb_url), (redis, &self.redis_url)]
    }

    pub(crate) async fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = flux_aws::aws::from_env().await;
        let config = aws_sdk_sqs::config::Builder::from(&config).endpoint_url(&self.sqs_url);
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    pub(crate) async fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = flux_aws::aws::from_env().await;
        let config = aws_sdk_dynamodb::config::Builder::from(&config);
        aws_sdk_dynamodb::Client::from_conf(config.endpoint_url(&self.dynamodb_url).build())
    }

    pub(crate) async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// A side of a sale, with clients of its own.
    pub(crate) async fn open(&self, sale: &Sale) -> Result<Aws> {
        let opened = Aws::builder()
            .queue(&sale.queue)
            .table(&sale.table)
            .redis(RedisSettings::url(&self.redis_url).prefix(&sale.table))
            .sqs(self.sqs().await)
            .dynamodb(self.dynamodb().await)
            .create_missing(true)
            .open();
        Ok(opened.await?)
    }
}

/// Names of a queue and a table.
#[derive(Debug, Clone)]
pub(crate) struct Sale {
    pub(crate) queue: String,
    pub(crate) table: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Standard,
    Fifo,
}

impl Sale {
    pub(crate) fn new(kind: Kind) -> Self {
        let table = format!("load-{}", Uuid::new_v4().simple());
        let suffix = if kind == Kind::Fifo { ".fifo" } else { "" };
        Self { queue: format!("{table}{suffix}"), table }
    }

    /// Takes queues and table away.
    pub(crate) async fn remove(&self, services: &Services) -> Result<()> {
        let sqs = services.sqs().await;
        let queues = sqs.list_queues().queue_name_prefix(&self.table).send().await?;
        for url in queues.queue_urls() {
            sqs.delete_queue().queue_url(url).send().await?;
        }
        services.dynamodb().await.delete_table().table_name(&self.table).send().await?;
        Ok(())
    }
}

/// An engine on one side of a sale.
pub(crate) fn engine(aws: &Aws, role: Role) -> Flux {
    Flux::builder(aws.backend.clone()).settings(aws.settings.clone()).role(role).start()
}
