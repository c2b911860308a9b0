//! The stream of a table: its shards, and the calls that read them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::types::{Record, ShardIteratorType};
use flux_core::seams::SeamError;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::rows::SERVICE;
use super::frontier::Position;
use crate::aws;
use crate::bill::Meter;

/// Time for which a list of shards serves: AWS allows ten such calls a second, and a shard
/// lasts for hours.
const SHARDS_SERVE: Duration = Duration::from_secs(1);

/// A shard, as the stream's description has it.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
}

/// A stream that is on.
pub(super) struct Stream {
    client: Client,
    arn: String,
    pub(super) label: String,
    meter: Meter,
    shards: Mutex<Option<(Instant, Arc<Vec<Shard>>)>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("arn", &self.arn).finish_non_exhaustive()
    }
}

/// What a shard had behind a position.
pub(super) struct Records {
    pub(super) records: Vec<Record>,
    /// Goes on behind them; none at the end of the shard.
    pub(super) iterator: Option<String>,
}

/// The reasons why a position can't be read.
pub(super) enum ReadError {
    /// It was cut off: it is older than a day.
    Trimmed,
    /// The iterator is too old; another one is to be had.
    Expired,
    Failed(SeamError),
}

impl Stream {
    /// The stream of that name and label, read by `client` with our time-outs.
    pub(super) fn new(client: &Client, arn: String, label: String, meter: Meter) -> Self {
        let config = client.config().to_builder().retry_config(aws::no_retries());
        let config = config.timeout_config(aws::time_outs(aws::CALL_MAX)).build();
        Self { client: Client::from_conf(config), arn, label, meter, shards: Mutex::default() }
    }

    /// Its shards, parents before their children.
    pub(super) async fn shards(&self) -> Result<Arc<Vec<Shard>>, SeamError> {
        self.shards_within(SHARDS_SERVE).await
    }

    /// Its shards, as they were listed so long ago at most.
    pub(super) async fn shards_within(&self, age: Duration) -> Result<Arc<Vec<Shard>>, SeamError> {
        let mut known = self.shards.lock().await;
        if let Some((at, shards)) = &*known
            && at.elapsed() < age
        {
            return Ok(Arc::clone(shards));
        }
        let (mut shards, mut from) = (Vec::new(), None);
        loop {
            let page = self.client.describe_stream().stream_arn(&self.arn);
            let page = page.set_exclusive_start_shard_id(from).send().await;
            self.meter.dynamodb("DescribeStream", 0.0, 0.0);
            let Some(page) = page.map_err(failure)?.stream_description else { break };
            for shard in page.shards.unwrap_or_default() {
                let parent = shard.parent_shard_id;
                shards.extend(shard.shard_id.map(|id| Shard { id, parent }));
            }
            from = page.last_evaluated_shard_id;
            if from.is_none() {
                break;
            }
        }
        let shards = Arc::new(shards);
        *known = Some((Instant::now(), Arc::clone(&shards)));
        Ok(shards)
    }

    /// An iterator at a position, or behind all there is.
    pub(super) async fn iterator(
        &self,
        shard: &str,
        position: Option<&Position>,
    ) -> Result<String, ReadError> {
        let (kind, sequence) = match position {
            None => (ShardIteratorType::Latest, None),
            Some(Position::After(sequence) | Position::Skipping { after: Some(sequence), .. }) => {
                (ShardIteratorType::AfterSequenceNumber, Some(sequence.clone()))
            }
            Some(Position::Start | Position::Newest { .. } | Position::Skipping { .. }) => {
                (ShardIteratorType::TrimHorizon, None)
            }
        };
        let got = self
            .client
            .get_shard_iterator()
            .stream_arn(&self.arn)
            .shard_id(shard)
            .shard_iterator_type(kind)
            .set_sequence_number(sequence)
            .send()
            .await;
        self.meter.dynamodb("GetShardIterator", 0.0, 0.0);
        let iterator = got.map_err(read_failure)?.shard_iterator;
        iterator.ok_or_else(|| {
            ReadError::Failed(SeamError::broken(SERVICE, "a shard without an iterator"))
        })
    }

    /// The records behind an iterator.
    pub(super) async fn records(&self, iterator: String, limit: i32) -> Result<Records, ReadError> {
        let got = self.client.get_records().shard_iterator(iterator).limit(limit).send().await;
        self.meter.dynamodb("GetRecords", 0.0, 0.0);
        let got = got.map_err(read_failure)?;
        Ok(Records { records: got.records.unwrap_or_default(), iterator: got.next_shard_iterator })
    }
}

fn failure<E>(error: SdkError<E, aws_smithy_runtime_api::http::Response>) -> SeamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    aws::failure(SERVICE, error)
}

fn read_failure<E>(error: SdkError<E, aws_smithy_runtime_api::http::Response>) -> ReadError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        // A shard that is older than a day is no resource any more.
        Some("TrimmedDataAccessException" | "ResourceNotFoundException") => ReadError::Trimmed,
        Some("ExpiredIteratorException") => ReadError::Expired,
        // Reads change nothing.
        _ => ReadError::Failed(match failure(error) {
            SeamError::Unknown { service, source } => SeamError::Unavailable { service, source },
            error => error,
        }),
    }
}
