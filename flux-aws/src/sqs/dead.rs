//! The dead-letter queue: the messages that were given up, why, and their way back.

use std::collections::HashMap;
use std::time::Duration;

use flux_core::Timestamp;
use flux_core::protocol::Message;
use flux_core::seams::{DeadLetter, Receipt, SeamError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::batch::EntryError;
use super::calls::{Outgoing, Received};
use super::in_flight::Settle;
use super::pack::{self, Entry};
use super::queue::{Queue, ignoring_stale, lock, now};
use super::{Kind, SERVICE};

/// Time for which letters are out of others' sight while they are looked through.
const LOOK: Duration = Duration::from_secs(30);
/// Wait of a long poll, which asks all of SQS's servers: an empty answer means none.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// SQS messages looked through at once, to find the oldest.
const LOOKED_AT: std::ops::RangeInclusive<usize> = 100..=1_000;
/// Bytes of a reason; the rest is cut off.
const REASON_BYTES_MAX: usize = 1024;

/// A message in the dead-letter queue.
#[derive(Serialize, Deserialize)]
struct Letter {
    v: Version,
    message: Message,
    reason: String,
    buried_at: Timestamp,
}

/// The format that is written, and the only one that is read.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[derive(Clone)]
struct Version;

impl From<Version> for u32 {
    fn from(Version: Version) -> u32 {
        1
    }
}

impl TryFrom<u32> for Version {
    type Error = &'static str;
    fn try_from(version: u32) -> Result<Self, Self::Error> {
        if version == 1 { Ok(Self) } else { Err("a letter of an unknown format") }
    }
}

/// An SQS message of the dead-letter queue that can be read.
struct Found {
    handle: String,
    letters: Vec<DeadLetter>,
}

impl Queue {
    /// Gives up deliveries that are still out.
    pub(super) async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        let dead = self.dead_url()?;
        let buried_at = now();
        // Those settled before go along: the end of their pack may have failed,
        // and this be the next try.
        let (mut settled, mut buried, mut outgoing) = (Vec::new(), Vec::new(), Vec::new());
        for (receipt, reason) in receipts {
            let message = lock(&self.in_flight).message(receipt, Instant::now()).cloned();
            let Some(message) = message else {
                settled.push(receipt);
                continue;
            };
            let letter = Letter { v: Version, message, reason: cut(reason).to_owned(), buried_at };
            let body = serde_json::to_string(&letter)
                .map_err(|error| SeamError::broken(SERVICE, error.to_string()))?;
            outgoing.push(self.letter(body));
            buried.push(receipt);
        }
        let mut first_error = None;
        for (receipt, result) in buried.into_iter().zip(self.calls.send(dead, outgoing).await) {
            match result {
                Ok(()) => settled.push(receipt),
                Err(error) => first_error = first_error.or(Some(error.into())),
            }
        }
        let ended = self.settle(settled, Settle::Done).await;
        first_error.map_or(ended, Err)
    }

    fn letter(&self, body: String) -> Outgoing {
        // Each in a group of its own: none holds others up.
        let group = (self.kind == Kind::Fifo).then(|| Uuid::now_v7().to_string());
        Outgoing { body, group, ..Outgoing::default() }
    }

    /// Moves bodies that can't be read to the dead-letter queue as they are.
    pub(super) async fn bury_bodies(&self, parts: Vec<(String, String)>) -> Result<(), SeamError> {
        let dead = self.dead_url()?;
        let letter = |(body, reason): (String, String)| Outgoing {
            reason: Some(cut(&reason).to_owned()),
            ..self.letter(body)
        };
        let results = self.calls.send(dead, parts.into_iter().map(letter).collect()).await;
        let first_error = results.into_iter().find_map(Result::err);
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }

    pub(super) async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        let dead = self.dead_url()?;
        let (found, unreadable) = self.look_through(dead, max).await?;
        let mut handles = unreadable;
        let mut letters = Vec::new();
        for found in found {
            handles.push(found.handle);
            letters.extend(found.letters);
        }
        letters.truncate(max);
        self.put_back(dead, handles).await;
        Ok(letters)
    }

    pub(super) async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        let dead = self.dead_url()?;
        let mut redriven = 0;
        while redriven < max {
            let (found, mut back) = self.look_through(dead, max - redriven).await?;
            let (mut moved, mut entries, mut count) = (Vec::new(), Vec::new(), 0);
            for found in found {
                // A message that SQS moved here by itself is a pack, and comes back whole.
                if redriven + count >= max {
                    back.push(found.handle);
                    continue;
                }
                count += found.letters.len();
                for letter in &found.letters {
                    entries.push(Entry::new(&letter.message, 0, moved.len())?);
                }
                moved.push((found.handle, found.letters.len()));
            }
            let failed = self.send_entries(entries, self.packing(), Duration::ZERO).await;
            let first_error = failed.first().map(|(_, error)| error.clone());
            for (index, _) in &failed {
                moved[*index].1 = 0;
            }
            let (sent, kept): (Vec<_>, Vec<_>) = moved.into_iter().partition(|(_, n)| *n > 0);
            let count: usize = sent.iter().map(|(_, letters)| letters).sum();
            redriven += count;
            back.extend(kept.into_iter().map(|(handle, _)| handle));
            let sent = sent.into_iter().map(|(handle, _)| handle).collect();
            let deleted = ignoring_stale(self.calls.delete(dead, sent).await);
            self.put_back(dead, back).await;
            deleted?;
            if let Some(error) = first_error {
                return Err(error);
            }
            if count == 0 {
                break;
            }
        }
        Ok(redriven)
    }

    /// Reads the letters, oldest first: all of them if there are
    /// few, else those that SQS gives first. Also the handles of those that can't be
    /// read.
    async fn look_through(
        &self,
        dead: &str,
        max: usize,
    ) -> Result<(Vec<Found>, Vec<String>), SeamError> {
        let most = max.saturating_mul(2).clamp(*LOOKED_AT.start(), *LOOKED_AT.end());
        let mut seen: HashMap<String, Received> = HashMap::new();
        while seen.len() < most {
            let received = self.calls.receive(dead, LOOK_WAIT, LOOK).await?;
            let known = seen.len();
            seen.extend(received.into_iter().map(|one| (one.id.clone(), one)));
            if seen.len() == known {
                break;
            }
        }
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for received in seen.into_values() {
            match read(&received) {
                Some(letters) => found.push(Found { handle: received.handle, letters }),
                None => unreadable.push(received.handle),
            }
        }
        if !unreadable.is_empty() {
            let count = unreadable.len();
            warn!(queue = dead, count, "dead letters that can't be read are left alone");
        }
        // Of those given up in one millisecond the same come first each time.
        let rank = |letter: &DeadLetter| (letter.buried_at, letter.message.order_id());
        found.sort_by_key(|found| found.letters.first().map(rank));
        Ok((found, unreadable))
    }

    async fn put_back(&self, dead: &str, handles: Vec<String>) {
        let handles = handles.into_iter().map(|handle| (handle, Duration::ZERO)).collect();
        for result in self.calls.change_visibility(dead, handles).await {
            if let Err(EntryError::Failed(error)) = result {
                debug!(%error, "a dead letter was not put back; it can be seen in {LOOK:?}");
            }
        }
    }
}

/// Reads a letter of ours, or a pack that SQS moved here by its own count.
fn read(received: &Received) -> Option<Vec<DeadLetter>> {
    if let Ok(letter) = serde_json::from_str(&received.body) {
        let Letter { message, reason, buried_at, .. } = letter;
        return Some(vec![DeadLetter::new(message, reason, buried_at)]);
    }
    let opened = pack::open(&received.body).ok()?;
    let reason = "SQS gave it up: it came more often than its redrive policy allows";
    let letter = |(_, message)| DeadLetter::new(message, reason, received.sent_at);
    opened.bad.is_empty().then(|| opened.messages.into_iter().map(letter).collect())
}

fn cut(reason: &str) -> &str {
    match reason.is_empty() {
        // SQS takes no empty attribute.
        true => "no reason given",
        false => &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)],
    }
}
