//! The suite against our own backends: bare and wrapped, as types and as trait
//! objects, on one thread and on several.
#![cfg(all(feature = "conformance", feature = "embedded"))]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flux_core::Backend;
use flux_core::backends::embedded::Embedded;
use flux_core::backends::memory::MemoryStore;
use flux_core::conformance::{self, Counts, QueueTerms};
use flux_core::layers::{Retry, TimeLimit, Trace};

/// Waited for in real time.
const SHORT: Duration = Duration::from_millis(150);
const BOUND: usize = 600;

async fn assert_conforms(visibility: Duration, fresh: impl Fn() -> Backend) {
    let terms = QueueTerms { visibility, bound: Some(BOUND), counts: Counts::Exact };
    conformance::store(|| async { fresh().store }).await.assert_clean();
    conformance::queue(terms, || async { fresh().queue }).await.assert_clean();
    conformance::locks(SHORT, || async { fresh().locks }).await.assert_clean();
    conformance::bus(|| async { fresh().bus }).await.assert_clean();
}

fn memory(visibility: Duration) -> Backend {
    Backend::memory_with().visibility(visibility).queue_depth_max(BOUND).build()
}

/// A new directory each time.
fn embedded(within: &Path) -> Backend {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = within.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    let open = Embedded::builder(path).visibility(SHORT).queue_depth_max(BOUND).open();
    open.expect("a fresh directory opens").backend()
}

/// The layers as an application would put them.
fn dressed(backend: Backend) -> Backend {
    backend
        .layered(TimeLimit::new(Duration::from_secs(20)))
        .layered(Retry::default())
        .layered(Trace)
}

#[tokio::test(start_paused = true)]
async fn memory_on_a_paused_clock() {
    let visibility = Duration::from_secs(30);
    assert_conforms(visibility, || memory(visibility)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_on_several_threads() {
    assert_conforms(SHORT, || memory(SHORT)).await;
    conformance::store(|| async { Arc::new(MemoryStore::default()) }).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_in_layers() {
    assert_conforms(SHORT, || dressed(memory(SHORT))).await;
}

#[tokio::test]
async fn embedded_on_one_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_conforms(SHORT, || embedded(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_on_several_threads() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_conforms(SHORT, || embedded(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_in_layers() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_conforms(SHORT, || dressed(embedded(dir.path()))).await;
}
