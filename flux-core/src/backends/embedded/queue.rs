//! The durable queue. Only arrivals, burials and the end of the last message of
//! a row are written; what comes twice after a crash is found decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::journal::Journal;
use super::rows::{dead_row, sent_row};
use crate::backends::state::queue::{QueueState, REDRIVEN_AT_ONCE, Waiting};
use crate::clock::Clock;
use crate::protocol::{Message, Order, OrderId};
use crate::seams::{DeadLetter, Delivery, OrderQueue, QueueDepth, Receipt, SeamError};
use crate::sync::MutexGuard;

/// Most messages that share a row.
const ROW_MESSAGES_MAX: usize = 256;

/// The queue, and its rows on disk.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) state: QueueState,
    /// The number of messages of each row that are not done, by its first
    /// message.
    pub(crate) not_done: BTreeMap<u64, usize>,
}

impl AsMut<QueueState> for Durable {
    fn as_mut(&mut self) -> &mut QueueState {
        &mut self.state
    }
}

impl Durable {
    /// Marks messages as done, and removes the rows without any other.
    fn finish(&mut self, seqs: impl IntoIterator<Item = u64>) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut done = Vec::new();
        for seq in seqs {
            let Some((&first, left)) = self.not_done.range_mut(..=seq).next_back() else {
                continue;
            };
            *left -= 1;
            if *left == 0 {
                self.not_done.remove(&first);
                done.push((first, None));
            }
        }
        done
    }
}

/// An [`OrderQueue`] on disk, in the file of its [`Embedded`](super::Embedded).
///
/// A message found in the file when it is opened counts one attempt more for
/// each crash it lived to see: an open that was not closed, or only by a panic.
/// It keeps 100,000 dead letters;
/// [`bury`](OrderQueue::bury) answers [`SeamError::Overloaded`] to more, and
/// the deliveries come again.
#[derive(Debug)]
pub struct EmbeddedQueue {
    journal: Arc<Journal>,
    waiting: Waiting<Durable>,
    crashes: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl EmbeddedQueue {
    pub(crate) fn new(
        journal: Arc<Journal>,
        found: Durable,
        crashes: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { journal, waiting: Waiting::new(found), crashes: crashes.into(), clock }
    }

    /// The state, locked: for whoever puts another in its place.
    pub(super) fn lock(&self) -> MutexGuard<'_, Durable> {
        self.waiting.lock()
    }

    /// Notes the crashes of a file that was opened anew, and has receivers look at it.
    pub(super) fn was_reopened(&self, crashes: u64) {
        self.crashes.store(crashes, Ordering::Relaxed);
        self.waiting.wake_one();
    }

    fn rows(&self, messages: &[Message]) -> Vec<(usize, Vec<u8>)> {
        let now = self.clock.now();
        let rows = messages.chunks(ROW_MESSAGES_MAX);
        rows.map(|chunk| (chunk.len(), sent_row(self.crashes.load(Ordering::Relaxed), now, chunk)))
            .collect()
    }

    /// Puts messages in the queue and in the open group, and returns its number.
    fn enqueue(
        &self,
        queue: &mut Durable,
        messages: &[Message],
        rows: Vec<(usize, Vec<u8>)>,
        redriven: &[u64],
    ) -> u64 {
        let mut first = queue.state.next_seq();
        queue.state.send(messages, self.clock.now());
        let bytes = rows.iter().map(|(_, row)| row.len()).sum();
        for (count, _) in &rows {
            queue.not_done.insert(first, *count);
            first += *count as u64;
        }
        self.journal.append(bytes, |group| {
            let mut end = first;
            for (count, row) in rows.into_iter().rev() {
                end -= count as u64;
                group.queue.push((end, Some(row)));
            }
            group.dead.extend(redriven.iter().map(|&seq| (seq, None)));
        })
    }
}

#[async_trait]
impl OrderQueue for EmbeddedQueue {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        if messages.is_empty() {
            return Ok(());
        }
        let rows = self.rows(messages);
        let group = {
            let mut queue = self.waiting.lock();
            queue.state.room_for(messages.len())?;
            self.journal.ready()?;
            self.enqueue(&mut queue, messages, rows, &[])
        };
        // They may be worked on before they are durable: what comes of it is in
        // this group or a later one.
        self.waiting.wake_one();
        self.journal.durable(group).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        self.journal.ready()?;
        Ok(self.waiting.receive(max, wait).await)
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        let mut queue = self.waiting.lock();
        let acked = queue.state.ack(receipts);
        let done = queue.finish(acked);
        // Lazily, as a crash brings them again, which is harmless.
        self.journal.append_lazily(done.len() * 8, |group| group.queue.extend(done));
        Ok(())
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        self.waiting.lock().state.retry(receipts, delay, Instant::now());
        self.waiting.wake_one();
        Ok(())
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.waiting.lock().state.extend(receipts, Instant::now());
        Ok(())
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        let group = {
            let mut queue = self.waiting.lock();
            queue.state.room_for_dead(receipts.len())?;
            self.journal.ready()?;
            let buried = queue.state.bury(receipts, self.clock.now());
            if buried.is_empty() {
                return Ok(());
            }
            let done = queue.finish(buried.iter().map(|(seq, _)| *seq));
            let dead: Vec<_> =
                buried.iter().map(|(seq, letter)| (*seq, Some(dead_row(letter)))).collect();
            let bytes = dead.iter().flat_map(|(_, row)| row).map(Vec::len).sum();
            self.journal.append(bytes, |group| {
                group.queue.extend(done);
                group.dead.extend(dead);
            })
        };
        self.journal.durable(group).await
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        self.journal.readable()?;
        let (letters, group) = {
            let queue = self.waiting.lock();
            (queue.state.dead_letters(max), self.journal.last())
        };
        self.journal.durable(group).await?;
        Ok(letters.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        self.journal.ready()?;
        let max = max.min(self.waiting.lock().state.dead());
        let (mut count, mut group) = (0, 0);
        while count < max && self.journal.ready().is_ok() {
            let mut queue = self.waiting.lock();
            let (seqs, messages) = queue.state.redrivable(REDRIVEN_AT_ONCE.min(max - count));
            if seqs.is_empty() {
                break;
            }
            let rows = self.rows(&messages);
            queue.state.forget_dead(seqs.len());
            group = self.enqueue(&mut queue, &messages, rows, &seqs);
            drop(queue);
            count += seqs.len();
            self.waiting.wake_one();
        }
        self.journal.durable(group).await?;
        Ok(count)
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        self.journal.readable()?;
        let (order, group) = {
            let queue = self.waiting.lock();
            let Some(order) = queue.state.find(id) else { return Ok(None) };
            (order.clone(), self.journal.last())
        };
        self.journal.durable(group).await?;
        Ok(Some(order))
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        self.journal.readable()?;
        Ok(self.waiting.lock().state.depth(self.clock.now()))
    }
}
