//! The time a batch's decisions took, and their spans, which belong to the
//! traces of those who asked.

use std::time::{Duration, Instant};

use tracing::field::Empty;
use tracing::{Span, debug_span};

use super::batch::Work;
use crate::engine::accept::inbox::Answer;
use crate::protocol::{Message, OrderId, OrderStatus};

/// The waits and spans of a batch's messages before they are worked on.
#[derive(Debug, Default)]
pub(crate) struct PendingMetrics {
    /// The time each message waited to be taken up. Follow-ups that the worker
    /// makes itself come last and have none.
    waited: Vec<Duration>,
    /// The spans of decisions, by message.
    deciding: Vec<(usize, Span)>,
}

/// The waits and spans of a batch's decisions, to be told once it is durable.
#[derive(Debug, Default)]
pub(crate) struct DecisionMetrics {
    /// The time each decided order waited to be taken up.
    waited: Vec<Duration>,
    deciding: Vec<(Span, Option<OrderStatus>)>,
}

impl PendingMetrics {
    /// The waits and spans of callers' messages, in their order.
    pub(crate) fn of_callers(
        taken_up: Instant,
        messages: &[Message],
        asked: Vec<Instant>,
        asking: Vec<(usize, Span)>,
    ) -> Self {
        let waited = asked.into_iter().map(|at| taken_up.duration_since(at)).collect();
        let mut pending = Self { waited, deciding: Vec::new() };
        for (at, asking) in asking {
            pending.add_span(at, &asking, messages[at].order_id());
        }
        pending
    }

    /// Adds the next message, which came by the queue.
    pub(crate) fn add(&mut self, id: OrderId, waited: Duration, asking: Option<&Span>) {
        self.waited.push(waited);
        if let Some(asking) = asking {
            self.add_span(self.waited.len() - 1, asking, id);
        }
    }

    fn add_span(&mut self, at: usize, asking: &Span, id: OrderId) {
        let waited_seconds = self.waited[at].as_secs_f64();
        let span = debug_span!(
            target: "flux", parent: asking, "decide", order = %id, waited_seconds, status = Empty
        );
        self.deciding.push((at, span));
    }

    /// The metrics of the decided batch, which begins with the messages added.
    pub(crate) fn decided(self, batch: &[Work]) -> DecisionMetrics {
        let is_decided = |work: &Work| {
            matches!(work.message, Message::Place(_))
                && matches!(work.answer, Some(Answer::Decided(..)))
        };
        let waited = self.waited.into_iter().zip(batch);
        DecisionMetrics {
            waited: waited.filter(|(_, work)| is_decided(work)).map(|(waited, _)| waited).collect(),
            deciding: self
                .deciding
                .into_iter()
                .map(|(at, span)| (span, status(&batch[at])))
                .collect(),
        }
    }
}

impl DecisionMetrics {
    /// Marks every decision of the batch as failed.
    pub(crate) fn fail(&mut self) {
        self.waited.clear();
        self.deciding.iter_mut().for_each(|(_, status)| *status = None);
    }

    /// Ends the spans.
    pub(crate) fn end(&mut self) {
        for (span, status) in self.deciding.drain(..) {
            span.record("status", status.map_or("unsettled", OrderStatus::as_str));
        }
    }

    /// Records the duration of each decision: its wait, and `took` from when the
    /// batch was taken up.
    pub(crate) fn measure(&self, took: Duration) {
        if self.waited.is_empty() {
            return;
        }
        let seconds = metrics::histogram!("flux_decide_seconds");
        for waited in &self.waited {
            seconds.record(*waited + took);
        }
    }
}

fn status(work: &Work) -> Option<OrderStatus> {
    match work.answer.as_ref()? {
        Answer::Decided(outcomes, at) => Some(outcomes.orders[*at].status()),
        Answer::Found(order) => Some(order.status()),
        Answer::NotFound(_) | Answer::GivenUp | Answer::Broken(_) => None,
    }
}
