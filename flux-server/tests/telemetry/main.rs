//! The server's telemetry: figures, traces and the log.

mod collector;
mod exposition;
#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the contract's tests use all of it")]
mod harness;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use collector::{Collector, Span};
use exposition::Figures;
use harness::{Answer, Receiver, Reply, Server, Setup};

/// Far more than anything here takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    harness::until(what, PATIENCE, look)
}

fn one(buyer: &str, item: &str) -> Value {
    json!({"buyer_id": buyer, "item_id": item})
}

/// Sells five units in all ways there are, and meets a sold-out gate.
fn small_sale(server: &Server) {
    let [paid, returned, released] = ["ann", "bob", "carl"].map(|b| server.held(&one(b, "a")));
    for order in [&paid, &returned] {
        let payment = json!({"payment_ref": "p"});
        server.post(format_args!("/v1/orders/{order}/confirm"), &payment).is(200);
    }
    server.act(format_args!("/v1/orders/{returned}/cancel")).is(200);
    server.act(format_args!("/v1/orders/{released}/release")).is(200);
    let two = json!({"buyer_id": "dora", "item_id": "a", "quantity": 2});
    let queued = server.post("/v1/orders", &two).is(202).field("order_id");
    server.call("GET", format_args!("/v1/orders/{queued}")).header("prefer", "wait=10").send();
    server.held(&one("eve", "b"));
    server.order(&one("eve", "b")).is(409);
    server.get("/nowhere").is(404);
}

fn figures(server: &Server) -> Figures {
    Figures::read(&server.get("/metrics").is(200).text())
}

#[test]
fn a_small_sale_shows_in_the_figures() {
    let server = Setup::new().args(&["--item", "a=5", "--item", "b=1", "--item", "\"\\=2"]).start();
    small_sale(&server);
    // Orders are counted after their callers have their answers.
    let held = |figures: &Figures| figures.value(r#"flux_orders_total{status="held"}"#) == 5.0;
    let figures = until("five orders are counted", || Some(figures(&server)).filter(held));

    for (series, value) in [
        (r#"flux_orders_total{status="confirmed"}"#, 2.0),
        (r#"flux_orders_total{status="cancelled"}"#, 1.0),
        (r#"flux_orders_total{status="released"}"#, 1.0),
        (r#"flux_orders_total{status="rejected"}"#, 0.0),
        ("flux_gate_turned_away_total", 1.0),
        ("flux_fenced_total", 0.0),
        ("flux_accept_seconds_count", 1.0),
        ("flux_decide_seconds_count", 5.0),
        (r#"flux_queue_messages{state="waiting"}"#, 0.0),
        (r#"flux_queue_messages{state="dead"}"#, 0.0),
        ("flux_queue_oldest_seconds", 0.0),
        ("flux_owed_orders", 1.0),
        (r#"flux_item_units{item="a",state="available"}"#, 2.0),
        (r#"flux_item_units{item="a",state="held"}"#, 2.0),
        (r#"flux_item_units{item="a",state="sold"}"#, 1.0),
        (r#"flux_item_units{item="\"\\",state="available"}"#, 2.0),
        (r#"flux_http_requests_total{route="POST /v1/orders",status="201"}"#, 4.0),
        (r#"flux_http_requests_total{route="POST /v1/orders",status="202"}"#, 1.0),
        (r#"flux_http_requests_total{route="POST /v1/orders",status="409"}"#, 1.0),
        (r#"flux_http_requests_total{route="none",status="404"}"#, 1.0),
        (r#"flux_http_request_seconds_count{route="POST /v1/orders/{order_id}/confirm"}"#, 2.0),
        (r#"flux_build_info{version="0.1.0"}"#, 1.0),
    ] {
        assert_eq!(figures.value(series), value, "{series}");
    }
    for series in [
        "flux_owed_oldest_seconds",
        "flux_commit_orders_count",
        "flux_commit_seconds_count",
        "flux_http_connections",
        "flux_http_requests_in_flight",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(figures.value(series) >= 0.0, "{series}");
    }
    let all = figures.value(r#"flux_decide_seconds_bucket{le="+Inf"}"#);
    assert_eq!(all, figures.value("flux_decide_seconds_count"));
    assert!(figures.values.contains_key(r#"flux_decide_seconds_bucket{le="0.0025"}"#));
    assert!(figures.values.contains_key(r#"flux_commit_orders_bucket{le="4096"}"#));
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../dashboard.json")).expect("JSON");
    let receiver = Receiver::start(|_, _| Reply::Taken);
    let server = Setup::new()
        .args(&["--item", "a=5", "--item", "b=1", "--webhook-private"])
        .args(&["--webhook", &receiver.url()])
        .env("FLUX_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .start();
    small_sale(&server);
    until("a webhook is told", || (!receiver.taken().is_empty()).then_some(()));
    let there = until("that is counted", || {
        let there = figures(&server).names;
        there.contains("flux_webhook_attempt_seconds_count").then_some(there)
    });

    let mut asked = HashSet::new();
    let mut cells = HashSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let grid = &panel["gridPos"];
        let number = |name: &str| grid[name].as_u64().expect("a number");
        for (x, y) in (0..number("w")).flat_map(|x| (0..number("h")).map(move |y| (x, y))) {
            let cell = (number("x") + x, number("y") + y);
            assert!(cell.0 < 24 && cells.insert(cell), "{} lies on another", panel["title"]);
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked.extend(names_in(target["expr"].as_str().expect("a query")));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        asked.extend(names_in(variable["query"]["query"].as_str().unwrap_or_default()));
    }
    let missing: Vec<_> = asked.difference(&there).collect();
    assert!(missing.is_empty(), "/metrics has no {missing:?}");
    let whole = |name: &String| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part))
            .unwrap_or(name)
            .to_owned()
    };
    let asked: HashSet<_> = asked.iter().map(whole).collect();
    let there: HashSet<_> = there.iter().map(whole).collect();
    let unasked: Vec<_> = there.difference(&asked).collect();
    assert!(unasked.is_empty(), "the dashboard does not show {unasked:?}");
}

/// Names of metrics in a query.
fn names_in(query: &str) -> impl Iterator<Item = String> {
    let words = query.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric());
    let ours = |word: &&str| word.starts_with("flux_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned)
}

fn traced(collector: &Collector) -> Setup {
    Setup::new()
        .args(&["--item", "a=5"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// Places an order for one unit, with these headers.
fn place(server: &Server, headers: &[(&str, &str)]) -> Answer {
    let mut call = server.call("POST", "/v1/orders").json(&one("ann", "a"));
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.send()
}

/// The spans from a request to the decision, which must be one trace.
#[track_caller]
fn decision(collector: &Collector, request: &Span, by: &str, order: &Answer) -> Span {
    let asking = collector.child(&request.id, by);
    let deciding = collector.child(&asking.id, "decide");
    for span in [&asking, &deciding] {
        assert_eq!(span.trace, request.trace);
        assert_eq!(span.attributes["order"], order.field("order_id"));
    }
    assert_eq!(deciding.attributes["status"], "held");
    deciding
}

#[test]
fn one_trace_covers_the_request_and_the_decision() {
    let collector = Collector::start();
    let server = traced(&collector).start();

    let held = place(&server, &[("prefer", "wait=10"), ("x-request-id", "waits")]).is(201);
    let waits = collector.request("waits");
    assert_eq!(waits.name, "POST /v1/orders");
    assert_eq!(waits.parent, "");
    assert!(waits.attributes["http.response.status_code"].contains("201"));
    decision(&collector, &waits, "place", &held);

    let queued = place(&server, &[("x-request-id", "goes")]).is(202);
    let goes = collector.request("goes");
    decision(&collector, &goes, "submit", &queued);
    assert_ne!(goes.trace, waits.trace);

    let release = format!("/v1/orders/{}/release", held.field("order_id"));
    server.call("POST", release).header("x-request-id", "returns").send().is(200);
    let returns = collector.request("returns");
    let ruling = collector.child(&returns.id, "decide");
    assert_eq!((ruling.trace, ruling.attributes["status"].as_str()), (returns.trace, "released"));
}

#[test]
fn the_callers_trace_is_continued() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    let (trace, caller) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");

    let unsampled = format!("00-{trace}-{caller}-00");
    place(&server, &[("traceparent", &unsampled), ("x-request-id", "unsampled")]).is(202);
    let sampled = format!("00-{trace}-{caller}-01");
    let headers = [("traceparent", sampled.as_str()), ("x-request-id", "sampled")];
    let queued = place(&server, &headers).is(202);
    place(&server, &[("traceparent", "nonsense"), ("x-request-id", "nonsense")]).is(202);

    let request = collector.request("sampled");
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (trace, caller));
    decision(&collector, &request, "submit", &queued);
    assert_ne!(collector.request("nonsense").trace, trace);
    let ids: Vec<_> = collector.spans().into_iter().map(|span| span.attributes).collect();
    assert!(ids.iter().all(|of| of.get("request_id").is_none_or(|id| id != "unsampled")));
}

#[test]
fn a_request_ends_with_its_answer_and_not_with_the_decision() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    // A decision comes a write later, unless the machine is slow to answer.
    let ends_first = (0..5).any(|n| {
        let id = n.to_string();
        let queued = place(&server, &[("x-request-id", &id)]).is(202);
        let request = collector.request(&id);
        request.ended_nanos < decision(&collector, &request, "submit", &queued).ended_nanos
    });
    assert!(ends_first, "{:?}", collector.spans());
}

#[test]
fn what_is_left_is_sent_at_the_end() {
    let collector = Collector::start();
    let mut server = traced(&collector).env("OTEL_BSP_SCHEDULE_DELAY", "3600000").start();
    server.held(&one("ann", "a"));
    assert!(collector.spans().is_empty());
    server.signal("TERM");
    assert!(server.end().success(), "{}", server.log());
    let names: HashSet<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert!(names.is_superset(&["POST /v1/orders", "place", "decide"].map(String::from).into()));
}

#[test]
fn a_collector_that_hangs_or_is_gone_stops_nothing() {
    // Connections are made and never answered.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let hangs = format!("http://{}", hangs.local_addr().expect("an address"));
    let gone = "http://127.0.0.1:1".to_owned();
    for url in [hangs, gone.clone()] {
        let mut server = Setup::new()
            .args(&["--item", "a=5", "--drain", "4"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .start();
        server.held(&one("ann", "a"));
        if url == gone {
            until("it is told", || server.log().contains("collector").then_some(()));
        }
        let started = Instant::now();
        server.signal("TERM");
        assert!(server.end().success(), "{}", server.log());
        assert!(started.elapsed() < Duration::from_secs(4), "{url}");
    }
}

#[test]
fn no_secret_is_logged_or_traced() {
    let collector = Collector::start();
    let key = "0123456789-the-key-of-the-buyers-tokens";
    let server = traced(&collector)
        .env("FLUX_OPERATOR_TOKEN", "the-operators-token")
        .env("FLUX_BUYER_JWT_SECRET", key)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=the-collectors-key")
        .env("RUST_LOG", "trace")
        .start();
    let token = jwt(key, &json!({"sub": "ann", "exp": 4_000_000_000_u64}));
    let ended = jwt(key, &json!({"sub": "ann", "exp": 1}));
    let buy = |bearer: &str| {
        place(&server, &[("authorization", &format!("Bearer {bearer}")), ("prefer", "wait=10")])
    };
    buy(&ended).is(401);
    buy("a-wrong-token").is(401);
    let order = buy(&token).is(201).field("order_id");
    for (bearer, status) in [("the-operators-token", 200), ("a-wrong-token", 403)] {
        let confirm = server.call("POST", format_args!("/v1/orders/{order}/confirm"));
        let confirm = confirm.bearer(bearer).header("x-request-id", "last");
        confirm.json(&json!({"payment_ref": "p"})).send().is(status);
    }
    collector.request("last");
    let mut broken = server.connect();
    broken.send("GET / HTTP/1.1\r\nauthorization: Bearer the-operators-token\r\n\0");
    drop(broken);
    until("the broken connection is logged", || server.log().contains("DEBUG").then_some(()));

    assert_eq!(collector.header("x-key"), "the-collectors-key");
    let (log, spans) = (server.log(), collector.text());
    assert!(spans.contains("decide"));
    let secrets =
        ["the-operators-token", key, &token, &ended, "a-wrong-token", "the-collectors-key"];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} in {log}");
        assert!(!spans.contains(secret), "{secret} in {spans}");
    }
}

fn jwt(key: &str, claims: &Value) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let head = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
}

#[test]
fn the_log_suits_whoever_reads_it() {
    let says = |setup: Setup, what: &str| {
        let server = setup.start();
        until(what, || server.log().contains(what).then_some(()));
        let log = server.log();
        log.lines().filter(|line| !line.starts_with("listening on")).map(str::to_owned).collect()
    };
    let warned = "FLUX_BUYER_JWT_SECRET";

    let text: Vec<String> = says(Setup::new(), warned);
    for (line, says) in [
        (&text[0], " INFO flux_core::backends::embedded: embedded store opened"),
        (&text[1], " WARN flux_server: FLUX_"),
    ] {
        assert!(line.starts_with("20") && line.contains(says), "{text:?}");
        assert!(!line.contains('\u{1b}'), "colours where there is no terminal: {text:?}");
    }

    let lines = says(Setup::new().args(&["--log-format", "json"]), warned);
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(line["timestamp"].is_string() && line["message"].is_string(), "{line}");
        let level = if line["target"] == "flux_server" { "WARN" } else { "INFO" };
        assert_eq!(line["level"], level);
    }

    let elsewhere = says(Setup::new().env("JOURNAL_STREAM", "1:1"), warned);
    assert!(elsewhere[0].starts_with("20"), "the journal is elsewhere: {elsewhere:?}");
    says(Setup::new().env("RUST_LOG", ""), warned);

    let mut quiet = Setup::new().env("RUST_LOG", "error").start();
    quiet.signal("TERM");
    assert!(quiet.end().success());
    assert!(!quiet.log().contains("flux_server"), "{}", quiet.log());
}

/// As systemd starts it: standard error is the journal, and the environment
/// says which file that is.
#[test]
fn the_journal_is_told_priorities_and_no_time() {
    let home = tempfile::tempdir().expect("a directory for the server");
    let journal = std::fs::File::create(home.path().join("journal")).expect("a file");
    let file = journal.metadata().expect("it is there");
    let mut server = Command::new(env!("CARGO_BIN_EXE_flux-server"))
        .args(["--listen", "127.0.0.1:0"])
        .env_clear()
        .env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()))
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(journal)
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let mut said = BufReader::new(server.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("it says where it listens");
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    let log = std::fs::read_to_string(home.path().join("journal")).expect("it is there");
    assert!(log.contains("FLUX_BUYER_JWT_SECRET"), "{log}");
    let is_ours = |line: &str| {
        line.starts_with("<4>flux_server: ")
            || line.starts_with("<6>flux_server::setup::operator_token: ")
            || line.starts_with("<6>flux_core::backends::embedded: ")
    };
    assert!(log.lines().all(is_ours), "{log}");
}

#[test]
fn it_does_not_start_with_telemetry_it_cannot_have() {
    for (name, value) in [
        ("RUST_LOG", "flux=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://no port:x"),
    ] {
        let (status, said) = Setup::new().env(name, value).run_to_end();
        assert!(!status.success() && said.contains(name), "{said}");
    }
}
