//! Pages of other origins: which may call, and how browsers are told.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::api::route::Found;
use crate::http::response::{self, Answer};

const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, prefer, x-request-id");
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
    /// Pages of this origin may call.
    Of(HeaderValue),
}

impl CorsPolicy {
    /// The policy for a request, where `origin` is the one whose pages may call `/v1`.
    pub(crate) fn of(
        origin: Option<&HeaderValue>,
        parts: &Parts,
        found: Option<Found<'_>>,
    ) -> Self {
        let legacy = |found: Found<'_>| found.calls.iter().any(|route| route.is_legacy());
        match origin {
            _ if found.is_some_and(legacy) => Self::Legacy,
            Some(origin) if parts.uri.path().starts_with("/v1/") => Self::Of(origin.clone()),
            _ => Self::No,
        }
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
