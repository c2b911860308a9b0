//! Answers given before the body was read: what comes next on the connection is a request
//! of its own, whenever the body comes.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Answer, Server, Setup, until};
use crate::new_id;

const TOKEN: &str = "operator-token";
const ROUNDS: usize = 25;

/// A request that is answered without its body: the status it may get, and the head up to
/// where it says how long the body is.
struct Early {
    status: Vec<u16>,
    head: String,
}

fn early(status: u16, line: &str, headers: &str) -> Early {
    Early { status: vec![status], head: format!("{line} HTTP/1.1\r\nHost: t\r\n{headers}") }
}

/// One request for each status and each call that may be answered so.
fn all_of(server: &Server) -> Vec<Early> {
    let json = "Content-Type: application/json\r\n";
    let operators = format!("Authorization: Bearer {TOKEN}\r\n");
    let strangers = format!("{json}Authorization: Bearer no\r\n");
    let both = format!("{operators}{operators}");
    let call = server.call("PUT", "/v1/items/pool").bearer(TOKEN);
    call.json(&json!({"capacity": 5})).send().is(201);
    let held = server.held(&json!({"buyer_id": "ann", "item_id": "pool"}));
    let sold = server.held(&json!({"buyer_id": "ann", "item_id": "pool"}));
    let confirm = server.call("POST", format_args!("/v1/orders/{sold}/confirm")).bearer(TOKEN);
    confirm.json(&json!({"payment_ref": "p"})).send().is(200);
    let act = |id: &str, what: &str| format!("POST /v1/orders/{id}/{what}");
    vec![
        early(200, &act(&held, "release"), ""),
        early(200, &act(&sold, "cancel"), &operators),
        early(200, "GET /v1/items/t", json),
        early(200, "GET /v1/orders?limit=1", &operators),
        early(200, "GET /healthz", ""),
        early(200, "GET /readyz", ""),
        early(200, "GET /metrics", ""),
        early(200, "GET /openapi.json", ""),
        early(200, "GET /", ""),
        early(200, "HEAD /v1/items/t", ""),
        early(204, "OPTIONS /buy", ""),
        early(400, "POST /v1/orders/1/release", ""),
        early(400, "GET /v1/items?limit=0", ""),
        early(401, "GET /v1/orders", &both),
        early(400, "POST /v1/orders", "Host: t\r\n"),
        early(401, "PUT /v1/items/t", json),
        early(401, "GET /v1/orders", ""),
        early(401, &act(&sold, "confirm"), ""),
        early(401, &act(&sold, "refunded"), ""),
        early(403, "PUT /v1/items/t", &strangers),
        early(403, &act(&sold, "cancel"), &strangers),
        early(404, "POST /nowhere", json),
        early(404, "GET /v1/items/nowhere", ""),
        early(404, &act(&new_id(), "release"), ""),
        early(401, "DELETE /v1/items/t", ""),
        early(405, "PATCH /v1/items/t", ""),
        early(405, "POST /healthz", json),
        early(405, "TRACE /v1/items/t", ""),
        early(409, "GET /v1/items/pool/seats", ""),
        early(409, &act(&sold, "release"), ""),
        early(415, "POST /v1/orders", "Content-Type: text/plain\r\n"),
        early(415, "POST /buy", ""),
        early(415, &act(&held, "release"), "Content-Encoding: gzip\r\n"),
    ]
}

/// An order, and the id that its answer must have.
fn order(n: usize) -> (String, String) {
    let (id, body) = (format!("order-{n}"), json!({"buyer_id": "bob", "item_id": "t"}).to_string());
    let length = body.len();
    let request = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nx-request-id: {id}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    (id, request)
}

fn says_close(answer: &Answer) -> bool {
    answer.maybe_header("connection").is_some_and(|value| value.contains("close"))
}

/// The moment when the body comes.
#[derive(Debug, Clone, Copy)]
enum Body {
    AfterTheAnswer,
    AfterTheHead,
    WithTheNextRequest,
}

/// The number of orders that nobody answered, of those sent on a connection after `early`.
fn lost(server: &Server, early: &Early, body: Body) -> usize {
    let method = early.head.split(' ').next().expect("a method");
    let head = format!("{}Content-Length: 2\r\n\r\n", early.head);
    let shown = format!("{:?}, {body:?}", head.lines().next());
    let (mut connection, mut lost) = (server.connect(), 0);
    for n in 0..ROUNDS {
        let (id, next) = order(n);
        connection.send(&head);
        match body {
            Body::AfterTheAnswer => {}
            Body::AfterTheHead => connection.send("{}"),
            Body::WithTheNextRequest => connection.send(format!("{{}}{next}")),
        }
        let answer = connection.answer(method).expect("an answer");
        assert!(early.status.contains(&answer.status), "{shown}: {}", answer.text());
        if says_close(&answer) {
            connection = server.connect();
            continue;
        }
        match body {
            Body::AfterTheAnswer => connection.send(format!("{{}}{next}")),
            Body::AfterTheHead => connection.send(next),
            Body::WithTheNextRequest => {}
        }
        let Some(answer) = connection.answer("POST") else {
            lost += 1;
            connection = server.connect();
            continue;
        };
        assert_eq!(answer.header("x-request-id"), id, "{shown}: {}", answer.text());
        assert!(matches!(answer.status, 202 | 429 | 503), "{shown}: {}", answer.text());
    }
    lost
}

#[track_caller]
fn none_is_lost(server: &Server, early: &[Early]) {
    let mut all_lost = Vec::new();
    for early in early {
        for body in [Body::AfterTheAnswer, Body::AfterTheHead, Body::WithTheNextRequest] {
            let lost = lost(server, early, body);
            if lost > 0 {
                let line = early.head.lines().next().expect("a line");
                all_lost
                    .push(format!("{:?} to {line}, {body:?}: {lost} of {ROUNDS}", early.status));
            }
        }
    }
    assert!(all_lost.is_empty(), "orders were lost after {all_lost:#?}");
}

#[test]
fn an_answer_before_the_body_costs_no_later_request() {
    let setup = Setup::new().args(&["--item", "t=100000"]);
    let server = setup.env("FLUX_OPERATOR_TOKEN", TOKEN).start();
    none_is_lost(&server, &all_of(&server));
}

#[test]
fn a_refusal_for_want_of_room_costs_no_later_request() {
    let server = Server::start(&["--item", "t=5", "--limit-per-peer", "1"]);
    let mut limited = early(429, "POST /v1/orders/1/release", "");
    limited.status.push(400);
    none_is_lost(&server, &[limited]);
    // Nobody decides here, so who waits keeps the one place.
    let server = Server::start(&["api", "--item", "t=5", "--requests-max", "1"]);
    let order = server.post("/v1/orders", &json!({"buyer_id": "ann", "item_id": "t"})).is(202);
    let id = order.field("order_id");
    let wait = format!("GET /v1/orders/{id} HTTP/1.1\r\nHost: t\r\nPrefer: wait=30\r\n\r\n");
    let mut waiting = Vec::new();
    until("the place is taken", Duration::from_secs(30), || {
        // One may come while the place is somebody's who looks.
        waiting.push(server.connect());
        waiting.last_mut().expect("one").send(&wait);
        (0..20).any(|_| server.get("/v1/items").status == 503).then_some(())
    });
    none_is_lost(&server, &[early(503, "POST /v1/orders", ""), early(503, "GET /v1/items", "")]);
}

#[test]
fn pipelined_requests_may_be_cut_anywhere() {
    let server = Server::start(&["--item", "t=100000"]);
    let (id, next) = order(1);
    for version in ["HTTP/1.1", "HTTP/1.0\r\nConnection: keep-alive"] {
        let early =
            format!("POST /nowhere {version}\r\nHost: t\r\nContent-Length: 7\r\n\r\nGET / H");
        let whole = format!("{early}{next}");
        let mut connection = server.connect();
        for cut in (1..whole.len()).step_by(3) {
            connection.send(&whole[..cut]);
            if cut >= early.len() - 7 {
                connection.answer("POST").expect("an answer").problem(404, "not-found");
            }
            connection.send(&whole[cut..]);
            if cut < early.len() - 7 {
                connection.answer("POST").expect("an answer").problem(404, "not-found");
            }
            let answer = connection.answer("POST").expect("an answer").is(202);
            assert_eq!(answer.header("x-request-id"), id, "{cut}");
        }
    }
}

#[test]
fn who_is_not_read_to_the_end_is_told_that_the_connection_closes() {
    let server = Server::start(&["--item", "t=5", "--body-timeout", "0.3"]);
    let large = "x".repeat(3 << 20);
    let length = format!("Content-Length: {}\r\n", large.len());
    for (head, body) in [
        (format!("POST /nowhere HTTP/1.1\r\nHost: t\r\n{length}\r\n"), large.as_str()),
        (format!("POST /v1/orders HTTP/1.1\r\nHost: t\r\n{length}\r\n"), &large),
        (format!("PATCH /v1/items/t HTTP/1.0\r\nConnection: keep-alive\r\n{length}\r\n"), &large),
        (
            "POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "2\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let mut connection = server.connect();
        connection.send(head);
        connection.send(body);
        let answer = connection.answer("POST").expect("an answer");
        assert!(says_close(&answer), "{:?}", answer.headers);
        assert!(connection.is_closed());
    }
    // A body that does not come is not waited for any longer than one that is wanted.
    let mut connection = server.connect();
    connection.send("POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{");
    connection.answer("POST").expect("an answer").problem(404, "not-found");
    assert!(connection.is_closed());
}

#[test]
fn nobody_is_asked_for_a_body_that_is_not_wanted() {
    let setup = Setup::new().args(&["--item", "t=5"]).env("FLUX_OPERATOR_TOKEN", TOKEN);
    let server = setup.start();
    for (status, line, headers) in [
        (401, "PUT /v1/items/t", "Content-Type: application/json\r\n"),
        (404, "POST /nowhere", ""),
        (405, "POST /v1/items", ""),
        (415, "POST /v1/orders", ""),
        (413, "POST /v1/orders", "Content-Type: application/json\r\n"),
    ] {
        let length = if status == 413 { 65_537 } else { 2 };
        let mut connection = server.connect();
        connection.send(format!(
            "{line} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n{headers}Content-Length: {length}\r\n\r\n"
        ));
        let answer = connection.answer("POST").expect("an answer").is(status);
        assert!(says_close(&answer), "{line}: {:?}", answer.headers);
        assert!(connection.is_closed(), "{line}");
    }
}

#[test]
fn who_trickles_a_body_that_nobody_wants_holds_no_request() {
    let server = Server::start(&["--item", "t=5", "--requests-max", "1"]);
    let mut open: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut open {
        connection.send(format!(
            "POST /v1/orders/{}/release HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n",
            new_id()
        ));
        connection.answer("POST").expect("an answer").problem(404, "not-found");
        connection.send("{");
        server.get("/v1/items/t").is(200);
    }
}
