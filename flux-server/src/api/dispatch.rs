//! One request, from its head to its answer: what all calls have in common.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use hyper::body::Body;
use tracing::Instrument;

use super::{health, items, legacy, orders, page};
use crate::api::call::Call;
use crate::api::cors::CorsPolicy;
use crate::api::route::{self, Found, Route};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::response::{Answer, Failure};
use crate::telemetry;

/// Most bytes of a URI.
const URI_MAX: usize = 8 * 1024;
/// Most bytes of a header block.
const HEAD_MAX: usize = 16 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Answers a request. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer<B>(app: Arc<App>, peer: IpAddr, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    let asked = app.http.start();
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    // A body of unknown length is where the check for smuggling lets go.
    let last = parts.headers.contains_key(TRANSFER_ENCODING);
    let found = route::find(parts.uri.path());
    let route = found.and_then(|found| found.call(&parts.method));
    let cors = CorsPolicy::of(app.cors_origin.as_ref(), &parts, found);
    let span = telemetry::request_span(&parts, route.map_or("none", Route::name), &request_id);

    let answered = match (check_size(&parts), found, route) {
        (Err(problem), ..) => Err(problem),
        (Ok(()), Some(found), Some(route)) => {
            let id = found.id.to_owned();
            // As large as the largest of all calls; it is moved several times
            // on its way from here into hyper's hands.
            let handling = Box::pin(handle(&app, peer, route, id, parts, body));
            handling.instrument(span.clone()).await
        }
        _ => refuse(&parts, found, &cors),
    };
    let mut answer = answered.unwrap_or_else(Problem::into_answer);

    telemetry::answered(&span, answer.status());
    asked.answered(route.map(|route| route as usize), answer.status());
    let headers = answer.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    cors.allow(headers);
    if last || app.shutdown.is_draining() {
        headers.insert(CONNECTION, CLOSE);
    }
    answer
}

fn check_size(parts: &Parts) -> Result<(), Problem> {
    if parts.uri.path_and_query().map_or(0, |uri| uri.as_str().len()) > URI_MAX {
        return Err(Problem::uri_too_long(URI_MAX));
    }
    let head: usize = parts.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if head > HEAD_MAX {
        return Err(Problem::head_too_large(HEAD_MAX));
    }
    Ok(())
}

fn refuse(parts: &Parts, found: Option<Found<'_>>, cors: &CorsPolicy) -> Result<Answer, Problem> {
    let Some(found) = found else { return Err(Problem::not_found("there is no such path")) };
    let allowed = found.allowed();
    let asks_first = parts.method == Method::OPTIONS;
    match asks_first.then(|| cors.preflight(&allowed)).flatten() {
        Some(answer) => Ok(answer),
        None => Err(Problem::method_not_allowed(allowed)),
    }
}

async fn handle<B>(
    app: &Arc<App>,
    peer: IpAddr,
    route: Route,
    id: String,
    parts: Parts,
    body: B,
) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    // Operations ask without it: no limit keeps them from an answer.
    let call = || {
        if app.operations_only {
            let detail = "this is a worker; it answers /healthz, /readyz and /metrics";
            return Err(Problem::not_found(detail));
        }
        app.limits.peer(peer)?;
        Ok(Call { app: app.request()?, peer, parts, body })
    };
    match route {
        Route::Healthz => Ok(health::alive()),
        Route::Readyz => health::ready(app).await,
        Route::Metrics => Ok(health::metrics(app).await),
        Route::PlaceOrder => orders::place(call()?).await,
        Route::ListOrders => orders::list(call()?).await,
        Route::GetOrder => orders::get(call()?, &id).await,
        Route::ConfirmOrder => orders::confirm(call()?, &id).await,
        Route::ReleaseOrder => orders::release(call()?, &id).await,
        Route::CancelOrder => orders::cancel(call()?, &id).await,
        Route::PutItem => items::put(call()?, &id).await,
        Route::ListItems => items::list(call()?).await,
        Route::GetItem => items::get(call()?, &id).await,
        Route::GetSeats => items::seats(call()?, &id).await,
        Route::Events => items::events(call()?).await,
        Route::Buy => legacy::buy(call()?).await,
        Route::Inventory => legacy::inventory(call()?).await,
        Route::OpenApi => call().map(|_| page::open_api()),
        Route::Page => call().map(|_| page::page()),
        Route::Pulse => page::pulse(&call()?.app),
    }
}

/// The caller's id for this request if it is a decent one, else one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(REQUEST_ID)
        && (1..=128).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return id.clone();
    }
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u64> = LazyLock::new(|| uuid::Uuid::now_v7().as_u64_pair().1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:016x}-{count:x}", *PROCESS);
    HeaderValue::try_from(id).expect("hexadecimal digits are a header's value")
}
