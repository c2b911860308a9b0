//! The rules against hoarding: `--holds-per-buyer` and `--hold-again-after`.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, Setup, until};
use crate::millis;

const ITEMS: [&str; 6] = ["--item", "a=500", "--item", "b=500", "--item", "c=500"];

fn with(rule: &[&str]) -> Server {
    Server::start(&[&ITEMS, rule].concat())
}

fn one(buyer: &str, item: &str) -> Value {
    json!({"buyer_id": buyer, "item_id": item})
}

/// A rejection for the buyer's sake, which is a decision and so has the order.
#[track_caller]
fn barred(server: &Server, order: &Value) {
    let answer = server.order(order);
    let order = answer.problem(409, "buyer-limit").json()["order"].clone();
    assert_eq!((&order["status"], &order["reason"]), (&json!("rejected"), &json!("buyer_limit")));
    assert_eq!(server.read_order(order["order_id"].as_str().expect("an id")), order);
}

/// The orders that a buyer gets of many at once.
fn held_at_once(server: &Server, buyer: &str, orders: usize) -> Vec<String> {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..orders)
            .map(|n| {
                scope.spawn(move || {
                    let answer = server.order(&one(buyer, ["a", "b", "c"][n % 3]));
                    match answer.status {
                        201 => Some(answer.field("order_id")),
                        _ => {
                            answer.problem(409, "buyer-limit");
                            None
                        }
                    }
                })
            })
            .collect();
        let held = calls.into_iter().filter_map(|call| call.join().expect("no panic"));
        held.collect()
    })
}

#[test]
fn a_buyer_holds_what_it_likes_unless_told_otherwise() {
    let server = Server::start(&ITEMS);
    assert_eq!(held_at_once(&server, "ann", 24).len(), 24);
    let order = server.held(&one("ann", "a"));
    server.act(format_args!("/v1/orders/{order}/release")).is(200);
    server.held(&one("ann", "a"));
}

#[test]
fn of_many_orders_at_once_a_buyer_holds_so_many_over_all_items() {
    let server = with(&["--holds-per-buyer", "4"]);
    let held = held_at_once(&server, "ann", 40);
    assert_eq!(held.len(), 4);
    barred(&server, &one("ann", "a"));
    server.held(&one("bob", "a"));
    // Each way out of a hold makes room for one.
    let paid = json!({"payment_ref": "p"});
    server.post(format_args!("/v1/orders/{}/confirm", held[0]), &paid).is(200);
    server.act(format_args!("/v1/orders/{}/release", held[1])).is(200);
    assert_eq!(held_at_once(&server, "ann", 9).len(), 2);
    // After a crash it counts what is there.
    let server = server.crash().args(&["--holds-per-buyer", "4"]).start();
    barred(&server, &one("ann", "b"));
    assert_eq!(held_at_once(&server, "bob", 9).len(), 3);
}

#[test]
fn who_let_a_hold_go_waits_before_the_next_of_that_item() {
    let server = with(&["--hold-again-after", "3600"]);
    server.put("/v1/items/short", &json!({"capacity": 5, "hold_seconds": 1})).is(201);
    let expires = server.held(&one("ann", "short"));
    let released = server.held(&one("bob", "a"));
    server.act(format_args!("/v1/orders/{released}/release")).is(200);
    barred(&server, &one("bob", "a"));
    server.held(&one("bob", "b"));
    server.held(&one("ann", "a"));
    until("the hold ends", Duration::from_secs(20), || {
        (server.read_order(&expires)["status"] == "expired").then_some(())
    });
    barred(&server, &one("ann", "short"));
    barred(&server, &json!({"buyer_id": "ann", "lines": [{"item_id": "b"}, {"item_id": "short"}]}));
    server.held(&one("cyd", "short"));
    let server = server.crash().args(&["--hold-again-after", "3600"]).start();
    barred(&server, &one("ann", "short"));
    barred(&server, &one("bob", "a"));
    server.held(&one("dan", "a"));
}

#[test]
fn the_pause_counts_from_the_moment_the_hold_ended() {
    let server = with(&["--hold-again-after", "1.5"]);
    let order = server.held(&one("ann", "a"));
    let released = server.act(format_args!("/v1/orders/{order}/release")).is(200).json();
    // Of a hold of ten minutes that was released no more is left.
    let end = millis(&released["hold_expires_at"]) + 1_500;
    until("the pause is over", Duration::from_secs(20), || {
        let answer = server.order(&one("ann", "a"));
        let order = match answer.status {
            201 => answer.json(),
            _ => answer.problem(409, "buyer-limit").json()["order"].clone(),
        };
        // What was placed within the pause may be decided behind its end.
        let is_held = order["status"] == "held";
        assert!(is_held || order["status"] == "rejected", "{order}");
        let over_by = if is_held { "decided_at" } else { "placed_at" };
        assert_eq!(millis(&order[over_by]) >= end, is_held, "{order}");
        is_held.then_some(())
    });
}

#[test]
fn a_rule_that_bars_everybody_is_refused_at_the_start() {
    for rule in [["--holds-per-buyer", "0"], ["--hold-again-after", "0"]] {
        let (status, said) = Setup::new().args(&rule).run_to_end();
        assert!(!status.success() && said.contains(rule[0]), "{said}");
    }
}
