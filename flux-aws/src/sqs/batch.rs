//! Calls that carry many entries: each entry of the reply is checked, and those
//! that SQS failed are tried again.

use std::time::Duration;

use aws_sdk_sqs::types::BatchResultErrorEntry;
use flux_core::backoff::Backoff;
use flux_core::seams::SeamError;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tracing::debug;

use super::SERVICE;

/// Entries that one call carries.
pub(super) const ENTRIES_MAX: usize = 10;
/// Bodies that one call carries, together.
const CALL_BYTES_MAX: usize = 256 * 1024;
/// Calls for one piece of work that are on their way at once.
const CALLS_MAX: usize = 4;
/// Tries of an entry that SQS fails within a call that went well.
const TRIES: u32 = 3;
/// Pauses between the tries.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));

/// The failure of one entry of a batch.
#[derive(Debug, Clone)]
pub(super) enum EntryError {
    /// SQS finds fault with the entry, which will never be done.
    Refused(String),
    /// Any other failure.
    Failed(SeamError),
}

impl From<EntryError> for SeamError {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Refused(reason) => Self::broken(SERVICE, reason),
            EntryError::Failed(error) => error,
        }
    }
}

/// The results of the entries of one piece of work, in order.
pub(super) type Results = Vec<Result<(), EntryError>>;

/// The results of the entries of one call as SQS tells them, by their index in it.
pub(super) type Replies = Vec<Option<Result<(), BatchResultErrorEntry>>>;

pub(super) fn replies<'r>(
    entries: usize,
    done: impl Iterator<Item = &'r str>,
    failed: &[BatchResultErrorEntry],
) -> Replies {
    let mut replies: Replies = vec![None; entries];
    let mut note = |id: &str, reply| {
        if let Some(slot) = id.parse().ok().and_then(|index: usize| replies.get_mut(index)) {
            *slot = Some(reply);
        }
    };
    done.for_each(|id| note(id, Ok(())));
    failed.iter().for_each(|entry| note(entry.id(), Err(entry.clone())));
    replies
}

/// Makes calls of up to ten entries, a few at once, and tries again the
/// entries that SQS failed, a few times.
pub(super) async fn in_calls<T, F>(entries: Vec<T>, bytes: impl Fn(&T) -> usize, call: F) -> Results
where
    T: Clone + Send + Sync,
    F: Fn(Vec<T>) -> BoxFuture<'static, Result<Replies, SeamError>> + Sync,
{
    let mut calls: Vec<Vec<T>> = Vec::new();
    let mut payload = 0;
    for entry in entries {
        payload += bytes(&entry);
        match calls.last_mut() {
            Some(last) if last.len() < ENTRIES_MAX && payload <= CALL_BYTES_MAX => last.push(entry),
            _ => {
                payload = bytes(&entry);
                calls.push(vec![entry]);
            }
        }
    }
    let tried =
        futures_util::stream::iter(calls.into_iter().map(|entries| tried(entries, &call).boxed()));
    tried.buffered(CALLS_MAX).concat().await
}

async fn tried<T, F>(entries: Vec<T>, call: &F) -> Results
where
    T: Clone + Send + Sync,
    F: Fn(Vec<T>) -> BoxFuture<'static, Result<Replies, SeamError>> + Sync,
{
    let unknown = || EntryError::Failed(SeamError::unknown(SERVICE));
    let mut results = vec![Err(unknown()); entries.len()];
    let mut left: Vec<usize> = (0..entries.len()).collect();
    for try_ in 1..=TRIES {
        let asked = left.iter().map(|index| entries[*index].clone()).collect();
        let replies = match call(asked).await {
            Ok(replies) => replies,
            Err(error) => {
                let error = EntryError::Failed(error);
                left.iter().for_each(|index| results[*index] = Err(error.clone()));
                break;
            }
        };
        let mut again = Vec::new();
        for (index, reply) in left.into_iter().zip(replies) {
            results[index] = match reply {
                Some(Ok(())) => Ok(()),
                Some(Err(fault)) if fault.sender_fault() => Err(EntryError::Refused(said(&fault))),
                Some(Err(fault)) => {
                    again.push(index);
                    let error = SeamError::unavailable(SERVICE).with_source(said(&fault));
                    Err(EntryError::Failed(error))
                }
                None => Err(unknown()),
            };
        }
        left = again;
        if left.is_empty() || try_ == TRIES {
            break;
        }
        debug!(entries = left.len(), "SQS failed entries of a batch; trying them again");
        tokio::time::sleep(PAUSE.full_jitter(try_)).await;
    }
    results
}

fn said(fault: &BatchResultErrorEntry) -> String {
    format!("{}: {}", fault.code(), fault.message().unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_entry_says_what_sqs_said() {
        let fault = BatchResultErrorEntry::builder().id("0").code("TooLong").sender_fault(true);
        let told = fault.clone().message("it is too long").build().expect("a fault");
        assert_eq!(said(&told), "TooLong: it is too long");
        assert_eq!(said(&fault.build().expect("a fault")), "TooLong: no message");
    }
}
