//! The suite of the queue against SQS as two emulators have it, standard and
//! FIFO, bare and wrapped. The checks run at once, each on queues of its own:
//! most of their time is waiting for time-outs.

use std::sync::Arc;
use std::time::Duration;

use crate::{Emulator, Kind, fresh, name};
use flux_aws::bill::Meter;
use flux_aws::sqs::{self, CreateOptions};
use flux_core::conformance::{CheckResult, Counts, QueueTerms, Report, queue_checks};
use flux_core::layers::{Faults, Layered, Retry, TimeLimit, Trace};
use flux_core::seams::OrderQueue;
use tokio::task::JoinSet;

/// The shortest that leaves a busy machine time: SQS takes whole seconds.
const VISIBILITY: Duration = Duration::from_secs(3);
/// The terms of the suite: SQS' own counts lag, and a pack counts as one.
const TERMS: QueueTerms = QueueTerms { visibility: VISIBILITY, bound: None, counts: Counts::Rough };

type Dress = fn(Arc<dyn OrderQueue>) -> Arc<dyn OrderQueue>;

async fn assert_conforms(emulator: Emulator, kind: Kind, dress: Dress) {
    let mut queues: Vec<Arc<dyn OrderQueue>> = Vec::new();
    for _ in queue_checks::<dyn OrderQueue>() {
        queues.push(dress(fresh(emulator, kind, VISIBILITY).await));
    }
    assert_each_conforms(queues).await;
}

/// Each check on one of the queues, which are as many.
async fn assert_each_conforms(queues: Vec<Arc<dyn OrderQueue>>) {
    let mut checks = JoinSet::new();
    for (check, queue) in queue_checks::<dyn OrderQueue>().into_iter().zip(queues) {
        checks.spawn(async move {
            let result = check.run((queue, TERMS)).await;
            CheckResult { name: check.name, guarantee: check.guarantee, result }
        });
    }
    Report { results: checks.join_all().await }.assert_clean();
}

/// Each check on a partition of its own, beside others of the same queue.
async fn assert_partitions_conform(emulator: Emulator) {
    let (client, checks) = (emulator.client().await, queue_checks::<dyn OrderQueue>().len());
    let mut queues: Vec<Arc<dyn OrderQueue>> = Vec::new();
    while queues.len() < checks {
        let name = name(Kind::Standard);
        let options = CreateOptions { visibility: VISIBILITY, partitions: Some(16) };
        sqs::create(&client, &name, &options).await.expect("the queues are made");
        let opened = sqs::open_partitions(client.clone(), &name, None, &Meter::default()).await;
        queues.extend(opened.expect("they open").into_iter().map(|queue| Arc::new(queue) as _));
    }
    assert_each_conforms(queues).await;
}

#[tokio::test]
async fn fauxqs_partitions() {
    assert_partitions_conform(Emulator::Fauxqs).await;
}

#[tokio::test]
async fn ministack_partitions() {
    assert_partitions_conform(Emulator::Ministack).await;
}

/// As an application would put them.
fn dressed(queue: Arc<dyn OrderQueue>) -> Arc<dyn OrderQueue> {
    let queue = Arc::new(Layered::new(queue, TimeLimit::new(Duration::from_secs(20))));
    let queue = Arc::new(Layered::new(queue, Retry::default()));
    Arc::new(Layered::new(queue, Trace))
}

/// Every fifth call fails, and is made again.
fn troubled(queue: Arc<dyn OrderQueue>) -> Arc<dyn OrderQueue> {
    let faults = Faults::builder().seed(11).error_before(0.2).delay(0.1).build();
    let queue = Arc::new(Layered::new(queue, faults.expect("the rates are in range")));
    let retry = Retry::builder().retries(10).budget(10_000).build();
    Arc::new(Layered::new(queue, retry))
}

#[tokio::test]
async fn fauxqs_standard() {
    assert_conforms(Emulator::Fauxqs, Kind::Standard, |queue| queue).await;
}

#[tokio::test]
async fn fauxqs_fifo() {
    assert_conforms(Emulator::Fauxqs, Kind::Fifo, |queue| queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fauxqs_in_layers() {
    assert_conforms(Emulator::Fauxqs, Kind::Standard, dressed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fauxqs_in_trouble() {
    assert_conforms(Emulator::Fauxqs, Kind::Standard, troubled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fauxqs_fifo_in_trouble() {
    assert_conforms(Emulator::Fauxqs, Kind::Fifo, troubled).await;
}

#[tokio::test]
async fn ministack_standard() {
    assert_conforms(Emulator::Ministack, Kind::Standard, |queue| queue).await;
}

#[tokio::test]
async fn ministack_fifo() {
    assert_conforms(Emulator::Ministack, Kind::Fifo, |queue| queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ministack_in_trouble() {
    assert_conforms(Emulator::Ministack, Kind::Standard, troubled).await;
}
