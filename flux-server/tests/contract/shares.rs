//! One address at all its limits, and what is left for another: 127.0.0.2 takes what
//! it can get, 127.0.0.3 buys a ticket.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Answer, Connection, Server, Setup, until};

const HOG: u8 = 2;
const BUYER: u8 = 3;
const PROXY: u8 = 4;

const LONG: Duration = Duration::from_secs(30);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// Reads an answer to a `GET` on a connection of its own.
#[track_caller]
fn ask(server: &Server, host: u8, path: &str) -> Answer {
    let mut connection = server.connect_from(host);
    connection.send(get(path));
    connection.checked("GET", path)
}

fn post(order: &Value, headers: &str) -> String {
    let body = order.to_string();
    let length = body.len();
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn one_ticket() -> Value {
    json!({"buyer_id": "ann", "item_id": "t"})
}

#[track_caller]
fn buys(server: &Server, host: u8) {
    let mut connection = server.connect_from(host);
    connection.send(post(&one_ticket(), ""));
    connection.checked("POST", "/v1/orders").is(201);
}

/// Sends `request` on fresh connections until one is refused; returns those that were
/// not, whose answers began.
#[track_caller]
fn as_many_as_it_can(server: &Server, host: u8, most: usize, request: &str) -> Vec<Connection> {
    let mut taken = Vec::new();
    for _ in 0..most {
        let mut connection = server.connect_from(host);
        connection.send(request);
        let head = connection.head().expect("an answer");
        if head.status == 503 {
            assert!(head.maybe_header("retry-after").is_some());
            return taken;
        }
        assert!(head.status < 300, "{head:?}");
        taken.push(connection);
    }
    panic!("{host} had {most} and was not refused");
}

#[test]
fn an_address_with_all_its_connections_leaves_others_theirs() {
    let server = Server::start(&["--item", "t=5", "--connections-max", "16"]);
    let idle = as_many_as_it_can(&server, HOG, 17, &get("/v1/items/t"));
    assert_eq!(idle.len(), 4, "a quarter");
    // Slow heads are connections too, and so is one that says nothing.
    for begun in ["GET / HT", ""] {
        let mut connection = server.connect_from(HOG);
        connection.send(begun);
        connection.answer("GET").expect("an answer").problem(503, "unavailable");
        assert!(connection.is_closed());
    }
    buys(&server, BUYER);
    drop(idle);
    until("room again", LONG, || {
        let mut connection = server.connect_from(HOG);
        connection.send(get("/v1/items/t"));
        (connection.answer("GET")?.status == 200).then_some(())
    });
}

#[test]
fn a_flag_says_how_many_connections_an_address_may_have() {
    let args = ["--item", "t=5", "--connections-max", "16", "--connections-per-peer", "7"];
    let server = Server::start(&args);
    assert_eq!(as_many_as_it_can(&server, HOG, 17, &get("/v1/items/t")).len(), 7);
    buys(&server, BUYER);
}

#[test]
fn an_address_can_not_take_the_last_open_file() {
    let server = Setup::new().files_max(700).args(&["--item", "t=5"]).start();
    let mut hogs = Vec::new();
    for _ in 0..800 {
        let mut connection = server.connect_from(HOG);
        connection.send(get("/healthz"));
        let answer = connection.answer("GET");
        if answer.is_none_or(|answer| answer.maybe_header("connection") == Some("close")) {
            break;
        }
        hogs.push(connection);
    }
    assert!((10..200).contains(&hogs.len()), "{}", hogs.len());
    buys(&server, BUYER);
    assert!(server.log().contains("ulimit"), "{}", server.log());
}

#[test]
fn health_is_answered_where_every_connection_is_taken() {
    let args = ["--item", "t=5", "--connections-max", "2", "--connections-per-peer", "2"];
    let server = Server::start(&args);
    let _idle = as_many_as_it_can(&server, HOG, 3, &get("/v1/items/t"));
    for host in [HOG, BUYER] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let mut connection = server.connect_from(host);
            connection.send(get(path));
            let answer = connection.checked("GET", path).is(200);
            assert_eq!(answer.header("connection"), "close");
            assert!(connection.is_closed());
        }
        for path in ["/v1/items/t", "/nowhere", "/"] {
            let mut connection = server.connect_from(host);
            connection.send(get(path));
            let answer = connection.answer("GET").expect("an answer");
            answer.problem(503, "unavailable").header("retry-after");
            assert!(connection.is_closed());
        }
    }
    // Nor do those who say nothing keep it from being answered.
    let silent: Vec<_> = (0..300).map(|_| server.connect_from(HOG)).collect();
    for host in [HOG, BUYER] {
        until("it is answered", LONG, || {
            let mut connection = server.connect_from(host);
            connection.send(get("/healthz"));
            (connection.answer("GET")?.status == 200).then_some(())
        });
    }
    for mut connection in silent {
        connection.answer("GET").expect("an answer").problem(503, "unavailable");
    }
}

#[test]
fn requests_without_their_bodies_leave_their_places_to_others() {
    let server = Server::start(&["--item", "t=50", "--requests-max", "4"]);
    let begun = "POST /v1/orders HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\
        Content-Type: application/json\r\nContent-Length: 40\r\n\r\n";
    let mut waiting = Vec::new();
    for n in 0..8 {
        let mut connection = server.connect_from(HOG);
        connection.send(begun);
        // Asked for its body, its head has been read.
        let status = connection.head().expect("an answer").status;
        assert_eq!(status, if n < 2 { 100 } else { 503 });
        if status == 100 {
            connection.send("{");
            waiting.push(connection);
        }
    }
    for _ in 0..3 {
        ask(&server, BUYER, "/v1/items/t").is(200);
        buys(&server, BUYER);
    }
    // Their own requests are not in their way either, if they are whole.
    buys(&server, HOG);
    let order = one_ticket().to_string();
    let mut connection = server.connect_from(BUYER);
    connection
        .send(post(&one_ticket(), "Expect: 100-continue\r\n").strip_suffix(&order).expect("it"));
    assert_eq!(connection.head().expect("an interim answer").status, 100);
    connection.send(order);
    connection.checked("POST", "/v1/orders").is(201);
    // And they may go on.
    for mut connection in waiting {
        connection.send(&format!("{:40}", one_ticket().to_string())[1..]);
        connection.checked("POST", "/v1/orders").is(202);
    }
}

#[test]
fn an_address_that_waits_leaves_places_to_others() {
    // Nobody decides here, so a wait lasts as long as it was asked to.
    let server = Server::start(&["api", "--item", "t=50", "--requests-max", "4"]);
    let order = server.post("/v1/orders", &one_ticket()).is(202).field("order_id");
    let wait = format!("GET /v1/orders/{order} HTTP/1.1\r\nHost: t\r\nPrefer: wait=30\r\n\r\n");
    let mut waiting: Vec<_> = (0..2).map(|_| server.connect_from(HOG)).collect();
    for connection in &mut waiting {
        connection.send(&wait);
    }
    until("both wait", LONG, || {
        let text = ask(&server, BUYER, "/metrics").text();
        text.contains("\nflux_http_requests_in_flight 2\n").then_some(())
    });
    for path in ["/v1/items/t", &format!("/v1/orders/{order}")] {
        ask(&server, HOG, path).problem(503, "unavailable");
        ask(&server, BUYER, path).is(200);
    }
}

#[test]
fn an_address_with_its_streams_leaves_others_theirs() {
    let server = Server::start(&["--item", "t=5", "--streams-max", "8"]);
    let streams = as_many_as_it_can(&server, HOG, 9, &get("/v1/events?item_id=t"));
    assert_eq!(streams.len(), 4, "half of them");
    ask(&server, HOG, "/pulse").problem(503, "unavailable");
    assert_eq!(as_many_as_it_can(&server, BUYER, 9, &get("/v1/events")).len(), 2);
    assert_eq!(as_many_as_it_can(&server, PROXY, 9, &get("/pulse")).len(), 1);
}

const HALL: usize = 2_500;

/// A hall whose seats are more than the system keeps for readers that do not read.
fn hall(server: &Server) {
    let seats: Vec<_> = (0..HALL).map(|n| format!("{n:0120}")).collect();
    server.put("/v1/items/hall", &json!({"seats": seats})).is(201);
}

#[test]
fn those_who_do_not_read_the_seats_leave_them_to_others() {
    let server = Server::start(&[]);
    hall(&server);
    let path = "/v1/items/hall/seats";
    let slow = as_many_as_it_can(&server, HOG, 65, &get(path));
    assert_eq!(slow.len(), 32, "half of them");
    let seats = ask(&server, BUYER, path).is(200).json();
    assert_eq!(seats.as_object().map(serde_json::Map::len), Some(HALL));
}

#[test]
fn those_who_do_not_read_the_inventory_leave_it_to_others() {
    let items: Vec<String> = (0..10).map(|n| format!("i{n}")).collect();
    let pools: Vec<String> = items.iter().map(|item| format!("--item={item}=1000000")).collect();
    let server = Server::start(&pools.iter().map(String::as_str).collect::<Vec<_>>());
    let lines: Vec<_> =
        items.iter().map(|item| json!({"item_id": item, "quantity": 1000})).collect();
    server.held(&json!({"buyer_id": "b".repeat(128), "lines": lines}));
    let slow = as_many_as_it_can(&server, HOG, 9, &get("/inventory"));
    assert_eq!(slow.len(), 4, "half of them");
    let units = ask(&server, BUYER, "/inventory").is(200).json();
    assert_eq!(units.as_array().map(Vec::len), Some(10_000));
}

#[test]
fn health_and_metrics_have_an_address_of_their_own() {
    let args = ["api", "--item", "t=5", "--connections-max", "2", "--requests-max", "1"];
    let setup = Setup::new().args(&args).args(&["--ops-listen", "127.0.0.1:0"]);
    let mut server = setup.start();
    let ops = until("it says where", LONG, || {
        let log = server.log();
        let at = log.lines().find_map(|line| line.strip_prefix("health and metrics on http://"));
        at.map(|at| at.parse().expect("an address"))
    });
    let order = server.post("/v1/orders", &one_ticket()).is(202).field("order_id");
    let paths = ["/healthz", "/readyz", "/metrics"];
    for path in paths {
        server.get(path).problem(404, "not-found");
    }
    // Everything of the public one is taken.
    let mut waiting = until("a connection", LONG, || {
        let mut connection = server.connect_from(HOG);
        connection.send(get("/v1/items/t"));
        (connection.answer("GET")?.status == 200).then_some(connection)
    });
    waiting.send(format!("GET /v1/orders/{order} HTTP/1.1\r\nHost: t\r\nPrefer: wait=30\r\n\r\n"));
    let _more: Vec<_> = (0..300).map(|_| server.connect_from(HOG)).collect();
    let ask = |host: u8, path: &str| {
        let mut connection = Connection::between(host, ops);
        connection.send(get(path));
        connection.answer("GET").expect("an answer")
    };
    for host in [HOG, BUYER] {
        for path in paths {
            ask(host, path).is(200);
        }
        for path in ["/", "/v1/items/t", "/openapi.json", "/nowhere"] {
            ask(host, path).problem(404, "not-found");
        }
    }
    // It goes on answering until the end.
    let mut asking = Connection::between(BUYER, ops);
    server.signal("TERM");
    until("it is not ready", LONG, || {
        asking.send(get("/readyz"));
        match asking.answer("GET") {
            Some(answer) => (answer.status == 503).then_some(()),
            None => {
                asking = Connection::between(BUYER, ops);
                None
            }
        }
    });
    assert!(server.end().success(), "{}", server.log());
}

#[test]
fn a_trusted_proxy_has_no_bound_of_its_own_and_names_who_has() {
    let args = ["--item", "t=50", "--connections-max", "16", "--trusted-proxy", "127.0.0.4/31"];
    let server = Server::start(&[&args[..], &["--streams-max", "4"]].concat());
    let mut connections: Vec<_> = (0..12).map(|_| server.connect_from(PROXY)).collect();
    for connection in &mut connections {
        connection.send(get("/v1/items/t"));
        connection.answer("GET").expect("an answer").is(200);
    }
    let mut connections = connections.into_iter();
    let mut streams = Vec::new();
    let mut stream = |named: &str, status: u16| {
        let mut connection = connections.next().expect("enough of them");
        connection.send(format!("GET /v1/events HTTP/1.1\r\nHost: t\r\n{named}\r\n\r\n"));
        assert_eq!(connection.head().expect("a head").status, status, "{named}");
        streams.push(connection);
    };
    stream("X-Forwarded-For: 192.0.2.1", 200);
    stream("X-Forwarded-For: 198.51.100.1, 192.0.2.1, 127.0.0.5", 200);
    stream("Forwarded: for=192.0.2.1", 503);
    stream("X-Forwarded-For: 192.0.2.1", 503);
    // What can't be read counts for the proxy.
    stream("X-Forwarded-For: 192.0.2.2, somebody", 200);
    stream("Forwarded: for=unknown", 503);
    stream("Forwarded: for=\"[2001:db8::1]:80\";proto=http", 200);
    stream("X-Forwarded-For: 2001:db8::2", 503);
}

#[test]
fn nobody_else_is_believed_whom_it_speaks_for() {
    let args = ["--item", "t=50", "--limit-per-peer", "5", "--trusted-proxy", "127.0.0.4"];
    let server = Server::start(&args);
    let limited = |host: u8, named: &dyn Fn(usize) -> String| {
        let mut connection = server.connect_from(host);
        (0..60).any(|n| {
            let named = named(n);
            connection.send(format!("GET /v1/items/t HTTP/1.1\r\nHost: t\r\n{named}\r\n\r\n"));
            connection.answer("GET").expect("an answer").status == 429
        })
    };
    let by_x = |n: usize| format!("X-Forwarded-For: 192.0.2.{n}");
    let by_forwarded = |n: usize| format!("Forwarded: for=192.0.2.{n}");
    assert!(limited(HOG, &by_x));
    assert!(limited(HOG, &by_forwarded));
    assert!(!limited(PROXY, &by_x));
    // Through the proxy the left of what it adds is the client's own word.
    assert!(limited(PROXY, &|n| format!("X-Forwarded-For: 198.51.100.{n}, 203.0.113.1")));
    assert!(limited(PROXY, &|n| format!("Forwarded: for=198.51.100.{n}, for=203.0.113.1")));
}

#[test]
fn the_figures_are_told_from_a_copy() {
    let server = Server::start(&["--item", "t=5"]);
    let started = Instant::now();
    let mut connection = server.connect();
    let mut told: Vec<_> = (0..100)
        .map(|_| {
            connection.send(get("/metrics"));
            connection.checked("GET", "/metrics").is(200).text()
        })
        .collect();
    told.dedup();
    let seconds = started.elapsed().as_secs() as usize;
    assert!(told.len() <= 1 + seconds, "{} in {seconds} s", told.len());
    until("news", LONG, || (server.get("/metrics").text() != told[0]).then_some(()));
}

#[test]
fn what_can_not_be_a_network_of_proxies_stops_the_start() {
    for wrong in ["proxy", "10.0.0.0/33", "::ffff:10.0.0.0/104", ""] {
        let (status, log) = Setup::new().args(&["--trusted-proxy", wrong]).run_to_end();
        assert!(!status.success() && log.contains("--trusted-proxy"), "{wrong}: {log}");
    }
    let (status, log) = Setup::new().args(&["--connections-per-peer", "0"]).run_to_end();
    assert!(!status.success() && log.contains("--connections-per-peer"), "{log}");
}
