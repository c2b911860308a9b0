//! The four seams put together, as a server or a worker wants them.

use std::sync::Arc;
use std::time::Duration;

use bon::bon;
use flux_core::backends::memory::{MemoryBus, MemoryLocks};
use flux_core::layers::{Layered, Retry, Trace};
use flux_core::seams::{LockManager, OrderQueue, OutcomeBus, SeamError};
use flux_core::{Backend, BuyerRules, InvalidInput, Settings};

use crate::bill::Meter;
use crate::dynamodb::DynamoStore;
use crate::redis::{Redis, RedisSettings};
use crate::sqs;

/// The failure to open the services.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting of Redis is wrong.
    #[error(transparent)]
    Redis(#[from] InvalidInput),
    /// SQS or DynamoDB is away, or lacks what we need.
    #[error(transparent)]
    Service(#[from] SeamError),
}

/// A sale on SQS, DynamoDB and Redis.
///
/// ```no_run
/// use flux_aws::{Aws, redis::RedisSettings};
/// use flux_core::Flux;
///
/// # async fn example() -> Result<(), flux_aws::OpenError> {
/// let aws = Aws::builder()
///     .queue("orders")
///     .table("orders")
///     .redis(RedisSettings::url("redis://cache.example"))
///     .open()
///     .await?;
/// let flux = Flux::builder(aws.backend.clone()).settings(aws.settings.clone()).start();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Aws {
    /// For [`Flux::builder`](flux_core::Flux::builder): with retries around
    /// queue and store, and tracing around everything.
    pub backend: Backend,
    /// Times that suit services behind a network.
    pub settings: Settings,
    /// Counts every call.
    pub meter: Meter,
}

#[bon]
impl Aws {
    /// Opens queue and table, which must be there unless `create_missing` is
    /// set, and starts to look for Redis. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing and what to do. A Redis that is away
    /// is no error.
    #[builder(start_fn = builder, finish_fn = open, builder_type = AwsBuilder)]
    pub async fn build(
        /// The queue's name or URL, without the numbers of its partitions.
        #[builder(into)]
        queue: String,
        /// The number of the queue's partitions, fixed when it is made: another one is
        /// refused. By default what there is, and 16 where they are made; see
        /// [`sqs::open_partitions`].
        partitions: Option<u16>,
        /// The table's name.
        #[builder(into)]
        table: String,
        /// Without Redis, processes that decide orders on the same items get
        /// in each other's way, and an outcome is heard of when it is looked
        /// for: all is right, and slower.
        redis: Option<RedisSettings>,
        /// A ready-made client; by default one from the environment, as the
        /// AWS SDK finds it.
        sqs: Option<aws_sdk_sqs::Client>,
        /// The same for the table.
        dynamodb: Option<aws_sdk_dynamodb::Client>,
        /// The same for the table's stream, from which the change feed is read; with a
        /// ready-made client for the table and none for this there is no feed.
        streams: Option<aws_sdk_dynamodbstreams::Client>,
        /// Makes queues, dead-letter queues and table if they are missing: for
        /// tests and trials.
        #[builder(default)]
        create_missing: bool,
        /// Rows that the stock of a new pool is spread over; see
        /// [`DynamoStore`].
        #[builder(default = 1)]
        stripes: usize,
        /// What is asked of buyers before they get another hold; see
        /// [`DynamoStore`].
        #[builder(default)]
        buyer_rules: BuyerRules,
        /// Time for which rejected orders are remembered, a day by default; see
        /// [`DynamoStore`].
        keep_rejected: Option<Duration>,
        #[builder(default)] meter: Meter,
    ) -> Result<Self, OpenError> {
        let (sqs, dynamodb, streams) = match (sqs, dynamodb) {
            (Some(sqs), Some(dynamodb)) => (sqs, dynamodb, streams),
            (sqs, dynamodb) => {
                let config = crate::aws::from_env().await;
                let of_env = || aws_sdk_dynamodbstreams::Client::new(&config);
                let streams = streams.or_else(|| dynamodb.is_none().then(of_env));
                (
                    sqs.unwrap_or_else(|| aws_sdk_sqs::Client::new(&config)),
                    dynamodb.unwrap_or_else(|| aws_sdk_dynamodb::Client::new(&config)),
                    streams,
                )
            }
        };
        let store = DynamoStore::builder().client(&dynamodb).table(&table).stripes(stripes);
        let store = store.maybe_streams(streams.as_ref());
        let store = store.buyer_rules(buyer_rules).maybe_keep_rejected(keep_rejected);
        let store = store.meter(meter.clone()).build();
        if create_missing {
            store.create_table().await?;
            let options = sqs::CreateOptions { partitions, ..Default::default() };
            sqs::create(&sqs, &queue, &options).await?;
        } else {
            store.check().await?;
        }
        let opened = sqs::open_partitions(sqs, &queue, partitions, &meter).await?;
        let mut queues: Vec<Arc<dyn OrderQueue>> = Vec::new();
        queues.extend(opened.into_iter().map(|queue| Arc::new(queue) as _));
        let (locks, bus): (Arc<dyn LockManager>, Arc<dyn OutcomeBus>) = match redis {
            Some(settings) => {
                let redis = Redis::open(settings, meter.clone())?;
                queues = redis.remember_all(queues).into_iter().map(|q| Arc::new(q) as _).collect();
                (Arc::new(redis.locks()), Arc::new(redis.bus()))
            }
            None => (Arc::new(MemoryLocks::default()), Arc::new(MemoryBus::default())),
        };
        // Not around leases and outcomes: to wait for those helps nobody.
        let retry = Retry::default();
        let retried = |queue| Arc::new(Layered::new(queue, retry.clone())) as Arc<dyn OrderQueue>;
        let partitions: Vec<_> = queues.into_iter().map(retried).collect();
        let backend = Backend {
            queue: Arc::clone(&partitions[0]),
            store: Arc::new(Layered::new(Arc::new(store), retry.clone())),
            locks,
            bus,
            partitions,
        };
        Ok(Self { backend: backend.layered(Trace), settings: settings(), meter })
    }
}

/// Settings of an engine whose services are behind a network.
fn settings() -> Settings {
    Settings::builder()
        // A sweep is a query of each key of the index.
        .sweep_every(Duration::from_secs(1))
        // Another worker's orders for the item wait as long.
        .claim_max(Duration::from_millis(200))
        .build()
}
