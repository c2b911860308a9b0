//! The order queue on SQS, standard or FIFO.
//!
//! One SQS message carries a pack of up to 100 messages, and one call up to
//! ten packs. Whoever sends while a call is on its way goes with the next; an
//! idle sender waits for nobody. A body stays below 64 KiB, which is what one
//! request is billed for.
//!
//! For a worker that means: a pack is deleted when each of its messages is
//! settled, and if it is not, all of them come again. A pack of several that
//! comes for the third time is taken apart, so that a message that breaks its
//! worker is alone. What can't be read goes to the dead-letter queue as it is,
//! with the reason as its attribute `reason`, and holds nobody up.
//!
//! A queue may have partitions, an SQS queue each: `orders-0` to `orders-15`, opened by
//! [`open_partitions`] and each with a dead-letter queue of its own, so that what is put
//! back, here or by AWS, is in the partition that it came from.
//!
//! The dead-letter queue is the one that the queue's redrive policy names, or
//! else the one called like the queue with `-dead` (`orders-dead`,
//! `orders-dead.fifo`). [`create()`] makes both.
//!
//! In a FIFO queue a pack holds the messages on one item, as told by the first
//! line of an order; follow-ups on an order are a group of their own. While a
//! pack is out, SQS delivers nothing else of its group. A FIFO queue delays no
//! single message: [`retry`](SqsQueue::retry) of a part of a pack ignores the
//! delay there, and elsewhere cuts it to SQS's 15 minutes.

mod batch;
mod calls;
mod create;
mod dead;
mod depth;
mod in_flight;
mod pack;
mod partitions;
mod poll;
mod queue;
mod sent;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use bon::bon;
use flux_core::protocol::Message;
use flux_core::seams::{DeadLetter, Delivery, OrderQueue, QueueDepth, Receipt, SeamError};
use flux_core::{Order, OrderId};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

pub use self::create::{CreateOptions, create};
pub use self::partitions::{PARTITIONS, PARTITIONS_MAX, open_partitions};

use self::batch::ENTRIES_MAX;
use self::calls::{Calls, is_url, missing};
use self::depth::Depth;
use self::in_flight::{InFlight, Settle};
use self::pack::{Entry, PACK_MAX};
use self::poll::Polls;
use self::queue::{Queue, lock};
use crate::batcher::{Batcher, NotBatched};
use crate::bill::Meter;

const SERVICE: &str = "SQS";
/// Calls of `send` that wait for the batch before theirs.
const SENDERS_MAX: usize = 10_000;
/// The advice to callers who are turned away because more than that wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Fifo,
}

/// An [`OrderQueue`] on SQS.
///
/// - [`find`](OrderQueue::find) knows only what this process sent within the
///   last 15 minutes and did not see done: SQS can't be looked into. So
///   [`tells_of`](OrderQueue::tells_of) no order, and the store takes note of each, unless
///   Redis remembers them (`Redis::remember`).
/// - [`depth`](OrderQueue::depth) is an estimate: SQS counts packs, late and
///   roughly, and the mean size of the packs that went through this process
///   makes messages of them. What this process holds itself it counts exactly.
///   `oldest` is the age of the oldest message that is out here, as SQS tells
///   no more; its own metric `ApproximateAgeOfOldestMessage` does.
/// - [`receive`](OrderQueue::receive): all who wait share one long poll of up to
///   20 seconds. SQS waits whole seconds: what is left of a wait, or a wait
///   below a second, is spent on short polls, each of them billed.
/// - A dropped [`send`](OrderQueue::send) may still be made. What a dropped
///   `receive` brings is there for the next.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use flux_aws::{aws, bill::Meter, sqs::{self, SqsQueue}};
///
/// let client = aws_sdk_sqs::Client::new(&aws::from_env().await);
/// let options = sqs::CreateOptions { partitions: Some(1), ..Default::default() };
/// sqs::create(&client, "orders", &options).await?;
/// let queue = SqsQueue::open(client, "orders", &Meter::default()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqsQueue {
    queue: Arc<Queue>,
    sender: Batcher<Vec<Entry<()>>, Result<(), SeamError>>,
    polls: Polls,
}

#[bon]
impl SqsQueue {
    /// Opens the queue of this name or URL. The client is used with time-outs
    /// of ours and without its retries. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when there is no such queue, and whatever else
    /// keeps its attributes from being read. A missing dead-letter queue is
    /// none: a warning is logged, and [`bury`](OrderQueue::bury) fails.
    pub async fn open(client: Client, queue: &str, meter: &Meter) -> Result<Self, SeamError> {
        Self::builder(client, queue, meter).open().await
    }

    /// [`open`](Self::open), with settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[builder(start_fn = builder, finish_fn = open)]
    pub async fn build(
        #[builder(start_fn)] client: Client,
        #[builder(start_fn)] queue: &str,
        #[builder(start_fn)] meter: &Meter,
        /// The most messages in the queue, 1,000,000 unless told; beyond it sending answers
        /// [`SeamError::Overloaded`]. The depth is read once a second at most
        /// while messages are sent, so it may be passed by what is sent in
        /// that time.
        #[builder(default = 1_000_000)]
        messages_max: u64,
    ) -> Result<Self, SeamError> {
        let calls = Calls::new(&client, meter);
        let (name, url) = match is_url(queue) {
            true => (queue.rsplit('/').next().unwrap_or(queue), queue.to_owned()),
            false => {
                let url = calls.url(queue, None).await?;
                (queue, url.ok_or_else(|| SeamError::broken(SERVICE, missing(queue)))?)
            }
        };
        let found = calls.attributes(&url, &[Name::VisibilityTimeout, Name::RedrivePolicy]).await?;
        let seconds = found.get(&Name::VisibilityTimeout).and_then(|seconds| seconds.parse().ok());
        let visibility = Duration::from_secs(seconds.unwrap_or(30).max(1));
        let dead_url = dead_url(&calls, name, found.get(&Name::RedrivePolicy)).await?;
        let kind = if create::is_fifo(name) { Kind::Fifo } else { Kind::Standard };
        let queue = Arc::new(Queue {
            calls,
            name: name.to_owned(),
            url,
            dead_url,
            kind,
            visibility,
            in_flight: Mutex::new(InFlight::new(visibility, Uuid::now_v7().as_u128() as u64)),
            sent: Mutex::default(),
            depth: Mutex::new(Depth::new(messages_max)),
        });
        let sending = Arc::clone(&queue);
        let sender = Batcher::new(SENDERS_MAX, ENTRIES_MAX * PACK_MAX, 1, move |calls| {
            let queue = Arc::clone(&sending);
            async move { queue.send_together(calls).await }
        });
        Ok(Self { polls: Polls::new(Arc::clone(&queue)), queue, sender })
    }

    async fn send_with_others(&self, entries: Vec<Entry<()>>) -> Result<(), SeamError> {
        match self.sender.call(entries).await {
            Ok(result) => result,
            Err(NotBatched::Full) => {
                Err(SeamError::Overloaded { service: SERVICE, retry_after: RETRY_AFTER })
            }
            Err(NotBatched::Lost) => Err(SeamError::unknown(SERVICE)),
        }
    }
}

async fn dead_url(
    calls: &Calls,
    name: &str,
    redrive_policy: Option<&String>,
) -> Result<Option<String>, SeamError> {
    let policy = redrive_policy.and_then(|policy| serde_json::from_str(policy).ok());
    let policy: serde_json::Value = policy.unwrap_or_default();
    // arn:aws:sqs:region:account:name
    let arn: Vec<&str> =
        policy["deadLetterTargetArn"].as_str().unwrap_or_default().split(':').collect();
    let found = match arn[..] {
        [_, _, _, _, account, dead] => calls.url(dead, Some(account)).await,
        _ => calls.url(&create::dead_name(name), None).await,
    };
    match found {
        Ok(Some(url)) => return Ok(Some(url)),
        Ok(None) => warn!(queue = name, "no dead-letter queue: nothing can be given up"),
        Err(error) if error.can_retry() => return Err(error),
        Err(error) => warn!(queue = name, %error, "the dead-letter queue can't be used"),
    }
    Ok(None)
}

#[async_trait]
impl OrderQueue for SqsQueue {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        if messages.is_empty() {
            return Ok(());
        }
        let entries = messages.iter().map(|message| Entry::new(message, 0, ()));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        self.queue.admit(messages.len() as u64).await?;
        // Ahead of the call: a worker here may be done with it by its end.
        lock(&self.queue.sent).remember(messages, Instant::now());
        let result = self.send_with_others(entries).await;
        if result.is_err() {
            lock(&self.queue.sent).forget(messages);
        }
        result
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        self.polls.receive(max, wait).await
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.queue.settle(receipts, Settle::Done).await
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        self.queue.settle(receipts, Settle::Back(delay)).await
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        let packs = lock(&self.queue.in_flight).out(receipts, Instant::now());
        self.queue.extend(packs).await
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        self.queue.bury(receipts).await
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        self.queue.dead_letters(max).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        let redriven = self.queue.redrive(max).await?;
        debug!(redriven, "dead letters are back in the queue");
        Ok(redriven)
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        Ok(lock(&self.queue.sent).find(id, Instant::now()))
    }

    fn tells_of(&self, _: OrderId) -> bool {
        false
    }

    fn finds_all(&self) -> bool {
        false
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        self.queue.depth().await
    }
}
