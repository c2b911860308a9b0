//! How much waits, as well as it can be known, and the bound on it. SQS counts
//! packs, so their usual size here makes messages of them.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use flux_core::seams::{QueueDepth, SeamError};
use tokio::time::Instant;
use tracing::debug;

use super::SERVICE;
use super::queue::{Queue, lock, now};

/// The queue's depth is read this often at most, while messages are sent …
const READ_EVERY: Duration = Duration::from_secs(1);
/// … and only when so many were sent since.
const READ_AFTER: u64 = 100;
/// How much of the mean size of packs comes from the newest.
const NEWEST: f64 = 1.0 / 16.0;

#[derive(Debug)]
pub(super) struct Depth {
    messages_max: u64,
    /// The mean number of messages of the packs that came and went.
    pack_messages: f64,
    read_at: Option<Instant>,
    sent_since: u64,
    is_full: bool,
}

impl Depth {
    pub(super) fn new(messages_max: u64) -> Self {
        let (read_at, sent_since, is_full) = (None, 0, false);
        Self { messages_max, pack_messages: 1.0, read_at, sent_since, is_full }
    }

    /// A pack of so many messages was sent or received.
    pub(super) fn saw_pack(&mut self, messages: usize) {
        self.pack_messages += (messages as f64 - self.pack_messages) * NEWEST;
    }

    /// Whether it is time to look, ahead of so many messages. Whoever is told
    /// so does it.
    fn is_due(&mut self, messages: u64, now: Instant) -> bool {
        self.sent_since += messages;
        let in_time = self.read_at.is_none_or(|at| now - at >= READ_EVERY);
        let due = in_time && (self.is_full || self.sent_since >= READ_AFTER);
        if due {
            (self.read_at, self.sent_since) = (Some(now), 0);
        }
        due
    }
}

impl Queue {
    /// Refuses so many messages if the queue was full when it was last read.
    pub(super) async fn admit(&self, messages: u64) -> Result<(), SeamError> {
        if lock(&self.load).is_due(messages, Instant::now()) {
            match self.counts(&self.url).await {
                Ok((waiting, in_flight)) => {
                    let (waiting, in_flight, _) = self.messages(waiting, in_flight);
                    let mut load = lock(&self.load);
                    load.is_full = waiting + in_flight >= load.messages_max;
                }
                Err(error) => debug!(%error, "the depth of the queue could not be read"),
            }
        }
        if lock(&self.load).is_full {
            return Err(SeamError::Overloaded { service: SERVICE, retry_after: READ_EVERY });
        }
        Ok(())
    }

    pub(super) async fn depth(&self) -> Result<QueueDepth, SeamError> {
        let (here, dead) = tokio::try_join!(self.counts(&self.url), async {
            match &self.dead_url {
                Some(url) => self.counts(url).await,
                None => Ok((0, 0)),
            }
        })?;
        let (waiting, in_flight, oldest) = self.messages(here.0, here.1);
        let depth = QueueDepth::builder().waiting(waiting).in_flight(in_flight);
        Ok(depth.dead(dead.0 + dead.1).oldest(oldest).build())
    }

    /// Messages waiting and in flight, and the age of the oldest out here, if
    /// so many packs wait and are in flight.
    fn messages(&self, waiting: u64, in_flight: u64) -> (u64, u64, Duration) {
        let local = lock(&self.flight).counts(Instant::now());
        let mean = lock(&self.load).pack_messages;
        let messages = |packs: u64| (packs as f64 * mean).round() as u64;
        let elsewhere = in_flight.saturating_sub(local.packs as u64);
        let oldest = local.oldest.map_or(Duration::ZERO, |oldest| now().since(oldest));
        let here = (local.buffered as u64, local.out as u64);
        (messages(waiting) + here.0, messages(elsewhere) + here.1, oldest)
    }

    /// SQS messages waiting, and in flight.
    async fn counts(&self, url: &str) -> Result<(u64, u64), SeamError> {
        use QueueAttributeName as Name;
        let names = [
            Name::ApproximateNumberOfMessages,
            Name::ApproximateNumberOfMessagesDelayed,
            Name::ApproximateNumberOfMessagesNotVisible,
        ];
        let found = self.calls.attributes(url, &names).await?;
        let [visible, delayed, in_flight] =
            names.map(|name| found.get(&name).and_then(|n| n.parse().ok()).unwrap_or(0_u64));
        Ok((visible + delayed, in_flight))
    }
}
