//! Starting, configuring, watching and stopping it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::from_now;
use crate::harness::{Server, Setup, until};

#[test]
fn it_is_alive_ready_and_measured() {
    let server = Server::start(&["--item", "t=5"]);
    server.get("/healthz").is(200);
    server.get("/readyz").is(200);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let metrics = server.get("/metrics").is(200);
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = metrics.text();
    assert!(text.contains("flux_orders_total{status=\"held\"} 1"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line:?} is no sample");
    }
    let page = server.get("/").is(200);
    assert!(page.header("content-type").starts_with("text/html"));
}

#[test]
fn the_default_is_the_embedded_backend_in_flux_data() {
    let server = Server::start(&["--item", "t=5"]);
    assert!(server.file("flux-data").is_dir());
    let (status, help) = Setup::new().without_listen().args(&["--help"]).run_to_end();
    assert!(status.success());
    assert!(help.contains("127.0.0.1:5000"), "{help}");
    for flag in [
        "--listen",
        "--backend",
        "--data-dir",
        "--item",
        "--catalog",
        "--drain",
        "--limit-per-buyer",
        "--limit-per-peer",
        "--cors-origin",
        "--log-format",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let token = |server: &Server, token: &str| {
        server.call("GET", "/v1/orders").bearer(token).send().status == 200
    };
    let file = "FLUX_OPERATOR_TOKEN=file\nFLUX_DATA_DIR=\"by file\"\nFLUX_LISTEN=127.0.0.1:0\n";
    let setup = Setup::new().without_listen().without_operator();
    let server = setup.file(".env", file).start();
    assert!(token(&server, "file"));
    assert!(server.file("by file").is_dir());

    let setup = Setup::new().without_listen().file(".env", file);
    let server = setup.env("FLUX_OPERATOR_TOKEN", "env").env("FLUX_DATA_DIR", "by-env").start();
    assert!(token(&server, "env") && !token(&server, "file"));
    assert!(server.file("by-env").is_dir() && !server.file("by file").exists());

    let setup = Setup::new().file(".env", "FLUX_LISTEN=nonsense\nFLUX_DATA_DIR=by-file\n");
    let setup = setup.env("FLUX_LISTEN", "nonsense too").env("FLUX_DATA_DIR", "by-env");
    let server = setup.args(&["--data-dir", "by-flag"]).start();
    assert!(server.file("by-flag").is_dir());
    assert!(!server.file("by-env").exists() && !server.file("by-file").exists());
    assert!(server.home().join(".env").exists());
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let names = ["FLUX_DATA_DIR", "FLUX_BACKEND", "FLUX_LISTEN"];
    let setup = names.iter().fold(Setup::new(), |setup, name| setup.env(name, ""));
    let server = setup.start();
    assert!(server.file("flux-data").is_dir());
    let file: String = names.iter().map(|name| format!("{name}=\n")).collect();
    let server = Setup::new().file(".env", &file).start();
    assert!(server.file("flux-data").is_dir());
    server.get("/v1/orders").is(200);
}

#[test]
fn a_secret_that_is_not_used_as_it_was_given_stops_the_start() {
    let refused = |(status, log): (ExitStatus, String), says: &str| {
        assert!(!status.success(), "{log}");
        assert!(log.contains(says) && !log.contains("s3cret"), "{log:?} does not say {says}");
    };
    let file = |text: &str| Setup::new().file(".env", text).run_to_end();
    refused(file("FLUX_OPERATOR_TOKEN=$s3cret\n"), "FLUX_OPERATOR_TOKEN in .env");
    refused(file("A=1\nFLUX_BUYER_JWT_SECRET=s3cret word\n"), ".env, line 2");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flux-server"));
    let home = tempfile::tempdir().expect("a directory");
    command.env("FLUX_OPERATOR_TOKEN", OsStr::from_bytes(b"s3cret\xff")).current_dir(home.path());
    let ran = command.args(["--listen", "256.0.0.1:0"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    refused((ran.status, said), "FLUX_OPERATOR_TOKEN is not UTF-8");
}

#[test]
fn serve_is_the_default_and_may_be_said() {
    let server = Server::start(&["serve", "--item", "t=5"]);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
}

#[test]
fn items_are_made_at_start_if_they_are_missing() {
    let catalog = format!(
        "[[item]]\nitem_id = \"hall\"\nname = \"Hall\"\nseats = [\"A1\", \"A2\"]\nhold_seconds = 60\n\
         max_per_buyer = 2\nopens_at = \"{}\"\ncloses_at = \"{}\"\n\n\
         [[item]]\nitem_id = \"pool\"\ncapacity = 3\n",
        from_now(-60),
        from_now(60)
    );
    let args = ["--item", "t=5", "--item", "a=b=7", "--catalog", "sale.toml"];
    let server = Setup::new().file("sale.toml", &catalog).args(&args).start();
    assert_eq!(server.item("t")["capacity"], 5);
    assert_eq!(server.item("a=b")["capacity"], 7);
    assert_eq!(server.item("pool")["capacity"], 3);
    let hall = server.item("hall");
    assert_eq!((&hall["kind"], &hall["name"]), (&json!("seats"), &json!("Hall")));
    assert_eq!((&hall["hold_seconds"], &hall["max_per_buyer"]), (&json!(60), &json!(2)));
    assert_eq!(hall["state"], "open");
    server.held(&json!({"buyer_id": "ann", "item_id": "hall", "seats": ["A2"]}));
    server.put("/v1/items/t", &json!({"capacity": 50, "name": "changed"})).is(200);

    let server = server.crash().args(&args).start();
    let item = server.item("t");
    assert_eq!((&item["capacity"], &item["name"]), (&json!(50), &json!("changed")));
    assert_eq!(server.item("hall")["available"], 1);
}

#[test]
fn a_wrong_configuration_is_refused_and_explained() {
    let wrong = |setup: Setup, says: &str| {
        let (status, log) = setup.run_to_end();
        assert!(!status.success(), "{log}");
        assert!(log.contains(says), "{log:?} does not say {says}");
        assert!(!log.contains("panicked"), "{log}");
    };
    let args = |args: &[&str]| Setup::new().args(args);
    wrong(args(&["--item", "t"]), "--item");
    wrong(args(&["--item", "t=lots"]), "--item");
    wrong(args(&["--item", "t=10000001"]), "capacity");
    wrong(args(&["--item", "a b=1"]), "item_id");
    wrong(args(&["--surprise"]), "--surprise");
    wrong(args(&["--backend", "paper"]), "--backend");
    wrong(args(&["--keep-rejected", "3599"]), "--keep-rejected");
    wrong(args(&["--keep-rejected=-1"]), "--keep-rejected");
    wrong(args(&["--rejected-max", "0"]), "--rejected-max");
    wrong(args(&["--rejected-max", "many"]), "--rejected-max");
    wrong(Setup::new().env("FLUX_KEEP_REJECTED", "60"), "--keep-rejected");
    wrong(Setup::new().env("FLUX_REJECTED_MAX", "-2"), "--rejected-max");
    wrong(args(&["--log-format", "xml"]), "--log-format");
    wrong(args(&["--catalog", "nowhere.toml"]), "nowhere.toml");
    wrong(Setup::new().listen("nonsense"), "--listen");
    let catalog = |text: &str| Setup::new().file("c.toml", text).args(&["--catalog", "c.toml"]);
    wrong(catalog("[[item]]\nitem_id = \"t\"\n"), "capacity");
    wrong(catalog("[[item]]\ncapacity = 1\n"), "item_id");
    wrong(catalog("[[item]]\nitem_id = \"t\"\ncapacity = 1\nsurprise = 1\n"), "surprise");
    wrong(catalog("[[items]]\nitem_id = \"t\"\ncapacity = 1\n"), "items");
    wrong(catalog("[[item"), "c.toml");
    let running = Server::start(&[]);
    let taken = running.address().to_string();
    wrong(Setup::new().listen(&taken), &taken);
}

#[test]
fn logs_are_json_where_asked() {
    let server = Server::start(&["--item", "t=5", "--log-format", "json"]);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let log = server.log();
    let mut lines = log.lines().filter(|line| !line.starts_with("listening on ")).peekable();
    assert!(lines.peek().is_some());
    for line in lines {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line:?} is not JSON");
    }
}

/// Clearing a huge page holds up whoever asked for memory.
#[test]
#[cfg(target_os = "linux")]
fn its_memory_comes_in_small_pages() {
    let server = Server::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("it runs");
    assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
}

#[test]
fn each_signal_stops_it_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--item", "t=5", "--drain", "2"]);
        let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
        // Idle connections do not hold it up.
        let mut idle = server.connect();
        idle.send("GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
        idle.answer("GET").expect("an answer").is(200);
        // Nor do those that are quiet for so long that they have given up their buffers.
        std::thread::sleep(Duration::from_millis(700));
        let mut half = server.connect();
        half.send("GET /heal");
        let started = Instant::now();
        server.signal(signal);
        assert!(server.end().success(), "{}", server.log());
        // With time for the disk where much else runs.
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        let server = server.crash().start();
        assert_eq!(server.read_order(&id)["status"], "held");
    }
}

#[test]
fn what_is_in_flight_is_answered_before_it_stops() {
    let mut server = Server::start(&["--item", "t=5"]);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let mut connection = server.connect();
    connection.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nPrefer: wait=10\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // Asked for its body, its head has been read.
    assert_eq!(connection.head().expect("an interim answer").status, 100);
    server.signal("TERM");
    until("no new connection is accepted", Duration::from_secs(5), || {
        std::net::TcpStream::connect(server.address()).is_err().then_some(())
    });
    // A terminal's Ctrl-C comes from a wrapper once more.
    server.signal("INT");
    server.signal("TERM");
    assert!(server.is_running());
    connection.send(body);
    let answer = connection.checked("POST", "/v1/orders");
    assert!(matches!(answer.status, 201 | 503), "{}", answer.text());
    assert!(server.end().success(), "{}", server.log());
    let accepted = answer.status == 201;
    let server = server.crash().start();
    assert_eq!(server.item("t")["available"], if accepted { 4 } else { 5 });
}

#[test]
fn it_does_not_wait_longer_than_the_drain() {
    let mut server = Server::start(&["--item", "t=5", "--drain", "1"]);
    let mut connection = server.connect();
    connection.send(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: 30\r\n\r\n",
    );
    assert_eq!(connection.head().expect("an interim answer").status, 100);
    let started = Instant::now();
    server.signal("TERM");
    assert!(server.end().success(), "{}", server.log());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn while_it_stops_it_is_alive_but_not_ready() {
    let mut server = Server::start(&["--item", "t=5"]);
    let mut connections: Vec<_> = (0..60).map(|_| server.connect()).collect();
    let ask = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    for connection in &mut connections {
        connection.send(ask);
        connection.checked("GET", "/healthz").is(200);
    }
    server.signal("TERM");
    let mut connections = connections.into_iter();
    let said = connections.find_map(|mut connection| {
        connection.send("GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = connection.checked("GET", "/readyz");
        (answer.status == 503).then_some(answer)
    });
    said.expect("it is not ready any more").problem(503, "unavailable");
    let mut connection = connections.next().expect("enough connections");
    connection.send(ask);
    connection.checked("GET", "/healthz").is(200);
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let mut connection = connections.next().expect("enough connections");
    connection.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    connection.checked("POST", "/v1/orders").problem(503, "unavailable");
    assert!(server.end().success(), "{}", server.log());
    let server = server.crash().start();
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn a_named_backend_beats_the_names_of_aws() {
    let aws = |setup: Setup| setup.env("SQS_QUEUE_URL", "http://127.0.0.1:1/q");
    let server = aws(Setup::new()).args(&["--item", "t=5"]).start();
    assert_eq!(server.item("t")["available"], 5, "one name alone is not enough");
    let both = aws(Setup::new()).env("DYNAMODB_TABLE", "t");
    let server = both.args(&["--backend", "embedded", "--item", "t=5"]).start();
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn the_example_of_a_file_can_be_used() {
    let example = include_str!("../../../.env.example");
    let server = Setup::new().file(".env", example).args(&["--item", "t=5"]).start();
    server.get("/readyz").is(200);
    assert!(server.file("flux-data").is_dir());

    // And with every line switched on.
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_uppercase()) => rest,
        _ => line,
    });
    let on = lines.collect::<Vec<_>>().join("\n");
    let on = on.replace("FLUX_OPERATOR_TOKEN=", "FLUX_OPERATOR_TOKEN=a-token");
    let on = on.replace("FLUX_BUYER_JWT_SECRET=", "FLUX_BUYER_JWT_SECRET=a-secret");
    let secret = "FLUX_WEBHOOK_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let on = on.replace("FLUX_WEBHOOK_SECRET=", secret);
    for name in ["AWS_REGION", "SQS_QUEUE_URL", "DYNAMODB_TABLE", "REDIS_URL", "REDIS_PASSWORD"] {
        assert!(on.contains(&format!("\n{name}=")), "{name}");
    }
    let server = Setup::new().file(".env", &on).args(&["--backend", "embedded"]).start();
    server.get("/readyz").is(200);
}
