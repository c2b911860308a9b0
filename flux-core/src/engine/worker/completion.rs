//! The completion of batches: waits until a batch is durable, then answers its
//! callers, acknowledges its deliveries and publishes its outcomes, while the
//! worker decides the next one.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::receiving::InHand;
use super::work::{Origin, Work};
use crate::engine::accept::inbox::{Answer, Callers};
use crate::engine::core::Core;
use crate::protocol::{Message, OrderStatus};
use crate::seams::{Durable, Outcomes, Receipt, SeamError};
use crate::sync::{AtomicUsize, Notify};

#[cfg(all(test, shuttle))]
mod shuttle_tests;

/// Most batches that may be decided and not durable.
const DECIDED_MAX: usize = 4;
/// Most batches whose deliveries and outcomes may wait for a slow queue or bus.
const TO_TELL_MAX: usize = 1_024;
/// Most orders published together.
const PUBLISHED_MAX: usize = 1_024;

/// Messages that have their answers, to be told once what they tell is durable.
pub(crate) struct DecidedBatch {
    /// The beginning of the turn that decided them, if there was one.
    pub(crate) started: Option<Instant>,
    pub(crate) durable: Option<Durable>,
    pub(crate) works: Vec<Work>,
    pub(crate) outcomes: Vec<Arc<Outcomes>>,
    /// The time that a delivery stays away whose message was given up for now.
    pub(crate) retry_after: Duration,
}

/// The work left when the callers have their answers.
struct Aftermath {
    delivered: Vec<(InHand, Answer)>,
    retry_after: Duration,
    outcomes: Vec<Arc<Outcomes>>,
    /// The time that each decision took, from when it was asked for.
    took: Vec<Duration>,
}

#[derive(Default)]
struct Progress {
    decided: AtomicUsize,
    completed: Notify,
    last_took_nanos: AtomicU64,
}

/// A batch on its way. Dropped, it counts as completed, so that the worker does
/// not wait for a completer that is gone.
struct Completing {
    decided: mpsc::Receiver<DecidedBatch>,
    progress: Arc<Progress>,
}

impl Drop for Completing {
    fn drop(&mut self) {
        self.decided.close();
        self.progress.decided.store(0, Ordering::Release);
        self.progress.completed.notify_one();
    }
}

/// Completes batches in the order they were decided.
pub(crate) struct Completer {
    /// `None` once it finishes.
    hand_over: Option<mpsc::Sender<DecidedBatch>>,
    tasks: [JoinHandle<()>; 2],
    progress: Arc<Progress>,
}

impl Completer {
    pub(crate) fn start(core: Arc<Core>) -> Self {
        let (hand_over, decided) = mpsc::channel(DECIDED_MAX);
        let (left, aftermath) = mpsc::channel(TO_TELL_MAX);
        let progress = Arc::new(Progress::default());
        let completing = Completing { decided, progress: Arc::clone(&progress) };
        let tasks = [tokio::spawn(complete(completing, left)), tokio::spawn(tell(core, aftermath))];
        Self { hand_over: Some(hand_over), tasks, progress }
    }

    /// Hands a batch to the completer; waits while too many are not durable.
    /// `false` when the completer is gone: the batch is given up with it, and its
    /// callers hear so.
    pub(crate) async fn hand_over(&self, decided: DecidedBatch) -> bool {
        self.progress.decided.fetch_add(1, Ordering::AcqRel);
        let taken = match &self.hand_over {
            Some(hand_over) => hand_over.send(decided).await.is_ok(),
            None => false,
        };
        if !taken {
            self.progress.decided.store(0, Ordering::Release);
        }
        taken
    }

    /// Waits until no batch can be handed over any more. Cancel-safe.
    pub(crate) async fn gone(&self) {
        if let Some(hand_over) = &self.hand_over {
            hand_over.closed().await;
        }
    }

    /// Waits until every batch is completed. Cancel-safe.
    pub(crate) async fn completed(&self) {
        while self.progress.decided.load(Ordering::Acquire) > 0 {
            self.progress.completed.notified().await;
        }
    }

    /// The time the last batch took, from its first look to its answers.
    pub(crate) fn last_took(&self) -> Duration {
        Duration::from_nanos(self.progress.last_took_nanos.load(Ordering::Relaxed))
    }

    /// Completes the batches that are left.
    pub(crate) async fn finish(&mut self) {
        self.hand_over = None;
        for task in &mut self.tasks {
            if let Err(error) = task.await {
                warn!(%error, "the completer failed");
            }
        }
    }
}

async fn complete(mut completing: Completing, left: mpsc::Sender<Aftermath>) {
    let mut broken = None;
    loop {
        let decided = tokio::select! {
            biased;
            () = left.closed() => None,
            decided = completing.decided.recv() => decided,
        };
        let Some(decided) = decided else { return };
        let started = decided.started;
        let aftermath = decided.complete(&mut broken).await;
        let progress = &completing.progress;
        if let Some(took) = started.map(|started| started.elapsed()) {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            progress.last_took_nanos.store(nanos, Ordering::Relaxed);
            metrics::histogram!("flux_batch_seconds").record(took.as_secs_f64());
        }
        progress.decided.fetch_sub(1, Ordering::AcqRel);
        progress.completed.notify_one();
        // A queue or bus that can't keep up holds up no caller: deliveries
        // come back by themselves, and outcomes are best effort.
        if left.try_send(aftermath).is_err() {
            metrics::counter!("flux_notifications_dropped_total").increment(1);
        }
    }
}

/// Acknowledges and publishes, all that came while the last call was on its way.
async fn tell(core: Arc<Core>, mut left: mpsc::Receiver<Aftermath>) {
    let mut aftermaths = Vec::new();
    while left.recv_many(&mut aftermaths, TO_TELL_MAX).await > 0 {
        let (mut done, mut outcomes) = (Vec::new(), Vec::new());
        let mut back: BTreeMap<Duration, Vec<InHand>> = BTreeMap::new();
        for aftermath in aftermaths.drain(..) {
            if !aftermath.took.is_empty() {
                let seconds = metrics::histogram!("flux_decide_seconds");
                aftermath.took.iter().for_each(|took| seconds.record(*took));
            }
            aftermath.outcomes.iter().for_each(|outcomes| count(outcomes));
            outcomes.extend(aftermath.outcomes);
            for (delivery, answer) in aftermath.delivered {
                // G4: a message is done once its decision is durable, and comes back until then.
                match answer.is_failure() {
                    false => done.push(delivery),
                    true => back.entry(aftermath.retry_after).or_default().push(delivery),
                }
            }
        }
        let hand_back = back.into_iter().map(|(after, back)| hand_back(&core, back, after));
        tokio::join!(acknowledge(&core, done), join_all(hand_back), publish(&core, outcomes));
    }
}

impl DecidedBatch {
    /// Answers the callers once the batch is durable. What comes after one that is not
    /// may rest on it, so `broken` is told of both.
    async fn complete(mut self, broken: &mut Option<Answer>) -> Aftermath {
        if let Some(durable) = self.durable
            && let Err(error) = durable.wait().await
        {
            warn!(
                error = &error as &dyn Error,
                "a batch was decided and could not be written down"
            );
            // Decided and perhaps on disk, whatever the store calls it.
            let error = match error.may_have_applied() {
                true => error,
                false => SeamError::unknown("the store").with_source(error),
            };
            *broken = Some(Answer::Broken(Box::new(error)));
        }
        if let Some(broken) = broken {
            self.works.iter_mut().for_each(|work| work.answer = Some(broken.clone()));
            self.outcomes.clear();
        }
        let (mut delivered, mut took) = (Vec::new(), Vec::with_capacity(self.works.len()));
        let mut heard: Vec<Arc<Callers>> = Vec::new();
        let now = Instant::now();
        for work in &mut self.works {
            let answer = work.answer.take().unwrap_or(Answer::GivenUp);
            if let (Message::Place(_), Answer::Decided(..), Some(asked)) =
                (&work.message, &answer, work.asked)
            {
                took.push(now.saturating_duration_since(asked));
            }
            if let Some(span) = work.span.take() {
                span.record("status", answer.status().map_or("unsettled", OrderStatus::as_str));
            }
            match std::mem::replace(&mut work.from, Origin::Found) {
                Origin::Caller(callers, at) => {
                    callers.answer(at, answer);
                    if !heard.iter().rev().any(|known| Arc::ptr_eq(known, &callers)) {
                        heard.push(callers);
                    }
                }
                Origin::Delivery(delivery, _) => delivered.push((delivery, answer)),
                Origin::Found => {}
            }
        }
        heard.iter().for_each(|callers| callers.wake());
        Aftermath { delivered, retry_after: self.retry_after, outcomes: self.outcomes, took }
    }
}

async fn acknowledge(core: &Core, done: Vec<InHand>) {
    let calls = by_partition(receipts(&done)).into_iter().map(async |(partition, receipts)| {
        if let Err(error) = core.backend.queues()[partition].ack(&receipts).await {
            debug!(%error, "messages were not acknowledged; they come back and are found decided");
        }
    });
    join_all(calls).await;
}

/// Hands deliveries back, to come again `after` a while.
pub(crate) async fn hand_back(core: &Core, back: Vec<InHand>, after: Duration) {
    hand_back_receipts(core, receipts(&back), after).await;
}

/// Hands back deliveries that may be in nobody's hands, by partition and receipt.
pub(crate) async fn hand_back_receipts(core: &Core, back: Vec<(usize, Receipt)>, after: Duration) {
    let calls = by_partition(back).into_iter().map(async |(partition, receipts)| {
        if let Err(error) = core.backend.queues()[partition].retry(&receipts, after).await {
            debug!(%error, "messages were not handed back; they come back by themselves");
        }
    });
    join_all(calls).await;
}

fn receipts(deliveries: &[InHand]) -> Vec<(usize, Receipt)> {
    deliveries.iter().map(|d| (d.partition(), d.receipt().clone())).collect()
}

fn by_partition(receipts: Vec<(usize, Receipt)>) -> BTreeMap<usize, Vec<Receipt>> {
    let mut by_partition: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (partition, receipt) in receipts {
        by_partition.entry(partition).or_default().push(receipt);
    }
    by_partition
}

async fn publish(core: &Core, outcomes: Vec<Arc<Outcomes>>) {
    let mut outcomes = outcomes.into_iter().peekable();
    while let Some(mut first) = outcomes.next() {
        while let Some(next) =
            outcomes.next_if(|next| first.orders.len() + next.orders.len() <= PUBLISHED_MAX)
        {
            let more = Arc::make_mut(&mut first);
            more.orders.extend(next.orders.iter().cloned());
            more.availability.extend(next.availability.iter().cloned());
        }
        core.publish(first).await;
    }
}

/// Counts orders by the status they came to have.
pub(crate) fn count(outcomes: &Outcomes) {
    let mut counts = [0u64; OrderStatus::ALL.len()];
    for order in &outcomes.orders {
        counts[order.status() as usize] += 1;
    }
    for (status, orders) in OrderStatus::ALL.iter().zip(counts) {
        if orders > 0 {
            metrics::counter!("flux_orders_total", "status" => status.as_str()).increment(orders);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::sync::oneshot;
    use tracing::Span;

    use super::*;
    use crate::backends::Backend;
    use crate::clock::SystemClock;
    use crate::engine::accept::inbox::Taken;
    use crate::engine::{Error, Role, Settings};
    use crate::protocol::{Message, Order, OrderId};
    use crate::random::Random;
    use crate::seams::Durable;

    fn core() -> Core {
        let clock = Arc::new(SystemClock);
        Core::new(Backend::memory(), clock, Settings::default(), Role::Both, Random::seeded(1))
    }

    fn some_order() -> Order {
        let request = crate::OrderRequest::units("ann", "a", 1).expect("a request");
        let id = OrderId::from_uuid(uuid::Uuid::nil());
        Order::queued(id, request.buyer, request.lines, Default::default())
    }

    /// The answer to the one caller of a batch, and whether there are outcomes,
    /// when the write ends as told.
    async fn heard_when(written: Result<(), SeamError>) -> (Result<Order, Error>, bool) {
        let core = core();
        let span = Span::none();
        let mut caller = std::pin::pin!(core.inbox.ask(Message::Place(some_order()), None, &span));
        assert!(poll_once(caller.as_mut()).await.is_pending());
        let Taken { callers, mut messages, .. } = core.inbox.take().expect("one waits");
        let (on_disk, writing) = oneshot::channel();
        let durable = Durable::after(async { writing.await.expect("it is told") });
        let told = Arc::new(Outcomes { orders: vec![some_order()], availability: Vec::new() });
        let mut work = Work::new(messages.remove(0), Origin::Caller(callers, 0));
        work.answer = Some(Answer::Decided(Arc::clone(&told), 0));
        let decided = DecidedBatch {
            started: Some(Instant::now()),
            durable: Some(durable),
            works: vec![work],
            outcomes: vec![told],
            retry_after: Duration::ZERO,
        };
        let mut broken = None;
        let mut completing = std::pin::pin!(decided.complete(&mut broken));
        assert!(poll_once(completing.as_mut()).await.is_pending());
        assert!(poll_once(caller.as_mut()).await.is_pending(), "answered before it is on disk");
        on_disk.send(written).expect("it waits");
        let aftermath = completing.await;
        (caller.await, !aftermath.outcomes.is_empty())
    }

    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }

    #[tokio::test]
    async fn nobody_hears_of_a_batch_before_it_is_durable() {
        let (answer, published) = heard_when(Ok(())).await;
        assert_eq!(answer.expect("decided"), some_order());
        assert!(published);
    }

    #[tokio::test]
    async fn a_batch_that_was_not_written_is_told_so() {
        let (answer, published) = heard_when(Err(SeamError::broken("the disk", "full"))).await;
        assert!(matches!(answer, Err(Error::Backend(SeamError::Broken { .. }))), "{answer:?}");
        assert!(!published);
    }

    #[tokio::test]
    async fn nobody_hears_what_rests_on_a_batch_that_was_not_written() {
        let core = core();
        let mut broken = None;
        let span = Span::none();
        let mut caller = std::pin::pin!(core.inbox.ask(Message::Place(some_order()), None, &span));
        assert!(poll_once(caller.as_mut()).await.is_pending());
        let Taken { callers, mut messages, .. } = core.inbox.take().expect("one waits");
        let batch = |durable, works| DecidedBatch {
            started: None,
            durable,
            works,
            outcomes: Vec::new(),
            retry_after: Duration::ZERO,
        };
        let lost = Durable::after(async { Err(SeamError::broken("the disk", "full")) });
        batch(Some(lost), Vec::new()).complete(&mut broken).await;
        // It was found as that batch left it, and has nothing to wait for itself.
        let mut work = Work::new(messages.remove(0), Origin::Caller(callers, 0));
        work.answer = Some(Answer::Found(Box::new(some_order())));
        batch(None, vec![work]).complete(&mut broken).await;
        let answer = caller.await;
        assert!(matches!(answer, Err(Error::Backend(_))), "{answer:?}");
    }
}
