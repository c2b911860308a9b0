//! Leases and outcomes on a real Redis: at its best, away, slow, wiped, and
//! behind TLS. Each test keeps to a prefix or a server of its own.
#![cfg(feature = "redis")]

mod accepted;
mod away;
mod conformance;
mod detours;
mod given_up;
#[cfg(feature = "dynamodb")]
mod notes;
mod outcomes;
mod sale;
mod secure;
mod server;

use std::time::Duration;

use flux_aws::bill::Meter;
use flux_aws::redis::{Redis, RedisSettings};
use flux_core::ItemId;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Time for a real process, which may be slow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time within which a call to a Redis that is away is answered.
const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set; start the services: tests/services cargo nextest run …")
    })
}

/// The Redis that all tests share, which must be this machine's own.
fn shared_url() -> String {
    let url = variable("REDIS_URL");
    let client = ::redis::Client::open(url.as_str()).expect("REDIS_URL is a URL of Redis");
    let address = client.get_connection_info().addr().to_string();
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    assert!(
        ["127.0.0.1", "::1", "localhost"].contains(&host),
        "REDIS_URL leads to {address}, which is not a loopback address"
    );
    url
}

fn prefix() -> String {
    Uuid::now_v7().to_string()
}

fn open(url: &str, prefix: &str) -> Redis {
    metered(url, prefix, &Meter::default())
}

fn metered(url: &str, prefix: &str, meter: &Meter) -> Redis {
    let settings = RedisSettings::url(url).prefix(prefix);
    Redis::open(settings, meter.clone()).expect("the settings are right")
}

fn item(name: &str) -> ItemId {
    ItemId::new(name).expect("a name")
}

/// Tries until `is` holds; the last answer is told if it never does.
async fn eventually<T: std::fmt::Debug, F>(mut probe: impl FnMut() -> F, is: impl Fn(&T) -> bool)
where
    F: Future<Output = T>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = probe().await;
        if is(&answer) {
            return;
        }
        assert!(Instant::now() < end, "still {answer:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
