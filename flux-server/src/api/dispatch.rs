//! One request, from its head to its answer: what all calls have in common.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONNECTION, TRANSFER_ENCODING, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body;
use tracing::Instrument;

use super::{health, items, legacy, orders};
use crate::api::route::{self, Found, Route};
use crate::app::{App, RequestPermit};
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::response::{self, Answer, Failure};
use crate::telemetry;

/// Most bytes of a URI.
const URI_MAX: usize = 8 * 1024;
/// Most bytes of a header block.
const HEAD_MAX: usize = 16 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, prefer, x-request-id");
const EXPOSE_HEADERS: HeaderValue =
    HeaderValue::from_static("location, preference-applied, retry-after, x-request-id");
const A_DAY: HeaderValue = HeaderValue::from_static("86400");
const ANY: HeaderValue = HeaderValue::from_static("*");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// One call on its way to its handler.
pub(crate) struct Call<B> {
    /// The server, and a place there.
    pub(crate) app: RequestPermit,
    /// Who asks, as far as the network knows.
    pub(crate) peer: IpAddr,
    /// The head.
    pub(crate) parts: Parts,
    body: B,
}

impl<B> Call<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    /// The JSON body.
    pub(crate) fn body(
        self,
    ) -> impl Future<Output = Result<(RequestPermit, Parts, Bytes), Problem>> {
        self.body_of_at_most(body::BODY_MAX)
    }

    /// The JSON body, of at most so many bytes.
    pub(crate) async fn body_of_at_most(
        self,
        bytes_max: usize,
    ) -> Result<(RequestPermit, Parts, Bytes), Problem> {
        let Self { app, parts, body, .. } = self;
        let read = body::read(&parts.headers, body, bytes_max, app.bounds.body).await?;
        Ok((app, parts, read))
    }
}

/// Answers a request. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer<B>(
    app: Arc<App>,
    peer: IpAddr,
    request: Request<B>,
) -> Result<Answer, Infallible>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    let asked = app.http.start();
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    // A body of unknown length is where the framing check lets go.
    let last = parts.headers.contains_key(TRANSFER_ENCODING);
    let found = route::find(parts.uri.path());
    let route = found.and_then(|found| found.call(&parts.method));
    let cors = CorsPolicy::of(&app, &parts, found);
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
    if last || app.is_draining() {
        headers.insert(CONNECTION, CLOSE);
    }
    Ok(answer)
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
    if parts.method == Method::OPTIONS && cors.is_allowed() {
        let mut answer = Response::new(response::body(Bytes::new()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let allowed = found.allowed().parse().expect("methods are a header's value");
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allowed);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, A_DAY);
        return Ok(answer);
    }
    Err(Problem::method_not_allowed(found.allowed()))
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
    if route.is_for_operations() {
        return health::answer(app, route).await;
    }
    if app.operations_only {
        return Err(Problem::not_found(
            "this is a worker; it answers /healthz, /readyz and /metrics",
        ));
    }
    app.limits.peer(peer)?;
    let call = Call { app: app.request()?, peer, parts, body };
    match route {
        Route::PlaceOrder => orders::place(call).await,
        Route::ListOrders => orders::list(call).await,
        Route::GetOrder => orders::get(call, &id).await,
        Route::ConfirmOrder => orders::confirm(call, &id).await,
        Route::ReleaseOrder => orders::release(call, &id).await,
        Route::CancelOrder => orders::cancel(call, &id).await,
        Route::PutItem => items::put(call, &id).await,
        Route::ListItems => items::list(call).await,
        Route::GetItem => items::get(call, &id).await,
        Route::GetSeats => items::seats(call, &id).await,
        Route::Events => items::events(call).await,
        Route::Buy => legacy::buy(call).await,
        Route::Inventory => legacy::inventory(call).await,
        _ => health::answer(&call.app, route).await,
    }
}

/// What a browser is told about pages of other origins.
enum CorsPolicy {
    /// Nothing.
    No,
    /// Any page may call, as in the first system.
    Legacy,
    /// Pages of this origin may call.
    Of(HeaderValue),
}

impl CorsPolicy {
    fn of(app: &App, parts: &Parts, found: Option<Found<'_>>) -> Self {
        let first = |found: Found<'_>| found.calls.iter().any(|r| r.is_legacy());
        match &app.cors_origin {
            _ if found.is_some_and(first) => Self::Legacy,
            Some(origin) if parts.uri.path().starts_with("/v1/") => Self::Of(origin.clone()),
            _ => Self::No,
        }
    }

    fn is_allowed(&self) -> bool {
        !matches!(self, Self::No)
    }

    fn allow(self, headers: &mut HeaderMap) {
        match self {
            Self::No => {}
            Self::Legacy => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            }
            Self::Of(origin) => {
                if origin != ANY {
                    headers.insert(VARY, HeaderValue::from_static("origin"));
                }
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
            }
        }
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
