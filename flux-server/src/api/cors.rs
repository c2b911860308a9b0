//! Pages of other origins: which may call, and how browsers are told.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::api::route::Found;
use crate::http::response::{self, Answer};

const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, baggage, content-type, idempotency-key, prefer, traceparent, tracestate, x-request-id",
);
const EXPOSE_HEADERS: HeaderValue =
    HeaderValue::from_static("location, preference-applied, retry-after, x-request-id");
const A_DAY: HeaderValue = HeaderValue::from_static("86400");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The headers by which a browser lets pages of other origins call.
pub(crate) enum CorsPolicy {
    /// No page of another origin may call.
    No,
    /// Any page may call, as the legacy calls allow.
    Legacy,
    /// Pages of the origins on the list may call; the one that calls, if it is among them.
    Listed(Option<HeaderValue>),
}

impl CorsPolicy {
    /// The policy for a request, where pages of `origins` may call `/v1`.
    pub(crate) fn of(origins: &[HeaderValue], parts: &Parts, found: Option<Found<'_>>) -> Self {
        let legacy = |found: Found<'_>| found.calls.iter().any(|route| route.is_legacy());
        if found.is_some_and(legacy) {
            return Self::Legacy;
        }
        if origins.is_empty() || !parts.uri.path().starts_with("/v1/") {
            return Self::No;
        }
        Self::Listed(parts.headers.get(ORIGIN).filter(|origin| origins.contains(origin)).cloned())
    }

    /// The answer to a browser that asks before it calls with one of the
    /// `methods`, unless no page of another origin may.
    pub(crate) fn preflight(&self, methods: &str) -> Option<Answer> {
        if let Self::No = self {
            return None;
        }
        let mut answer = Response::new(response::body(Bytes::new()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let methods = methods.parse().expect("methods are a header's value");
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, A_DAY);
        Some(answer)
    }

    /// Says in an answer's headers which pages may read it.
    pub(crate) fn allow(self, headers: &mut HeaderMap) {
        match self {
            Self::No => {}
            Self::Legacy => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            }
            Self::Listed(origin) => {
                // A cache keeps apart what each origin was told.
                headers.append(VARY, HeaderValue::from_static("origin"));
                if let Some(origin) = origin {
                    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
                }
            }
        }
    }
}
