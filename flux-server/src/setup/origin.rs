//! Origins, written as browsers send them: pages of one that is written in another way
//! would never be let in.

use http::HeaderValue;
use url::{Host, Url};

/// Takes an origin such as `https://shop.example`; else says what to write.
pub(super) fn origin(text: &str) -> Result<HeaderValue, String> {
    if matches!(text, "*" | "null") {
        return Err("must name whose pages may call, like https://shop.example".to_owned());
    }
    let sent = sent(text)?;
    match text.parse() {
        Ok(value) if text == sent => Ok(value),
        _ => Err(format!("must be as browsers send it: {sent}")),
    }
}

/// The origin of the page at this address, as a browser sends it.
fn sent(text: &str) -> Result<String, String> {
    let url = Url::parse(text)
        .map_err(|wrong| format!("must be an origin like https://shop.example ({wrong})"))?;
    let scheme = url.scheme();
    match url.host() {
        Some(Host::Domain(name)) if !is_one_name(name) => {
            Err("must name one host in full, without wildcards; one --cors-origin for each"
                .to_owned())
        }
        Some(_) if matches!(scheme, "http" | "https") => Ok(url.origin().ascii_serialization()),
        // Pages of browsers' extensions, and of apps that are a page in a frame.
        Some(host) if scheme.ends_with("-extension") || matches!(scheme, "capacitor" | "ionic") => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            Ok(format!("{scheme}://{host}{port}"))
        }
        _ => Err("must begin with https:// or http:// and a host".to_owned()),
    }
}

fn is_one_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_as_browsers_send_it() {
        for sound in [
            "https://shop.example",
            "http://localhost:3000",
            "https://xn--mnchen-3ya.example:8443",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "https://[2001:db8::1]",
            "https://my_shop.example",
            "chrome-extension://abcdefghijklmnop",
            "capacitor://localhost",
        ] {
            assert_eq!(origin(sound).expect(sound), sound);
        }
    }

    #[test]
    fn one_that_no_browser_sends_is_refused_with_what_to_write() {
        for (wrong, write) in [
            ("HTTPS://shop.example", "it: https://shop.example"),
            ("https://Shop.Example", "it: https://shop.example"),
            ("https://shop.example/", "it: https://shop.example"),
            ("https://shop.example/buy?x#y", "it: https://shop.example"),
            ("https://shop.example:443", "it: https://shop.example"),
            ("http://shop.example:80", "it: http://shop.example"),
            ("https://shop.example:", "it: https://shop.example"),
            ("https://shop.example:08443", "it: https://shop.example:8443"),
            ("https://ann:secret@shop.example", "it: https://shop.example"),
            ("https://münchen.example", "it: https://xn--mnchen-3ya.example"),
            ("https://shop.example\n", "it: https://shop.example"),
            (" https://shop.example", "it: https://shop.example"),
            ("https:shop.example", "it: https://shop.example"),
            ("https://127.1", "it: https://127.0.0.1"),
            ("http://[0:0:0:0:0:0:0:1]", "it: http://[::1]"),
            ("chrome-extension://abcdef/", "it: chrome-extension://abcdef"),
            ("https://a.example,https://b.example", "one --cors-origin for each"),
            ("https://a.example,b.example", "one --cors-origin for each"),
            ("https://*.shop.example", "without wildcards"),
            ("https://a.example https://b.example", "like https://shop.example"),
            ("https://*", "without wildcards"),
            ("*", "like https://shop.example"),
            ("null", "like https://shop.example"),
            ("", "like https://shop.example"),
            ("shop.example", "like https://shop.example"),
            ("https://", "like https://shop.example"),
            ("https://shop.example:99999", "like https://shop.example"),
            ("https://[::1", "like https://shop.example"),
            ("shop.example:8443", "begin with https://"),
            ("htps://shop.example", "begin with https://"),
            ("ftp://shop.example", "begin with https://"),
            ("file:///tmp/shop.html", "begin with https://"),
            ("localhost:3000", "begin with https://"),
        ] {
            let said = origin(wrong).expect_err(wrong);
            assert!(said.contains(write), "{wrong}: {said}");
        }
    }
}
