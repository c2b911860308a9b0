//! The body of a request: whatever it is, it has one answer, which the bare reader agrees
//! with, and what is read keeps the limits and says the same when it is written again.
//!
//! The first byte says the call, how the body is sent and how long its answer is waited for.

#![no_main]

mod shop;

use flux_core::{Ask, Line, OrderRequest};
use flux_server::fuzzing;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const ORDER: &str = "0193a5b0-abcd-7ef0-8123-456789abcdef";

/// Whether an order's body is sound, and if so, that it comes back as it went.
fn place(body: &[u8]) -> bool {
    let Ok(request) = fuzzing::place(body) else { return false };
    let OrderRequest { id, buyer, lines, metadata, .. } = &request;
    assert_eq!(fuzzing::buyer_of(body).as_ref(), Some(buyer));
    assert!(metadata.bytes() <= flux_core::METADATA_BYTES_MAX);
    assert!((1..=flux_core::LINES_MAX).contains(&lines.len()));
    let line = |line: &Line| match &line.ask {
        Ask::Units(units) => {
            assert!((1..=1_000).contains(&units.get()));
            json!({ "item_id": line.item, "quantity": units })
        }
        Ask::Seats(seats) => {
            assert!((1..=flux_core::SEATS_PER_LINE_MAX).contains(&seats.len()));
            json!({ "item_id": line.item, "seats": seats })
        }
    };
    let written: Vec<_> = lines.iter().map(line).collect();
    let mut written = json!({ "buyer_id": buyer, "lines": written, "metadata": metadata });
    if let Some(id) = id {
        written["order_id"] = json!(id);
    }
    assert_eq!(fuzzing::place(written.to_string().as_bytes()).as_ref(), Ok(&request));
    true
}

fn item(body: &[u8]) -> bool {
    let id = "new".parse().expect("an id");
    let Ok(spec) = fuzzing::item(id, body) else { return false };
    spec.check().expect("what is read keeps the rules");
    true
}

fuzz_target!(|input: &[u8]| {
    let Some((how, body)) = input.split_first() else { return };
    let (call, sound) = match how & 3 {
        0 | 1 => ("POST /v1/orders".to_owned(), place(body)),
        2 => (format!("POST /v1/orders/{ORDER}/confirm"), fuzzing::confirm(body).is_ok()),
        _ => ("PUT /v1/items/new".to_owned(), item(body)),
    };
    let wait = if how & 4 == 0 { "" } else { "Prefer: wait=1\r\n" };
    let (token, length) = (shop::TOKEN, body.len());
    let head = format!(
        "{call} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\n{wait}Connection: close\r\n"
    );
    let cut = length * usize::from(how >> 4) / 16;
    let heard = if how & 8 == 0 {
        let head = format!("{head}Content-Length: {length}\r\n\r\n");
        shop::with(|shop| shop.exchange(&[head.as_bytes(), &body[..cut], &body[cut..]]))
    } else {
        let mut sent = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for part in [&body[..cut], &body[cut..]] {
            if !part.is_empty() {
                sent.extend(format!("{:x}\r\n", part.len()).bytes());
                sent.extend(part);
                sent.extend(b"\r\n");
            }
        }
        sent.extend(b"0\r\n\r\n");
        shop::with(|shop| shop.exchange(&[&sent]))
    };
    let answers = shop::answers::read(&heard);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert!(!answer.broken_off);
    let _: Value = serde_json::from_slice(&answer.body).expect("JSON");
    if sound {
        assert_ne!(answer.status, 413, "a body that is sound here is small");
    } else {
        let known: &[u16] = if how & 3 == 2 { &[400, 404, 413] } else { &[400, 413] };
        assert!(known.contains(&answer.status), "{answer:?}");
    }
});
