//! The HTTP contract, sentence by sentence, against the real binary.

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod archive;
mod auth;
mod backup;
mod batch;
mod changes;
mod document;
mod events;
mod heads;
mod hoarding;
mod http;
mod idempotency;
mod items;
mod legacy;
mod lifecycle;
mod limits;
mod listing;
mod metadata;
mod misconfigured;
mod orders;
mod origins;
mod protection;
mod queued;
mod refunds;
mod requests;
mod running;
mod shares;
mod tokens;
mod unread;
mod webhooks;

/// A fresh order id.
fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Milliseconds since 1970 of a time the server gave.
#[track_caller]
fn millis(time: &serde_json::Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let time: jiff::Timestamp = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    time.as_millisecond()
}

/// A moment some seconds from now, as a client would write it.
fn from_now(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    jiff::Timestamp::from_millisecond(now + seconds * 1000).expect("in range").to_string()
}
