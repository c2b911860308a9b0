//! The demands of HTTP itself on every answer: paths, methods, request ids, HEAD,
//! length, CORS.

use std::time::Duration;

use serde_json::json;

use crate::harness::{DOCUMENT, Server};

#[test]
fn an_unknown_path_is_404_for_every_method() {
    let server = Server::start(&[]);
    let paths = [
        "/nowhere",
        "/v1",
        "/v1/",
        "/v2/orders",
        "/v1/ORDERS",
        "/V1/orders",
        "/v1/items/t/nothing",
        "/v1/orders/1/2/3",
        "//v1/orders",
        "/v1//orders",
        "/v1/items/t/seats/",
        "/buy/",
        "/inventory/",
        "/healthz/",
        "/index.html",
        "/v1/orders%2F",
        "/%76%31/nothing",
        "/../etc/passwd",
        "/.env",
    ];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let mut connection = server.connect();
            connection
                .send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"));
            let mut answer = connection.answer(method).expect("an answer");
            answer.call = format!("{method} {path}");
            let answer = answer.problem(404, "not-found");
            answer.header("x-request-id");
        }
    }
}

#[test]
fn a_wrong_method_is_405_with_those_that_are_right() {
    let server = Server::start(&["--item", "t=5"]);
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    for (template, item) in paths {
        let path = template
            .replace("{item_id}", "t")
            .replace("{order_id}", "0193a5b0-abcd-7ef0-8123-456789abcdef");
        let has = |method: &str| item.get(method.to_ascii_lowercase()).is_some();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW"]
        {
            if has(method) || (method == "HEAD" && has("GET")) {
                continue;
            }
            let answer = server.call(method, &path).send().is(405);
            let allowed: Vec<_> = answer.header("allow").split(", ").collect();
            for right in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
                assert_eq!(allowed.contains(&right), has(right), "{method} {path}: {allowed:?}");
            }
            assert_eq!(allowed.contains(&"HEAD"), has("GET"), "{method} {path}: {allowed:?}");
            if method != "HEAD" {
                answer.problem(405, "method-not-allowed");
            }
        }
    }
}

#[test]
fn a_wrong_method_comes_before_authorization() {
    let server = crate::harness::Setup::new().env("FLUX_OPERATOR_TOKEN", "x").start();
    server.call("PATCH", "/v1/items/t").send().problem(405, "method-not-allowed");
    server.call("PUT", "/v1/nowhere").send().problem(404, "not-found");
}

#[test]
fn head_answers_as_get_does_without_the_body() {
    let server = Server::start(&["--item", "t=5"]);
    server.put("/v1/items/hall", &json!({"seats": ["a"]})).is(201);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let order = format!("/v1/orders/{id}");
    let paths = [
        "/v1/orders",
        &order,
        "/v1/items",
        "/v1/items/t",
        "/v1/items/hall/seats",
        "/inventory",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/",
        "/v1/items/nowhere",
        "/nowhere",
        "/v1/events?item_id=nowhere",
    ];
    for path in paths {
        let get = server.get(path);
        let head = server.call("HEAD", path).send().is(get.status);
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    // An event stream has a head too, and then nothing.
    let mut connection = server.connect();
    connection.send("HEAD /v1/events?item_id=t HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let head = connection.checked("HEAD", "/v1/events?item_id=t").is(200);
    assert!(head.header("content-type").starts_with("text/event-stream"));
    assert!(connection.is_closed());
}

#[test]
fn the_callers_request_id_comes_back() {
    let server = Server::start(&["--item", "t=5"]);
    let longest = "~".repeat(128);
    for id in ["1", "trace-42!", longest.as_str()] {
        for path in ["/v1/items/t", "/v1/items/nowhere", "/nowhere", "/healthz", "/", "/buy"] {
            let answer = server.call("GET", path).header("x-request-id", id).send();
            assert_eq!(answer.header("x-request-id"), id, "{path}");
        }
    }
    let call = server.call("POST", "/v1/orders").header("x-request-id", "mine");
    assert_eq!(call.body("{").send().is(415).header("x-request-id"), "mine");
    let call = server.call("OPTIONS", "/buy").header("x-request-id", "mine");
    assert_eq!(call.send().header("x-request-id"), "mine");
}

#[test]
fn without_a_good_request_id_the_server_makes_one() {
    let server = Server::start(&["--item", "t=5"]);
    let mut made = std::collections::HashSet::new();
    let long = "x".repeat(129);
    for odd in [None, None, Some(""), Some("a b"), Some("a\tb"), Some(&*long)] {
        let call = server.call("GET", "/v1/items/t");
        let call = match odd {
            Some(odd) => call.header("x-request-id", odd),
            None => call,
        };
        let id = call.send().is(200).header("x-request-id").to_owned();
        assert_ne!(Some(&*id), odd);
        assert!(made.insert(id), "each its own");
    }
    let answer =
        server.raw("GET /v1/items/t HTTP/1.1\r\nHost: t\r\nx-request-id: caf\u{e9}\r\n\r\n");
    assert!(made.insert(answer.is(200).header("x-request-id").to_owned()));
}

#[test]
fn a_request_that_cannot_be_framed_is_400_and_the_connection_closed() {
    let server = Server::start(&["--item", "t=5"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let lengths = [
        (format!("{length}Transfer-Encoding: chunked\r\n"), chunked.as_str()),
        (format!("Transfer-Encoding: chunked\r\n{length}"), chunked.as_str()),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n".to_owned(), chunked.as_str()),
        ("Transfer-Encoding: gzip\r\n".to_owned(), body),
        ("Transfer-Encoding: chunked, gzip\r\n".to_owned(), body),
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: chunked, chunked\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: identity\r\n".to_owned(), body),
        ("Transfer-Encoding: identity, chunked\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: chunked;q=1\r\n".to_owned(), &chunked),
        ("Transfer-Encoding:\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(), &chunked),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n".to_owned(), &chunked),
        (format!("{length}Content-Length: 5\r\n"), body),
        ("Content-Length: +5\r\n".to_owned(), body),
        ("Content-Length: -5\r\n".to_owned(), body),
        ("Content-Length: five\r\n".to_owned(), body),
        ("Content-Length: 99999999999999999999999\r\n".to_owned(), body),
    ];
    for (length, body) in lengths {
        let mut connection = server.connect();
        connection.send(format!(
            "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{length}\r\n{body}"
        ));
        let answer = connection.answer("POST").unwrap_or_else(|| panic!("{length:?}: no answer"));
        assert_eq!(answer.status, 400, "{length:?}: {}", answer.text());
        answer.problem(400, "invalid-request");
        assert!(connection.is_closed(), "{length:?}: still open");
    }
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn a_head_that_is_not_http_is_400_and_the_connection_closed() {
    let server = Server::start(&["--item", "t=5"]);
    let heads: [&[u8]; 9] = [
        b"GET\r\n\r\n",
        b"GET /v1/items/t\r\n\r\n",
        b"GET /v1/items/t HTTP/9.9\r\nHost: t\r\n\r\n",
        b"GET /v1/items/t HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v1/items/t HTTP/1.1\r\nHost : t\r\n\r\n",
        b"GET /v1/items/t HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /v1/items/t HTTP/1.1\r\nHost: t\r\nx: a\0b\r\n\r\n",
        b"GET /v1/it ems HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ];
    for head in heads {
        let mut connection = server.connect();
        connection.send(head);
        let shown = String::from_utf8_lossy(head);
        let answer = connection.answer("GET").unwrap_or_else(|| panic!("{shown:?}: no answer"));
        assert!(matches!(answer.status, 400 | 505), "{shown:?}: {}", answer.status);
        assert!(connection.is_closed(), "{shown:?}: still open");
    }
    server.get("/v1/items/t").is(200);
}

/// A connection gives up its buffers half a second after an answer.
#[test]
fn who_was_quiet_for_a_while_is_heard_as_before() {
    let server = Server::start(&["--item", "t=50"]);
    let quiet = || std::thread::sleep(Duration::from_millis(700));
    let mut connection = server.connect();
    quiet();
    let body = r#"{"buyer_id":"ann","item_id":"t"}"#;
    let place = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let whole = format!("{place}{body}");
    let get = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    for pieces in [
        vec![get],
        // Longer than what a quiet connection is heard by.
        vec![&whole, &whole, &whole, &whole],
        vec!["G", "ET /healthz HTTP/1.1\r\nHo", "st: t\r\n\r\n"],
        vec!["\r\n", "\r", "\n", get, "\r\n", get],
        vec![&place, body, get],
    ] {
        let requests = pieces.concat().matches(" HTTP/1.1").count();
        for piece in pieces {
            connection.send(piece);
            quiet();
        }
        for _ in 0..requests {
            let answer = connection.answer("GET").expect("an answer");
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        }
    }
    connection.send([&whole[..], &whole, get].concat());
    for status in [201, 201, 200] {
        connection.answer("POST").expect("an answer").is(status);
    }
    quiet();
    connection.finish();
    assert!(connection.is_closed());
}

#[test]
fn the_target_may_be_absolute_and_requests_may_be_pipelined() {
    let server = Server::start(&["--item", "t=5", "--item", "u=6"]);
    let item = |connection: &mut crate::harness::Connection| {
        connection.answer("GET").expect("an answer").is(200).field("item_id")
    };
    let mut connection = server.connect();
    connection.send("GET http://shop.example/v1/items/t HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(item(&mut connection), "t");
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    connection.send(format!(
        "GET /v1/items/u HTTP/1.1\r\nHost: t\r\n\r\n\
         POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}GET /v1/items/t HTTP/1.1\r\nHost: t\r\n\r\n",
        body.len()
    ));
    assert_eq!(item(&mut connection), "u");
    connection.checked("POST", "/v1/orders").is(201);
    assert_eq!(connection.checked("GET", "/v1/items/t").is(200).json()["available"], 4);
    connection.send("GET /v1/items/t HTTP/1.0\r\n\r\n");
    connection.answer("GET").expect("an answer").is(200);
    assert!(connection.is_closed(), "HTTP/1.0 does not keep a connection");
}

#[test]
fn a_body_is_asked_for_where_the_client_waits_to_be_asked() {
    let server = Server::start(&["--item", "t=5"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let mut connection = server.connect();
    connection.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(connection.head().expect("an interim answer").status, 100);
    connection.send(body);
    connection.checked("POST", "/v1/orders").is(201);
}

#[test]
fn cors_on_v1_is_for_the_given_origin_alone() {
    let closed = Server::start(&["--item", "t=5"]);
    let shop = "https://shop.example";
    let read = closed.call("GET", "/v1/items/t").header("origin", shop).send().is(200);
    assert_eq!(read.maybe_header("access-control-allow-origin"), None);
    closed.call("OPTIONS", "/v1/orders").header("origin", shop).send().is(405);

    let open = Server::start(&["--item", "t=5", "--cors-origin", shop]);
    let order = json!({"buyer_id": "ann", "item_id": "t"});
    let answer = open.call("POST", "/v1/orders").header("origin", shop).json(&order).send().is(202);
    assert_eq!(answer.header("access-control-allow-origin"), shop);
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in ["location", "retry-after", "preference-applied", "x-request-id"] {
        assert!(exposed.contains(name), "{exposed} lacks {name}");
    }
    let missing = open.call("GET", "/v1/items/nowhere").header("origin", shop).send().is(404);
    assert_eq!(missing.header("access-control-allow-origin"), shop);
    for path in
        ["/v1/orders", "/v1/items/t", "/v1/orders/0193a5b0-abcd-7ef0-8123-456789abcdef/confirm"]
    {
        let call = open.call("OPTIONS", path).header("origin", shop);
        let answer = call.header("access-control-request-method", "POST").send().is(204);
        assert_eq!(answer.header("access-control-allow-origin"), shop);
        let headers = answer.header("access-control-allow-headers").to_ascii_lowercase();
        for name in ["authorization", "content-type", "idempotency-key", "prefer", "x-request-id"] {
            assert!(headers.contains(name), "{headers} lacks {name}");
        }
        assert!(
            answer.header("access-control-allow-methods").contains("POST") || path == "/v1/items/t"
        );
    }
    for other in ["https://evil.example", "null", "https://shop.example.evil.example"] {
        let answer = open.call("GET", "/v1/items/t").header("origin", other).send().is(200);
        assert_ne!(answer.maybe_header("access-control-allow-origin"), Some(other));
        assert_ne!(answer.maybe_header("access-control-allow-origin"), Some("*"));
    }
    open.call("OPTIONS", "/v1/nowhere").header("origin", shop).send().is(404);
}
