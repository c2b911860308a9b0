//! The calls of an operator beside the sale: `/v1/audit`, `/v1/dead-letters` and the way
//! back for these.

use std::borrow::Cow;
use std::fmt;

use flux_core::OrderId;
use flux_core::protocol::Message;
use flux_core::seams::DeadLetter;
use flux_core::views::OrderView;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::api::call::Call;
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::response::{self, Answer};

/// `GET /v1/audit`.
pub(crate) async fn audit<B>(call: Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let _place = call.app.audit()?;
    match call.app.unless_draining(call.app.flux.audit()).await {
        Some(audit) => Ok(response::json(StatusCode::OK, &audit?)),
        None => Err(Problem::unavailable("the server stops; nothing was counted to the end")),
    }
}

/// Dead letters, as they are shown.
#[derive(Serialize, Deserialize)]
pub(crate) struct Letters<'l> {
    pub(crate) dead_letters: Vec<LetterView<'l>>,
}

/// A dead letter, as it is shown.
#[derive(Serialize, Deserialize)]
pub(crate) struct LetterView<'l> {
    buried_at: Cow<'l, str>,
    what: Cow<'l, str>,
    order_id: OrderId,
    reason: Cow<'l, str>,
    /// The order that was to be placed.
    order: Option<OrderView<'l>>,
}

impl fmt::Display for LetterView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buried_at, what, order_id, reason, order: _ } = self;
        write!(f, "{buried_at} {what} {order_id}: {reason}")
    }
}

impl<'l> From<&'l DeadLetter> for LetterView<'l> {
    fn from(letter: &'l DeadLetter) -> Self {
        Self {
            buried_at: letter.buried_at.to_string().into(),
            what: what(&letter.message).into(),
            order_id: letter.message.order_id(),
            reason: letter.reason.as_str().into(),
            order: match &letter.message {
                Message::Place(order) => Some(OrderView::from(order)),
                _ => None,
            },
        }
    }
}

/// The name of what could not be done.
fn what(message: &Message) -> &'static str {
    match message {
        Message::Place(_) => "place",
        Message::Release(_) => "release",
        Message::Cancel(_) => "cancel",
        Message::Expire(_) => "expire",
        Message::LatePayment(..) => "late_payment",
    }
}

/// `GET /v1/dead-letters`.
pub(crate) async fn dead_letters<B>(call: Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let limit = Query::of(&call.parts.uri, &["limit"])?.limit()?;
    let letters = call.app.flux.dead_letters(limit).await?;
    let dead_letters = letters.iter().map(LetterView::from).collect();
    Ok(response::json(StatusCode::OK, &Letters { dead_letters }))
}

/// The number of dead letters that were put back.
#[derive(Serialize, Deserialize)]
pub(crate) struct Redriven {
    pub(crate) redriven: usize,
}

/// `POST /v1/dead-letters/redrive`.
pub(crate) async fn redrive<B>(call: Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    body::check_coding(&call.parts.headers)?;
    let limit = Query::of(&call.parts.uri, &["limit"])?.limit()?;
    let flux = call.app.flux.clone();
    let redriven = call.app.finish(async move { flux.redrive(limit).await }).await?;
    Ok(response::json(StatusCode::OK, &Redriven { redriven }))
}
