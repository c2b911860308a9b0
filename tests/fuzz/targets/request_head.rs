//! The bytes of a connection: whatever they are, the check for requests whose end is in
//! doubt says the same wherever they are cut, nothing passes it that two readers could end
//! in two places, and what comes back is answers, no more of them than there were heads.
//!
//! The first byte says where they are cut.

#![no_main]

mod shop;

use flux_server::fuzzing;
use libfuzzer_sys::fuzz_target;

/// What passes of `bytes` when they are cut at `cut`.
fn passed(bytes: &[u8], cut: usize) -> Vec<u8> {
    let mut passed = bytes.to_vec();
    let (one, other) = passed.split_at_mut(cut);
    fuzzing::pass(&mut [one, other]);
    passed
}

/// Reads the heads as hyper would, until one whose body only hyper can end.
fn check_ends(mut bytes: &[u8]) {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(bytes) else { return };
        let of = |name: &'static str| {
            let named =
                move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
            request.headers.iter().filter(named).map(|header| header.value.trim_ascii())
        };
        let coded = of("transfer-encoding").next().is_some();
        let mut lengths = of("content-length");
        let length = lengths.next();
        assert!(!coded || length.is_none(), "both headers passed");
        assert!(
            lengths.all(|other| number(other) == length.and_then(number)),
            "two lengths passed"
        );
        if coded {
            return;
        }
        let length = length.map_or(0, |length| number(length).expect("a length that is none"));
        let Some(rest) = usize::try_from(length).ok().and_then(|n| bytes[head..].get(n..)) else {
            return;
        };
        bytes = rest;
    }
}

/// Checks that the same passed, but for the part of a head that is refused which had
/// passed before that could be seen. It never comes to its end.
fn check_same(cut: &[u8], whole: &[u8]) {
    let same = cut.iter().zip(whole).take_while(|(one, other)| one == other).count();
    for passed in [cut, whole] {
        let ends = |end: &[u8]| {
            let first = (same + 1).saturating_sub(end.len());
            passed[first.min(passed.len())..].windows(end.len()).any(|bytes| bytes == end)
        };
        assert!(cut == whole || !(ends(b"\n\r\n") || ends(b"\n\n")), "a refused head passed");
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let cut = bytes.len() * usize::from(*cut) / 256;
    let whole = passed(bytes, 0);
    check_same(&passed(bytes, cut), &whole);
    check_ends(&whole);

    let heard = shop::with(|shop| shop.exchange(&[&bytes[..cut], &bytes[cut..]]));
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."));
    // Its answer has a length and no body.
    if bytes.windows(4).any(|four| four == b"HEAD") {
        return;
    }
    let answers = shop::answers::read(&heard);
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let ends = lines.iter().filter(|line| matches!(line, [] | [b'\r'])).count();
    assert!(answers.len() <= ends + 1, "{} answers to {ends} heads at most", answers.len());
    let broken_off = answers.iter().rev().skip(1).any(|answer| answer.broken_off);
    assert!(!broken_off, "only the last may break off");
});
