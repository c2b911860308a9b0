//! A sale while webhooks are told of it: nobody waits longer for an order.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::crowd;
use crate::harness::{Receiver, Reply, Server, Setup, until};

const CLIENTS: usize = 4;
/// Orders a second in all.
const RATE: u32 = 200;
const TURNS: usize = 6;

/// Sells for a second, each order at its time, whatever became of those before; returns how
/// long after its time each was decided.
fn second(server: &Server, turn: usize) -> Vec<Duration> {
    let begin = Instant::now() + Duration::from_millis(20);
    let of_each = crowd(CLIENTS, |n| {
        let mut client = Client::new(server.address());
        let mut waited = Vec::new();
        for order in (n as u32..RATE).step_by(CLIENTS) {
            let time = begin + Duration::from_secs(1) * order / RATE;
            thread::sleep(time.saturating_duration_since(Instant::now()));
            let body = json!({"buyer_id": format!("b{turn}-{order}"), "item_id": "t"});
            let answer = client.post("/v1/orders", &[("Prefer", "wait=20")], &body);
            assert_eq!(answer.expect("an answer").status, 201);
            waited.push(time.elapsed());
        }
        waited
    });
    of_each.into_iter().flatten().collect()
}

fn percentile(mut waited: Vec<Duration>, part: f64) -> Duration {
    waited.sort_unstable();
    waited[((waited.len() - 1) as f64 * part) as usize]
}

#[test]
fn a_sale_is_no_slower_for_its_webhooks() {
    let turns = std::env::var("FLUX_WEBHOOK_TURNS").map_or(TURNS, |n| n.parse().expect("turns"));
    // One that fails one in five, and takes its time.
    let receiver = Receiver::start(|n, _| match n % 5 {
        0 => Reply::Refused(500, ""),
        _ => Reply::Late(Duration::from_millis(20)),
    });
    let items = ["--item", "t=1000000"];
    let alone = Server::start(&items);
    let telling = Setup::new()
        .args(&items)
        .args(&["--webhook-private", "--webhook", &receiver.url()])
        .env("FLUX_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .start();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // In turns, so that both have the same machine.
    for turn in 0..=turns {
        let waited = (second(&alone, turn), second(&telling, turn));
        // The first is to warm up.
        if turn > 0 {
            without.extend(waited.0);
            with.extend(waited.1);
        }
    }
    let orders = (turns + 1) * RATE as usize;
    until("all is told", Duration::from_secs(60), || {
        (receiver.messages().iter().filter(|message| message.taken).count() > orders).then_some(())
    });
    let [p50, p99] =
        [0.5, 0.99].map(|part| (percentile(without.clone(), part), percentile(with.clone(), part)));
    println!(
        "{} orders each: p50 {:?} without, {:?} with; p99 {:?} without, {:?} with: {:.2}",
        with.len(),
        p50.0,
        p50.1,
        p99.0,
        p99.1,
        p99.1.as_secs_f64() / p99.0.as_secs_f64()
    );
    // A bound that noise on a shared machine keeps; the line above has the figures.
    assert!(p99.1 < p99.0 * 3 + Duration::from_millis(50), "{p99:?}");
}
