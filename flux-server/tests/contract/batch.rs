//! `POST /v1/orders/batch`: many orders, each answered as it would be alone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Server, Setup, until};
use crate::new_id;

fn batch(server: &Server, orders: &Value, wait: Option<u32>) -> Answer {
    let call = server.call("POST", "/v1/orders/batch").json(&json!({ "orders": orders }));
    match wait {
        Some(wait) => call.header("prefer", &format!("wait={wait}")).send(),
        None => call.send(),
    }
}

fn results(answer: &Answer) -> Vec<Value> {
    answer.json()["results"].as_array().expect("a list").clone()
}

/// What the single call answers, as the batch has it.
fn alone(server: &Server, order: &Value) -> (u16, Value) {
    let answer = server.call("POST", "/v1/orders").header("prefer", "wait=5").json(order).send();
    (answer.status, answer.json())
}

#[test]
fn each_is_answered_in_its_place_as_it_would_be_alone() {
    let server = Server::start(&["--item", "t=50", "--item", "few=1"]);
    server.put("/v1/items/capped", &json!({"capacity": 9, "max_per_buyer": 1})).is(201);
    let (known, fresh) = (new_id(), new_id());
    let order = json!({"order_id": known, "buyer_id": "ann", "item_id": "t"});
    let first = server.order(&order).is(201).json();
    let orders = json!([
        {"order_id": fresh, "buyer_id": "ann", "item_id": "t", "quantity": 2, "metadata": {"n": "1"}},
        order,
        {"order_id": known, "buyer_id": "bob", "item_id": "t"},
        {"buyer_id": "ann", "item_id": "capped", "quantity": 2},
        {"buyer_id": "ann", "item_id": "few", "quantity": 2},
        {"buyer_id": "ann", "item_id": "nothing"},
        {"buyer_id": "ann", "item_id": "t", "quantity": 0},
        {"buyer_id": "ann", "buyer_id": "bob"},
        7,
    ]);
    let text = r#"{"orders": ORDERS}"#.replace("ORDERS", &orders.to_string());
    // A key twice is the order's own fault, so it is put in by hand.
    let twice = r#"{"buyer_id":"ann","buyer_id":"bob","item_id":"t"}"#;
    let text = text.replace(r#"{"buyer_id":"bob"}"#, twice);
    let call = server.call("POST", "/v1/orders/batch").header("content-type", "application/json");
    let answer = call.header("prefer", "wait=5").body(text).send().is(200);
    assert_eq!(answer.header("preference-applied"), "wait=5");
    let results = results(&answer);
    let statuses: Vec<u64> =
        results.iter().map(|result| result["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [201, 201, 422, 409, 409, 404, 400, 400, 400], "{results:?}");
    assert_eq!(results[0]["order"]["status"], "held");
    assert_eq!(results[0]["order"]["metadata"]["n"], "1");
    assert_eq!(results[1]["order"], first, "a repeat");
    for (at, order) in [(2, &orders[2]), (4, &orders[4]), (5, &orders[5]), (6, &orders[6])] {
        let (status, problem) = alone(&server, order);
        assert_eq!((&results[at]["status"], &results[at]["problem"]), (&json!(status), &problem));
    }
    assert_eq!(results[3]["problem"]["type"], "/problems/buyer-limit");
    assert_eq!(results[3]["problem"]["order"]["status"], "rejected");
    assert!(results[4]["problem"].get("order").is_none(), "the gate records nothing");
    assert!(results[7]["problem"]["detail"].to_string().contains("buyer_id"), "{}", results[7]);
    assert_eq!(server.read_order(&fresh), results[0]["order"]);
    assert_eq!(server.item("t")["held"], 3);
}

#[test]
fn without_a_wait_each_is_accepted() {
    let server = Server::start(&["--item", "t=600"]);
    let order = |n: u32| json!({"order_id": new_id(), "buyer_id": format!("b{n}"), "item_id": "t"});
    let orders: Vec<Value> = (0..500).map(order).collect();
    let answer = batch(&server, &json!(orders), None).is(200);
    assert_eq!(answer.maybe_header("preference-applied"), None);
    for (result, order) in results(&answer).iter().zip(&orders) {
        assert_eq!(
            (&result["status"], &result["order"]["status"]),
            (&json!(202), &json!("queued"))
        );
        assert_eq!(result["order"]["order_id"], order["order_id"]);
    }
    // Once more, as somebody who got no answer would, and waiting this time.
    let answer = batch(&server, &json!(orders), Some(10)).is(200);
    for (result, order) in results(&answer).iter().zip(&orders) {
        assert_eq!((&result["status"], &result["order"]["status"]), (&json!(201), &json!("held")));
        assert_eq!(result["order"]["order_id"], order["order_id"]);
    }
    assert_eq!(server.item("t")["held"], 500);
}

#[test]
fn what_is_wrong_with_the_batch_itself_is_refused() {
    let server = Server::start(&["--item", "t=5"]);
    let one = json!({"buyer_id": "ann", "item_id": "t"});
    for (body, named) in [
        (json!({}), "orders"),
        (json!({"orders": []}), "orders"),
        (json!({"orders": vec![&one; 501]}), "500"),
        (json!({"orders": {}}), "orders"),
        (json!({"orders": [one], "more": 1}), "more"),
        (json!([one]), "object"),
    ] {
        let answer = server.post("/v1/orders/batch", &body).problem(400, "invalid-request");
        assert!(answer.field("detail").contains(named), "{}", answer.text());
    }
    let keyed = server.call("POST", "/v1/orders/batch").header("idempotency-key", "k");
    keyed.json(&json!({"orders": [one]})).send().problem(400, "invalid-request");
    let large = json!({"orders": [{"buyer_id": "ann", "item_id": "t", "x": "x".repeat(1 << 20)}]});
    server.post("/v1/orders/batch", &large).problem(413, "body-too-large");
    server.get("/v1/orders/batch").problem(405, "method-not-allowed");
    assert_eq!(server.item("t")["held"], 0);
}

#[test]
fn only_so_many_have_their_bodies_here_at_once() {
    let server = Server::start(&["--item", "t=50"]);
    let half = "POST /v1/orders/batch HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
                Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    let mut begun = Vec::new();
    let refused = loop {
        let mut connection = server.connect_from(2);
        connection.send(half);
        let head = connection.head().expect("an answer");
        if head.status != 100 {
            break head;
        }
        begun.push(connection);
        assert!(begun.len() < 64, "nobody was refused");
    };
    assert_eq!((refused.status, begun.len()), (503, 32), "an address has half of them");
    assert!(refused.maybe_header("retry-after").is_some());
    let orders = json!([{"buyer_id": "ann", "item_id": "t"}]);
    assert_eq!(results(&batch(&server, &orders, Some(5)).is(200))[0]["status"], 201);
    drop(begun);
    until("there is room again", Duration::from_secs(20), || {
        let mut connection = server.connect_from(2);
        connection.send(half);
        (connection.head()?.status == 100).then_some(())
    });
}

#[test]
fn each_counts_against_the_limits() {
    let server = Setup::new().args(&["--item", "t=50", "--limit-per-buyer", "5"]).start();
    let orders = json!(vec![json!({"buyer_id": "ann", "item_id": "t"}); 20]);
    let results = results(&batch(&server, &orders, Some(5)).is(200));
    let held = results.iter().filter(|result| result["status"] == 201).count();
    assert!((5..20).contains(&held), "{results:?}");
    let limited = results.iter().find(|result| result["status"] == 429).expect("too many");
    assert_eq!(limited["problem"]["type"], "/problems/too-many-requests");
    assert!(limited["retry_after"].as_u64().is_some_and(|seconds| seconds >= 1), "{limited}");
}
