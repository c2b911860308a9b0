//! The `Prefer` header (RFC 7240), as far as it is about waiting.

use std::time::Duration;

use http::HeaderMap;

/// Longest wait that is granted.
const WAIT_MAX: u64 = 30;

/// Time the caller will wait for a decision. The first `wait` counts; more
/// than 30 seconds count as 30, an unreadable one as none.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    for header in headers.get_all("prefer") {
        for preference in split(header.to_str().unwrap_or_default()) {
            // Parameters of a preference come after a semicolon.
            let (name, value) = preference.split(';').next()?.split_once('=').unwrap_or_default();
            if name.trim().eq_ignore_ascii_case("wait") {
                return seconds(value.trim()).map(Duration::from_secs);
            }
        }
    }
    None
}

/// Splits at commas, though not at those within a quoted string.
fn split(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    header.split(move |character| {
        let is_escaped = std::mem::take(&mut escaped);
        match character {
            '"' if !is_escaped => quoted = !quoted,
            '\\' if quoted && !is_escaped => escaped = true,
            _ => {}
        }
        character == ',' && !quoted
    })
}

fn seconds(value: &str) -> Option<u64> {
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let digits = unquoted.unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are more than is granted.
    Some(digits.parse().unwrap_or(WAIT_MAX).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_counts() {
        for (header, seconds) in [
            ("wait=5", Some(5)),
            ("respond-async, Wait = 7; x=1", Some(7)),
            ("wait=\"3\"", Some(3)),
            ("wait=0", Some(0)),
            ("wait=31", Some(30)),
            ("wait=99999999999999999999999", Some(30)),
            ("wait=1, wait=2", Some(1)),
            (r#"x="wait=1, \", wait=1, ", wait=2"#, Some(2)),
            ("wait=-1", None),
            ("wait=1.5", None),
            ("wait=soon", None),
            ("wait", None),
            ("await=5", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", header.parse().expect("a header"));
            assert_eq!(wait(&headers), seconds.map(Duration::from_secs), "{header}");
        }
    }
}
