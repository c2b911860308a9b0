//! A worker that stops (SIGSTOP) in the middle of a commit, past its lease,
//! and goes on when another has sold since: before its messages' visibility
//! ended, when only the fencing token can refuse it, and after.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::proxy::{Answer, Call, Meddler, Proxy, Server};
use crate::sale::{Sale, Size, metric, signal, until};

const SIZE: Size =
    Size { stock: 500, buyers: 700, in_flight: 16, visibility: 20, partitions: None };
/// Buyers whose orders come when it has stopped.
const LATER: Range<u32> = 500..600;
/// Far more than a lease; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The commit it stops at.
const COMMIT: u32 = 3;

/// Stops its worker when a commit is on the way, and makes that commit when
/// the worker goes on.
#[derive(Default)]
struct Stop {
    commits: AtomicU32,
    worker: watch::Sender<Option<u32>>,
    stopped: watch::Sender<bool>,
    goes_on: watch::Sender<bool>,
    late: watch::Sender<Option<String>>,
}

#[async_trait]
impl Meddler for Stop {
    async fn meddle(&self, call: Call, server: &mut Server) -> Option<Answer> {
        let is_commit = call.operation == "TransactWriteItems";
        if is_commit && self.commits.fetch_add(1, Ordering::SeqCst) + 1 == COMMIT {
            let mut worker = self.worker.subscribe();
            let pid = worker.wait_for(Option::is_some).await.ok()?.expect("it is some");
            signal("STOP", pid);
            self.stopped.send_replace(true);
            self.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.ok()?;
            let answer = server.make(&call).await?;
            self.late.send_replace(Some(String::from_utf8_lossy(&answer.body).into_owned()));
            return Some(answer);
        }
        server.make(&call).await
    }
}

/// Stops a worker until another has sold, and for so long in all.
async fn stopped(size: Size, at_least: Duration) {
    let sale = Sale::open(size).await;
    let stop = Arc::new(Stop::default());
    let url = sale.services.get("AWS_ENDPOINT_URL_DYNAMODB");
    let proxy = Proxy::before(url, Arc::clone(&stop)).await;
    let services = sale.services.clone().with("AWS_ENDPOINT_URL_DYNAMODB", proxy.url());

    let first = sale.worker("the worker that is stopped", &services);
    stop.worker.send_replace(Some(first.pid()));
    let storm = sale.storm();
    until("the first worker is stopped", || *stop.stopped.borrow()).await;
    let since = Instant::now();
    let left = |item: &Value| item["available"].as_u64().expect("a count");
    let left_then = left(&sale.item().await);

    // Some go to the poll that the stopped worker has open, and come again later.
    sale.send_ahead(LATER).await;
    let mut second = sale.worker("the worker that takes over", &sale.services);
    while left(&sale.item().await) >= left_then {
        assert!(since.elapsed() < PATIENCE, "nobody takes over: {}", second.log());
        sleep(Duration::from_millis(50)).await;
    }
    println!("another has sold {:?} later", since.elapsed());
    sleep_until(since + at_least).await;
    let is_in_time = since.elapsed() < Duration::from_secs(size.visibility);
    assert!(!at_least.is_zero() || is_in_time, "its messages came again: this shows nothing");

    stop.goes_on.send_replace(true);
    until("the late commit is made", || stop.late.borrow().is_some()).await;
    let late = stop.late.borrow().clone().expect("it is some");
    assert!(late.contains("TransactionCanceledException"), "the late commit was taken: {late}");
    assert!(sale.told.held() < size.stock, "all was sold meanwhile");
    second.kill().expect("it is ours");
    signal("CONT", first.pid());
    sale.finish(storm).await;
    let refused = metric(&first, "flux_fenced_total").await
        + metric(&first, "flux_unknown_commits_total").await;
    assert!(refused >= 1.0, "the worker that was stopped did not notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_lease() {
    stopped(SIZE, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_lease_and_the_visibility() {
    stopped(Size { visibility: 2, ..SIZE }, Duration::from_secs(6)).await;
}
