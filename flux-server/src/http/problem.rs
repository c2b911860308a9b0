//! Problems, the answers that no caller hoped for: RFC 9457, one
//! constructor for each problem type of the contract.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flux_core::seams::SeamError;
use flux_core::views::OrderView;
use flux_core::{Error, InvalidInput, Order, PutItemError, Reason, SEATS_PER_HALL_MAX};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};

use crate::http::response::{self, Answer};

/// An answer that is not what the caller asked for.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: Cow<'static, str>,
    detail: Cow<'static, str>,
    order: Option<Box<Order>>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    coded: bool,
    closes: bool,
}

/// Its JSON.
#[derive(Serialize)]
struct Shown<'p> {
    r#type: Type<'p>,
    title: Title<'p>,
    status: u16,
    detail: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<OrderView<'p>>,
}

/// Its JSON among others.
#[derive(Serialize)]
struct InABatch<'p> {
    problem: Shown<'p>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// Time after which to come back, unless the problem has its own.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

impl Problem {
    fn new(
        status: StatusCode,
        kind: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind: kind.into(),
            detail: detail.into(),
            order: None,
            retry_after: None,
            allow: None,
            coded: false,
            closes: false,
        }
    }

    /// A field is missing, unknown, malformed or out of range; `detail` names it.
    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    /// No token, or one that proves nothing.
    pub(crate) fn unauthorized(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The caller is known and may not.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// No such item, order or path.
    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The path exists, the method does not.
    pub(crate) fn method_not_allowed(allow: String) -> Self {
        let detail = format!("this path takes {allow}");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
        Self { allow: Some(allow), ..problem }
    }

    /// More bytes than a body may have.
    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let detail = format!("the body may have at most {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
    }

    /// More bytes than an item may have. Most of a large one are its seats' names.
    pub(crate) fn item_too_large(bytes_max: usize) -> Self {
        // A name has quotes and a comma.
        let name = bytes_max / SEATS_PER_HALL_MAX - 3;
        let detail = format!(
            "the body may have at most {bytes_max} bytes, as {SEATS_PER_HALL_MAX} seats with names \
             of {name} bytes have; --item-body-max allows more, and --catalog has no such bound"
        );
        Self { detail: detail.into(), ..Self::body_too_large(bytes_max) }
    }

    /// Another content type, or none.
    pub(crate) fn not_json() -> Self {
        let detail = "send the header Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail)
    }

    /// A body that is compressed, or coded in another way.
    pub(crate) fn coded() -> Self {
        let detail = "send the body as it is, without the header Content-Encoding";
        Self { coded: true, ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail) }
    }

    /// The header block exceeds its bound.
    pub(crate) fn head_too_large(bytes_max: usize) -> Self {
        let detail = format!("the header block may have at most {bytes_max} bytes");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self { closes: true, ..Self::new(status, "header-too-large", detail) }
    }

    /// The URI exceeds its bound.
    pub(crate) fn uri_too_long(bytes_max: usize) -> Self {
        let detail = format!("the URI may have at most {bytes_max} bytes");
        Self { closes: true, ..Self::new(StatusCode::URI_TOO_LONG, "uri-too-long", detail) }
    }

    /// The body did not come in time.
    pub(crate) fn timed_out() -> Self {
        let detail = "the body did not arrive in time";
        let problem = Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail);
        Self { closes: true, ..problem }
    }

    /// One buyer or peer asks too often.
    pub(crate) fn too_many_requests(detail: &'static str, retry_after: Duration) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// Not now; nothing was accepted.
    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        Self { retry_after: Some(RETRY_AFTER_DEFAULT), ..problem }
    }

    /// The connection is one too many.
    pub(crate) fn too_many_connections() -> Self {
        let problem = Self::unavailable("too many connections; nothing was accepted");
        Self { closes: true, ..problem }
    }

    /// A pool has no seats to show.
    pub(crate) fn no_seats(detail: String) -> Self {
        Self::new(StatusCode::CONFLICT, "not-seated", detail)
    }

    /// It failed and may have taken effect.
    pub(crate) fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Self { retry_after: Some(RETRY_AFTER_DEFAULT), ..problem }
    }

    /// The order was decided, against the buyer.
    pub(crate) fn rejected(order: Order) -> Self {
        let (kind, detail) = match order.reason() {
            Some(reason) => (reason.as_str().replace('_', "-").into(), turned_down(reason)),
            None => (Cow::Borrowed("rejected"), TURNED_DOWN),
        };
        let failed = order.failed_line.and_then(|line| order.lines.get(usize::from(line)));
        let detail: Cow<'_, str> = match failed {
            Some(line) if order.lines.len() > 1 => format!("{}: {detail}", line.item).into(),
            _ => detail.into(),
        };
        Self::conflict(kind, detail).about(order)
    }

    fn conflict(kind: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, detail)
    }

    fn about(self, order: impl Into<Box<Order>>) -> Self {
        Self { order: Some(order.into()), ..self }
    }

    /// Its text for a person.
    #[must_use]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Its status.
    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that go with it.
    fn headers(&self, answer: &mut Answer) {
        let headers = answer.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow.as_ref().and_then(|allow| allow.parse().ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.coded {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The problem as a member of an answer to several orders, with what its headers would
    /// have said.
    pub(crate) fn in_a_batch(&self) -> impl Serialize + '_ {
        InABatch { problem: self.shown(), retry_after: self.retry_after_seconds() }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_secs_f64().ceil().max(1.0) as u64)
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            r#type: Type(&self.kind),
            title: Title(&self.kind),
            status: self.status.as_u16(),
            detail: &self.detail,
            order: self.order.as_deref().map(OrderView::from),
        }
    }

    /// The problem as the contract writes it.
    #[must_use]
    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = response::json(self.status, &self.shown());
        let problem = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(CONTENT_TYPE, problem);
        self.headers(&mut answer);
        answer
    }
}

const GONE: &str = "changes behind this one are kept no more: take a cursor by after=newest, list \
                    the orders and items, and go on after it";
const TOO_MANY_CONSUMERS: &str = "the cursors of 100 consumers are kept already: see them by GET \
                                  /v1/changes/consumers, and DELETE one that is gone";
const UNKNOWN_CURSOR: &str = "after: must be a cursor of this feed";

const TURNED_DOWN: &str = "the order was turned down";

/// The reason of a rejection, for a person.
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
fn turned_down(reason: Reason) -> &'static str {
    match reason {
        Reason::SoldOut => "fewer units are left than were asked for",
        Reason::SeatTaken => "a seat that was asked for is taken",
        Reason::BuyerLimit => {
            "the buyer would have more than one buyer may, or may not hold this again so soon"
        }
        Reason::NotOpen => "the sale is not open yet",
        Reason::Closed => "the sale is closed",
        Reason::UnknownItem => TURNED_DOWN,
        _ => TURNED_DOWN,
    }
}

/// "sold-out" is "/problems/sold-out".
struct Type<'k>(&'k str);

/// "sold-out" is "Sold out".
struct Title<'k>(&'k str);

impl Serialize for Type<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("/problems/{}", self.0))
    }
}

impl Serialize for Title<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in self.0.chars().enumerate() {
            match letter {
                '-' => f.write_char(' ')?,
                _ if at == 0 => f.write_char(letter.to_ascii_uppercase())?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

impl From<InvalidInput> for Problem {
    fn from(wrong: InvalidInput) -> Self {
        Self::invalid(wrong.to_string())
    }
}

// The wildcards stand for members to come: clippy refuses those that stand for one
// that exists.
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::Invalid(_) => Self::invalid(detail),
            Error::UnknownItem(_) | Error::NotFound(_) | Error::NoFeed | Error::NothingLeaves => {
                Self::not_found(detail)
            }
            Error::SoldOut(_) => Self::conflict("sold-out", detail),
            Error::NotOpen(_) => Self::conflict("not-open", detail),
            Error::Closed(_) => Self::conflict("closed", detail),
            Error::IdReused(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "order-id-reused", detail)
            }
            Error::NotHeld(order) => Self::conflict("not-held", detail).about(order),
            // The contract has one problem for both.
            Error::AlreadyPaid(order) => Error::NotHeld(order).into(),
            Error::NotConfirmed(order) => Self::conflict("not-confirmed", detail).about(order),
            Error::RefundDue(order) => Self::conflict("refund-due", detail).about(order),
            Error::NotOwed(order) => Self::conflict("not-owed", detail).about(order),
            Error::AlreadyRefunded(order) => {
                Self::conflict("already-refunded", detail).about(order)
            }
            Error::PutItem(refused) => match refused {
                PutItemError::CapacityInUse { .. } => Self::conflict("capacity-in-use", detail),
                PutItemError::KindChange { .. } => Self::conflict("kind-change", detail),
                PutItemError::Archived { .. } => Self::conflict("archived", detail),
                PutItemError::Invalid(_) => Self::invalid(detail),
                _ => Self::invalid(detail),
            },
            Error::Overloaded { retry_after } => {
                Self { retry_after: Some(retry_after), ..Self::unavailable(detail) }
            }
            Error::CantLeave(_) => Self::conflict("cant-leave", detail),
            Error::ShuttingDown | Error::BeingArchived(_) => Self::unavailable(detail),
            Error::Backend(error) => error.into(),
            Error::OutcomePending(_) | Error::Archive(_) => Self::internal(detail),
            _ => Self::internal(detail),
        }
    }
}

impl From<SeamError> for Problem {
    fn from(error: SeamError) -> Self {
        match error {
            SeamError::ChangesGone { .. } => {
                return Self::new(StatusCode::GONE, "changes-gone", GONE);
            }
            SeamError::UnknownCursor { .. } => return Self::invalid(UNKNOWN_CURSOR),
            SeamError::TooManyConsumers { .. } => {
                return Self::conflict("too-many-consumers", TOO_MANY_CONSUMERS);
            }
            _ => note(&error),
        }
        if error.may_have_applied() {
            Self::internal("a backend failed; it may have taken effect, repeating it is safe")
        } else {
            Self::unavailable("a backend is away; nothing was accepted")
        }
    }
}

/// Logs that a backend failed, as what it says may name hosts and files. At
/// most one line a second: in an outage every request fails.
pub(crate) fn note(error: &SeamError) {
    static NOTED: AtomicU64 = AtomicU64::new(0);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    if is_first_in(START.elapsed().as_secs() + 1, &NOTED) {
        tracing::warn!(error = error as &dyn std::error::Error, "a backend failed");
    }
}

fn is_first_in(second: u64, last: &AtomicU64) -> bool {
    last.swap(second, Ordering::Relaxed) != second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_noted_once_a_second() {
        let last = AtomicU64::new(0);
        let noted = [1, 1, 1, 2, 2, 9, 9].map(|second| is_first_in(second, &last));
        assert_eq!(noted, [true, false, false, true, false, true, false]);
    }

    #[test]
    fn a_connection_whose_request_was_not_read_to_its_end_is_closed() {
        let closing = [
            Problem::head_too_large(9),
            Problem::uri_too_long(9),
            Problem::timed_out(),
            Problem::too_many_connections(),
        ];
        let connection = |problem: Problem| {
            let answer = problem.into_answer();
            (answer.status(), answer.headers().get(CONNECTION).cloned())
        };
        for (status, connection) in closing.map(connection) {
            assert_eq!(connection.expect("it is told"), "close", "{status}");
        }
        assert_eq!(connection(Problem::not_json()).1, None);
    }

    #[test]
    fn a_title_is_its_kind_in_words() {
        assert_eq!(Title("buyer-limit").to_string(), "Buyer limit");
    }
}
