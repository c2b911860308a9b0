//! `/v1/changes`: the change feed, by long polls or as Server-Sent Events.

use std::time::Duration;

use flux_core::ConsumerName;
use flux_core::seams::{ChangeFeed, ChangePage, Consumer, Cursor};
use flux_core::views::ChangeView;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::api::call::Call;
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::query::{Query, decode};
use crate::http::response::{self, Answer};

/// Stands for the cursor of the newest change.
const NEWEST: &str = "newest";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Serialize)]
struct Page<'c> {
    changes: Vec<ChangeView<'c>>,
    next: &'c Cursor,
}

/// `GET /v1/changes`.
pub(crate) async fn list<B>(call: Call<B>) -> Result<Answer, Problem> {
    let (app, headers) = (&call.app, &call.parts.headers);
    app.auth.operator(headers)?;
    let query = Query::of(&call.parts.uri, &["after", "limit", "wait", "consumer"])?;
    let (limit, wait) = (query.limit()?, query.wait()?);
    let feed = app.flux.feed()?;
    let after = start(&*feed, &query, headers).await?;
    if wants_events(headers) {
        // What is wrong with the cursor is said before the stream begins.
        feed.changes(after.as_ref(), 0, Duration::ZERO).await?;
        return Ok(app.hub.changes(feed, after).into_answer(app.stream()?));
    }
    let page = match app.unless_draining(feed.changes(after.as_ref(), limit, wait)).await {
        Some(page) => page?,
        // A server that stops waits for no change.
        None => feed.changes(after.as_ref(), limit, Duration::ZERO).await?,
    };
    Ok(shown(&page))
}

#[derive(Serialize)]
struct Known {
    consumers: Vec<Consumer>,
}

/// `GET /v1/changes/consumers`.
pub(crate) async fn consumers<B>(call: Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let consumers = call.app.flux.consumers().await?;
    Ok(response::json(StatusCode::OK, &Known { consumers }))
}

/// `DELETE /v1/changes/consumers/{name}`.
pub(crate) async fn forget_consumer<B>(call: Call<B>, name: &str) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    body::check_coding(&call.parts.headers)?;
    let unknown = || Problem::not_found("no consumer has that name");
    let name = decode(name).and_then(|name| ConsumerName::new(name).ok()).ok_or_else(unknown)?;
    match call.app.flux.forget_consumer(&name).await? {
        true => Ok(response::no_content()),
        false => Err(unknown()),
    }
}

fn shown(page: &ChangePage) -> Answer {
    let changes = page.changes.iter().map(ChangeView::from).collect();
    response::json(StatusCode::OK, &Page { changes, next: &page.next })
}

/// The cursor to go on after: the one that is given, else the one that is kept for the
/// consumer. One that a consumer gives is kept: it is done with all up to it.
async fn start(
    feed: &dyn ChangeFeed,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Option<Cursor>, Problem> {
    if query.get("after") == Some("") {
        return Err(Problem::invalid("after: must be a cursor of this feed"));
    }
    let last = headers.get(LAST_EVENT_ID).map(HeaderValue::to_str).transpose();
    let last = last.map_err(|_| Problem::invalid("Last-Event-ID: must be visible ASCII"))?;
    // A browser that reconnects repeats the URI, and knows better in the header.
    let given = match last.or(query.get("after")) {
        Some(NEWEST) => Some(feed.newest().await?),
        given => given.map(|cursor| Cursor(cursor.to_owned())),
    };
    let Some(name) = query.parsed::<ConsumerName>("consumer")? else { return Ok(given) };
    match given {
        Some(after) => {
            feed.keep_cursor(&Consumer::new(name, after.clone())).await?;
            Ok(Some(after))
        }
        None => Ok(feed.cursor_of(&name).await?),
    }
}

/// Whether the caller asks for Server-Sent Events.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/event-stream")
    })
}
