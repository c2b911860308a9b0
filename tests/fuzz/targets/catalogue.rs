//! A catalogue: whatever the file says is refused with a reason, or every item keeps the
//! rules and says the same when it is written as the server's own JSON.

#![no_main]

use flux_core::{ItemKind, ItemSpec};
use flux_server::fuzzing;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// The body of `PUT /v1/items/{id}` that asks for the same.
fn body(spec: &ItemSpec) -> Vec<u8> {
    let mut body = json!({
        "name": spec.name,
        "hold_seconds": spec.hold.get(),
        "max_per_buyer": spec.max_per_buyer,
        "opens_at": spec.opens_at.map(|at| at.to_string()),
        "closes_at": spec.closes_at.map(|at| at.to_string()),
    });
    match &spec.kind {
        ItemKind::Pool(capacity) => body["capacity"] = json!(capacity),
        ItemKind::Seats(hall) => body["seats"] = json!(hall.names()),
    }
    body.to_string().into_bytes()
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match fuzzing::catalogue(text) {
        Ok(specs) => {
            for spec in specs {
                spec.check().expect("what is read keeps the rules");
                assert_eq!(fuzzing::item(spec.id.clone(), &body(&spec)), Ok(spec));
            }
        }
        Err(reason) => assert!(!reason.trim().is_empty()),
    }
});
