//! Replaces hyper's own answers to requests it can't read: they have no body where
//! the contract has a problem, so they are exchanged on their way out.

/// The answer to send instead of `written`, if that is one of hyper's own.
/// Ours always have a body.
pub(crate) fn instead_of(written: &[u8], within_request_line: bool) -> Option<Vec<u8>> {
    let rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(rest).ok()?.strip_suffix("\r\n\r\n")?;
    if !head.contains("\r\ncontent-length: 0\r\n") {
        return None;
    }
    let (status, kind, title, detail) = match (head.get(..2)?, within_request_line) {
        ("00", _) => (
            "400 Bad Request",
            "invalid-request",
            "Invalid request",
            "this is no HTTP/1.1 request, or where it ends is in doubt",
        ),
        ("14", _) | ("31", true) => {
            ("414 URI Too Long", "uri-too-long", "Uri too long", "the URI may have at most 8 KiB")
        }
        ("31", false) => (
            "431 Request Header Fields Too Large",
            "header-too-large",
            "Header too large",
            "the header block may have at most 16 KiB, in 100 lines",
        ),
        _ => return None,
    };
    let code = &status[..3];
    let problem = format!(
        r#"{{"type":"/problems/{kind}","title":"{title}","status":{code},"detail":"{detail}"}}"#
    );
    let length = problem.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         content-length: {length}\r\n\r\n{problem}"
    );
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_exchanged() {
        let hypers = |status: &str| {
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n"
            )
        };
        let instead = |written: &str, within| {
            instead_of(written.as_bytes(), within).map(|a| String::from_utf8(a).expect("text"))
        };
        let refused = instead(&hypers("400 Bad Request"), true).expect("exchanged");
        assert!(refused.contains("/problems/invalid-request"));
        let refused = instead(&hypers("431 Request Header Fields Too Large"), false);
        assert!(refused.expect("exchanged").contains("/problems/header-too-large"));
        let refused = instead(&hypers("431 Request Header Fields Too Large"), true);
        assert!(refused.expect("exchanged").starts_with("HTTP/1.1 414 "));
        for ours in [
            hypers("200 OK"),
            hypers("404 Not Found"),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\ndate: x\r\n\r\n{}".to_owned(),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\ndate: x\r\n\r\n".to_owned(),
        ] {
            assert_eq!(instead(&ours, false), None, "{ours}");
        }
    }
}
