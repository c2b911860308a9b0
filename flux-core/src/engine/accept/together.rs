//! Many orders in one call: they go to the worker in one step, and are waited for in one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::{Instrument, Span, debug_span};

use super::id_guard::IdGuard;
use super::repeats::{Admitted, same};
use super::submit::Chosen;
use crate::engine::core::Core;
use crate::engine::error::Error;
use crate::engine::request::OrderRequest;
use crate::protocol::{Message, Order, OrderId, Timestamp};

type Answer = Result<Order, Error>;

/// An order for this engine's worker, and its place among those of the call.
struct Asked {
    at: usize,
    order: Order,
    guard: Option<Arc<IdGuard>>,
}

impl Core {
    /// Has orders decided, each as [`place`](Self::place) does.
    pub(crate) async fn place_all(&self, requests: Vec<OrderRequest>) -> Vec<Answer> {
        let span = debug_span!(target: "flux", "place_all", orders = requests.len());
        let placing = async {
            let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
            let (asked, elsewhere) = self.admit_all(requests, &mut answers).await;
            let messages = asked.iter().map(message).collect();
            let here = self.inbox.ask_all(messages, &span);
            let elsewhere =
                join_all(elsewhere.into_iter().map(async |Asked { at, order, guard }| {
                    (at, self.decided_now(order, guard).await)
                }));
            let (here, elsewhere) = tokio::join!(here, elsewhere);
            for (Asked { at, order, guard }, answer) in asked.into_iter().zip(here) {
                answers[at] = Some(match guard {
                    // It may have met a repeat of another form.
                    Some(_) => answer.and_then(|decided| same(&order, decided)),
                    None => answer,
                });
            }
            elsewhere.into_iter().for_each(|(at, answer)| answers[at] = Some(answer));
            all(answers)
        };
        placing.instrument(span.clone()).await
    }

    /// Has orders decided if that takes no longer than `longest`, and accepts those that are
    /// not, each as [`place_within`](Self::place_within) does.
    pub(crate) async fn place_all_within(
        &self,
        requests: Vec<OrderRequest>,
        longest: Duration,
    ) -> Vec<Answer> {
        if longest.is_zero() {
            return join_all(requests.into_iter().map(|request| self.submit(request))).await;
        }
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        let (here, elsewhere) = self.admit_all(requests, &mut answers).await;
        let messages = here.iter().map(message).collect();
        let span = Span::current();
        let deciding = timeout(longest, self.inbox.ask_all(messages, &span));
        let elsewhere = elsewhere.into_iter().map(async |Asked { at, order, guard }| {
            (at, self.accepted_within(order, guard, longest).await)
        });
        let (decided, elsewhere) = tokio::join!(deciding, join_all(elsewhere));
        elsewhere.into_iter().for_each(|(at, answer)| answers[at] = Some(answer));
        match decided {
            Ok(decided) => {
                for (Asked { at, order, guard }, answer) in here.into_iter().zip(decided) {
                    answers[at] = Some(match guard {
                        Some(_) => answer.and_then(|decided| same(&order, decided)),
                        None => answer,
                    });
                }
            }
            Err(_) => {
                let queued = here.into_iter().map(async |Asked { at, order, guard }| {
                    (at, self.enqueue_too(order, guard).await)
                });
                join_all(queued)
                    .await
                    .into_iter()
                    .for_each(|(at, answer)| answers[at] = Some(answer));
            }
        }
        all(answers)
    }

    /// Admits each request: those this engine's worker decides, and those that others do.
    /// The rest have their answers.
    async fn admit_all(
        &self,
        requests: Vec<OrderRequest>,
        answers: &mut [Option<Answer>],
    ) -> (Vec<Asked>, Vec<Asked>) {
        let now = self.clock.now();
        let mut admitted = Vec::with_capacity(requests.len());
        let mut admitting = Vec::new();
        for (at, request) in requests.into_iter().enumerate() {
            match self.admit_at_once(now, request) {
                Ok(order) => admitted.push((at, Ok(Admitted::New(order, None)))),
                Err(request) => {
                    let admit = self.admit_at(now, request);
                    admitting.push(async move { (at, admit.await) });
                }
            }
        }
        admitted.extend(join_all(admitting).await);
        let (mut here, mut elsewhere) = (Vec::with_capacity(admitted.len()), Vec::new());
        let mut chosen = Vec::new();
        for (at, admitted) in admitted {
            let asked = match admitted {
                Ok(Admitted::New(order, guard)) => Asked { at, order, guard },
                Ok(Admitted::Decided(order)) => {
                    answers[at] = Some(Ok(order));
                    continue;
                }
                Err(error) => {
                    answers[at] = Some(Err(error));
                    continue;
                }
            };
            match (self.decides(&asked.order.lines), &asked.guard) {
                (false, _) => elsewhere.push(asked),
                (true, None) => here.push(asked),
                (true, Some(_)) => chosen.push(asked),
            }
        }
        // Ids of the callers' own may have an order in the queue.
        let looked = join_all(chosen.iter().map(|asked| self.chosen(&asked.order))).await;
        for (asked, looked) in chosen.into_iter().zip(looked) {
            match looked {
                Ok(Chosen::New) => here.push(asked),
                Ok(Chosen::Queued(order)) => here.push(Asked { order, ..asked }),
                Ok(Chosen::Decided(order)) => answers[asked.at] = Some(Ok(order)),
                Err(error) => answers[asked.at] = Some(Err(error)),
            }
        }
        // Who is named first goes first.
        here.sort_unstable_by_key(|asked| asked.at);
        (here, elsewhere)
    }

    /// Admits an order under an id of ours that the gate lets pass, with nothing to read or
    /// wait for; hands back any other.
    fn admit_at_once(&self, now: Timestamp, request: OrderRequest) -> Result<Order, OrderRequest> {
        let is_ours = request.id.is_none() && request.idempotency_key.is_none();
        if !is_ours || self.inbox.is_closed() || !self.gate.passes(&request.lines, now) {
            return Err(request);
        }
        let OrderRequest { buyer, lines, metadata, .. } = request;
        Ok(Order::queued(OrderId::new(), buyer, lines, now).with_metadata(metadata))
    }
}

fn message(asked: &Asked) -> (Message, Option<Arc<IdGuard>>) {
    (Message::Place(asked.order.clone()), asked.guard.clone())
}

fn all(answers: Vec<Option<Answer>>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.expect("each has one by now")).collect()
}
