//! Makes the queues, for tests and trials; terraform does it for keeps.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use flux_core::seams::SeamError;
use futures_util::future::try_join_all;

use super::SERVICE;
use super::calls::{Calls, failure, is_url};
use super::partitions::{self, Found, PARTITIONS};
use crate::bill::Meter;

/// Deliveries after which SQS gives up by itself, the most there are: the worker gives up
/// earlier and says why, and what can't be decided for now must outlive a long outage.
const RECEIVES_MAX: u32 = 1_000;
const RETENTION_SECONDS: u32 = 14 * 24 * 3600;
const POLL_SECONDS: u32 = 20;

/// Settings of a queue that [`create`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Time after which an unsettled delivery comes again, in whole seconds.
    pub visibility: Duration,
    /// The number of partitions; unless it is told, what there is, or
    /// [`PARTITIONS`](super::PARTITIONS).
    pub partitions: Option<u16>,
}

impl Default for CreateOptions {
    /// A time-out of ten seconds, and as many partitions as there are, or 16.
    fn default() -> Self {
        Self { visibility: Duration::from_secs(10), partitions: None }
    }
}

/// Makes a queue's partitions and a dead-letter queue for each, those that are missing. One
/// partition has the queue's name; several have a number behind it, `orders-0` to
/// `orders-15`. A name that ends in `.fifo` makes FIFO queues. The dead-letter queue of
/// `orders` is `orders-dead`, that of `orders-0.fifo` is `orders-0-dead.fifo`.
///
/// # Errors
/// [`SeamError::Broken`] when there are other partitions than the options tell, and the
/// failure of SQS. After an error some of it may be made; repeating is safe.
pub async fn create(
    client: &Client,
    queue: &str,
    options: &CreateOptions,
) -> Result<(), SeamError> {
    let calls = Calls::new(client, &Meter::default());
    let name = if is_url(queue) { queue.rsplit('/').next().unwrap_or(queue) } else { queue };
    let found = partitions::find(&calls, name).await?;
    partitions::check(name, found, options.partitions)?;
    let found = match (found, options.partitions.unwrap_or(PARTITIONS)) {
        (Found::Nothing, 1) => Found::Single,
        (Found::Nothing, count) => Found::Numbered(count),
        (found, _) => found,
    };
    // The first comes last: who counts the partitions meanwhile finds none, or all.
    let names = found.names(name);
    let (first, others) = names.split_first().expect("there is one partition at least");
    try_join_all(others.iter().map(|name| with_dead_letters(&calls, name, options))).await?;
    with_dead_letters(&calls, first, options).await
}

async fn with_dead_letters(
    calls: &Calls,
    queue: &str,
    options: &CreateOptions,
) -> Result<(), SeamError> {
    let dead = make(calls, &dead_name(queue), HashMap::new()).await?;
    let found = calls.attributes(&dead, &[Name::QueueArn]).await?;
    let arn = found.get(&Name::QueueArn).ok_or_else(|| {
        SeamError::broken(SERVICE, format!("the queue {dead} has no ARN; is that SQS?"))
    })?;
    let policy = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": RECEIVES_MAX });
    let visibility = options.visibility.as_secs().to_string();
    let attributes = HashMap::from([
        (Name::RedrivePolicy, policy.to_string()),
        (Name::VisibilityTimeout, visibility),
        (Name::ReceiveMessageWaitTimeSeconds, POLL_SECONDS.to_string()),
    ]);
    make(calls, queue, attributes).await.map(drop)
}

async fn make(
    calls: &Calls,
    name: &str,
    mut attributes: HashMap<Name, String>,
) -> Result<String, SeamError> {
    if let Some(url) = calls.url(name, None).await? {
        return Ok(url);
    }
    attributes.insert(Name::MessageRetentionPeriod, RETENTION_SECONDS.to_string());
    if is_fifo(name) {
        attributes.insert(Name::FifoQueue, "true".into());
        attributes.insert(Name::DeduplicationScope, "messageGroup".into());
        attributes.insert(Name::FifoThroughputLimit, "perMessageGroupId".into());
    }
    calls.count("CreateQueue", 0);
    let request = calls.client().create_queue().queue_name(name).set_attributes(Some(attributes));
    let answer = request.send().await.map_err(|error| failure(name, error))?;
    answer.queue_url.ok_or_else(|| SeamError::unknown(SERVICE))
}

pub(super) fn is_fifo(name: &str) -> bool {
    name.ends_with(".fifo")
}

pub(super) fn dead_name(name: &str) -> String {
    match name.strip_suffix(".fifo") {
        Some(stem) => format!("{stem}-dead.fifo"),
        None => format!("{name}-dead"),
    }
}
