//! Redis absent, killed, wiped, slow and frozen: calls fail fast, what is
//! here still works, and it comes back by itself.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::seams::{LockManager, Member, OutcomeBus, SeamError};
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tokio::time::{Instant, timeout};

use crate::outcomes::{hears_gap, outcomes};
use crate::server::{Server, free_port};
use crate::{LONG, PATIENCE, SOON, eventually, item, open, prefix};

const NONE: Duration = Duration::ZERO;

/// An operator's sight: the gauges as they stand, and the log.
#[derive(Clone, Default)]
struct Seen {
    gauges: Arc<Mutex<HashMap<String, f64>>>,
    log: Arc<Mutex<Vec<u8>>>,
}

struct Named(String, Seen);

impl GaugeFn for Named {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.1.gauges.lock().expect("no panic").insert(self.0.clone(), value);
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Named(key.name().to_owned(), self.clone())))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.log.lock().expect("no panic").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seen {
    fn up(&self) -> Option<f64> {
        self.gauges.lock().expect("no panic").get("flux_redis_up").copied()
    }

    fn lines(&self, containing: &str) -> usize {
        let log = self.log.lock().expect("no panic");
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(containing)).count()
    }
}

/// Checks that no call takes long, and none waits for Redis to be tried again.
async fn fails_fast(locks: &impl LockManager) {
    let since = Instant::now();
    for _ in 0..100 {
        let answer = locks.acquire(&[item("a")], LONG, LONG).await;
        assert!(matches!(answer, Err(SeamError::Unavailable { .. })), "{answer:?}");
        let answer = locks.join("worker", LONG).await;
        assert!(matches!(answer, Err(SeamError::Unavailable { .. })), "{answer:?}");
        let answer = locks.leave("worker").await;
        assert!(matches!(answer, Err(SeamError::Unavailable { .. })), "{answer:?}");
    }
    assert!(since.elapsed() < SOON * 10, "100 calls took {:?}", since.elapsed());
}

#[tokio::test]
async fn absent_from_the_start() {
    let redis = open(&format!("redis://127.0.0.1:{}", free_port()), &prefix());
    let (locks, bus) = (redis.locks(), redis.bus());
    let mut subscriber = bus.subscribe();
    fails_fast(&locks).await;
    let told = bus.publish(outcomes(1)).await;
    assert!(matches!(told, Err(SeamError::Unavailable { .. })), "{told:?}");
    assert_eq!(subscriber.try_recv().expect("this process heard it"), outcomes(1));
}

#[tokio::test]
async fn killed_and_started_again() {
    let seen = Seen::default();
    let _metrics = metrics::set_default_local_recorder(&seen);
    let writer = seen.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::INFO)
        .finish();
    let _log = tracing::subscriber::set_default(subscriber);

    let mut server = Server::start().await;
    let prefix = prefix();
    let (redis, other) = (open(&server.url(), &prefix), open(&server.url(), &prefix));
    let (locks, bus, far) = (redis.locks(), redis.bus(), other.bus());
    let mut subscriber = far.subscribe();
    hears_gap(&mut subscriber).await;
    let lease = locks.acquire(&[item("a")], LONG, NONE).await.expect("up").expect("free");
    assert_eq!(seen.up(), Some(1.0));

    server.kill();
    let since = Instant::now();
    assert!(locks.renew(&lease, LONG).await.is_err());
    assert!(since.elapsed() < Duration::from_secs(1));
    fails_fast(&locks).await;
    let mut here = bus.subscribe();
    assert!(bus.publish(outcomes(1)).await.is_err());
    assert_eq!(here.try_recv().expect("this process heard it"), outcomes(1));
    assert_eq!(seen.up(), Some(0.0));
    assert!(!redis.is_up());
    // Both find out without being asked.
    eventually(|| async { other.is_up() }, |up| !up).await;

    server.resume().await;
    eventually(|| async { redis.is_up() && other.is_up() }, |up| *up).await;
    assert_eq!(seen.up(), Some(1.0));
    assert!(!locks.renew(&lease, LONG).await.expect("up"), "nobody kept the lease");
    hears_gap(&mut subscriber).await;
    bus.publish(outcomes(2)).await.expect("up");
    let heard = timeout(PATIENCE, subscriber.recv()).await.expect("in time").expect("heard");
    assert_eq!(heard, outcomes(2));
    // One line each, for each of the two.
    assert_eq!((seen.lines("Redis is away"), seen.lines("Redis is back")), (2, 2));
}

#[tokio::test]
async fn wiped() {
    let server = Server::start().await;
    let redis = open(&server.url(), &prefix());
    let locks = redis.locks();
    let lease = locks.acquire(&[item("a"), item("b")], LONG, NONE).await.expect("up");
    let lease = lease.expect("free");
    server.ask(&["FLUSHALL"]).await;
    server.ask(&["SCRIPT", "FLUSH"]).await;
    assert!(!locks.renew(&lease, LONG).await.expect("up"), "the lease is lost and said to be");
    let next = locks.acquire(&[item("b")], LONG, NONE).await.expect("up").expect("free");
    locks.release(&lease).await.expect("up");
    assert!(locks.renew(&next, LONG).await.expect("up"), "the late one took nothing");
}

#[tokio::test]
async fn members_are_counted_anew_when_wiped_and_leave_nothing_behind() {
    let server = Server::start().await;
    let prefix = prefix();
    let locks = open(&server.url(), &prefix).locks();
    locks.join("one", LONG).await.expect("up");
    assert_eq!(locks.join("other", SOON).await.expect("up").len(), 2);
    let key = format!("flux:members:{{{prefix}}}");
    let redis::Value::Int(lasts) = server.ask(&["PTTL", &key]).await else { panic!("a number") };
    // As long as the last of them, and not as long as the newest.
    let long = LONG.as_millis() as i64;
    assert!((1_000..=long).contains(&lasts), "{lasts} ms");

    server.ask(&["FLUSHALL"]).await;
    let alone = locks.join("one", LONG).await.expect("up");
    assert_eq!(alone, [Member::new("one", LONG)]);
    assert_eq!(locks.join("other", LONG).await.expect("up").len(), 2);
    locks.leave("one").await.expect("up");
    locks.leave("other").await.expect("up");
    assert_eq!(server.ask(&["EXISTS", &key]).await, redis::Value::Int(0));
}

#[tokio::test]
async fn refusing_for_a_while() {
    let server = Server::start().await;
    let redis = open(&server.url(), &prefix());
    let locks = redis.locks();
    let take = |name| {
        let (locks, key) = (&locks, [item(name)]);
        async move { locks.acquire(&key, LONG, NONE).await }
    };
    assert!(take("a").await.expect("up").is_some());
    // Full; then a replica, as after a failover.
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let answer = take("b").await;
    assert!(matches!(answer, Err(SeamError::Unavailable { .. })), "{answer:?}");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(take("b").await.expect("up").is_some());
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let answer = take("c").await;
    assert!(matches!(answer, Err(SeamError::Unavailable { .. })), "{answer:?}");
    server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    eventually(|| take("c"), Result::is_ok).await;
    // A command that Redis does not allow is no outage, and not to be repeated.
    server.ask(&["ACL", "SETUSER", "default", "-@scripting"]).await;
    let answer = take("d").await;
    assert!(matches!(answer, Err(SeamError::Broken { .. })), "{answer:?}");
    assert!(redis.is_up());
}

#[tokio::test]
async fn too_slow() {
    let server = Server::start().await;
    let redis = open(&server.url(), &prefix());
    let (locks, bus) = (redis.locks(), redis.bus());
    let lease = locks.acquire(&[item("a")], LONG, NONE).await.expect("up").expect("free");
    server.ask(&["CLIENT", "PAUSE", "3000", "ALL"]).await;
    let since = Instant::now();
    let answer = locks.renew(&lease, LONG).await;
    assert!(matches!(answer, Err(SeamError::Unknown { .. })), "{answer:?}");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    fails_fast(&locks).await;
    assert!(bus.publish(outcomes(1)).await.is_err());
    eventually(|| locks.renew(&lease, LONG), Result::is_ok).await;
    assert!(locks.renew(&lease, LONG).await.expect("up"), "a pause wipes nothing");
}

#[tokio::test]
async fn a_listener_notices_a_redis_that_froze_in_silence() {
    let server = Server::start().await;
    let redis = open(&server.url(), &prefix());
    let bus = redis.bus();
    let mut subscriber = bus.subscribe();
    hears_gap(&mut subscriber).await;
    server.ask(&["CLIENT", "PAUSE", "7000", "ALL"]).await;
    hears_gap(&mut subscriber).await;
}

#[tokio::test]
async fn a_wait_for_a_lease_ends_when_redis_does() {
    let mut server = Server::start().await;
    let redis = open(&server.url(), &prefix());
    let locks = redis.locks();
    let _held = locks.acquire(&[item("a")], LONG, NONE).await.expect("up").expect("free");
    let keys = [item("a")];
    let mut waiting = std::pin::pin!(locks.acquire(&keys, LONG, LONG));
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "it waits");
    server.kill();
    let answer = timeout(Duration::from_secs(1), waiting).await.expect("soon");
    assert!(answer.is_err(), "{answer:?}");
}
