//! Makes the queues, for tests and trials; terraform does it for keeps.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use flux_core::seams::SeamError;

use super::SERVICE;
use super::calls::{Calls, failure};
use crate::bill::Meter;

/// Deliveries after which SQS gives up by itself: a backstop, as the
/// worker gives up earlier and says why.
const RECEIVES_MAX: u32 = 100;
const RETENTION_SECONDS: u32 = 14 * 24 * 3600;
const POLL_SECONDS: u32 = 20;

/// Settings of a queue that [`create`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Time after which an unsettled delivery comes again, in whole seconds.
    pub visibility: Duration,
}

impl Default for CreateOptions {
    /// A time-out of half a minute.
    fn default() -> Self {
        Self { visibility: Duration::from_secs(30) }
    }
}

/// Makes a queue and its dead-letter queue, those that are missing, and
/// answers the queue's URL. A name that ends in `.fifo` makes FIFO queues. The
/// dead-letter queue of `orders` is `orders-dead`, that of `orders.fifo` is
/// `orders-dead.fifo`.
///
/// # Errors
/// The failure of SQS. After an error some of it may be made; repeating is safe.
pub async fn create(
    client: &Client,
    queue: &str,
    options: &CreateOptions,
) -> Result<String, SeamError> {
    let calls = Calls::new(client, &Meter::default());
    let dead = make(&calls, &dead_name(queue), HashMap::new()).await?;
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
    make(&calls, queue, attributes).await
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
