//! The fields of an order: everything else is refused by name.

use serde_json::{Value, json};

use crate::harness::{Answer, Server};
use crate::new_id;

fn shop() -> Server {
    let server = Server::start(&["--item", "t=100000", "--item", "u=5"]);
    let seats: Vec<String> = (0..150).map(|n| format!("s{n}")).collect();
    server.put("/v1/items/hall", &json!({"seats": seats})).is(201);
    server
}

fn post(server: &Server, body: &str) -> Answer {
    let call = server.call("POST", "/v1/orders").header("content-type", "application/json");
    call.header("prefer", "wait=10").body(body).send()
}

#[test]
fn every_field_out_of_range_or_of_another_kind_is_400_and_named() {
    let server = shop();
    let long = "x".repeat(129);
    let seats = |n: usize| json!((0..n).map(|n| format!("s{n}")).collect::<Vec<_>>());
    let order = |field: &str, value: Value| {
        let mut order = json!({"buyer_id": "ann", "item_id": "t"});
        order[field] = value;
        order
    };
    let mut refused = Vec::new();
    for id in [json!(""), json!(long), json!("a b"), json!("é"), json!("a\u{7f}"), json!("\n")] {
        refused.push(("buyer_id", order("buyer_id", id.clone())));
        refused.push(("item_id", order("item_id", id.clone())));
        let hall = json!({"buyer_id": "ann", "item_id": "hall", "seats": ["s0", id]});
        refused.push(("seat", hall));
    }
    for odd in [json!(7), json!(true), json!(null), json!(["a"]), json!({"a": 1})] {
        refused.push(("buyer_id", order("buyer_id", odd.clone())));
        refused.push(("item_id", order("item_id", odd.clone())));
        refused.push(("order_id", order("order_id", odd.clone())));
        if !odd.is_array() {
            refused.push(("seats", order("seats", odd.clone())));
            refused.push(("lines", json!({"buyer_id": "ann", "lines": odd})));
        }
    }
    let numbers = [json!(0), json!(1001), json!(-1), json!(1.5), json!("2"), json!(null)];
    for quantity in numbers.into_iter().chain([json!(u64::MAX), json!(1e300), json!([1])]) {
        refused.push(("quantity", order("quantity", quantity.clone())));
        let line = json!({"item_id": "t", "quantity": quantity});
        refused.push(("quantity", json!({"buyer_id": "ann", "lines": [line]})));
    }
    let simple = "0193a5b0abcd7ef08123456789abcdef";
    let urn = "urn:uuid:0193a5b0-abcd-7ef0-8123-456789abcdef";
    let braced = "{0193a5b0-abcd-7ef0-8123-456789abcdef}";
    for id in ["", "1", simple, urn, braced, "0193a5b0-abcd-7ef0-8123-456789abcdeg"] {
        refused.push(("order_id", order("order_id", json!(id))));
    }
    for n in [0, 101] {
        let mut hall = json!({"buyer_id": "ann", "item_id": "hall", "seats": seats(n)});
        refused.push(("seats", hall.clone()));
        hall = json!({"buyer_id": "ann", "lines": [{"item_id": "hall", "seats": seats(n)}]});
        refused.push(("seats", hall));
    }
    let lines =
        |n: usize| -> Vec<_> { (0..n).map(|n| json!({"item_id": format!("i{n}")})).collect() };
    for n in [0, 11] {
        refused.push(("lines", json!({"buyer_id": "ann", "lines": lines(n)})));
    }
    for (field, body) in refused {
        server.order(&body).names(field);
    }
    assert_eq!(server.item("t")["available"], 100_000);
}

#[test]
fn the_bounds_themselves_are_taken() {
    let server = shop();
    let name = "~".repeat(128);
    server.put(format_args!("/v1/items/{name}"), &json!({"capacity": 5})).is(201);
    server.held(&json!({"buyer_id": "!".repeat(128), "item_id": name}));
    server.held(&json!({"buyer_id": "a", "item_id": "t", "quantity": 1000}));
    let seats: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    server.held(&json!({"buyer_id": "a", "item_id": "hall", "seats": seats}));
    let items: Vec<String> = (0..10).map(|n| format!("i{n}")).collect();
    for item in &items {
        server.put(format_args!("/v1/items/{item}"), &json!({"capacity": 5})).is(201);
    }
    let lines: Vec<_> = items.iter().map(|item| json!({"item_id": item})).collect();
    let held = server.order(&json!({"buyer_id": "a", "lines": lines})).is(201).json();
    assert_eq!(held["lines"][9], json!({"item_id": "i9", "quantity": 1}));
    for id in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
        server.held(&json!({"order_id": id, "buyer_id": "a", "item_id": "t"}));
    }
}

#[test]
fn unknown_missing_and_mixed_fields_are_400() {
    let server = shop();
    let refused = [
        ("surprise", json!({"buyer_id": "a", "item_id": "t", "surprise": 1})),
        ("Quantity", json!({"buyer_id": "a", "item_id": "t", "Quantity": 1})),
        ("surprise", json!({"buyer_id": "a", "lines": [{"item_id": "t", "surprise": 1}]})),
        ("buyer_id", json!({"buyer_id": "a", "lines": [{"item_id": "t", "buyer_id": "a"}]})),
        ("buyer_id", json!({"item_id": "t"})),
        ("item_id", json!({"buyer_id": "a"})),
        ("item_id", json!({"buyer_id": "a", "quantity": 1})),
        ("item_id", json!({"buyer_id": "a", "lines": [{"quantity": 1}]})),
        ("lines", json!({"buyer_id": "a", "item_id": "t", "lines": [{"item_id": "t"}]})),
        ("quantity", json!({"buyer_id": "a", "quantity": 1, "lines": [{"item_id": "t"}]})),
        ("seats", json!({"buyer_id": "a", "item_id": "hall", "quantity": 1, "seats": ["s1"]})),
        ("lines", json!({"buyer_id": "a", "lines": ["t"]})),
    ];
    for (field, body) in refused {
        server.order(&body).names(field);
    }
}

#[test]
fn repeated_keys_are_400_and_named() {
    let server = shop();
    let refused = [
        ("buyer_id", r#"{"buyer_id":"a","buyer_id":"a","item_id":"t"}"#),
        ("item_id", r#"{"buyer_id":"a","item_id":"t","item_id":"u"}"#),
        ("quantity", r#"{"buyer_id":"a","item_id":"t","quantity":1,"quantity":2}"#),
        ("quantity", r#"{"buyer_id":"a","item_id":"t","quantity":1,"qu\u0061ntity":2}"#),
        ("item_id", r#"{"buyer_id":"a","lines":[{"item_id":"t","item_id":"t"}]}"#),
        ("lines", r#"{"buyer_id":"a","lines":[{"item_id":"t"}],"lines":[{"item_id":"u"}]}"#),
        ("seats", r#"{"buyer_id":"a","item_id":"hall","seats":["s1"],"seats":["s2"]}"#),
        ("order_id", r#"{"order_id":"x","order_id":"x","buyer_id":"a","item_id":"t"}"#),
    ];
    for (field, body) in refused {
        post(&server, body).names(field);
    }
}

#[test]
fn what_is_not_one_json_object_is_400() {
    let server = shop();
    let deep = "[".repeat(30_000);
    let bodies = [
        "",
        " ",
        "null",
        "[]",
        "7",
        "\"a\"",
        "{",
        "{}x",
        "{\"buyer_id\":\"a\",}",
        "nan",
        r#"{"buyer_id":"a","item_id":"t"} {}"#,
        r#"{buyer_id:"a",item_id:"t"}"#,
        "\u{feff}{\"buyer_id\":\"a\",\"item_id\":\"t\"}",
        deep.as_str(),
        r#"{"buyer_id":"a","item_id":"\ud800"}"#,
        r#"["a","t"]"#,
    ];
    for body in bodies {
        post(&server, body).problem(400, "invalid-request");
    }
    let call = server.call("POST", "/v1/orders").header("content-type", "application/json");
    call.body(&b"{\"buyer_id\":\"\xff\",\"item_id\":\"t\"}"[..])
        .send()
        .problem(400, "invalid-request");
}

#[test]
fn lines_that_contradict_each_other_or_the_item_are_400() {
    let server = shop();
    let order = |lines: Value| json!({"buyer_id": "a", "lines": lines});
    let refused = [
        ("item_id", order(json!([{"item_id": "t"}, {"item_id": "u"}, {"item_id": "t"}]))),
        (
            "item_id",
            order(
                json!([{"item_id": "hall", "seats": ["s1"]}, {"item_id": "hall", "seats": ["s2"]}]),
            ),
        ),
        ("seats", json!({"buyer_id": "a", "item_id": "hall", "seats": ["s1", "s2", "s1"]})),
        ("seats", json!({"buyer_id": "a", "item_id": "hall", "seats": ["s1", "nowhere"]})),
        ("quantity", json!({"buyer_id": "a", "item_id": "hall"})),
        ("quantity", json!({"buyer_id": "a", "item_id": "hall", "quantity": 1})),
        ("seats", json!({"buyer_id": "a", "item_id": "t", "seats": ["s1"]})),
    ];
    for (field, body) in refused {
        let id = new_id();
        let mut body = body;
        body["order_id"] = json!(id);
        let answer = server.order(&body).problem(400, "invalid-request");
        let detail = answer.field("detail");
        // The field, or what stands in it.
        assert!(detail.contains(field) || detail.contains("lines"), "{body}: {detail}");
        server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
    }
}

#[test]
fn a_body_must_say_that_it_is_json() {
    let server = shop();
    let body = json!({"buyer_id": "a", "item_id": "t"}).to_string();
    let post = |kind: Option<&str>| {
        let call = server.call("POST", "/v1/orders").header("prefer", "wait=10");
        let call = match kind {
            Some(kind) => call.header("content-type", kind),
            None => call,
        };
        call.body(body.as_str()).send()
    };
    let taken = [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;charset=UTF-8",
    ];
    for kind in taken {
        post(Some(kind)).is(201);
    }
    let refused = [
        "text/plain",
        "application/jsonp",
        "application/json-patch+json",
        "json",
        "text/json",
        "application/x-www-form-urlencoded",
        "",
        "*/*",
        "application/problem+json",
    ];
    for kind in refused {
        post(Some(kind)).problem(415, "not-json");
    }
    post(None).problem(415, "not-json");
    // The body's type is checked before its contents.
    let call = server.call("POST", "/v1/orders").header("content-type", "text/plain");
    call.body("{").send().problem(415, "not-json");
}
