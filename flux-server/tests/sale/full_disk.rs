//! A disk that fills up in the middle of a sale.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Lost};
use crate::harness::{Server, Setup};

const DRAIN: Duration = Duration::from_secs(10);
/// The status of a process whose engine has failed.
const ENGINE_FAILED: i32 = 70;
/// 16 MiB or 32.
const BLOCKS_MAX: u32 = 32 * 1_024;

/// Puts halls on sale until one can't be written, and returns the number of those
/// that were.
fn fill(server: &Server) -> usize {
    let seats: Vec<String> = (0..50_000).map(|n| format!("row-and-seat-{n}")).collect();
    for n in 0.. {
        let answer = server.put(format!("/v1/items/hall-{n}"), &json!({"seats": seats}));
        if answer.status != 201 {
            let answer = answer.problem(500, "internal");
            assert!(answer.field("detail").contains("may have taken effect"), "{}", answer.text());
            return n;
        }
    }
    unreachable!("the disk is bounded")
}

#[test]
fn a_server_whose_disk_is_full_says_so_and_ends_and_the_next_finds_what_was_acknowledged() {
    let drain = DRAIN.as_secs().to_string();
    let setup = Setup::new().args(&["--item", "ticket=100000", "--drain", &drain]);
    let mut server = setup.file_blocks_max(BLOCKS_MAX).start();
    let buy = |n: usize| json!({"buyer_id": format!("buyer-{n}"), "item_id": "ticket"});
    let held: Vec<String> = (0..50).map(|n| server.held(&buy(n))).collect();
    let halls = fill(&server);
    assert!(halls > 0);

    // Nothing was on its way but the last hall, so nothing else is in doubt.
    let filled_at = Instant::now();
    let mut client = Client::new(server.address());
    let asks: [(&str, &str, serde_json::Value); 3] = [
        ("/v1/orders", "wait=5", buy(1_000)),
        ("/v1/orders", "wait=0", buy(1_001)),
        ("/buy", "wait=0", json!({"user_id": "ann", "item_id": "ticket"})),
    ];
    'asking: loop {
        for (path, wait, body) in &asks {
            match client.post(path, &[("Prefer", wait)], body) {
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{path}: {}", answer.json());
                    assert_eq!(answer.json()["type"], "/problems/unavailable");
                    assert!(answer.header("retry-after").is_some());
                }
                Err(Lost::Refused) => break 'asking,
                Err(_) => {}
            }
        }
    }
    assert_eq!(server.end().code(), Some(ENGINE_FAILED), "{}", server.log());
    assert!(filled_at.elapsed() < 2 * DRAIN, "{:?}", filled_at.elapsed());
    assert!(server.log().contains("the engine has failed"), "{}", server.log());

    // A supervisor starts it anew, and there is room again.
    let server = server.crash().start();
    for id in &held {
        assert_eq!(server.read_order(id)["status"], "held");
    }
    for n in 0..halls {
        assert_eq!(server.item(&format!("hall-{n}"))["available"], 50_000);
    }
    let item = server.item("ticket");
    assert_eq!((&item["held"], &item["sold"]), (&json!(held.len()), &json!(0)));
    server.held(&buy(1_000));
}
