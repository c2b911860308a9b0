//! What is to be sent next, to one receiver: pure, told the time and what came of each
//! attempt.
//!
//! Messages of one order (or item) go one after the other; those of others beside them. One
//! that fails is tried again later, and holds back those of its own order alone. A receiver
//! that takes nothing is asked now and then, by one message at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use flux_core::seams::Cursor;
use tokio::time::Instant;

use super::message::{Head, Subject};

/// Messages on their way at once.
pub(super) const IN_FLIGHT_MAX: usize = 64;
/// Changes that are read at once.
pub(super) const PAGE: usize = 256;
/// Changes that were read beyond the one that is waited for.
const LIVE_MAX: usize = 4_096;
/// Bytes of those bodies, beyond which no more are read.
const LIVE_BYTES_FULL: usize = 16 << 20;
/// Messages that wait in the file.
pub(super) const PARKED_MAX: usize = 10_000;
/// Attempts after which a message that holds others up goes to the file.
const PARKED_AFTER: u32 = 4;
/// Failures in a row by which a receiver takes nothing.
const AWAY_AFTER: u32 = 8;

/// The first wait of a message, and the longest: it doubles.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Waiting that is written to the file anew, so that it counts after a restart.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The longest wait between two looks at a receiver that takes nothing.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// A message that was not taken yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) head: Head,
    /// `None` if it is in the file.
    pub(super) body: Option<Bytes>,
    pub(super) attempts: u32,
    /// The time between its attempts that failed.
    pub(super) waited: Duration,
    /// The part of that time which the file knows of.
    written: Duration,
    pub(super) error: String,
    /// The last of them, but for those before the server's start.
    failed_at: Option<Instant>,
    /// Messages that the receiver had taken when this one failed first.
    taken_before: u64,
    due: Instant,
}

impl Pending {
    /// One that was read from the feed.
    pub(super) fn new(head: Head, body: Bytes, now: Instant) -> Self {
        let body = Some(body);
        Self {
            head,
            body,
            attempts: 0,
            waited: Duration::ZERO,
            written: Duration::ZERO,
            error: String::new(),
            failed_at: None,
            taken_before: 0,
            due: now,
        }
    }

    /// One that waits in the file.
    pub(super) fn in_file(head: Head, attempts: u32, waited: Duration, now: Instant) -> Self {
        let written = waited;
        Self { attempts, waited, written, body: None, ..Self::new(head, Bytes::new(), now) }
    }

    /// Whether the file knows too little of how long it has waited.
    pub(super) fn is_stale(&self) -> bool {
        self.body.is_none() && self.waited >= self.written + WRITE_AGAIN_AFTER
    }
}

/// The messages of one order or item.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<u64>,
    sending: Option<u64>,
}

/// What is to be done about a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again.
    Again,
    /// It was tried for long enough, while others were taken: [`remove`](Schedule::remove) it.
    GiveUp,
}

/// How a failed attempt counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    /// Whether the receiver answered.
    pub(super) answered: bool,
    /// The time it wants to be left alone.
    pub(super) pause: Option<Duration>,
    /// 0 to 1.
    pub(super) jitter: f64,
}

/// The messages of one receiver, by numbers that grow in the order of the feed.
#[derive(Debug)]
pub(super) struct Schedule {
    give_up_after: Duration,
    pending: BTreeMap<u64, Pending>,
    lines: HashMap<Subject, Line>,
    /// The first of each line, by when it may be tried.
    due: BTreeSet<(Instant, u64)>,
    /// The changes behind `done`, in the order of the feed.
    read: VecDeque<(u64, Cursor)>,
    /// All up to this was taken, or is in the file.
    done: Option<Cursor>,
    next: u64,
    live_bytes: usize,
    live: usize,
    in_flight: usize,
    /// Failures since something was taken last.
    streak: u32,
    /// Looks at a receiver that takes nothing.
    looks: u32,
    closed_until: Instant,
    taken: u64,
}

impl Schedule {
    /// An empty one, whose first number is `next`.
    pub(super) fn new(give_up_after: Duration, next: u64, now: Instant) -> Self {
        Self {
            give_up_after,
            pending: BTreeMap::new(),
            lines: HashMap::new(),
            due: BTreeSet::new(),
            read: VecDeque::new(),
            done: None,
            next,
            live_bytes: 0,
            live: 0,
            in_flight: 0,
            streak: 0,
            looks: 0,
            closed_until: now,
            taken: 0,
        }
    }

    /// Whether there is room for another page of changes.
    pub(super) fn has_room(&self) -> bool {
        self.live_bytes < LIVE_BYTES_FULL && self.read.len() + PAGE <= LIVE_MAX
    }

    /// Takes a message of the feed.
    pub(super) fn read(&mut self, cursor: Cursor, message: Pending) {
        self.live += 1;
        self.live_bytes += message.body.as_ref().map_or(0, Bytes::len);
        self.read.push_back((self.next, cursor));
        self.put(self.next, message);
        self.next += 1;
    }

    /// Passes a change of the feed over.
    pub(super) fn pass(&mut self, cursor: Cursor) {
        self.read.push_back((self.next, cursor));
        self.next += 1;
        self.advance();
    }

    /// Takes a message, under a number that it has already.
    pub(super) fn put(&mut self, number: u64, message: Pending) {
        let subject = message.head.subject.clone();
        self.pending.insert(number, message);
        self.change(&subject, |line| {
            line.waiting.insert(number);
        });
    }

    /// Changes a line, and what is due by it.
    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut Line)) {
        let line = self.lines.entry(subject.clone()).or_default();
        let first = |line: &Line| match line.sending {
            None => line.waiting.first().copied(),
            Some(_) => None,
        };
        let before = first(line);
        change(line);
        let after = first(line);
        if line.sending.is_none() && line.waiting.is_empty() {
            self.lines.remove(subject);
        }
        if before != after {
            if let Some(message) = before.and_then(|number| self.pending.get(&number)) {
                self.due.remove(&(message.due, before.unwrap_or_default()));
            }
            if let Some(message) = after.and_then(|number| self.pending.get(&number)) {
                self.due.insert((message.due, after.unwrap_or_default()));
            }
        }
    }

    /// Whether the receiver takes nothing.
    pub(super) fn is_away(&self) -> bool {
        self.streak >= AWAY_AFTER
    }

    /// Takes the next message that may be sent, if there is one.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, &Pending)> {
        let most = if self.is_away() { 1 } else { IN_FLIGHT_MAX };
        if self.in_flight >= most || now < self.closed_until {
            return None;
        }
        let &(due, number) = self.due.first()?;
        // A receiver that is away is looked at by whichever is due first, now or later.
        if due > now && !self.is_away() {
            return None;
        }
        let subject = self.pending.get(&number)?.head.subject.clone();
        self.change(&subject, |line| {
            line.waiting.remove(&number);
            line.sending = Some(number);
        });
        self.in_flight += 1;
        self.pending.get(&number).map(|message| (number, message))
    }

    /// The time at which there may be something to send.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let most = if self.is_away() { 1 } else { IN_FLIGHT_MAX };
        let &(due, _) = self.due.first().filter(|_| self.in_flight < most)?;
        Some(if self.is_away() { self.closed_until } else { due.max(self.closed_until) })
    }

    /// A message was taken.
    pub(super) fn taken(&mut self, number: u64, now: Instant) {
        self.in_flight -= 1;
        self.taken += 1;
        self.remove(number);
        if self.is_away() {
            // It is back: nothing waits longer for what was its fault.
            let due = std::mem::take(&mut self.due);
            for (_, number) in due {
                if let Some(message) = self.pending.get_mut(&number) {
                    message.due = message.due.min(now);
                    self.due.insert((message.due, number));
                }
            }
        }
        (self.streak, self.looks) = (0, 0);
    }

    /// An attempt at a message failed.
    pub(super) fn failed(
        &mut self,
        number: u64,
        said: String,
        how: Failed,
        now: Instant,
    ) -> Verdict {
        self.in_flight -= 1;
        let Some(message) = self.pending.get_mut(&number) else { return Verdict::Again };
        // One message that is refused again and again tells nothing of the receiver.
        if !how.answered || message.attempts == 0 {
            self.streak = self.streak.saturating_add(1);
        }
        if message.attempts == 0 {
            message.taken_before = self.taken;
        }
        message.error = said;
        message.attempts = message.attempts.saturating_add(1);
        // What passed, and not what was to pass: a look at a receiver may come before it is due.
        let passed = message.failed_at.replace(now).map_or(Duration::ZERO, |last| now - last);
        message.waited = message.waited.saturating_add(passed);
        let over = message.waited >= self.give_up_after && self.taken > message.taken_before;
        message.due = now + wait_after(message.attempts, WAIT_MAX, how.jitter);
        let subject = message.head.subject.clone();
        self.change(&subject, |line| {
            line.sending = None;
            line.waiting.insert(number);
        });
        let mut pause = how.pause.map_or(Duration::ZERO, |pause| pause.min(WAIT_MAX));
        // Those that were on their way together are one look.
        if self.is_away() && now >= self.closed_until {
            self.looks = self.looks.saturating_add(1);
            pause = pause.max(wait_after(self.looks, LOOK_MAX, how.jitter));
        }
        self.closed_until = self.closed_until.max(now + pause);
        if over { Verdict::GiveUp } else { Verdict::Again }
    }

    /// Takes a message out for good.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(message) = self.pending.get(&number) else { return };
        let subject = message.head.subject.clone();
        self.change(&subject, |line| {
            line.waiting.remove(&number);
            line.sending = line.sending.filter(|sending| *sending != number);
        });
        if let Some(message) = self.pending.remove(&number) {
            self.forget(message.body.as_ref());
        }
        self.advance();
    }

    fn forget(&mut self, body: Option<&Bytes>) {
        if let Some(body) = body {
            self.live -= 1;
            self.live_bytes -= body.len();
        }
    }

    /// The messages that hold others up and should go to the file: those that fail again and
    /// again, and what waits behind them, once no more can be read.
    pub(super) fn to_park(&self) -> Vec<u64> {
        if self.has_room() || self.is_away() {
            return Vec::new();
        }
        let room = PARKED_MAX.saturating_sub(self.pending.len() - self.live);
        let stuck = |number: &u64| {
            let Some(message) = self.pending.get(number).filter(|m| m.body.is_some()) else {
                return false;
            };
            let line = self.lines.get(&message.head.subject);
            let first = line.and_then(|line| line.sending.or(line.waiting.first().copied()));
            let first = first.and_then(|first| self.pending.get(&first));
            first.is_some_and(|first| first.attempts >= PARKED_AFTER || first.body.is_none())
        };
        self.read.iter().map(|(number, _)| *number).filter(stuck).take(room).collect()
    }

    /// A message is in the file as it is now.
    pub(super) fn parked(&mut self, number: u64) {
        if let Some(message) = self.pending.get_mut(&number) {
            message.written = message.waited;
            let body = message.body.take();
            self.forget(body.as_ref());
        }
        self.advance();
    }

    /// The place in the feed up to which all was taken, or is in the file.
    pub(super) fn done(&self) -> Option<&Cursor> {
        self.done.as_ref()
    }

    /// The number behind that place, under which a change was read or will be.
    pub(super) fn done_until(&self) -> u64 {
        self.read.front().map_or(self.next, |(number, _)| *number)
    }

    /// The number of the change that is read next.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Goes on in the feed behind what is done.
    fn advance(&mut self) {
        while let Some((number, _)) = self.read.front()
            && self.pending.get(number).is_none_or(|message| message.body.is_none())
        {
            self.done = self.read.pop_front().map(|(_, cursor)| cursor);
        }
    }

    /// A message that was not taken yet.
    pub(super) fn get(&self, number: u64) -> Option<&Pending> {
        self.pending.get(&number)
    }

    /// The oldest that was not taken yet.
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.pending.first_key_value().map(|(_, message)| message)
    }

    /// Messages that were read and not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Messages on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// The wait after so many failures: doubled with each, half of it by chance.
fn wait_after(failures: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NONE: [u64; 0] = [];

    struct Receiver {
        schedule: Schedule,
        now: Instant,
        read: u32,
    }

    impl Receiver {
        fn new() -> Self {
            let now = Instant::now();
            Self { schedule: Schedule::new(DAY, 0, now), now, read: 0 }
        }

        /// Reads a change of this order, and returns its number.
        fn read(&mut self, order: &str) -> u64 {
            let head = Head {
                id: format!("msg_{}", self.read),
                kind: "order.held".to_owned(),
                subject: Subject::OrderId(order.into()),
                at_ms: 0,
            };
            self.read += 1;
            let cursor = Cursor(self.read.to_string());
            let number = self.schedule.next;
            let body = Bytes::from_static(b"{}");
            self.schedule.read(cursor, Pending::new(head, body, self.now));
            number
        }

        fn next(&mut self) -> Option<u64> {
            self.schedule.next(self.now).map(|(number, _)| number)
        }

        fn all(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.next()).collect()
        }

        fn taken(&mut self, number: u64) {
            self.schedule.taken(number, self.now);
        }

        fn failed(&mut self, number: u64) -> Verdict {
            self.failed_with(number, true, None)
        }

        fn failed_with(&mut self, number: u64, answered: bool, pause: Option<Duration>) -> Verdict {
            let how = Failed { answered, pause, jitter: 1.0 };
            self.schedule.failed(number, "refused".to_owned(), how, self.now)
        }

        fn done(&self) -> Option<String> {
            self.schedule.done().map(|cursor| cursor.0.clone())
        }

        /// Time passes until there may be something to send.
        fn wake(&mut self) -> Duration {
            let at = self.schedule.wake_at().expect("there is something to send");
            let passed = at.saturating_duration_since(self.now);
            self.now += passed;
            passed
        }
    }

    #[test]
    fn messages_of_one_order_go_one_after_the_other_and_those_of_others_beside_them() {
        let mut to = Receiver::new();
        let [a1, a2, b1, a3] = ["a", "a", "b", "a"].map(|order| to.read(order));
        assert_eq!(to.all(), [a1, b1]);
        to.taken(b1);
        assert_eq!((to.all(), to.done()), (vec![], None));
        to.taken(a1);
        assert_eq!((to.all(), to.done()), (vec![a2], Some("1".to_owned())));
        // One that fails holds back those behind it.
        to.failed(a2);
        assert_eq!(to.all(), NONE);
        assert_eq!(to.wake(), WAIT_MIN);
        assert_eq!(to.all(), [a2]);
        to.taken(a2);
        assert_eq!((to.all(), to.done()), (vec![a3], Some("3".to_owned())));
        to.taken(a3);
        assert_eq!((to.schedule.waiting(), to.done()), (0, Some("4".to_owned())));
    }

    #[test]
    fn what_is_taken_makes_room_at_once() {
        let mut to = Receiver::new();
        for n in 0..3 * LIVE_MAX {
            assert!(to.schedule.has_room(), "{n}");
            let number = to.read(&n.to_string());
            assert_eq!(to.next(), Some(number));
            to.taken(number);
        }
        for _ in 0..3 * LIVE_MAX {
            to.schedule.pass(Cursor("passed".to_owned()));
        }
        assert!(to.schedule.has_room());
        assert_eq!(to.done().expect("all"), "passed");
    }

    #[test]
    fn a_message_waits_twice_as_long_each_time_up_to_an_hour() {
        let mut to = Receiver::new();
        let poison = to.read("a");
        let mut waits = Vec::new();
        for n in 0..14 {
            assert_eq!(to.all(), [poison]);
            to.failed(poison);
            // Others are taken meanwhile.
            let other = to.read(&format!("other-{n}"));
            assert_eq!(to.all(), [other]);
            to.taken(other);
            waits.push(to.wake().as_secs());
        }
        let doubled = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600];
        assert_eq!(waits, doubled);
        // Half of it by chance.
        assert_eq!(wait_after(5, WAIT_MAX, 0.0), Duration::from_secs(8));
        assert!(wait_after(u32::MAX, WAIT_MAX, 1.0) == WAIT_MAX);
    }

    #[test]
    fn a_message_is_given_up_after_a_day_if_others_were_taken() {
        let give_up = |others: bool| {
            let mut to = Receiver::new();
            let (poison, begin) = (to.read("a"), to.now);
            for n in 0..200 {
                assert_eq!(to.all(), [poison]);
                if to.failed(poison) == Verdict::GiveUp {
                    to.schedule.remove(poison);
                    assert_eq!(to.schedule.waiting(), 0);
                    return Some(to.now - begin);
                }
                if others {
                    let other = to.read(&format!("other-{n}"));
                    to.next();
                    to.taken(other);
                }
                to.wake();
            }
            None
        };
        let after = give_up(true).expect("it is given up");
        assert!(after >= DAY && after < DAY + 2 * WAIT_MAX, "{after:?}");
        assert_eq!(give_up(false), None, "a receiver that takes nothing is waited for");
    }

    #[test]
    fn looks_at_a_receiver_that_is_away_count_for_no_longer_than_they_took() {
        let mut to = Receiver::new();
        let (poison, begin) = (to.read("a"), to.now);
        let other = to.read("b");
        assert_eq!(to.all(), [poison, other]);
        to.failed_with(other, false, None);
        to.failed_with(poison, false, None);
        // Both are asked by turns, each long before it would be due.
        while to.now - begin < DAY / 4 {
            to.wake();
            for number in to.all() {
                assert_eq!(to.failed_with(number, false, None), Verdict::Again);
            }
        }
        let attempts = to.schedule.pending[&poison].attempts;
        assert!(attempts > 100, "{attempts}");
        // It is back, and refuses this one message for the rest of the day.
        to.wake();
        while to.all() != [other] {
            to.failed(poison);
            to.wake();
        }
        to.taken(other);
        to.read("c");
        while to.now - begin < DAY {
            for number in to.all() {
                match number {
                    _ if number == poison => assert_eq!(to.failed(poison), Verdict::Again),
                    other => to.taken(other),
                }
            }
            to.wake();
        }
        assert_eq!(to.all(), [poison]);
        assert_eq!(to.failed(poison), Verdict::GiveUp);
    }

    #[test]
    fn a_receiver_that_is_away_is_looked_at_by_one_message_at_a_time() {
        let mut to = Receiver::new();
        for n in 0..100 {
            to.read(&format!("order-{n}"));
        }
        let first = to.all();
        assert_eq!(first.len(), IN_FLIGHT_MAX);
        for number in first {
            to.failed_with(number, false, None);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(to.wake().as_secs());
            let looks = to.all();
            assert_eq!(looks.len(), 1, "one at a time");
            to.failed_with(looks[0], false, None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(to.done(), None, "the feed waits");
        assert!(to.schedule.to_park().is_empty());
        // It is back: all that waited goes at once.
        to.wake();
        let look = to.next().expect("a look");
        to.taken(look);
        assert_eq!(to.all().len(), IN_FLIGHT_MAX);
    }

    #[test]
    fn one_message_that_is_refused_is_not_taken_for_a_receiver_that_is_away() {
        let mut to = Receiver::new();
        let poison = to.read("a");
        for _ in 0..20 {
            assert_eq!(to.all(), [poison]);
            to.failed(poison);
            to.wake();
        }
        let other = to.read("b");
        assert_eq!(to.all(), [poison, other]);
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_within_bounds() {
        let mut to = Receiver::new();
        let [a, b] = ["a", "b"].map(|order| to.read(order));
        assert_eq!(to.all(), [a, b]);
        to.failed_with(a, true, Some(Duration::from_secs(30)));
        to.taken(b);
        to.read("c");
        assert_eq!(to.all(), NONE);
        assert_eq!(to.wake(), Duration::from_secs(30));
        assert_eq!(to.all().len(), 2);
        to.failed_with(a, true, Some(DAY));
        assert_eq!(to.wake(), WAIT_MAX);
    }

    #[test]
    fn what_fails_again_and_again_goes_to_the_file_so_that_others_go_on() {
        let mut to = Receiver::new();
        let [poison, behind] = ["a", "a"].map(|order| to.read(order));
        for n in 0..PARKED_AFTER {
            assert_eq!(to.all(), [poison]);
            to.failed(poison);
            let other = to.read(&format!("b{n}"));
            assert_eq!(to.all(), [other]);
            to.taken(other);
            to.wake();
        }
        assert!(to.schedule.to_park().is_empty(), "there is room");
        while to.schedule.has_room() {
            let other = to.read("c");
            to.all();
            to.taken(other);
        }
        assert_eq!(to.done(), None);
        assert_eq!(to.schedule.to_park(), [poison, behind]);
        for number in [poison, behind] {
            to.schedule.parked(number);
        }
        assert!(to.schedule.to_park().is_empty());
        assert_eq!(to.done().expect("the feed goes on"), to.read.to_string());
        assert!(to.schedule.has_room());
        assert_eq!((to.schedule.live, to.schedule.live_bytes), (0, 0));
        // They are in order still, also with what comes later.
        let later = to.read("a");
        if to.schedule.lines[&Subject::OrderId("a".into())].sending.is_none() {
            to.now += WAIT_MAX;
            assert_eq!(to.all(), [poison]);
        }
        to.taken(poison);
        assert_eq!(to.all(), [behind]);
        to.taken(behind);
        assert_eq!(to.all(), [later]);
    }

    #[test]
    fn what_is_sent_again_goes_before_what_waits_and_never_beside_it() {
        let mut to = Receiver::new();
        let given_up = to.read("a");
        to.next();
        to.failed(given_up);
        to.schedule.remove(given_up);
        let [sent, waits] = ["a", "a"].map(|order| to.read(order));
        assert_eq!(to.all(), [sent]);
        let head = to.schedule.pending[&waits].head.clone();
        let again = Pending::in_file(head, 0, Duration::ZERO, to.now);
        to.schedule.put(given_up, again);
        assert_eq!(to.all(), NONE);
        to.taken(sent);
        assert_eq!(to.all(), [given_up]);
        to.taken(given_up);
        assert_eq!(to.all(), [waits]);
    }

    /// Whatever comes, by chance: each is taken once, in the order of its own.
    #[test]
    fn nothing_is_missing_or_out_of_order_whatever_fails() {
        proptest::proptest!(|(
            orders in proptest::collection::vec(0_u8..5, 1..60),
            chances in proptest::collection::vec(0_u8..100, 400),
        )| {
            let mut to = Receiver::new();
            let mut chances = chances.into_iter().cycle();
            let mut wanted: HashMap<u8, Vec<u64>> = HashMap::new();
            for order in &orders {
                let number = to.read(&order.to_string());
                wanted.entry(*order).or_default().push(number);
            }
            let mut got: HashMap<u8, Vec<u64>> = HashMap::new();
            let mut on_the_way = Vec::new();
            for _ in 0..100_000 {
                on_the_way.extend(to.all());
                if on_the_way.is_empty() {
                    if to.schedule.waiting() == 0 { break }
                    to.wake();
                    continue;
                }
                let chance = usize::from(chances.next().expect("endless"));
                let number = on_the_way.swap_remove(chance % on_the_way.len());
                if chance < 40 {
                    let pause = (chance < 5).then_some(Duration::from_secs(3));
                    to.failed_with(number, chance % 2 == 0, pause);
                } else {
                    got.entry(orders[number as usize]).or_default().push(number);
                    to.taken(number);
                }
            }
            proptest::prop_assert_eq!(got, wanted);
            proptest::prop_assert_eq!(to.done(), Some(orders.len().to_string()));
            proptest::prop_assert_eq!(to.schedule.due.len() + to.schedule.lines.len(), 0);
        });
    }
}
