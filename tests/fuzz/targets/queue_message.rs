//! The body of an SQS message: whatever comes is refused with a reason, or its messages are
//! read, and come back in order from the packs they are put in again.

#![no_main]

// The file itself: with its crate the clients of AWS would be built in too.
#[allow(dead_code)]
#[path = "../../../flux-aws/src/sqs/pack.rs"]
mod pack;

use std::collections::BTreeMap;

use flux_core::protocol::Message;
use libfuzzer_sys::fuzz_target;
use pack::{BODY_BYTES_MAX, Entry, Opened, PACK_MAX, Packing, open};

/// The name that `pack` gives in its errors.
const SERVICE: &str = "SQS";

/// The messages that must keep their order among each other.
fn key(message: &Message) -> String {
    match message {
        Message::Place(order) => format!("item {}", order.lines[0].item),
        message => format!("order {}", message.order_id()),
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(body) = std::str::from_utf8(input) else { return };
    let Opened { messages, bad } = match open(body) {
        Ok(opened) => opened,
        Err(reason) => return assert!(!reason.is_empty()),
    };
    assert!(!messages.is_empty(), "a pack of none is refused");
    for (body, reason) in &bad {
        let alone = open(body).expect_err("it is as bad when it is alone");
        // A fraction, which no message of ours has, may end in another digit.
        assert!(alone == *reason || reason.contains("floating point"), "{alone}, not {reason}");
    }
    for packing in [Packing::Full, Packing::ByGroup, Packing::Alone] {
        let entry = |(tag, (attempts, message)): (usize, &(u32, Message))| {
            Entry::new(message, *attempts, tag).expect("no input is so large")
        };
        let entries = messages.iter().enumerate().map(entry).collect();
        let mut seen = Vec::new();
        let mut last = BTreeMap::new();
        for pack in pack::pack(entries, packing) {
            let (body, indices) = (pack.body, pack.tags);
            let most = if packing == Packing::Alone { 1 } else { PACK_MAX };
            assert!((1..=most).contains(&indices.len()));
            assert!(indices.len() == 1 || body.len() <= BODY_BYTES_MAX);
            let Opened { messages: again, bad } = open(&body).expect("it was written");
            assert!(bad.is_empty(), "{bad:?}");
            assert_eq!(again.len(), indices.len());
            for (message, index) in again.iter().zip(&indices) {
                assert_eq!(*message, messages[*index]);
                let before = last.insert(key(&message.1), *index);
                assert!(before < Some(*index), "messages on one item keep their order");
            }
            if packing == Packing::ByGroup {
                assert!(again.iter().all(|(_, message)| key(message) == key(&again[0].1)));
            }
            seen.extend(indices);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..messages.len()).collect::<Vec<_>>());
    }
});
