//! Items: what PUT takes, what it answers, and how an item shows itself.

use serde_json::{Value, json};

use crate::harness::Server;
use crate::{from_now, millis};

#[test]
fn put_creates_with_201_and_repeats_with_200() {
    let server = Server::start(&[]);
    let created = server.put("/v1/items/t", &json!({"capacity": 5})).is(201);
    assert_eq!(created.header("location"), "/v1/items/t");
    let expected = json!({
        "item_id": "t", "name": null, "kind": "pool", "capacity": 5, "available": 5, "held": 0,
        "sold": 0, "state": "open", "hold_seconds": 600, "max_per_buyer": null,
        "opens_at": null, "closes_at": null,
    });
    assert_eq!(created.json(), expected);
    assert_eq!(server.item("t"), expected);
    assert_eq!(server.put("/v1/items/t", &json!({"capacity": 5})).is(200).json(), expected);
    let hall = server.put("/v1/items/hall", &json!({"seats": ["b", "a"]})).is(201).json();
    assert_eq!((&hall["kind"], &hall["capacity"]), (&json!("seats"), &json!(2)));
}

#[test]
fn put_replaces_and_what_is_absent_takes_its_default() {
    let server = Server::start(&[]);
    let full = json!({
        "name": "Stehplatz — 立見 🎫", "capacity": 5, "hold_seconds": 7, "max_per_buyer": 2,
        "opens_at": "2026-01-02T03:04:05+02:00", "closes_at": "2126-01-02T03:04:05.678901Z",
    });
    let made = server.put("/v1/items/t", &full).is(201).json();
    assert_eq!(made["name"], full["name"]);
    assert_eq!((&made["hold_seconds"], &made["max_per_buyer"]), (&json!(7), &json!(2)));
    assert_eq!(made["opens_at"], "2026-01-02T01:04:05.000Z");
    assert_eq!(made["closes_at"], "2126-01-02T03:04:05.678Z");
    let bare = server.put("/v1/items/t", &json!({"capacity": 5})).is(200).json();
    for field in ["name", "max_per_buyer", "opens_at", "closes_at"] {
        assert_eq!(bare[field], Value::Null);
    }
    assert_eq!(bare["hold_seconds"], 600);
    let mut nulls = json!({"capacity": 5});
    server.put("/v1/items/t", &full).is(200);
    for field in ["name", "max_per_buyer", "opens_at", "closes_at"] {
        nulls[field] = Value::Null;
    }
    assert_eq!(server.put("/v1/items/t", &nulls).is(200).json(), bare);
}

#[test]
fn every_field_out_of_bounds_is_400_and_named() {
    let server = Server::start(&[]);
    let item = |field: &str, value: Value| {
        let mut item = json!({"capacity": 5});
        item[field] = value;
        (field.to_owned(), item)
    };
    let many: Vec<String> = (0..=100_000).map(|n| n.to_string()).collect();
    let mut refused = vec![
        item("name", json!("x".repeat(257))),
        item("name", json!("é".repeat(129))),
        item("name", json!(7)),
        item("opens_at", json!("tomorrow")),
        item("opens_at", json!("2026-01-02")),
        item("opens_at", json!("2026-01-02T03:04:05")),
        item("opens_at", json!("2026-13-02T03:04:05Z")),
        item("closes_at", json!(1_767_323_045)),
        item("surprise", json!(1)),
        item("item_id", json!("t")),
        item("available", json!(5)),
        ("capacity".to_owned(), json!({})),
        ("capacity".to_owned(), json!({"name": "n"})),
        ("capacity".to_owned(), json!({"capacity": 1, "seats": ["a"]})),
        ("seats".to_owned(), json!({"seats": []})),
        ("seats".to_owned(), json!({"seats": ["a", "b", "a"]})),
        ("seat".to_owned(), json!({"seats": ["a b"]})),
        ("seat".to_owned(), json!({"seats": [""]})),
        ("seat".to_owned(), json!({"seats": ["x".repeat(129)]})),
        ("seat".to_owned(), json!({"seats": ["é"]})),
        ("seat".to_owned(), json!({"seats": [1]})),
        ("seats".to_owned(), json!({"seats": "a"})),
        ("seats".to_owned(), json!({"seats": null})),
        ("seats".to_owned(), json!({"seats": many})),
    ];
    let numbers = [json!(-1), json!(1.5), json!("5"), json!(u64::MAX), json!([5]), json!(true)];
    for (field, min, max) in
        [("capacity", 0, 10_000_000), ("hold_seconds", 1, 86_400), ("max_per_buyer", 1, 1000)]
    {
        refused.push(item(field, json!(max + 1)));
        if min > 0 {
            refused.push(item(field, json!(min - 1)));
        }
        refused.extend(numbers.iter().map(|number| item(field, number.clone())));
        server.put("/v1/items/bounds", &item(field, json!(min)).1);
        server.put("/v1/items/bounds", &item(field, json!(max)).1).is(200);
    }
    refused.push(item("capacity", Value::Null));
    refused.push(item("hold_seconds", Value::Null));
    refused.push(item("seats", Value::Null));
    refused.push(("capacity".to_owned(), json!({"seats": ["a"], "capacity": null})));
    for (field, body) in refused {
        server.put("/v1/items/t", &body).names(&field);
    }
    let order = json!({"capacity": 5, "opens_at": from_now(9), "closes_at": from_now(8)});
    server.put("/v1/items/t", &order).names("closes_at");
    server.get("/v1/items/t").problem(404, "not-found");
    for body in [r#"{"capacity":5,"capacity":5}"#, r#"{"capacity":5,"name":"a","name":"a"}"#] {
        let call = server.call("PUT", "/v1/items/t").header("content-type", "application/json");
        call.body(body).send().problem(400, "invalid-request");
    }
    for body in ["", "null", "[]", "{\"capacity\":5", "{\"capacity\":05}"] {
        let call = server.call("PUT", "/v1/items/t").header("content-type", "application/json");
        call.body(body).send().problem(400, "invalid-request");
    }
}

#[test]
fn the_largest_hall_and_the_longest_names_are_taken() {
    let server = Server::start(&[]);
    let seats: Vec<String> = (0..100_000).map(|n| format!("seat-{n}")).collect();
    server.put("/v1/items/hall", &json!({"seats": seats, "name": "é".repeat(128)})).is(201);
    let map = server.get("/v1/items/hall/seats").is(200).json();
    assert_eq!(map.as_object().expect("an object").len(), 100_000);
    let id = "!%/?#\"\\{}".repeat(14) + "~~";
    let path = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/v1/items/{path}");
    let made = server.put(&path, &json!({"seats": ["~".repeat(128)]})).is(201);
    assert_eq!(made.field("item_id"), id);
    assert_eq!(server.get(&path).is(200).field("item_id"), id);
    assert_eq!(server.get(made.header("location")).is(200).field("item_id"), id);
}

#[test]
fn a_malformed_id_in_a_path_is_400_for_put_and_404_for_get() {
    let server = Server::start(&[]);
    let long = "x".repeat(129);
    for id in ["a%20b", "%00", "caf%C3%A9", "%FF", "%7F", "a%", "a%2", "a%zz", &long] {
        server.put(format_args!("/v1/items/{id}"), &json!({"capacity": 1})).names("item_id");
        server.get(format_args!("/v1/items/{id}")).problem(404, "not-found");
        server.get(format_args!("/v1/items/{id}/seats")).problem(404, "not-found");
    }
    for id in ["1", "0193a5b0abcd7ef08123456789abcdef", "0193a5b0-abcd-7ef0-8123-456789abcdeg"] {
        server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
        let confirm = format!("/v1/orders/{id}/confirm");
        server.post(confirm, &json!({"payment_ref": "p"})).names("order_id");
        for what in ["release", "cancel"] {
            server.act(format_args!("/v1/orders/{id}/{what}")).names("order_id");
        }
    }
}

#[test]
fn capacity_grows_and_shrinks_down_to_what_is_taken() {
    let server = Server::start(&["--item", "t=5"]);
    let put = |capacity: u32| server.put("/v1/items/t", &json!({"capacity": capacity}));
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let confirm = format!("/v1/orders/{id}/confirm");
    server.post(confirm, &json!({"payment_ref": "p"})).is(200);
    let counts = |item: &Value| {
        let count = |name: &str| item[name].as_u64().expect("a count");
        (count("capacity"), count("available"), count("held"), count("sold"))
    };
    assert_eq!(counts(&put(8).is(200).json()), (8, 5, 1, 2));
    put(2).problem(409, "capacity-in-use");
    assert_eq!(counts(&server.item("t")), (8, 5, 1, 2));
    let full = put(3).is(200).json();
    assert_eq!(counts(&full), (3, 0, 1, 2));
    assert_eq!(full["state"], "sold_out");
    assert_eq!(put(4).is(200).json()["state"], "open");
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
}

#[test]
fn a_taken_seat_cannot_go() {
    let server = Server::start(&[]);
    let put = |seats: Value| server.put("/v1/items/hall", &json!({"seats": seats}));
    put(json!(["A1", "A2", "A3"])).is(201);
    server.held(&json!({"buyer_id": "ann", "item_id": "hall", "seats": ["A2"]}));
    put(json!(["A1", "A3"])).problem(409, "capacity-in-use");
    let item = put(json!(["B1", "A2", "B2", "B3"])).is(200).json();
    assert_eq!((&item["capacity"], &item["available"]), (&json!(4), &json!(3)));
    let map = json!({"B1": "free", "A2": "taken", "B2": "free", "B3": "free"});
    assert_eq!(server.get("/v1/items/hall/seats").is(200).json(), map);
    server
        .order(&json!({"buyer_id": "bob", "item_id": "hall", "seats": ["A2"]}))
        .problem(409, "seat-taken");
    server.held(&json!({"buyer_id": "bob", "item_id": "hall", "seats": ["B1"]}));
}

#[test]
fn a_pool_stays_a_pool_and_a_hall_a_hall() {
    let server = Server::start(&["--item", "t=5"]);
    server.put("/v1/items/t", &json!({"seats": ["a"]})).problem(409, "kind-change");
    server.put("/v1/items/hall", &json!({"seats": ["a"]})).is(201);
    server.put("/v1/items/hall", &json!({"capacity": 1})).problem(409, "kind-change");
    assert_eq!(server.item("t")["kind"], "pool");
    assert_eq!(server.item("hall")["kind"], "seats");
}

#[test]
fn seats_are_free_or_taken_and_a_pool_has_none() {
    let server = Server::start(&["--item", "t=5"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2"]})).is(201);
    let seats = || server.get("/v1/items/hall/seats").is(200).json();
    assert_eq!(seats(), json!({"A1": "free", "A2": "free"}));
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "hall", "seats": ["A2"]}));
    assert_eq!(seats(), json!({"A1": "free", "A2": "taken"}));
    server.act(format_args!("/v1/orders/{id}/release")).is(200);
    assert_eq!(seats(), json!({"A1": "free", "A2": "free"}));
    server.get("/v1/items/t/seats").is(409);
    server.get("/v1/items/nowhere/seats").problem(404, "not-found");
    server.get("/v1/items/nowhere").problem(404, "not-found");
}

#[test]
fn the_state_follows_the_clock_and_the_stock() {
    let server = Server::start(&["--item", "t=1"]);
    let put = |body: Value| server.put("/v1/items/s", &body).json();
    let (past, soon) = (from_now(-60), from_now(60));
    assert_eq!(put(json!({"capacity": 5, "opens_at": soon}))["state"], "scheduled");
    assert_eq!(put(json!({"capacity": 5, "opens_at": past, "closes_at": soon}))["state"], "open");
    assert_eq!(put(json!({"capacity": 5, "closes_at": past}))["state"], "closed");
    // Sold out when available is 0, whatever the clock says.
    assert_eq!(put(json!({"capacity": 0, "closes_at": past}))["state"], "sold_out");
    assert_eq!(put(json!({"capacity": 0, "opens_at": soon}))["state"], "sold_out");
    let kept = put(json!({"capacity": 5, "opens_at": soon}));
    assert!((millis(&kept["opens_at"]) - millis(&json!(soon))).abs() < 1);
    assert_eq!(server.item("t")["state"], "open");
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    assert_eq!(server.item("t")["state"], "sold_out");
}

#[test]
fn a_cap_counts_all_of_a_buyers_units_held_or_owned() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 50, "max_per_buyer": 3})).is(201);
    let order = |buyer: &str, quantity: u32| {
        server.order(&json!({"buyer_id": buyer, "item_id": "t", "quantity": quantity}))
    };
    order("ann", 4).problem(409, "buyer-limit");
    let first = order("ann", 2).is(201).field("order_id");
    order("ann", 2).problem(409, "buyer-limit");
    let confirm = format!("/v1/orders/{first}/confirm");
    server.post(confirm, &json!({"payment_ref": "p"})).is(200);
    order("ann", 2).problem(409, "buyer-limit");
    let second = order("ann", 1).is(201).field("order_id");
    server.act(format_args!("/v1/orders/{second}/release")).is(200);
    order("ann", 1).is(201);
    order("bob", 3).is(201);
}
