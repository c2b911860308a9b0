//! A turn of an item, or of several that are connected: what waits for them is decided
//! in the order of arrival, on a view that nobody else has, and committed. The answers
//! are told once they are durable: see [`completion`](super::completion).

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tracing::{debug, warn};

use super::transactions::{Fit, Transactions};
use super::work::Work;
use crate::engine::accept::inbox::Answer;
use crate::engine::core::Core;
use crate::protocol::{
    CommitOutcome, ItemId, Message, OrderId, OrderStatus, OverCap, Verdict, View,
};
use crate::seams::{Availability, Durable, Outcomes, SeamError};

/// Tries that only told something about others, after which one counts as in vain.
const LESSONS_MAX: u32 = 64;

/// A turn, from what waits to what was made of it.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) works: Vec<Work>,
    pub(crate) items: Vec<ItemId>,
    /// The claims of the items, and whatever else is in the same hands.
    pub(crate) view: View,
    /// Buyers that a commit of these items was refused for, until one is applied.
    pub(crate) over_cap: Vec<OverCap>,
}

/// A turn that is over. What has no answer must be tried again.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) turn: Turn,
    pub(crate) durable: Option<Durable>,
    /// The orders and numbers it changed, by commit.
    pub(crate) outcomes: Vec<Arc<Outcomes>>,
    /// Items that others took.
    pub(crate) lost: HashSet<ItemId>,
    /// Whether the store failed: its items should be left to others for a while.
    pub(crate) has_failed: bool,
}

impl Turn {
    /// Decides and commits. Dropped while it runs, it leaves open what it wrote.
    pub(crate) async fn run(mut self, core: &Core) -> Turned {
        let transactions = self.decide(core);
        let mut turned = Turned {
            turn: self,
            durable: None,
            outcomes: Vec::new(),
            lost: HashSet::new(),
            has_failed: false,
        };
        if transactions.is_empty() {
            // Repeats are answered by what was found.
            return turned;
        }
        let (commits, positions): (Vec<_>, Vec<_>) = transactions
            .into_commits(&turned.turn.view)
            .into_iter()
            .map(|transaction| (transaction.commit, transaction.positions))
            .unzip();
        let ruled = match core.backend.store.begin_commit(&commits).await {
            Ok(begun) => {
                turned.durable = Some(begun.durable);
                begun.outcomes
            }
            Err(error) if error.may_have_applied() => vec![CommitOutcome::Unknown; commits.len()],
            Err(error) => {
                // Decided and not written: the view is ahead of the store.
                for commit in &commits {
                    turned.turn.forget_all(commit.claims.iter().map(|(item, _)| item));
                }
                turned.fail(core, &error);
                return turned;
            }
        };
        for ((commit, positions), outcome) in commits.into_iter().zip(positions).zip(ruled) {
            let items = commit.claims.iter().map(|(item, _)| item);
            let turn = &mut turned.turn;
            match outcome {
                CommitOutcome::Applied => {
                    // The facts about their buyers are no longer true.
                    let claims = &commit.claims;
                    turn.over_cap.retain(|over| claims.iter().all(|(item, _)| *item != over.item));
                    let availability = items.filter_map(|item| {
                        let available = turn.view.get(item)?.stock.available();
                        Some(Availability { item: item.clone(), available })
                    });
                    let availability = availability.collect();
                    let orders = commit.writes.into_iter().map(|write| write.order).collect();
                    let outcomes = Arc::new(Outcomes { orders, availability });
                    core.gate.set_availability(&outcomes.availability);
                    for (at, position) in positions.into_iter().enumerate() {
                        let answer = Answer::Decided(Arc::clone(&outcomes), at);
                        turn.works[position].answer = Some(answer);
                    }
                    turned.outcomes.push(outcomes);
                }
                CommitOutcome::Fenced(lost) => {
                    metrics::counter!("flux_fenced_total").increment(1);
                    turned.lost.extend(lost);
                    turn.forget_all(items);
                    positions.iter().for_each(|position| turn.works[*position].refused = true);
                }
                CommitOutcome::Conflict { moved, over_cap, barred } => {
                    metrics::counter!("flux_conflicts_total").increment(1);
                    // The claims still stand: the others need no new ones, and what was told
                    // of buyers lasts as long.
                    turn.view.undo(&commit.writes, &moved);
                    turn.over_cap.extend(over_cap);
                    for position in positions {
                        let work = &mut turn.works[position];
                        work.looks_first |= moved.contains(&work.id());
                        work.barred |= barred.contains(&work.id());
                        // Each lesson is about another order; so many are odd.
                        work.lessons += 1;
                        work.refused = work.lessons.is_multiple_of(LESSONS_MAX);
                    }
                }
                CommitOutcome::Unknown => {
                    metrics::counter!("flux_unknown_commits_total").increment(1);
                    for position in positions {
                        let work = &mut turn.works[position];
                        (work.looks_first, work.doubtful) = (true, true);
                        work.refused = true;
                    }
                    turn.forget_all(items);
                }
            }
        }
        turned.answer_repeats();
        turned
    }

    fn decide(&mut self, core: &Core) -> Transactions {
        let now = core.clock.now();
        let view = &mut self.view;
        view.forget_buyers();
        for over in &self.over_cap {
            view.learn(over.clone());
        }
        let max = core.backend.store.commit_max();
        let mut transactions = Transactions::new(max, self.works.len());
        let mut decided =
            HashSet::with_capacity_and_hasher(self.works.len(), RandomState::default());
        for (position, work) in self.works.iter_mut().enumerate() {
            let id = work.id();
            if work.barred {
                view.bar(id);
            }
            if decided.contains(&id) {
                // Answered by the first one's outcome.
                continue;
            }
            let found = work.known.as_deref();
            let order = match (&work.message, found) {
                (Message::Place(order), None) => Some(order),
                (_, found) => found,
            };
            let room = order.map_or(Fit::Whatever, |order| transactions.fit(order, view));
            let is_new = matches!(work.message, Message::Place(_)) && found.is_none();
            if room == Fit::No || (room == Fit::SeparateTransaction && !is_new) {
                order.inspect(|order| transactions.close(order));
                continue;
            }
            match view.decide(&work.message, found, now) {
                // An order that is turned down took nothing of the view.
                Verdict::Write(write)
                    if room == Fit::SeparateTransaction
                        && write.order.status() != OrderStatus::Held =>
                {
                    transactions.close(&write.order);
                }
                Verdict::Write(write) => {
                    decided.insert(id);
                    transactions.add(write, position, view);
                }
                Verdict::Nothing => work.answer = Some(as_found(work)),
            }
        }
        transactions
    }

    /// Forgets items that others may have had meanwhile, with what was told of their buyers.
    fn forget_all<'i>(&mut self, items: impl IntoIterator<Item = &'i ItemId>) {
        for item in items {
            self.view.remove(item);
            self.over_cap.retain(|over| over.item != *item);
        }
    }
}

impl Turned {
    /// Answers what asks again for an order of this turn, and lets what follows up on
    /// one know it.
    fn answer_repeats(&mut self) {
        let is_open = |work: &&mut Work| work.answer.is_none();
        if self.outcomes.is_empty() || self.turn.works.iter().all(|work| work.answer.is_some()) {
            return;
        }
        let written = self.outcomes.iter().flat_map(|outcomes| &outcomes.orders);
        let written: std::collections::HashMap<OrderId, _> =
            written.map(|order| (order.id, order)).collect();
        for work in self.turn.works.iter_mut().filter(is_open) {
            let Some(order) = written.get(&work.id()) else { continue };
            work.knows(Some((*order).clone()));
            if matches!(work.message, Message::Place(_)) {
                work.answer = Some(as_found(work));
            }
        }
    }

    fn fail(&mut self, core: &Core, error: &SeamError) {
        self.has_failed = true;
        self.turn.works.iter_mut().for_each(|work| work.refused = true);
        if let SeamError::Broken { .. } | SeamError::Stopped { .. } = error {
            warn!(error = error as &dyn Error, "a backend is broken");
            core.note(error);
            for work in self.turn.works.iter_mut().filter(|work| work.answer.is_none()) {
                // An earlier try may have written it, whatever came after.
                let is_open = work.doubtful && !error.may_have_applied();
                work.answer = Some(match is_open {
                    true => Answer::GivenUp,
                    false => Answer::Broken(Box::new(error.clone())),
                });
            }
        } else {
            debug!(%error, "a backend failed; trying again");
        }
    }
}

/// The answer to a message that changes nothing.
pub(crate) fn as_found(work: &Work) -> Answer {
    match &work.known {
        Some(order) => Answer::Found(order.clone()),
        None => Answer::NotFound(work.id()),
    }
}
