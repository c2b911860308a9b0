//! One batch of messages, from lease to answer:
//!
//! 1. read the orders that follow-ups are about;
//! 2. lease the items (for throughput) and claim them (for the truth);
//! 3. read again what an earlier try left in doubt: after the claim no late
//!    write of ours can land any more;
//! 4. decide in the order of arrival;
//! 5. commit, each set of connected items as one atomic write;
//! 6. answer what was applied; forget what was refused, and try it again.
//!
//! The answers are told once they are durable: see [`completion`](super::completion).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tracing::{debug, warn};

use super::leases::HeldLeases;
use super::transactions::{Fit, Transactions};
use crate::backoff::Backoff;
use crate::engine::accept::inbox::Answer;
use crate::engine::core::Core;
use crate::protocol::{
    CommitOutcome, ItemId, Line, Message, Order, OrderId, OrderStatus, OverCap, Verdict, View,
};
use crate::seams::{Availability, Durable, Outcomes, SeamError};

/// Pauses between passes that got nowhere.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(500));

/// A message being worked on.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) message: Message,
    pub(crate) answer: Option<Answer>,
    /// Whether the order is looked for before it is decided.
    looks_first: bool,
    /// Whether it may be left to another worker that has its items.
    is_spare: bool,
}

impl Work {
    pub(crate) fn new(message: Message) -> Self {
        let looks_first = !matches!(message, Message::Place(_));
        Self { message, answer: None, looks_first, is_spare: false }
    }

    /// Work that each worker finds by itself, as the end of a hold.
    pub(crate) fn spare(message: Message) -> Self {
        Self { is_spare: true, ..Self::new(message) }
    }

    /// Work that was tried before, so that it may be decided: a look costs less
    /// than a commit in vain.
    pub(crate) fn again(message: Message) -> Self {
        Self { looks_first: true, ..Self::new(message) }
    }
}

/// The effect of a batch, to be told once it is durable and not before.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) durable: Vec<Durable>,
    /// The orders and numbers it changed, by commit.
    pub(crate) outcomes: Vec<Arc<Outcomes>>,
}

/// Works on batches, and keeps items from one to the next.
#[derive(Debug)]
pub(crate) struct BatchProcessor {
    core: Arc<Core>,
    view: View,
    leases: HeldLeases,
}

/// Facts that one batch learns on its way.
#[derive(Debug, Default)]
struct Facts {
    /// Orders as the store had them.
    orders: HashMap<OrderId, Option<Order>>,
    /// Orders to read again once the items are claimed.
    doubtful: HashSet<OrderId>,
    over_cap: Vec<OverCap>,
}

impl Facts {
    fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&id).and_then(Option::as_ref)
    }

    /// The lines whose items must be claimed for a piece of work; none for a
    /// follow-up whose order does not exist, and for an order found decided.
    fn lines<'f>(&'f self, work: &'f Work) -> &'f [Line] {
        match (&work.message, self.order(work.message.order_id())) {
            (Message::Place(order), None) => &order.lines,
            (Message::Place(_), Some(_)) | (_, None) => &[],
            (_, Some(order)) => &order.lines,
        }
    }
}

impl BatchProcessor {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { leases: HeldLeases::new(Arc::clone(&core)), core, view: View::default() }
    }

    /// Works on a batch until each message has its answer, to be told when the
    /// effect is durable.
    pub(crate) async fn work(&mut self, batch: &mut [Work]) -> Done {
        let mut facts = Facts::default();
        let mut done = Done::default();
        let (mut refusals, mut lessons) = (0, 0);
        while batch.iter().any(|work| work.answer.is_none()) {
            match self.pass(batch, &mut facts, &mut done).await {
                Ok(Pass::Progress) => continue,
                // Each lesson is about another order, so the batch bounds them.
                Ok(Pass::Learned) if lessons < batch.len() => {
                    lessons += 1;
                    continue;
                }
                Ok(Pass::Learned | Pass::Refused) => {}
                Err(error @ SeamError::Broken { .. }) => {
                    warn!(error = &error as &dyn Error, "a backend is broken");
                    give_up(batch, &Answer::Broken(error));
                    break;
                }
                Err(error) => {
                    debug!(%error, "a backend failed; trying again");
                    self.let_go().await;
                }
            }
            refusals += 1;
            if refusals >= self.core.settings.tries_max {
                give_up(batch, &Answer::GivenUp);
                break;
            }
            tokio::time::sleep(PAUSE.full_jitter(refusals)).await;
        }
        self.tidy().await;
        done
    }

    async fn pass(
        &mut self,
        batch: &mut [Work],
        facts: &mut Facts,
        done: &mut Done,
    ) -> Result<Pass, SeamError> {
        self.read_followed_up(batch, facts).await?;
        let waits_for = self.claim_missing(batch, facts).await?;
        if !facts.doubtful.is_empty() {
            let ids: Vec<OrderId> = facts.doubtful.iter().copied().collect();
            let orders = self.core.backend.store.orders(&ids).await?;
            facts.orders.extend(ids.into_iter().zip(orders));
            facts.doubtful.clear();
        }
        let transactions = self.decide(batch, facts, &waits_for);
        if transactions.is_empty() {
            // Repeats are answered by what was found, so there is progress
            // unless everything was put off, which having nothing to write rules out.
            return Ok(Pass::Progress);
        }
        let (commits, positions): (Vec<_>, Vec<_>) = transactions
            .into_commits(&self.view)
            .into_iter()
            .map(|transaction| (transaction.commit, transaction.positions))
            .unzip();
        let ruled = match self.core.backend.store.begin_commit(&commits).await {
            Ok(begun) => {
                done.durable.push(begun.durable);
                begun.outcomes
            }
            Err(error) if error.may_have_applied() => vec![CommitOutcome::Unknown; commits.len()],
            Err(error) => {
                // Decided and not written: the view is ahead of the store.
                for commit in &commits {
                    self.forget(commit.claims.iter().map(|(item, _)| item));
                }
                return Err(error);
            }
        };
        let mut outcomes = Outcomes::default();
        let mut answered = Vec::new();
        let (mut learned, mut refused) = (false, false);
        for ((commit, positions), outcome) in commits.into_iter().zip(positions).zip(ruled) {
            let items = commit.claims.iter().map(|(item, _)| item);
            let ids = commit.writes.iter().map(|write| write.order.id);
            match outcome {
                CommitOutcome::Applied => {
                    // The facts about their buyers are no longer true.
                    let claims = &commit.claims;
                    facts.over_cap.retain(|over| claims.iter().all(|(item, _)| *item != over.item));
                    outcomes.availability.extend(items.filter_map(|item| {
                        let available = self.view.get(item)?.stock.available();
                        Some(Availability { item: item.clone(), available })
                    }));
                    for (write, position) in commit.writes.into_iter().zip(positions) {
                        if let Some(fact) = facts.orders.get_mut(&write.order.id) {
                            *fact = Some(write.order.clone());
                        }
                        answered.push(position);
                        outcomes.orders.push(write.order);
                    }
                    continue;
                }
                CommitOutcome::Fenced(lost) => {
                    metrics::counter!("flux_fenced_total").increment(1);
                    self.forget(items);
                    self.let_go_of(&lost.into_iter().collect()).await;
                }
                CommitOutcome::Conflict { moved, over_cap } => {
                    metrics::counter!("flux_conflicts_total").increment(1);
                    facts.doubtful.extend(moved);
                    facts.over_cap.extend(over_cap);
                    self.forget(items);
                    learned = true;
                    continue;
                }
                CommitOutcome::Unknown => {
                    metrics::counter!("flux_unknown_commits_total").increment(1);
                    facts.doubtful.extend(ids);
                    self.forget(items);
                }
            }
            refused = true;
        }
        if !outcomes.orders.is_empty() {
            self.core.gate.set_availability(&outcomes.availability);
            let outcomes = Arc::new(outcomes);
            for (at, position) in answered.into_iter().enumerate() {
                batch[position].answer = Some(Answer::Decided(Arc::clone(&outcomes), at));
            }
            done.outcomes.push(outcomes);
            return Ok(Pass::Progress);
        }
        Ok(if learned && !refused { Pass::Learned } else { Pass::Refused })
    }

    async fn read_followed_up(&self, batch: &[Work], facts: &mut Facts) -> Result<(), SeamError> {
        let unread = |work: &&Work| {
            work.answer.is_none()
                && work.looks_first
                && !facts.orders.contains_key(&work.message.order_id())
        };
        let mut ids: Vec<_> =
            batch.iter().filter(unread).map(|work| work.message.order_id()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        let orders = self.core.backend.store.orders(&ids).await?;
        facts.orders.extend(ids.into_iter().zip(orders));
        Ok(())
    }

    /// Claims the items of the batch, and returns those that must wait because
    /// somebody else works on them, or because they can't be claimed now; never
    /// all that there is to do.
    async fn claim_missing(
        &mut self,
        batch: &mut [Work],
        facts: &Facts,
    ) -> Result<HashSet<ItemId>, SeamError> {
        let open = |batch: &'_ [Work]| {
            let open = batch.iter().filter(|work| work.answer.is_none());
            open.flat_map(|work| facts.lines(work)).map(|line| line.item.clone()).collect()
        };
        let mut missing: BTreeSet<ItemId> = open(batch);
        missing.retain(|item| self.view.get(item).is_none());
        if missing.is_empty() {
            return Ok(HashSet::new());
        }
        let mut missing: Vec<ItemId> = missing.into_iter().collect();
        let mut others = self.leases.lease_free(&missing).await;
        let waits = |work: &Work| facts.lines(work).iter().any(|line| others.contains(&line.item));
        for work in batch.iter_mut().filter(|work| work.answer.is_none() && work.is_spare) {
            if waits(work) {
                work.answer = Some(Answer::NotFound(work.message.order_id()));
            }
        }
        let open = || batch.iter().filter(|work| work.answer.is_none());
        if let Some(first) = open().find(|work| !facts.lines(work).is_empty())
            && open().all(waits)
        {
            // Workers that keep no items while they wait can't wait for each other.
            self.let_go().await;
            let item_of = |line: &Line| line.item.clone();
            let first: BTreeSet<ItemId> = facts.lines(first).iter().map(item_of).collect();
            let all: BTreeSet<ItemId> =
                open().flat_map(|work| facts.lines(work)).map(item_of).collect();
            let rest: Vec<ItemId> = all.difference(&first).cloned().collect();
            self.leases.lease_all(&first.into_iter().collect::<Vec<_>>()).await;
            others = self.leases.lease_free(&rest).await;
            missing = all.into_iter().collect();
        }
        missing.retain(|item| !others.contains(item));
        others.extend(self.claim(&missing).await?);
        Ok(others)
    }

    /// Claims items, and returns those that can't be claimed while others can:
    /// one in trouble delays nobody else.
    async fn claim(&mut self, items: &[ItemId]) -> Result<Vec<ItemId>, SeamError> {
        let store = &self.core.backend.store;
        let error = match store.claim(items).await {
            Ok(claims) => {
                claims.into_iter().flatten().for_each(|claim| self.view.insert(claim));
                return Ok(Vec::new());
            }
            Err(error) if items.len() < 2 => return Err(error),
            Err(error) => error,
        };
        debug!(%error, "items could not be claimed together; trying one by one");
        let mut not = Vec::new();
        for item in items {
            match store.claim(std::slice::from_ref(item)).await {
                Ok(claims) => {
                    claims.into_iter().flatten().for_each(|claim| self.view.insert(claim));
                }
                Err(_) => not.push(item.clone()),
            }
        }
        if not.len() < items.len() { Ok(not) } else { Err(error) }
    }

    fn decide(
        &mut self,
        batch: &mut [Work],
        facts: &mut Facts,
        waits_for: &HashSet<ItemId>,
    ) -> Transactions {
        let now = self.core.clock.now();
        self.view.forget_buyers();
        for over in &facts.over_cap {
            self.view.learn(over.clone());
        }
        let mut transactions = Transactions::new(self.core.backend.store.commit_max(), batch.len());
        let mut decided = HashSet::with_capacity_and_hasher(batch.len(), RandomState::default());
        for (position, work) in batch.iter_mut().enumerate() {
            if work.answer.is_some() {
                continue;
            }
            let id = work.message.order_id();
            if !waits_for.is_empty()
                && facts.lines(work).iter().any(|line| waits_for.contains(&line.item))
            {
                continue;
            }
            if decided.contains(&id) {
                // Answered by the first one's outcome, in the next pass.
                facts.orders.entry(id).or_default();
                continue;
            }
            let found = facts.order(id);
            let order = match (&work.message, found) {
                (Message::Place(order), None) => Some(order),
                (_, found) => found,
            };
            let room = order.map_or(Fit::Whatever, |order| transactions.fit(order, &self.view));
            let is_new = matches!(work.message, Message::Place(_)) && found.is_none();
            if room == Fit::No || (room == Fit::SeparateTransaction && !is_new) {
                order.inspect(|order| transactions.close(order));
                continue;
            }
            match self.view.decide(&work.message, found, now) {
                // An order that is turned down took nothing of the view.
                Verdict::Write(write)
                    if room == Fit::SeparateTransaction
                        && write.order.status() != OrderStatus::Held =>
                {
                    transactions.close(&write.order);
                }
                Verdict::Write(write) => {
                    decided.insert(id);
                    transactions.add(write, position, &self.view);
                }
                Verdict::Nothing => {
                    work.answer = Some(match found {
                        Some(order) => Answer::Found(Box::new(order.clone())),
                        None => Answer::NotFound(id),
                    });
                }
            }
        }
        transactions
    }

    fn forget<'i>(&mut self, items: impl IntoIterator<Item = &'i ItemId>) {
        for item in items {
            self.view.remove(item);
        }
    }

    async fn let_go_of(&mut self, items: &HashSet<ItemId>) {
        let ended = self.leases.end_those_of(items).await;
        self.forget(&ended);
    }

    /// Whether other workers want the same items.
    pub(crate) fn is_crowded(&self) -> bool {
        self.leases.is_crowded()
    }

    /// Lets go of everything; for an idle, a waiting or a stopping worker.
    pub(crate) async fn let_go(&mut self) {
        self.view = View::default();
        self.leases.end_all().await;
    }

    async fn tidy(&mut self) {
        let ended = self.leases.tidy().await;
        self.forget(&ended);
    }
}

enum Pass {
    /// At least one decision.
    Progress,
    /// No decision, but facts for the next pass.
    Learned,
    /// No decision: others work on the items, or the answer was lost.
    Refused,
}

fn give_up(batch: &mut [Work], answer: &Answer) {
    for work in batch.iter_mut().filter(|work| work.answer.is_none()) {
        work.answer = Some(answer.clone());
    }
}
