//! The operator's calls.

use serde_json::json;

use crate::harness::{Answer, Call, Server, Setup};
use crate::new_id;

const TOKEN: &str = "s3cret-operator-token";

fn guarded() -> Server {
    Setup::new().args(&["--item", "t=5"]).env("FLUX_OPERATOR_TOKEN", TOKEN).start()
}

/// Each operator call, as good as it can be.
fn calls<'s>(server: &'s Server, id: &str) -> [Call<'s>; 4] {
    let order = |what: &str| format!("/v1/orders/{id}{what}");
    [
        server.call("PUT", "/v1/items/t").json(&json!({"capacity": 5})),
        server.call("POST", order("/confirm")).json(&json!({"payment_ref": "p"})),
        server.call("POST", order("/cancel")),
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

#[test]
fn without_a_token_operator_calls_are_for_loopback_and_it_says_so() {
    let server = Server::start(&["--item", "t=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    for call in calls(&server, &id) {
        call.send().is(200);
    }
    // Not for pages that found a way here, nor for what a proxy passes on.
    for (name, value) in [("origin", "http://evil.example"), ("x-forwarded-for", "192.0.2.1")] {
        for call in calls(&server, &id) {
            call.header(name, value).send().problem(403, "forbidden");
        }
    }
    let mut connection = server.connect();
    connection.send("GET /v1/orders HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    connection.checked("GET", "/v1/orders").problem(403, "forbidden");
    let says_so = |log: &str| log.contains("FLUX_OPERATOR_TOKEN is not set: operator calls are");
    assert!(says_so(&server.log()), "{}", server.log());
    assert!(!says_so(&guarded().log()));
}

#[test]
fn no_secret_is_logged() {
    let server = Setup::new()
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
    let log = server.log();
    assert!(!log.is_empty());
    let secret = log.lines().find(|line| line.contains("s3cret"));
    assert_eq!(secret, None);
}
