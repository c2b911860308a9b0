//! The way from callers to the worker in the same process. Callers add to an
//! open round; the worker takes the round whole, decides it, and wakes all its
//! callers at once: waking each on its own is the dearest part of a decision
//! in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
// For the metrics, whatever tokio's clock is told.
use std::time::Instant as Stopwatch;

use tokio::sync::Notify;
use tracing::Span;

use super::id_guard::Held;
use crate::engine::error::Error;
use crate::protocol::{Message, Order, OrderId};
use crate::seams::{News, SeamError};

/// So many orders share a write that more would hardly make it cheaper.
pub(crate) const ENOUGH: usize = 128;

/// What a message came to.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The order, as one of the orders of this news.
    News(Arc<News>, usize),
    /// The order as it was found.
    Found(Box<Order>),
    /// There is no such order.
    NotFound(OrderId),
    /// Given up for now; it may have taken effect.
    GivenUp,
    /// The store is beyond repair.
    Broken(Arc<str>),
}

impl Answer {
    /// Whether the backends kept it from being settled.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::GivenUp | Self::Broken(_))
    }

    fn to_result(&self, asked: OrderId) -> Result<Order, Error> {
        match self {
            Self::News(news, at) => Ok(news.orders[*at].clone()),
            Self::Found(order) => Ok((**order).clone()),
            Self::NotFound(id) => Err(Error::NotFound(*id)),
            Self::GivenUp => Err(Error::Unsettled(asked)),
            Self::Broken(reason) => Err(Error::Backend(SeamError::broken("the store", &**reason))),
        }
    }
}

/// Where the callers of one round wait.
#[derive(Debug, Default)]
struct Round {
    answers: OnceLock<Vec<Answer>>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Filling {
    messages: Vec<Message>,
    asked: Vec<Stopwatch>,
    spans: Vec<(usize, Span)>,
    held: Vec<Arc<Held>>,
    round: Arc<Round>,
}

#[derive(Debug, Default)]
struct Waiting {
    rounds: VecDeque<Filling>,
    messages: usize,
}

/// A bounded queue of rounds.
#[derive(Debug)]
pub(crate) struct Lane {
    waiting: Mutex<Waiting>,
    /// Changed under the lock, read by those who only look without it.
    closed: AtomicBool,
    filled: Notify,
    round_max: usize,
    waiting_max: usize,
}

/// What the worker takes at once.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) messages: Vec<Message>,
    /// When each was handed in.
    pub(crate) asked: Vec<Stopwatch>,
    /// The spans of those who asked, where spans are on, by message.
    pub(crate) spans: Vec<(usize, Span)>,
    pub(crate) round: TakenRound,
}

/// A round the worker has taken. Dropped unsettled, it tells its callers so.
#[derive(Debug)]
pub(crate) struct TakenRound {
    round: Arc<Round>,
    /// In hand until the round is settled, whether the callers wait or not.
    _held: Vec<Arc<Held>>,
}

impl Lane {
    pub(crate) fn new(round_max: usize, waiting_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            filled: Notify::new(),
            round_max,
            waiting_max,
        }
    }

    /// Hands a message to the worker and waits for what it comes to. Dropping
    /// the future after its first poll does not take the message back, nor let
    /// go of what is `held` for it.
    pub(crate) async fn ask(
        &self,
        message: Message,
        held: Option<Arc<Held>>,
        asking: &Span,
    ) -> Result<Order, Error> {
        let asked = message.order_id();
        let (round, at) = self.push(message, held, asking)?;
        let settled = round.settled.notified();
        tokio::pin!(settled);
        // Registered before the look, or the wake-up could fall in between.
        settled.as_mut().enable();
        let answers = match round.answers.get() {
            Some(answers) => answers,
            None => {
                settled.await;
                round.answers.get().expect("answers are set before the callers are woken")
            }
        };
        answers.get(at).unwrap_or(&Answer::GivenUp).to_result(asked)
    }

    fn push(
        &self,
        message: Message,
        held: Option<Arc<Held>>,
        asking: &Span,
    ) -> Result<(Arc<Round>, usize), Error> {
        let asked = Stopwatch::now();
        let mut waiting = self.lock();
        if self.is_closed() {
            return Err(Error::ShuttingDown);
        }
        if waiting.messages >= self.waiting_max {
            return Err(Error::Overloaded { retry_after: crate::engine::RETRY_AFTER });
        }
        if waiting.rounds.back().is_none_or(|open| open.messages.len() >= self.round_max) {
            waiting.rounds.push_back(Filling::default());
        }
        waiting.messages += 1;
        let awaited = waiting.messages == 1 || waiting.messages == ENOUGH;
        let open = waiting.rounds.back_mut().expect("a round was just made sure of");
        if !asking.is_disabled() {
            open.spans.push((open.messages.len(), asking.clone()));
        }
        open.held.extend(held);
        open.messages.push(message);
        open.asked.push(asked);
        let place = (Arc::clone(&open.round), open.messages.len() - 1);
        drop(waiting);
        if awaited {
            self.filled.notify_one();
        }
        Ok(place)
    }

    /// The oldest round, if anything waits.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut waiting = self.lock();
        let Filling { messages, asked, spans, held, round } = waiting.rounds.pop_front()?;
        waiting.messages -= messages.len();
        Some(Taken { messages, asked, spans, round: TakenRound { round, _held: held } })
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().messages
    }

    /// Waits until something is in the lane. Cancel-safe.
    pub(crate) async fn filled(&self) {
        while self.len() == 0 {
            self.filled.notified().await;
        }
    }

    /// Waits until the lane is so full that waiting for more saves nothing.
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

    /// Takes nothing more and gives up what waits.
    pub(crate) fn abandon(&self) {
        self.close();
        while self.take().is_some() {}
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenRound {
    /// Answers every caller of the round, in the order their messages came.
    pub(crate) fn settle(self, answers: Vec<Answer>) {
        // The first setting counts; `drop` finds it set.
        let _ = self.round.answers.set(answers);
    }
}

impl Drop for TakenRound {
    fn drop(&mut self) {
        self.round.answers.get_or_init(Vec::new);
        self.round.settled.notify_waiters();
    }
}
