//! The operator's calls.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::harness::{Answer, Call, Server, Setup};
use crate::new_id;

const TOKEN: &str = "s3cret-operator-token";
/// What a server without buyers' tokens says once all else of its start is said.
const STARTED: &str = "FLUX_BUYER_JWT_SECRET is not set";

fn guarded() -> Server {
    Setup::new().args(&["--item", "t=5"]).env("FLUX_OPERATOR_TOKEN", TOKEN).start()
}

/// Each operator call, as good as it can be.
fn calls<'s>(server: &'s Server, id: &str) -> [Call<'s>; 5] {
    let order = |what: &str| format!("/v1/orders/{id}{what}");
    [
        server.call("PUT", "/v1/items/t").json(&json!({"capacity": 5})),
        server.call("POST", order("/confirm")).json(&json!({"payment_ref": "p"})),
        server.call("POST", order("/cancel")),
        server.call("POST", order("/refunded")).json(&json!({"refund_ref": "r"})),
        server.call("GET", "/v1/orders"),
    ]
}

fn unauthorized(answer: Answer) {
    let answer = answer.problem(401, "unauthorized");
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
}

#[test]
fn operator_calls_need_the_operators_token() {
    let server = guarded();
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let longer = format!("{TOKEN}x");
    let upper = TOKEN.to_ascii_uppercase();
    for call in calls(&server, &id) {
        unauthorized(call.send());
    }
    for wrong in ["x", &TOKEN[1..], &TOKEN[..TOKEN.len() - 1], &longer, &upper] {
        for call in calls(&server, &id) {
            call.bearer(wrong).send().problem(403, "forbidden");
        }
    }
    for other in ["Basic czNjcmV0", TOKEN, "Bearer", "Bearer "] {
        for call in calls(&server, &id) {
            unauthorized(call.header("authorization", other).send());
        }
    }
    assert_eq!(server.read_order(&id)["status"], "held");
    for call in calls(&server, &id) {
        call.bearer(TOKEN).send().is(200);
    }
    for scheme in ["bearer", "BEARER"] {
        let call = server.call("GET", "/v1/orders");
        call.header("authorization", &format!("{scheme} {TOKEN}")).send().is(200);
    }
}

#[test]
fn only_the_operator_has_items_leave() {
    let server = guarded();
    let calls = || {
        let archive = server.call("POST", "/v1/archives").json(&json!({"items": ["t"]}));
        [server.call("DELETE", "/v1/items/t"), archive]
    };
    for call in calls() {
        unauthorized(call.send());
    }
    for call in calls() {
        call.bearer("wrong").send().problem(403, "forbidden");
    }
    assert_eq!(server.item("t")["available"], 5);
}

#[test]
fn buyer_calls_stay_open_beside_an_operators_token() {
    let server = guarded();
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    server.read_order(&id);
    server.act(format_args!("/v1/orders/{id}/release")).is(200);
    for path in
        ["/v1/items", "/v1/items/t", "/inventory", "/healthz", "/readyz", "/", "/openapi.json"]
    {
        server.get(path).is(200);
    }
    server.post("/buy", &json!({"user_id": "ann", "item_id": "t"})).is(200);
}

#[test]
fn authorization_is_judged_before_the_body_and_before_existence() {
    let server = guarded();
    let unknown = new_id();
    for call in calls(&server, &unknown) {
        unauthorized(call.send());
    }
    for call in calls(&server, "not-an-id") {
        unauthorized(call.send());
    }
    for call in calls(&server, &unknown).into_iter().chain(calls(&server, "not-an-id")) {
        call.bearer("wrong").send().problem(403, "forbidden");
    }
    let confirm = format!("/v1/orders/{unknown}/confirm");
    for (method, path) in [("PUT", "/v1/items/t"), ("PUT", "/v1/items/a%20b"), ("POST", &*confirm)]
    {
        unauthorized(
            server.call(method, path).header("content-type", "text/plain").body("{").send(),
        );
        let call = server.call(method, path).header("content-type", "application/json");
        call.bearer("wrong").body("{").send().problem(403, "forbidden");
    }
    // The answer does not wait for a body, however large it says it is.
    let mut connection = server.connect();
    connection.send("PUT /v1/items/t HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n");
    unauthorized(connection.checked("PUT", "/v1/items/t"));
    // Nor does it depend on what a query asks.
    unauthorized(server.get("/v1/orders?limit=nonsense"));
}

/// The token in the file of a server that made it.
fn made(server: &Server) -> String {
    let file = server.file("flux-data/operator-token");
    let line = std::fs::read_to_string(file).expect("a token");
    line.strip_suffix('\n').expect("one line").to_owned()
}

#[test]
fn without_a_token_serve_makes_one_and_says_where_it_is() {
    let server = Setup::new().args(&["--item", "t=5"]).without_operator().start();
    let token = made(&server);
    let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(token.len() >= 43 && token.bytes().all(url_safe), "{token}");
    let mode = std::fs::metadata(server.file("flux-data/operator-token")).expect("there").mode();
    assert_eq!(mode & 0o777, 0o600);
    let log = server.logged("flux-data/operator-token");
    assert!(!log.contains(&token), "{log}");

    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    for call in calls(&server, &id) {
        unauthorized(call.send());
    }
    for call in calls(&server, &id) {
        call.bearer("x").send().problem(403, "forbidden");
    }
    for call in calls(&server, &id) {
        call.bearer(&token).send().is(200);
    }

    let server = server.crash().start();
    assert_eq!(made(&server), token, "it stays");
    server.call("GET", "/v1/orders").bearer(&token).send().is(200);
    let log = server.logged("flux-data/operator-token");
    assert!(!log.contains(&token), "{log}");
}

#[test]
fn no_operator_call_is_open_wherever_it_seems_to_come_from() {
    let server = Setup::new().args(&["--item", "t=5"]).without_operator().start();
    // As from this machine; as a stock nginx passes it on; as a page of another site sends it.
    for head in [
        format!("Host: {}\r\n", server.address()),
        "Host: localhost\r\nOrigin: http://localhost\r\n".to_owned(),
        "Host: backend\r\nConnection: close\r\n".to_owned(),
        "Host: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n".to_owned(),
        "Host: evil.example\r\nOrigin: http://evil.example\r\n".to_owned(),
    ] {
        let mut connection = server.connect();
        connection.send(format!("GET /v1/orders HTTP/1.1\r\n{head}\r\n"));
        unauthorized(connection.checked("GET", "/v1/orders"));
        let put = "Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"capacity\":9}";
        let mut connection = server.connect();
        connection.send(format!("PUT /v1/items/t HTTP/1.1\r\n{head}{put}"));
        unauthorized(connection.checked("PUT", "/v1/items/t"));
    }
    assert_eq!(server.item("t")["capacity"], 5);
}

#[test]
fn an_api_without_a_token_answers_no_operator_call_and_says_so() {
    let server = Setup::new().args(&["api", "--item", "t=5"]).without_operator().start();
    for call in calls(&server, &new_id()) {
        unauthorized(call.send());
    }
    for call in calls(&server, &new_id()) {
        unauthorized(call.bearer("x").send());
    }
    server.logged("FLUX_OPERATOR_TOKEN is not set");
    assert!(!server.file("flux-data/operator-token").exists());
    let log = guarded().logged(STARTED);
    assert!(!log.contains("FLUX_OPERATOR_TOKEN"), "{log}");
}

#[test]
fn a_token_in_the_file_is_used_or_stops_the_start() {
    let setup = |token: &str| {
        let setup = Setup::new().args(&["--data-dir", "."]).without_operator();
        setup.file("operator-token", token)
    };
    let server = setup("of-a-secret-store\n").start();
    server.call("GET", "/v1/orders").bearer("of-a-secret-store").send().is(200);
    for bad in ["", "s3cret \n", "\u{201c}s3cret\u{201d}\n", "s3cret\nanother\n"] {
        let (status, log) = setup(bad).run_to_end();
        assert!(!status.success() && log.contains("operator-token"), "{bad:?}: {log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[test]
fn no_secret_is_logged() {
    let mut server = Setup::new()
        .args(&["--item", "t=5"])
        .env("FLUX_OPERATOR_TOKEN", TOKEN)
        .env("FLUX_BUYER_JWT_SECRET", "s3cret-buyer-key")
        .env("RUST_LOG", "trace")
        .start();
    server.call("GET", "/v1/orders").bearer(TOKEN).send().is(200);
    server
        .call("PUT", "/v1/items/t")
        .bearer("s3cret-wrong")
        .json(&json!({"capacity": 5}))
        .send()
        .is(403);
    server.call("GET", "/v1/orders").bearer("s3cret.wrong.jwt").send();
    server.signal("TERM");
    assert!(server.end().success(), "{}", server.log());
    let log = server.logged("stopped");
    let secret = log.lines().find(|line| line.contains("s3cret"));
    assert_eq!(secret, None);
}
