//! The queue without its tasks: packs are sent, come in, and end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_sqs::types::QueueAttributeName;
use flux_core::Timestamp;
use flux_core::protocol::Message;
use flux_core::seams::{QueueDepth, Receipt, SeamError};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::batch::EntryError;
use super::calls::{Calls, Outgoing, Received, missing};
use super::depth::{Depth, READ_EVERY};
use super::in_flight::{End, InFlight, Settle};
use super::pack::{self, Entry, Opened, Pack, Packing};
use super::sent::Sent;
use super::{Kind, SERVICE};

/// Deliveries after which a pack is taken apart, so that poison is alone.
const SPLIT_AT: u32 = 3;
/// The longest that SQS delays a message.
const DELAY_MAX: Duration = Duration::from_secs(900);
/// The longest that a message is hidden: SQS grants twelve hours since it was received.
const HIDDEN_MAX: Duration = Duration::from_secs(11 * 3600);

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state behind these locks is whole after each statement.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) calls: Calls,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) dead_url: Option<String>,
    pub(super) kind: Kind,
    pub(super) visibility: Duration,
    pub(super) in_flight: Mutex<InFlight>,
    pub(super) sent: Mutex<Sent>,
    pub(super) depth: Mutex<Depth>,
}

/// An SQS message that can't be handed out as it is.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Parts of a body that can't be read, and why; and the rest, which could.
    Unreadable { handle: String, parts: Vec<(String, String)>, rest: Vec<(u32, Message)> },
    /// A pack to take apart.
    Split { handle: String, messages: Vec<(u32, Message)> },
}

impl Queue {
    pub(super) fn packing(&self) -> Packing {
        match self.kind {
            Kind::Standard => Packing::Full,
            Kind::Fifo => Packing::ByGroup,
        }
    }

    /// Sends the entries, and returns the tags of those that were not sent, and why.
    pub(super) async fn send_entries<T>(
        &self,
        entries: Vec<Entry<T>>,
        packing: Packing,
        delay: Duration,
    ) -> Vec<(T, SeamError)> {
        let packs = pack::pack(entries, packing);
        let mut outgoing = Vec::with_capacity(packs.len());
        let mut tags = Vec::with_capacity(packs.len());
        for Pack { body, group, tags: theirs } in packs {
            lock(&self.depth).saw_pack(theirs.len());
            let (group, delay) = match self.kind {
                Kind::Standard => (None, delay.min(DELAY_MAX)),
                // A FIFO queue knows no delay of one message.
                Kind::Fifo => (Some(group.name()), Duration::ZERO),
            };
            outgoing.push(Outgoing { body, group, delay, reason: None });
            tags.push(theirs);
        }
        let results = self.calls.send(&self.url, outgoing).await;
        let failed = tags.into_iter().zip(results).filter_map(|(tags, result)| {
            let error = SeamError::from(result.err()?);
            Some(tags.into_iter().map(move |tag| (tag, error.clone())))
        });
        failed.flatten().collect()
    }

    /// Sends the messages of a batch of calls together.
    pub(super) async fn send_together(
        &self,
        calls: Vec<Vec<Entry<()>>>,
    ) -> Vec<Result<(), SeamError>> {
        let mut results = vec![Ok(()); calls.len()];
        let entries = calls.into_iter().enumerate();
        let entries = entries.flat_map(|(call, all)| all.into_iter().map(move |e| e.tagged(call)));
        let entries = entries.collect();
        for (call, error) in self.send_entries(entries, self.packing(), Duration::ZERO).await {
            results[call] = Err(error);
        }
        results
    }

    async fn send_again(
        &self,
        messages: &[(u32, Message)],
        packing: Packing,
        delay: Duration,
    ) -> Result<(), SeamError> {
        let entries = messages.iter().map(|(attempts, message)| Entry::new(message, *attempts, ()));
        let entries = entries.collect::<Result<_, _>>()?;
        let failed = self.send_entries(entries, packing, delay).await;
        failed.into_iter().next().map_or(Ok(()), |((), error)| Err(error))
    }

    /// Buffers the packs that can be handed out, and returns the others.
    pub(super) fn take_in(&self, received: Vec<Received>) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let now = Instant::now();
        for Received { handle, body, receives, sent_at, .. } in received {
            let Opened { messages, bad } = pack::open(&body).unwrap_or_else(|reason| Opened {
                messages: Vec::new(),
                bad: vec![(body, reason)],
            });
            let is_suspect = receives >= SPLIT_AT && messages.len() > 1;
            if is_suspect || !bad.is_empty() {
                let so_far = |(attempts, message): (u32, _)| {
                    (attempts.saturating_add(receives - 1), message)
                };
                let rest = messages.into_iter().map(so_far).collect();
                troubles.push(match bad.is_empty() {
                    true => Trouble::Split { handle, messages: rest },
                    false => Trouble::Unreadable { handle, parts: bad, rest },
                });
                continue;
            }
            lock(&self.depth).saw_pack(messages.len());
            lock(&self.in_flight).add(handle, sent_at, receives, messages, now);
        }
        troubles
    }

    pub(super) async fn settle_trouble(&self, trouble: Trouble) {
        let result = match trouble {
            Trouble::Unreadable { handle, parts, rest } => {
                self.put_aside(handle, parts, &rest).await
            }
            Trouble::Split { handle, messages } => self.split(handle, &messages).await,
        };
        if let Err(error) = result {
            debug!(%error, "a message that can't be handed out was left; it comes again");
        }
    }

    async fn put_aside(
        &self,
        handle: String,
        parts: Vec<(String, String)>,
        rest: &[(u32, Message)],
    ) -> Result<(), SeamError> {
        for (_, reason) in &parts {
            metrics::counter!("flux_sqs_unreadable_total").increment(1);
            warn!(queue = self.name, reason, "unreadable: goes to the dead-letter queue");
        }
        self.bury_bodies(parts).await?;
        self.send_again(rest, self.packing(), Duration::ZERO).await?;
        self.delete(vec![handle]).await
    }

    async fn split(&self, handle: String, messages: &[(u32, Message)]) -> Result<(), SeamError> {
        debug!(messages = messages.len(), "a pack came again and again; taking it apart");
        self.send_again(messages, Packing::Alone, Duration::ZERO).await?;
        self.delete(vec![handle]).await
    }

    pub(super) async fn delete(&self, handles: Vec<String>) -> Result<(), SeamError> {
        ignoring_stale(self.calls.delete(&self.url, handles).await)
    }

    /// Settles deliveries, and ends the packs that are settled by it.
    pub(super) async fn settle(
        &self,
        receipts: impl IntoIterator<Item = &Receipt>,
        how: Settle,
    ) -> Result<(), SeamError> {
        let (done, ended) = lock(&self.in_flight).settle(receipts, how, Instant::now());
        lock(&self.sent).forget(&done);
        let (mut deleted, mut returned, mut first_error) = (Vec::new(), Vec::new(), None);
        for (number, handle, end) in ended {
            match end {
                End::Delete => deleted.push((number, handle)),
                End::Return(delay) => returned.push((number, handle, delay.min(HIDDEN_MAX))),
                End::Resend(messages, delay) => {
                    match self.send_again(&messages, self.packing(), delay).await {
                        Ok(()) => deleted.push((number, handle)),
                        Err(error) => first_error = first_error.or(Some(error)),
                    }
                }
            }
        }
        let handles = deleted.iter().map(|(_, handle)| handle.clone()).collect();
        let delays = returned.iter().map(|(_, handle, delay)| (handle.clone(), *delay)).collect();
        let (deletions, returns) = tokio::join!(
            self.calls.delete(&self.url, handles),
            self.calls.change_visibility(&self.url, delays)
        );
        let numbers = deleted.iter().map(|(number, _)| *number);
        let numbers = numbers.chain(returned.iter().map(|(number, ..)| *number));
        for (number, result) in numbers.zip(deletions.into_iter().chain(returns)) {
            match ignoring_stale([result]) {
                Ok(()) => lock(&self.in_flight).forget(number),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Restarts the visibility time-out of packs.
    pub(super) async fn extend(&self, packs: Vec<(u64, String)>) -> Result<(), SeamError> {
        let since = Instant::now();
        let (numbers, handles): (Vec<u64>, Vec<_>) =
            packs.into_iter().map(|(number, handle)| (number, (handle, self.visibility))).unzip();
        let results = self.calls.change_visibility(&self.url, handles).await;
        for (number, result) in numbers.iter().zip(&results) {
            match result {
                Ok(()) => lock(&self.in_flight).extended(*number, since),
                // It came again, or will.
                Err(EntryError::Refused(_)) => lock(&self.in_flight).forget(*number),
                Err(EntryError::Failed(_)) => {}
            }
        }
        ignoring_stale(results)
    }

    /// Refuses so many messages if the queue was full when it was last read.
    pub(super) async fn admit(&self, messages: u64) -> Result<(), SeamError> {
        if lock(&self.depth).is_due(messages, Instant::now()) {
            match self.counts(&self.url).await {
                Ok(packs) => {
                    let here = lock(&self.in_flight).counts(Instant::now());
                    let mut depth = lock(&self.depth);
                    let (waiting, in_flight) = depth.messages(packs, here);
                    depth.read(waiting + in_flight);
                }
                Err(error) => debug!(%error, "the depth of the queue could not be read"),
            }
        }
        if lock(&self.depth).is_full() {
            return Err(SeamError::Overloaded { service: SERVICE, retry_after: READ_EVERY });
        }
        Ok(())
    }

    pub(super) async fn depth(&self) -> Result<QueueDepth, SeamError> {
        let (packs, dead) = tokio::try_join!(self.counts(&self.url), async {
            match &self.dead_url {
                Some(url) => self.counts(url).await,
                None => Ok((0, 0)),
            }
        })?;
        let here = lock(&self.in_flight).counts(Instant::now());
        let (waiting, in_flight) = lock(&self.depth).messages(packs, here);
        let oldest = here.oldest.map_or(Duration::ZERO, |oldest| now().since(oldest));
        let depth = QueueDepth::builder().waiting(waiting).in_flight(in_flight);
        Ok(depth.dead(dead.0 + dead.1).oldest(oldest).build())
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

    /// # Errors
    /// [`SeamError::Broken`] when there is no dead-letter queue.
    pub(super) fn dead_url(&self) -> Result<&str, SeamError> {
        self.dead_url.as_deref().ok_or_else(|| {
            let dead = super::create::dead_name(&self.name);
            SeamError::broken(SERVICE, missing(&dead))
        })
    }
}

/// Passes over refusals: SQS refuses what is about a message that came again,
/// or is gone, and nothing is left to do about that.
pub(super) fn ignoring_stale(
    results: impl IntoIterator<Item = Result<(), EntryError>>,
) -> Result<(), SeamError> {
    let mut first_error = None;
    for result in results {
        match result {
            Ok(()) => {}
            Err(EntryError::Refused(reason)) => debug!(reason, "a stale receipt is ignored"),
            Err(EntryError::Failed(error)) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(()), Err)
}
