//! The answers of a connection, taken apart.

/// One answer.
#[derive(Debug)]
#[allow(dead_code, reason = "not every target reads all of it")]
pub struct Answer {
    pub status: u16,
    /// Whether it says that nothing follows.
    pub closes: bool,
    pub body: Vec<u8>,
    /// Whether its body broke off.
    pub broken_off: bool,
}

/// Reads answers to the end; none of them is to a `HEAD`.
///
/// # Panics
/// When what was heard is no sequence of answers, or has one that the contract does not.
pub fn read(heard: &[u8]) -> Vec<Answer> {
    let (mut rest, mut answers) = (heard, Vec::<Answer>::new());
    while !rest.is_empty() {
        let shown = || String::from_utf8_lossy(&rest[..rest.len().min(500)]).into_owned();
        assert!(answers.last().is_none_or(|last| !last.closes), "after the last: {}", shown());
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(rest).unwrap_or_else(|wrong| panic!("{wrong}: {}", shown()))
        {
            httparse::Status::Complete(head) => head,
            httparse::Status::Partial => return answers,
        };
        let status = response.code.expect("a status");
        let header = |name: &str| {
            let mut of =
                response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let value = of.next().map(|header| std::str::from_utf8(header.value).expect("text"));
            assert!(of.next().is_none(), "{name} twice: {}", shown());
            value
        };
        rest = &rest[head..];
        if status == 100 {
            continue;
        }
        assert!(status < 500 || matches!(status, 503 | 505), "{status}: {heard:?}");
        let closes = header("connection") == Some("close");
        let (body, left, whole) = match (header("content-length"), header("transfer-encoding")) {
            (None, Some("chunked")) => joined(rest),
            (Some(length), None) => {
                let length: usize = length.parse().expect("a length");
                let here = length.min(rest.len());
                (rest[..here].to_vec(), &rest[here..], here == length)
            }
            (None, None) if matches!(status, 204 | 304) => (Vec::new(), rest, true),
            // HTTP/1.0 ends a body by closing.
            (None, None) => (rest.to_vec(), &rest[rest.len()..], true),
            both => panic!("{both:?} for {status}"),
        };
        rest = left;
        answers.push(Answer { status, closes, body, broken_off: !whole });
    }
    answers
}

/// The contents of chunks, what follows them, and whether the last came.
fn joined(mut chunks: &[u8]) -> (Vec<u8>, &[u8], bool) {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let rest = &chunks[end + 2..];
        if rest.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        chunks = &rest[size + 2..];
        if size == 0 {
            return (body, chunks, true);
        }
    }
    (body, &[], false)
}
