//! Heads that HTTP forbids or that leave in doubt what is meant, and what caches are told.

use serde_json::json;

use crate::harness::{Server, Setup};

const TOKEN: &str = "operator-token";

fn shop() -> Server {
    let server = Setup::new().args(&["--item", "t=5"]).env("FLUX_OPERATOR_TOKEN", TOKEN).start();
    let hall = server.call("PUT", "/v1/items/hall").bearer(TOKEN);
    hall.json(&json!({"seats": ["a"]})).send().is(201);
    server
}

#[test]
fn an_http_1_1_request_names_one_host() {
    let server = shop();
    let hosts = [
        "",
        "Host: t\r\nHost: t\r\n",
        "Host: t\r\nX: y\r\nhost: u\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a,b\r\nHost: a\r\n",
        "Host: user@t\r\n",
        "Host: t:port\r\n",
        "Host: t:99999\r\n",
        "Host: t/v1\r\n",
        "Host: http://t\r\n",
        "Host: [::1\r\n",
        "Host: caf\u{e9}\r\n",
    ];
    for host in hosts {
        for target in ["/v1/items/t", "/healthz", "/nowhere", "http://t/v1/items/t"] {
            let answer = server.raw(format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
            answer.names("Host");
        }
    }
    for host in ["Host: t\r\n", "Host: shop.example:80\r\n", "Host: [::1]:5000\r\n", "HOST:t:\r\n"]
    {
        server.raw(format!("GET /v1/items/t HTTP/1.1\r\n{host}\r\n")).is(200);
    }
    // HTTP/1.0 had none, and the target's own host counts before the header.
    server.raw("GET /v1/items/t HTTP/1.0\r\n\r\n").is(200);
    server.raw("GET /v1/items/t HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").names("Host");
    server.raw("GET http://a:1/v1/items/t HTTP/1.1\r\nHost: b\r\n\r\n").is(200);
}

#[test]
fn a_header_that_counts_once_is_given_once() {
    let server = shop();
    let body = r#"{"buyer_id":"a","item_id":"t"}"#;
    let post = |headers: &str| {
        let length = body.len();
        server.raw(format!(
            "POST /v1/orders HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
    };
    let json = "Content-Type: application/json\r\n";
    post(&format!("{json}{json}")).problem(415, "not-json");
    post(&format!("{json}Content-Type: text/plain\r\n")).problem(415, "not-json");
    post("Content-Type: application/json, text/plain\r\n").problem(415, "not-json");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    for tokens in [format!("{token}{token}"), format!("{token}Authorization: Bearer x\r\n")] {
        let list = server.raw(format!("GET /v1/orders HTTP/1.1\r\nHost: t\r\n{tokens}\r\n"));
        list.problem(401, "unauthorized");
    }
    post(&format!("{json}Idempotency-Key: a\r\nIdempotency-Key: a\r\n")).names("Idempotency-Key");
    assert_eq!(server.item("t")["available"], 5);
    // Of a list's lines the first that counts does (RFC 7240).
    let answer = post(&format!("{json}Prefer: respond-async\r\nPrefer: wait=10\r\n")).is(201);
    assert_eq!(answer.header("preference-applied"), "wait=10");
}

#[test]
fn a_head_that_cannot_be_read_for_sure_is_400_and_the_connection_closed() {
    let server = shop();
    let after = [
        "X: a\r\n folded: b\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        ": nameless\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X y: a\r\n",
        "Transfer-Encoding : chunked\r\n",
    ];
    for header in after {
        let mut connection = server.connect();
        connection.send(format!("GET /v1/items/t HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
        connection.answer("GET").expect("an answer").problem(400, "invalid-request");
        assert!(connection.is_closed(), "{header:?}");
    }
    // HTTP/1.0 has no chunks.
    let mut connection = server.connect();
    connection.send("POST /buy HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    connection.answer("POST").expect("an answer").problem(400, "invalid-request");
    assert!(connection.is_closed());
}

#[test]
fn methods_that_are_not_for_origins_are_answered_and_the_connection_goes_on() {
    let server = shop();
    let mut connection = server.connect();
    for (line, status) in [
        ("OPTIONS *", 404),
        ("GET *", 404),
        ("CONNECT t:443", 404),
        ("TRACE /v1/items/t", 405),
        ("OPTIONS /v1/items/t", 405),
    ] {
        for headers in ["", "Upgrade: h2c\r\nConnection: upgrade\r\n", "Connection: host, x\r\n"] {
            connection.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
            connection.answer("GET").unwrap_or_else(|| panic!("{line}: no answer")).is(status);
            connection.send("GET /v1/items/t HTTP/1.1\r\nHost: t\r\n\r\n");
            connection.answer("GET").unwrap_or_else(|| panic!("{line}: lost")).is(200);
        }
    }
}

#[test]
fn a_body_that_is_coded_is_415_and_nothing_happens() {
    let server = shop();
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let order = json!({"buyer_id": "ann", "item_id": "t"});
    let coded = |coding: &str| {
        let calls = [
            ("POST", "/v1/orders".to_owned(), order.clone()),
            ("PUT", "/v1/items/t".to_owned(), json!({"capacity": 9})),
            ("POST", format!("/v1/orders/{id}/confirm"), json!({"payment_ref": "p"})),
            ("POST", format!("/v1/orders/{id}/release"), json!({})),
            ("POST", format!("/v1/orders/{id}/cancel"), json!({})),
            ("POST", format!("/v1/orders/{id}/refunded"), json!({"refund_ref": "r"})),
            ("POST", "/buy".to_owned(), json!({"user_id": "ann", "item_id": "t"})),
        ];
        calls.map(|(method, path, body)| {
            let call = server.call(method, path).bearer(TOKEN);
            call.header("content-encoding", coding).json(&body).send()
        })
    };
    for coding in ["gzip", "br", "identity, gzip", "x"] {
        for answer in coded(coding) {
            let answer = answer.problem(415, "not-json");
            assert!(answer.field("detail").contains("Content-Encoding"), "{}", answer.text());
            assert_eq!(answer.header("accept-encoding"), "identity");
        }
    }
    let item = server.item("t");
    assert_eq!((&item["available"], &item["held"]), (&json!(4), &json!(1)));
    // Whether the caller may is judged first.
    let call = server.call("PUT", "/v1/items/t").header("content-encoding", "gzip");
    call.json(&json!({"capacity": 9})).send().problem(401, "unauthorized");
    for answer in coded("Identity") {
        assert_ne!(answer.status, 415, "{}", answer.call);
    }
}

#[test]
fn caches_keep_what_is_left_for_a_second_and_nothing_else() {
    let server = shop();
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    for path in ["/v1/items", "/v1/items/t", "/v1/items/hall/seats"] {
        for method in ["GET", "HEAD"] {
            let answer = server.call(method, path).send().is(200);
            assert_eq!(answer.header("cache-control"), "public, max-age=1", "{method} {path}");
        }
    }
    let order = format!("/v1/orders/{id}");
    let release = format!("{order}/release");
    for (method, path, status) in [
        ("GET", order.as_str(), 200),
        ("HEAD", &order, 200),
        ("POST", &release, 200),
        ("GET", "/inventory", 200),
        ("OPTIONS", "/buy", 204),
        ("OPTIONS", "/v1/orders", 405),
        ("GET", "/v1/items?limit=0", 400),
        ("GET", "/v1/orders", 401),
        ("POST", "/v1/orders", 415),
        ("POST", "/buy", 415),
        ("GET", "/v1/items/nowhere", 404),
        ("GET", "/v1/items/t/seats", 409),
        ("GET", "/v1/nowhere", 404),
        ("PATCH", "/v1/items/t", 405),
        ("GET", "/buy", 405),
    ] {
        let answer = server.call(method, path).send().is(status);
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
    }
    let put = server.call("PUT", "/v1/items/t").bearer(TOKEN).json(&json!({"capacity": 6}));
    assert_eq!(put.send().is(200).header("cache-control"), "no-store");
    let placed = server.order(&json!({"buyer_id": "ann", "item_id": "t"})).is(201);
    assert_eq!(placed.header("cache-control"), "no-store");
    let large = server.call("POST", "/v1/orders").header("content-type", "application/json");
    let large = large.body("x".repeat(65_537)).send().problem(413, "body-too-large");
    assert_eq!(large.header("cache-control"), "no-store");
    let mut connection = server.connect();
    connection.send("GET /v1/events?item_id=t HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(connection.head().expect("a head").header("cache-control"), "no-store");
    for path in ["/healthz", "/", "/nowhere"] {
        let answer = server.get(path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_ne!(answer.maybe_header("cache-control"), Some("public, max-age=1"), "{path}");
    }
}

#[test]
fn of_another_origin_a_preflight_is_not_kept_by_caches_but_by_browsers() {
    let server = Server::start(&["--item", "t=5", "--cors-origin", "https://shop.example"]);
    let call = server.call("OPTIONS", "/v1/orders").header("origin", "https://shop.example");
    let answer = call.header("access-control-request-method", "POST").send().is(204);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[test]
fn an_offset_of_a_day_or_more_is_400_and_named() {
    let server = shop();
    for time in [
        "2126-01-02T03:04:05+24:00",
        "2126-01-02T03:04:05-24:00",
        "2126-01-02T03:04:05+25:59",
        "2126-01-02T03:04:05+99:00",
        "2126-01-02T03:04:05+02:60",
        "2126-01-02T03:04:05+02:99",
    ] {
        for field in ["opens_at", "closes_at"] {
            let call = server.call("PUT", "/v1/items/x").bearer(TOKEN);
            let mut item = json!({"capacity": 5});
            item[field] = json!(time);
            call.json(&item).send().names(field);
        }
    }
    let call = server.call("PUT", "/v1/items/x").bearer(TOKEN);
    let item = json!({"capacity": 5, "opens_at": "2126-01-02T03:04:05+23:59"});
    let made = call.json(&item).send().is(201).json();
    assert_eq!(made["opens_at"], "2126-01-01T03:05:05.000Z");
}

/// The definition of the largest hall: as many seats as there may be, with the longest names.
fn largest_hall() -> String {
    let name = |n| format!("\"{n:~>128}\"");
    format!("{{\"seats\":[{}]}}", (0..100_000).map(name).collect::<Vec<_>>().join(","))
}

#[test]
fn a_hall_that_is_too_large_says_what_fits_and_how_it_can_come_in() {
    let hall = largest_hall();
    let put = |server: &Server| {
        let call = server.call("PUT", "/v1/items/arena").bearer(TOKEN);
        call.header("content-type", "application/json").body(hall.clone()).send()
    };
    let refused = put(&shop()).problem(413, "body-too-large");
    let detail = refused.field("detail");
    for part in ["4194304", "100000 seats", "38 bytes", "--item-body-max", "--catalog"] {
        assert!(detail.contains(part), "{detail:?} does not say {part}");
    }
    let setup = Setup::new().args(&["--item-body-max", "16777216"]);
    let server = setup.env("FLUX_OPERATOR_TOKEN", TOKEN).start();
    assert_eq!(put(&server).is(201).json()["capacity"], 100_000);
    let seats = server.get("/v1/items/arena/seats").is(200);
    assert_eq!(seats.json().as_object().expect("seats").len(), 100_000);
    // Orders have the bound they had.
    let call = server.call("POST", "/v1/orders").header("content-type", "application/json");
    let refused = call.body(hall.clone()).send().problem(413, "body-too-large");
    assert!(refused.field("detail").contains("65536"));
}

#[test]
fn a_catalogue_brings_in_the_largest_hall() {
    let hall = largest_hall();
    let seats = hall.trim_start_matches("{\"seats\":").trim_end_matches('}');
    let catalogue = format!("[[item]]\nitem_id = \"arena\"\nseats = {seats}\n");
    let setup = Setup::new().file("hall.toml", &catalogue).args(&["--catalog", "hall.toml"]);
    assert_eq!(setup.start().item("arena")["capacity"], 100_000);
}

#[test]
fn a_bound_for_items_beyond_reason_stops_the_start() {
    for bytes in ["0", "1048575", "16777217", "-1", "4M", ""] {
        let setup = Setup::new().args(&[&format!("--item-body-max={bytes}")]);
        let (status, said) = setup.run_to_end();
        assert!(!status.success() && said.contains("--item-body-max"), "{bytes}: {said}");
    }
}
