//! The history of a test, and the judgement whether it may have happened.
//!
//! A [`History`] is written from two sides: a test tells it what it asked and
//! was answered, and a [`Recorded`] store what reached the truth. At rest,
//! [`History::check`] compares both with the store. The token of its claim
//! tells the turn of a write among the others of its item, so the replay is
//! exact even where replies were lost, late or swapped.
//!
//! Of a server whose store is out of reach, [`judge`] judges the answers and their
//! times alone; `examples/judge` drives one so.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use flux_core::Timestamp;
//! use flux_core::conformance::history::{Demand, EndState, History, Recorded};
//! use flux_core::seams::{InventoryStore, SeamError};
//!
//! async fn story(store: Arc<dyn InventoryStore>, now: Timestamp) -> Result<(), SeamError> {
//!     let history = History::new();
//!     let recorded = Recorded::new(store.clone(), history.clone());
//!     // Run an engine on `recorded`; tell `history.asked(&order)` before each
//!     // call and `history.answered(&order)` after it. When all is at rest:
//!     let end = EndState::read(&*store, now).await?;
//!     let end = end.with_grace(Duration::from_secs(1)).with_demand(Demand::CoversStock);
//!     assert_eq!(history.check(&end), []);
//!     # drop(recorded);
//!     Ok(())
//! }
//! ```

mod answers;
mod end;
mod fault;
mod recorded;
mod rejections;
mod replay;
#[cfg(test)]
mod tests;
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use end::{Demand, EndState, Numbers};
pub use fault::Fault;
pub use recorded::Recorded;
use serde::{Deserialize, Serialize};
pub use told::{Answer, Call, OnSale, Rest, Terms, Told, judge};

use crate::protocol::{Commit, FencingToken, ItemId, ItemSpec, Order, OrderId, OrderState};

/// An action of a client, or an answer to it. A process under test can hand
/// these to its parent through a pipe and be killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// This was sent; once for each attempt.
    Asked(Order),
    /// The order was shown to the client, by whatever call.
    Answered(Order),
    /// The gate turned an attempt away: it was never accepted.
    TurnedAway(OrderId),
    /// An attempt ended without an answer: it may have been accepted.
    Failed(OrderId),
}

/// The fate of a commit, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Applied,
    Refused,
    /// No answer, or none yet.
    Open,
}

/// A commit that reached the store. `began` and `ended` count the history's
/// own steps; `life` the restarts before it.
#[derive(Debug, Clone)]
struct Write {
    commit: Commit,
    fate: Fate,
    life: u32,
    began: u64,
    ended: Option<u64>,
}

/// A claim that was granted, and what it showed.
#[derive(Debug, Clone)]
struct Grant {
    token: FencingToken,
    spec: Arc<ItemSpec>,
    life: u32,
    began: u64,
    ended: u64,
}

/// A claim of an item that was not there, and when that was told.
#[derive(Debug, Clone)]
struct Missing {
    item: ItemId,
    ended: u64,
}

#[derive(Debug, Clone, Default)]
struct Log {
    steps: u64,
    life: u32,
    events: Vec<Event>,
    /// The step at which each order was asked for the first time.
    asked: HashMap<OrderId, u64>,
    grants: Vec<Grant>,
    missing: Vec<Missing>,
    writes: Vec<Write>,
    /// Orders as they were answered by calls that write an order alone: `confirm` and
    /// `refund`.
    alone: Vec<Order>,
}

impl Log {
    fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    /// The step at which the order was first asked; the beginning, where that is not
    /// recorded.
    fn asked_at(&self, order: OrderId) -> u64 {
        self.asked.get(&order).copied().unwrap_or_default()
    }
}

/// A record of one test; clones write to the same one.
#[derive(Debug, Clone, Default)]
pub struct History {
    log: Arc<Mutex<Log>>,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic elsewhere leaves a log that lacks an entry, not a broken one.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub fn record(&self, event: Event) {
        let mut log = self.log();
        let step = log.step();
        if let Event::Asked(order) = &event {
            log.asked.entry(order.id).or_insert(step);
        }
        log.events.push(event);
    }

    /// [`Event::Asked`], to be recorded before the order is sent.
    pub fn asked(&self, order: &Order) {
        self.record(Event::Asked(order.clone()));
    }

    /// [`Event::Answered`].
    pub fn answered(&self, order: &Order) {
        self.record(Event::Answered(order.clone()));
    }

    /// [`Event::TurnedAway`].
    pub fn turned_away(&self, order: OrderId) {
        self.record(Event::TurnedAway(order));
    }

    /// [`Event::Failed`].
    pub fn failed(&self, order: OrderId) {
        self.record(Event::Failed(order));
    }

    /// Notes that the store was closed or crashed, and opened again: claims may
    /// be gone, and tokens start over.
    pub fn restarted(&self) {
        self.log().life += 1;
    }

    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.log().events.clone()
    }

    /// Judges the history by what the store shows at rest: no commit on its
    /// way, every message of the queue worked off. No fault means that G1 to
    /// G9 held as far as was recorded.
    ///
    /// Without a [`Recorded`] store, stock and caps are judged at the end
    /// alone, a cap as it then is, and the reasons of rejections are not. With
    /// one, a reason is judged by what the claims of its write had shown:
    ///
    /// - `unknown_item` is false if each item that the write did not claim was
    ///   there whenever it was claimed since the order was first asked, and if
    ///   the others have what the order asks for: units, or seats;
    /// - `not_open` and `closed`, if each item was open, or not closed, when the
    ///   order was placed, by its definition, or by all that were ever claimed
    ///   where the write did not claim it;
    /// - `buyer_limit`, if at no moment since the order was first asked the
    ///   buyer had so much that a cap was in its way. Not judged where the write
    ///   did not claim an item that had a cap at some time, and where there are
    ///   [rules about buyers](EndState::with_buyer_rules), which may be the
    ///   reason as well;
    /// - `sold_out` and `seat_taken` are judged by what is left [at the
    ///   end](Demand::CoversStock), with a recorded store or without.
    #[must_use]
    pub fn check(&self, end: &EndState) -> Vec<Fault> {
        let log = self.log().clone();
        let mut faults = answers::check(&log, end);
        if log.writes.is_empty() {
            faults.extend(end.over_cap());
        } else {
            faults.extend(replay::check(&log, end));
        }
        faults.extend(end.check());
        faults.extend(end.hoarded());
        faults.extend(end.undersold(&log.events));
        faults
    }
}

/// Whether an order in state `from` may later be found in state `to`.
fn leads_to(from: &OrderState, to: &OrderState) -> bool {
    use OrderState::{Cancelled, Confirmed, Expired, Held, Queued, RefundDue, Released};
    match (from, to) {
        (Queued, _) => true,
        // A hold that is released ends there and then.
        (Held(was), Released(is)) => {
            was.decided_at == is.decided_at && is.expires_at <= was.expires_at
        }
        (Held(was), Expired(is))
        | (Held(was) | Expired(was), Confirmed(is, _) | Cancelled(is, _) | RefundDue(is, _)) => {
            was == is
        }
        (Confirmed(was, paid), Cancelled(is, by)) => was == is && paid == by,
        _ => from == to,
    }
}
