//! Orders that nobody decides yet: the half that accepts runs alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Server;
use crate::new_id;

fn undecided() -> Server {
    Server::start(&["api", "--item", "t=5"])
}

fn order() -> Value {
    json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "t", "quantity": 2})
}

#[test]
fn a_wait_that_runs_out_is_202_with_the_queued_order() {
    let server = undecided();
    let order = order();
    for _ in 0..2 {
        let started = Instant::now();
        let call = server.call("POST", "/v1/orders").header("prefer", "wait=1");
        let answer = call.json(&order).send().is(202);
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(950), "only {waited:?}");
        assert!(waited < Duration::from_secs(5), "{waited:?} for a second");
        assert_eq!(answer.header("preference-applied"), "wait=1");
        assert_eq!(answer.json()["status"], "queued");
        assert_eq!(answer.json()["order_id"], order["order_id"]);
    }
    let started = Instant::now();
    let call = server.call("POST", "/v1/orders").header("prefer", "wait=0");
    let answer = call.json(&order).send().is(202);
    assert_eq!(answer.header("preference-applied"), "wait=0");
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[test]
fn a_queued_order_is_read_at_once_or_after_the_wait() {
    let server = undecided();
    let path = server.post("/v1/orders", &order()).is(202).header("location").to_owned();
    let started = Instant::now();
    let now = server.get(&path).is(200);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(now.maybe_header("preference-applied"), None);
    let started = Instant::now();
    let later = server.call("GET", &path).header("prefer", "wait=1").send().is(200);
    assert!(started.elapsed() >= Duration::from_millis(950), "only {:?}", started.elapsed());
    assert_eq!(later.json(), now.json());
    assert_eq!(later.json()["status"], "queued");
}

#[test]
fn a_repeat_of_a_queued_order_is_202_and_no_second_one() {
    let server = undecided();
    let order = order();
    let first = server.post("/v1/orders", &order).is(202).json();
    assert_eq!(server.post("/v1/orders", &order).is(202).json(), first);
    let mut other = order.clone();
    other["quantity"] = json!(1);
    server.post("/v1/orders", &other).problem(422, "order-id-reused");
    let keyed = |quantity: u32| {
        let body = json!({"buyer_id": "bob", "item_id": "t", "quantity": quantity});
        server.call("POST", "/v1/orders").header("idempotency-key", "k").json(&body).send()
    };
    let first = keyed(2).is(202).json();
    assert_eq!(keyed(2).is(202).json(), first);
    keyed(1).problem(422, "order-id-reused");

    // Once they are decided, each was there once.
    let server = server.crash().start();
    server.order(&order).is(201);
    let path = format!("/v1/orders/{}", first["order_id"].as_str().expect("an id"));
    let held = server.call("GET", path).header("prefer", "wait=10").send().is(200).json();
    assert_eq!((&held["status"], &held["placed_at"]), (&json!("held"), &first["placed_at"]));
    assert_eq!(server.item("t")["available"], 1);
}

#[test]
fn a_queued_order_is_neither_held_nor_confirmed() {
    let server = undecided();
    let order = order();
    server.post("/v1/orders", &order).is(202);
    let id = order["order_id"].as_str().expect("an id");
    let confirm = format!("/v1/orders/{id}/confirm");
    server.post(confirm, &json!({"payment_ref": "p"})).problem(409, "not-held");
    server.act(format_args!("/v1/orders/{id}/cancel")).problem(409, "not-confirmed");
    assert_eq!(server.read_order(id)["status"], "queued");
}

#[test]
fn a_long_wait_ends_when_the_server_stops() {
    let mut server = undecided();
    let path = server.post("/v1/orders", &order()).is(202).header("location").to_owned();
    let mut connection = server.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\nPrefer: wait=30\r\n\r\n"));
    // A later request has been answered, so this one's head has been read.
    let mut other = server.connect();
    other.send("GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
    other.answer("GET").expect("an answer").is(200);
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(connection.checked("GET", &path).is(200).json()["status"], "queued");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(server.end().success());
}
