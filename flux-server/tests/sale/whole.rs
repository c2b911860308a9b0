//! A whole sale to a crowd that repeats one request in ten.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::crowd;
use crate::harness::Server;

const CLIENTS: usize = 64;
const TICKETS: u64 = 700;
const SEATS: usize = 150;
const WAIT: (&str, &str) = ("Prefer", "wait=20");

/// A held order, as it was answered.
struct Held {
    order: Value,
}

/// Sends a request, and one in ten twice, half of those at once.
fn ask(client: &mut Client, other: &mut Client, n: usize, turn: usize, body: &Value) -> Answer {
    let mut body = body.clone();
    if turn % 10 != 9 {
        return client.post("/v1/orders", &[WAIT], &body).expect("an answer");
    }
    let id = uuid::Uuid::now_v7().to_string();
    let headers = if n.is_multiple_of(2) {
        body["order_id"] = json!(id);
        vec![WAIT]
    } else {
        vec![WAIT, ("Idempotency-Key", id.as_str())]
    };
    let (first, second) = if n % 4 < 2 {
        let first = client.post("/v1/orders", &headers, &body);
        (first, other.post("/v1/orders", &headers, &body))
    } else {
        std::thread::scope(|scope| {
            let second = scope.spawn(|| other.post("/v1/orders", &headers, &body));
            let first = client.post("/v1/orders", &headers, &body);
            (first, second.join().expect("no panic"))
        })
    };
    let (first, second) = (first.expect("an answer"), second.expect("an answer"));
    assert_eq!(first.status, second.status, "{:?} {:?}", first.json(), second.json());
    // The gate records nothing; whatever was decided is decided once.
    if let (Some(one), Some(same)) = (first.order(), second.order()) {
        assert_eq!(one, same);
    }
    if first.order().is_some() { first } else { second }
}

/// Buys until there is nothing left to buy.
fn buy(server: &Server, n: usize) -> Vec<Held> {
    let (mut client, mut other) = (Client::new(server.address()), Client::new(server.address()));
    let mut held = Vec::new();
    for turn in 0.. {
        let buyer = format!("buyer-{n}-{turn}");
        let (body, last) = match turn % 4 {
            0 => {
                let seat = format!("S{}", (n * 37 + turn * 11) % SEATS);
                (json!({"buyer_id": buyer, "item_id": "hall", "seats": [seat]}), false)
            }
            1 => (json!({"buyer_id": buyer, "item_id": "ticket", "quantity": 2}), false),
            _ => (json!({"buyer_id": buyer, "item_id": "ticket"}), true),
        };
        let answer = ask(&mut client, &mut other, n, turn, &body);
        match (answer.status, answer.order()) {
            (201, Some(order)) => {
                assert_eq!(order["status"], "held");
                assert_eq!(order["buyer_id"], buyer);
                held.push(Held { order });
            }
            // Everybody has repeated something by then.
            (409, _) if last && turn > 12 => break,
            (409, _) => {}
            (status, _) => panic!("{status}: {:?}", answer.json()),
        }
    }
    held
}

#[test]
fn a_crowd_that_repeats_itself_buys_exactly_the_stock() {
    let server = Server::start(&["--item", &format!("ticket={TICKETS}")]);
    let seats: Vec<String> = (0..SEATS).map(|seat| format!("S{seat}")).collect();
    server.put("/v1/items/hall", &json!({"seats": seats})).is(201);

    let held: Vec<Held> = crowd(CLIENTS, |n| buy(&server, n)).into_iter().flatten().collect();

    let mut owned: HashMap<(String, String), u64> = HashMap::new();
    let (mut tickets, mut taken) = (0, 0);
    let mut client = Client::new(server.address());
    for Held { order } in &held {
        let line = &order["lines"][0];
        let owner = order["buyer_id"].as_str().expect("a buyer").to_owned();
        if let Some(quantity) = line["quantity"].as_u64() {
            tickets += quantity;
            *owned.entry(("ticket".to_owned(), owner)).or_default() += quantity;
        } else {
            taken += 1;
            let seat = line["seats"][0].as_str().expect("a seat").to_owned();
            *owned.entry((seat, owner)).or_default() += 1;
        }
        let path = format!("/v1/orders/{}", order["order_id"].as_str().expect("an id"));
        assert_eq!(client.get(&path, &[]).expect("an answer").json(), *order);
    }
    assert_eq!(tickets, TICKETS, "answered as held");
    let ticket = server.item("ticket");
    assert_eq!(
        (&ticket["available"], &ticket["held"], &ticket["sold"]),
        (&json!(0), &json!(TICKETS), &json!(0))
    );
    assert_eq!(ticket["state"], "sold_out");
    let hall = server.item("hall");
    assert_eq!((&hall["held"], &hall["sold"]), (&json!(taken), &json!(0)));
    assert_eq!(hall["available"], SEATS - taken);

    let mut listed: HashMap<(String, String), u64> = HashMap::new();
    for entry in server.get("/inventory").is(200).json().as_array().expect("a list") {
        let text = |name: &str| entry[name].as_str().expect("text").to_owned();
        *listed.entry((text("id"), text("owner"))).or_default() += 1;
    }
    assert_eq!(listed, owned, "each unit once, to whom it was promised");
}
