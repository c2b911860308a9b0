//! The worker: sorts what comes into a backlog for each item, and lets every item have
//! its turns, one after the other, whatever the other items do. What arrives during a
//! turn makes the next one fuller.
//!
//! A message goes this way:
//!
//! 1. it comes from a caller, from the queue, or from a sweep for ended holds;
//! 2. its order is read, if the message is about one that may be there already;
//! 3. it waits in the backlog of each of its items;
//! 4. the items are leased (for throughput) and claimed (for the truth);
//! 5. it is decided and committed in a turn of its items;
//! 6. it is answered, or goes back to step 2 or 3, with what the commit's refusal told.
//!
//! On a store that takes a write of any size, all that is ready goes into one turn. On one
//! that does not, those about several items are [gathered](gathering), many that share their
//! items in one turn. They all come to the worker that serves the first partition, which
//! borrows the items from the others.

mod arrivals;
mod backlogs;
pub(super) mod completion;
mod ended_holds;
mod gathering;
mod health;
mod in_hand;
mod intake;
mod items;
mod membership;
mod outcome;
mod ready;
mod receiving;
mod transactions;
mod turn;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
// Measures spans too short for tokio's timers, paused or not.
use std::time::{Duration, Instant as Stopwatch};

use foldhash::fast::RandomState;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::field::Empty;
use tracing::{Span, debug, debug_span};

use crate::backoff::Backoff;
use crate::engine::accept::inbox::{Answer, ENOUGH, Taken};
use crate::engine::core::{Core, from_now, stopped};
use crate::protocol::{ItemId, Message, Order, OrderId, OverCap, View};
use crate::seams::{CommitMax, Receipt, SeamError};
use backlogs::Backlogs;
use completion::Completer;
use ended_holds::EndedHolds;
use health::Health;
use in_hand::{InHandCounts, InHandMax};
use intake::Intake;
use items::{Items, Obtained};
use receiving::{Deliveries, Received};
use turn::{Turn, Turned};
use work::{Origin, Work};

/// Longest wait for a fuller turn.
const LINGER_MAX: Duration = Duration::from_micros(300);
/// Deliveries past which a message is worked on with fewer others.
const SUSPECT_AFTER: u32 = 3;
/// Pauses between tries that got nowhere.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(500));
/// Longest time deliveries are left alone while the backends fail.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time without work after which a worker that knows of no hold is idle.
const QUIET_AFTER: Duration = Duration::from_secs(60);
/// Most turns at once, where the store bounds a write.
const TURNS_MAX: usize = 32;
/// Messages in a worker's hands, where the store bounds a write, for each that it may
/// decide at once: so many that every turn is full. As many more may wait for items of
/// which more is asked than can be written.
const IN_HAND: usize = 32;
/// Most orders read in one call, and most calls at once.
const READ_MAX: usize = 1_024;
const READS_MAX: usize = 4;

/// Works until `stop` says so or its sender is gone, then finishes what waits
/// in the inbox and hands deliveries back.
pub(crate) async fn work(core: Arc<Core>, me: String, mut stop: watch::Receiver<bool>) {
    // However this ends, no caller is left waiting for a worker that is gone.
    let _abandon = Abandon(Arc::clone(&core));
    let mut worker = Worker::new(Arc::clone(&core));
    let is_shared = worker.served.len() > 1;
    let mut wanted = is_shared.then(|| core.backend.locks.wanted());
    let mut intake = Intake::start(&core, me, &worker.deliveries, worker.health.subscribe(), &stop);
    worker.served = intake.served.borrow().clone();
    loop {
        let look_at = worker.look_at();
        // In a certain order: all of them have their turn, as callers and deliveries are
        // taken below whatever it was that woke.
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            () = worker.completer.gone() => break,
            Some(_) = intake.tasks.join_next() => break,
            Ok(()) = intake.served.changed() => {
                worker.served = intake.served.borrow_and_update().clone();
                worker.leave_to_others();
                worker.lend_what_is_others();
                // Of what is served from now on, holds may have ended already.
                core.expect_end(None);
            }
            heard = items::wanted(&mut wanted) => worker.note_wanted(&heard),
            Some(event) = worker.running.next(), if !worker.running.is_empty() => {
                worker.handle(event).await;
            }
            () = core.inbox.filled(), if worker.wants_callers() => {}
            more = intake.delivered.recv(), if worker.wants_deliveries() => match more {
                Some(more) => worker.take_deliveries(more),
                None => break,
            },
            () = core.sweep_alarm.due(), if worker.ended.are_done() => {}
            () = sleep_until(look_at) => {}
        }
        if worker.wants_deliveries()
            && let Ok(more) = intake.delivered.try_recv()
        {
            worker.take_deliveries(more);
        }
        worker.go_on().await;
        intake.receive_from(worker.wants_of_each());
    }
    core.inbox.close();
    let mut unasked = intake.stop().await;
    unasked.extend(worker.leave_unasked());
    while core.inbox.len() > 0 || worker.is_busy() {
        worker.go_on().await;
        let look_at = worker.look_at();
        tokio::select! {
            biased;
            () = worker.completer.gone() => break,
            heard = items::wanted(&mut wanted) => worker.note_wanted(&heard),
            Some(event) = worker.running.next(), if !worker.running.is_empty() => {
                worker.handle(event).await;
            }
            () = sleep_until(look_at) => {}
        }
        unasked.extend(worker.leave_unasked());
    }
    worker.let_go_of_all().await;
    completion::hand_back_receipts(&core, unasked, Duration::ZERO).await;
    worker.completer.finish().await;
}

struct Abandon(Arc<Core>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.inbox.abandon();
    }
}

/// The end of something that was on its way.
enum Event {
    Turned(Turned, Stopwatch),
    Obtained(Obtained),
    Read(Vec<Work>, Option<SeamError>),
    Swept(Vec<OrderId>),
    /// Items were let go of, for so long at least.
    Released(Vec<ItemId>, Duration),
    /// Leases were renewed, but for those of these items.
    Renewed(Vec<ItemId>),
    /// Deliveries were handed back or given up.
    GivenBack,
    /// The store was looked at, and was there or not.
    LookedAtStore(bool),
}

type Running = Pin<Box<dyn Future<Output = Event> + Send>>;

struct Worker {
    core: Arc<Core>,
    max: CommitMax,
    backlogs: Backlogs,
    /// Messages whose orders must be read before they can wait for their items.
    unread: Vec<Work>,
    items: Items,
    /// The claims of the items that have no turn.
    view: View,
    /// Buyers that a commit was refused for, by item, until one is applied.
    over_cap: HashMap<ItemId, Vec<OverCap>, RandomState>,
    /// Items left alone until then.
    pauses: BTreeSet<(Instant, ItemId)>,
    running: FuturesUnordered<Running>,
    turns: usize,
    reads: usize,
    /// Messages in turns, and being read.
    in_work: usize,
    /// Messages in the worker's hands that callers wait for.
    asked: usize,
    delivered: InHandCounts,
    deliveries: Arc<Deliveries>,
    /// Whether it serves each of the queue's partitions.
    served: Vec<bool>,
    ended: EndedHolds,
    completer: Completer,
    /// The number of callers that the last turn had.
    last_asked: usize,
    /// The number of turns in a row that the backends failed.
    failures: u32,
    failed_at: Option<Instant>,
    receives_at: Instant,
    health: Health,
}

impl Worker {
    fn new(core: Arc<Core>) -> Self {
        Self {
            max: core.backend.store.commit_max(),
            backlogs: Backlogs::new(core.backend.store.commit_max()),
            unread: Vec::new(),
            items: Items::default(),
            view: View::default(),
            over_cap: HashMap::default(),
            pauses: BTreeSet::new(),
            running: FuturesUnordered::new(),
            turns: 0,
            reads: 0,
            in_work: 0,
            asked: 0,
            delivered: InHandCounts::new(core.backend.queues().len()),
            deliveries: Arc::default(),
            served: vec![true; core.backend.queues().len()],
            ended: EndedHolds::default(),
            completer: Completer::start(Arc::clone(&core)),
            last_asked: 0,
            failures: 0,
            failed_at: None,
            receives_at: Instant::now(),
            health: Health::new(),
            core,
        }
    }

    /// Whether all that is ready goes into one turn.
    fn is_unlimited(&self) -> bool {
        self.max == CommitMax::UNLIMITED
    }

    /// Most messages in the worker's hands that callers wait for, and as many that were
    /// delivered: neither keep the others out.
    fn in_hand_max(&self) -> usize {
        match self.is_unlimited() {
            true => self.core.settings.batch_max,
            false => self.core.settings.batch_max.saturating_mul(IN_HAND),
        }
    }

    /// Whether to take what callers ask for. Where all goes into one turn, when it can
    /// begin: till then more of them gather.
    fn wants_callers(&self) -> bool {
        self.asked < self.in_hand_max() && (self.turns == 0 || !self.is_unlimited())
    }

    /// Tells of each partition whether to take more of its deliveries. Not while the
    /// backends fail: each delivery counts against its message, and an outage is not the
    /// message's fault.
    fn wants_of_each(&self) -> impl Fn(usize) -> bool {
        let shared = self.in_hand_max();
        let spare = if self.is_unlimited() { 0 } else { shared };
        let has_room = self.delivered.has_room(&self.served, InHandMax { shared, spare });
        let are_well = Instant::now() >= self.receives_at;
        move |partition| are_well && has_room(partition)
    }

    /// Whether to take what was received, of whatever partition: a receiver has no more
    /// than one call on its way. What came too late to be served here is taken too.
    fn wants_deliveries(&self) -> bool {
        let is_idle = Instant::now() >= self.receives_at && !self.served.contains(&true);
        is_idle || (0..self.served.len()).any(self.wants_of_each())
    }

    fn is_busy(&self) -> bool {
        self.backlogs.len() + self.unread.len() + self.in_work > 0
    }

    /// The moment to look again, whatever happens until then.
    fn look_at(&self) -> Instant {
        let pause = self.pauses.first().map(|(until, _)| *until);
        let receives = Some(self.receives_at).filter(|at| *at > Instant::now());
        let times = [pause, self.items.upkeep_at(), receives, self.health.look_at()];
        let at = times.into_iter().flatten().min();
        at.unwrap_or_else(|| from_now(Duration::MAX))
    }

    /// Begins whatever can begin.
    async fn go_on(&mut self) {
        self.end_pauses();
        self.look_after_items();
        self.find_ended_holds();
        self.look_at_store();
        if self.wants_callers() {
            if self.is_unlimited() {
                self.linger().await;
            }
            self.take_callers();
        }
        self.read();
        self.obtain();
        while self.turns < if self.is_unlimited() { 1 } else { TURNS_MAX } {
            let next = self.backlogs.next_turn(self.suspect_after());
            let Some((works, items)) = next else { break };
            self.begin_turn(works, items);
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Turned(turned, started) => self.end_turn(turned, started).await,
            Event::Obtained(obtained) => self.take_over(obtained).await,
            Event::Read(works, error) => self.sort(works, error).await,
            Event::Swept(due) => self.take_ended(due),
            Event::Released(items, after) => self.released(items, after),
            Event::Renewed(lost) => self.lose(lost),
            Event::GivenBack => {}
            Event::LookedAtStore(is_there) => self.health.looked(is_there),
        }
    }

    /// Looks whether the store is there, if it was not for long and it is time.
    fn look_at_store(&mut self) {
        if self.health.begin_look() {
            let core = Arc::clone(&self.core);
            self.running.push(Box::pin(async move {
                // Any order will do: none has to be there.
                let looked = core.backend.store.orders(&[OrderId::new()]).await;
                Event::LookedAtStore(looked.is_ok())
            }));
        }
    }

    /// Deliveries past which a message is a suspect. One that came often because the
    /// backends failed is none yet.
    fn suspect_after(&self) -> u32 {
        match self.failed_at.is_some_and(|at| at.elapsed() < QUIET_AFTER) {
            true => self.core.settings.deliveries_max.max(SUSPECT_AFTER),
            false => SUSPECT_AFTER,
        }
    }

    fn take_callers(&mut self) {
        let Some(Taken { messages, asked, spans, callers }) = self.core.inbox.take() else {
            self.last_asked = 0;
            return;
        };
        self.last_asked = messages.len();
        self.asked += messages.len();
        let mut spans = spans.into_iter().peekable();
        for (at, (message, asked)) in messages.into_iter().zip(asked).enumerate() {
            let mut work = Work::new(message, Origin::Caller(Arc::clone(&callers), at));
            work.asked = Some(asked);
            if let Some((_, asking)) = spans.next_if(|(of, _)| *of == at) {
                work.span = Some(Box::new(span(&asking, &work, asked.elapsed())));
            }
            self.add(work);
        }
    }

    fn take_deliveries(&mut self, received: Vec<Received>) {
        let hopeless = self.core.settings.deliveries_max.saturating_mul(10);
        for Received { message, delivery, attempt } in received {
            // It may be what ends the process each time.
            if attempt > hopeless && self.failed_at.is_none() {
                self.bury(delivery, attempt);
                continue;
            }
            let waited = match &message {
                Message::Place(order) => self.core.clock.now().since(order.placed_at),
                _ => Duration::ZERO,
            };
            self.delivered.took(delivery.partition());
            let mut work = Work::new(message, Origin::Delivery(delivery, attempt));
            work.asked = Stopwatch::now().checked_sub(waited);
            if let Some(asking) = self.core.queued_spans.pick_up(work.id()) {
                work.span = Some(Box::new(span(&asking, &work, waited)));
            }
            self.add(work);
        }
    }

    fn add(&mut self, work: Work) {
        match work.looks_first {
            true => self.unread.push(work),
            false => self.backlogs.push(work),
        }
    }

    /// Reads the orders that messages are about.
    fn read(&mut self) {
        while self.reads < READS_MAX && !self.unread.is_empty() {
            let mut most = READ_MAX;
            let some = self.unread.iter().enumerate().take_while(|(n, work)| {
                most = most.min(backlogs::most_with(work, self.suspect_after()));
                *n == 0 || *n < most
            });
            let some = some.count();
            let mut works: Vec<Work> = self.unread.drain(..some).collect();
            self.reads += 1;
            self.in_work += works.len();
            let core = Arc::clone(&self.core);
            self.running.push(Box::pin(async move {
                let mut ids: Vec<_> = works.iter().map(Work::id).collect();
                ids.sort_unstable();
                ids.dedup();
                match core.backend.store.orders(&ids).await {
                    Ok(orders) => {
                        let orders = ids.into_iter().zip(orders);
                        let orders: HashMap<_, Option<Order>> = orders.collect();
                        for work in &mut works {
                            work.knows(orders.get(&work.id()).cloned().flatten());
                        }
                        Event::Read(works, None)
                    }
                    Err(error) => {
                        debug!(%error, "orders could not be read; trying again");
                        let tries = works.iter().map(|work| work.refusals).max();
                        let pause = PAUSE.full_jitter_by(tries.unwrap_or(0) + 1, &core.chance);
                        tokio::time::sleep(pause).await;
                        Event::Read(works, Some(error))
                    }
                }
            }));
        }
    }

    fn begin_turn(&mut self, works: Vec<Work>, items: Vec<ItemId>) {
        let started = Stopwatch::now();
        let mut view = View::default();
        if self.is_unlimited() {
            std::mem::swap(&mut view, &mut self.view);
        } else {
            items.iter().filter_map(|item| self.view.remove(item)).for_each(|c| view.insert(c));
        }
        let mut over_cap = Vec::new();
        if !self.over_cap.is_empty() {
            over_cap.extend(items.iter().filter_map(|item| self.over_cap.remove(item)).flatten());
        }
        self.turns += 1;
        self.in_work += works.len();
        metrics::histogram!("flux_batch_orders").record(works.len() as f64);
        let turn = Turn { works, items, view, over_cap };
        let core = Arc::clone(&self.core);
        self.running.push(Box::pin(async move { Event::Turned(turn.run(&core).await, started) }));
    }

    /// Leaves an item alone for a while.
    fn pause(&mut self, item: ItemId, pause: Duration) {
        let until = Instant::now() + pause;
        self.backlogs.pause(&item, until);
        self.pauses.insert((until, item));
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        while self.pauses.first().is_some_and(|(until, _)| *until <= now) {
            let (until, item) = self.pauses.pop_first().expect("there is one");
            if self.backlogs.is_idle(&item) {
                self.items.want_no_more(&item);
            }
            // A turn that was under way may have brought back what was let go of.
            let is_claimed = self.items.has(&item) && self.view.get(&item).is_some();
            self.backlogs.end_pause(&item, until, is_claimed);
        }
    }

    /// Waits for a fuller turn: while the last one is on its way to the disk,
    /// and after that, under load, for about one write's time, in which the
    /// callers of the last one come back. One write for all of them is cheaper
    /// than two. An idle worker, or one with few callers, goes on at once, and so
    /// does one that has full sweeps to make.
    async fn linger(&mut self) {
        if self.ended.are_many() {
            return;
        }
        tokio::select! {
            biased;
            () = self.completer.completed() => {}
            () = self.core.inbox.full_enough() => return,
        }
        let enough = (self.last_asked / 2).min(ENOUGH);
        if self.last_asked < 8 {
            return;
        }
        let (since, longest) = (Stopwatch::now(), self.completer.last_took().min(LINGER_MAX));
        // Timers are coarser than this wait; yielding lets the callers run.
        while self.core.inbox.len() < enough && since.elapsed() < longest {
            tokio::task::yield_now().await;
        }
    }

    /// Hands back the deliveries of partitions that others serve now.
    fn leave_to_others(&mut self) {
        let served = &self.served;
        let is_others = |work: &Work| match &work.from {
            Origin::Delivery(delivery, _) => !served[delivery.partition()],
            Origin::Caller(..) | Origin::Found => false,
        };
        let mut left = self.backlogs.drain_where(is_others);
        left.extend(self.unread.extract_if(.., |work| is_others(work)));
        let left = self.counted(left);
        self.hand_back(left.into_iter().map(|work| work.from).collect(), Duration::ZERO);
    }

    /// Leaves what nobody here asked for, and returns the deliveries to hand back.
    fn leave_unasked(&mut self) -> Vec<(usize, Receipt)> {
        let is_unasked = |work: &Work| !matches!(work.from, Origin::Caller(..));
        let mut left = self.backlogs.drain_where(is_unasked);
        left.extend(self.unread.extract_if(.., |work| is_unasked(work)));
        let receipt = |work: Work| match work.from {
            Origin::Delivery(delivery, _) => Some(delivery.named()),
            Origin::Caller(..) | Origin::Found => None,
        };
        left.into_iter().filter_map(receipt).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After a panic: those whom nobody looked at hear so.
        let unread = std::mem::take(&mut self.unread);
        for work in self.backlogs.drain_where(|_| true).into_iter().chain(unread) {
            if let Origin::Caller(callers, at) = &work.from
                && !work.doubtful
            {
                callers.answer(*at, Answer::Untouched);
            }
        }
    }
}

/// The span of a decision, within that of whoever asked for it.
fn span(asking: &Span, work: &Work, waited: Duration) -> Span {
    let waited_seconds = waited.as_secs_f64();
    debug_span!(
        target: "flux", parent: asking, "decide", order = %work.id(), waited_seconds, status = Empty
    )
}

#[cfg(test)]
mod tests;
