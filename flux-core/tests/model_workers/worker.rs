//! A worker, step by step as the engine's does a batch; between any two steps
//! it can die, freeze or hear nothing. All that is decided, the protocol's own
//! `View` decides.

use flux_core::protocol::{
    Claim, Commit, CommitOutcome, Effect, Expect, FencingToken, OverCap, Stock, Verdict, View,
};
use flux_core::{BuyerId, ItemId, Order, OrderId, OrderState};
use std::sync::Arc;

use super::scene::{Fault, Scene, Task, item_number, order_number};
use super::store::{Known, StockRow, Store, Wire};

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Grip {
    pub(crate) token: FencingToken,
    pub(crate) version: usize,
    pub(crate) stock: StockRow,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) task: Task,
    answered: bool,
}

/// A commit whose answer is awaited, and the work that its writes are for.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Sent {
    pub(crate) wire: Wire,
    positions: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub(crate) struct Worker {
    /// The claimed items as the worker believes them to be, kept from batch to
    /// batch.
    pub(crate) view: Vec<Option<Grip>>,
    pub(crate) batch: Vec<Work>,
    /// For each order: not read, or what was found.
    facts: Vec<Option<Option<Known>>>,
    doubtful: Vec<bool>,
    over_cap: Vec<(ItemId, BuyerId, u32)>,
    pub(crate) sent: Option<Sent>,
}

impl Worker {
    pub(crate) fn new(scene: &Scene) -> Self {
        let mut worker = Self { view: vec![None; scene.items.len()], ..Self::default() };
        worker.forget_batch(scene);
        worker
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_empty()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.batch.iter().all(|work| work.answered)
    }

    /// Whether an order's fate is in doubt that the store has written.
    pub(crate) fn doubts_what_applied(&self, store: &Store) -> bool {
        let written = self.doubtful.iter().zip(&store.orders);
        written.into_iter().any(|(doubtful, order)| *doubtful && order.is_some())
    }

    pub(crate) fn take(&mut self, tasks: &[Task]) {
        self.batch = tasks.iter().map(|task| Work { task: *task, answered: false }).collect();
    }

    /// Ends the batch, keeping the view.
    pub(crate) fn drop_batch(&mut self, scene: &Scene) {
        self.batch.clear();
        self.forget_batch(scene);
    }

    fn forget_batch(&mut self, scene: &Scene) {
        self.facts = vec![None; scene.orders.len()];
        self.doubtful = vec![false; scene.orders.len()];
        self.over_cap.clear();
    }

    pub(crate) fn commit(&self) -> &Commit {
        &self.sent.as_ref().expect("it has sent a commit").wire.0
    }

    pub(crate) fn renew_tokens(&mut self, renew: impl Fn(usize, &mut FencingToken) + Copy) {
        for (item, grip) in self.view.iter_mut().enumerate() {
            grip.iter_mut().for_each(|grip| renew(item, &mut grip.token));
        }
        self.sent.iter_mut().for_each(|sent| sent.wire.renew_tokens(renew));
    }

    /// Takes the next step of a batch that has unanswered work and awaits
    /// nothing.
    pub(crate) fn step(&mut self, scene: &Scene, store: &mut Store, tick: u8) {
        let unread = self.unread(scene);
        if !unread.is_empty() {
            return unread.into_iter().for_each(|order| self.read(store, order));
        }
        let missing = self.missing(scene);
        if !missing.is_empty() {
            return missing.into_iter().for_each(|item| self.claim(store, item));
        }
        if self.doubtful.contains(&true) {
            for order in 0..self.doubtful.len() {
                if std::mem::take(&mut self.doubtful[order]) {
                    self.read(store, order);
                }
            }
            return;
        }
        self.decide(scene, tick);
    }

    /// Orders that follow-ups are about and nobody has looked at.
    fn unread(&self, scene: &Scene) -> Vec<usize> {
        let follow_up = |work: &&Work| !work.answered && !matches!(work.task, Task::Place(_));
        let orders = self.batch.iter().filter(follow_up).map(|work| scene.order_of(work.task));
        orders.filter(|order| self.facts[*order].is_none()).collect()
    }

    fn missing(&self, scene: &Scene) -> Vec<usize> {
        let known = |work: &&Work| {
            let order = scene.order_of(work.task);
            let placed = matches!(work.task, Task::Place(_));
            !work.answered && (placed || matches!(self.facts[order], Some(Some(_))))
        };
        let orders = self.batch.iter().filter(known).map(|work| scene.order_of(work.task));
        let mut items: Vec<usize> = orders.flat_map(|order| scene.items_of(order)).collect();
        items.retain(|item| self.view[*item].is_none());
        items.sort_unstable();
        items.dedup();
        items
    }

    fn read(&mut self, store: &Store, order: usize) {
        self.facts[order] = Some(store.orders[order].clone());
    }

    fn claim(&mut self, store: &mut Store, item: usize) {
        let row = store.claim(item);
        self.over_cap.retain(|(other, ..)| item_number(other) != item);
        self.view[item] = Some(Grip { token: row.newest, version: row.version, stock: row.stock });
    }

    fn decide(&mut self, scene: &Scene, tick: u8) {
        let mut view = self.to_view(scene);
        let mut commit = Commit::default();
        let mut positions = Vec::new();
        for index in 0..self.batch.len() {
            let task = self.batch[index].task;
            let order = scene.order_of(task);
            if self.batch[index].answered {
                continue;
            }
            if commit.writes.iter().any(|write| order_number(write.order.id) == order) {
                // Answered by the first one's outcome, in the next pass.
                self.facts[order].get_or_insert(None);
                continue;
            }
            let found = self.facts[order].as_ref().and_then(Option::as_ref);
            let found: Option<&Order> = found.map(|known| &*known.0);
            match view.decide(&scene.message(task), found, scene.time(tick)) {
                Verdict::Write(mut write) => {
                    if let (Fault::ReleasesAtTheEnd, Task::Release(_), OrderState::Expired(hold)) =
                        (scene.fault, task, &write.order.state)
                    {
                        write.order.state = OrderState::Released(*hold);
                    }
                    let notes_money = matches!(write.expect, Expect::Money(..));
                    if scene.fault == Fault::UnnotedMoney && notes_money {
                        self.batch[index].answered = true;
                        continue;
                    }
                    commit.writes.push(write);
                    positions.push(index);
                }
                Verdict::Nothing => self.batch[index].answered = true,
            }
        }
        for (grip, specs) in self.view.iter_mut().zip(&scene.items) {
            if let (Some(grip), Some(claim)) = (grip, view.get(&specs[0].id)) {
                let given_back = match scene.fault {
                    Fault::GivesBackAgain => given_back(&commit, &specs[0].id),
                    _ => 0,
                };
                let more = Stock::Pool { available: grip.stock.0.available() + given_back };
                grip.stock = StockRow(if given_back > 0 { more } else { claim.stock.clone() });
            }
        }
        if commit.writes.is_empty() {
            return self.clean_if_done(scene);
        }
        for specs in &scene.items {
            let id = &specs[0].id;
            let mut lines = commit.writes.iter().flat_map(|write| write.order.lines.iter());
            if lines.any(|line| line.item == *id)
                && let Some(claim) = view.get(id)
            {
                commit.claims.push((id.clone(), claim.token));
            }
        }
        self.sent = Some(Sent { wire: Wire(Arc::new(commit)), positions });
    }

    fn to_view(&self, scene: &Scene) -> View {
        let mut view = View::default();
        for (grip, specs) in self.view.iter().zip(&scene.items) {
            let Some(grip) = grip else { continue };
            let (spec, stock) = (Arc::clone(&specs[grip.version]), grip.stock.0.clone());
            view.insert(Claim { token: grip.token, spec, stock });
        }
        for (item, buyer, live) in self.over_cap.iter().cloned() {
            view.learn(OverCap { item, buyer, live });
        }
        view
    }

    /// Hears what became of the commit that was sent.
    pub(crate) fn hear(&mut self, scene: &Scene, outcome: CommitOutcome) {
        let sent = self.sent.take().expect("it awaits an answer");
        let commit = sent.wire.0;
        match outcome {
            CommitOutcome::Applied => {
                for (write, index) in commit.writes.iter().zip(sent.positions) {
                    if let Some(fact) = &mut self.facts[order_number(write.order.id)] {
                        *fact = Some(Known(Arc::new(write.order.clone())));
                    }
                    self.batch[index].answered = true;
                }
                return self.clean_if_done(scene);
            }
            CommitOutcome::Fenced(_) => {}
            CommitOutcome::Conflict { moved, over_cap, .. } => {
                moved.iter().for_each(|id| self.doubtful[order_number(*id)] = true);
                self.over_cap.extend(over_cap.into_iter().map(|o| (o.item, o.buyer, o.live)));
                self.over_cap.sort_unstable();
                self.over_cap.dedup();
                return self.undo(scene, &commit, &moved);
            }
            CommitOutcome::Unknown => {
                let ids = commit.writes.iter().map(|write| write.order.id);
                ids.for_each(|id| self.doubtful[order_number(id)] = true);
                if scene.fault == Fault::KeepsView {
                    return;
                }
            }
        }
        self.forget(&commit);
    }

    /// Hears that the store was away: nothing was written.
    pub(crate) fn hear_nothing_done(&mut self) {
        let sent = self.sent.take().expect("it awaits an answer");
        self.forget(&sent.wire.0);
    }

    /// Undoes what was decided for a commit that was refused, and keeps the claims.
    fn undo(&mut self, scene: &Scene, commit: &Commit, moved: &[OrderId]) {
        let mut view = self.to_view(scene);
        view.undo(&commit.writes, moved);
        for (grip, specs) in self.view.iter_mut().zip(&scene.items) {
            let claim = view.remove(&specs[0].id);
            *grip = grip.take().zip(claim).map(|(grip, claim)| {
                let stock = StockRow(claim.stock);
                Grip { stock, ..grip }
            });
        }
    }

    fn forget(&mut self, commit: &Commit) {
        commit.claims.iter().for_each(|(item, _)| self.view[item_number(item)] = None);
    }

    /// Forgets the facts of a batch once it is done: they are of no use after it.
    fn clean_if_done(&mut self, scene: &Scene) {
        if self.is_done() {
            self.forget_batch(scene);
        }
    }
}

/// The units of an item that a commit gives back.
fn given_back(commit: &Commit, item: &ItemId) -> u32 {
    let writes = commit.writes.iter().filter(|write| write.effect() == Effect::GivesBack);
    let lines = writes.flat_map(|write| write.order.lines.iter());
    lines.filter(|line| line.item == *item).map(|line| line.ask.units()).sum()
}
