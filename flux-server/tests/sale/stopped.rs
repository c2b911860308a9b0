//! SIGTERM in the middle of a sale.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use flux_core::Flux;
use serde_json::json;

use crate::client::{Client, Lost};
use crate::crowd;
use crate::harness::{Server, Setup, until};

const DRAIN: Duration = Duration::from_secs(10);

/// The ends of all clients' exchanges, counted.
#[derive(Debug, Default)]
struct Ends {
    held: Vec<String>,
    unavailable: usize,
    /// Before the answer began, in good order: never read, so nothing was done.
    closed: usize,
    reset: usize,
    cut: usize,
}

/// Buys until nobody listens any more.
fn buy(address: SocketAddr, n: usize, keeps_connection: bool, ends: &Mutex<Ends>) {
    let mut client = Client::new(address);
    for turn in 0.. {
        let body = json!({"buyer_id": format!("buyer-{n}-{turn}"), "item_id": "ticket"});
        let answered = client.post("/v1/orders", &[("Prefer", "wait=20")], &body);
        let mut ends = ends.lock().expect("no panic");
        match answered {
            Ok(answer) if answer.status == 201 => {
                let order = answer.json();
                ends.held.push(order["order_id"].as_str().expect("an id").to_owned());
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.json());
                assert_eq!(answer.json()["type"], "/problems/unavailable");
                assert!(answer.header("retry-after").is_some());
                ends.unavailable += 1;
            }
            Err(Lost::Closed) => ends.closed += 1,
            Err(Lost::Reset) => ends.reset += 1,
            Err(Lost::Cut) => ends.cut += 1,
            Err(Lost::Refused) => return,
        }
        drop(ends);
        if !keeps_connection {
            client.leave();
        }
    }
}

/// Asks on one connection until it is told no, and then says when.
fn until_unready(address: SocketAddr) -> Instant {
    let mut client = Client::new(address);
    loop {
        match client.get("/readyz", &[]).map(|answer| answer.status) {
            Ok(200) => {}
            // The stop may fall in the middle of an answer, which is then the
            // connection's last.
            Ok(503) | Err(Lost::Refused) => return Instant::now(),
            other => panic!("/readyz: {other:?}"),
        }
    }
}

#[test]
fn nobody_is_cut_off_when_it_stops() {
    let drain = DRAIN.as_secs().to_string();
    let mut server = Server::start(&["--item", "ticket=1000000", "--drain", &drain]);
    let address = server.address();
    let ends = Mutex::new(Ends::default());
    let (told_at, unready_at) = thread::scope(|scope| {
        scope.spawn(|| crowd(32, |n| buy(address, n, n % 4 != 0, &ends)));
        let probe = scope.spawn(|| until_unready(address));
        until("a sale is on", Duration::from_secs(30), || {
            (ends.lock().expect("no panic").held.len() > 500).then_some(())
        });
        let told_at = Instant::now();
        server.signal("TERM");
        (told_at, probe.join().expect("no panic"))
    });
    assert!(server.end().success(), "{}", server.log());
    assert!(told_at.elapsed() < DRAIN, "{:?}", told_at.elapsed());
    assert!(unready_at - told_at < Duration::from_secs(2), "{:?}", unready_at - told_at);
    let ends = ends.into_inner().expect("no panic");
    let Ends { unavailable, closed, reset, cut, .. } = ends;
    println!("{} held, {unavailable} unavailable, {closed} closed unread", ends.held.len());
    assert_eq!((reset, cut), (0, 0), "of {} held, {unavailable} unavailable", ends.held.len());

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let flux = Flux::open(server.file("flux-data")).await.expect("it closed in order");
        let audit = flux.audit().await.expect("an audit");
        assert!(audit.is_clean(), "{audit}");
        for id in &ends.held {
            let order = flux.order(id.parse().expect("an id")).await.expect("it can be read");
            assert!(order.is_some_and(|order| order.status().owns_stock()), "{id} was promised");
        }
        flux.shutdown().await;
    });
}

#[test]
fn those_who_wait_for_a_decision_hear_at_once_that_there_is_none() {
    // Nobody decides here.
    let mut server = Setup::new().args(&["api", "--item", "ticket=5"]).start();
    let mut client = Client::new(server.address());
    let body = json!({"buyer_id": "ann", "item_id": "ticket"});
    let queued = client.post("/v1/orders", &[], &body).expect("an answer");
    assert_eq!(queued.status, 202);
    let id = queued.json()["order_id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/orders/{id}");
    let wait: &[_] = &[("Prefer", "wait=30")];
    let other = json!({"buyer_id": "bob", "item_id": "ticket"});
    thread::scope(|scope| {
        let readers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Client::new(server.address()).get(&path, wait)))
            .collect();
        let buyer = scope.spawn(|| Client::new(server.address()).post("/v1/orders", wait, &other));
        until("all wait", Duration::from_secs(10), || {
            let text = server.get("/metrics").text();
            text.lines().any(|line| line == "flux_http_requests_in_flight 9").then_some(())
        });
        let told_at = Instant::now();
        server.signal("TERM");
        for reader in readers {
            let answer = reader.join().expect("no panic").expect("an answer");
            assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("queued")));
        }
        let answer = buyer.join().expect("no panic").expect("an answer");
        assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")));
        assert!(told_at.elapsed() < Duration::from_secs(5), "{:?}", told_at.elapsed());
    });
    assert!(server.end().success(), "{}", server.log());
    // The next server that can decides what was accepted.
    let server = server.crash().start();
    let mut client = Client::new(server.address());
    let order = client.get(&path, wait).expect("an answer").json();
    assert_eq!(order["status"], "held");
}
