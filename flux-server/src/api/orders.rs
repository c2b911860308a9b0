//! `/v1/orders`.

use std::time::Duration;

use bytes::Bytes;
use flux_core::seams::{Cursor, OrderFilter, SeamError};
use flux_core::views::OrderView;
use flux_core::{Error, IdempotencyKey, Money, Order, OrderId, OrderRequest, OrderStatus, Role};
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use hyper::body::Body;
use serde::Serialize;
use tracing::debug;

use crate::api::archives::or_archived;
use crate::api::call::Call;
use crate::app::App;
use crate::auth::Caller;
use crate::http::problem::Problem;
use crate::http::query::{Query, decode};
use crate::http::requests::{ConfirmBody, PlaceBody, RefundBody, read};
use crate::http::response::{self, Answer, Failure};
use crate::http::{body, cursor, prefer};

/// Longest wait for an order to be decided that is to be released.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /v1/orders`.
pub(crate) async fn place<B>(call: Call<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    let caller = call.app.auth.buyer(&call.parts.headers)?;
    let (app, parts, body) = call.body().await?;
    let body: PlaceBody = read(&body).map_err(|wrong| caller.judge(&body, wrong))?;
    caller.acts_for(&body.buyer_id)?;
    let request = body.request()?;
    app.limits.buyer(&request.buyer)?;
    let request = request.with_idempotency_key(idempotency_key(&parts.headers)?);
    refuse_while_draining(&app)?;
    let wait = prefer::wait(&parts.headers);
    let placed = match wait {
        Some(longest) if app.role == Role::AcceptOnly => accept(&app, request, longest).await,
        Some(longest) => app.flux.place_within(request, longest).await,
        None => app.flux.submit(request).await,
    };
    let order = placed.inspect_err(|error| app.note(error))?;
    let mut answer = match order.status() {
        OrderStatus::Queued => with_location(StatusCode::ACCEPTED, &order),
        OrderStatus::Rejected => Problem::rejected(order).into_answer(),
        _ => with_location(StatusCode::CREATED, &order),
    };
    say_what_was_preferred(&mut answer, wait);
    Ok(answer)
}

/// Places an order that is decided elsewhere, as `place_within` does; but a server
/// that stops does not wait for it.
pub(crate) async fn accept(
    app: &App,
    request: OrderRequest,
    longest: Duration,
) -> Result<Order, Error> {
    let accepted = app.flux.submit(request).await?;
    if accepted.status() != OrderStatus::Queued {
        return Ok(accepted);
    }
    match app.unless_draining(app.flux.wait(accepted.id, longest)).await {
        Some(Ok(order)) if !order.asks_the_same_as(&accepted) => Err(Error::IdReused(order.id)),
        Some(Ok(order)) => Ok(order),
        Some(Err(error)) => {
            debug!(%error, "an order is accepted and could not be waited for");
            Ok(accepted)
        }
        None => Ok(accepted),
    }
}

/// `GET /v1/orders/{id}`.
pub(crate) async fn get<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    let caller = call.app.auth.buyer_or_operator(&call.parts.headers)?;
    let id = id_to_read(id)?;
    let (app, wait) = (&call.app, prefer::wait(&call.parts.headers));
    let mut order = match shown_to(&caller, id, app.flux.order(id).await?) {
        Ok(order) => order,
        Err(error) => return Err(or_archived(&app.flux, error).await),
    };
    if let Some(longest) = wait
        && order.status() == OrderStatus::Queued
        && let Some(waited) = app.unless_draining(app.flux.wait(id, longest)).await
    {
        order = shown_to(&caller, id, Some(waited?))?;
    }
    let mut answer = response::json(StatusCode::OK, &OrderView::from(&order));
    say_what_was_preferred(&mut answer, wait);
    Ok(answer)
}

/// `POST /v1/orders/{id}/confirm`.
pub(crate) async fn confirm<B>(call: Call<B>, id: &str) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    call.app.auth.operator(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let (app, _, body) = call.body().await?;
    let ConfirmBody { payment_ref } = read(&body)?;
    let flux = app.flux.clone();
    // Money that came is ruled on, whoever hangs up.
    let order = app.finish(async move { flux.confirm(id, payment_ref).await }).await?;
    Ok(response::json(StatusCode::OK, &OrderView::from(&order)))
}

/// `POST /v1/orders/{id}/release`.
pub(crate) async fn release<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    let caller = call.app.auth.buyer_or_operator(&call.parts.headers)?;
    body::check_coding(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let flux = call.app.flux.clone();
    if let Caller::Buyer(_) = caller {
        let mut order = shown_to(&caller, id, flux.order(id).await?)?;
        if order.status() == OrderStatus::Queued {
            order = shown_to(&caller, id, Some(flux.wait(id, DECIDED_WITHIN).await?))?;
        }
        if order.status() == OrderStatus::Queued {
            return Err(Error::OutcomePending(id).into());
        }
    }
    let order = call.app.finish(async move { flux.release(id).await }).await?;
    Ok(response::json(StatusCode::OK, &OrderView::from(&order)))
}

/// `POST /v1/orders/{id}/cancel`.
pub(crate) async fn cancel<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    body::check_coding(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let flux = call.app.flux.clone();
    let order = call.app.finish(async move { flux.cancel(id).await }).await?;
    Ok(response::json(StatusCode::OK, &OrderView::from(&order)))
}

/// `POST /v1/orders/{id}/refunded`.
pub(crate) async fn refunded<B>(call: Call<B>, id: &str) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    call.app.auth.operator(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let (app, _, body) = call.body().await?;
    let RefundBody { refund_ref } = read(&body)?;
    let flux = app.flux.clone();
    let order = app.finish(async move { flux.refunded(id, refund_ref).await }).await?;
    Ok(response::json(StatusCode::OK, &OrderView::from(&order)))
}

#[derive(Serialize)]
struct Page<'o> {
    orders: Vec<OrderView<'o>>,
    next_cursor: Option<String>,
}

const LIST: &str = "orders";

/// `GET /v1/orders`.
pub(crate) async fn list<B>(call: Call<B>) -> Result<Answer, Problem> {
    let caller = call.app.auth.operator_or_buyer(&call.parts.headers)?;
    let known = ["buyer_id", "item_id", "status", "owed", "limit", "cursor"];
    let query = Query::of(&call.parts.uri, &known)?;
    let money = match query.get("owed") {
        None => None,
        Some("true") => Some(Money::Owed),
        Some(_) => return Err(Problem::invalid("owed: must be true, or left out")),
    };
    let mut filter = OrderFilter::builder()
        .maybe_buyer(query.parsed("buyer_id")?)
        .maybe_item(query.parsed("item_id")?)
        .maybe_status(query.parsed("status")?)
        .maybe_money(money)
        .build();
    if let Caller::Buyer(own) = &caller {
        caller.acts_for(filter.buyer.get_or_insert_with(|| own.clone()))?;
    }
    let after = query.get("cursor").map(|text| cursor::decode(LIST, text)).transpose()?;
    let after = after.map(Cursor);
    let listed = call.app.flux.orders(&filter, after.as_ref(), query.limit()?).await;
    let page = listed.map_err(|error| match error {
        // It passed our own check, and is still not one of this store.
        Error::Backend(SeamError::UnknownCursor { .. }) => cursor::wrong().into(),
        error => Problem::from(error),
    })?;
    let page = Page {
        orders: page.orders.iter().map(OrderView::from).collect(),
        next_cursor: page.next.map(|Cursor(position)| cursor::encode(LIST, &position)),
    };
    Ok(response::json(StatusCode::OK, &page))
}

/// The order, if the caller may see it. To be asked again once it is decided: of two
/// buyers who chose one id, with processes that do not know of each other, each sees an
/// order of its own until one of them has it.
fn shown_to(caller: &Caller, id: OrderId, order: Option<Order>) -> Result<Order, Error> {
    order.filter(|order| caller.may_see(order)).ok_or(Error::NotFound(id))
}

/// The order's id, for a call that reads.
fn id_to_read(text: &str) -> Result<OrderId, Problem> {
    id_to_change(text).map_err(|_| Problem::not_found("no order has such an id"))
}

/// The order's id, for a call that changes it.
fn id_to_change(text: &str) -> Result<OrderId, Problem> {
    let text = decode(text).ok_or_else(|| Problem::invalid("order_id: is not percent-encoded"))?;
    Ok(text.parse()?)
}

/// The header `Idempotency-Key`, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = keys.next().map(HeaderValue::to_str).transpose();
    match (key, keys.next()) {
        (Ok(key), None) => Ok(key.map(IdempotencyKey::new).transpose()?),
        _ => {
            Err(Problem::invalid("Idempotency-Key: must be one value of visible ASCII characters"))
        }
    }
}

/// Refuses what would be a new order once the server stops.
pub(crate) fn refuse_while_draining(app: &App) -> Result<(), Problem> {
    match app.shutdown.is_draining() {
        true => Err(Problem::unavailable("the server is stopping; nothing was accepted")),
        false => Ok(()),
    }
}

fn with_location(status: StatusCode, order: &Order) -> Answer {
    let mut answer = response::json(status, &OrderView::from(order));
    let mut location = *b"/v1/orders/00000000-0000-0000-0000-000000000000";
    order.id.as_uuid().hyphenated().encode_lower(&mut location[11..]);
    let location = HeaderValue::from_bytes(&location).expect("a UUID is a header's value");
    answer.headers_mut().insert(LOCATION, location);
    answer
}

pub(crate) fn say_what_was_preferred(answer: &mut Answer, wait: Option<Duration>) {
    if let Some(wait) = wait {
        let applied = format!("wait={}", wait.as_secs());
        let applied = HeaderValue::try_from(applied).expect("digits are a header's value");
        answer.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
}
