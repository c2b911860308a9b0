//! The end of each request, by its head alone: enough of RFC 9112 §6 to refuse
//! a request with both `Content-Length` and `Transfer-Encoding`, or with a coding
//! other than `chunked`, which may be an attempt to make a proxy and this server
//! disagree on it.
//!
//! hyper drops the one header when it has seen the other, and of several codings looks at
//! the last, so the heads are looked at as they pass. A head that is refused is overwritten with zeros,
//! which hyper answers with 400 and a closed connection, when its turn comes.

use memchr::memchr;

/// Bytes of an unfinished line that are kept; one that matters and is longer is
/// refused.
const LINE_MAX: usize = 256;

/// Follows one connection's requests.
#[derive(Debug)]
pub(crate) struct Boundaries {
    next: Next,
    /// The begun line whose end did not come yet.
    line: Vec<u8>,
    said: Said,
}

/// The part of a request that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Head,
    Body(u64),
    /// A body whose end only hyper sees. The server closes the connection
    /// after such a request.
    Unknown,
    Refused,
}

/// The lines of the head so far, as far as they matter.
#[derive(Debug, Default, Clone, Copy)]
struct Said {
    lines: u32,
    length: Option<u64>,
    coded: bool,
}

impl Boundaries {
    /// A connection before its first byte.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { next: Next::Head, line: Vec::new(), said: Said::default() }
    }

    /// Whether a head has begun and not ended.
    #[must_use]
    pub(crate) fn is_within_a_head(&self) -> bool {
        self.next == Next::Head && (self.said.lines > 0 || !self.line.is_empty())
    }

    /// Whether the last request has ended, and no other has begun.
    #[must_use]
    pub(crate) fn is_between_requests(&self) -> bool {
        self.next == Next::Head && !self.is_within_a_head()
    }

    /// Whether a head has begun and not got past its first line.
    #[must_use]
    pub(crate) fn is_within_a_request_line(&self) -> bool {
        self.is_within_a_head() && self.said.lines == 0
    }

    /// Looks at the bytes that came next, and overwrites those of a request
    /// that is refused.
    pub(crate) fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            match self.next {
                Next::Unknown => return,
                Next::Refused => return rest.fill(0),
                Next::Body(left) => {
                    let here = left.min(rest.len() as u64);
                    at += here as usize;
                    self.next = if here == left { Next::Head } else { Next::Body(left - here) };
                }
                Next::Head => {
                    let Some(end) = memchr(b'\n', rest) else {
                        return self.keep(&rest[..]);
                    };
                    self.next = self.line_ended(&rest[..end]);
                    if self.next == Next::Refused {
                        continue;
                    }
                    at += end + 1;
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn line_ended(&mut self, part: &[u8]) -> Next {
        let next = if self.line.is_empty() {
            self.said.hear(part)
        } else {
            self.keep(part);
            let next = self.said.hear(&self.line);
            self.line.clear();
            next
        };
        if next != Next::Head {
            self.said = Said::default();
        }
        // A body of no bytes is over before it begins.
        if next == Next::Body(0) { Next::Head } else { next }
    }
}

impl Said {
    /// Takes in a line and says what follows it.
    fn hear(&mut self, line: &[u8]) -> Next {
        let may_be_cut = line.len() >= LINE_MAX;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Empty lines before a request are skipped.
            return match (self.lines, self.coded) {
                (0, _) => Next::Head,
                (_, true) => Next::Unknown,
                (_, false) => Next::Body(self.length.unwrap_or(0)),
            };
        }
        self.lines += 1;
        // Most lines are of neither header.
        if self.lines == 1 || !matches!(line[0], b'c' | b'C' | b't' | b'T') {
            return Next::Head;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.coded || may_be_cut || !is_chunked(value) {
                return Next::Refused;
            }
            self.coded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            match read_length(value) {
                Some(length)
                    if !may_be_cut && self.length.is_none_or(|earlier| earlier == length) =>
                {
                    self.length = Some(length);
                }
                _ => return Next::Refused,
            }
        }
        if self.coded && self.length.is_some() { Next::Refused } else { Next::Head }
    }
}

/// Whether it is this one coding, which says where the body ends.
fn is_chunked(value: &[u8]) -> bool {
    let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
    value.eq_ignore_ascii_case(b"chunked")
}

fn read_length(value: &[u8]) -> Option<u64> {
    let value = std::str::from_utf8(value).ok()?.strip_prefix(':')?.trim_matches([' ', '\t']);
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of `requests` that comes through when they are cut in two at `cut`.
    fn passed(requests: &str, cut: usize) -> String {
        let mut bytes = requests.as_bytes().to_vec();
        let mut boundaries = Boundaries::new();
        let (one, other) = bytes.split_at_mut(cut.min(requests.len()));
        boundaries.pass(one);
        boundaries.pass(other);
        String::from_utf8(bytes).expect("it was text").trim_end_matches('\0').to_owned()
    }

    #[test]
    fn both_headers_are_refused_wherever_the_bytes_are_cut() {
        let first = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n\nCoGET / HTTP/1.1\r\n\r\n";
        // The body is "\nCoGE", so what follows is "T / HTTP/1.1".
        for bad in [
            "POST /b HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\ntransfer-encoding:chunked\r\nX: y\r\nCONTENT-LENGTH:5\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\nTransfer-Encoding: gzip\nContent-Length: 1\n\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
            &format!("POST /b HTTP/1.1\r\nTransfer-Encoding: {}chunked\r\n\r\n", " ".repeat(300)),
            &format!(
                "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked{}, chunked\r\n\r\n",
                " ".repeat(300)
            ),
            "POST /b HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "POST /b HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            &format!("POST /b HTTP/1.1\r\nContent-Length: {}5\r\n\r\n", "0".repeat(300)),
        ] {
            let both = format!("{first}{bad}");
            for cut in 0..both.len() {
                let passed = passed(&both, cut);
                assert!(passed.starts_with(first), "{cut}: {passed:?}");
                // Its head never comes to an end.
                let rest = &passed[first.len()..];
                assert!(!rest.contains("\n\r\n") && !rest.contains("\n\n"), "{cut}: {rest:?}");
            }
        }
    }

    #[test]
    fn what_is_in_order_passes_wherever_the_bytes_are_cut() {
        for good in [
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\r\n\nGET / HTTP/1.1\r\n\r\n",
            "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nContent-Length: 1\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:  Chunked\t\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nX-Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nab",
        ] {
            for cut in 0..good.len() {
                assert_eq!(passed(good, cut), good, "{cut}");
            }
        }
    }

    #[test]
    fn a_long_line_is_not_kept() {
        let mut boundaries = Boundaries::new();
        for _ in 0..1_000 {
            boundaries.pass(&mut [b'a'; 100]);
        }
        assert!(boundaries.line.len() <= LINE_MAX && boundaries.is_within_a_head());
        assert!(boundaries.is_within_a_request_line());
    }

    #[test]
    fn a_head_that_came_whole_is_past_its_first_line() {
        let mut boundaries = Boundaries::new();
        boundaries.pass(&mut b"GET / HTTP/1.1\r\nx: y\r\n\r\n".to_vec());
        assert!(!boundaries.is_within_a_request_line());
    }
}
