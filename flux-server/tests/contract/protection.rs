//! Rates, slow clients and connections that end early.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Answer, Server, until};

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
fn money_that_came_is_ruled_on_whoever_hangs_up() {
    let server = Server::start(&["--item", "t=1000"]);
    let order = |n| server.held(&json!({"buyer_id": format!("b{n}"), "item_id": "t"}));
    let ids: Vec<_> = (0..20).map(order).collect();
    for id in &ids {
        let body = r#"{"payment_ref":"p"}"#;
        let mut wire = server.connect();
        wire.send(format!(
            "POST /v1/orders/{id}/confirm HTTP/1.1\r\nHost: t\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        drop(wire);
    }
    until("all are confirmed", Duration::from_secs(10), || {
        (server.item("t")["sold"] == 20).then_some(())
    });
}

#[test]
fn a_body_that_ends_early_orders_nothing() {
    let server = Server::start(&["--item", "t=1000"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let mut wire = server.connect();
    wire.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len() + 1
    ));
    wire.finish();
    if let Some(answer) = wire.answer("POST") {
        assert_eq!(answer.status, 400);
    }
    assert_eq!(server.get("/v1/orders").is(200).json()["orders"], json!([]));
    assert_eq!(server.item("t")["available"], 1000);
}
