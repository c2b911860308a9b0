//! Pages of other origins that may call.

use crate::harness::{Answer, Server};

const SHOP: &str = "https://shop.example";
const APP: &str = "http://localhost:3000";

fn open() -> Server {
    Server::start(&["--item", "t=5", "--cors-origin", SHOP, "--cors-origin", APP])
}

fn varies(answer: &Answer) -> bool {
    let mut values = answer.headers.get_all("vary").iter();
    values.any(|value| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("origin")))
}

#[test]
fn each_of_several_origins_is_told_its_own() {
    let server = open();
    for origin in [SHOP, APP] {
        let read = server.call("GET", "/v1/items/t").header("origin", origin).send().is(200);
        assert_eq!(read.header("access-control-allow-origin"), origin);
        assert!(varies(&read), "{:?}", read.headers);
    }
    // What a cache keeps for them is not for others.
    let strangers =
        ["https://evil.example", "null", "https://SHOP.example", "https://shop.example.evil"];
    for origin in strangers {
        let read = server.call("GET", "/v1/items/t").header("origin", origin).send().is(200);
        assert_eq!(read.maybe_header("access-control-allow-origin"), None, "{origin}");
        assert!(varies(&read), "{:?}", read.headers);
    }
    assert!(varies(&server.get("/v1/items/t").is(200)));
}

#[test]
fn a_page_may_send_the_headers_of_a_trace() {
    let server = open();
    for (path, origin) in
        [("/v1/orders", SHOP), ("/v1/orders", APP), ("/buy", "http://any.example")]
    {
        let asked = server.call("OPTIONS", path).header("origin", origin);
        let asked =
            asked.header("access-control-request-headers", "traceparent,tracestate,baggage");
        let answer = asked.header("access-control-request-method", "POST").send().is(204);
        let allowed = answer.header("access-control-allow-headers").to_ascii_lowercase();
        let allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
        for name in ["traceparent", "tracestate", "baggage", "authorization", "content-type"] {
            assert!(allowed.contains(&name), "{allowed:?} lacks {name}");
        }
    }
}
