//! Bounds and times that the configuration sets, each with its own answer.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::harness::{Server, until};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: flux\r\n\r\n";
const POST: &str = "POST /v1/orders HTTP/1.1\r\nHost: flux\r\nContent-Type: application/json\r\n\
    Content-Length: 40\r\n\r\n{\"buyer_id\"";

#[test]
fn a_head_that_takes_too_long_is_408_and_the_connection_closed() {
    let server = Server::start(&["--head-timeout", "0.3"]);
    for begun in ["G", "GET /healthz HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nHost: flux\r\n"] {
        let mut connection = server.connect();
        connection.send(begun);
        connection.answer("GET").expect("an answer").is(408);
        assert!(connection.is_closed());
    }
    // Bytes that keep coming do not help, nor does an earlier request.
    let mut connection = server.connect();
    connection.send(GET);
    connection.answer("GET").expect("an answer").is(200);
    let started = Instant::now();
    connection.send("GET /healthz HTTP/1.1\r\nX-Slow: ");
    let drip = thread::scope(|scope| {
        let mut reading = server.connect();
        let dripping = scope.spawn(move || {
            reading.send("GET /healthz HTTP/1.1\r\nX-Slow: ");
            let mut sent = 0;
            until("it is given up", Duration::from_secs(10), || {
                reading.send("z");
                sent += 1;
                (sent > 60).then_some(())
            });
            reading.answer("GET").map(|answer| answer.status)
        });
        connection.answer("GET").expect("an answer").is(408);
        dripping.join().expect("no panic")
    });
    assert_eq!(drip, Some(408));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A client that says nothing is told nothing.
    assert!(server.connect().is_closed());
}

#[test]
fn a_body_that_takes_too_long_is_408() {
    let server = Server::start(&["--item", "ticket=5", "--body-timeout", "0.3"]);
    let mut connection = server.connect();
    connection.send(POST);
    connection.answer("POST").expect("an answer").is(408);
    assert!(connection.is_closed());
    assert_eq!(server.item("ticket")["available"], 5);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::start(&["--idle-timeout", "0.3"]);
    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send(GET);
        connection.answer("GET").expect("an answer").is(200);
    }
    let started = Instant::now();
    assert!(connection.is_closed());
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn one_connection_too_many_is_503() {
    let server = Server::start(&["--connections-max", "2", "--connections-per-peer", "2"]);
    let mut connections = [server.connect(), server.connect()];
    for connection in &mut connections {
        connection.send(GET);
        connection.answer("GET").expect("an answer").is(200);
    }
    let mut third = server.connect();
    third.send("GET /v1/items HTTP/1.1\r\nHost: flux\r\n\r\n");
    let answer = third.answer("GET").expect("an answer").problem(503, "unavailable");
    answer.header("retry-after");
    assert!(third.is_closed());
    // A connection that ends leaves room for another.
    drop(connections);
    until("there is room again", Duration::from_secs(10), || {
        let mut fourth = server.connect();
        fourth.send("GET /v1/items HTTP/1.1\r\nHost: flux\r\n\r\n");
        fourth.answer("GET").filter(|answer| answer.status == 200)
    });
}

#[test]
fn one_request_too_many_is_503_and_nothing_is_accepted() {
    // Nobody decides here, so whoever waits keeps a permit.
    let server = Server::start(&["api", "--item", "ticket=5", "--requests-max", "2"]);
    let body = json!({"buyer_id": "ann", "item_id": "ticket"});
    let id = server.post("/v1/orders", &body).is(202).field("order_id");
    let read = |seconds: u64| {
        let wait = format!("wait={seconds}");
        let path = format!("/v1/orders/{id}");
        Client::new(server.address()).get(&path, &[("Prefer", wait.as_str())]).expect("an answer")
    };
    // Whoever looks whether both permits are taken may have taken one.
    let read_on = || loop {
        let answer = read(5);
        if answer.status != 503 {
            return answer;
        }
    };
    thread::scope(|scope| {
        let waiting = [scope.spawn(read_on), scope.spawn(read_on)];
        until("both permits are taken", Duration::from_secs(10), || {
            (read(0).status == 503).then_some(())
        });
        let refused = server.post("/v1/orders", &body).problem(503, "unavailable");
        refused.header("retry-after");
        server.get("/healthz").is(200);
        server.get("/readyz").is(200);
        for one in waiting {
            assert_eq!(one.join().expect("no panic").status, 200);
        }
    });
    assert_eq!(read(0).status, 200);
    // The next that can decides the one that was accepted, and no other.
    let server = server.crash().start();
    server.call("GET", format_args!("/v1/orders/{id}")).header("prefer", "wait=10").send().is(200);
    assert_eq!(server.item("ticket")["held"], 1);
}

#[test]
fn one_stream_too_many_is_503() {
    let server = Server::start(&["--item", "ticket=5", "--streams-max", "1"]);
    let watch = "GET /v1/events?item_id=ticket HTTP/1.1\r\nHost: flux\r\n\r\n";
    let mut first = server.connect();
    first.send(watch);
    first.head().expect("an answer").is(200);
    first.chunk().expect("the present state");
    let mut second = server.connect();
    second.send(watch);
    second.answer("GET").expect("an answer").problem(503, "unavailable").header("retry-after");
    // An answered connection goes on.
    second.send(GET);
    second.answer("GET").expect("an answer").is(200);
}
