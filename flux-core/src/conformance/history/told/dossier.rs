//! All that was told of one order, and the times in which it certainly owns
//! its units and in which it may.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use super::{Answer, Call, Fault, Terms, Told};
use crate::protocol::{Order, OrderId, OrderState, OrderStatus, Reason};

/// One order.
#[derive(Debug)]
pub(super) struct Dossier<'t> {
    pub(super) id: OrderId,
    /// In the order of the questions.
    pub(super) told: Vec<&'t Told>,
}

/// The orders of a history.
#[derive(Debug)]
pub(super) struct Dossiers<'t> {
    by_id: BTreeMap<OrderId, Dossier<'t>>,
    /// Calls that were answered with another order than they are about.
    strays: Vec<(OrderId, OrderId)>,
}

impl<'t> Dossiers<'t> {
    pub(super) fn of(told: &'t [Told]) -> Self {
        let mut by_time: Vec<&Told> = told.iter().collect();
        by_time.sort_by_key(|told| (told.asked_at, told.answered_at));
        // The ids that the server gave to keys.
        let mut given: HashMap<OrderId, OrderId> = HashMap::new();
        let mut strays = Vec::new();
        for told in &by_time {
            let Answer::Shown(shown) = &told.answer else { continue };
            let id = match &told.call {
                Call::PlaceByKey(order) => *given.entry(order.id).or_insert(shown.id),
                other => other.order(),
            };
            if id != shown.id {
                strays.push((id, shown.id));
            }
        }
        let mut by_id: BTreeMap<OrderId, Dossier<'t>> = BTreeMap::new();
        for told in by_time {
            let id = told.call.order();
            let id = given.get(&id).copied().unwrap_or(id);
            let dossier = by_id.entry(id).or_insert_with(|| Dossier::new(id));
            dossier.told.push(told);
        }
        // An order that a stray answer shows exists as well, and owns what it shows.
        for told in told {
            if let Answer::Shown(shown) = &told.answer
                && !by_id.contains_key(&shown.id)
            {
                let mut dossier = Dossier::new(shown.id);
                dossier.told.push(told);
                by_id.insert(shown.id, dossier);
            }
        }
        Self { by_id, strays }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Dossier<'t>> {
        self.by_id.values()
    }

    /// G3: one fault for each call that was answered with another order.
    pub(super) fn other_orders(&self) -> Vec<Fault> {
        let fault = |(order, shown): &(OrderId, OrderId)| Fault::AnotherOrder {
            order: *order,
            shown: *shown,
        };
        self.strays.iter().map(fault).collect()
    }
}

impl<'t> Dossier<'t> {
    fn new(id: OrderId) -> Self {
        Self { id, told: Vec::new() }
    }

    /// The answers that show it.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'t Told, &'t Order)> {
        self.told.iter().filter_map(move |told| match &told.answer {
            Answer::Shown(order) if order.id == self.id => Some((*told, order)),
            _ => None,
        })
    }

    /// Its contents, as they are shown; of one that never was, each that it may have.
    pub(super) fn contents(&self) -> Vec<&'t Order> {
        if let Some((_, order)) = self.shown().next() {
            return vec![order];
        }
        let mut contents: Vec<&Order> = Vec::new();
        for told in &self.told {
            if let Call::Place(order) | Call::PlaceByKey(order) = &told.call
                && !contents.iter().any(|known| known.asks_the_same_as(order))
            {
                contents.push(order);
            }
        }
        contents
    }

    /// The attempts to place it.
    pub(super) fn attempts(&self) -> impl Iterator<Item = &'t Told> {
        self.told.iter().copied().filter(|told| is_attempt(told))
    }

    pub(super) fn first_asked_at(&self) -> Duration {
        self.told.first().map_or(Duration::ZERO, |told| told.asked_at)
    }

    /// The earliest moment at which an answer shows a state that `is` so.
    pub(super) fn known_by(&self, is: impl Fn(OrderStatus) -> bool) -> Option<Duration> {
        let known = self.shown().filter(|(_, order)| is(order.status()));
        known.map(|(told, _)| told.answered_at).min()
    }

    pub(super) fn is_known(&self, status: OrderStatus) -> bool {
        self.known_by(|shown| shown == status).is_some()
    }

    /// The earliest moment at which a call that `is` so was sent.
    pub(super) fn sent_at(&self, is: impl Fn(&Call) -> bool) -> Option<Duration> {
        self.told.iter().find(|told| is(&told.call)).map(|told| told.asked_at)
    }

    pub(super) fn released_from(&self) -> Duration {
        self.sent_at(|call| matches!(call, Call::Release(_))).unwrap_or(Duration::MAX)
    }

    pub(super) fn cancelled_from(&self) -> Duration {
        self.sent_at(|call| matches!(call, Call::Cancel(_))).unwrap_or(Duration::MAX)
    }

    /// The length of its hold, if it ever was shown in full.
    pub(super) fn hold_time(&self) -> Option<Duration> {
        self.shown().find_map(|(_, order)| match &order.state {
            OrderState::Released(_) => None,
            _ => order.hold().map(|hold| hold.expires_at.since(hold.decided_at)),
        })
    }

    /// The moment before which its hold can't have ended: it was decided after
    /// it was first asked for.
    pub(super) fn hold_ends_from(&self, terms: &Terms) -> Option<Duration> {
        let end = self.first_asked_at() + self.hold_time()?;
        Some(end.saturating_sub(terms.clock_slack))
    }

    /// The moment at which its hold has ended: it was decided before it was
    /// first shown so.
    pub(super) fn hold_ends_by(&self) -> Option<Duration> {
        let decided = self.known_by(|status| status != OrderStatus::Queued)?;
        Some(decided.saturating_add(self.hold_time()?))
    }

    /// The reason for which it was rejected, and the time in which it was.
    pub(super) fn rejected(&self) -> Option<(Reason, Range<Duration>)> {
        let found = self.shown().filter_map(|(told, order)| Some((order.reason()?, told)));
        let (reason, told) = found.min_by_key(|(_, told)| told.answered_at)?;
        Some((reason, self.first_asked_at()..told.answered_at))
    }

    /// The times in which it certainly owns its units, in order and apart.
    pub(super) fn owns(&self, terms: &Terms) -> Vec<Range<Duration>> {
        let given_back = self.released_from().min(self.cancelled_from());
        let held = self.known_by(|status| status == OrderStatus::Held);
        let held = held.zip(self.hold_ends_from(terms)).map(|(from, until)| from..until);
        let held = held.map(|held| held.start..held.end.min(given_back));
        let sold = self.known_by(|status| status == OrderStatus::Confirmed);
        let sold = sold.map(|from| from..self.cancelled_from());
        let mut owned: Vec<Range<Duration>> =
            [held, sold].into_iter().flatten().filter(|time| !time.is_empty()).collect();
        owned.sort_by_key(|time| time.start);
        if let [first, second] = &owned[..]
            && second.start <= first.end
        {
            owned = vec![first.start..first.end.max(second.end)];
        }
        owned
    }

    /// Whether it was looked for in vain when the last attempt was over for long.
    fn never_was(&self, terms: &Terms) -> bool {
        let over = self.attempts().map(|told| told.answered_at).max().unwrap_or_default();
        let over = terms.returned_by(over);
        self.shown().next().is_none()
            && self.told.iter().any(|told| told.answer == Answer::NotFound && told.asked_at > over)
    }

    /// The time in which it may own its units, with what the server may take
    /// to put them on sale again.
    pub(super) fn may_own(&self, terms: &Terms) -> Option<Range<Duration>> {
        let is_turned_away = || {
            self.attempts().all(|told| matches!(told.answer, Answer::TurnedAway(_)))
                && self.shown().next().is_none()
        };
        if self.is_known(OrderStatus::Rejected) || is_turned_away() || self.never_was(terms) {
            return None;
        }
        let is_over = |status| {
            matches!(
                status,
                OrderStatus::Released | OrderStatus::Cancelled | OrderStatus::RefundDue
            )
        };
        let mut until = self.known_by(is_over).unwrap_or(Duration::MAX);
        if self.sent_at(|call| matches!(call, Call::Confirm(..))).is_none() {
            let expired = self.known_by(|status| status == OrderStatus::Expired);
            let ended = [expired, self.hold_ends_by()];
            until = ended.into_iter().flatten().fold(until, Duration::min);
        } else if self.is_known(OrderStatus::RefundDue) {
            // It was not taken again.
            until = self.hold_ends_by().map_or(until, |end| until.min(end));
        }
        Some(self.first_asked_at()..terms.returned_by(until))
    }
}

pub(super) fn is_attempt(told: &Told) -> bool {
    matches!(told.call, Call::Place(_) | Call::PlaceByKey(_))
}
