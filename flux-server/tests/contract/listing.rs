//! Lists: filters, pages and cursors.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Server, until};

/// Every entry of a list, page by page, and how many pages there were.
#[track_caller]
fn all(server: &Server, path: &str, list: &str, id: &str) -> (Vec<String>, usize) {
    let mut found = Vec::new();
    let mut cursor = None::<String>;
    for pages in 1..1000 {
        let glue = if path.contains('?') { '&' } else { '?' };
        let page = match &cursor {
            None => server.get(path).is(200).json(),
            Some(cursor) => {
                let cursor = percent_encoding::utf8_percent_encode(
                    cursor,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                server.get(format_args!("{path}{glue}cursor={cursor}")).is(200).json()
            }
        };
        let entries = page[list].as_array().expect("a list");
        found.extend(entries.iter().map(|entry| entry[id].as_str().expect("an id").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return (found, pages),
        }
    }
    panic!("the list has no end");
}

#[test]
fn items_come_in_pages_each_once() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/v1/items").is(200).json(), json!({"items": [], "next_cursor": null}));
    // Ids that need care in a cursor, among others.
    let mut ids: BTreeSet<String> = (0..103).map(|n| format!("item-{n}")).collect();
    ids.extend(["&", "%41", "a/b", "a=b", "+", "~"].map(str::to_owned));
    for id in &ids {
        let path = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        server.put(format_args!("/v1/items/{path}"), &json!({"capacity": 1})).is(201);
    }
    for (path, pages_min) in [
        ("/v1/items", 2),
        ("/v1/items?limit=1", 109),
        ("/v1/items?limit=10", 11),
        ("/v1/items?limit=1000", 1),
    ] {
        let (found, pages) = all(&server, path, "items", "item_id");
        assert!(pages >= pages_min, "{path}: {pages} pages");
        assert_eq!(found.len(), ids.len(), "{path}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids, "{path}");
    }
    let page = server.get("/v1/items").is(200).json();
    assert_eq!(page["items"].as_array().expect("a list").len(), 100, "the default limit");
    // A page holds what the item's own call says.
    let first = &page["items"][9];
    assert_eq!(&server.item(first["item_id"].as_str().expect("an id")), first);
}

#[test]
fn orders_are_filtered_by_buyer_item_and_status() {
    let server = Server::start(&["--item", "t=100", "--item", "u=100", "--item", "few=1"]);
    let order = |buyer: &str, item: &str| server.held(&json!({"buyer_id": buyer, "item_id": item}));
    let ann_t = order("ann", "t");
    let ann_u = order("ann", "u");
    let bob_t = order("bob", "t");
    let lines = json!([{"item_id": "t"}, {"item_id": "u"}]);
    let bob_both = server.held(&json!({"buyer_id": "bob", "lines": lines}));
    server.put("/v1/items/few", &json!({"capacity": 5, "max_per_buyer": 1})).is(200);
    let greedy = json!({"buyer_id": "ann", "item_id": "few", "quantity": 2});
    let rejected = server.order(&greedy).is(409).json()["order"]["order_id"].clone();
    let rejected = rejected.as_str().expect("an id").to_owned();
    let confirm = format!("/v1/orders/{ann_u}/confirm");
    server.post(confirm, &json!({"payment_ref": "p"})).is(200);

    let expect = |query: &str, ids: &[&String]| {
        let path = format!("/v1/orders{query}");
        let (found, _) = all(&server, &path, "orders", "order_id");
        let expected: BTreeSet<_> = ids.iter().map(|id| (*id).clone()).collect();
        assert_eq!(found.len(), expected.len(), "{path}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{path}");
    };
    expect("", &[&ann_t, &ann_u, &bob_t, &bob_both, &rejected]);
    expect("?limit=1", &[&ann_t, &ann_u, &bob_t, &bob_both, &rejected]);
    expect("?buyer_id=ann", &[&ann_t, &ann_u, &rejected]);
    expect("?item_id=t", &[&ann_t, &bob_t, &bob_both]);
    expect("?item_id=u&limit=1", &[&ann_u, &bob_both]);
    expect("?status=held", &[&ann_t, &bob_t, &bob_both]);
    expect("?status=rejected", &[&rejected]);
    expect("?status=confirmed&buyer_id=ann&item_id=u", &[&ann_u]);
    expect("?status=confirmed&buyer_id=bob", &[]);
    expect("?buyer_id=nobody", &[]);
    expect("?item_id=nowhere", &[]);
    for status in ["queued", "released", "expired", "cancelled", "refund_due"] {
        expect(&format!("?status={status}"), &[]);
    }
    // Encoded otherwise it means the same; what is not known is ignored.
    expect("?%62uyer_id=%61nn&unknown=1&unknown=2", &[&ann_t, &ann_u, &rejected]);
    let page = server.get("/v1/orders?status=confirmed").is(200).json();
    assert_eq!(page["orders"][0], server.read_order(&ann_u));
}

#[test]
fn orders_come_in_pages_each_once() {
    let server = Server::start(&["--item", "t=1000"]);
    let mut ids = BTreeSet::new();
    for n in 0..120 {
        let order = json!({"buyer_id": format!("b{}", n % 7), "item_id": "t"});
        ids.insert(server.post("/v1/orders", &order).is(202).field("order_id"));
    }
    until("all are decided", Duration::from_secs(10), || {
        (server.item("t")["held"] == 120).then_some(())
    });
    for path in ["/v1/orders", "/v1/orders?limit=7", "/v1/orders?status=held&limit=1000"] {
        let (found, _) = all(&server, path, "orders", "order_id");
        assert_eq!(found.len(), 120, "{path}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids, "{path}");
    }
    let page = server.get("/v1/orders").is(200).json();
    assert_eq!(page["orders"].as_array().expect("a list").len(), 100, "the default limit");
    assert_ne!(page["next_cursor"], Value::Null);
}

#[test]
fn nonsense_in_a_query_is_400() {
    let server = Server::start(&["--item", "a=1", "--item", "b=1"]);
    for list in ["items", "orders"] {
        for limit in ["0", "1001", "-1", "ten", "1.5", "", "%20", "99999999999999999999"] {
            server.get(format_args!("/v1/{list}?limit={limit}")).names("limit");
        }
        for cursor in ["", "garbage", "%00", "AAAA", "%FF", "0"] {
            server.get(format_args!("/v1/{list}?cursor={cursor}")).names("cursor");
        }
        server.get(format_args!("/v1/{list}?limit=5&limit=5")).names("limit");
        server.get(format_args!("/v1/{list}?unknown=&limit=5&&unknown")).is(200);
    }
    let long = "x".repeat(129);
    for id in ["", "a%20b", "%C3%A9", long.as_str(), "%zz"] {
        server.get(format_args!("/v1/orders?buyer_id={id}")).problem(400, "invalid-request");
        server.get(format_args!("/v1/orders?item_id={id}")).problem(400, "invalid-request");
    }
    for status in ["", "Held", "sold", "held%20"] {
        server.get(format_args!("/v1/orders?status={status}")).names("status");
    }
    server.get("/v1/orders?status=held&status=held").names("status");
    server.get("/v1/orders?buyer_id=a&buyer_id=b").names("buyer_id");
    // A cursor is good for the list that gave it.
    let cursor = server.get("/v1/items?limit=1").is(200).field("next_cursor");
    server.get(format_args!("/v1/orders?cursor={cursor}")).names("cursor");
    // One that was made up, checksum and all.
    for position in ["", "x", "-1", "1x", "99999999999999999999999"] {
        let sum = crc32fast::hash(format!("orders\0{position}").as_bytes()).to_be_bytes();
        let forged = URL_SAFE_NO_PAD.encode([&sum, position.as_bytes()].concat());
        server.get(format_args!("/v1/orders?cursor={forged}")).names("cursor");
    }
}
