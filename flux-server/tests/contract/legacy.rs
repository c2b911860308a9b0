//! `/buy` and `/inventory`, the legacy calls, as the system before Flux answered them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::from_now;
use crate::harness::{Answer, Server, until};

fn buy(server: &Server, body: &Value) -> Answer {
    let answer = server.post("/buy", body);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    answer
}

#[test]
fn buy_answers_200_with_the_order_as_sent() {
    let server = Server::start(&["--item", "t=5"]);
    let body = json!({"user_id": "ann", "item_id": "t", "colour": {"any": [1, null]}});
    let answer = buy(&server, &body).is(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let bought = answer.json();
    assert_eq!(bought["message"], "Order received");
    assert_eq!(bought["order"]["user_id"], "ann");
    assert_eq!(bought["order"]["item_id"], "t");
    let path = format!("/v1/orders/{}", answer.field("order_id"));
    let order = server.call("GET", path).header("prefer", "wait=10").send().is(200).json();
    assert_eq!((&order["buyer_id"], &order["status"]), (&json!("ann"), &json!("held")));
    assert_eq!(order["lines"], json!([{"item_id": "t", "quantity": 1}]));
}

#[test]
fn buy_says_what_is_missing_unknown_sold_out_or_not_on_sale() {
    let server = Server::start(&["--item", "t=1", "--item", "none=0"]);
    server.put("/v1/items/later", &json!({"capacity": 9, "opens_at": from_now(3600)})).is(201);
    server.put("/v1/items/past", &json!({"capacity": 9, "closes_at": from_now(-3600)})).is(201);
    for (item, said) in [("later", "Not open yet"), ("past", "Closed")] {
        let refused = buy(&server, &json!({"user_id": "a", "item_id": item})).is(409);
        assert_eq!(refused.json(), json!({"error": said}));
    }
    let missing = json!({"error": "Missing user_id or item_id"});
    let bodies = [
        json!({}),
        json!({"user_id": "a"}),
        json!({"item_id": "t"}),
        json!({"order_id": "x"}),
        json!({"user_id": "", "item_id": "t"}),
        json!({"user_id": "a", "item_id": ""}),
        json!({"user_id": null, "item_id": "t"}),
    ];
    for body in bodies {
        assert_eq!(buy(&server, &body).is(400).json(), missing, "{body}");
    }
    let unknown = buy(&server, &json!({"user_id": "a", "item_id": "nowhere"})).is(404);
    assert_eq!(unknown.json(), json!({"error": "No such item"}));
    assert_eq!(unknown.header("content-type"), "application/json");
    let sold_out = json!({"error": "Sold out"});
    let none = buy(&server, &json!({"user_id": "a", "item_id": "none"})).is(409);
    assert_eq!(none.json(), sold_out);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    assert_eq!(buy(&server, &json!({"user_id": "a", "item_id": "t"})).is(409).json(), sold_out);
}

#[test]
fn what_is_malformed_is_400_on_buy_too() {
    let server = Server::start(&["--item", "t=5"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1"]})).is(201);
    let long = "x".repeat(129);
    let bodies = [
        json!({"user_id": 7, "item_id": "t"}),
        json!({"user_id": "a b", "item_id": "t"}),
        json!({"user_id": "a", "item_id": "é"}),
        json!({"user_id": long, "item_id": "t"}),
        json!({"user_id": "a", "item_id": ["t"]}),
        json!({"user_id": "a", "item_id": "hall"}),
        json!([]),
        json!("a"),
        json!(null),
    ];
    for body in bodies {
        assert_eq!(buy(&server, &body).is(400).status, 400, "{body}");
    }
    for body in ["", "{", r#"{"user_id":"a","user_id":"a","item_id":"t"}"#] {
        let call = server.call("POST", "/buy").header("content-type", "application/json");
        let answer = call.body(body).send().is(400);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let call = server.call("POST", "/buy").body(r#"{"user_id":"a","item_id":"t"}"#);
    let answer = call.send().problem(415, "not-json");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn inventory_lists_each_sold_or_held_unit() {
    let server = Server::start(&["--item", "t=9"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2", "A3"]})).is(201);
    let inventory = || {
        let answer = server.get("/inventory").is(200);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let mut units: Vec<(String, String)> = answer
            .json()
            .as_array()
            .expect("a list")
            .iter()
            .map(|unit| (unit["id"].to_string(), unit["owner"].to_string()))
            .collect();
        units.sort();
        units
    };
    let unit = |id: &str, owner: &str| (json!(id).to_string(), json!(owner).to_string());
    assert_eq!(inventory(), []);
    let two = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    let seats = json!({"buyer_id": "bob", "item_id": "hall", "seats": ["A3", "A1"]});
    let seats = server.held(&seats);
    let gone = server.held(&json!({"buyer_id": "cleo", "item_id": "t"}));
    server.act(format_args!("/v1/orders/{gone}/release")).is(200);
    server.order(&json!({"buyer_id": "cleo", "item_id": "t", "quantity": 20})).is(409);
    let expected = [unit("A1", "bob"), unit("A3", "bob"), unit("t", "ann"), unit("t", "ann")];
    assert_eq!(inventory(), expected);
    let confirm = |id: &str| {
        server.post(format_args!("/v1/orders/{id}/confirm"), &json!({"payment_ref": "p"})).is(200)
    };
    confirm(&two);
    confirm(&seats);
    assert_eq!(inventory(), expected);
    server.act(format_args!("/v1/orders/{two}/cancel")).is(200);
    assert_eq!(inventory(), [unit("A1", "bob"), unit("A3", "bob")]);
    buy(&server, &json!({"user_id": "dora", "item_id": "t"})).is(200);
    until("bought", Duration::from_secs(10), || {
        (inventory() == [unit("A1", "bob"), unit("A3", "bob"), unit("t", "dora")]).then_some(())
    });
}

#[test]
fn a_long_inventory_comes_in_pieces_to_a_few_at_a_time() {
    let items: Vec<String> = (0..10).map(|n| format!("i{n}")).collect();
    let pools: Vec<String> = items.iter().map(|item| format!("--item={item}=1000000")).collect();
    let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
    let server = Server::start(&pools);
    let lines: Vec<_> =
        items.iter().map(|item| json!({"item_id": item, "quantity": 1000})).collect();
    let order = json!({"buyer_id": "b".repeat(128), "lines": lines});
    // More than the system keeps for readers that do not read.
    for _ in 0..10 {
        server.held(&order);
    }
    let ask = "GET /inventory HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut slow: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send(ask);
        connection.head().expect("a head").is(200);
    }
    server.get("/inventory").problem(503, "unavailable");
    let mut connection = slow.pop().expect("one of them");
    let mut whole = Vec::new();
    while let Some(piece) = connection.chunk() {
        assert!(piece.len() <= 65 * 1024, "{}", piece.len());
        whole.extend(piece);
    }
    let units: Vec<Value> = serde_json::from_slice(&whole).expect("JSON");
    assert_eq!(units.len(), 100_000);
    drop(slow);
    until("room again", Duration::from_secs(10), || {
        (server.get("/inventory").status == 200).then_some(())
    });
}

#[test]
fn any_page_may_call_the_first_systems_paths() {
    let server = Server::start(&["--item", "t=1"]);
    for (path, method) in [("/buy", "POST"), ("/inventory", "GET")] {
        let call = server.call("OPTIONS", path).header("origin", "https://shop.example");
        let call = call.header("access-control-request-method", method);
        let answer = call.header("access-control-request-headers", "content-type").send().is(204);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-allow-methods").contains(method));
        let headers = answer.header("access-control-allow-headers").to_ascii_lowercase();
        assert!(headers.contains("content-type") || headers == "*", "{headers}");
        server.call("OPTIONS", path).send().is(204);
        // Errors can be read as well.
        let answer = server.call("DELETE", path).send().problem(405, "method-not-allowed");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}
