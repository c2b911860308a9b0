//! Reading a request's body: JSON, bounded in bytes and in time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use crate::http::head::only;
use crate::http::problem::Problem;
use crate::http::response::Failure;

/// Most bytes of a body, unless the call says otherwise.
pub(crate) const BODY_MAX: usize = 64 * 1024;

/// Reads a JSON body of at most `bytes_max` within `time_max`.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    // Of two types nobody can say which was meant.
    if !only(headers, &CONTENT_TYPE).is_some_and(is_json) {
        return Err(Problem::not_json());
    }
    check_coding(headers)?;
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(Problem::body_too_large(bytes_max));
    }
    let mut reading = pin!(Limited::new(body, bytes_max).collect());
    // The body nearly always comes with the head; then a timer would cost more than
    // the reading.
    let read = match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(read) => Ok(read),
        Poll::Pending => tokio::time::timeout(time_max, reading).await,
    };
    match read {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(bytes_max)),
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::timed_out()),
    }
}

/// Refuses a body that is compressed, or coded in any other way.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    for codings in headers.get_all(CONTENT_ENCODING) {
        let codings = codings.to_str().map_err(|_| Problem::coded())?;
        if !codings.split(',').all(|coding| none(coding.trim())) {
            return Err(Problem::coded());
        }
    }
    Ok(())
}

fn is_json(content_type: &HeaderValue) -> bool {
    if content_type == "application/json" {
        return true;
    }
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}
