//! The way from callers to the worker in the same process. Callers add to an
//! open batch; the worker takes the batch whole, decides it, and wakes all its
//! callers at once: waking each on its own is the dearest part of a decision
//! in memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
// Measures for the metrics in real time, also while tokio's clock is paused.
use std::time::Instant as Stopwatch;

use tracing::Span;

use super::id_guard::IdGuard;
use crate::engine::error::Error;
use crate::protocol::{Message, Order, OrderId, OrderStatus};
use crate::seams::{Outcomes, SeamError};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Notify, OnceLock};

/// Messages in the inbox past which waiting for more saves hardly anything: so
/// many share a write that more would not make it much cheaper. Few in the small
/// scenes under shuttle.
pub(crate) const ENOUGH: usize = if cfg!(all(test, shuttle)) { 3 } else { 128 };

/// The result of one message.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The order, as one of the orders of these outcomes.
    Decided(Arc<Outcomes>, usize),
    /// The order as it was found.
    Found(Box<Order>),
    /// There is no such order.
    NotFound(OrderId),
    /// Given up for now; it may have taken effect.
    GivenUp,
    /// A backend failed for good.
    Broken(Box<SeamError>),
    /// Nobody looked at the message: the worker was gone.
    Untouched,
}

impl Answer {
    /// Whether the backends kept the message from being decided.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::GivenUp | Self::Broken(_) | Self::Untouched)
    }

    /// The status of the order that it tells.
    pub(crate) fn status(&self) -> Option<OrderStatus> {
        match self {
            Self::Decided(outcomes, at) => Some(outcomes.orders[*at].status()),
            Self::Found(order) => Some(order.status()),
            Self::NotFound(_) | Self::GivenUp | Self::Broken(_) | Self::Untouched => None,
        }
    }

    fn to_result(&self, asked: OrderId) -> Result<Order, Error> {
        match self {
            Self::Decided(outcomes, at) => Ok(outcomes.orders[*at].clone()),
            Self::Found(order) => Ok((**order).clone()),
            Self::NotFound(id) => Err(Error::NotFound(*id)),
            Self::GivenUp => Err(Error::OutcomePending(asked)),
            Self::Broken(error) => Err(Error::Backend((**error).clone())),
            Self::Untouched => Err(Error::ShuttingDown),
        }
    }
}

/// The answers to one batch, and the callers who wait for them.
#[derive(Debug, Default)]
struct Batch {
    /// A place for each message, once the worker has taken them.
    answers: OnceLock<Box<[OnceLock<Answer>]>>,
    /// Whether whatever has no answer will have none.
    is_over: AtomicBool,
    answered: Notify,
}

impl Batch {
    fn answer(&self, at: usize) -> Option<&Answer> {
        let is_over = self.is_over.load(Ordering::Acquire);
        let answer = self.answers.get().and_then(|answers| answers.get(at)?.get());
        answer.or(is_over.then_some(&Answer::GivenUp))
    }
}

#[derive(Debug, Default)]
struct OpenBatch {
    messages: Vec<Message>,
    asked: Vec<Stopwatch>,
    spans: Vec<(usize, Span)>,
    guards: Vec<Arc<IdGuard>>,
    batch: Arc<Batch>,
}

impl OpenBatch {
    fn with_capacity(messages: usize) -> Self {
        let (asked, messages) = (Vec::with_capacity(messages), Vec::with_capacity(messages));
        Self { messages, asked, ..Self::default() }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<OpenBatch>,
    messages: usize,
    /// The number of messages in the batch that was taken last: the next one is made
    /// as large.
    last: usize,
}

/// Messages of one caller that stand together in a batch.
#[derive(Debug)]
struct Run {
    batch: Arc<Batch>,
    first: usize,
    ids: Vec<OrderId>,
}

/// A bounded queue of batches.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Whether it takes nothing more. Changed under the lock; read without it by
    /// those who only look.
    closed: AtomicBool,
    filled: Notify,
    batch_max: usize,
    calls_max: usize,
}

/// A batch as the worker takes it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) messages: Vec<Message>,
    /// The moment each message was handed in.
    pub(crate) asked: Vec<Stopwatch>,
    /// The spans of those who asked, where spans are on, by message.
    pub(crate) spans: Vec<(usize, Span)>,
    pub(crate) callers: Arc<Callers>,
}

/// The callers of a batch that the worker has taken. Dropped, it tells those
/// without an answer that their message is given up.
#[derive(Debug)]
pub(crate) struct Callers {
    batch: Arc<Batch>,
    /// Kept until the batch is completed, whether the callers wait or not.
    _guards: Vec<Arc<IdGuard>>,
}

impl Inbox {
    pub(crate) fn new(batch_max: usize, calls_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            filled: Notify::new(),
            batch_max,
            calls_max,
        }
    }

    /// Hands a message to the worker and waits for its answer. Dropping the
    /// future after its first poll takes back neither the message nor its
    /// `guard`.
    pub(crate) async fn ask(
        &self,
        message: Message,
        guard: Option<Arc<IdGuard>>,
        asking: &Span,
    ) -> Result<Order, Error> {
        let asked = message.order_id();
        let (batch, at) = self.push(message, guard, asking)?;
        loop {
            if let Some(answer) = batch.answer(at) {
                return answer.to_result(asked);
            }
            let answered = batch.answered.notified();
            tokio::pin!(answered);
            // Registered before the look, or the wake-up could fall in between.
            answered.as_mut().enable();
            if let Some(answer) = batch.answer(at) {
                return answer.to_result(asked);
            }
            answered.await;
        }
    }

    /// Hands messages to the worker in one step and waits for their answers. Dropping the
    /// future after its first poll takes back none. What there is no room for is answered
    /// so, and the others are not.
    pub(crate) async fn ask_all(
        &self,
        messages: Vec<(Message, Option<Arc<IdGuard>>)>,
        asking: &Span,
    ) -> Vec<Result<Order, Error>> {
        let count = messages.len();
        let (runs, refused) = self.push_all(messages, asking);
        let mut answers = Vec::with_capacity(count);
        for Run { batch, first, ids } in runs {
            let mut given = 0;
            loop {
                while let Some(answer) = batch.answer(first + given) {
                    answers.push(answer.to_result(ids[given]));
                    given += 1;
                    if given == ids.len() {
                        break;
                    }
                }
                if given == ids.len() {
                    break;
                }
                let answered = batch.answered.notified();
                tokio::pin!(answered);
                // Registered before the look, or the wake-up could fall in between.
                answered.as_mut().enable();
                if batch.answer(first + given).is_none() {
                    answered.await;
                }
            }
        }
        if let Some(refused) = refused {
            answers.resize(count, Err(refused));
        }
        answers
    }

    /// As [`push`](Self::push), for several: the places of those there is room for, and the
    /// reason why there is none for the others.
    fn push_all(
        &self,
        messages: Vec<(Message, Option<Arc<IdGuard>>)>,
        asking: &Span,
    ) -> (Vec<Run>, Option<Error>) {
        let mut runs: Vec<Run> = Vec::new();
        let asked = Stopwatch::now();
        let mut waiting = self.lock();
        if self.is_closed() {
            return (runs, (!messages.is_empty()).then_some(Error::ShuttingDown));
        }
        let before = waiting.messages;
        let room = self.calls_max.saturating_sub(before);
        let refused = (messages.len() > room)
            .then_some(Error::Overloaded { retry_after: crate::engine::RETRY_AFTER });
        for (message, guard) in messages.into_iter().take(room) {
            if waiting.batches.back().is_none_or(|open| open.messages.len() >= self.batch_max) {
                let open = OpenBatch::with_capacity(waiting.last);
                waiting.batches.push_back(open);
            }
            waiting.messages += 1;
            let open = waiting.batches.back_mut().expect("a batch was just made sure of");
            let at = open.messages.len();
            match runs.last_mut().filter(|run| Arc::ptr_eq(&run.batch, &open.batch)) {
                Some(run) => run.ids.push(message.order_id()),
                None => runs.push(Run {
                    batch: Arc::clone(&open.batch),
                    first: at,
                    ids: vec![message.order_id()],
                }),
            }
            if !asking.is_disabled() {
                open.spans.push((at, asking.clone()));
            }
            open.guards.extend(guard);
            open.messages.push(message);
            open.asked.push(asked);
        }
        let now = waiting.messages;
        drop(waiting);
        if now > before && (before == 0 || (before < ENOUGH && now >= ENOUGH)) {
            self.filled.notify_one();
        }
        (runs, refused)
    }

    fn push(
        &self,
        message: Message,
        guard: Option<Arc<IdGuard>>,
        asking: &Span,
    ) -> Result<(Arc<Batch>, usize), Error> {
        let asked = Stopwatch::now();
        let mut waiting = self.lock();
        if self.is_closed() {
            return Err(Error::ShuttingDown);
        }
        if waiting.messages >= self.calls_max {
            return Err(Error::Overloaded { retry_after: crate::engine::RETRY_AFTER });
        }
        if waiting.batches.back().is_none_or(|open| open.messages.len() >= self.batch_max) {
            let open = OpenBatch::with_capacity(waiting.last);
            waiting.batches.push_back(open);
        }
        waiting.messages += 1;
        let awaited = waiting.messages == 1 || waiting.messages == ENOUGH;
        let open = waiting.batches.back_mut().expect("a batch was just made sure of");
        if !asking.is_disabled() {
            open.spans.push((open.messages.len(), asking.clone()));
        }
        open.guards.extend(guard);
        open.messages.push(message);
        open.asked.push(asked);
        let position = (Arc::clone(&open.batch), open.messages.len() - 1);
        drop(waiting);
        if awaited {
            self.filled.notify_one();
        }
        Ok(position)
    }

    /// The oldest batch, if anything waits.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut waiting = self.lock();
        let OpenBatch { messages, asked, spans, guards, batch } = waiting.batches.pop_front()?;
        waiting.messages -= messages.len();
        waiting.last = messages.len();
        drop(waiting);
        batch.answers.get_or_init(|| messages.iter().map(|_| OnceLock::default()).collect());
        let callers = Arc::new(Callers { batch, _guards: guards });
        Some(Taken { messages, asked, spans, callers })
    }

    /// The number of messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().messages
    }

    /// Waits until something is in the inbox. Cancel-safe.
    pub(crate) async fn filled(&self) {
        while self.len() == 0 {
            self.filled.notified().await;
        }
    }

    /// Waits until the inbox is so full that waiting for more saves nothing.
    /// Cancel-safe.
    pub(crate) async fn full_enough(&self) {
        while self.len() < ENOUGH {
            self.filled.notified().await;
        }
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes nothing more; what waits is still handed out.
    pub(crate) fn close(&self) {
        let _pushes = self.lock();
        self.closed.store(true, Ordering::Release);
    }

    /// Takes nothing more and sends away what waits.
    pub(crate) fn abandon(&self) {
        self.close();
        while let Some(Taken { messages, callers, .. }) = self.take() {
            (0..messages.len()).for_each(|at| callers.answer(at, Answer::Untouched));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callers {
    /// Leaves the answer to a message of the batch; its caller does not hear of it
    /// before the next [`wake`](Self::wake).
    pub(crate) fn answer(&self, at: usize, answer: Answer) {
        let answers = self.batch.answers.get().expect("it was taken");
        // The first answer counts.
        let _ = answers[at].set(answer);
    }

    /// Wakes the callers of the batch, those that have no answer as well.
    pub(crate) fn wake(&self) {
        self.batch.answered.notify_waiters();
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.batch.is_over.store(true, Ordering::Release);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_that_are_asked_together_are_answered_in_their_order() {
        let inbox = Inbox::new(3, 9);
        inbox.push(Message::Expire(OrderId::new()), None, &Span::none()).expect("there is room");
        let ids: Vec<OrderId> = (0..10).map(|_| OrderId::new()).collect();
        let messages = ids.iter().map(|id| (Message::Expire(*id), None)).collect();
        let span = Span::none();
        let asking = inbox.ask_all(messages, &span);
        let answering = async {
            tokio::task::yield_now().await;
            let taken: Vec<Taken> = std::iter::from_fn(|| inbox.take()).collect();
            let sizes: Vec<usize> = taken.iter().map(|taken| taken.messages.len()).collect();
            assert_eq!(sizes, [3, 3, 3], "nine fit");
            // Not in the order they were asked.
            for taken in taken.into_iter().rev() {
                for at in (0..taken.messages.len()).rev() {
                    taken.callers.answer(at, Answer::NotFound(taken.messages[at].order_id()));
                    taken.callers.wake();
                    tokio::task::yield_now().await;
                }
            }
        };
        let (answers, ()) = tokio::join!(asking, answering);
        assert_eq!(answers.len(), 10);
        for (answer, id) in answers.iter().zip(&ids).take(8) {
            assert!(matches!(answer, Err(Error::NotFound(told)) if told == id), "{answer:?}");
        }
        for answer in &answers[8..] {
            assert!(matches!(answer, Err(Error::Overloaded { .. })), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn those_who_wait_together_are_taken_together() {
        let inbox = Inbox::new(3, 9);
        for _ in 0..5 {
            let message = Message::Expire(OrderId::new());
            inbox.push(message, None, &Span::none()).expect("there is room");
        }
        let sizes = [(); 3].map(|()| inbox.take().map(|taken| taken.messages.len()));
        assert_eq!(sizes, [Some(3), Some(2), None]);
    }
}
