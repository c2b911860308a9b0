//! One request, from its head to its answer: what all calls have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, EXPECT, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use tracing::Instrument;

use super::{
    admin, archives, backup, batch, changes, health, items, legacy, orders, page, webhooks,
};
use crate::api::call::Call;
use crate::api::cors::CorsPolicy;
use crate::api::door::Door;
use crate::api::route::{self, Found, Route};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::response::{Answer, Failure};
use crate::http::{body, head};
use crate::limit::Peer;
use crate::telemetry;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const A_SECOND: HeaderValue = HeaderValue::from_static("public, max-age=1");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Answers a request of `peer`'s. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer<B>(app: Arc<App>, door: Door, peer: Peer, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Failure>,
{
    let asked = app.http.start();
    let (parts, mut body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    // A body of unknown length is where the check for smuggling lets go.
    let last = parts.headers.contains_key(TRANSFER_ENCODING);
    // Who waits to be asked for a body that nobody wants may send it, or not.
    let unsure = parts.headers.contains_key(EXPECT);
    let found = route::find(parts.uri.path());
    let route = found.and_then(|found| found.call(&parts.method));
    let is_private = route::is_private(parts.uri.path());
    let cors = CorsPolicy::of(&app.cors_origins, &parts, found);
    let span = telemetry::request_span(&parts, route.map_or("none", Route::name), &request_id);

    let refused = head::check(&parts).and_then(|()| door.check(found, app.ops_apart));
    let answered = match (refused, found, route) {
        (Err(problem), ..) => Err(problem),
        (Ok(()), Some(found), Some(route)) => {
            let id = found.id.to_owned();
            // As large as the largest of all calls; it is moved several times
            // on its way from here into hyper's hands.
            let handling = Box::pin(handle(&app, peer, route, id, parts, &mut body));
            handling.instrument(span.clone()).await
        }
        _ => refuse(&parts, found, &cors),
    };
    let mut answer = answered.unwrap_or_else(Problem::into_answer);

    telemetry::answered(&span, answer.status());
    asked.answered(route.map(|route| route as usize), answer.status());
    let status = answer.status();
    let headers = answer.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    if is_private {
        let kept = status == StatusCode::OK && route.is_some_and(Route::is_for_caches);
        headers.insert(CACHE_CONTROL, if kept { A_SECOND } else { NO_STORE });
    }
    cors.allow(headers);
    let closes = last
        || headers.contains_key(CONNECTION)
        || door == Door::TurnedAway
        || app.shutdown.is_draining();
    // The next request begins where this one's body ends, read by a call or not.
    match body.size_hint().exact() {
        _ if closes => headers.insert(CONNECTION, CLOSE),
        Some(0) => None,
        Some(unread) if unread <= body::BODY_MAX as u64 && !unsure => {
            tokio::spawn(read_on(app, body));
            None
        }
        _ => headers.insert(CONNECTION, CLOSE),
    };
    answer
}

/// Reads what is left of a body after the answer, so that the connection can be kept. It
/// holds no permit, and ends with the connection at the latest.
async fn read_on<B: Body + Unpin>(app: Arc<App>, mut body: B) {
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    tokio::select! {
        _ = tokio::time::timeout(app.bounds.body, reading) => {}
        () = app.shutdown.closing() => {}
    }
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
    peer: Peer,
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
        let asking = app.peers.asking(peer, &parts.headers);
        app.limits.peer(&asking)?;
        Ok(Call { app: app.request(asking)?, parts, body })
    };
    match route {
        Route::Healthz => health::alive(app),
        Route::Readyz => health::ready(app).await,
        Route::Metrics => health::metrics(app).await,
        Route::PlaceOrder => orders::place(call()?).await,
        Route::PlaceBatch => batch::place(call()?).await,
        Route::ListOrders => orders::list(call()?).await,
        Route::GetOrder => orders::get(call()?, &id).await,
        Route::ConfirmOrder => orders::confirm(call()?, &id).await,
        Route::ReleaseOrder => orders::release(call()?, &id).await,
        Route::CancelOrder => orders::cancel(call()?, &id).await,
        Route::RefundOrder => orders::refunded(call()?, &id).await,
        Route::PutItem => items::put(call()?, &id).await,
        Route::ListItems => items::list(call()?).await,
        Route::GetItem => items::get(call()?, &id).await,
        Route::GetSeats => items::seats(call()?, &id).await,
        Route::Events => items::events(call()?).await,
        Route::Consumers => changes::consumers(call()?).await,
        Route::ForgetConsumer => changes::forget_consumer(call()?, &id).await,
        Route::Changes => changes::list(call()?).await,
        Route::Webhooks => webhooks::list(&call()?),
        Route::GivenUp => webhooks::given_up(call()?, &id).await,
        Route::Resend => webhooks::resend(call()?, &id).await,
        Route::Backup => backup::get(call()?).await,
        Route::Audit => admin::audit(call()?).await,
        Route::DeadLetters => admin::dead_letters(call()?).await,
        Route::Redrive => admin::redrive(call()?).await,
        Route::Archive => archives::make(call()?).await,
        Route::DeleteItem => items::delete(call()?, &id).await,
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
