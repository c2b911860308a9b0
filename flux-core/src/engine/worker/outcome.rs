//! What becomes of messages: answered, tried again, handed back or given up.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::completion::{self, DecidedBatch};
use super::health::ILL_AFTER;
use super::receiving::InHand;
use super::turn::{Turn, Turned, as_found};
use super::work::{Origin, Work};
use super::{Event, PAUSE, PAUSE_MAX, Worker};
use crate::engine::accept::inbox::Answer;
use crate::protocol::{ItemId, Order, OrderStatus, Timestamp};
use crate::seams::{SeamError, partition_of, partition_of_lines};

/// Time after which the end of a hold was left undone by whoever serves it.
const LATE: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes over what came of a turn.
    pub(super) async fn end_turn(&mut self, turned: Turned, started: Stopwatch) {
        let Turned { turn, durable, outcomes, lost, has_failed } = turned;
        let Turn { mut works, items, view, mut over_cap } = turn;
        self.turns -= 1;
        self.in_work -= works.len();
        // What was claimed meanwhile is newer.
        let newer = std::mem::replace(&mut self.view, view);
        over_cap.retain(|over| newer.get(&over.item).is_none());
        self.view.merge(newer);
        // A commit whose outcome is unknown leaves its messages in doubt.
        let is_open = |work: &Work| work.refused && work.doubtful;
        if !outcomes.is_empty() {
            self.health.wrote();
        } else if has_failed || works.iter().any(is_open) {
            self.health.failed();
        }
        let is_alone = works.len() == 1;
        let mut tries = 0;
        for work in works.iter_mut().filter(|work| work.answer.is_none()) {
            if std::mem::take(&mut work.refused) {
                tries = tries.max(self.count_refusal(work));
            }
        }
        let open: Vec<Work> = works.extract_if(.., |work| work.answer.is_none()).collect();
        let mut answered = works;
        if !open.is_empty() {
            let (unread, open): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|work| work.looks_first);
            self.unread.extend(unread);
            for over in over_cap {
                self.over_cap.entry(over.item.clone()).or_default().push(over);
            }
            self.backlogs.put_back(open);
        }
        self.backlogs.end_turn(&items);
        self.items.used(&items);
        if !lost.is_empty() {
            self.meet_others();
        }
        let claim_max = self.core.settings.claim_max;
        let pause = match tries {
            0 => Duration::ZERO,
            tries => PAUSE.full_jitter_by(tries, &self.core.chance),
        };
        let (mut left, mut lent) = (Vec::new(), Vec::new());
        for item in items {
            let is_claimed = self.view.get(&item).is_some();
            let is_done_here =
                self.is_others(&item) && self.backlogs.is_idle(&item) && !self.items.is_kept(&item);
            if self.is_due(&item) || is_done_here {
                lent.push(item);
            } else if lost.contains(&item)
                || has_failed
                || is_claimed && (!self.items.has(&item) || self.items.is_over(&item, claim_max))
            {
                left.push(item);
            } else if is_claimed {
                self.backlogs.set_claimed(&item);
            } else if pause.is_zero() {
                self.backlogs.set_unclaimed(&item);
            } else {
                self.pause(item, pause);
            }
        }
        self.let_go(left, pause);
        self.lend(lent, pause);
        // A turn may leave holds in doubt; of those it made, one may end soon.
        self.core.expect_end(None);
        outcomes.iter().for_each(|outcomes| self.core.expect_ends(&outcomes.orders));
        if is_alone && answered.first().is_some_and(|work| self.fails_by_itself(work)) {
            self.give_up(answered.remove(0));
        }
        self.note_health(&answered);
        let (retry_after, started) = (self.retry_after(), Some(started));
        let works = self.counted(answered);
        let decided = DecidedBatch { started, durable, works, outcomes, retry_after };
        self.completer.hand_over(decided).await;
    }

    /// Counts a try of a message that got nowhere, and gives it up after the last.
    fn count_refusal(&self, work: &mut Work) -> u32 {
        work.refusals += 1;
        if work.refusals >= self.core.settings.tries_max {
            work.answer = Some(Answer::GivenUp);
        }
        work.refusals
    }

    /// Sorts what was read: to its items, or to those who are answered.
    pub(super) async fn sort(&mut self, works: Vec<Work>, error: Option<SeamError>) {
        self.reads -= 1;
        self.in_work -= works.len();
        let now = self.core.clock.now();
        let mut answered = Vec::new();
        for mut work in works {
            let is_held = |work: &Work| {
                work.known.as_ref().is_some_and(|order| order.status() == OrderStatus::Held)
            };
            match &error {
                None if work.lines().is_empty()
                    || work.is_spare()
                        && (!is_held(&work) || is_for_others(&self.served, &work, now)) =>
                {
                    work.answer = Some(as_found(&work));
                    answered.push(work);
                }
                None => self.backlogs.push(work),
                Some(error) => {
                    self.count_refusal(&mut work);
                    self.note_broken(&mut work, error);
                    match work.answer {
                        Some(_) => answered.push(work),
                        None => {
                            work.looks_first = true;
                            self.unread.push(work);
                        }
                    }
                }
            }
        }
        self.note_failures(&mut answered);
        self.tell(answered).await;
    }

    /// Answers that a backend is beyond repair, if that is what the error says.
    fn note_broken(&self, work: &mut Work, error: &SeamError) {
        if matches!(error, SeamError::Broken { .. } | SeamError::Stopped { .. }) {
            self.core.note(error);
            // An earlier try may have written it, whatever came after.
            work.answer = Some(match work.doubtful {
                true => Answer::GivenUp,
                false => Answer::Broken(Box::new(error.clone())),
            });
        }
    }

    /// Counts a try of all that waits for items that could not be claimed.
    pub(super) async fn note_unclaimed(&mut self, failed: Vec<(ItemId, SeamError)>) {
        if !failed.is_empty() {
            self.health.failed();
        }
        let mut given_up = Vec::new();
        for (item, error) in failed {
            let mut tries = 0;
            for mut work in self.backlogs.take_where(&item, |_| true) {
                tries = tries.max(self.count_refusal(&mut work));
                self.note_broken(&mut work, &error);
                match work.answer {
                    Some(_) => given_up.push(work),
                    None => self.backlogs.put_back(vec![work]),
                }
            }
            self.pause(item, PAUSE.full_jitter_by(tries, &self.core.chance));
        }
        self.note_failures(&mut given_up);
        self.tell(given_up).await;
    }

    /// Leaves the work on items that any worker finds to those who have them. Where each
    /// order is some worker's, that one waits for its other items, but not for long.
    pub(super) async fn leave_spare_work(&mut self, items: &[ItemId]) {
        let mut left = Vec::new();
        let now = self.core.clock.now();
        for item in items {
            let served = &self.served;
            let all = served.len() < 2 || self.items.is_wanted_for_long(item);
            let is_left =
                |work: &Work| work.is_spare() && (all || is_for_others(served, work, now));
            left.extend(self.backlogs.take_where(item, is_left));
        }
        for work in &mut left {
            work.answer = Some(Answer::NotFound(work.id()));
        }
        self.tell(left).await;
    }

    /// Has answers told that no write is on its way for.
    async fn tell(&mut self, works: Vec<Work>) {
        if works.is_empty() {
            return;
        }
        let works = self.counted(works);
        let decided = DecidedBatch {
            started: None,
            durable: None,
            works,
            outcomes: Vec::new(),
            retry_after: self.retry_after(),
        };
        self.completer.hand_over(decided).await;
    }

    /// Counts works that leave the worker's hands.
    pub(super) fn counted(&mut self, works: Vec<Work>) -> Vec<Work> {
        works.iter().for_each(|work| self.leaves(work));
        works
    }

    fn leaves(&mut self, work: &Work) {
        match &work.from {
            Origin::Caller(..) => self.asked -= 1,
            Origin::Delivery(delivery, _) => self.delivered.left(delivery.partition()),
            Origin::Found => self.ended.done(1),
        }
    }

    /// Notes failures before any turn, and takes out those of messages that may fail by
    /// themselves. What goes well there says nothing of writes.
    fn note_failures(&mut self, works: &mut Vec<Work>) {
        let suspects: Vec<Work> = works.extract_if(.., |work| self.fails_by_itself(work)).collect();
        suspects.into_iter().for_each(|work| self.give_up(work));
        if works.iter().any(|work| work.answer.as_ref().is_some_and(Answer::is_failure)) {
            self.note_health(works);
        }
    }

    /// Time to leave failed messages alone: not for long while they may yet find a worker
    /// to whom the store is better.
    fn retry_after(&self) -> Duration {
        let longest = if self.health.began_to_fail() { ILL_AFTER / 2 } else { Duration::MAX };
        pause_after(self.failures).min(longest)
    }

    fn note_health(&mut self, works: &[Work]) {
        let failed = |work: &Work| work.answer.as_ref().is_none_or(Answer::is_failure);
        let now = Instant::now();
        if works.iter().any(failed) {
            self.failures += 1;
            self.failed_at = Some(now);
            self.receives_at = now + pause_after(self.failures).min(PAUSE_MAX);
        } else if !works.is_empty() {
            self.failures = 0;
            self.receives_at = now;
        }
    }

    /// Whether the one message of a turn failed, and came so often that the fault may be
    /// its own.
    fn fails_by_itself(&self, work: &Work) -> bool {
        work.answer.as_ref().is_some_and(Answer::is_failure)
            && work.attempt() > self.suspect_after()
    }

    /// Gives up a message that came too often and fails while others do well, or hands
    /// it back for longer each time. That says nothing of the backends.
    fn give_up(&mut self, work: Work) {
        let attempt = work.attempt();
        let is_hopeless = attempt > self.core.settings.deliveries_max && self.failures == 0;
        self.leaves(&work);
        match work.from {
            Origin::Delivery(delivery, _) if is_hopeless => self.bury(delivery, attempt),
            from => self.hand_back(vec![from], pause_after(attempt)),
        }
    }

    /// Makes a dead letter of a message.
    pub(super) fn bury(&mut self, delivery: InHand, attempt: u32) {
        metrics::counter!("flux_buried_total").increment(1);
        warn!(attempt, "a message is given up");
        let reason = format!("delivered {attempt} times and never settled, while others were");
        let core = Arc::clone(&self.core);
        self.running.push(Box::pin(async move {
            let queue = &core.backend.queues()[delivery.partition()];
            if let Err(error) = queue.bury(&[(delivery.receipt().clone(), reason)]).await {
                debug!(%error, "the message was not buried; it comes back");
            }
            Event::GivenBack
        }));
    }

    /// Hands deliveries back, to come again after a while.
    pub(super) fn hand_back(&mut self, back: Vec<Origin>, after: Duration) {
        let delivery = |from: Origin| match from {
            Origin::Delivery(delivery, _) => Some(delivery),
            Origin::Caller(..) | Origin::Found => None,
        };
        let back: Vec<InHand> = back.into_iter().filter_map(delivery).collect();
        if back.is_empty() {
            return;
        }
        let core = Arc::clone(&self.core);
        self.running.push(Box::pin(async move {
            completion::hand_back(&core, back, after).await;
            Event::GivenBack
        }));
    }
}

/// Whether a message is about an order that another worker serves. Workers of an earlier
/// version serve one over several items by its first, so one whose hold is over for long
/// is anybody's who serves either.
pub(super) fn is_for_others(served: &[bool], work: &Work, now: Timestamp) -> bool {
    let (lines, partitions) = (work.lines(), served.len());
    if lines.is_empty() || partitions < 2 || served[partition_of_lines(lines, partitions)] {
        return false;
    }
    let hold = work.known.as_deref().and_then(Order::hold);
    let is_late = hold.is_some_and(|hold| hold.expires_at + LATE <= now);
    !(is_late && served[partition_of(&lines[0].item, partitions)])
}

/// Time to leave a message alone that failed so many times.
fn pause_after(failures: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << failures.min(10)).min(Duration::from_secs(30))
}
