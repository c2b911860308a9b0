//! `/v1/webhooks`: how they stand, what was given up, and sending that again.

use flux_core::Timestamp;
use http::StatusCode;
use serde::Serialize;

use crate::api::call::Call;
use crate::http::cursor;
use crate::http::problem::Problem;
use crate::http::query::{Query, decode};
use crate::http::response::{self, Answer};
use crate::webhooks::{GivenUp, Subject, Webhook};

#[derive(Serialize)]
struct List<'w> {
    webhooks: Vec<Shown<'w>>,
}

#[derive(Serialize)]
struct Shown<'w> {
    name: &'w str,
    origin: &'w str,
    waiting: usize,
    oldest_at: Option<String>,
    given_up: usize,
    error: Option<String>,
}

#[derive(Serialize)]
struct Page {
    messages: Vec<Message>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Message {
    id: String,
    r#type: String,
    #[serde(flatten)]
    subject: Subject,
    at: String,
    attempts: u32,
    given_up_at: String,
    error: String,
}

#[derive(Serialize)]
struct Resent {
    resent: usize,
}

/// `GET /v1/webhooks`.
pub(crate) fn list<B>(call: &Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let webhooks = call.app.webhooks.iter().map(|webhook| {
        let standing = webhook.standing();
        Shown {
            name: &webhook.name,
            origin: &webhook.origin,
            waiting: standing.waiting,
            oldest_at: standing.oldest.as_ref().map(Timestamp::to_string),
            given_up: standing.given_up,
            error: standing.error,
        }
    });
    Ok(response::json(StatusCode::OK, &List { webhooks: webhooks.collect() }))
}

/// `GET /v1/webhooks/{name}/given-up`.
pub(crate) async fn given_up<B>(call: Call<B>, name: &str) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let query = Query::of(&call.parts.uri, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let webhook = known(&call, name)?;
    let from = match query.get("cursor") {
        None => 0,
        Some(given) => {
            cursor::decode(&webhook.name, given)?.parse().map_err(|_| cursor::wrong())?
        }
    };
    let mut found = webhook.given_up(from, limit + 1).await.map_err(|error| failed(&error))?;
    let next = (found.len() > limit).then(|| found.pop()).flatten();
    let next_cursor = next.map(|next| cursor::encode(&webhook.name, &next.number.to_string()));
    let messages = found.into_iter().map(shown).collect();
    Ok(response::json(StatusCode::OK, &Page { messages, next_cursor }))
}

/// `POST /v1/webhooks/{name}/resend`.
pub(crate) async fn resend<B>(call: Call<B>, name: &str) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let query = Query::of(&call.parts.uri, &["id"])?;
    let id = query.get("id").map(str::to_owned);
    let one = id.is_some();
    let resent = known(&call, name)?.resend(id).await.map_err(|error| failed(&error))?;
    if one && resent == 0 {
        return Err(Problem::not_found("no message of this id was given up"));
    }
    Ok(response::json(StatusCode::OK, &Resent { resent }))
}

fn known<'c, B>(call: &'c Call<B>, name: &str) -> Result<&'c Webhook, Problem> {
    let name = decode(name).unwrap_or_default();
    let mut all = call.app.webhooks.iter();
    all.find(|webhook| webhook.name == name)
        .ok_or_else(|| Problem::not_found("there is no webhook of this name"))
}

fn shown(message: GivenUp) -> Message {
    Message {
        id: message.id,
        r#type: message.kind,
        subject: message.subject,
        at: message.at.to_string(),
        attempts: message.attempts,
        given_up_at: message.given_up_at.to_string(),
        error: message.error,
    }
}

fn failed(error: &anyhow::Error) -> Problem {
    tracing::warn!(error = format!("{error:#}"), "messages that were given up can't be had");
    Problem::unavailable("messages that were given up can't be had now; nothing was done")
}
