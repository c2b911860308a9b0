//! `kill -9` in the middle of a sale, several times over.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::crowd;
use crate::harness::{Server, Setup, until};

const ROUNDS: usize = 5;
const CLIENTS: usize = 16;
const STOCK: usize = 3_000;
/// Answers after which the server dies.
const ANSWERS: usize = 300;
const WAIT: (&str, &str) = ("Prefer", "wait=20");

/// The crowd's memory of its answers.
#[derive(Default)]
struct Witness {
    /// Orders by id, as they were last answered.
    answered: Mutex<HashMap<String, Value>>,
    /// Requests under ids of their own whose answers were lost.
    unsure: Mutex<Vec<Value>>,
    answers: AtomicUsize,
}

impl Witness {
    fn note(&self, order: Value) {
        let id = order["order_id"].as_str().expect("an id").to_owned();
        self.answered.lock().expect("no panic").insert(id, order);
    }

    /// Orders until the connection is lost or the stock is gone.
    fn buy(&self, server: &Server, round: usize, n: usize) {
        let mut client = Client::new(server.address());
        for turn in 0.. {
            let mut body =
                json!({"buyer_id": format!("buyer-{round}-{n}-{turn}"), "item_id": "ticket"});
            let (named, waits) = (turn % 3 == 1, turn % 3 != 2);
            if named {
                body["order_id"] = json!(uuid::Uuid::now_v7().to_string());
            }
            let headers: &[_] = if waits { &[WAIT] } else { &[] };
            match client.post("/v1/orders", headers, &body) {
                Ok(answer) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    match (answer.status, answer.order()) {
                        (201, Some(order)) if waits => self.note(order),
                        (202, Some(order)) if !waits => self.note(order),
                        (409, Some(order)) => self.note(order),
                        (409, None) => return,
                        (status, _) => panic!("{status}: {:?}", answer.json()),
                    }
                }
                Err(_) => {
                    if named {
                        self.unsure.lock().expect("no panic").push(body);
                    }
                    return;
                }
            }
        }
    }

    /// Compares the answers with what the server says.
    fn check(&self, server: &Server) {
        let mut client = Client::new(server.address());
        for before in self.answered.lock().expect("no panic").values_mut() {
            let path = format!("/v1/orders/{}", before["order_id"].as_str().expect("an id"));
            let answer = client.get(&path, &[WAIT]).expect("an answer");
            assert_eq!(answer.status, 200, "lost: {before}");
            let now = answer.json();
            assert_ne!(now["status"], "queued", "{before}");
            if before["status"] == "queued" {
                // Only its decision is new.
                for field in ["status", "reason", "decided_at", "hold_expires_at"] {
                    before[field] = now[field].clone();
                }
                if let Some(line) = now.get("failed_line") {
                    before["failed_line"] = line.clone();
                }
            }
            assert_eq!(*before, now);
        }
        for body in self.unsure.lock().expect("no panic").drain(..) {
            let answer = client.post("/v1/orders", &[WAIT], &body).expect("an answer");
            match (answer.status, answer.order()) {
                (201 | 409, Some(order)) => {
                    assert_eq!(order["buyer_id"], body["buyer_id"]);
                    self.note(order);
                }
                (409, None) => {}
                (status, _) => panic!("{status}: {:?}", answer.json()),
            }
        }
    }
}

#[test]
fn no_answered_order_is_lost_or_changed_by_kill_9() {
    let witness = Witness::default();
    let mut setup = Setup::new();
    for round in 0..ROUNDS {
        let server = setup.args(&["--item", &format!("ticket={STOCK}")]).start();
        witness.check(&server);
        witness.answers.store(0, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| crowd(CLIENTS, |n| witness.buy(&server, round, n)));
            until("enough was answered", Duration::from_secs(30), || {
                (witness.answers.load(Ordering::Relaxed) >= ANSWERS).then_some(())
            });
            server.signal("KILL");
        });
        setup = server.crash();
    }

    let server = setup.start();
    witness.check(&server);
    crowd(CLIENTS, |n| witness.buy(&server, ROUNDS, n));
    witness.check(&server);
    let item = server.item("ticket");
    assert_eq!((&item["available"], &item["held"]), (&json!(0), &json!(STOCK)));

    let mut owners: HashMap<String, usize> = HashMap::new();
    for entry in server.get("/inventory").is(200).json().as_array().expect("a list") {
        *owners.entry(entry["owner"].as_str().expect("text").to_owned()).or_default() += 1;
    }
    assert_eq!(owners.values().sum::<usize>(), STOCK);
    assert!(owners.values().all(|units| *units == 1), "each buyer asked once, for one");
    for order in witness.answered.lock().expect("no panic").values() {
        let buyer = order["buyer_id"].as_str().expect("a buyer");
        assert_eq!(owners.contains_key(buyer), order["status"] == "held", "{order}");
    }
}
