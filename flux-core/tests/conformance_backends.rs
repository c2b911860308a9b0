//! The suite against our own backends: bare and wrapped, as types and as trait
//! objects, on one thread and on several.
#![cfg(all(feature = "conformance", feature = "embedded"))]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flux_core::backends::embedded::Embedded;
use flux_core::backends::memory::MemoryStore;
use flux_core::conformance::{self, BUYER_RULES, Counts, QueueTerms};
use flux_core::layers::{Retry, TimeLimit, Trace};
use flux_core::{Backend, BuyerRules};

/// Waited for in real time.
const SHORT: Duration = Duration::from_millis(150);
const BOUND: usize = 600;

async fn assert_conforms(visibility: Duration, fresh: impl Fn() -> Backend) {
    let terms = QueueTerms { visibility, bound: Some(BOUND), counts: Counts::Exact };
    conformance::store(|| async { fresh().store }).await.assert_clean();
    conformance::feed(|| async { fresh().store }).await.assert_clean();
    conformance::removals(|| async { fresh().store }).await.assert_clean();
    conformance::queue(terms, || async { fresh().queue }).await.assert_clean();
    conformance::locks(SHORT, || async { fresh().locks }).await.assert_clean();
    conformance::bus(|| async { fresh().bus }).await.assert_clean();
}

async fn assert_forgets(fresh: impl Fn(Duration) -> Backend) {
    let keep = Duration::from_secs(3_600);
    conformance::forgetting(keep, || async { fresh(keep).store }).await.assert_clean();
}

/// Runs what a store with rules about buyers must pass, and with a rule that nobody
/// breaks the rest as well.
async fn assert_keeps_rules(fresh: impl Fn(BuyerRules) -> Backend) {
    let ruled = || async { fresh(BUYER_RULES).store };
    conformance::store_with_buyer_rules(ruled).await.assert_clean();
    let lax = BuyerRules::builder().holds_max(NonZeroU32::MAX).build();
    conformance::store(|| async { fresh(lax).store }).await.assert_clean();
}

fn memory(visibility: Duration) -> Backend {
    Backend::memory_with().visibility(visibility).queue_depth_max(BOUND).build()
}

fn memory_with_rules(rules: BuyerRules) -> Backend {
    Backend::memory_with().buyer_rules(rules).build()
}

fn embedded(within: &Path) -> Backend {
    embedded_with_rules(within, BuyerRules::default())
}

/// A new directory each time.
fn embedded_with_rules(within: &Path, rules: BuyerRules) -> Backend {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = within.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    let embedded = Embedded::builder(path).visibility(SHORT).queue_depth_max(BOUND);
    embedded.buyer_rules(rules).open().expect("a fresh directory opens").backend()
}

/// The layers as an application would put them.
fn dressed(backend: Backend) -> Backend {
    backend
        .layered(TimeLimit::new(Duration::from_secs(20)))
        .layered(Retry::default())
        .layered(Trace)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_rejected_is_forgotten_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = |keep| Backend::memory_with().keep_rejected(keep).build();
    assert_forgets(memory).await;
    assert_forgets(|keep| dressed(memory(keep))).await;
    let next = AtomicU32::new(0);
    assert_forgets(|keep| {
        let path = dir.path().join(next.fetch_add(1, Ordering::Relaxed).to_string());
        Embedded::builder(path).keep_rejected(keep).open().expect("it opens").backend()
    })
    .await;
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

#[tokio::test(start_paused = true)]
async fn memory_with_rules_about_buyers() {
    assert_keeps_rules(memory_with_rules).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_with_rules_about_buyers_on_several_threads() {
    assert_keeps_rules(|rules| dressed(memory_with_rules(rules))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_with_rules_about_buyers() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_keeps_rules(|rules| embedded_with_rules(dir.path(), rules)).await;
}
