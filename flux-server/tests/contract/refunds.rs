//! Money that is owed: noted, listed, and returned once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Server, until};
use crate::new_id;

fn confirm(server: &Server, id: &str, payment: &str) -> Answer {
    server.post(format_args!("/v1/orders/{id}/confirm"), &json!({"payment_ref": payment}))
}

fn refunded(server: &Server, id: &str, refund: &str) -> Answer {
    server.post(format_args!("/v1/orders/{id}/refunded"), &json!({"refund_ref": refund}))
}

/// The orders whose money is owed.
fn owed(server: &Server) -> Vec<Value> {
    let page = server.get("/v1/orders?owed=true").is(200).json();
    page["orders"].as_array().expect("a list").clone()
}

/// Waits until exactly these orders are listed as owing.
#[track_caller]
fn owing(server: &Server, orders: &[&Value]) {
    until("what is owed is listed", Duration::from_secs(5), || {
        let mut listed = owed(server);
        let mut wanted: Vec<Value> = orders.iter().map(|order| (*order).clone()).collect();
        let id = |order: &Value| order["order_id"].to_string();
        listed.sort_by_key(id);
        wanted.sort_by_key(id);
        (listed == wanted).then_some(())
    });
}

#[test]
fn a_cancelled_orders_money_is_returned_once() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    refunded(&server, &id, "refund_1").problem(409, "not-owed");
    let paid = confirm(&server, &id, "payment_1").is(200).json();
    refunded(&server, &id, "refund_1").problem(409, "not-owed");
    assert_eq!(server.read_order(&id), paid);
    owing(&server, &[]);

    let cancelled = server.act(format_args!("/v1/orders/{id}/cancel")).is(200).json();
    assert!(cancelled["owed_since"].is_string(), "{cancelled}");
    owing(&server, &[&cancelled]);
    let told = refunded(&server, &id, "refund_1").is(200).json();
    let members = (&told["status"], &told["refund_ref"], &told["owed_since"]);
    assert_eq!(members, (&json!("cancelled"), &json!("refund_1"), &cancelled["owed_since"]));
    assert!(told["refunded_at"].is_string(), "{told}");
    assert_eq!(refunded(&server, &id, "refund_1").is(200).json(), told);
    let other = refunded(&server, &id, "refund_2");
    other.problem(409, "already-refunded");
    assert_eq!(server.read_order(&id), told);
    owing(&server, &[]);
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn money_for_what_was_released_or_rejected_is_noted() {
    let server = Server::start(&["--item", "t=5"]);
    let released = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    server.act(format_args!("/v1/orders/{released}/release")).is(200);
    server.put("/v1/items/t", &json!({"capacity": 5, "max_per_buyer": 1})).is(200);
    let greedy = json!({"buyer_id": "bob", "item_id": "t", "quantity": 2});
    let rejected = server.order(&greedy).is(409).json()["order"]["order_id"].clone();
    let rejected = rejected.as_str().expect("an id").to_owned();

    let mut shown = Vec::new();
    for (id, status) in [(&released, "released"), (&rejected, "rejected")] {
        let refused = confirm(&server, id, "payment_1");
        let order = refused.problem(409, "not-held").json()["order"].clone();
        assert_eq!(
            (&order["status"], &order["payment_ref"]),
            (&json!(status), &json!("payment_1"))
        );
        assert!(order["owed_since"].is_string(), "{order}");
        assert_eq!(server.read_order(id), order);
        // The same again, and one more that is not noted.
        for payment in ["payment_1", "payment_2"] {
            let again = confirm(&server, id, payment);
            assert_eq!(again.problem(409, "not-held").json()["order"], order);
        }
        shown.push(order);
    }
    owing(&server, &[&shown[0], &shown[1]]);
    let page = server.get("/v1/orders?owed=true&buyer_id=ann&limit=1").is(200).json();
    assert_eq!(page["orders"][0], shown[0]);
    refunded(&server, &released, "refund_1").is(200);
    owing(&server, &[&shown[1]]);
}

#[test]
fn what_is_owed_outlasts_a_restart() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    server.act(format_args!("/v1/orders/{id}/release")).is(200);
    let order = confirm(&server, &id, "p").problem(409, "not-held").json()["order"].clone();
    let server = server.crash().start();
    owing(&server, &[&order]);
    let told = refunded(&server, &id, "r").is(200).json();
    let server = server.crash().start();
    owing(&server, &[]);
    assert_eq!(refunded(&server, &id, "r").is(200).json(), told);
}

#[test]
fn a_refund_of_what_is_not_there_or_not_well_said_is_refused() {
    let server = Server::start(&["--item", "t=5"]);
    refunded(&server, &new_id(), "r").problem(404, "not-found");
    refunded(&server, "x", "r").problem(400, "invalid-request");
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let path = format!("/v1/orders/{id}/refunded");
    for body in [
        json!({}),
        json!({"refund_ref": ""}),
        json!({"refund_ref": "a b"}),
        json!({"refund_ref": "r".repeat(129)}),
        json!({"refund_ref": null}),
        json!({"payment_ref": "p"}),
        json!({"refund_ref": "r", "amount": 1}),
    ] {
        let problem = server.post(path.as_str(), &body);
        let detail = problem.problem(400, "invalid-request").json()["detail"].to_string();
        assert!(
            ["refund_ref", "payment_ref", "amount"].iter().any(|f| detail.contains(f)),
            "{detail}"
        );
    }
    for owed in ["false", "1", "", "TRUE"] {
        let wrong = server.get(format!("/v1/orders?owed={owed}"));
        let detail = wrong.problem(400, "invalid-request").json()["detail"].to_string();
        assert!(detail.contains("owed"), "{detail}");
    }
}
