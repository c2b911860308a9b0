//! openapi.json itself: served as committed, sound, complete, and with the
//! library's limits.

use std::collections::{BTreeSet, HashSet};

use flux_core::{BuyerCap, BuyerId, Capacity, HoldTime, ItemId, OrderStatus, PaymentRef, Quantity};
use flux_core::{ItemSpec, LINES_MAX, Reason, SEATS_PER_HALL_MAX, SEATS_PER_LINE_MAX, SeatId};
use flux_server::api::route::Route;
use serde_json::{Value, json};

use crate::harness::{DOCUMENT, Server, matches};

#[test]
fn it_is_served_as_committed() {
    let served = Server::start(&[]).get("/openapi.json").is(200);
    assert_eq!(served.text(), include_str!("../../openapi.json"));
}

fn schema(name: &str) -> &'static Value {
    let found = DOCUMENT.pointer(&format!("/components/schemas/{name}"));
    found.unwrap_or_else(|| panic!("no schema {name}"))
}

#[test]
fn its_limits_are_the_librarys() {
    let range = |pointer: &str, min: u64, max: u64| {
        let found = schema(pointer);
        assert_eq!((&found["minimum"], &found["maximum"]), (&json!(min), &json!(max)), "{pointer}");
    };
    let (min, max) = (Quantity::MIN.into(), Quantity::MAX.into());
    range("Quantity", min, max);
    for way in ["LineRequest/oneOf/0", "OrderRequest/oneOf/1"] {
        range(&format!("{way}/properties/quantity"), min, max);
    }
    range("Capacity", Capacity::MIN.into(), Capacity::MAX.into());
    range("HoldSeconds", HoldTime::MIN.into(), HoldTime::MAX.into());
    range("HoldSecondsRequest", HoldTime::MIN.into(), HoldTime::MAX.into());
    assert_eq!(schema("HoldSecondsRequest")["default"], u64::from(HoldTime::DEFAULT));
    range("MaxPerBuyer", BuyerCap::MIN.into(), BuyerCap::MAX.into());
    for lines in ["Order/properties/lines", "OrderRequest/oneOf/0/properties/lines"] {
        assert_eq!(schema(lines)["maxItems"], LINES_MAX);
    }
    assert_eq!(schema("LineSeats")["maxItems"], SEATS_PER_LINE_MAX);
    assert_eq!(schema("ItemRequest/oneOf/1/properties/seats")["maxItems"], SEATS_PER_HALL_MAX);

    let longest = schema("Name")["maxLength"].as_u64().expect("a length") as usize;
    let (fits, over) = ("~".repeat(longest), "~".repeat(longest + 1));
    assert!(ItemId::new(&fits).is_ok() && ItemId::new(&over).is_err());
    assert!(BuyerId::new(&fits).is_ok() && BuyerId::new(&over).is_err());
    assert!(SeatId::new(&fits).is_ok() && SeatId::new(&over).is_err());
    assert!(PaymentRef::new(&fits).is_ok() && PaymentRef::new(&over).is_err());
    let longest = schema("ItemName")["maxLength"].as_u64().expect("a length") as usize;
    let named = |name: String| ItemSpec::builder().id("t").capacity(1).name(name).build();
    assert!(named("n".repeat(longest)).is_ok() && named("n".repeat(longest + 1)).is_err());
    let key = &DOCUMENT["components"]["parameters"]["IdempotencyKey"]["schema"]["maxLength"];
    let longest = key.as_u64().expect("a length") as usize;
    let buyer = BuyerId::new("b").expect("a name");
    let id = |key: String| flux_core::OrderId::from_idempotency_key(&buyer, &key);
    assert!(id("k".repeat(longest)).is_ok() && id("k".repeat(longest + 1)).is_err());
}

#[test]
fn its_names_of_states_are_the_librarys() {
    let names: Vec<_> = OrderStatus::ALL.iter().map(|status| status.as_str()).collect();
    assert_eq!(schema("Status")["enum"], json!(names));
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(schema("Reason")["enum"], json!(names));
}

/// Every value within, each with the pointer to it.
fn walk<'v>(at: &str, value: &'v Value, see: &mut impl FnMut(&str, &'v Value)) {
    see(at, value);
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                walk(&format!("{at}/{name}"), value, see);
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(n, value)| walk(&format!("{at}/{n}"), value, see));
        }
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_nothing_is_left_over() {
    let mut used = HashSet::new();
    walk("", &DOCUMENT, &mut |at, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(DOCUMENT.pointer(pointer).is_some(), "{at}: {reference} leads nowhere");
            used.insert(pointer.to_owned());
        }
    });
    for (kind, members) in DOCUMENT["components"].as_object().expect("components") {
        for name in members.as_object().expect("named").keys() {
            // The answer to a method that is not documented.
            let spare = kind == "securitySchemes" || name == "MethodNotAllowed";
            let pointer = format!("/components/{kind}/{name}");
            assert!(spare || used.contains(&pointer), "nothing refers to {pointer}");
        }
    }
}

#[test]
fn every_schema_is_one_and_every_example_fits_its_own() {
    let mut schemas = 0;
    walk("", &DOCUMENT, &mut |at, value| {
        let Some(schema) = value.get("schema") else { return };
        schemas += 1;
        let valid = jsonschema::draft202012::meta::validate(schema);
        assert!(valid.is_ok(), "{at}/schema: {valid:?}");
        let examples = value.get("examples").and_then(Value::as_object);
        for (name, example) in examples.into_iter().flatten() {
            let example = match example["$ref"].as_str() {
                Some(reference) => DOCUMENT.pointer(&reference[1..]).expect("checked elsewhere"),
                None => example,
            };
            matches(&format!("{at}/schema"), &example["value"], name);
        }
    });
    assert!(schemas > 50, "only {schemas} schemas were seen");
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().expect("schemas") {
        let valid = jsonschema::draft202012::meta::validate(schema);
        assert!(valid.is_ok(), "{name}: {valid:?}");
    }
}

#[test]
fn every_operation_is_described_in_full() {
    let mut ids = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        let shared = item["parameters"].as_array().expect("at least the request id");
        for (method, operation) in item.as_object().expect("operations") {
            if method == "parameters" {
                continue;
            }
            let context = format!("{method} {path}");
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id), "{id} twice");
            assert!(operation["summary"].is_string() && operation["security"].is_array());
            let own = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            let parameters: Vec<_> = shared
                .iter()
                .chain(own)
                .map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => DOCUMENT.pointer(&reference[1..]).expect("a parameter"),
                    None => parameter,
                })
                .map(|parameter| {
                    let text = |name: &str| parameter[name].as_str().expect("a string");
                    (text("in"), text("name"))
                })
                .collect();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                assert!(parameters.contains(&("path", name)), "{context}: {name}");
            }
            assert!(parameters.contains(&("header", "x-request-id")), "{context}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let response = match response["$ref"].as_str() {
                    Some(reference) => DOCUMENT.pointer(&reference[1..]).expect("a response"),
                    None => response,
                };
                let has_id = response["headers"]["x-request-id"].is_object();
                // Those two are given before a request could be parsed.
                assert!(has_id || ["414", "431"].contains(&status.as_str()), "{context} {status}");
            }
        }
    }
    assert_eq!(ids.len(), Route::ALL.len() + 2, "the routes and two preflights");
}

#[test]
fn it_has_every_route_and_no_other() {
    let mut documented = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            // A call that only browsers make is no route.
            if method != "parameters" && method != "options" {
                documented.insert(format!("{} {path}", method.to_ascii_uppercase()));
            }
        }
    }
    let routes: BTreeSet<_> = Route::ALL.iter().map(|route| route.name().to_owned()).collect();
    assert_eq!(documented, routes);
}
