//! The rules of a request's head that hyper leaves to its user: its size, and its host.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::http::problem::Problem;

/// Most bytes of a URI.
const URI_MAX: usize = 8 * 1024;
/// Most bytes of a header block.
const HEAD_MAX: usize = 16 * 1024;

/// Refuses a head that is too large, or that does not name one host.
pub(crate) fn check(parts: &Parts) -> Result<(), Problem> {
    if parts.uri.path_and_query().map_or(0, |uri| uri.as_str().len()) > URI_MAX {
        return Err(Problem::uri_too_long(URI_MAX));
    }
    let head: usize = parts.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if head > HEAD_MAX {
        return Err(Problem::head_too_large(HEAD_MAX));
    }
    // RFC 9112, 3.2: also where the request's target names a host itself.
    let host = match only(&parts.headers, &HOST) {
        Some(host) => is_host(host),
        None => parts.version < Version::HTTP_11 && !parts.headers.contains_key(HOST),
    };
    if !host {
        return Err(Problem::invalid("Host: must be given once, as a name or address and a port"));
    }
    Ok(())
}

/// The value of a header that stands there once.
pub(crate) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether it is `uri-host [ ":" port ]` of RFC 9110, 7.2, with a host.
fn is_host(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    // Nearly all are plain names, which needs no parser to tell.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    if !name.is_empty() && name.bytes().all(plain) {
        return is_port(port);
    }
    let Ok(authority) = Authority::try_from(text) else { return false };
    let host = authority.host();
    // Whatever else it may hold, such as a user, stands before the host or after it.
    let Some(rest) = authority.as_str().strip_prefix(host) else { return false };
    let named = match host.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty(),
    };
    named && is_port(rest.strip_prefix(':').unwrap_or(rest))
}

/// Whether it is a port's number, or nothing.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.is_empty() || text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        let host = |text: &[u8]| HeaderValue::from_bytes(text).is_ok_and(|value| is_host(&value));
        for good in ["t", "shop.example:443", "127.0.0.1:5000", "[::1]:5000", "[::1]", "a-b_c:"] {
            assert!(host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a,b:c", "a/b", "a:b", "a:65536", "a:1:2", "u@a", "@", "a@",
            "http://a", "[::1", "[a]", "[]", "::1", "a?b", "a#b", "a:-1", "a:+1", "a\\b", "\"a\"",
        ] {
            assert!(!host(bad.as_bytes()), "{bad}");
        }
        assert!(!host("caf\u{e9}".as_bytes()));
    }
}
