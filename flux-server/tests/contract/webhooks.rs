//! Webhooks: every change reaches its receiver, signed and in order, whatever that is like.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Message, Receiver, Reply, Server, Setup, until};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that tells this receiver.
fn telling(receiver: &Receiver) -> Setup {
    let webhook = ["--webhook-private", "--webhook", &receiver.url()];
    Setup::new().args(&webhook).env("FLUX_WEBHOOK_SECRET", SECRET)
}

/// The same server again, in the place of one that was killed.
fn again(server: Server, receiver: &Receiver) -> Setup {
    let webhook = ["--webhook-private", "--webhook", &receiver.url()];
    server.crash().args(&webhook).env("FLUX_WEBHOOK_SECRET", SECRET)
}

fn signature(secret: &str, message: &Message) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{}.{}.", message.id, message.timestamp).as_bytes());
    mac.update(&message.body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Every change there is, by the feed.
fn changes(server: &Server) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(format!("/v1/changes?limit=1000{after}")).is(200).json();
        let changes = page["changes"].as_array().expect("a list");
        if changes.is_empty() {
            return all;
        }
        all.extend(changes.iter().cloned());
        after = format!("&after={}", text(&page["next"]));
    }
}

/// Waits until everything in the feed was taken, and checks that nothing was out of order.
fn all_taken(server: &Server, receiver: &Receiver) {
    let wanted = changes(server);
    let mut missing: HashSet<&str> = wanted.iter().map(|change| text(&change["cursor"])).collect();
    let mut seen = 0;
    until("all is taken", PATIENCE, || {
        let messages = receiver.messages();
        for message in messages[seen..].iter().filter(|message| message.taken) {
            missing.remove(text(&message.json()["data"]["cursor"]));
        }
        seen = messages.len();
        missing.is_empty().then_some(())
    });
    // As after a crash.
    let mut repeats = HashSet::new();
    let mut once = HashSet::new();
    for message in receiver.taken() {
        if !once.insert(message.id.clone()) {
            repeats.insert(message.id);
        }
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut ids: HashMap<String, String> = HashMap::new();
    for message in receiver.taken() {
        let data = &message.json()["data"];
        let number: u64 = text(&data["cursor"]).parse().expect("a number");
        assert_eq!(&wanted[number as usize - 1], data);
        // A repeat has the id it had.
        let id = ids.entry(text(&data["cursor"]).to_owned()).or_insert(message.id.clone());
        assert_eq!(*id, message.id);
        let name = [&data["order"]["order_id"], &data["item"]["item_id"]];
        let name = name.into_iter().find_map(Value::as_str).expect("a name").to_owned();
        let newest = last.entry(name).or_default();
        assert!(number >= *newest || repeats.contains(&message.id), "{number} after {newest}");
        *newest = number.max(*newest);
    }
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), ids.len(), "each change has its own");
}

#[test]
fn every_change_is_sent_as_the_feed_has_it_and_signed_by_both_secrets() {
    let receiver = Receiver::start(|_, _| Reply::Taken);
    let both = format!("{SECRET} {OLD_SECRET}");
    let server = telling(&receiver).env("FLUX_WEBHOOK_SECRET", &both).args(&["--item", "t=5"]);
    let server = server.start();
    let order = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let path = format!("/v1/orders/{order}");
    server.post(format!("{path}/confirm"), &json!({"payment_ref": "p1"})).is(200);
    server.act(format!("{path}/cancel")).is(200);
    let messages = until("four messages", PATIENCE, || {
        Some(receiver.taken()).filter(|taken| taken.len() == 4)
    });
    let kinds: Vec<_> = messages.iter().map(|m| text(&m.json()["type"]).to_owned()).collect();
    let of_order = kinds.iter().filter(|kind| kind.starts_with("order.")).collect::<Vec<_>>();
    assert_eq!(of_order, ["order.held", "order.confirmed", "order.cancelled"]);
    assert!(kinds.contains(&"item.changed".to_owned()), "{kinds:?}");
    let feed = changes(&server);
    let now = jiff::Timestamp::now().as_second();
    for message in &messages {
        assert_eq!(message.path, "/hooks?of=flux");
        let json = message.json();
        assert!(feed.contains(&json["data"]), "{json}");
        assert_eq!(json["timestamp"], json["data"]["at"]);
        let sent: i64 = message.timestamp.parse().expect("seconds");
        assert!((now - sent).abs() < 60);
        let both = [SECRET, OLD_SECRET].map(|secret| signature(secret, message));
        assert_eq!(message.signature, both.join(" "));
    }
    let shown = server.get("/v1/webhooks").is(200).json();
    let shown = &shown["webhooks"][0];
    assert_eq!(shown["origin"], receiver.url().trim_end_matches("/hooks?of=flux"));
    assert!(text(&shown["name"]).starts_with("webhook-"));
    assert_eq!((&shown["given_up"], &shown["error"]), (&json!(0), &Value::Null));
}

/// Replies of a receiver that fails one in five, in all ways there are.
fn one_in_five(n: usize, _: &Message) -> Reply {
    match n % 20 {
        3 => Reply::Refused(500, ""),
        7 => Reply::Refused(307, "location: /elsewhere\r\n"),
        11 => Reply::Garbage,
        15 => Reply::HungUp,
        17 => Reply::Late(Duration::from_millis(300)),
        _ => Reply::Taken,
    }
}

#[test]
fn a_receiver_that_fails_is_slow_redirects_sends_garbage_and_is_away_is_told_all() {
    let away = std::env::var("FLUX_WEBHOOK_AWAY_SECONDS").map_or(2, |s| s.parse().expect("secs"));
    let receiver = Receiver::start(one_in_five);
    let server = telling(&receiver).args(&["--item", "t=2000"]).start();
    thread::scope(|scope| {
        for n in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..60 {
                    let buyer = format!("b{n}-{turn}");
                    let order = server.held(&json!({"buyer_id": buyer, "item_id": "t"}));
                    let path = format!("/v1/orders/{order}");
                    match turn % 3 {
                        0 => drop(server.act(format!("{path}/release")).is(200)),
                        1 => {
                            let paid = json!({"payment_ref": "p"});
                            server.post(format!("{path}/confirm"), &paid).is(200);
                            server.act(format!("{path}/cancel")).is(200);
                        }
                        _ => {}
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        receiver.leave();
        thread::sleep(Duration::from_secs(away));
        receiver.come_back();
    });
    all_taken(&server, &receiver);
    let paths: HashSet<_> = receiver.messages().iter().map(|m| m.path.clone()).collect();
    assert_eq!(paths.len(), 1, "redirects are not followed: {paths:?}");
    until("nothing waits", PATIENCE, || {
        let shown = server.get("/v1/webhooks").is(200).json();
        (shown["webhooks"][0]["waiting"] == 0).then_some(())
    });
    let metrics = server.get("/metrics").is(200).text();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert!(value("flux_webhook_delivered_total") >= changes(&server).len() as f64);
    assert!(value("flux_webhook_failed_attempts_total") > 0.0);
    assert_eq!(value("flux_webhook_given_up_total"), 0.0);
}

#[test]
fn nothing_is_missing_after_the_server_was_killed() {
    let receiver = Receiver::start(|n, _| match n % 7 {
        0 => Reply::Refused(503, ""),
        _ => Reply::Late(Duration::from_millis(5)),
    });
    let mut server = telling(&receiver).args(&["--item", "t=2000"]).start();
    for round in 0..4 {
        thread::scope(|scope| {
            for n in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    for turn in 0..25 {
                        let buyer = format!("b{round}-{n}-{turn}");
                        let order = server.held(&json!({"buyer_id": buyer, "item_id": "t"}));
                        server.act(format!("/v1/orders/{order}/release")).is(200);
                    }
                });
            }
        });
        server = again(server, &receiver).start();
    }
    all_taken(&server, &receiver);
}

#[test]
fn what_was_given_up_is_listed_and_can_be_sent_again() {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let receiver = Receiver::start(move |_, message| {
        let poison = String::from_utf8_lossy(&message.body).contains("poison");
        let open = is_open.load(SeqCst);
        if poison && !open { Reply::Refused(422, "") } else { Reply::Taken }
    });
    let soon = ["--webhook-give-up-after", "1"];
    let server = telling(&receiver).args(&["--item", "t=50"]).args(&soon).start();
    let poison = server.held(&json!({"buyer_id": "poison", "item_id": "t"}));
    let other = server.held(&json!({"buyer_id": "poison-too", "item_id": "t"}));
    let name = text(&server.get("/v1/webhooks").json()["webhooks"][0]["name"]).to_owned();
    let path = format!("/v1/webhooks/{name}");
    let mut buyers = 0..;
    let listed = until("both are given up", PATIENCE, || {
        // Others are taken meanwhile.
        let buyer = format!("b{}", buyers.next().expect("endless"));
        if server.item("t")["available"] != 0 {
            server.held(&json!({"buyer_id": buyer, "item_id": "t"}));
        }
        thread::sleep(Duration::from_millis(100));
        let listed = server.get(format!("{path}/given-up")).is(200).json();
        (listed["messages"].as_array().expect("a list").len() == 2).then_some(listed)
    });
    let given_up = &listed["messages"][0];
    assert_eq!(given_up["order_id"], poison);
    assert_eq!(given_up["type"], "order.held");
    assert_eq!(given_up["error"], "answered 422 Unprocessable Entity");
    assert!(given_up["attempts"].as_u64() >= Some(2), "{given_up}");
    assert_eq!(listed["messages"][1]["order_id"], other);
    assert_eq!(listed["next_cursor"], Value::Null);
    let first = server.get(format!("{path}/given-up?limit=1")).is(200).json();
    assert_eq!(first["messages"], json!([given_up]));
    let next = text(&first["next_cursor"]);
    let second = server.get(format!("{path}/given-up?limit=1&cursor={next}")).is(200).json();
    assert_eq!(second, json!({"messages": [listed["messages"][1]], "next_cursor": null}));

    // It stays, and what comes later of the same order goes on without it.
    let server = again(server, &receiver).args(&soon).start();
    assert_eq!(server.get(format!("{path}/given-up")).is(200).json(), listed);
    open.store(true, SeqCst);
    server.act(format!("/v1/orders/{poison}/release")).is(200);
    let taken = |kind: &str| {
        let of = |m: &Message| {
            let json = m.json();
            json["type"] == kind && json["data"]["order"]["order_id"] == poison.as_str()
        };
        receiver.taken().into_iter().find(of)
    };
    until("the next is taken", PATIENCE, || taken("order.released"));
    assert!(taken("order.held").is_none());

    server.act(format!("{path}/resend?id=msg_unknown")).problem(404, "not-found");
    let one = format!("{path}/resend?id={}", text(&given_up["id"]));
    assert_eq!(server.act(&one).is(200).json()["resent"], 1);
    server.act(&one).problem(404, "not-found");
    let left = server.get(format!("{path}/given-up")).is(200).json();
    assert_eq!(left["messages"], json!([listed["messages"][1]]));
    assert_eq!(server.act(format!("{path}/resend")).is(200).json()["resent"], 1);
    let again = until("it is taken", PATIENCE, || taken("order.held"));
    assert_eq!(again.id, text(&given_up["id"]));
    assert_eq!(server.act(format!("{path}/resend")).is(200).json()["resent"], 0);
    let listed = server.get(format!("{path}/given-up")).is(200).json();
    assert_eq!(listed["messages"], json!([]));
    for path in ["/v1/webhooks/webhook-0/given-up", "/v1/webhooks/x/given-up"] {
        server.get(path).problem(404, "not-found");
    }
    server.act("/v1/webhooks/x/resend").problem(404, "not-found");
    server.get(format!("{path}/given-up?cursor=x")).names("cursor");
    server.call("GET", "/v1/webhooks").bearer("wrong").send().problem(403, "forbidden");
    server.call("POST", format!("{path}/resend")).bearer("x").send().problem(403, "forbidden");
}

#[test]
fn one_that_comes_after_its_changes_are_gone_goes_on_with_the_oldest() {
    let receiver = Receiver::start(|_, _| Reply::Taken);
    let few = ["--changes-max", "5"];
    let server = telling(&receiver).args(&["--item", "t=5000"]).args(&few).start();
    until("the item is told", PATIENCE, || (!receiver.taken().is_empty()).then_some(()));
    let log = server.logged("changes are sent to");
    assert!(!log.contains("/hooks"), "what may be a secret is not logged: {log}");
    // Without its webhook the server sells on, until changes are gone.
    let server = server.crash().args(&few).start();
    let begin = text(&changes_page(&server, "limit=1")["next"]).to_owned();
    let log = server.logged("configured no more");
    assert!(log.contains("webhook-"), "{log}");
    until("changes are gone", PATIENCE, || {
        server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
        (server.get(format!("/v1/changes?after={begin}")).status == 410).then_some(())
    });
    let server = again(server, &receiver).args(&few).start();
    server.logged("it goes on from the oldest that is kept");
    let last = server.held(&json!({"buyer_id": "last", "item_id": "t"}));
    until("the last is told", PATIENCE, || {
        let taken = receiver.taken();
        taken.iter().any(|m| m.json()["data"]["order"]["order_id"] == last.as_str()).then_some(())
    });
}

fn changes_page(server: &Server, query: &str) -> Value {
    server.get(format!("/v1/changes?{query}")).is(200).json()
}

#[test]
fn a_receiver_that_never_answers_holds_up_no_sale_and_no_stop() {
    let receiver = Receiver::start(|_, _| Reply::Late(Duration::from_secs(600)));
    let server = telling(&receiver).args(&["--item", "t=500", "--drain", "3"]).start();
    for n in 0..200 {
        server.held(&json!({"buyer_id": format!("b{n}"), "item_id": "t"}));
    }
    let mut server = server;
    let began = Instant::now();
    server.signal("TERM");
    assert!(server.end().success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn what_is_refused_again_and_again_holds_up_no_others_and_outlives_a_crash() {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let receiver = Receiver::start(move |_, message| {
        let poison = String::from_utf8_lossy(&message.body).contains("poison");
        if poison && !is_open.load(SeqCst) { Reply::Refused(500, "") } else { Reply::Taken }
    });
    let server = telling(&receiver).args(&["--item", "t=100000"]).start();
    let poison = server.held(&json!({"buyer_id": "poison", "item_id": "t"}));
    let path = format!("/v1/orders/{poison}");
    server.post(format!("{path}/confirm"), &json!({"payment_ref": "p"})).is(200);
    // More than are read beyond a message that is not taken.
    thread::scope(|scope| {
        for n in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..550 {
                    let buyer = format!("b{n}-{turn}");
                    server.held(&json!({"buyer_id": buyer, "item_id": "t"}));
                }
            });
        }
    });
    server.logged("wait in a file, so that others go on");
    let others = || receiver.taken().len() >= 4_400;
    until("all others are taken", PATIENCE, || others().then_some(()));
    server.act(format!("{path}/cancel")).is(200);
    thread::sleep(Duration::from_millis(2_500));
    let server = again(server, &receiver).start();
    open.store(true, SeqCst);
    all_taken(&server, &receiver);
    let of_poison = |m: &Message| m.json()["data"]["order"]["order_id"] == poison.as_str();
    let kinds = receiver.taken().into_iter().filter(of_poison).map(|m| m.json()["type"].clone());
    let kinds: Vec<Value> = kinds.collect();
    assert_eq!(kinds, ["order.held", "order.confirmed", "order.cancelled"]);
}
