//! openapi.json as a judge: an answer must have a documented status, the
//! headers that status requires and a body of its schema.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

use super::call::Answer;

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../openapi.json")).expect("openapi.json is JSON")
});

const URI: &str = "urn:flux:openapi";

static REGISTRY: LazyLock<Registry<'static>> = LazyLock::new(|| {
    let registry = Registry::new().add(URI, &*DOCUMENT).expect("a resource");
    registry.prepare().expect("openapi.json's references resolve")
});

/// A validator for the schema at `pointer` of the document.
fn validator(pointer: &str) -> Arc<Validator> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || {
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let schema = json!({"$ref": format!("{URI}#{fragment}")});
        let options = jsonschema::options().with_draft(Draft::Draft202012);
        let options = options.with_registry(&REGISTRY).should_validate_formats(true);
        Arc::new(options.build(&schema).unwrap_or_else(|error| panic!("{pointer}: {error}")))
    };
    Arc::clone(made.entry(pointer.to_owned()).or_insert_with(new))
}

/// Panics where `value` is not what the schema at `pointer` describes.
#[track_caller]
pub(crate) fn matches(pointer: &str, value: &Value, context: &str) {
    let validator = validator(pointer);
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{context}: {value}\nis not {pointer}: {errors:#?}");
}

/// Follows a `$ref` of the document, if that is what stands at `pointer`.
fn resolve(pointer: String) -> String {
    match DOCUMENT.pointer(&pointer).and_then(|value| value["$ref"].as_str()) {
        Some(reference) => reference.trim_start_matches('#').to_owned(),
        None => pointer,
    }
}

fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// The template that a path belongs to.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fits = |template: &str| {
        let (mut left, mut right) = (template.split('/'), path.split('/'));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return true,
                (Some(name), Some(part)) if name == part => {}
                // An id of no characters is malformed, not absent.
                (Some(name), Some(_)) if name.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    paths.keys().map(String::as_str).find(|template| fits(template))
}

/// Whether the call is for the operator.
pub(super) fn is_operators(method: &str, path: &str) -> bool {
    let key = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
    let security = template(path).map(|template| &DOCUMENT["paths"][template][key]["security"]);
    let ways = security.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    ways.iter().any(|way| way["operator"].is_array()) && !ways.contains(&json!({}))
}

/// The pointer to the document's description of the answer of `status` to this call.
fn documented(method: &str, path: &str, status: u16, context: &str) -> Option<String> {
    let found = match template(path) {
        None => {
            assert_eq!(status, 404, "{context}: no such path is documented");
            return Some("/components/responses/NotFound".to_owned());
        }
        Some(template) => format!("/paths/{}", escape(template)),
    };
    // Each GET answers HEAD too. Methods are told apart by case.
    let key = match method {
        "HEAD" => "get".to_owned(),
        _ if method.bytes().any(|byte| byte.is_ascii_lowercase()) => "no method".to_owned(),
        _ => method.to_ascii_lowercase(),
    };
    let operation = format!("{found}/{key}");
    if DOCUMENT.pointer(&operation).is_none() {
        // With `--cors-origin` a path under /v1 answers OPTIONS.
        if method == "OPTIONS" && path.starts_with("/v1") && status == 204 {
            return None;
        }
        assert_eq!(status, 405, "{context}: no such method is documented");
        return Some("/components/responses/MethodNotAllowed".to_owned());
    }
    let response = format!("{operation}/responses/{status}");
    let known = DOCUMENT.pointer(&response).is_some();
    assert!(known, "{context}: {status} is not documented");
    Some(resolve(response))
}

/// Panics where an answer is not as documented.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let context = format!("{} → {} {:?}", answer.call, answer.status, answer.text());
    let Some(response) = documented(method, path, answer.status, &context) else { return };
    let described = DOCUMENT.pointer(&response).expect("it was found");
    for (name, _) in described["headers"].as_object().into_iter().flatten() {
        check_header(&resolve(format!("{response}/headers/{name}")), name, answer, &context);
    }
    let Some(contents) = described["content"].as_object() else {
        assert!(answer.body.is_empty(), "{context}: it must have no body");
        return;
    };
    let media = answer.maybe_header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_owned();
    assert!(contents.contains_key(&media), "{context}: Content-Type {media:?}");
    if method == "HEAD" {
        assert!(answer.body.is_empty(), "{context}: HEAD has no body");
        return;
    }
    if media.ends_with("json") {
        let schema = format!("{response}/content/{}/schema", escape(&media));
        matches(&schema, &answer.json(), &context);
    }
}

fn check_header(pointer: &str, name: &str, answer: &Answer, context: &str) {
    let described = DOCUMENT.pointer(pointer).expect("a header");
    let values: Vec<_> = answer.headers.get_all(name).iter().collect();
    let required = described["required"].as_bool().unwrap_or(false);
    assert!(!required || !values.is_empty(), "{context}: {name} is missing");
    assert!(values.len() < 2, "{context}: {name} stands there twice");
    let Some(value) = values.first() else { return };
    let value = value.to_str().expect("visible ASCII");
    let schema = format!("{pointer}/schema");
    let typed = match DOCUMENT.pointer(&schema).and_then(|schema| schema["type"].as_str()) {
        Some("integer") => value.parse::<u64>().map_or(json!(value), |number| json!(number)),
        _ => json!(value),
    };
    matches(&schema, &typed, &format!("{context}: {name}"));
}
