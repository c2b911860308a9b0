//! The headers in which a proxy names whom it speaks for: `Forwarded` (RFC 7239) and
//! `X-Forwarded-For`. Each proxy adds to the right of what it was sent, so only the
//! right end can be believed, as far as the names there are of proxies that are.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The rightmost address that is no proxy's; `None` where that is not told, can't be
/// read, or where the two headers name two: a proxy that writes the one may pass on
/// whatever its client wrote in the other.
#[must_use]
pub(crate) fn origin(headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let named = |header: &HeaderName, nodes: fn(&str) -> Option<Vec<&str>>| {
        let lines = headers.get_all(header).iter().rev();
        let mut lines = lines.map(|line| line.to_str().ok().and_then(nodes)).peekable();
        lines.peek()?;
        Some(first_stranger(lines, &is_proxy))
    };
    let by_forwarded = named(&FORWARDED, forwarded);
    let by_x_forwarded_for = named(&X_FORWARDED_FOR, x_forwarded_for);
    match (by_forwarded, by_x_forwarded_for) {
        (Some(one), Some(other)) => one.filter(|_| one == other),
        (one, other) => one.or(other)?,
    }
}

/// Goes through lines of nodes, all from the right.
fn first_stranger<'n>(
    lines: impl Iterator<Item = Option<Vec<&'n str>>>,
    is_proxy: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    for line in lines {
        for node in line?.into_iter().rev() {
            let address = address(node)?;
            if !is_proxy(address) {
                return Some(address);
            }
        }
    }
    None
}

/// An address with or without a port, in brackets or without.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
        None => match node.parse() {
            Ok(address) => address,
            Err(_) => node.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

#[allow(clippy::unnecessary_wraps, reason = "it has the form of `forwarded`")]
fn x_forwarded_for(line: &str) -> Option<Vec<&str>> {
    Some(line.split(',').map(str::trim).collect())
}

/// The nodes after `for`; an empty one for an element that has none. `None` for a line
/// whose quotes are in doubt, since the client may have begun one that hides what
/// the proxy added.
fn forwarded(line: &str) -> Option<Vec<&str>> {
    let node = |element| {
        let mut found = "";
        for pair in split(element, b';')? {
            let (name, value) = pair.split_once('=')?;
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value,
            };
            if value.contains(['"', '\\']) {
                return None;
            }
            if name.eq_ignore_ascii_case("for") {
                found = value;
            }
        }
        Some(found)
    };
    split(line, b',')?.into_iter().map(node).collect()
}

/// The parts between the separators outside of quotes, if every quote ends.
fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut from, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn named(lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let proxy = |address: IpAddr| address.to_string().starts_with("10.");
        origin(&headers, proxy).map(|address| address.to_string())
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxys_counts() {
        for (line, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.1,10.0.0.2", "192.0.2.1"),
            ("garbage, 192.0.2.1 ,  10.0.0.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(named(&[("x-forwarded-for", line)]).as_deref(), Some(expected), "{line}");
        }
        for (line, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:80\";proto=http;by=10.0.0.7", "192.0.2.1"),
            ("for=198.51.100.9, proto=https;FOR=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1,for=10.0.0.1", "192.0.2.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=198.51.100.9;secret=\"a,b;c\", for=192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(named(&[("forwarded", line)]).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn lines_go_on_in_their_order() {
        let x = "x-forwarded-for";
        let lines = [(x, "198.51.100.9"), (x, "192.0.2.1"), (x, "10.0.0.1")];
        assert_eq!(named(&lines).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn what_can_not_be_read_names_nobody() {
        for line in ["", "unknown", "192.0.2.1, unknown", "192.0.2.1,", "1.2.3", "10.0.0.1", "a:80"]
        {
            assert_eq!(named(&[("x-forwarded-for", line)]), None, "{line}");
        }
        for line in [
            "",
            "192.0.2.1",
            "for=unknown",
            "for=_hidden",
            "for=192.0.2.1, proto=https",
            "for=192.0.2.1;proto=\"",
            "for=192.0.2.1\"\"",
        ] {
            assert_eq!(named(&[("forwarded", line)]), None, "{line}");
        }
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn two_headers_count_if_they_agree() {
        let both = |one, other| named(&[("forwarded", one), ("x-forwarded-for", other)]);
        assert_eq!(both("for=192.0.2.1", "192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(both("for=192.0.2.1", "192.0.2.2"), None);
        assert_eq!(both("for=unknown", "192.0.2.2"), None);
    }

    proptest! {
        /// Whatever a client writes, it is taken for nobody but itself, or for the proxy.
        #[test]
        fn a_client_can_not_pass_for_another(
            written in "[ -~]{0,40}",
            forged in r#"(for=198\.51\.100\.9|198\.51\.100\.9)[;,"\\= a-z]{0,8}"#,
            adds in prop::sample::select(vec!["for=192.0.2.1", "for=\"192.0.2.1\";by=\"_a\""]),
        ) {
            for begun in [&written, &forged] {
                let found = named(&[("forwarded", &format!("{begun}, {adds}"))]);
                prop_assert!(found.as_deref().is_none_or(|found| found == "192.0.2.1"));
                let found = named(&[("x-forwarded-for", &format!("{begun}, 192.0.2.1"))]);
                prop_assert_eq!(found.as_deref(), Some("192.0.2.1"));
            }
        }
    }
}
