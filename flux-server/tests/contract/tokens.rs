//! Buyers' tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Answer, Server, Setup};
use crate::new_id;

const OPERATOR: &str = "operator-token";
const SECRET: &str = "a-secret-that-is-long-enough-for-HS256";

fn guarded() -> Server {
    Setup::new()
        .args(&["--item", "t=50"])
        .env("FLUX_OPERATOR_TOKEN", OPERATOR)
        .env("FLUX_BUYER_JWT_SECRET", SECRET)
        .start()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A good token for this buyer.
fn token(buyer: &str) -> String {
    let claims = json!({"sub": buyer, "exp": now() + 3600});
    signed(&json!({"alg": "HS256", "typ": "JWT"}), &claims, SECRET)
}

/// Tokens that are bad, each for its own reason.
fn bad_tokens(buyer: &str) -> Vec<(&'static str, String)> {
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let good = json!({"sub": buyer, "exp": now() + 3600});
    let with = |claims: Value| signed(&header, &claims, SECRET);
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none"}).to_string());
    let claims = URL_SAFE_NO_PAD.encode(good.to_string());
    let sound = token(buyer);
    let mut parts = sound.rsplitn(2, '.');
    let (_, unsigned) = (parts.next(), parts.next().expect("three parts"));
    vec![
        ("garbage", "garbage".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("another secret", signed(&header, &good, "another secret, long enough as well")),
        ("no signature", format!("{unsigned}.")),
        ("two parts", unsigned.to_owned()),
        ("alg none", format!("{none}.{claims}.")),
        ("alg HS512", signed(&json!({"alg": "HS512", "typ": "JWT"}), &good, SECRET)),
        ("alg RS256", signed(&json!({"alg": "RS256", "typ": "JWT"}), &good, SECRET)),
        ("critical", signed(&json!({"alg": "HS256", "crit": ["b64"], "b64": true}), &good, SECRET)),
        ("ended", with(json!({"sub": buyer, "exp": now() - 3600}))),
        ("ended a moment ago", with(json!({"sub": buyer, "exp": now() - 10}))),
        ("not good yet", with(json!({"sub": buyer, "exp": now() + 7200, "nbf": now() + 3600}))),
        ("no exp", with(json!({"sub": buyer}))),
        ("exp of another kind", with(json!({"sub": buyer, "exp": "never"}))),
        ("no sub", with(json!({"exp": now() + 3600}))),
        ("sub of another kind", with(json!({"sub": 7, "exp": now() + 3600}))),
        ("the operator's", OPERATOR.to_owned()),
    ]
}

#[test]
fn an_audience_and_an_issuer_are_checked_where_they_are_configured() {
    let with = |more: Value| {
        let mut claims = json!({"sub": "ann", "exp": now() + 3600});
        let claims_of = claims.as_object_mut().expect("an object");
        claims_of.extend(more.as_object().expect("an object").clone());
        signed(&json!({"alg": "HS256", "typ": "JWT"}), &claims, SECRET)
    };
    let guard = || Setup::new().args(&["--item", "t=50"]).env("FLUX_BUYER_JWT_SECRET", SECRET);
    let body = json!({"buyer_id": "ann", "item_id": "t"});
    let both = json!({"aud": "tickets", "iss": "https://id.example"});

    let audience = guard().args(&["--buyer-jwt-audience", "tickets"]).start();
    let issuer = guard().env("FLUX_BUYER_JWT_ISSUER", "https://id.example").start();
    let neither = guard().start();
    for sound in [both.clone(), json!({"aud": ["other", "tickets"], "iss": "https://id.example"})] {
        for server in [&audience, &issuer, &neither] {
            place(server, &with(sound.clone()), &body).is(201);
        }
    }
    for (why, wrong) in [
        ("no audience", json!({"iss": "https://id.example"})),
        ("another audience", json!({"aud": "Tickets"})),
        ("other audiences", json!({"aud": ["a", "b"]})),
        ("an audience of nobody", json!({"aud": []})),
        ("an audience of another kind", json!({"aud": 7})),
        ("a null audience", json!({"aud": null})),
    ] {
        assert_eq!(place(&audience, &with(wrong.clone()), &body).status, 401, "{why}");
        unauthorized(place(&audience, &with(wrong.clone()), &body));
        place(&neither, &with(wrong), &body).is(201);
    }
    for (why, wrong) in [
        ("no issuer", json!({"aud": "tickets"})),
        ("another issuer", json!({"iss": "https://id.example/"})),
        ("an issuer of another kind", json!({"iss": true})),
    ] {
        assert_eq!(place(&issuer, &with(wrong.clone()), &body).status, 401, "{why}");
        place(&neither, &with(wrong), &body).is(201);
    }
}

fn unauthorized(answer: Answer) {
    let answer = answer.problem(401, "unauthorized");
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
}

fn place(server: &Server, bearer: &str, body: &Value) -> Answer {
    let call = server.call("POST", "/v1/orders").header("prefer", "wait=10");
    call.bearer(bearer).json(body).send()
}

#[test]
fn a_buyers_calls_need_the_buyers_token() {
    let server = guarded();
    let body = json!({"buyer_id": "ann", "item_id": "t"});
    let bought = json!({"user_id": "ann", "item_id": "t"});
    let id = place(&server, &token("ann"), &body).is(201).field("order_id");
    server.call("POST", "/buy").bearer(&token("ann")).json(&bought).send().is(200);
    let path = format!("/v1/orders/{id}");
    server.call("GET", &path).bearer(&token("ann")).send().is(200);

    unauthorized(server.post("/v1/orders", &body));
    unauthorized(server.post("/buy", &bought));
    unauthorized(server.get(&path));
    unauthorized(server.act(format_args!("{path}/release")));
    for (why, bad) in bad_tokens("ann") {
        let answer = place(&server, &bad, &body);
        assert_eq!(answer.status, 401, "{why}");
        unauthorized(answer);
        unauthorized(server.call("POST", "/buy").bearer(&bad).json(&bought).send());
        if bad != OPERATOR {
            unauthorized(server.call("GET", &path).bearer(&bad).send());
            unauthorized(server.call("POST", format_args!("{path}/release")).bearer(&bad).send());
        }
    }
    assert_eq!(server.item("t")["available"], 48);
    let release = format!("{path}/release");
    server.call("POST", release).bearer(&token("ann")).send().is(200);
}

#[test]
fn a_token_is_good_from_its_nbf_on() {
    let server = guarded();
    let claims = json!({"sub": "ann", "exp": now() + 3600, "nbf": now() - 1});
    let good = signed(&json!({"alg": "HS256", "typ": "JWT"}), &claims, SECRET);
    place(&server, &good, &json!({"buyer_id": "ann", "item_id": "t"})).is(201);
}

#[test]
fn whoever_may_not_order_for_a_buyer_uses_up_none_of_its_rate() {
    let server = Setup::new()
        .args(&["--item", "t=50", "--limit-per-buyer", "1"])
        .env("FLUX_BUYER_JWT_SECRET", SECRET)
        .start();
    let order = json!({"buyer_id": "ann", "item_id": "t"});
    let bought = json!({"user_id": "ann", "item_id": "t"});
    for _ in 0..5 {
        unauthorized(server.post("/v1/orders", &order));
        unauthorized(server.post("/buy", &bought));
        place(&server, &token("bob"), &order).problem(403, "forbidden");
        let buy = server.call("POST", "/buy").bearer(&token("bob")).json(&bought);
        buy.send().problem(403, "forbidden");
        for (why, bad) in bad_tokens("ann") {
            assert_eq!(place(&server, &bad, &order).status, 401, "{why}");
        }
    }
    place(&server, &token("ann"), &order).is(201);
}

#[test]
fn a_token_of_another_buyer_is_403_before_existence() {
    let server = guarded();
    for item in ["t", "nowhere"] {
        let body = json!({"buyer_id": "ann", "item_id": item});
        place(&server, &token("bob"), &body).problem(403, "forbidden");
        let bought = json!({"user_id": "ann", "item_id": item});
        let call = server.call("POST", "/buy").bearer(&token("bob")).json(&bought);
        call.send().problem(403, "forbidden");
    }
    // Nor does it matter what else is wrong.
    for wrong in [
        json!({"buyer_id": "ann"}),
        json!({"buyer_id": "ann", "item_id": "t", "quantity": 0}),
        json!({"item_id": 7, "colour": "red", "buyer_id": "ann"}),
        json!({"buyer_id": "ann", "lines": []}),
    ] {
        place(&server, &token("bob"), &wrong).problem(403, "forbidden");
        place(&server, &token("ann"), &wrong).problem(400, "invalid-request");
    }
    place(&server, &token("bob"), &json!({"buyer_id": "a b"})).problem(400, "invalid-request");
    for wrong in [json!({"user_id": "ann"}), json!({"item_id": 7, "user_id": "ann"})] {
        let buy = |buyer| server.call("POST", "/buy").bearer(&token(buyer)).json(&wrong).send();
        buy("bob").problem(403, "forbidden");
        buy("ann").is(400);
    }
    assert_eq!(server.item("t")["available"], 50);
}

#[test]
fn a_token_is_judged_before_the_body_and_before_existence() {
    let server = guarded();
    let unknown = format!("/v1/orders/{}", new_id());
    unauthorized(server.get(&unknown));
    unauthorized(server.get("/v1/orders/not-an-id"));
    unauthorized(server.act(format_args!("{unknown}/release")));
    unauthorized(server.act("/v1/orders/not-an-id/release"));
    unauthorized(server.call("POST", "/v1/orders").body("{").send());
    unauthorized(server.call("POST", "/buy").body("{").send());
    let mut connection = server.connect();
    connection.send("POST /v1/orders HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n");
    unauthorized(connection.checked("POST", "/v1/orders"));
    let call = server.call("GET", &unknown).bearer(&token("ann"));
    call.send().problem(404, "not-found");
    let call = server.call("POST", "/v1/orders").bearer(&token("ann"));
    call.body("{").send().problem(415, "not-json");
}

#[test]
fn an_order_of_another_buyer_is_404_and_422_when_posted() {
    let server = guarded();
    let body = json!({"order_id": new_id(), "buyer_id": "ann", "item_id": "t"});
    let id = place(&server, &token("ann"), &body).is(201).field("order_id");
    let path = format!("/v1/orders/{id}");
    let bob = token("bob");
    server.call("GET", &path).bearer(&bob).send().problem(404, "not-found");
    let call = server.call("GET", &path).header("prefer", "wait=1");
    call.bearer(&bob).send().problem(404, "not-found");
    let release = format!("{path}/release");
    server.call("POST", &release).bearer(&bob).send().problem(404, "not-found");
    let posted = json!({"order_id": id, "buyer_id": "bob", "item_id": "t"});
    place(&server, &bob, &posted).problem(422, "order-id-reused");
    assert_eq!(server.call("GET", &path).bearer(&token("ann")).send().field("status"), "held");
}

#[test]
fn the_operators_token_reads_and_releases_any_order() {
    let server = guarded();
    let id = place(&server, &token("ann"), &json!({"buyer_id": "ann", "item_id": "t"}))
        .is(201)
        .field("order_id");
    let path = format!("/v1/orders/{id}");
    server.call("GET", &path).bearer(OPERATOR).send().is(200);
    let release = format!("{path}/release");
    let released = server.call("POST", &release).bearer(OPERATOR).send().is(200);
    assert_eq!(released.field("status"), "released");
    // A buyer's token is the wrong one for an operator's call.
    let item = json!({"capacity": 50});
    let call = server.call("PUT", "/v1/items/t").bearer(&token("ann")).json(&item);
    call.send().problem(403, "forbidden");
    let call = server.call("POST", format_args!("{path}/cancel")).bearer(&token("ann"));
    call.send().problem(403, "forbidden");
}

#[test]
fn the_inventory_is_then_for_the_operator() {
    let server = guarded();
    unauthorized(server.get("/inventory"));
    server.call("GET", "/inventory").bearer(&token("ann")).send().problem(403, "forbidden");
    server.call("GET", "/inventory").bearer("wrong").send().problem(403, "forbidden");
    server.call("GET", "/inventory").bearer(OPERATOR).send().is(200);
}

#[test]
fn a_buyer_lists_its_own_orders_and_no_other() {
    let server = guarded();
    let order = |buyer: &str| {
        let body = json!({"buyer_id": buyer, "item_id": "t"});
        place(&server, &token(buyer), &body).is(201).field("order_id")
    };
    let (ann, bob) = (order("ann"), order("bob"));
    let list = |bearer: &str, query: &str| {
        server.call("GET", format_args!("/v1/orders{query}")).bearer(bearer).send()
    };
    let ids = |answer: Answer| -> Vec<Value> {
        let page = answer.is(200).json();
        page["orders"].as_array().expect("a list").iter().map(|o| o["order_id"].clone()).collect()
    };
    assert_eq!(ids(list(&token("ann"), "?buyer_id=ann")), [json!(ann)]);
    assert_eq!(ids(list(&token("bob"), "?buyer_id=bob&item_id=t&status=held")), [json!(bob)]);
    list(&token("ann"), "?buyer_id=bob").problem(403, "forbidden");
    list(&token("ann"), "?buyer_id=nobody").problem(403, "forbidden");
    // Without a filter it is its own at most.
    let bare = list(&token("ann"), "");
    if bare.status != 403 {
        assert_eq!(ids(bare), [json!(ann)]);
    }
    assert_eq!(ids(list(OPERATOR, "")).len(), 2);
    unauthorized(list("garbage", "?buyer_id=ann"));
    unauthorized(server.get("/v1/orders?buyer_id=ann"));
}

#[test]
fn what_is_on_sale_stays_open() {
    let server = guarded();
    server.put_hall();
    for path in [
        "/v1/items",
        "/v1/items/t",
        "/v1/items/hall/seats",
        "/healthz",
        "/readyz",
        "/",
        "/openapi.json",
    ] {
        server.get(path).is(200);
    }
}

impl Server {
    fn put_hall(&self) {
        let hall = json!({"seats": ["A1"]});
        self.call("PUT", "/v1/items/hall").bearer(OPERATOR).json(&hall).send().is(201);
    }
}

#[test]
fn a_token_that_has_ended_is_told_from_one_that_was_never_good() {
    let server = guarded();
    let body = json!({"buyer_id": "ann", "item_id": "t"});
    for (why, bad) in bad_tokens("ann") {
        let detail = place(&server, &bad, &body).problem(401, "unauthorized").field("detail");
        let says = if why.starts_with("ended") { "has ended" } else { "is not valid here" };
        assert!(detail.contains(says), "{why}: {detail}");
    }
}
