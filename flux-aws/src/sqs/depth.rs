//! An estimate of the queue's depth, and the bound on it. SQS counts packs, so their
//! usual size here makes messages of them.

use std::time::Duration;

use tokio::time::Instant;

use super::in_flight::Counts;

/// Time between two readings of the depth, while messages are sent …
pub(super) const READ_EVERY: Duration = Duration::from_secs(1);
/// … and messages sent between them, both at least.
const READ_AFTER: u64 = 100;
/// The newest pack's share in the mean size of packs.
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

    /// Takes note of a pack of so many messages that was sent or received.
    pub(super) fn saw_pack(&mut self, messages: usize) {
        self.pack_messages += (messages as f64 - self.pack_messages) * NEWEST;
    }

    /// Whether it is time to read the depth, ahead of so many messages. Whoever
    /// is told so does it.
    pub(super) fn is_due(&mut self, messages: u64, now: Instant) -> bool {
        self.sent_since += messages;
        let in_time = self.read_at.is_none_or(|at| now - at >= READ_EVERY);
        let due = in_time && (self.is_full || self.sent_since >= READ_AFTER);
        if due {
            (self.read_at, self.sent_since) = (Some(now), 0);
        }
        due
    }

    /// Turns SQS' counts, waiting and in flight, into messages of ours; what
    /// is out here is known exactly.
    pub(super) fn messages(&self, (waiting, in_flight): (u64, u64), here: Counts) -> (u64, u64) {
        let messages = |packs: u64| (packs as f64 * self.pack_messages).round() as u64;
        let elsewhere = in_flight.saturating_sub(here.packs as u64);
        (messages(waiting) + here.buffered as u64, messages(elsewhere) + here.out as u64)
    }

    /// Takes note of how many messages there are.
    pub(super) fn read(&mut self, messages: u64) {
        self.is_full = messages >= self.messages_max;
    }

    /// Whether the queue was full when it was last read.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_elsewhere_are_counted_as_large_as_those_seen_lately() {
        let mut depth = Depth::new(10_000);
        (0..200).for_each(|_| depth.saw_pack(50));
        assert_eq!(depth.messages((10, 4), Counts::default()), (500, 200));
        (0..200).for_each(|_| depth.saw_pack(2));
        let here = Counts { packs: 3, buffered: 7, out: 5, oldest: None };
        assert_eq!(depth.messages((10, 4), here), (27, 7), "what is here is known exactly");
    }
}
