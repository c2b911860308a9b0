//! `GET /v1/events`: an item's state, now and at each change.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Connection, Server, matches};

/// A stream of one item, past its head.
struct Stream {
    connection: Connection,
    text: Vec<u8>,
}

/// An event or a comment of a stream.
enum Said {
    Item(Value),
    Comment,
}

impl Stream {
    #[track_caller]
    fn open(server: &Server, query: &str) -> Self {
        let path = format!("/v1/events{query}");
        let mut connection = server.connect();
        connection
            .send(format!("GET {path} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n"));
        let mut head = connection.head().expect("a head").is(200);
        head.call = format!("GET {path}");
        crate::harness::check("GET", &path, &head);
        assert!(head.header("content-type").starts_with("text/event-stream"));
        assert!(head.header("cache-control").contains("no-"), "a cache must not keep it");
        Self { connection, text: Vec::new() }
    }

    /// The next event or comment; `None` once the stream has ended as it should.
    #[track_caller]
    fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(at) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..at + 2).collect();
                return Some(said(&String::from_utf8(block).expect("UTF-8")));
            }
            match self.connection.chunk() {
                Some(chunk) => self.text.extend(chunk),
                None => {
                    assert!(self.text.is_empty(), "ends within an event");
                    return None;
                }
            }
        }
    }

    #[track_caller]
    fn item(&mut self) -> Value {
        loop {
            match self.next() {
                Some(Said::Item(item)) => return item,
                Some(Said::Comment) => {}
                None => panic!("the stream ended"),
            }
        }
    }
}

#[track_caller]
fn said(block: &str) -> Said {
    let (mut event, mut data) = (None, String::new());
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "event" => event = Some(value.trim_start().to_owned()),
            "data" => data.push_str(value.trim_start()),
            "" | "id" | "retry" => {}
            _ => panic!("{line:?} in an event"),
        }
    }
    let Some(event) = event else {
        assert!(data.is_empty(), "{block:?} is no named event");
        return Said::Comment;
    };
    assert_eq!(event, "item", "{block:?}");
    let item: Value = serde_json::from_str(&data).expect("JSON");
    matches("/components/schemas/Item", &item, "an event");
    Said::Item(item)
}

#[test]
fn a_watcher_sees_the_present_state_and_each_change() {
    let server = Server::start(&["--item", "t=5", "--item", "other=5"]);
    let mut stream = Stream::open(&server, "?item_id=t");
    assert_eq!(stream.item(), server.item("t"));
    server.held(&json!({"buyer_id": "ann", "item_id": "other"}));
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t", "quantity": 2}));
    let item = stream.item();
    assert_eq!((&item["item_id"], &item["available"]), (&json!("t"), &json!(3)));
    assert_eq!(item["held"], 2);
    let confirm = format!("/v1/orders/{id}/confirm");
    server.post(confirm, &json!({"payment_ref": "p"})).is(200);
    let item = stream.item();
    assert_eq!((&item["held"], &item["sold"]), (&json!(0), &json!(2)));
    server.act(format_args!("/v1/orders/{id}/cancel")).is(200);
    assert_eq!(stream.item()["available"], 5);
    server.put("/v1/items/t", &json!({"capacity": 7, "name": "new"})).is(200);
    let item = stream.item();
    assert_eq!((&item["capacity"], &item["name"]), (&json!(7), &json!("new")));
}

#[test]
fn there_are_at_most_10_events_a_second_and_the_last_state_arrives() {
    let server = Server::start(&["--item", "t=400"]);
    let mut stream = Stream::open(&server, "?item_id=t");
    assert_eq!(stream.item()["available"], 400);
    let (mut times, mut available) = (vec![Instant::now()], 400);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    server.order(&json!({"buyer_id": "ann", "item_id": "t"}));
                }
            });
        }
        while available > 0 {
            let now = stream.item()["available"].as_u64().expect("a count");
            assert!(now < available, "{now} after {available}");
            available = now;
            times.push(Instant::now());
        }
    });
    for window in times.windows(12) {
        let took = window[11] - window[0];
        assert!(took >= Duration::from_millis(900), "12 events in {took:?}");
    }
}

#[test]
fn without_an_item_every_item_is_watched() {
    let server = Server::start(&["--item", "t=5", "--item", "u=6"]);
    let mut stream = Stream::open(&server, "");
    let mut seen = [stream.item(), stream.item()];
    seen.sort_by_key(|item| item["item_id"].to_string());
    assert_eq!(seen, [server.item("t"), server.item("u")]);
    server.held(&json!({"buyer_id": "ann", "item_id": "u"}));
    let item = stream.item();
    assert_eq!((&item["item_id"], &item["available"]), (&json!("u"), &json!(5)));
}

#[test]
fn what_can_not_be_watched_is_said() {
    let server = Server::start(&["--item", "t=5"]);
    server.get("/v1/events?item_id=nowhere").problem(404, "not-found");
    server.get("/v1/events?item_id=").names("item_id");
    server.get("/v1/events?item_id=t&item_id=t").names("item_id");
}

#[test]
fn a_quiet_stream_has_a_comment_every_15_seconds() {
    let server = Server::start(&["--item", "t=5"]);
    let mut stream = Stream::open(&server, "?item_id=t");
    stream.item();
    let mut quiet = || {
        let started = Instant::now();
        assert!(matches!(stream.next(), Some(Said::Comment)));
        started.elapsed()
    };
    let in_time = |quiet: Duration| (13..=17).contains(&quiet.as_secs());
    let first = quiet();
    // A busy machine may have stood still once.
    assert!(in_time(first) || in_time(quiet()), "a comment after {first:?}");
}

#[test]
fn streams_end_when_the_server_stops() {
    let mut server = Server::start(&["--item", "t=5"]);
    let mut stream = Stream::open(&server, "?item_id=t");
    stream.item();
    server.signal("TERM");
    while stream.next().is_some() {}
    assert!(server.end().success());
}
