//! The completion of batches: waits until a batch is durable, then answers its
//! callers, acknowledges its deliveries and publishes its outcomes, while the
//! worker decides the next one.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::batch::Done;
use super::decision_metrics::DecisionMetrics;
use crate::engine::accept::inbox::{Answer, TakenBatch};
use crate::engine::core::Core;
use crate::protocol::OrderStatus;
use crate::seams::{Outcomes, Receipt, SeamError};

/// Most batches that may be decided and not durable.
const DECIDED_MAX: usize = 4;
/// Most batches whose deliveries and outcomes may wait for a slow queue or bus.
const TO_TELL_MAX: usize = 64;

/// A batch that is decided.
pub(crate) struct DecidedBatch {
    pub(crate) started: Instant,
    pub(crate) done: Done,
    pub(crate) callers: Option<TakenBatch>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) delivered: Vec<(Receipt, Answer)>,
    /// The time that a delivery stays away whose message was given up for now.
    pub(crate) retry_after: Duration,
    pub(crate) metrics: DecisionMetrics,
}

/// The work left when the callers have their answers.
struct Aftermath {
    delivered: Vec<(Receipt, Answer)>,
    retry_after: Duration,
    outcomes: Vec<Arc<Outcomes>>,
    /// The time from the first look to the answers.
    took: Duration,
    metrics: DecisionMetrics,
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
    hand_over: mpsc::Sender<DecidedBatch>,
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
        Self { hand_over, tasks, progress }
    }

    /// Hands a batch to the completer; waits while too many are not durable.
    /// `false` when the completer is gone: the batch is given up with it, and its
    /// callers hear so.
    pub(crate) async fn hand_over(&self, decided: DecidedBatch) -> bool {
        self.progress.decided.fetch_add(1, Ordering::AcqRel);
        let taken = self.hand_over.send(decided).await.is_ok();
        if !taken {
            self.progress.decided.store(0, Ordering::Release);
        }
        taken
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
    pub(crate) async fn finish(self) {
        drop(self.hand_over);
        for task in self.tasks {
            if let Err(error) = task.await {
                warn!(%error, "the completer failed");
            }
        }
    }
}

async fn complete(mut completing: Completing, left: mpsc::Sender<Aftermath>) {
    while let Some(decided) = completing.decided.recv().await {
        let aftermath = decided.complete().await;
        let took = aftermath.took;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let progress = &completing.progress;
        progress.last_took_nanos.store(nanos, Ordering::Relaxed);
        metrics::histogram!("flux_batch_seconds").record(took.as_secs_f64());
        progress.decided.fetch_sub(1, Ordering::AcqRel);
        progress.completed.notify_one();
        // A queue or bus that can't keep up holds up no caller: deliveries
        // come back by themselves, and outcomes are best effort.
        if left.try_send(aftermath).is_err() {
            metrics::counter!("flux_notifications_dropped_total").increment(1);
        }
    }
}

async fn tell(core: Arc<Core>, mut left: mpsc::Receiver<Aftermath>) {
    while let Some(aftermath) = left.recv().await {
        let Aftermath { delivered, retry_after, outcomes, took, metrics } = aftermath;
        metrics.measure(took);
        for outcomes in &outcomes {
            count(outcomes);
        }
        acknowledge(&core, delivered, retry_after).await;
        for outcomes in outcomes {
            core.publish(outcomes).await;
        }
    }
}

impl DecidedBatch {
    /// Answers the callers once the batch is durable.
    async fn complete(mut self) -> Aftermath {
        let mut durable = Ok(());
        for written in self.done.durable {
            durable = durable.and(written.wait().await);
        }
        if let Err(error) = durable {
            warn!(
                error = &error as &dyn Error,
                "a batch was decided and could not be written down"
            );
            // Decided and perhaps on disk, whatever the store calls it.
            let error = match error.may_have_applied() {
                true => error,
                false => SeamError::unknown("the store").with_source(error),
            };
            let broken = Answer::Broken(error);
            self.answers.fill(broken.clone());
            self.delivered.iter_mut().for_each(|(_, answer)| *answer = broken.clone());
            self.done.outcomes.clear();
            self.metrics.fail();
        }
        if let Some(callers) = self.callers {
            callers.complete(self.answers);
        }
        self.metrics.end();
        let took = self.started.elapsed();
        let Self { delivered, retry_after, metrics, .. } = self;
        Aftermath { delivered, retry_after, outcomes: self.done.outcomes, took, metrics }
    }
}

async fn acknowledge(core: &Core, delivered: Vec<(Receipt, Answer)>, retry_after: Duration) {
    // G4: a message is done once its decision is durable, and comes back until then.
    let (mut done, mut back) = (Vec::new(), Vec::new());
    for (receipt, answer) in delivered {
        match answer {
            Answer::Decided(..) | Answer::Found(_) | Answer::NotFound(_) => done.push(receipt),
            Answer::GivenUp | Answer::Broken(_) => back.push(receipt),
        }
    }
    let queue = &core.backend.queue;
    if !done.is_empty()
        && let Err(error) = queue.ack(&done).await
    {
        debug!(%error, "messages were not acknowledged; they come back and are found decided");
    }
    if !back.is_empty()
        && let Err(error) = queue.retry(&back, retry_after).await
    {
        debug!(%error, "messages were not handed back; they come back by themselves");
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
    use crate::seams::Durable;

    fn core() -> Core {
        let clock = Arc::new(SystemClock);
        Core::new(Backend::memory(), clock, Settings::default(), Role::Both)
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
        let Taken { callers, .. } = core.inbox.take().expect("one waits");
        let (on_disk, writing) = oneshot::channel();
        let durable = Durable::after(async { writing.await.expect("it is told") });
        let told = Arc::new(Outcomes { orders: vec![some_order()], availability: Vec::new() });
        let decided = DecidedBatch {
            started: Instant::now(),
            done: Done { durable: vec![durable], outcomes: vec![Arc::clone(&told)] },
            callers: Some(callers),
            answers: vec![Answer::Decided(told, 0)],
            delivered: Vec::new(),
            retry_after: Duration::ZERO,
            metrics: DecisionMetrics::default(),
        };
        let mut completing = std::pin::pin!(decided.complete());
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
}
