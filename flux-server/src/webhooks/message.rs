//! A change as it is sent.

use std::sync::Arc;

use bytes::Bytes;
use flux_core::Timestamp;
use flux_core::seams::{Change, Changed};
use flux_core::views::ChangeView;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The namespace of messages' ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_3c52_8a0e_4b7a_9d65_2f3b_c1a7_e048);

/// What is known of a message without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Its id, the same whenever this change is sent, to whomever.
    pub(super) id: String,
    /// What happened, such as `order.held`.
    pub(super) kind: String,
    /// The order or item, within which messages are sent in order.
    pub(super) subject: Subject,
    /// The time of the change, in milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// An order or an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    OrderId(Arc<str>),
    ItemId(Arc<str>),
}

impl Head {
    /// The time of the change.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at_ms)
    }
}

/// The body of a message.
#[derive(Serialize)]
struct Body<'c> {
    r#type: &'c str,
    timestamp: String,
    data: ChangeView<'c>,
}

/// The message of a change.
pub(super) fn of(change: &Change) -> (Head, Bytes) {
    let (kind, subject) = match &change.changed {
        Changed::Order(order) => (
            format!("order.{}", order.status().as_str()),
            Subject::OrderId(order.id.to_string().into()),
        ),
        Changed::Item(spec) => {
            ("item.changed".to_owned(), Subject::ItemId(spec.id.as_str().into()))
        }
        Changed::Removed(gone) => {
            ("item.removed".to_owned(), Subject::ItemId(gone.item.as_str().into()))
        }
        // One of a later kind is still told, and in the feed's order with its like.
        _ => ("change".to_owned(), Subject::ItemId("".into())),
    };
    let at_ms = change.at.as_millis();
    let (Subject::OrderId(name) | Subject::ItemId(name)) = &subject;
    // A cursor may stand for another change in another store.
    let id = Uuid::new_v5(&NAMESPACE, format!("{} {at_ms} {name}", change.cursor).as_bytes());
    let body =
        Body { r#type: &kind, timestamp: change.at.to_string(), data: ChangeView::from(change) };
    let body = serde_json::to_vec(&body).expect("messages are made of strings and numbers");
    (Head { id: format!("msg_{}", id.simple()), kind, subject, at_ms }, body.into())
}

#[cfg(test)]
mod tests {
    use flux_core::ItemSpec;
    use flux_core::seams::Cursor;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_message_is_the_change_under_an_id_that_stays() {
        let spec = ItemSpec::pool("ticket_1", 5).expect("an item");
        let change = |cursor: &str, at| {
            let at = Timestamp::from_millis(at);
            Change::new(Cursor(cursor.to_owned()), at, Changed::Item(spec.clone()))
        };
        let (head, body) = of(&change("7", 1_000));
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["type"], "item.changed");
        assert_eq!(body["timestamp"], "1970-01-01T00:00:01.000Z");
        assert_eq!(body["data"]["cursor"], "7");
        assert_eq!(body["data"]["item"]["capacity"], json!(5));
        assert_eq!(head.id, of(&change("7", 1_000)).0.id);
        for other in [change("8", 1_000), change("7", 2_000)] {
            assert_ne!(head.id, of(&other).0.id);
        }
        assert!(head.id.starts_with("msg_") && head.id.len() == 36, "{}", head.id);
    }
}
