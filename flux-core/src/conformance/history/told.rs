//! The judgement of a sale by its answers and their times alone, for a server
//! whose store nobody can look into.
//!
//! What a client was told is true at some moment between its question and the
//! answer. So each order has a time in which it *certainly* owns its units,
//! and a time in which it *may* own them. Only certain overlaps speak against
//! the server (G1, G6), and a refusal only where nobody may have owned what
//! was asked for (G8). Silence says nothing: such a call may have been done.

mod answers;
mod dossier;
mod refusals;
mod room;
mod stock;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use dossier::Dossiers;
use serde::{Deserialize, Serialize};

use super::{Demand, Fault};
use crate::protocol::{ItemId, ItemSpec, Order, OrderId, PaymentRef, Reason, Timestamp};

/// A call of a client and what came of it. Both moments are counted from the
/// beginning of the history by one monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Told {
    /// The moment before it was sent.
    pub asked_at: Duration,
    /// The moment after the answer was read, or after the client gave up.
    pub answered_at: Duration,
    /// The question.
    pub call: Call,
    /// The answer.
    pub answer: Answer,
}

impl Told {
    /// A call that took from `asked_at` to `answered_at`.
    #[must_use]
    pub fn new(asked_at: Duration, answered_at: Duration, call: Call, answer: Answer) -> Self {
        Self { asked_at, answered_at, call, answer }
    }
}

/// A question of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Call {
    /// An order under an id of the client's, queued; told for each attempt.
    Place(Order),
    /// An order under a key of the client's. Its id stands for the key here;
    /// the server gives it another, the same one each time.
    PlaceByKey(Order),
    /// The order as it stands.
    Look(OrderId),
    /// A payment.
    Confirm(OrderId, PaymentRef),
    /// The hold is given back.
    Release(OrderId),
    /// The sale is undone.
    Cancel(OrderId),
}

impl Call {
    /// The order it is about; of [`Call::PlaceByKey`] the client's word for it.
    #[must_use]
    pub fn order(&self) -> OrderId {
        match self {
            Self::Place(order) | Self::PlaceByKey(order) => order.id,
            Self::Look(id) | Self::Confirm(id, _) | Self::Release(id) | Self::Cancel(id) => *id,
        }
    }
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// The order as it then stood, whatever else the answer says.
    Shown(Order),
    /// Turned away at the gate: nothing was recorded.
    TurnedAway(Reason),
    /// There is no such order; of a new one, no such item.
    NotFound,
    /// The state of the order does not allow the call.
    NotAllowed,
    /// The id is known with other contents.
    Reused,
    /// No answer, or one that says nothing: the call may have been done.
    Nothing,
}

/// An item and the moment from which everybody may know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnSale {
    /// Its definition, the same all the time.
    pub spec: ItemSpec,
    /// The moment its definition was answered.
    pub since: Duration,
}

impl OnSale {
    /// An item on sale from the beginning of the history.
    #[must_use]
    pub fn new(spec: ItemSpec) -> Self {
        Self { spec, since: Duration::ZERO }
    }

    /// The same, on sale from that moment.
    #[must_use]
    pub fn since(self, since: Duration) -> Self {
        Self { since, ..self }
    }
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rest {
    /// The history goes on: what is missing may still come.
    #[default]
    No,
    /// All is done, and each order was looked at once more: what is undecided
    /// stays so. [`Demand`] says whether all had to be sold.
    Yes(Demand),
}

/// The rules by which a history of answers is judged. Nobody but its clients
/// may buy the items, and no [rule about buyers](crate::BuyerRules) be set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// The items.
    pub items: Vec<OnSale>,
    /// Longest time between the end of a hold, or a call that gives stock
    /// back, and its stock on sale again. Outages are not counted.
    pub tolerance: Duration,
    /// Largest difference between clocks of the server and of its clients in
    /// the course of a hold.
    pub clock_slack: Duration,
    /// Time for which a rejected order is remembered.
    pub keep_rejected: Duration,
    /// Times at which the server was down or frozen.
    pub outages: Vec<Range<Duration>>,
    /// The time of day at the beginning of the history; without it no refusal
    /// of an item that opens or closes is judged by time.
    pub began: Option<Timestamp>,
    /// Whether the server can't look into its queue: it may not know an order, and
    /// turn its repeat away, until that is decided.
    pub hidden_queue: bool,
    /// Whether more is to come.
    pub rest: Rest,
}

impl Terms {
    /// Five seconds of tolerance, a tenth of a second between clocks, an hour for rejected
    /// orders, no outages, a queue that can be looked into, and more to come.
    #[must_use]
    pub fn new(items: Vec<OnSale>) -> Self {
        Self {
            items,
            tolerance: Duration::from_secs(5),
            clock_slack: Duration::from_millis(100),
            keep_rejected: Duration::from_secs(3_600),
            outages: Vec::new(),
            began: None,
            hidden_queue: false,
            rest: Rest::No,
        }
    }

    /// The same, with that tolerance.
    #[must_use]
    pub fn with_tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }

    /// The same, with clocks that differ by so much.
    #[must_use]
    pub fn with_clock_slack(self, clock_slack: Duration) -> Self {
        Self { clock_slack, ..self }
    }

    /// The same, with those outages.
    #[must_use]
    pub fn with_outages(self, outages: Vec<Range<Duration>>) -> Self {
        Self { outages, ..self }
    }

    /// The same, begun at that time of day.
    #[must_use]
    pub fn with_began(self, began: Timestamp) -> Self {
        Self { began: Some(began), ..self }
    }

    /// The same, of a server that can't look into its queue.
    #[must_use]
    pub fn with_hidden_queue(self) -> Self {
        Self { hidden_queue: true, ..self }
    }

    /// The same, at rest.
    #[must_use]
    pub fn at_rest(self, demand: Demand) -> Self {
        Self { rest: Rest::Yes(demand), ..self }
    }

    fn item(&self, id: &ItemId) -> Option<&OnSale> {
        self.items.iter().find(|item| item.spec.id == *id)
    }

    /// The last moment at which what ended at `end` may still keep its stock.
    #[must_use]
    pub fn returned_by(&self, end: Duration) -> Duration {
        let mut outages = self.outages.clone();
        outages.sort_by_key(|outage| outage.start);
        let mut by = end.saturating_add(self.tolerance);
        let mut counted = end;
        for outage in outages {
            let from = outage.start.max(counted);
            if from <= by && outage.end > from {
                by = by.saturating_add(outage.end - from);
                counted = outage.end;
            }
        }
        by
    }
}

/// Judges a history by what its clients were told and when. No fault means
/// that nothing they were told contradicts G1, G3 to G6, G8 and G9.
///
/// The order of `told` does not matter.
///
/// ```
/// use std::time::Duration;
///
/// use flux_core::conformance::history::{Answer, Call, Fault, OnSale, Terms, Told, judge};
/// use flux_core::{Hold, ItemSpec, Order, OrderId, OrderRequest, OrderState, Timestamp};
///
/// let terms = Terms::new(vec![OnSale::new(ItemSpec::pool("ticket_1", 1)?)]);
/// let now = Timestamp::now();
/// let hold = Hold::between(now, now + Duration::from_secs(600));
/// // Two buyers are told that they hold the only ticket.
/// let mut told = Vec::new();
/// for buyer in ["ann", "bob"] {
///     let request = OrderRequest::units(buyer, "ticket_1", 1)?;
///     let asked = Order::queued(OrderId::new(), request.buyer, request.lines, now);
///     let held = asked.with_state(OrderState::Held(hold));
///     let [from, to] = [0, 20].map(Duration::from_millis);
///     told.push(Told::new(from, to, Call::Place(asked), Answer::Shown(held)));
/// }
/// assert!(matches!(judge(&told, &terms)[..], [Fault::Oversold { taken: 2, .. }]));
/// assert_eq!(judge(&told[..1], &terms), []);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[must_use]
pub fn judge(told: &[Told], terms: &Terms) -> Vec<Fault> {
    let dossiers = Dossiers::of(told);
    let mut faults = dossiers.other_orders();
    for dossier in dossiers.iter() {
        faults.extend(answers::check(dossier, terms));
    }
    faults.extend(stock::check(&dossiers, terms));
    faults.extend(refusals::check(&dossiers, terms));
    faults
}
