//! A small HTTP server and worker that show how Flux is run.

pub mod events;

mod json {
    pub(crate) fn item(item: &flux_core::Item, now: flux_core::Timestamp) -> Vec<u8> {
        let state = item.state(now);
        serde_json::json!({"item_id": item.spec.id, "available": item.available, "held": item.held,
            "sold": item.sold, "state": state})
        .to_string()
        .into_bytes()
    }
}
