//! The limits of a request's size.

use std::fmt::Write as _;

use serde_json::json;

use crate::harness::{Answer, OPERATOR, Server};

const ORDER_BODY_MAX: usize = 64 * 1024;
const ITEM_BODY_MAX: usize = 4 * 1024 * 1024;

/// A body of exactly this many bytes.
fn padded(body: &serde_json::Value, length: usize) -> Vec<u8> {
    let mut body = body.to_string().into_bytes();
    body.resize(length, b' ');
    body
}

fn send(server: &Server, method: &str, path: &str, body: Vec<u8>) -> Answer {
    let call = server.call(method, path).header("content-type", "application/json");
    call.header("prefer", "wait=10").body(body).send()
}

#[test]
fn a_body_is_at_most_64_kib() {
    let server = Server::start(&["--item", "t=50"]);
    let order = json!({"buyer_id": "ann", "item_id": "t"});
    let id = send(&server, "POST", "/v1/orders", padded(&order, ORDER_BODY_MAX)).is(201);
    let over = padded(&order, ORDER_BODY_MAX + 1);
    send(&server, "POST", "/v1/orders", over).problem(413, "body-too-large");

    let confirm = format!("/v1/orders/{}/confirm", id.field("order_id"));
    let payment = json!({"payment_ref": "p"});
    send(&server, "POST", &confirm, padded(&payment, ORDER_BODY_MAX + 1))
        .problem(413, "body-too-large");
    send(&server, "POST", &confirm, padded(&payment, ORDER_BODY_MAX)).is(200);

    let bought = json!({"user_id": "ann", "item_id": "t"});
    send(&server, "POST", "/buy", padded(&bought, ORDER_BODY_MAX + 1))
        .problem(413, "body-too-large");
    send(&server, "POST", "/buy", padded(&bought, ORDER_BODY_MAX)).is(200);
}

#[test]
fn an_items_body_is_at_most_4_mib() {
    let server = Server::start(&[]);
    let item = json!({"capacity": 5});
    send(&server, "PUT", "/v1/items/t", padded(&item, ITEM_BODY_MAX)).is(201);
    let over = padded(&item, ITEM_BODY_MAX + 1);
    send(&server, "PUT", "/v1/items/t", over).problem(413, "body-too-large");
}

#[test]
fn a_body_in_chunks_has_the_same_limit() {
    let server = Server::start(&["--item", "t=50"]);
    let order = json!({"buyer_id": "ann", "item_id": "t"});
    let head = "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\n\
        Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (length, status) in [(ORDER_BODY_MAX, 201), (ORDER_BODY_MAX + 1, 413)] {
        let mut connection = server.connect();
        connection.send(head);
        for chunk in padded(&order, length).chunks(5000) {
            connection.send(format!("{:x}\r\n", chunk.len()));
            connection.send(chunk);
            connection.send("\r\n");
        }
        connection.send("0\r\n\r\n");
        connection.checked("POST", "/v1/orders").is(status);
    }
    // One that never ends is answered all the same.
    let mut connection = server.connect();
    connection.send(head);
    connection.send(format!("{ORDER_BODY_MAX:x}\r\n"));
    connection.send(padded(&order, ORDER_BODY_MAX));
    connection.send("\r\n10\r\n                \r\n");
    connection.checked("POST", "/v1/orders").problem(413, "body-too-large");
}

#[test]
fn a_body_that_says_it_is_too_large_is_not_waited_for() {
    let server = Server::start(&["--item", "t=50"]);
    for (method, path, length) in [
        ("POST", "/v1/orders", ORDER_BODY_MAX + 1),
        ("PUT", "/v1/items/t", ITEM_BODY_MAX + 1),
        ("POST", "/buy", ORDER_BODY_MAX + 1),
        ("POST", "/v1/orders", usize::MAX / 2),
    ] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut connection = server.connect();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{expect}");
            connection.send(format!(
                "{head}Authorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            ));
            connection.checked(method, path).problem(413, "body-too-large");
        }
    }
}

#[test]
fn a_header_block_is_at_most_16_kib() {
    let server = Server::start(&["--item", "t=50"]);
    let get = |block: usize, lines: usize| {
        let mut head = "GET /v1/items/t HTTP/1.1\r\nHost: t\r\n".to_owned();
        for n in 0..lines {
            let value = "v".repeat(block / lines - 12);
            write!(head, "x-fill-{n:02}: {value}\r\n").expect("a string takes all");
        }
        server.raw(head + "\r\n")
    };
    for lines in [1, 5, 40] {
        get(15 * 1024, lines).is(200);
        get(17 * 1024, lines).problem(431, "header-too-large");
        get(200 * 1024, lines).problem(431, "header-too-large");
    }
    // More lines than are read, though few bytes.
    let lines = "x: y\r\n".repeat(200);
    server
        .raw(format!("GET /v1/items/t HTTP/1.1\r\nHost: t\r\n{lines}\r\n"))
        .problem(431, "header-too-large");
    // One line that never ends.
    let mut connection = server.connect();
    connection.send("GET /v1/items/t HTTP/1.1\r\nHost: t\r\nx-long: ");
    connection.send("v".repeat(100 * 1024));
    connection.answer("GET").expect("an answer").problem(431, "header-too-large");
}

#[test]
fn a_uri_is_at_most_8_kib() {
    let server = Server::start(&["--item", "t=50"]);
    let get = |length: usize| {
        let uri = format!("/v1/items/t?q={}", "x".repeat(length - 14));
        server.raw(format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n"))
    };
    get(8 * 1024).is(200);
    get(8 * 1024 + 1).problem(414, "uri-too-long");
    get(12 * 1024).problem(414, "uri-too-long");
    get(200 * 1024).problem(414, "uri-too-long");
    // A request line that never ends.
    let mut connection = server.connect();
    connection.send(format!("GET /{}", "x".repeat(100 * 1024)));
    connection.answer("GET").expect("an answer").problem(414, "uri-too-long");
    // Both at their limits at once.
    let uri = format!("/v1/items/t?q={}", "x".repeat(8 * 1024 - 14));
    let value = "v".repeat(15 * 1024);
    server.raw(format!("GET {uri} HTTP/1.1\r\nHost: t\r\nx-fill: {value}\r\n\r\n")).is(200);
}
