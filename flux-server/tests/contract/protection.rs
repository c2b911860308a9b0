//! Rates, slow clients and connections that end early.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Answer, Server, until};
use crate::new_id;

fn refused(answer: &Answer) -> bool {
    if answer.status == 429 {
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=5).contains(&seconds), "{seconds}");
        answer.clone().problem(429, "too-many-requests");
    }
    answer.status == 429
}

#[test]
fn a_buyer_over_its_rate_is_429_and_others_are_not() {
    let server = Server::start(&["--item", "t=1000", "--limit-per-buyer", "5"]);
    let order =
        |buyer: &str| server.post("/v1/orders", &json!({"buyer_id": buyer, "item_id": "t"}));
    let started = Instant::now();
    let answers: Vec<_> = (0..60).map(|_| order("ann")).collect();
    let most = 5 * (started.elapsed().as_secs() as usize + 2);
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    assert!((5..=most).contains(&taken), "{taken} of 60 taken, at most {most} expected");
    assert!(answers.iter().any(refused));
    order("bob").is(202);
    // It is a rate: a little later there is room again.
    until("room again", Duration::from_secs(3), || {
        let answer = order("ann");
        (!refused(&answer)).then(|| answer.is(202))
    });
    // `/buy` orders for the same buyer.
    let buy = || server.post("/buy", &json!({"user_id": "ann", "item_id": "t"}));
    assert!((0..60).any(|_| refused(&buy())));
}

#[test]
fn a_peer_over_its_rate_is_429() {
    let server = Server::start(&["--item", "t=1000", "--limit-per-peer", "5"]);
    let answers: Vec<_> = (0..60).map(|_| server.get("/v1/items/t")).collect();
    assert!(answers.iter().take(5).all(|answer| answer.status == 200));
    assert!(answers.iter().any(refused));
    until("room again", Duration::from_secs(3), || {
        let answer = server.get("/v1/items/t");
        (!refused(&answer)).then(|| answer.is(200))
    });
}

#[test]
fn without_a_limit_there_is_none() {
    let server = Server::start(&["--item", "t=1000"]);
    for _ in 0..200 {
        server.post("/v1/orders", &json!({"buyer_id": "ann", "item_id": "t"})).is(202);
    }
}

#[test]
fn who_hangs_up_and_asks_again_has_one_order() {
    let server = Server::start(&["--item", "t=1000"]);
    for n in 0..20 {
        let order = json!({"order_id": new_id(), "buyer_id": format!("b{n}"), "item_id": "t"});
        let body = order.to_string();
        let mut connection = server.connect();
        connection.send(format!(
            "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        drop(connection);
        server.order(&order).is(201);
    }
    let item = server.item("t");
    assert_eq!((&item["available"], &item["held"]), (&json!(980), &json!(20)));
}

#[test]
fn a_slow_body_is_408_and_a_slow_head_ends_the_connection() {
    let server = Server::start(&["--item", "t=5", "--body-timeout", "1", "--head-timeout", "1"]);
    let mut connection = server.connect();
    connection.send(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: 30\r\n\r\n{",
    );
    connection.checked("POST", "/v1/orders").problem(408, "request-timeout");
    assert!(connection.is_closed());
    let mut connection = server.connect();
    connection.send("GET /v1/items/t HTTP/1.1\r\nHo");
    connection.answer("GET").expect("an answer").problem(408, "request-timeout");
    assert!(connection.is_closed());
}

#[test]
fn who_is_done_sending_is_answered() {
    let server = Server::start(&["--item", "t=5"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    for length in [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ] {
        let mut connection = server.connect();
        connection.send(format!(
            "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\n\
             Content-Type: application/json\r\n{length}"
        ));
        connection.finish();
        connection.checked("POST", "/v1/orders").is(201);
        assert!(connection.is_closed());
    }
    // A stream goes on until nobody listens.
    let mut connection = server.connect();
    connection.send("GET /v1/events?item_id=t HTTP/1.1\r\nHost: t\r\n\r\n");
    connection.finish();
    connection.head().expect("a head").is(200);
    let mut available = |units: &str| {
        let event = connection.chunk().expect("an event");
        let event = String::from_utf8(event).expect("text");
        assert!(event.contains(&format!("\"available\":{units},")), "{event}");
    };
    available("3");
    server.put("/v1/items/t", &json!({"capacity": 9})).is(200);
    available("7");
}

#[test]
fn a_connection_ends_when_its_client_is_gone() {
    // Nobody decides here, so a wait lasts as long as it was asked to.
    let server = Server::start(&["api", "--item", "t=5"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let order = server.post("/v1/orders", &json!({"buyer_id": "a", "item_id": "t"})).is(202);
    for wait in [
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=2\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        format!(
            "GET /v1/orders/{} HTTP/1.1\r\nHost: t\r\nPrefer: wait=2\r\n\r\n",
            order.field("order_id")
        ),
        // Two of its pulses, one a second.
        "GET /pulse HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
    ] {
        let mut connection = server.connect();
        connection.send(wait);
        let open = || {
            let text = server.get("/metrics").text();
            let line = text.lines().find_map(|line| line.strip_prefix("flux_http_connections "));
            line.expect("the figure").parse::<u64>().expect("a number")
        };
        until("it is served", Duration::from_secs(5), || (open() == 2).then_some(()));
        drop(connection);
        until("it is ended", Duration::from_secs(10), || (open() == 1).then_some(()));
    }
}

#[test]
fn a_body_that_ends_early_orders_nothing() {
    let server = Server::start(&["--item", "t=1000"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let mut connection = server.connect();
    connection.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len() + 1
    ));
    connection.finish();
    if let Some(answer) = connection.answer("POST") {
        assert_eq!(answer.status, 400);
    }
    assert_eq!(server.get("/v1/orders").is(200).json()["orders"], json!([]));
    assert_eq!(server.item("t")["available"], 1000);
}

fn unavailable(answer: &Answer) {
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!(seconds >= 1);
    answer.clone().problem(503, "unavailable");
}

#[test]
fn one_connection_too_many_is_503() {
    let server =
        Server::start(&["--item", "t=5", "--connections-max", "2", "--connections-per-peer", "2"]);
    let get = "GET /v1/items/t HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut kept = [server.connect(), server.connect()];
    for connection in &mut kept {
        connection.send(get);
        connection.checked("GET", "/v1/items/t").is(200);
    }
    let mut connection = server.connect();
    connection.send(get);
    unavailable(&connection.answer("GET").expect("an answer"));
    assert!(connection.is_closed());
    drop(kept);
    until("room again", Duration::from_secs(5), || {
        let mut connection = server.connect();
        connection.send(get);
        (connection.answer("GET")?.status == 200).then_some(())
    });
}

#[test]
fn one_stream_too_many_is_503() {
    let server = Server::start(&["--item", "t=5", "--streams-max", "1"]);
    let path = "/v1/events?item_id=t";
    let mut connection = server.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
    connection.head().expect("a head").is(200);
    unavailable(&server.get(path));
    unavailable(&server.get("/pulse"));
    drop(connection);
    let mut capacity = 5;
    until("room again", Duration::from_secs(30), || {
        // That nobody listens is found out when there is something to say.
        capacity += 1;
        server.put("/v1/items/t", &json!({"capacity": capacity})).is(200);
        let mut connection = server.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        (connection.head()?.status == 200).then_some(())
    });
}

#[test]
fn one_request_too_many_is_503() {
    // Nobody decides here, so whoever waits keeps a place.
    let server = Server::start(&["api", "--item", "t=5", "--requests-max", "1"]);
    let order = server.post("/v1/orders", &json!({"buyer_id": "a", "item_id": "t"})).is(202);
    let path = format!("/v1/orders/{}", order.field("order_id"));
    // It may come while the place is somebody's who looks, and tries again then.
    let wait = || {
        until("its turn", Duration::from_secs(30), || {
            let answer = server.call("GET", &path).header("prefer", "wait=3").send();
            (answer.status != 503).then_some(answer)
        })
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        until("it waits", Duration::from_secs(30), || {
            let answer = server.get("/v1/items/t");
            (answer.status == 503).then(|| unavailable(&answer))
        });
        // Health is asked all the more then.
        server.get("/healthz").is(200);
        server.get("/readyz").is(200);
        waiting.join().expect("no panic").is(200);
    });
    server.get("/v1/items/t").is(200);
}
