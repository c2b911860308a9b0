//! An order id, or an idempotency key, stands for one order for ever.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Server, until};
use crate::new_id;

#[test]
fn a_repeat_answers_the_order_as_it_now_stands() {
    let server = Server::start(&["--item", "t=9"]);
    server.put("/v1/items/quick", &json!({"capacity": 9, "hold_seconds": 1})).is(201);
    let item = |item: &str| json!({"order_id": new_id(), "buyer_id": "ann", "item_id": item});
    let repeated = |body: &Value, status: &str| {
        let id = body["order_id"].as_str().expect("an id");
        for prefer in ["wait=5", "nothing"] {
            let call = server.call("POST", "/v1/orders").header("prefer", prefer).json(body);
            let answer = call.send().is(201);
            assert_eq!(answer.field("status"), status);
            assert_eq!(answer.header("location"), format!("/v1/orders/{id}"));
            assert_eq!(answer.json(), server.read_order(id));
        }
    };
    let act = |id: &Value, what: &str| {
        let path = format!("/v1/orders/{}/{what}", id.as_str().expect("an id"));
        match what {
            "confirm" => server.post(path, &json!({"payment_ref": "p"})).is(200),
            _ => server.act(path).is(200),
        };
    };

    let order = item("t");
    server.held(&order);
    repeated(&order, "held");
    act(&order["order_id"], "confirm");
    repeated(&order, "confirmed");
    act(&order["order_id"], "cancel");
    repeated(&order, "cancelled");

    let order = item("t");
    server.held(&order);
    act(&order["order_id"], "release");
    repeated(&order, "released");

    let order = item("quick");
    let id = server.held(&order);
    until("expired", Duration::from_secs(5), || {
        (server.read_order(&id)["status"] == "expired").then_some(())
    });
    repeated(&order, "expired");
}

#[test]
fn a_repeat_of_a_rejected_order_is_409_with_the_same_order() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 9, "max_per_buyer": 3})).is(201);
    let mut order = json!({"buyer_id": "ann", "item_id": "t", "quantity": 4});
    order["order_id"] = json!(new_id());
    let first = server.order(&order).problem(409, "buyer-limit").json();
    assert_eq!(first["order"]["order_id"], order["order_id"]);
    assert_eq!(server.order(&order).problem(409, "buyer-limit").json()["order"], first["order"]);
    let now = server.post("/v1/orders", &order).problem(409, "buyer-limit").json();
    assert_eq!(now["order"], first["order"]);
    // Not even when it would get it now.
    server.put("/v1/items/t", &json!({"capacity": 9})).is(200);
    assert_eq!(server.order(&order).problem(409, "buyer-limit").json()["order"], first["order"]);
}

#[test]
fn a_repeat_never_gets_the_gates_answer() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 2, "max_per_buyer": 1})).is(201);
    let ann = json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "t"});
    let greedy = json!({"order_id": new_id(), "buyer_id": "bob", "item_id": "t", "quantity": 2});
    let by_key = |answer: Answer| answer.field("order_id");
    server.order(&greedy).is(409);
    server.held(&ann);
    server.held(&json!({"buyer_id": "dan", "item_id": "t"}));
    // The gate is shut now.
    let fresh = server.order(&json!({"buyer_id": "cleo", "item_id": "t"}));
    assert_eq!(fresh.problem(409, "sold-out").json().get("order"), None);
    assert_eq!(server.post("/v1/orders", &ann).is(201).field("status"), "held");
    let again = server.post("/v1/orders", &greedy).problem(409, "buyer-limit").json();
    assert_eq!(again["order"]["order_id"], greedy["order_id"]);
    // Other contents under a known id are 422, gate or no gate.
    let other = json!({"order_id": ann["order_id"], "buyer_id": "bob", "item_id": "t"});
    server.post("/v1/orders", &other).problem(422, "order-id-reused");

    server.put("/v1/items/k", &json!({"capacity": 1})).is(201);
    let keyed = json!({"buyer_id": "ann", "item_id": "k"});
    let id = by_key(with_key(&server, "key", &keyed).is(201));
    assert_eq!(by_key(with_key(&server, "key", &keyed).is(201)), id);
    let refused = with_key(&server, "another", &keyed).problem(409, "sold-out");
    assert_eq!(refused.json().get("order"), None);
}

#[test]
fn other_contents_under_a_known_id_are_422() {
    let server = Server::start(&["--item", "t=9", "--item", "u=9"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2"]})).is(201);
    let id = new_id();
    server.held(&json!({"order_id": id, "buyer_id": "ann", "item_id": "t", "quantity": 2}));
    let others = [
        json!({"order_id": id, "buyer_id": "bob", "item_id": "t", "quantity": 2}),
        json!({"order_id": id, "buyer_id": "ann", "item_id": "t", "quantity": 1}),
        json!({"order_id": id, "buyer_id": "ann", "item_id": "t"}),
        json!({"order_id": id, "buyer_id": "ann", "item_id": "u", "quantity": 2}),
        json!({"order_id": id, "buyer_id": "ann", "item_id": "hall", "seats": ["A1", "A2"]}),
        json!({"order_id": id.to_ascii_uppercase(), "buyer_id": "ann",
            "lines": [{"item_id": "t", "quantity": 2}, {"item_id": "u"}]}),
    ];
    for other in others {
        server.order(&other).problem(422, "order-id-reused");
        server.post("/v1/orders", &other).problem(422, "order-id-reused");
    }
    assert_eq!(server.item("t")["available"], 7);
    assert_eq!(server.item("u")["available"], 9);
}

#[test]
fn the_same_contents_may_be_written_otherwise() {
    let server = Server::start(&["--item", "t=9"]);
    let id = new_id();
    server.held(&json!({"order_id": id, "buyer_id": "ann", "item_id": "t"}));
    let ways = [
        json!({"order_id": id, "buyer_id": "ann", "item_id": "t", "quantity": 1}),
        json!({"order_id": id, "buyer_id": "ann", "lines": [{"item_id": "t"}]}),
        json!({"order_id": id.to_ascii_uppercase(), "buyer_id": "ann",
            "lines": [{"item_id": "t", "quantity": 1}]}),
    ];
    for way in ways {
        assert_eq!(server.order(&way).is(201).field("order_id"), id);
    }
    assert_eq!(server.item("t")["available"], 8);
}

#[test]
fn a_crowd_repeating_one_order_makes_one_order() {
    let server = Server::start(&["--item", "t=50"]);
    let order = json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "t", "quantity": 3});
    thread::scope(|scope| {
        for n in 0..16 {
            let (server, order) = (&server, &order);
            scope.spawn(move || {
                let answer = match n % 2 {
                    0 => server.order(order).is(201),
                    _ => server.post("/v1/orders", order),
                };
                assert!(matches!(answer.status, 201 | 202), "{}", answer.text());
                assert_eq!(answer.json()["order_id"], order["order_id"]);
            });
        }
    });
    server.order(&order).is(201);
    let item = server.item("t");
    assert_eq!((&item["available"], &item["held"]), (&json!(47), &json!(3)));
}

fn with_key(server: &Server, key: &str, body: &Value) -> Answer {
    let call = server.call("POST", "/v1/orders").header("prefer", "wait=10");
    call.header("idempotency-key", key).json(body).send()
}

#[test]
fn an_idempotency_key_is_scoped_to_the_buyer() {
    let server = Server::start(&["--item", "t=9"]);
    let ann = json!({"buyer_id": "ann", "item_id": "t"});
    let bob = json!({"buyer_id": "bob", "item_id": "t"});
    let longest = "~".repeat(255);
    for key in ["k", longest.as_str()] {
        let first = with_key(&server, key, &ann).is(201).json();
        assert_eq!(with_key(&server, key, &ann).is(201).json(), first);
        let other = with_key(&server, key, &bob).is(201).json();
        assert_ne!(other["order_id"], first["order_id"]);
        let two = json!({"buyer_id": "ann", "item_id": "t", "quantity": 2});
        with_key(&server, key, &two).problem(422, "order-id-reused");
    }
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn a_key_is_remembered_as_long_as_the_order() {
    let server = Server::start(&["--item", "t=9"]);
    let ann = json!({"buyer_id": "ann", "item_id": "t"});
    let first = with_key(&server, "k", &ann).is(201).json();
    let server = server.crash().start();
    assert_eq!(with_key(&server, "k", &ann).is(201).json(), first);
    assert_eq!(server.item("t")["available"], 8);
}

#[test]
fn a_malformed_key_or_one_beside_an_order_id_is_400() {
    let server = Server::start(&["--item", "t=9"]);
    let ann = json!({"buyer_id": "ann", "item_id": "t"});
    for key in ["", "a b", "a\tb", &"k".repeat(256)] {
        with_key(&server, key, &ann).problem(400, "invalid-request");
    }
    let body = ann.to_string();
    let head = "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n";
    for keys in ["Idempotency-Key: caf\u{e9}\r\n", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"] {
        let request = format!("{head}{keys}Content-Length: {}\r\n\r\n{body}", body.len());
        server.raw(request).problem(400, "invalid-request");
    }
    let both = json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "t"});
    with_key(&server, "k", &both).problem(400, "invalid-request");
    assert_eq!(server.item("t")["available"], 9);
}

/// The id that a key stands for, as anybody can compute it.
fn id_of(buyer: &str, key: &str) -> String {
    let buyer = flux_core::BuyerId::new(buyer).expect("a name");
    flux_core::OrderId::from_idempotency_key(&buyer, key).expect("a key").to_string()
}

#[test]
fn nobody_takes_a_keys_id_before_its_owner() {
    let server = Server::start(&["--item", "t=9"]);
    let id = id_of("ann", "k");
    for buyer in ["eve", "ann"] {
        let taken = json!({"order_id": id, "buyer_id": buyer, "item_id": "t"});
        server.order(&taken).names("order_id");
        server.post("/v1/orders", &taken).names("order_id");
        let upper = json!({"order_id": id.to_uppercase(), "buyer_id": buyer, "item_id": "t"});
        server.order(&upper).names("order_id");
    }
    // It comes before what the gate and the items would say.
    let nowhere = json!({"order_id": id, "buyer_id": "eve", "item_id": "nowhere"});
    server.order(&nowhere).names("order_id");
    assert_eq!(server.item("t")["available"], 9);
    let ann = json!({"buyer_id": "ann", "item_id": "t"});
    assert_eq!(with_key(&server, "k", &ann).is(201).field("order_id"), id);

    // Now it is known: its owner's repeats are repeats, and others are told what they were.
    let repeat = json!({"order_id": id, "buyer_id": "ann", "item_id": "t"});
    assert_eq!(server.order(&repeat).is(201).field("order_id"), id);
    let eve = json!({"order_id": id, "buyer_id": "eve", "item_id": "t"});
    server.order(&eve).problem(422, "order-id-reused");
    server.read_order(&id);
    server.post(format_args!("/v1/orders/{id}/confirm"), &json!({"payment_ref": "p"})).is(200);
    server.act(format_args!("/v1/orders/{id}/cancel")).is(200);
    assert_eq!(server.order(&repeat).is(201).field("status"), "cancelled");
    let bought = server.call("POST", "/buy").header("idempotency-key", "b");
    let bought = bought.json(&json!({"user_id": "ann", "item_id": "t"})).send().is(200);
    assert_eq!(bought.field("order_id"), id_of("ann", "b"));
    server.act(format_args!("/v1/orders/{}/release", id_of("ann", "b"))).is(200);
}

#[test]
fn a_queued_order_of_a_key_is_known_too() {
    // Nobody decides here.
    let server = Server::start(&["api", "--item", "t=9"]);
    let ann = json!({"buyer_id": "ann", "item_id": "t"});
    let keyed = server.call("POST", "/v1/orders").header("idempotency-key", "k").json(&ann);
    let id = keyed.send().is(202).field("order_id");
    let repeat = json!({"order_id": id, "buyer_id": "ann", "item_id": "t"});
    assert_eq!(server.post("/v1/orders", &repeat).is(202).field("order_id"), id);
    let eve = json!({"order_id": id, "buyer_id": "eve", "item_id": "t"});
    server.post("/v1/orders", &eve).problem(422, "order-id-reused");
}

#[test]
fn only_version_5_is_kept_for_keys() {
    let server = Server::start(&["--item", "t=9"]);
    for id in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "2ed6657d-e927-168b-95e1-2665a8aea6a2",
        "2ed6657d-e927-368b-95e1-2665a8aea6a2",
        "2ed6657d-e927-468b-95e1-2665a8aea6a2",
        "2ed6657d-e927-868b-95e1-2665a8aea6a2",
    ] {
        server.held(&json!({"order_id": id, "buyer_id": "ann", "item_id": "t"}));
    }
}

#[test]
fn the_owner_of_a_key_wins_against_a_stranger_at_the_same_moment() {
    let server = Server::start(&["--item", "t=1000"]);
    for round in 0..60 {
        let key = format!("k{round}");
        let stranger = json!({"order_id": id_of("ann", &key), "buyer_id": "eve", "item_id": "t"});
        thread::scope(|scope| {
            let strangers: Vec<_> = (0..2)
                .map(|n| {
                    let (server, stranger) = (&server, &stranger);
                    scope.spawn(move || match n {
                        0 => server.order(stranger).status,
                        _ => server.post("/v1/orders", stranger).status,
                    })
                })
                .collect();
            let owner = with_key(&server, &key, &json!({"buyer_id": "ann", "item_id": "t"}));
            assert_eq!(owner.is(201).field("buyer_id"), "ann");
            for answer in strangers {
                assert!(matches!(answer.join().expect("no panic"), 400 | 422));
            }
        });
    }
    assert_eq!(server.item("t")["held"], 60);
}
