//! A message in the worker's hands, from where it came to its answer.

use std::sync::Arc;
// Measures for the metrics in real time, also while tokio's clock is paused.
use std::time::Instant as Stopwatch;

use tracing::Span;

use super::receiving::InHand;
use crate::engine::accept::inbox::{Answer, Callers};
use crate::protocol::{ItemId, Line, Message, Order, OrderId};

/// Times that a message waits for an item that others have before others are kept for it.
pub(crate) const WAITS_MAX: u32 = 4;

/// A message being worked on.
#[derive(Debug)]
pub(crate) struct Work {
    /// Its place in the order of arrival, once it is in a backlog.
    pub(crate) rank: u64,
    pub(crate) message: Message,
    pub(crate) from: Origin,
    pub(crate) answer: Option<Answer>,
    /// Whether the order is looked for before it is decided.
    pub(crate) looks_first: bool,
    /// The order as it was last seen, if it was.
    pub(crate) known: Option<Box<Order>>,
    /// Whether the rules about buyers bar the order, as a commit's refusal told.
    pub(crate) barred: bool,
    /// Whether an earlier try may have written it.
    pub(crate) doubtful: bool,
    /// Whether the last try was refused, or its outcome is unknown.
    pub(crate) refused: bool,
    /// The number of tries that got nowhere.
    pub(crate) refusals: u32,
    /// The number of tries that only told something about others.
    pub(crate) lessons: u32,
    /// The number of times it had to wait for an item that others had.
    pub(crate) waits: u32,
    /// The moment it was handed in; `None` for what the worker itself found.
    pub(crate) asked: Option<Stopwatch>,
    /// The span of its decision, where spans are on.
    pub(crate) span: Option<Box<Span>>,
}

/// Who waits for the answer to a message.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A caller of this engine.
    Caller(Arc<Callers>, usize),
    /// The queue: the message is done or comes again.
    Delivery(InHand, u32),
    /// Nobody: each worker finds it by itself, as the end of a hold.
    Found,
}

impl Work {
    pub(crate) fn new(message: Message, from: Origin) -> Self {
        let again = matches!(from, Origin::Delivery(_, 2..));
        let looks_first = again || !matches!(message, Message::Place(_));
        Self {
            rank: 0,
            message,
            from,
            answer: None,
            looks_first,
            known: None,
            barred: false,
            doubtful: false,
            refused: false,
            refusals: 0,
            lessons: 0,
            waits: 0,
            asked: None,
            span: None,
        }
    }

    pub(crate) fn id(&self) -> OrderId {
        self.message.order_id()
    }

    /// Takes over what a look at the store showed.
    pub(crate) fn knows(&mut self, order: Option<Order>) {
        self.looks_first = false;
        self.known = order.map(Box::new);
    }

    /// Notes that it waits for an item that others have. If it had to too often, its items
    /// before that one, by name, are to be kept meanwhile, the longer the more often.
    pub(crate) fn wait_for(&mut self, item: &ItemId, kept: &mut Vec<(ItemId, u32)>) {
        self.waits += 1;
        if self.waits > WAITS_MAX {
            let before = self.items().filter(|other| *other < item);
            kept.extend(before.map(|other| (other.clone(), self.waits)));
        }
    }

    /// Whether it may be left to another worker that has its items.
    pub(crate) fn is_spare(&self) -> bool {
        matches!(self.from, Origin::Found)
    }

    /// The number of this delivery; 1 for what did not come by the queue.
    pub(crate) fn attempt(&self) -> u32 {
        match self.from {
            Origin::Delivery(_, attempt) => attempt,
            Origin::Caller(..) | Origin::Found => 1,
        }
    }

    /// The partition of the queue that it came from, if it did.
    pub(crate) fn partition(&self) -> Option<usize> {
        match &self.from {
            Origin::Delivery(delivery, _) => Some(delivery.partition()),
            Origin::Caller(..) | Origin::Found => None,
        }
    }

    /// The items that its decision is about, each once.
    pub(crate) fn items(&self) -> impl Iterator<Item = &ItemId> {
        let lines = self.lines();
        let is_new = |n: usize| lines[..n].iter().all(|before| before.item != lines[n].item);
        (0..lines.len()).filter(move |n| is_new(*n)).map(|n| &lines[n].item)
    }

    /// Whether its decision is about more than one item.
    pub(crate) fn is_about_several(&self) -> bool {
        let lines = self.lines();
        lines.iter().any(|line| line.item != lines[0].item)
    }

    /// The order that there is something to decide on, if there is one.
    pub(crate) fn order(&self) -> Option<&Order> {
        match (&self.message, &self.known) {
            (Message::Place(order), None) => Some(order),
            (Message::Place(_), Some(_)) => None,
            (_, known) => known.as_deref(),
        }
    }

    /// The lines that its decision is about; none if there is nothing to decide.
    pub(crate) fn lines(&self) -> &[Line] {
        self.order().map_or(&[], |order| &order.lines)
    }
}
