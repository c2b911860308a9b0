//! The messages that were received and are not settled: packs by number, their messages by
//! index. An SQS message is done with when each of its messages is settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use flux_core::Timestamp;
use flux_core::protocol::Message;
use flux_core::seams::{Delivery, Receipt};
use tokio::time::Instant;

/// Most packs in flight here; of more, the oldest are forgotten, and come again.
const PACKS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not handed out yet.
    Buffered,
    Out,
    Done,
    /// Handed back, to come again after the given time.
    Back(Duration),
}

#[derive(Debug)]
struct Slot {
    message: Message,
    attempt: u32,
    state: State,
}

#[derive(Debug)]
struct Pack {
    handle: String,
    sent_at: Timestamp,
    /// The end of its visibility time-out.
    until: Instant,
    slots: Vec<Slot>,
}

/// The end of a pack all of whose messages are settled.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Delete,
    /// None of it was done: it comes again after the given time.
    Return(Duration),
    /// Send what was handed back again, with the attempts made, then delete.
    Resend(Vec<(u32, Message)>, Duration),
}

/// A way to settle deliveries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settle {
    Done,
    Back(Duration),
}

/// Counts of packs and messages by their state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) packs: usize,
    pub(super) buffered: usize,
    pub(super) out: usize,
    /// The time the oldest pack was sent.
    pub(super) oldest: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct InFlight {
    visibility: Duration,
    packs: BTreeMap<u64, Pack>,
    buffer: VecDeque<(u64, usize)>,
    next: u64,
}

impl InFlight {
    /// Starts the numbers at `first`, a random one, so that no other process's receipts fit.
    pub(super) fn new(visibility: Duration, first: u64) -> Self {
        Self { visibility, packs: BTreeMap::new(), buffer: VecDeque::new(), next: first }
    }

    /// Takes in a pack that was just received for the nth time.
    pub(super) fn add(
        &mut self,
        handle: String,
        sent_at: Timestamp,
        receives: u32,
        messages: Vec<(u32, Message)>,
        now: Instant,
    ) {
        while let Some(oldest) = self.packs.first_entry()
            && oldest.get().until <= now
        {
            oldest.remove();
        }
        // Packs that ran out may stand behind one that was extended.
        if self.packs.len() >= PACKS_MAX {
            self.packs.retain(|_, pack| pack.until > now);
        }
        if self.packs.len() >= PACKS_MAX {
            self.packs.pop_first();
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.buffer.extend((0..messages.len()).map(|index| (number, index)));
        let slot = |(attempts, message): (u32, Message)| Slot {
            message,
            attempt: attempts.saturating_add(receives),
            state: State::Buffered,
        };
        let slots = messages.into_iter().map(slot).collect();
        let until = now + self.visibility;
        self.packs.insert(number, Pack { handle, sent_at, until, slots });
    }

    /// Hands out up to `max` messages, and names the packs among theirs that
    /// waited here for more than half their time.
    pub(super) fn take(&mut self, max: usize, now: Instant) -> (Vec<Delivery>, Vec<(u64, String)>) {
        let (mut deliveries, mut ageing) = (Vec::new(), BTreeMap::new());
        while deliveries.len() < max {
            let Some((number, index)) = self.buffer.pop_front() else { break };
            let alive = self.packs.get_mut(&number).filter(|pack| pack.until > now);
            // The rest of what ran out comes again.
            let Some(pack) = alive else { continue };
            if pack.until - now < self.visibility / 2 {
                ageing.insert(number, pack.handle.clone());
            }
            let slot = &mut pack.slots[index];
            slot.state = State::Out;
            let receipt = Receipt(format!("{number:x}.{index}"));
            deliveries.push(Delivery::new(slot.message.clone(), receipt, slot.attempt));
        }
        (deliveries, ageing.into_iter().collect())
    }

    fn find(&mut self, receipt: &Receipt, now: Instant) -> Option<(u64, &mut Pack, usize)> {
        let (number, index) = receipt.0.split_once('.')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let index = index.parse().ok()?;
        let pack = self.packs.get_mut(&number)?;
        let is_alive = pack.until > now && index < pack.slots.len();
        is_alive.then_some((number, pack, index))
    }

    /// The message of a delivery that is still out.
    pub(super) fn message(&mut self, receipt: &Receipt, now: Instant) -> Option<&Message> {
        let (_, pack, index) = self.find(receipt, now)?;
        let slot = &pack.slots[index];
        (slot.state == State::Out).then_some(&slot.message)
    }

    /// Settles deliveries. Answers the messages that are done by this, and the packs
    /// of these receipts that have nothing left to settle.
    pub(super) fn settle<'r>(
        &mut self,
        receipts: impl IntoIterator<Item = &'r Receipt>,
        how: Settle,
        now: Instant,
    ) -> (Vec<Message>, Vec<(u64, String, End)>) {
        let (mut done, mut touched) = (Vec::new(), BTreeSet::new());
        for receipt in receipts {
            let Some((number, pack, index)) = self.find(receipt, now) else { continue };
            let slot = &mut pack.slots[index];
            match (slot.state, how) {
                (State::Out, Settle::Done) => {
                    slot.state = State::Done;
                    // A settled message is needed here no more.
                    let nothing = Message::Expire(slot.message.order_id());
                    done.push(std::mem::replace(&mut slot.message, nothing));
                }
                (State::Out, Settle::Back(delay)) => slot.state = State::Back(delay),
                _ => {}
            }
            touched.insert(number);
        }
        // A pack stays until the call that ends it went well: the same
        // receipts settled once more try it again.
        let ended = touched.into_iter().filter_map(|number| {
            let pack = self.packs.get(&number)?;
            Some((number, pack.handle.clone(), pack.end()?))
        });
        (done, ended.collect())
    }

    /// The packs of deliveries that are still out.
    pub(super) fn out(&mut self, receipts: &[Receipt], now: Instant) -> Vec<(u64, String)> {
        let mut packs = BTreeMap::new();
        for receipt in receipts {
            if let Some((number, pack, index)) = self.find(receipt, now)
                && pack.slots[index].state == State::Out
            {
                packs.insert(number, pack.handle.clone());
            }
        }
        packs.into_iter().collect()
    }

    /// Takes note that the pack's time-out was restarted at `since`.
    pub(super) fn extended(&mut self, number: u64, since: Instant) {
        if let Some(pack) = self.packs.get_mut(&number) {
            pack.until = pack.until.max(since + self.visibility);
        }
    }

    pub(super) fn has_buffered(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.packs.remove(&number);
    }

    pub(super) fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for pack in self.packs.values().filter(|pack| pack.until > now) {
            counts.packs += 1;
            for slot in &pack.slots {
                match slot.state {
                    State::Buffered => counts.buffered += 1,
                    State::Out => counts.out += 1,
                    State::Done | State::Back(_) => {}
                }
            }
            let oldest = counts.oldest.unwrap_or(pack.sent_at);
            counts.oldest = Some(oldest.min(pack.sent_at));
        }
        counts
    }
}

impl Pack {
    fn end(&self) -> Option<End> {
        let (mut back, mut longest) = (Vec::new(), Duration::ZERO);
        for slot in &self.slots {
            match slot.state {
                State::Buffered | State::Out => return None,
                State::Done => {}
                State::Back(delay) => {
                    back.push((slot.attempt, slot.message.clone()));
                    longest = longest.max(delay);
                }
            }
        }
        Some(match back.len() {
            0 => End::Delete,
            count if count == self.slots.len() => End::Return(longest),
            _ => End::Resend(back, longest),
        })
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
