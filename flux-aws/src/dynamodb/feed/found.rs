//! Whether a table has a change feed: found out at the start, and again when it is asked for
//! if that failed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use flux_core::backoff::Backoff;
use flux_core::seams::SeamError;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::StreamFeed;
use crate::dynamodb::table::Table;

/// Tries of one look.
const TRIES_MAX: u32 = 4;
/// The first pause between such tries; it doubles.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
/// Time between a look that failed and the next.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The change feed of a table, once the table was found to have a stream for it.
#[derive(Debug)]
pub(in crate::dynamodb) struct FoundFeed {
    table: Table,
    streams: Option<aws_sdk_dynamodbstreams::Client>,
    feed: OnceLock<Arc<StreamFeed>>,
    /// When a look failed, until the next begins.
    failed: Mutex<Option<Instant>>,
}

impl FoundFeed {
    /// That of a table nobody has looked at. Without a client there is none.
    pub(in crate::dynamodb) fn new(
        table: Table,
        streams: Option<aws_sdk_dynamodbstreams::Client>,
    ) -> Self {
        Self { table, streams, feed: OnceLock::new(), failed: Mutex::default() }
    }

    /// The feed, if it was found. Looks again for the next who asks if it is not known
    /// whether there is one.
    pub(in crate::dynamodb) fn get(self: &Arc<Self>) -> Option<Arc<StreamFeed>> {
        let feed = self.feed.get().cloned();
        if feed.is_none()
            && let Ok(runtime) = Handle::try_current()
            && self.is_to_look()
        {
            let found = Arc::clone(self);
            runtime.spawn(async move {
                match found.look().await {
                    Ok(()) if found.feed.get().is_some() => {
                        info!("found the change feed of table {:?}", found.table.name);
                    }
                    Ok(()) => {}
                    Err(error) => found.warn(&error),
                }
            });
        }
        feed
    }

    /// Whether the last look failed long enough ago; of many who ask at once one looks.
    fn is_to_look(&self) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take_if(|at| at.elapsed() >= LOOK_AGAIN).is_some()
    }

    /// Says that a look failed.
    pub(in crate::dynamodb) fn warn(&self, error: &SeamError) {
        warn!(
            %error,
            "can't tell whether table {:?} has a stream, so there is no change feed until that is known; allow dynamodb:DescribeTable",
            self.table.name
        );
    }

    /// Looks for the table's stream, some times if need be, and opens the feed if it has one.
    pub(in crate::dynamodb) async fn look(&self) -> Result<(), SeamError> {
        let mut tries = 0;
        let looked = loop {
            tries += 1;
            match self.look_once().await {
                // It would be refused again.
                Err(error @ SeamError::Broken { .. }) => break Err(error),
                Err(_) if tries < TRIES_MAX => sleep(PAUSE.equal_jitter(tries)).await,
                looked => break looked,
            }
        };
        let failed = looked.is_err().then(Instant::now);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        looked
    }

    async fn look_once(&self) -> Result<(), SeamError> {
        let Some(streams) = &self.streams else { return Ok(()) };
        let found = self.table.client.describe_table().table_name(&self.table.name).send().await;
        let found = found.map_err(|error| self.table.failure(error))?.table;
        let Some(found) = found else { return Ok(()) };
        if !found.stream_specification.is_some_and(|stream| self.has_images(&stream)) {
            return Ok(());
        }
        if let (Some(arn), Some(label)) = (found.latest_stream_arn, found.latest_stream_label) {
            let feed = StreamFeed::new(streams, self.table.clone(), arn, label);
            // Of two that look at once one is enough.
            let _ = self.feed.set(Arc::new(feed));
        }
        Ok(())
    }

    /// Whether a stream is on and has all that the feed needs. Says what it lacks.
    fn has_images(&self, stream: &StreamSpecification) -> bool {
        let view = stream.stream_view_type.as_ref().map_or("no images", StreamViewType::as_str);
        let is_whole = stream.stream_view_type == Some(StreamViewType::NewAndOldImages);
        if stream.stream_enabled && !is_whole {
            let table = &self.table.name;
            warn!(
                "the stream of table {table:?} has {view} and a change feed needs NEW_AND_OLD_IMAGES, so there is none; once nobody reads that stream, turn it off, then: aws dynamodb update-table --table-name {table} --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"
            );
        }
        stream.stream_enabled && is_whole
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config};
    use serde_json::json;

    use super::*;
    use crate::bill::Meter;
    use crate::dynamodb::answered;

    /// A table with such a stream, of which the first calls fail, and the calls made.
    fn table(view: &str, failures: u32) -> (Arc<FoundFeed>, Arc<AtomicU32>) {
        let calls = Arc::<AtomicU32>::default();
        let stream = json!({"StreamEnabled": true, "StreamViewType": view});
        let described = json!({"Table": {
            "StreamSpecification": stream, "LatestStreamArn": "arn", "LatestStreamLabel": "label",
        }});
        let counted = Arc::clone(&calls);
        let client = answered::client_by(move || match counted.fetch_add(1, Ordering::Relaxed) {
            call if call < failures => (500, json!({"__type": "InternalServerError"}).to_string()),
            _ => (200, described.to_string()),
        });
        let table = Table { client, name: "t".to_owned(), meter: Meter::default() };
        let config = Config::builder().behavior_version(BehaviorVersion::latest());
        let streams = aws_sdk_dynamodbstreams::Client::from_conf(config.build());
        (Arc::new(FoundFeed::new(table, Some(streams))), calls)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_of_both_images_is_a_feed() {
        for view in ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"] {
            let (found, calls) = table(view, 0);
            assert!(found.get().is_none(), "nobody has looked");
            found.look().await.expect("told");
            assert_eq!(found.get().is_some(), view == "NEW_AND_OLD_IMAGES", "{view}");
            tokio::time::sleep(LOOK_AGAIN).await;
            assert_eq!(calls.load(Ordering::Relaxed), 1, "it is known that there is none");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_is_made_again() {
        let (found, calls) = table("NEW_AND_OLD_IMAGES", TRIES_MAX - 1);
        found.look().await.expect("told in the end");
        assert!(found.get().is_some());
        assert_eq!(calls.load(Ordering::Relaxed), TRIES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_later_has_it_looked_for_again() {
        let (found, calls) = table("NEW_AND_OLD_IMAGES", TRIES_MAX);
        found.look().await.expect_err("no call was answered");
        assert!(found.get().is_none());
        tokio::time::sleep(LOOK_AGAIN).await;
        assert_eq!(calls.load(Ordering::Relaxed), TRIES_MAX, "nobody asked since");
        assert!(found.get().is_none());
        assert!(found.get().is_none());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(found.get().is_some());
        assert_eq!(calls.load(Ordering::Relaxed), TRIES_MAX + 1, "one looked for both");
    }
}
