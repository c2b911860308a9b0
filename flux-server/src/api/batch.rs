//! `/v1/orders/batch`: many orders in one request, each answered as it would be alone.

use std::time::Duration;

use bytes::Bytes;
use flux_core::views::OrderView;
use flux_core::{Error, Order, OrderRequest, OrderStatus, Role};
use futures_util::future::join_all;
use http::StatusCode;
use hyper::body::Body;
use serde::{Serialize, Serializer};

use crate::api::call::Call;
use crate::api::orders::{accept, idempotency_key, refuse_while_draining, say_what_was_preferred};
use crate::app::App;
use crate::auth::Caller;
use crate::http::prefer;
use crate::http::problem::Problem;
use crate::http::requests::{BatchBody, ORDERS_PER_BATCH_MAX, PlaceBody, read};
use crate::http::response::{self, Answer, Failure};

/// Most bytes of a batch: each order has some 2 KiB, which metadata may fill.
const BATCH_BODY_MAX: usize = 1024 * 1024;

#[derive(Serialize)]
struct Answers {
    results: Vec<Answered>,
}

/// What a request with this order alone would have been answered.
enum Answered {
    Order(Order),
    Problem(Problem),
}

#[derive(Serialize)]
struct Shown<P: Serialize> {
    status: u16,
    #[serde(flatten)]
    what: P,
}

#[derive(Serialize)]
struct ShownOrder<'o> {
    order: OrderView<'o>,
}

impl Serialize for Answered {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Order(order) => {
                let status = match order.status() {
                    OrderStatus::Queued => StatusCode::ACCEPTED,
                    _ => StatusCode::CREATED,
                };
                let what = ShownOrder { order: OrderView::from(order) };
                Shown { status: status.as_u16(), what }.serialize(to)
            }
            Self::Problem(problem) => {
                Shown { status: problem.status().as_u16(), what: problem.in_a_batch() }
                    .serialize(to)
            }
        }
    }
}

/// `POST /v1/orders/batch`.
pub(crate) async fn place<B>(call: Call<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    let caller = call.app.auth.buyer(&call.parts.headers)?;
    // Until the answer: the orders that are made of the body take as much.
    let _place = call.app.batch()?;
    let (app, parts, body) = call.body_of_at_most(BATCH_BODY_MAX).await?;
    if idempotency_key(&parts.headers)?.is_some() {
        return Err(Problem::invalid(
            "Idempotency-Key: stands for one order; give each of a batch an order_id",
        ));
    }
    let BatchBody { orders } = read(&body)?;
    if orders.is_empty() || orders.len() > ORDERS_PER_BATCH_MAX {
        let rule = format!("orders: must be 1 to {ORDERS_PER_BATCH_MAX}, were {}", orders.len());
        return Err(Problem::invalid(rule));
    }
    refuse_while_draining(&app)?;
    let wait = prefer::wait(&parts.headers);
    let asked = orders.iter().enumerate().map(|(at, order)| {
        // The request itself was counted as the first.
        if at > 0 {
            app.count_another()?;
        }
        request(&app, &caller, order.get().as_bytes())
    });
    let asked: Vec<Result<OrderRequest, Problem>> = asked.collect();
    let requests = asked.iter().flatten().cloned().collect();
    let mut placed = decide(&app, requests, wait).await.into_iter();
    let results = asked.into_iter().map(|asked| match asked {
        Err(problem) => Answered::Problem(problem),
        Ok(_) => match placed.next().expect("one for each that was asked") {
            Ok(order) if order.status() == OrderStatus::Rejected => {
                Answered::Problem(Problem::rejected(order))
            }
            Ok(order) => Answered::Order(order),
            Err(error) => {
                app.note(&error);
                Answered::Problem(error.into())
            }
        },
    });
    let mut answer = response::json(StatusCode::OK, &Answers { results: results.collect() });
    say_what_was_preferred(&mut answer, wait);
    Ok(answer)
}

fn request(app: &App, caller: &Caller, body: &[u8]) -> Result<OrderRequest, Problem> {
    let body: PlaceBody = read(body).map_err(|wrong| caller.judge(body, wrong))?;
    caller.acts_for(&body.buyer_id)?;
    let request = body.request()?;
    app.limits.buyer(&request.buyer)?;
    Ok(request)
}

async fn decide(
    app: &App,
    requests: Vec<OrderRequest>,
    wait: Option<Duration>,
) -> Vec<Result<Order, Error>> {
    match wait {
        Some(longest) if app.role == Role::AcceptOnly => {
            join_all(requests.into_iter().map(|request| accept(app, request, longest))).await
        }
        wait => app.flux.place_all_within(requests, wait.unwrap_or_default()).await,
    }
}
