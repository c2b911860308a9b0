//! `POST /v1/orders` and `GET /v1/orders/{id}`: what is answered, and when.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, until};
use crate::{from_now, millis, new_id};

#[test]
fn without_a_wait_the_first_answer_is_202_with_the_queued_order() {
    let server = Server::start(&["--item", "t=5"]);
    let answer = server.post("/v1/orders", &json!({"buyer_id": "ann", "item_id": "t"})).is(202);
    let order = answer.json();
    assert_eq!(order["status"], "queued");
    assert_eq!(order["lines"], json!([{"item_id": "t", "quantity": 1}]));
    assert_eq!(order["buyer_id"], "ann");
    assert_eq!(answer.maybe_header("preference-applied"), None);
    let id = answer.field("order_id");
    assert_eq!(uuid::Uuid::parse_str(&id).expect("a UUID").get_version_num(), 7);
    assert_eq!(answer.header("location"), format!("/v1/orders/{id}"));
    let decided = until("decided", Duration::from_secs(10), || {
        let order = server.get(answer.header("location")).is(200).json();
        (order["status"] != "queued").then_some(order)
    });
    assert_eq!(decided["status"], "held");
    assert_eq!(decided["placed_at"], order["placed_at"]);
}

#[test]
fn with_a_wait_it_is_201_with_the_held_order() {
    let server = Server::start(&["--item", "t=5"]);
    let order = json!({"buyer_id": "ann", "item_id": "t", "quantity": 2});
    let answer =
        server.call("POST", "/v1/orders").header("prefer", "wait=10").json(&order).send().is(201);
    let held = answer.json();
    assert_eq!(held["status"], "held");
    assert_eq!(held["lines"], json!([{"item_id": "t", "quantity": 2}]));
    assert_eq!(millis(&held["hold_expires_at"]) - millis(&held["decided_at"]), 600_000);
    assert!(millis(&held["placed_at"]) <= millis(&held["decided_at"]));
    assert_eq!(answer.header("preference-applied"), "wait=10");
    assert_eq!(server.get(answer.header("location")).is(200).json(), held);
    assert_eq!(server.item("t")["available"], 3);
}

#[test]
fn a_wait_is_read_as_rfc_7240_has_it() {
    let server = Server::start(&["--item", "t=1000"]);
    let answer = |prefer: &[&str]| {
        let mut call = server.call("POST", "/v1/orders");
        for &value in prefer {
            call = call.header("prefer", value);
        }
        call.json(&json!({"buyer_id": "ann", "item_id": "t"})).send()
    };
    let honoured: [&[&str]; 12] = [
        &["wait=30"],
        &["wait=31"],
        &["wait=99999999999999999999999"],
        &["WAIT=10"],
        &["wait = 10"],
        &["wait=\"10\""],
        &["wait=10; unknown=\"a, b\""],
        &["respond-async, wait=10"],
        &["respond-async", "wait=10"],
        &["handling=\"wait=0, wait=0\", wait=10"],
        // The first of several counts.
        &["wait=10, wait=0"],
        &["wait=10", "wait=0"],
    ];
    for prefer in honoured {
        let answer = answer(prefer);
        assert_eq!(answer.status, 201, "{prefer:?}");
        assert!(answer.header("preference-applied").starts_with("wait="), "{prefer:?}");
    }
    for beyond in ["wait=31", "wait=99999999999999999999999"] {
        assert_eq!(answer(&[beyond]).header("preference-applied"), "wait=30");
    }
    let ignored: [&[&str]; 7] = [
        &["wait"],
        &["wait="],
        &["wait=-1"],
        &["wait=1.5"],
        &["wait=soon"],
        &["waiting=10"],
        &["return=minimal; wait=10"],
    ];
    for prefer in ignored {
        let answer = answer(prefer);
        assert_eq!(answer.status, 202, "{prefer:?}");
        assert_eq!(answer.maybe_header("preference-applied"), None, "{prefer:?}");
    }
}

#[test]
fn reading_with_a_wait_answers_the_decided_order() {
    let server = Server::start(&["--item", "t=200"]);
    for n in 0..20 {
        let order = json!({"buyer_id": format!("buyer{n}"), "item_id": "t"});
        let accepted = server.post("/v1/orders", &order).is(202);
        let path = accepted.header("location").to_owned();
        let read = server.call("GET", &path).header("prefer", "wait=10").send().is(200);
        assert_eq!(read.json()["status"], "held");
        assert_eq!(read.header("preference-applied"), "wait=10");
    }
    let unknown = format!("/v1/orders/{}", new_id());
    server.call("GET", &unknown).header("prefer", "wait=1").send().problem(404, "not-found");
}

/// Posts an order that must be rejected for `reason` and returns its id.
#[track_caller]
fn rejected(server: &Server, body: &Value, reason: &str) -> String {
    let answer = server.order(body).problem(409, &reason.replace('_', "-"));
    let order = &answer.json()["order"];
    assert_eq!(order["status"], "rejected");
    assert_eq!(order["reason"], reason);
    assert_eq!(order["hold_expires_at"], Value::Null);
    let id = order["order_id"].as_str().expect("an id").to_owned();
    assert_eq!(&server.read_order(&id), order);
    id
}

#[test]
fn a_rejection_is_409_with_the_order_and_its_reason_as_type() {
    let server = Server::start(&[]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2"]})).is(201);
    server.put("/v1/items/capped", &json!({"capacity": 9, "max_per_buyer": 2})).is(201);

    server.held(&json!({"buyer_id": "ann", "item_id": "hall", "seats": ["A1"]}));
    let both = json!({"buyer_id": "bob", "item_id": "hall", "seats": ["A1", "A2"]});
    rejected(&server, &both, "seat_taken");
    server.held(&json!({"buyer_id": "ann", "item_id": "capped", "quantity": 2}));
    rejected(&server, &json!({"buyer_id": "ann", "item_id": "capped"}), "buyer_limit");
    server.held(&json!({"buyer_id": "bob", "item_id": "capped", "quantity": 1}));

    assert_eq!(server.item("capped")["available"], 6, "a rejected order takes nothing");
    assert_eq!(server.get("/v1/items/hall/seats").json(), json!({"A1": "taken", "A2": "free"}));
}

#[test]
fn without_a_wait_an_order_that_will_be_rejected_is_202_first() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 9, "max_per_buyer": 3})).is(201);
    let order = json!({"buyer_id": "ann", "item_id": "t", "quantity": 4});
    let answer = server.post("/v1/orders", &order).is(202);
    assert_eq!(answer.json()["status"], "queued");
    let path = answer.header("location").to_owned();
    let read = server.call("GET", &path).header("prefer", "wait=10").send().is(200).json();
    assert_eq!((&read["status"], &read["reason"]), (&json!("rejected"), &json!("buyer_limit")));
}

#[test]
fn only_the_newest_rejected_orders_are_remembered() {
    let server = Server::start(&["--rejected-max", "3", "--keep-rejected", "3600"]);
    server.put("/v1/items/t", &json!({"capacity": 9, "max_per_buyer": 1})).is(201);
    let first = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let order = |id: &str| json!({"order_id": id, "buyer_id": "ann", "item_id": "t"});
    let ids: Vec<String> = (0..5).map(|_| new_id()).collect();
    for id in &ids {
        server.order(&order(id)).problem(409, "buyer-limit");
    }
    let server = server.crash().args(&["--rejected-max", "3"]).start();
    for id in &ids[..2] {
        server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
    }
    for id in &ids[2..] {
        assert_eq!(server.read_order(id)["reason"], "buyer_limit");
        server.order(&order(id)).problem(409, "buyer-limit");
    }
    // What was held is remembered, and a forgotten id is a new order's.
    server.act(format_args!("/v1/orders/{first}/release")).is(200);
    assert_eq!(server.read_order(&first)["status"], "released");
    let again = json!({"order_id": ids[0], "buyer_id": "bob", "item_id": "t"});
    assert_eq!(server.order(&again).is(201).field("buyer_id"), "bob");
}

#[test]
fn what_is_known_beforehand_is_answered_at_the_gate() {
    let server = Server::start(&["--item", "few=3", "--item", "none=0"]);
    server.put("/v1/items/later", &json!({"capacity": 9, "opens_at": from_now(3600)})).is(201);
    server.put("/v1/items/past", &json!({"capacity": 9, "closes_at": from_now(-3600)})).is(201);
    server.put("/v1/items/none_later", &json!({"capacity": 0, "opens_at": from_now(99)})).is(201);
    let cases = [
        (json!({"item_id": "later"}), "not-open"),
        (json!({"item_id": "past"}), "closed"),
        (json!({"item_id": "none"}), "sold-out"),
        (json!({"item_id": "few", "quantity": 4}), "sold-out"),
        (json!({"item_id": "none_later"}), "not-open"),
        (json!({"lines": [{"item_id": "none"}, {"item_id": "past"}]}), "closed"),
        (json!({"lines": [{"item_id": "past"}, {"item_id": "later"}]}), "closed"),
    ];
    for (mut order, kind) in cases {
        let id = new_id();
        order["order_id"] = json!(id);
        order["buyer_id"] = json!("ann");
        for answer in [server.order(&order), server.post("/v1/orders", &order)] {
            let problem = answer.problem(409, kind).json();
            assert_eq!(problem.get("order"), None, "{problem}");
        }
        server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
    }
    let all = server.get("/v1/orders").is(200).json();
    assert_eq!(all["orders"], json!([]), "nothing is recorded");
    // The same id may be sent again.
    let order = json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "later"});
    server.order(&order).problem(409, "not-open");
    server.put("/v1/items/later", &json!({"capacity": 9})).is(200);
    server.order(&order).is(201);
}

#[test]
fn the_gate_answers_at_once_and_records_nothing() {
    let server = Server::start(&["--item", "t=1", "--item", "none=0"]);
    let first = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let id = new_id();
    let order = json!({"order_id": id, "buyer_id": "bob", "item_id": "t"});
    let turned_away = |answer: crate::harness::Answer| {
        let problem = answer.problem(409, "sold-out").json();
        assert_eq!(problem.get("order"), None, "{problem}");
    };
    turned_away(server.post("/v1/orders", &order));
    turned_away(server.order(&order));
    turned_away(server.order(&json!({"buyer_id": "ann", "item_id": "none"})));
    server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");

    // Once there is stock again the same id may be sent again, and the gate
    // is shut for at most a second more.
    server.act(format_args!("/v1/orders/{first}/release")).is(200);
    until("the gate opens", Duration::from_secs(1), || {
        let answer = server.order(&order);
        if answer.status == 409 {
            turned_away(answer);
            return None;
        }
        let held = answer.is(201).json();
        assert_eq!((&held["status"], &held["order_id"]), (&json!("held"), &json!(id)));
        Some(())
    });
}

#[test]
fn an_unknown_item_is_404_and_nothing_is_recorded() {
    let server = Server::start(&["--item", "t=5"]);
    let id = new_id();
    let lines = json!([{"item_id": "t"}, {"item_id": "nowhere"}]);
    let order = json!({"order_id": id, "buyer_id": "ann", "lines": lines});
    for prefer in ["wait=5", "none"] {
        let call = server.call("POST", "/v1/orders").header("prefer", prefer);
        call.json(&order).send().problem(404, "not-found");
    }
    server.get(format_args!("/v1/orders/{id}")).problem(404, "not-found");
    assert_eq!(server.item("t")["available"], 5);
    server.held(&json!({"order_id": id, "buyer_id": "ann", "item_id": "t"}));
}

#[test]
fn an_order_is_all_or_nothing_over_its_lines() {
    let server = Server::start(&["--item", "t=5", "--item", "few=2"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2", "A3"]})).is(201);
    let order = |few: u32, seat: &str| {
        json!({"buyer_id": "ann", "lines": [
            {"item_id": "t", "quantity": 2},
            {"item_id": "few", "quantity": few},
            {"item_id": "hall", "seats": [seat, "A3"]},
        ]})
    };
    server.order(&order(3, "A1")).problem(409, "sold-out");
    let left = |id: &str| server.item(id)["available"].as_u64().expect("a number");
    assert_eq!((left("t"), left("few"), left("hall")), (5, 2, 3));
    let held = server.order(&order(1, "A1")).is(201).json();
    assert_eq!(held["lines"], order(1, "A1")["lines"]);
    assert_eq!((left("t"), left("few"), left("hall")), (3, 1, 1));
    server.order(&order(1, "A2")).problem(409, "seat-taken");
    assert_eq!((left("t"), left("few"), left("hall")), (3, 1, 1));
}

#[test]
fn over_several_items_the_shortest_hold_counts() {
    let server = Server::start(&[]);
    server.put("/v1/items/long", &json!({"capacity": 5, "hold_seconds": 900})).is(201);
    server.put("/v1/items/short", &json!({"capacity": 5, "hold_seconds": 77})).is(201);
    let lines = json!([{"item_id": "long"}, {"item_id": "short"}]);
    let held = server.order(&json!({"buyer_id": "ann", "lines": lines})).is(201).json();
    assert_eq!(millis(&held["hold_expires_at"]) - millis(&held["decided_at"]), 77_000);
}

#[test]
fn an_order_id_is_taken_in_any_case_and_shown_in_lower_case() {
    let server = Server::start(&["--item", "t=5"]);
    let id = "0193A5B0-AbCd-7eF0-8123-456789abcDEF";
    let order = json!({"order_id": id, "buyer_id": "ann", "item_id": "t"});
    let held = server.order(&order).is(201);
    let lower = id.to_ascii_lowercase();
    assert_eq!(held.field("order_id"), lower);
    assert_eq!(held.header("location"), format!("/v1/orders/{lower}"));
    assert_eq!(server.read_order(id)["order_id"], lower);
    assert_eq!(server.read_order(&id.to_ascii_uppercase())["order_id"], lower);
    server.act(format_args!("/v1/orders/{}/release", id.to_ascii_uppercase())).is(200);
}

#[test]
fn an_answered_order_survives_a_crash() {
    let server = Server::start(&["--item", "t=3"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2"]})).is(201);
    let order = |quantity: u32| json!({"buyer_id": "ann", "item_id": "t", "quantity": quantity});
    let queued = server.post("/v1/orders", &order(1)).is(202).field("order_id");
    let held = server.held(&order(1));
    let both = json!({"buyer_id": "ann", "lines": [{"item_id": "hall", "seats": ["A1", "A2"]}]});
    server.held(&json!({"buyer_id": "bob", "item_id": "hall", "seats": ["A1"]}));
    let rejected = server.order(&both).is(409).json()["order"].clone();
    let server = server.crash().start();
    assert_eq!(server.read_order(&held)["status"], "held");
    let id = rejected["order_id"].as_str().expect("an id");
    assert_eq!(server.read_order(id), rejected);
    let path = format!("/v1/orders/{queued}");
    let queued = server.call("GET", path).header("prefer", "wait=10").send().is(200).json();
    assert_eq!(queued["status"], "held");
    assert_eq!(server.item("t")["available"], 1);
}
