//! `GET /v1/changes`: every change once, in order, from wherever one stopped.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{OPERATOR, Server, Setup, until};

fn page(server: &Server, query: &str) -> Value {
    server.get(format!("/v1/changes?{query}")).is(200).json()
}

fn changes(page: &Value) -> &Vec<Value> {
    page["changes"].as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn each_change_of_an_order_and_an_item_is_there_in_order() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 5, "name": "A ticket"})).is(201);
    let order = json!({"buyer_id": "ann", "item_id": "t", "metadata": {"basket": "7"}});
    let held = server.order(&order).is(201).json();
    let path = format!("/v1/orders/{}", text(&held["order_id"]));
    let paid = server.post(format!("{path}/confirm"), &json!({"payment_ref": "p1"})).is(200);
    let cancelled = server.act(format!("{path}/cancel")).is(200).json();
    server.put("/v1/items/t", &json!({"capacity": 6})).is(200);

    let page = page(&server, "limit=1000");
    let seen: Vec<(&Value, &Value)> =
        changes(&page).iter().map(|change| (&change["order"], &change["item"])).collect();
    assert_eq!(seen.len(), 5, "{page}");
    assert_eq!(seen[0].1["capacity"], 5);
    assert_eq!(seen[0].1["name"], "A ticket");
    assert_eq!(seen[1].0, &held);
    assert_eq!(seen[2].0, &paid.json());
    assert_eq!(seen[3].0, &cancelled);
    assert_eq!(seen[4].1["capacity"], 6);
    assert_eq!(page["next"], changes(&page)[4]["cursor"]);
}

#[test]
fn reading_goes_on_behind_next_and_waits_for_what_comes() {
    let server = Server::start(&["--item", "t=50"]);
    for n in 0..7 {
        server.held(&json!({"buyer_id": format!("b{n}"), "item_id": "t"}));
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = page(&server, &format!("limit=3{after}"));
        if changes(&page).is_empty() {
            break;
        }
        assert!(changes(&page).len() <= 3);
        seen.extend(changes(&page).clone());
        after = format!("&after={}", text(&page["next"]));
    }
    assert_eq!(seen.len(), 8, "the item and its orders");
    let buyers = seen[1..].iter().map(|change| text(&change["order"]["buyer_id"]));
    assert!(buyers.eq(["b0", "b1", "b2", "b3", "b4", "b5", "b6"]));

    let began = Instant::now();
    let quiet = page(&server, "after=newest&wait=1");
    assert!(changes(&quiet).is_empty() && began.elapsed() >= Duration::from_secs(1));
    let query = format!("after={}&wait=30", text(&quiet["next"]));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| page(&server, &query));
        server.held(&json!({"buyer_id": "late", "item_id": "t"}));
        let told = waiting.join().expect("it is answered");
        assert_eq!(changes(&told)[0]["order"]["buyer_id"], "late");
    });
    assert!(began.elapsed() < Duration::from_secs(25), "it was woken");
}

#[test]
fn a_consumer_goes_on_where_it_was_after_a_crash() {
    let server = Server::start(&["--item", "t=50"]);
    for n in 0..4 {
        server.held(&json!({"buyer_id": format!("b{n}"), "item_id": "t"}));
    }
    let first = page(&server, "consumer=mailer&limit=2");
    let again = page(&server, "consumer=mailer&limit=2");
    assert_eq!(first, again, "nothing was done yet");
    let done = text(&first["next"]);
    let second = page(&server, &format!("consumer=mailer&limit=2&after={done}"));
    let server = server.crash().start();
    assert_eq!(page(&server, "consumer=mailer&limit=2"), second);
    assert_eq!(page(&server, "consumer=other&limit=2"), first);
}

#[test]
fn as_events_it_goes_on_behind_the_last_event() {
    let server = Server::start(&["--item", "t=50"]);
    let order = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let all = page(&server, "");
    let cursors: Vec<&str> = changes(&all).iter().map(|change| text(&change["cursor"])).collect();
    let mut stream = server.connect();
    stream.send(format!(
        "GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n\
         Accept: text/event-stream\r\nLast-Event-ID: {}\r\n\r\n",
        cursors[0]
    ));
    let head = stream.head().expect("an answer").is(200);
    assert_eq!(head.header("content-type"), "text/event-stream");
    let mut next = || String::from_utf8(stream.chunk().expect("an event")).expect("text");
    let event = next();
    let lines: Vec<&str> = event.lines().collect();
    assert_eq!(lines[..2], [format!("id: {}", cursors[1]).as_str(), "event: order"]);
    let data: Value =
        serde_json::from_str(lines[2].strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(data, changes(&all)[1]);
    server.act(format!("/v1/orders/{order}/release")).is(200);
    assert!(next().contains(r#""status":"released""#));
    server.put("/v1/items/u", &json!({"capacity": 1})).is(201);
    assert!(next().contains("event: item"));
}

#[test]
fn it_is_the_operators_and_nonsense_is_400() {
    let server = Server::start(&["--item", "t=50"]);
    server.call("GET", "/v1/changes").bearer("wrong").send().problem(403, "forbidden");
    for (query, field) in [
        ("after=", "after"),
        ("after=x", "after"),
        ("after=99999999", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("consumer=", "consumer"),
        ("consumer=a%20b", "consumer"),
    ] {
        server.get(format!("/v1/changes?{query}")).problem(400, "invalid-request").names(field);
    }
    let unreadable = server.call("GET", "/v1/changes").header("last-event-id", "x");
    unreadable.header("accept", "text/event-stream").send().problem(400, "invalid-request");
}

#[test]
fn who_comes_too_late_is_told_and_can_start_again() {
    let server = Server::start(&["--item", "t=1000", "--changes-max", "5"]);
    let oldest = page(&server, "limit=1");
    let begin = text(&oldest["next"]).to_owned();
    until("changes are gone", Duration::from_secs(20), || {
        server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
        let answer = server.get(format!("/v1/changes?after={begin}"));
        (answer.status == 410).then(|| answer.problem(410, "changes-gone"))
    });
    let now = page(&server, "after=newest");
    assert!(changes(&now).is_empty());
    server.held(&json!({"buyer_id": "ben", "item_id": "t"}));
    let more = page(&server, &format!("after={}", text(&now["next"])));
    assert_eq!(changes(&more)[0]["order"]["buyer_id"], "ben");
}

#[test]
fn without_a_feed_it_is_404() {
    let server = Setup::new().args(&["--item", "t=5", "--keep-changes", "0"]).start();
    server.get("/v1/changes").problem(404, "not-found");
}

#[test]
fn consumers_are_listed_and_forgotten_and_there_is_a_bound_to_them() {
    let server = Server::start(&["--item", "t=5"]);
    let next = text(&page(&server, "limit=1")["next"]).to_owned();
    for n in 0..100 {
        page(&server, &format!("consumer=c{n:02}&after={next}"));
    }
    let known = server.get("/v1/changes/consumers").is(200).json();
    let known = known["consumers"].as_array().expect("a list");
    assert_eq!(known.len(), 100);
    assert_eq!((&known[7]["name"], &known[7]["after"]), (&json!("c07"), &json!(next)));
    let one_more = format!("/v1/changes?consumer=more&after={next}");
    server.get(&one_more).problem(409, "too-many-consumers");
    page(&server, &format!("consumer=c07&after={next}"));

    let forget = |name: &str| {
        let call = server.call("DELETE", format_args!("/v1/changes/consumers/{name}"));
        call.bearer(OPERATOR).send()
    };
    forget("c%30%37").is(204);
    forget("c07").problem(404, "not-found");
    forget("a%20b").problem(404, "not-found");
    server.get(&one_more).is(200);
    let strangers = server.call("DELETE", "/v1/changes/consumers/c08");
    strangers.header("authorization", "Bearer no").send().problem(403, "forbidden");
    server.call("GET", "/v1/changes/consumers").header("authorization", "x").send();
    assert_eq!(server.get("/v1/changes/consumers").json()["consumers"][7]["name"], "c08");
}
