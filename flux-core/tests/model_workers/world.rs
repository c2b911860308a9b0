//! The state of everything and what may happen next.

use std::collections::BTreeSet;
use std::sync::Arc;

use flux_core::protocol::{
    CommitOutcome, ConfirmRuling, Expect, FencingToken, OrderWrite, RefundRuling, confirm, refund,
};
use flux_core::{Money, OrderStatus, Refund};
use stateright::{Model, Property};

use super::properties;
use super::scene::{Fault, Scene, Task, order_number};
use super::shared::Shared;
use super::store::{Known, NEWEST, STALE, Store, Wire};
use super::worker::Worker;

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct World {
    pub(crate) tick: u8,
    pub(crate) store: Shared<Store>,
    /// Not acknowledged; any of it may be delivered at any time.
    pub(crate) queue: Shared<BTreeSet<Task>>,
    pub(crate) workers: [Shared<Worker>; 2],
    /// Commits nobody waits for any more, which may yet be applied.
    pub(crate) late: Vec<Shared<Wire>>,
    /// For each payment, the write that may be under way for it.
    pub(crate) paying: Vec<Option<Known>>,
    /// For each refund, the same.
    pub(crate) refunding: Vec<Option<Known>>,
    pub(crate) asked: BTreeSet<Task>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Tick,
    /// A worker receives messages, or sweeps up holds that ended.
    Take(usize, Vec<Task>),
    /// Its next step: read, claim, read again, or decide and send.
    Step(usize),
    /// The commit is done and the answer heard.
    Lands(usize),
    /// The commit is done, the answer lost.
    LandsUnheard(usize),
    /// The store is away; nothing is done.
    Unavailable(usize),
    /// The worker waits no longer; the commit is still under way.
    Overdue(usize),
    Ack(usize),
    /// The batch goes back to the queue; the view is kept.
    GiveUp(usize),
    Crash(usize),
    LateLands(usize),
    LateIsLost(usize),
    /// A buyer asks for a release or a cancellation.
    Ask(Task),
    /// Somebody tries a payment, for the first time or again.
    Pay(usize),
    PaymentLands(usize),
    PaymentIsLost(usize),
    /// Somebody notes a refund, for the first time or again.
    Refund(usize),
    RefundLands(usize),
    RefundIsLost(usize),
    /// An item gets its next definition.
    Revise(usize),
}

impl World {
    fn new(scene: &Scene) -> Self {
        Self {
            tick: 0,
            store: Shared::new(Store::new(scene)),
            queue: Shared::new((0..scene.orders.len()).map(Task::Place).collect()),
            workers: [(); 2].map(|()| Shared::new(Worker::new(scene))),
            late: Vec::new(),
            paying: vec![None; scene.payments.len()],
            refunding: vec![None; scene.refunds.len()],
            asked: BTreeSet::new(),
        }
    }

    pub(crate) fn is_due(&self, scene: &Scene, order: usize) -> bool {
        self.store.order(order).is_some_and(|order| {
            order.status() == OrderStatus::Held
                && order.hold().is_some_and(|hold| hold.expires_at <= scene.time(self.tick))
        })
    }

    pub(crate) fn ruling(&self, scene: &Scene, payment: usize) -> ConfirmRuling {
        let (order, payment) = &scene.payments[payment];
        let ruling = self
            .store
            .order(*order)
            .map_or(ConfirmRuling::NotHeld, |order| confirm(order, payment, scene.time(self.tick)));
        match ruling {
            ConfirmRuling::Owe(_) if scene.fault == Fault::UnnotedMoney => ConfirmRuling::NotHeld,
            ruling => ruling,
        }
    }

    fn refund_ruling(&self, scene: &Scene, n: usize) -> RefundRuling {
        let (order, reference) = &scene.refunds[n];
        let told = Refund::new(reference.clone(), scene.time(self.tick));
        self.store.order(*order).map_or(RefundRuling::NotOwed, |order| refund(order, &told))
    }

    /// Whether nothing is under way and nobody has reason to try again.
    pub(crate) fn is_at_rest(&self, scene: &Scene) -> bool {
        let settled = |payment| {
            matches!(self.ruling(scene, payment), ConfirmRuling::Repeat | ConfirmRuling::NotHeld)
        };
        self.queue.is_empty()
            && self.late.is_empty()
            && self.workers.iter().all(|worker| worker.is_idle())
            && (0..scene.orders.len()).all(|order| !self.is_due(scene, order))
            && self.paying.iter().all(Option::is_none)
            && (0..self.paying.len()).all(settled)
            && self.refunding.iter().all(Option::is_none)
            && (0..self.refunding.len())
                .all(|n| !matches!(self.refund_ruling(scene, n), RefundRuling::Write(_)))
    }

    fn batches(&self, scene: &Scene) -> Vec<Vec<Task>> {
        let mut tasks: Vec<Task> = self.queue.iter().copied().collect();
        if scene.fault != Fault::NoSweep {
            let orders = 0..scene.orders.len();
            tasks.extend(orders.filter(|o| self.is_due(scene, *o)).map(Task::Expire));
        }
        let mut batches: Vec<Vec<Task>> = tasks.iter().map(|task| vec![*task]).collect();
        if scene.batch_max < 2 {
            return batches;
        }
        for one in &tasks {
            for other in tasks.iter().filter(|other| *other != one) {
                // Unconnected orders are written apart, as in two batches.
                let items: Vec<_> = scene.items_of(scene.order_of(*one)).collect();
                if scene.items_of(scene.order_of(*other)).any(|item| items.contains(&item)) {
                    batches.push(vec![*one, *other]);
                }
            }
        }
        batches
    }

    fn worker_actions(&self, scene: &Scene, at: usize, actions: &mut Vec<Action>) {
        let worker = &self.workers[at];
        if worker.is_idle() {
            actions.extend(self.batches(scene).into_iter().map(|tasks| Action::Take(at, tasks)));
        } else if worker.sent.is_some() {
            actions.extend([Action::Lands(at), Action::LandsUnheard(at), Action::Unavailable(at)]);
            if self.late.len() < scene.late_max {
                actions.push(Action::Overdue(at));
            }
        } else {
            let next = if worker.is_done() { Action::Ack(at) } else { Action::Step(at) };
            actions.extend([next, Action::GiveUp(at)]);
        }
        if **worker != Worker::new(scene) {
            actions.push(Action::Crash(at));
        }
    }

    fn act(&mut self, scene: &Scene, action: Action) {
        let Self { store, queue, workers, .. } = self;
        match action {
            Action::Tick => self.tick += 1,
            Action::Take(at, tasks) => {
                workers[at].change(|worker| worker.take(&tasks));
                if scene.fault == Fault::AckFirst {
                    queue.change(|queue| queue.retain(|task| !tasks.contains(task)));
                }
            }
            Action::Step(at) => {
                let tick = self.tick;
                store.change(|store| workers[at].change(|worker| worker.step(scene, store, tick)));
            }
            Action::Lands(at) => {
                let outcome = store.change(|store| store.commit(scene, workers[at].commit()));
                workers[at].change(|worker| worker.hear(scene, outcome));
            }
            Action::LandsUnheard(at) => {
                store.change(|store| store.commit(scene, workers[at].commit()));
                workers[at].change(|worker| worker.hear(scene, CommitOutcome::Unknown));
            }
            Action::Unavailable(at) => workers[at].change(Worker::hear_nothing_done),
            Action::Overdue(at) => {
                self.late.push(Shared::new(Wire(Arc::new(workers[at].commit().clone()))));
                workers[at].change(|worker| worker.hear(scene, CommitOutcome::Unknown));
            }
            Action::Ack(at) => {
                let done = |task: &Task| workers[at].batch.iter().any(|work| work.task == *task);
                queue.change(|queue| queue.retain(|task| !done(task)));
                workers[at].change(|worker| worker.drop_batch(scene));
            }
            Action::GiveUp(at) => workers[at].change(|worker| worker.drop_batch(scene)),
            Action::Crash(at) => workers[at] = Shared::new(Worker::new(scene)),
            Action::LateLands(n) => {
                let wire = self.late.remove(n);
                store.change(|store| store.commit(scene, &wire.0));
            }
            Action::LateIsLost(n) => drop(self.late.remove(n)),
            Action::Ask(task) => {
                self.asked.insert(task);
                queue.change(|queue| queue.insert(task));
            }
            Action::Pay(n) => match self.ruling(scene, n) {
                ConfirmRuling::Write(OrderWrite { order, expect }) => {
                    assert_eq!(expect, Expect::Status(OrderStatus::Held));
                    self.paying[n] = Some(Known(Arc::new(order)));
                }
                ConfirmRuling::Owe(OrderWrite { order, expect }) => {
                    assert_eq!(expect, Expect::Money(order.status(), Money::None));
                    self.paying[n] = Some(Known(Arc::new(order)));
                }
                ConfirmRuling::Late => drop(self.queue.change(|q| q.insert(Task::Late(n)))),
                ConfirmRuling::Repeat | ConfirmRuling::NotHeld => {}
            },
            Action::PaymentLands(n) => {
                let write = self.paying[n].take().expect("under way");
                let found = store.order(order_number(write.0.id)).expect("held once");
                let is_expected = match write.0.money() {
                    Money::Paid => found.status() == OrderStatus::Held,
                    _ => found.status() == write.0.status() && found.money() == Money::None,
                };
                if is_expected || scene.fault == Fault::BlindConfirm {
                    store.change(|store| store.put(&write.0));
                }
            }
            Action::PaymentIsLost(n) => self.paying[n] = None,
            Action::Refund(n) => {
                if let RefundRuling::Write(OrderWrite { order, expect }) =
                    self.refund_ruling(scene, n)
                {
                    assert_eq!(expect, Expect::Money(order.status(), Money::Owed));
                    self.refunding[n] = Some(Known(Arc::new(order)));
                }
            }
            Action::RefundLands(n) => {
                let write = self.refunding[n].take().expect("under way");
                let found = store.order(order_number(write.0.id)).expect("owed once");
                if found.money() == Money::Owed || scene.fault == Fault::BlindRefund {
                    store.change(|store| store.put(&write.0));
                }
            }
            Action::RefundIsLost(n) => self.refunding[n] = None,
            Action::Revise(item) => store.change(|store| store.put_next(scene, item)),
        }
        self.make_canonical();
    }

    /// Tokens only matter by whether they are the newest, and workers have no
    /// names: states that differ in no more are one.
    fn make_canonical(&mut self) {
        let newest: Vec<_> = self.store.rows.iter().map(|row| row.newest).collect();
        if newest.iter().any(|token| *token != NEWEST) {
            let renew = |item: usize, token: &mut FencingToken| {
                *token = if *token == newest[item] { NEWEST } else { STALE };
            };
            for worker in &mut self.workers {
                worker.change(|worker| worker.renew_tokens(renew));
            }
            for wire in &mut self.late {
                wire.change(|wire| wire.renew_tokens(renew));
            }
            self.store.change(|store| store.rows.iter_mut().for_each(|row| row.newest = NEWEST));
        }
        self.workers.sort_by_key(Shared::digest);
        self.late.sort_by_key(Shared::digest);
    }
}

impl Model for Scene {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        (0..2).for_each(|at| world.worker_actions(self, at, actions));
        for late in 0..world.late.len() {
            actions.extend([Action::LateLands(late), Action::LateIsLost(late)]);
        }
        if world.tick < self.ticks {
            actions.push(Action::Tick);
        }
        let open = self.follow_ups.iter().filter(|task| !world.asked.contains(task));
        for task in open {
            let wanted = match task {
                Task::Cancel(_) => OrderStatus::Confirmed,
                _ => OrderStatus::Held,
            };
            let found = world.store.order(self.order_of(*task));
            if found.is_some_and(|order| order.status() == wanted) {
                actions.push(Action::Ask(*task));
            }
        }
        for (n, paying) in world.paying.iter().enumerate() {
            if paying.is_some() {
                actions.extend([Action::PaymentLands(n), Action::PaymentIsLost(n)]);
            } else if matches!(
                world.ruling(self, n),
                ConfirmRuling::Write(_) | ConfirmRuling::Late | ConfirmRuling::Owe(_)
            ) {
                actions.push(Action::Pay(n));
            }
        }
        for (n, refunding) in world.refunding.iter().enumerate() {
            if refunding.is_some() {
                actions.extend([Action::RefundLands(n), Action::RefundIsLost(n)]);
            } else if matches!(world.refund_ruling(self, n), RefundRuling::Write(_)) {
                actions.push(Action::Refund(n));
            }
        }
        for (item, row) in world.store.rows.iter().enumerate() {
            if row.version + 1 < self.items[item].len() {
                actions.push(Action::Revise(item));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}
