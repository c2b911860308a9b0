//! The state machine of a queue, shared by the memory queue and the embedded one:
//! the messages that wait, are delayed or being worked on, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backends::until;
use crate::protocol::{Message, Order, OrderId, Timestamp};
use crate::seams::{DeadLetter, Delivery, QueueDepth, Receipt, SeamError};
use crate::sync::{Mutex, MutexGuard, Notify, timeout_at};

pub(crate) const SERVICE: &str = "queue";
/// Most dead letters kept. One more is refused, and its delivery comes back.
const DEAD_MAX: usize = 100_000;
/// Most messages that one look makes ready because their time has come.
const WOKEN_AT_ONCE: usize = 4_096;
/// Most dead letters put back in the queue while its lock is held.
pub(crate) const REDRIVEN_AT_ONCE: usize = 256;

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Time for a delivery to be acknowledged before it comes again.
    pub(crate) visibility: Duration,
    /// Most messages in the queue, delivered ones included.
    pub(crate) depth_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Ready,
    Delayed(Instant),
    InFlight(Instant),
}

#[derive(Debug)]
struct Entry {
    message: Message,
    sent_at: Timestamp,
    attempt: u32,
    state: EntryState,
}

/// The messages of a queue, each named by its sequence number.
#[derive(Debug)]
pub(crate) struct QueueState {
    limits: QueueLimits,
    next_seq: u64,
    entries: BTreeMap<u64, Entry>,
    ready: VecDeque<u64>,
    /// The moments at which a delayed message is due or a delivery times out.
    timers: BTreeSet<(Instant, u64)>,
    in_flight: u64,
    /// The first message of each order.
    placed: HashMap<OrderId, u64>,
    /// The later messages of an order, where there are any.
    placed_again: BTreeSet<(OrderId, u64)>,
    dead: VecDeque<(u64, Arc<DeadLetter>)>,
}

impl QueueState {
    /// An empty queue whose sequence numbers start at `first_seq`.
    pub(crate) fn new(limits: QueueLimits, first_seq: u64) -> Self {
        Self {
            limits,
            next_seq: first_seq,
            entries: BTreeMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            in_flight: 0,
            placed: HashMap::new(),
            placed_again: BTreeSet::new(),
            dead: VecDeque::new(),
        }
    }

    /// The sequence number of the next message sent.
    #[cfg(feature = "embedded")]
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether `count` more messages may be sent.
    pub(crate) fn room_for(&self, count: usize) -> Result<(), SeamError> {
        if self.entries.len().saturating_add(count) > self.limits.depth_max {
            return Err(full());
        }
        Ok(())
    }

    /// Adds messages at the end, whatever the bound.
    pub(crate) fn send(&mut self, messages: &[Message], now: Timestamp) {
        for message in messages {
            let seq = self.next_seq;
            self.next_seq += 1;
            self.restore(seq, message.clone(), now, 0);
        }
    }

    /// Adds a message under a number it had before.
    pub(crate) fn restore(&mut self, seq: u64, message: Message, sent_at: Timestamp, attempt: u32) {
        if let Message::Place(order) = &message {
            let first = *self.placed.entry(order.id).or_insert(seq);
            if first != seq {
                self.placed_again.insert((order.id, seq));
            }
        }
        self.ready.push_back(seq);
        self.entries.insert(seq, Entry { message, sent_at, attempt, state: EntryState::Ready });
    }

    /// Takes up to `max` messages off the front.
    pub(crate) fn receive(&mut self, max: usize, now: Instant) -> Vec<Delivery> {
        self.wake_due(now);
        let deadline = until(now, self.limits.visibility);
        let take = max.min(self.ready.len());
        let mut taken = Vec::with_capacity(take);
        for seq in self.ready.drain(..take) {
            let entry = self.entries.get_mut(&seq).expect("what is ready is there");
            entry.attempt = entry.attempt.saturating_add(1);
            entry.state = EntryState::InFlight(deadline);
            self.timers.insert((deadline, seq));
            taken.push(Delivery {
                message: entry.message.clone(),
                receipt: Receipt(format!("{seq}.{}", entry.attempt)),
                attempt: entry.attempt,
            });
        }
        self.in_flight += taken.len() as u64;
        taken
    }

    /// Makes delayed messages ready, and deliveries that timed out, these first
    /// in line: they have waited longest.
    fn wake_due(&mut self, now: Instant) {
        let mut timed_out = Vec::new();
        for _ in 0..WOKEN_AT_ONCE {
            let Some(&(_, seq)) = self.timers.first().filter(|(due, _)| *due <= now) else {
                break;
            };
            self.timers.pop_first();
            let entry = self.entries.get_mut(&seq).expect("what has a timer is there");
            match std::mem::replace(&mut entry.state, EntryState::Ready) {
                EntryState::InFlight(_) => timed_out.push(seq),
                EntryState::Ready | EntryState::Delayed(_) => self.ready.push_back(seq),
            }
        }
        self.in_flight -= timed_out.len() as u64;
        for seq in timed_out.into_iter().rev() {
            self.ready.push_front(seq);
        }
    }

    /// The next moment at which a message becomes ready by itself.
    fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// The delivery a receipt stands for, unless it is stale.
    fn delivered(&mut self, receipt: &Receipt) -> Option<(u64, &mut Entry, Instant)> {
        let (seq, attempt) = receipt.0.split_once('.')?;
        let (seq, attempt) = (seq.parse().ok()?, attempt.parse::<u32>().ok()?);
        let entry = self.entries.get_mut(&seq)?;
        match entry.state {
            EntryState::InFlight(deadline) if entry.attempt == attempt => {
                Some((seq, entry, deadline))
            }
            _ => None,
        }
    }

    fn remove(&mut self, receipt: &Receipt) -> Option<(u64, Message)> {
        let (seq, _, deadline) = self.delivered(receipt)?;
        let entry = self.entries.remove(&seq).expect("it was just found");
        self.timers.remove(&(deadline, seq));
        self.in_flight -= 1;
        if let Message::Place(order) = &entry.message {
            self.forget_placed(order.id, seq);
        }
        Some((seq, entry.message))
    }

    fn forget_placed(&mut self, id: OrderId, seq: u64) {
        if self.placed.get(&id) != Some(&seq) {
            self.placed_again.remove(&(id, seq));
            return;
        }
        let next = self.placed_again.range((id, 0)..=(id, u64::MAX)).next().copied();
        match next {
            Some(next) => {
                self.placed_again.remove(&next);
                self.placed.insert(id, next.1);
            }
            None => {
                self.placed.remove(&id);
            }
        }
    }

    /// Acknowledges deliveries; returns the numbers of their messages.
    pub(crate) fn ack(&mut self, receipts: &[Receipt]) -> Vec<u64> {
        receipts.iter().filter_map(|receipt| Some(self.remove(receipt)?.0)).collect()
    }

    /// Hands deliveries back.
    pub(crate) fn retry(&mut self, receipts: &[Receipt], delay: Duration, now: Instant) {
        for receipt in receipts {
            let Some((seq, entry, deadline)) = self.delivered(receipt) else { continue };
            let due = (!delay.is_zero()).then(|| until(now, delay));
            entry.state = due.map_or(EntryState::Ready, EntryState::Delayed);
            // First the old timer: the new one may be for the same moment.
            self.timers.remove(&(deadline, seq));
            match due {
                Some(due) => {
                    self.timers.insert((due, seq));
                }
                None => self.ready.push_back(seq),
            }
            self.in_flight -= 1;
        }
    }

    /// Restarts the visibility time-out.
    pub(crate) fn extend(&mut self, receipts: &[Receipt], now: Instant) {
        let extended = until(now, self.limits.visibility);
        for receipt in receipts {
            let Some((seq, entry, deadline)) = self.delivered(receipt) else { continue };
            entry.state = EntryState::InFlight(extended);
            self.timers.remove(&(deadline, seq));
            self.timers.insert((extended, seq));
        }
    }

    /// Whether `count` more dead letters fit.
    pub(crate) fn room_for_dead(&self, count: usize) -> Result<(), SeamError> {
        if self.dead.len().saturating_add(count) > DEAD_MAX {
            return Err(full());
        }
        Ok(())
    }

    /// Gives messages up; returns the dead letters, each under the number of its
    /// message.
    pub(crate) fn bury(
        &mut self,
        receipts: &[(Receipt, String)],
        now: Timestamp,
    ) -> Vec<(u64, DeadLetter)> {
        let mut buried = Vec::new();
        for (receipt, reason) in receipts {
            let Some((seq, message)) = self.remove(receipt) else { continue };
            let letter = DeadLetter { message, reason: reason.clone(), buried_at: now };
            buried.push((seq, letter.clone()));
            self.restore_dead(seq, letter);
        }
        buried
    }

    /// Adds a dead letter that was there before.
    pub(crate) fn restore_dead(&mut self, seq: u64, letter: DeadLetter) {
        self.dead.push_back((seq, Arc::new(letter)));
    }

    /// The oldest dead letters, to be copied without the lock.
    pub(crate) fn dead_letters(&self, max: usize) -> Vec<Arc<DeadLetter>> {
        self.dead.iter().take(max).map(|(_, letter)| Arc::clone(letter)).collect()
    }

    /// The number of dead letters.
    pub(crate) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// The numbers and messages of the oldest dead letters, up to `max` and to
    /// what the bound leaves room for; they stay until
    /// [`forget_dead`](Self::forget_dead).
    pub(crate) fn redrivable(&self, max: usize) -> (Vec<u64>, Vec<Message>) {
        let room = self.limits.depth_max.saturating_sub(self.entries.len());
        let letters = self.dead.iter().take(max.min(room));
        letters.map(|(seq, letter)| (*seq, letter.message.clone())).unzip()
    }

    /// Drops the oldest dead letters.
    pub(crate) fn forget_dead(&mut self, count: usize) {
        self.dead.drain(..count);
    }

    pub(crate) fn find(&self, id: OrderId) -> Option<&Order> {
        match &self.entries.get(self.placed.get(&id)?)?.message {
            Message::Place(order) => Some(order),
            _ => None,
        }
    }

    pub(crate) fn depth(&self, now: Timestamp) -> QueueDepth {
        let oldest = self.entries.first_key_value();
        QueueDepth {
            waiting: self.entries.len() as u64 - self.in_flight,
            in_flight: self.in_flight,
            dead: self.dead.len() as u64,
            oldest: oldest.map_or(Duration::ZERO, |(_, entry)| now.since(entry.sent_at)),
        }
    }
}

fn full() -> SeamError {
    SeamError::Overloaded { service: SERVICE, retry_after: Duration::from_secs(1) }
}

/// A [`QueueState`] behind a lock, and those who wait for messages. `S` is the
/// state, or something around it.
#[derive(Debug)]
pub(crate) struct Waiting<S> {
    state: Mutex<S>,
    arrived: Notify,
}

impl<S: AsMut<QueueState>> Waiting<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), arrived: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().expect("the queue's state machine does not panic")
    }

    /// Wakes a receiver: messages or timers came.
    pub(crate) fn wake_one(&self) {
        self.arrived.notify_one();
    }

    /// As [`OrderQueue::receive`](crate::seams::OrderQueue::receive).
    pub(crate) async fn receive(&self, max: usize, wait: Duration) -> Vec<Delivery> {
        let give_up = until(Instant::now(), wait);
        let _next = WakeNext(&self.arrived);
        loop {
            let (taken, timer) = {
                let mut state = self.lock();
                let state = state.as_mut();
                (state.receive(max, Instant::now()), state.next_timer())
            };
            if !taken.is_empty() || max == 0 || Instant::now() >= give_up {
                return taken;
            }
            let wake_at = timer.map_or(give_up, |timer| timer.min(give_up));
            // Either way there is something to look at.
            let _ = timeout_at(wake_at, self.arrived.notified()).await;
        }
    }
}

/// Wakes another receiver when this one leaves, even by being dropped: arrivals
/// and timers wake one, and what is left must be seen to.
struct WakeNext<'q>(&'q Notify);

impl Drop for WakeNext<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl AsMut<QueueState> for QueueState {
    fn as_mut(&mut self) -> &mut QueueState {
        self
    }
}
