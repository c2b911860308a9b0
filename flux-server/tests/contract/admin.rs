//! What an operator asks a running server for beside the sale: a recount, and what was
//! given up.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flux_core::backends::embedded::Embedded;
use flux_core::protocol::Message;
use flux_core::{Line, Lines, Order, OrderId, Timestamp};
use serde_json::json;

use crate::harness::{OPERATOR, Server, Setup};

fn command(server: &Server, args: &[&str]) -> Output {
    let url = format!("http://{}", server.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-server"));
    command.args(args).args(["--url", &url]).env("FLUX_OPERATOR_TOKEN", OPERATOR);
    command.env_remove("RUST_LOG").output().expect("it runs")
}

fn printed(server: &Server, args: &[&str]) -> String {
    let output = command(server, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_server_is_counted_while_it_sells() {
    let server = Server::start(&["--item", "t=100000"]);
    let seats = json!({"seats": ["A1", "A2"], "hold_seconds": 1});
    server.put("/v1/items/hall", &seats).is(201);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for buyer in ["ann", "bob", "cy"] {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let order = json!({"buyer_id": buyer, "item_id": "t"});
                while !stop.load(Ordering::Relaxed) {
                    let id = server.held(&order);
                    server.post(format!("/v1/orders/{id}/release"), &json!(null)).is(200);
                    server.held(&order);
                }
            });
        }
        for _ in 0..5 {
            let audit = server.get("/v1/audit").is(200).json();
            assert_eq!(audit["faults"], json!([]), "{audit}");
            assert_eq!((&audit["items"], &audit["capacity"]), (&json!(2), &json!(100_002)));
            let said = printed(&server, &["audit"]);
            assert!(said.ends_with("audit: 0 faults\n"), "{said}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let audit = server.get("/v1/audit").is(200).json();
    let held = audit["orders"]["held"].as_u64().expect("some are held");
    assert_eq!(audit["available"], 100_002 - held);
    assert_eq!(audit["moving"], 0);
}

/// A data directory with these messages given up.
fn with_dead_letters(dir: &std::path::Path, messages: &[Message]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let backend = Embedded::open(dir).expect("opens").backend();
        backend.queue.send(messages).await.expect("sent");
        let deliveries = backend.queue.receive(10, Duration::ZERO).await.expect("received");
        let buried: Vec<_> = deliveries
            .into_iter()
            .map(|delivery| (delivery.receipt, "it was odd".to_owned()))
            .collect();
        backend.queue.bury(&buried).await.expect("buried");
    });
}

#[test]
fn what_was_given_up_is_listed_and_put_back_while_it_sells() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let lines = Lines::new(vec![Line::units("t", 2).expect("a line")]).expect("lines");
    let buyer = "ann".parse().expect("a buyer");
    let order = Order::queued(OrderId::new(), buyer, lines, Timestamp::now());
    let release = OrderId::new();
    with_dead_letters(&dir, &[Message::Place(order.clone()), Message::Release(release)]);
    let dir = dir.to_str().expect("a path");
    let server = Setup::new().args(&["--item", "t=5", "--data-dir", dir]).start();

    let listed = server.get("/v1/dead-letters").is(200).json();
    let letters = listed["dead_letters"].as_array().expect("a list");
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["what"], "place");
    assert_eq!(letters[0]["reason"], "it was odd");
    assert_eq!(letters[0]["order"]["order_id"], order.id.to_string());
    assert_eq!(letters[0]["order"]["lines"], json!([{"item_id": "t", "quantity": 2}]));
    assert_eq!((&letters[1]["what"], &letters[1]["order"]), (&json!("release"), &json!(null)));
    assert_eq!(letters[1]["order_id"], release.to_string());
    let one = server.get("/v1/dead-letters?limit=1").is(200).json();
    assert_eq!(one["dead_letters"].as_array().map(Vec::len), Some(1));
    let said = printed(&server, &["dead-letters"]);
    assert!(said.contains(&format!("release {release}: it was odd")), "{said}");
    assert!(said.ends_with("\n2 dead letters\n"), "{said}");

    let path = "/v1/dead-letters/redrive?limit=1";
    assert_eq!(server.post(path, &json!(null)).is(200).json(), json!({"redriven": 1}));
    let id = order.id.to_string();
    let decided = server.call("GET", format!("/v1/orders/{id}")).header("prefer", "wait=10").send();
    assert_eq!(decided.is(200).json()["status"], "held");
    assert_eq!(printed(&server, &["redrive"]), "1 dead letters put back in the queue\n");
    assert_eq!(server.get("/v1/dead-letters").is(200).json(), json!({"dead_letters": []}));
}

#[test]
fn all_this_is_the_operators() {
    let server = Server::start(&["--item", "t=5"]);
    let calls =
        [("GET", "/v1/audit"), ("GET", "/v1/dead-letters"), ("POST", "/v1/dead-letters/redrive")];
    for (method, path) in calls {
        server.call(method, path).bearer("wrong").send().problem(403, "forbidden");
    }
    for path in ["/v1/dead-letters?limit=0", "/v1/dead-letters?limit=x"] {
        server.get(path).problem(400, "invalid-request").names("limit");
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_flux-server"))
        .args(["audit", "--url", "http://127.0.0.1:1"])
        .env("FLUX_OPERATOR_TOKEN", OPERATOR)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && said.contains("can't reach 127.0.0.1:1"), "{said}");
    let many = command(&server, &["dead-letters", "--max", "1001"]);
    assert!(String::from_utf8_lossy(&many.stderr).contains("1000 at most"));
}
