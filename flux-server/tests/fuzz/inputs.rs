//! The inputs of the fuzz tests: sound requests with changes that tend to break
//! readers, and requests that HTTP can carry, whatever they ask.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "get"];

/// The operator's token, so that the calls it opens are tried too.
pub(crate) const OPERATOR: &str = "operator";
const BEARER: &str = "Authorization: Bearer operator\r\n";

/// Tokens that tend to break readers of HTTP, JSON and percent-encoding.
pub(crate) const TOKENS: [&[u8]; 38] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"?",
    b"&",
    b"=",
    b"%",
    b"%00",
    b"%2",
    b"%zz",
    b"%2F",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"\"",
    b"\\u0000",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"HTTP/1.0",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Prefer: wait=0, wait=\"",
    b"Upgrade: h2c\r\n",
];

/// Requests as they should be, one for each call at least.
pub(crate) fn sound_requests() -> Vec<Vec<u8>> {
    let id = "0193a5b0-abcd-7ef0-8123-456789abcdef";
    let gets = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/pulse",
        "/inventory",
        "/v1/items",
        "/v1/items?limit=2&cursor=AAAAAA",
        "/v1/items/t",
        "/v1/items/hall/seats",
        "/v1/orders?buyer_id=ann&item_id=t&status=held&limit=5",
        "/v1/events?item_id=t",
        "/v1/orders/0193a5b0-abcd-7ef0-8123-456789abcdef",
        "/nowhere",
        "http://t/v1/items/t",
    ];
    let mut requests: Vec<Vec<u8>> = gets
        .iter()
        .map(|path| {
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{BEARER}x-request-id: a\r\n\r\n")
                .into()
        })
        .collect();
    let mut with_body = |method: &str, path: &str, head: &str, body: &str| {
        let kind = "Host: localhost\r\nContent-Type: application/json\r\n";
        let plain = format!("{method} {path} HTTP/1.1\r\n{kind}{BEARER}{head}");
        let length = body.len();
        requests.push(format!("{plain}Content-Length: {length}\r\n\r\n{body}").into());
        let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        requests.push(format!("{plain}Transfer-Encoding: chunked\r\n\r\n{chunked}").into());
    };
    let order = r#"{"buyer_id":"ann","item_id":"t","quantity":2}"#;
    with_body("POST", "/v1/orders", "Prefer: wait=5\r\n", order);
    with_body("POST", "/v1/orders", "Idempotency-Key: k\r\n", order);
    let lines =
        r#"{"buyer_id":"b","lines":[{"item_id":"many"},{"item_id":"hall","seats":["A1"]}]}"#;
    with_body("POST", "/v1/orders", "Prefer: wait=5\r\n", lines);
    let chosen = format!(r#"{{"order_id":"{id}","buyer_id":"ann","item_id":"many"}}"#);
    with_body("POST", "/v1/orders", "Prefer: wait=5\r\n", &chosen);
    with_body("POST", &format!("/v1/orders/{id}/confirm"), "", r#"{"payment_ref":"p"}"#);
    with_body("POST", &format!("/v1/orders/{id}/release"), "", "");
    with_body("POST", &format!("/v1/orders/{id}/cancel"), "", "");
    with_body("POST", "/buy", "", r#"{"user_id":"ann","item_id":"many"}"#);
    let item = r#"{"name":"n","capacity":9,"hold_seconds":60,"opens_at":"2026-01-02T03:04:05Z"}"#;
    with_body("PUT", "/v1/items/new", "Expect: 100-continue\r\n", item);
    with_body("PUT", "/v1/items/rows", "", r#"{"seats":["a","b"],"max_per_buyer":null}"#);
    requests.push(b"OPTIONS /buy HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x\r\n\r\n".to_vec());
    requests
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Flip(Index, u8),
    Insert(Index, &'static [u8]),
    Fill(Index, u8, usize),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

pub(crate) fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        6 => (at(), select(&TOKENS[..])).prop_map(|(at, token)| Change::Insert(at, token)),
        1 => (at(), select(&b"aA0 /%:\"[{\0\xff"[..]), prop_oneof![1..300_usize, 1..70_000_usize])
            .prop_map(|(at, byte, length)| Change::Fill(at, byte, length)),
        3 => (at(), 1..40_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), 1..80_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => at().prop_map(Change::Cut),
    ];
    vec(change, 0..most)
}

pub(crate) fn apply(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match *change {
            Change::Flip(at, byte) => bytes[at.index(length)] ^= byte,
            Change::Insert(at, token) => insert(bytes, at.index(length + 1), token),
            Change::Fill(at, byte, n) => insert(bytes, at.index(length + 1), &vec![byte; n]),
            Change::Remove(at, n) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + n));
            }
            Change::Repeat(at, n) => {
                let at = at.index(length);
                let part = bytes[at..length.min(at + n)].to_vec();
                insert(bytes, at, &part);
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

pub(crate) fn pieces<'b>(bytes: &'b [u8], cuts: &[Index]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// A request that HTTP can carry, whatever it asks.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    headers: String,
    body: Vec<u8>,
}

impl Asked {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { method, path, headers, body } = self;
        let mut bytes =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}").into_bytes();
        let length = body.len();
        bytes.extend(format!("Content-Length: {length}\r\nConnection: close\r\n\r\n").bytes());
        bytes.extend(body);
        bytes
    }
}

fn word() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "t",
        "many",
        "none",
        "hall",
        "A1",
        "B2",
        "ann",
        "bob",
        "p",
        "held",
        "x/y",
        "",
        "0193a5b0-abcd-7ef0-8123-456789abcdef",
        "0193A5B0-ABCD-7EF0-8123-456789ABCDEF",
        "2026-01-02T03:04:05Z",
        "2126-01-02T03:04:05.6+02:00",
        "9999-12-31T23:59:60Z",
    ];
    prop_oneof![6 => select(KNOWN).prop_map(str::to_owned), 2 => "[!-~]{1,12}", 1 => ".{0,6}",
        1 => "[!-~]{120,140}"]
}

/// A segment of a path or a value of a query, as a client might encode it.
fn encoded() -> impl Strategy<Value = String> {
    let encode = |word: String| {
        percent_encoding::utf8_percent_encode(&word, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    prop_oneof![6 => word().prop_map(encode), 1 => "[!-~&&[^?#]]{0,12}", 1 => "(%[0-9a-f]{2}){1,4}"]
}

fn target() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "/",
        "/buy",
        "/inventory",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/orders",
        "/v1/items",
        "/v1/events",
        "/pulse",
    ];
    let tail = select(&["", "/", "/confirm", "/release", "/cancel", "/seats", "/x"][..]);
    let path = prop_oneof![
        4 => select(KNOWN).prop_map(str::to_owned),
        6 => (select(&["orders", "items", "events", "x"][..]), encoded(), tail)
            .prop_map(|(kind, id, tail)| format!("/v1/{kind}/{id}{tail}")),
        1 => vec(encoded(), 0..6).prop_map(|parts| format!("/{}", parts.join("/"))),
    ];
    const NAMES: &[&str] =
        &["limit", "cursor", "buyer_id", "item_id", "status", "x", "%6cimit", "limit%"];
    let values = prop_oneof![encoded(), "[0-9]{1,5}"];
    let pair = (select(NAMES), values).prop_map(|(name, value)| format!("{name}={value}"));
    (path, vec(pair, 0..4)).prop_map(|(path, pairs)| match pairs.is_empty() {
        true => path,
        false => format!("{path}?{}", pairs.join("&")),
    })
}

fn value() -> impl Strategy<Value = String> {
    let quoted = |word: String| serde_json::Value::from(word).to_string();
    let leaf = prop_oneof![
        6 => word().prop_map(quoted),
        3 => (-2..1003_i64).prop_map(|n| n.to_string()),
        1 => select(&["null", "true", "1.5", "1e3", "1E999", "-0", "18446744073709551616", "nan"][..])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            members(inner),
        ]
    })
}

fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "order_id",
        "buyer_id",
        "buyer_id",
        "item_id",
        "item_id",
        "quantity",
        "seats",
        "lines",
        "user_id",
        "user_id",
        "payment_ref",
        "payment_ref",
        "name",
        "capacity",
        "capacity",
        "hold_seconds",
        "max_per_buyer",
        "opens_at",
        "closes_at",
        "\\u0074",
        "",
    ];
    vec((select(NAMES), value), 0..5).prop_map(|members| {
        let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

/// A member of an object, mostly with a value that is right.
fn member(name: &'static str, right: &'static [&'static str]) -> BoxedStrategy<String> {
    let right = select(right).prop_map(str::to_owned);
    let value = prop_oneof![15 => right, 1 => value()];
    value.prop_map(move |value| format!("\"{name}\":{value}")).boxed()
}

/// An object with most of its members, and now and then one that is not its own.
fn object(members: &[(f64, BoxedStrategy<String>)]) -> BoxedStrategy<String> {
    let chosen: Vec<_> = members
        .iter()
        .map(|(chance, member)| proptest::option::weighted(*chance, member.clone()))
        .collect();
    let odd = proptest::option::weighted(0.05, member("surprise", &["1"]));
    let join = |(members, odd): (Vec<Option<String>>, Option<String>)| {
        let members: Vec<_> = members.into_iter().chain([odd]).flatten().collect();
        format!("{{{}}}", members.join(","))
    };
    (chosen, odd).prop_map(join).boxed()
}

const ITEMS: &[&str] = &[r#""t""#, r#""many""#, r#""many""#, r#""none""#, r#""hall""#];
const BUYERS: &[&str] = &[r#""ann""#, r#""bob""#, r#""cleo""#];
const SEATS: &[&str] = &[r#"["A1"]"#, r#"["A1","B2"]"#, r#"["A1","A1"]"#, r#"["Z9"]"#, "[]"];
const IDS: &[&str] = &[
    r#""0193a5b0-abcd-7ef0-8123-456789abcdef""#,
    r#""0193A5B0-ABCD-7EF0-8123-456789ABCDEF""#,
    r#""11111111-2222-3333-4444-555555555555""#,
];
const NUMBERS: &[&str] = &["1", "2", "5", "0", "1000", "1001", "86400", "10000000", "-1"];
const TIMES: &[&str] =
    &["null", r#""2026-01-02T03:04:05Z""#, r#""2126-01-02T03:04:05.6+02:00""#, r#""soon""#];

/// A call with a body of the kind it takes.
fn likely() -> impl Strategy<Value = (&'static str, String, String)> {
    let item = || member("item_id", ITEMS);
    let (quantity, seats) = (member("quantity", NUMBERS), member("seats", SEATS));
    let line = object(&[(0.97, item()), (0.4, quantity.clone()), (0.2, seats.clone())]);
    let lines =
        vec(line, 0..4).prop_map(|lines| format!("\"lines\":[{}]", lines.join(","))).boxed();
    let (id, buyer) = (member("order_id", IDS), member("buyer_id", BUYERS));
    let one =
        [(0.2, id.clone()), (0.97, buyer.clone()), (0.97, item()), (0.4, quantity), (0.2, seats)];
    let many = [(0.2, id), (0.97, buyer), (0.97, lines)];
    let buy = [(0.95, member("user_id", BUYERS)), (0.95, item())];
    let put = [
        (0.7, member("capacity", NUMBERS)),
        (0.3, member("seats", SEATS)),
        (0.3, member("name", &["null", r#""n""#])),
        (0.2, member("hold_seconds", NUMBERS)),
        (0.2, member("max_per_buyer", NUMBERS)),
        (0.2, member("opens_at", TIMES)),
        (0.2, member("closes_at", TIMES)),
    ];
    let path = |path: &str| Just(path.to_owned());
    let id = select(IDS).prop_map(|id| id.replace('"', ""));
    let confirm = id.clone().prop_map(|id| format!("/v1/orders/{id}/confirm"));
    let ends = (id, select(&["release", "cancel"][..]));
    let ends = ends.prop_map(|(id, what)| format!("/v1/orders/{id}/{what}"));
    let new =
        select(&["t", "none", "hall", "new", "rows"][..]).prop_map(|id| format!("/v1/items/{id}"));
    let payment = member("payment_ref", &[r#""p""#, r#""q""#]);
    prop_oneof![
        4 => (Just("POST"), path("/v1/orders"), object(&one)),
        3 => (Just("POST"), path("/v1/orders"), object(&many)),
        1 => (Just("POST"), path("/buy"), object(&buy)),
        2 => (Just("PUT"), new, object(&put)),
        2 => (Just("POST"), confirm, object(&[(0.95, payment)])),
        1 => (Just("POST"), ends, Just(String::new())),
    ]
}

pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let kind = prop_oneof![
        8 => Just("application/json"), 1 => Just("text/plain"), 1 => Just("application/json;x"),
    ];
    let text = || "[ -~]{0,20}";
    let bearer = prop_oneof![
        8 => Just(format!("Bearer {OPERATOR}")),
        1 => Just("Bearer x".to_owned()),
        1 => text().prop_map(String::from),
    ];
    let header = prop_oneof![
        4 => (0..40_u32).prop_map(|n| format!("Prefer: wait={n}")),
        2 => "[ -~]{0,20}".prop_map(|text| format!("Prefer: {text}")),
        2 => text().prop_map(|text| format!("Idempotency-Key: {text}")),
        1 => text().prop_map(|text| format!("x-request-id: {text}")),
        1 => text().prop_map(|text| format!("Origin: {text}")),
    ];
    let method = prop_oneof![4 => Just("GET"), 1 => select(&METHODS[..])];
    let body = prop_oneof![3 => Just(String::new()), 1 => members(value()), 1 => value()];
    let call = prop_oneof![1 => (method, target(), body), 2 => likely()];
    let body_changes = prop_oneof![5 => Just(Vec::new()), 1 => changes(4)];
    (call, kind, bearer, vec(header, 0..3), body_changes).prop_map(
        |((method, path, body), kind, bearer, headers, changes)| {
            let mut lines = format!("Content-Type: {kind}\r\nAuthorization: {bearer}\r\n");
            headers.iter().for_each(|header| {
                write!(lines, "{header}\r\n").expect("a string takes all");
            });
            let mut body = body.into_bytes();
            apply(&mut body, &changes);
            Asked { method, path, headers: lines, body }
        },
    )
}
