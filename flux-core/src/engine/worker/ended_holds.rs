//! The holds that ended: a sweep finds some thousands at once, and the worker takes them
//! up in parts, so that its callers never wait for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::work::{Origin, Work};
use super::{Event, QUIET_AFTER, Worker};
use crate::engine::core::Core;
use crate::protocol::{Message, OrderId, Timestamp};
use crate::seams::DueHolds;

/// Most holds found in one sweep.
const SWEEP_MAX: usize = 8_192;
/// Most holds that a worker takes up at once; twice as many are in its hands.
const PART: usize = 1_024;

/// The holds that ended and are not given back, as far as they were found.
#[derive(Debug, Default)]
pub(super) struct EndedHolds {
    found: VecDeque<OrderId>,
    /// The number that the worker has taken up.
    in_hand: usize,
    is_sweeping: bool,
    /// Whether the last sweep left some to the next.
    are_more: bool,
}

impl EndedHolds {
    /// Whether all are given back that were found.
    pub(super) fn are_done(&self) -> bool {
        self.found.is_empty() && self.in_hand == 0 && !self.is_sweeping
    }

    /// Whether so much is to be done that a worker should not wait for its disk.
    pub(super) fn are_many(&self) -> bool {
        self.are_more || !self.found.is_empty()
    }

    /// Notes that so many are dealt with.
    pub(super) fn done(&mut self, count: usize) {
        self.in_hand -= count;
    }
}

impl Worker {
    /// Looks for ended holds, if it is time, and takes up those that were found.
    pub(super) fn find_ended_holds(&mut self) {
        if self.ended.are_done() && self.core.sweep_alarm.begin() {
            self.ended.is_sweeping = true;
            let core = Arc::clone(&self.core);
            self.running.push(Box::pin(async move { Event::Swept(sweep(&core).await) }));
        }
        while self.ended.in_hand <= PART && !self.ended.found.is_empty() {
            let part = PART.min(self.ended.found.len());
            self.ended.in_hand += part;
            for id in self.ended.found.drain(..part).collect::<Vec<_>>() {
                self.add(Work::new(Message::Expire(id), Origin::Found));
            }
        }
    }

    /// Takes over what a sweep found.
    pub(super) fn take_ended(&mut self, due: Vec<OrderId>) {
        self.ended.is_sweeping = false;
        self.ended.are_more = due.len() >= SWEEP_MAX;
        self.ended.found.extend(due);
    }
}

/// Finds holds that ended, and plans the next sweep.
async fn sweep(core: &Core) -> Vec<OrderId> {
    // At the beginning of time nothing is due.
    let may_end = core.may_end_holds();
    let today = if may_end { core.clock.now() } else { Timestamp::default() };
    let found = core.backend.store.due_holds(today, SWEEP_MAX).await;
    let DueHolds { due, next } = found.unwrap_or_else(|error| {
        core.note(&error);
        debug!(%error, "ended holds could not be read");
        DueHolds { due: Vec::new(), next: Some(today) }
    });
    // G8: what an ended hold set aside is sold again.
    let (settings, alarm) = (&core.settings, &core.sweep_alarm);
    let every = match () {
        () if !due.is_empty() || !may_end => settings.sweep_every,
        () if next.is_none() && alarm.quiet_for() >= QUIET_AFTER => settings.idle_sweep_every,
        // None that is made from now on ends sooner, of those that may be made unheard.
        () => alarm
            .shortest_hold()
            .clamp(settings.sweep_every.min(settings.idle_sweep_every), settings.idle_sweep_every),
    };
    alarm.plan(match due.len() {
        // A full sweep means more.
        SWEEP_MAX.. => Instant::now(),
        _ => core.sweep_at(every, next.filter(|_| may_end)),
    });
    due
}
