//! Confirm, release, cancel, the end of a hold and money that comes late.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Server, until};
use crate::{millis, new_id};

fn confirm(server: &Server, id: &str, payment: &str) -> Answer {
    server.post(format_args!("/v1/orders/{id}/confirm"), &json!({"payment_ref": payment}))
}

fn release(server: &Server, id: &str) -> Answer {
    server.act(format_args!("/v1/orders/{id}/release"))
}

fn cancel(server: &Server, id: &str) -> Answer {
    server.act(format_args!("/v1/orders/{id}/cancel"))
}

/// The units of `t`: available, held, sold.
#[track_caller]
fn units(server: &Server) -> (u64, u64, u64) {
    let item = server.item("t");
    let count = |name: &str| item[name].as_u64().expect("a count");
    assert_eq!(count("available") + count("held") + count("sold"), count("capacity"), "{item}");
    (count("available"), count("held"), count("sold"))
}

#[track_caller]
fn expired(server: &Server, id: &str) -> Value {
    until("the hold ended", Duration::from_secs(5), || {
        let order = server.read_order(id);
        (order["status"] == "expired").then_some(order)
    })
}

#[test]
fn a_held_order_is_confirmed_and_cancelled() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    assert_eq!(units(&server), (3, 2, 0));
    cancel(&server, &id).problem(409, "not-confirmed");
    let paid = confirm(&server, &id, "payment_1").is(200).json();
    assert_eq!((&paid["status"], &paid["payment_ref"]), (&json!("confirmed"), &json!("payment_1")));
    assert_eq!(server.read_order(&id), paid);
    assert_eq!(units(&server), (3, 0, 2));
    assert_eq!(confirm(&server, &id, "payment_1").is(200).json(), paid);
    confirm(&server, &id, "payment_2").problem(409, "not-held");
    release(&server, &id).problem(409, "not-held");
    assert_eq!(server.read_order(&id), paid);

    let cancelled = cancel(&server, &id).is(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(units(&server), (5, 0, 0));
    assert_eq!(cancel(&server, &id).is(200).json(), cancelled);
    confirm(&server, &id, "payment_1").problem(409, "not-held");
    release(&server, &id).problem(409, "not-held");
    assert_eq!(server.read_order(&id), cancelled);
}

#[test]
fn a_released_order_frees_its_stock() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 5}));
    let released = release(&server, &id).is(200).json();
    assert_eq!(released["status"], "released");
    assert_eq!(units(&server), (5, 0, 0));
    assert_eq!(release(&server, &id).is(200).json(), released);
    confirm(&server, &id, "p").problem(409, "not-held");
    cancel(&server, &id).problem(409, "not-confirmed");
    assert_eq!(units(&server), (5, 0, 0));
}

#[test]
fn releasing_a_queued_order_decides_it_first() {
    let server = Server::start(&["--item", "t=5"]);
    server.put("/v1/items/capped", &json!({"capacity": 5, "max_per_buyer": 1})).is(201);
    for _ in 0..20 {
        let order = json!({"buyer_id": "ann", "item_id": "t", "quantity": 5});
        // The gate may still remember the order before.
        let id = until("accepted", Duration::from_secs(2), || {
            let answer = server.post("/v1/orders", &order);
            (answer.status == 202).then(|| answer.field("order_id"))
        });
        assert_eq!(release(&server, &id).is(200).field("status"), "released");
    }
    assert_eq!(units(&server), (5, 0, 0));
    let order = json!({"buyer_id": "ann", "item_id": "capped", "quantity": 2});
    let id = server.post("/v1/orders", &order).is(202).field("order_id");
    release(&server, &id).problem(409, "not-held");
}

#[test]
fn what_was_rejected_is_neither_held_nor_confirmed() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 9, "max_per_buyer": 5})).is(201);
    let order = json!({"buyer_id": "ann", "item_id": "t", "quantity": 6});
    let order = server.order(&order).is(409).json()["order"].clone();
    let id = order["order_id"].as_str().expect("an id");
    release(&server, id).problem(409, "not-held");
    cancel(&server, id).problem(409, "not-confirmed");
    assert_eq!(server.read_order(id), order);
    let owing = confirm(&server, id, "p").problem(409, "not-held").json()["order"].clone();
    assert_eq!((&owing["status"], &owing["reason"]), (&order["status"], &order["reason"]));
    assert_eq!(server.read_order(id), owing);
}

#[test]
fn an_unknown_order_is_404() {
    let server = Server::start(&[]);
    let id = new_id();
    confirm(&server, &id, "p").problem(404, "not-found");
    release(&server, &id).problem(404, "not-found");
    cancel(&server, &id).problem(404, "not-found");
    server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
}

#[test]
fn a_payment_ref_is_1_to_128_visible_ascii_characters() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let path = format!("/v1/orders/{id}/confirm");
    let long = "p".repeat(129);
    for odd in [json!(""), json!(long), json!("a b"), json!("é"), json!(7), json!(null)] {
        server.post(&path, &json!({"payment_ref": odd})).names("payment_ref");
    }
    server.post(&path, &json!({})).names("payment_ref");
    server.post(&path, &json!({"payment_ref": "p", "amount": 5})).names("amount");
    let call = server.call("POST", &path).header("content-type", "application/json");
    call.body(r#"{"payment_ref":"p","payment_ref":"p"}"#).send().names("payment_ref");
    server.call("POST", &path).body(r#"{"payment_ref":"p"}"#).send().problem(415, "not-json");
    assert_eq!(server.read_order(&id)["status"], "held");
    confirm(&server, &id, &"~".repeat(128)).is(200);
}

#[test]
fn a_hold_ends_and_its_stock_is_on_sale_within_two_seconds() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 1, "hold_seconds": 1})).is(201);
    let held = server.order(&json!({"buyer_id": "ann", "item_id": "t"})).is(201).json();
    let ends = millis(&held["hold_expires_at"]);
    assert_eq!(ends - millis(&held["decided_at"]), 1000);
    let order = json!({"buyer_id": "bob", "item_id": "t"});
    let resold = until("sold again", Duration::from_secs(10), || {
        let answer = server.order(&order);
        (answer.status == 201).then(|| answer.json())
    });
    let late = millis(&resold["decided_at"]) - ends;
    assert!((0..=2000).contains(&late), "sold again {late} ms after the hold ended");
    let id = held["order_id"].as_str().expect("an id");
    let order = expired(&server, id);
    assert_eq!(order["hold_expires_at"], held["hold_expires_at"]);
    release(&server, id).problem(409, "not-held");
    cancel(&server, id).problem(409, "not-confirmed");
}

#[test]
fn paid_too_late_the_stock_is_taken_again_if_it_is_there() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 3, "hold_seconds": 1})).is(201);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    expired(&server, &id);
    assert_eq!(units(&server), (3, 0, 0));
    let paid = confirm(&server, &id, "late").is(200).json();
    assert_eq!((&paid["status"], &paid["payment_ref"]), (&json!("confirmed"), &json!("late")));
    assert_eq!(units(&server), (1, 0, 2));
    assert_eq!(confirm(&server, &id, "late").is(200).json(), paid);
    cancel(&server, &id).is(200);
    assert_eq!(units(&server), (3, 0, 0));
}

#[test]
fn paid_too_late_for_stock_that_is_gone_is_refund_due_for_good() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 2, "hold_seconds": 1})).is(201);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    expired(&server, &id);
    server.put("/v1/items/t", &json!({"capacity": 2, "hold_seconds": 600})).is(200);
    let other = until("sold again", Duration::from_secs(2), || {
        let answer = server.order(&json!({"buyer_id": "bob", "item_id": "t"}));
        (answer.status == 201).then(|| answer.field("order_id"))
    });
    confirm(&server, &id, "late").problem(409, "refund-due");
    let order = server.read_order(&id);
    assert_eq!((&order["status"], &order["payment_ref"]), (&json!("refund_due"), &json!("late")));
    assert_eq!(units(&server), (1, 1, 0));
    // For good: not even with stock there again.
    release(&server, &other).is(200);
    confirm(&server, &id, "late").problem(409, "refund-due");
    confirm(&server, &id, "another").problem(409, "not-held");
    release(&server, &id).problem(409, "not-held");
    cancel(&server, &id).problem(409, "not-confirmed");
    assert_eq!(server.read_order(&id), order);
}

#[test]
fn paid_too_late_the_cap_still_holds() {
    let server = Server::start(&[]);
    let item = json!({"capacity": 9, "hold_seconds": 1, "max_per_buyer": 1});
    server.put("/v1/items/t", &item).is(201);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    expired(&server, &id);
    server.put("/v1/items/t", &json!({"capacity": 9, "max_per_buyer": 1})).is(200);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    confirm(&server, &id, "late").problem(409, "refund-due");
    assert_eq!(server.read_order(&id)["status"], "refund_due");
    assert_eq!(units(&server), (8, 1, 0));
}

#[test]
fn calls_that_need_no_body_take_none() {
    let server = Server::start(&["--item", "t=5"]);
    for head in
        ["", "Content-Length: 0\r\n", "Content-Type: application/json\r\nContent-Length: 0\r\n"]
    {
        let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
        let path = format!("/v1/orders/{id}/release");
        let mut connection = server.connect();
        connection.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\n{head}\r\n"));
        connection.checked("POST", &path).is(200);
    }
}
