//! What is attached to an order, and the line that a rejected one failed on.

use serde_json::{Value, json};

use crate::harness::Server;
use crate::new_id;

#[test]
fn what_is_attached_stays_with_the_order() {
    let server = Server::start(&["--item", "t=5"]);
    let metadata = json!({"basket": "7", "note": "ü \"quoted\"\n"});
    let order = json!({"buyer_id": "ann", "item_id": "t", "metadata": metadata});
    let held = server.order(&order).is(201);
    assert_eq!(held.json()["metadata"], metadata);
    let path = held.header("location");
    server.post(format!("{path}/confirm"), &json!({"payment_ref": "p1"})).is(200);
    assert_eq!(server.get(path).is(200).json()["metadata"], metadata);
    let listed = server.get("/v1/orders?buyer_id=ann").is(200).json();
    assert_eq!(listed["orders"][0]["metadata"], metadata);
}

#[test]
fn an_order_without_any_has_no_such_member() {
    let server = Server::start(&["--item", "t=5"]);
    for order in [
        json!({"buyer_id": "ann", "item_id": "t"}),
        json!({"buyer_id": "ann", "item_id": "t", "metadata": {}}),
    ] {
        let held = server.order(&order).is(201).json();
        assert_eq!((held.get("metadata"), held.get("failed_line")), (None, None));
    }
}

#[test]
fn a_repeat_must_have_the_same_attached() {
    let server = Server::start(&["--item", "t=5"]);
    let id = new_id();
    let order = |metadata: Value| {
        let lines = json!([{"item_id": "t"}]);
        json!({"order_id": id, "buyer_id": "ann", "lines": lines, "metadata": metadata})
    };
    let first = server.order(&order(json!({"a": "1", "b": "2"}))).is(201).json();
    assert_eq!(server.order(&order(json!({"b": "2", "a": "1"}))).is(201).json(), first);
    for other in [json!({}), json!({"a": "1"}), json!({"a": "1", "b": "3"})] {
        let refused = server.order(&order(other)).is(422).json();
        assert_eq!(refused["type"], "/problems/order-id-reused");
    }
}

#[test]
fn too_much_of_it_is_400_and_names_the_field() {
    let server = Server::start(&["--item", "t=5"]);
    let many = |n: usize| -> Value { (0..n).map(|n| (format!("n{n}"), json!("x"))).collect() };
    let order = |metadata: &Value| json!({"buyer_id": "ann", "item_id": "t", "metadata": metadata});
    for most in [many(16), json!({"n".repeat(64): "x".repeat(1_984)}), json!({"~!": ""})] {
        assert_eq!(server.order(&order(&most)).is(201).json()["metadata"], most);
    }
    for wrong in [
        many(17),
        json!({"n".repeat(65): ""}),
        json!({"": "x"}),
        json!({"a b": "x"}),
        json!({"é": "x"}),
        json!({"n": "x".repeat(2_048)}),
        json!({"n": 1}),
        json!({"n": null}),
        json!(["n"]),
        json!("n"),
        Value::Null,
    ] {
        let refused = server.order(&order(&wrong)).is(400).json();
        assert_eq!(refused["type"], "/problems/invalid-request");
        let detail = refused["detail"].as_str().expect("a text");
        assert!(detail.contains("metadata"), "{wrong}: {detail}");
    }
}

#[test]
fn a_rejected_order_names_the_line_that_failed() {
    let server = Server::start(&["--item", "t=5", "--item", "few=1"]);
    // One that is gone at the gate is not recorded, so it must go by the decision.
    server.put("/v1/items/capped", &json!({"capacity": 5, "max_per_buyer": 1})).is(201);
    let lines = json!([{"item_id": "t"}, {"item_id": "capped", "quantity": 2}]);
    let refused = server.order(&json!({"buyer_id": "ann", "lines": lines})).is(409).json();
    assert_eq!(refused["type"], "/problems/buyer-limit");
    assert_eq!(refused["order"]["failed_line"], 1);
    let detail = refused["detail"].as_str().expect("a text");
    assert!(detail.starts_with("capped: "), "{detail}");
}
