//! The part of a URI after the question mark.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use flux_core::InvalidInput;
use http::Uri;
use percent_encoding::percent_decode_str;

use crate::http::problem::Problem;

/// Entries of a page unless the caller says otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Most entries of a page.
const LIMIT_MAX: usize = 1_000;
/// Longest wait, in seconds.
const WAIT_MAX: u64 = 30;

/// The parameters a call knows; others are ignored.
#[derive(Debug)]
pub(crate) struct Query<'u>(Vec<(&'static str, Cow<'u, str>)>);

impl<'u> Query<'u> {
    /// Reads the `known` parameters of a URI.
    pub(crate) fn of(uri: &'u Uri, known: &[&'static str]) -> Result<Self, Problem> {
        let mut read: Vec<(&'static str, Cow<'u, str>)> = Vec::new();
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Parameters with names that can't be read are not known.
            let name = decode(name).unwrap_or_default();
            let Some(&name) = known.iter().find(|known| **known == name) else { continue };
            if read.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::invalid(format!("{name}: is given twice")));
            }
            let value = decode(value)
                .ok_or_else(|| Problem::invalid(format!("{name}: is not percent-encoded UTF-8")))?;
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// A parameter as text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    /// A parameter, parsed.
    pub(crate) fn parsed<T: FromStr<Err = InvalidInput>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        Ok(self.get(name).map(str::parse).transpose()?)
    }

    /// The longest time to wait for something to come: whole seconds, none by default.
    pub(crate) fn wait(&self) -> Result<Duration, Problem> {
        let Some(text) = self.get("wait") else { return Ok(Duration::ZERO) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(seconds) if digits && seconds <= WAIT_MAX => Ok(Duration::from_secs(seconds)),
            _ => Err(Problem::invalid(format!("wait: must be 0 to {WAIT_MAX} seconds"))),
        }
    }

    /// The most entries a page may have.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT_DEFAULT) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(limit) if digits && (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::invalid(format!("limit: must be 1 to {LIMIT_MAX}"))),
        }
    }
}

/// Text out of a part of a URI. In a query a plus sign is a plus sign: ids may
/// have one.
pub(crate) fn decode(part: &str) -> Option<Cow<'_, str>> {
    let mut rest = part.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = rest.get(at + 1..)?;
        let digits = rest.get(..2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
    }
    percent_decode_str(part).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(query: &str) -> Option<usize> {
        let uri: Uri = format!("/v1/items?{query}").parse().expect("a URI");
        Query::of(&uri, &["limit"]).and_then(|query| query.limit()).ok()
    }

    #[test]
    fn a_limit_is_1_to_1000() {
        assert_eq!(limit(""), Some(100));
        assert_eq!(limit("limit=1&x=y"), Some(1));
        assert_eq!(limit("limit=1000"), Some(1000));
        assert_eq!(limit("%6cimit=%31&%=2"), Some(1));
        for nonsense in [
            "limit=0",
            "limit=1001",
            "limit=",
            "limit",
            "limit=+5",
            "limit=a",
            "limit=1&limit=1",
            "limit=%3",
        ] {
            assert_eq!(limit(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_not_percent_encoding_is_refused() {
        assert_eq!(decode("a%2Fb").as_deref(), Some("a/b"));
        for bad in ["%", "%2", "%zz", "a%", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
