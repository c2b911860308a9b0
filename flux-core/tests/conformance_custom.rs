//! The suite against the store of the `custom_backend` example, which was
//! written from the traits' promises alone: each checks the other.
#![cfg(feature = "conformance")]

use std::sync::Arc;

use flux_core::conformance;
use flux_core::seams::InventoryStore;

#[path = "../../examples/custom_backend.rs"]
#[expect(dead_code, reason = "the example's main")]
mod custom_backend;

use custom_backend::MapStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_a_type() {
    let report = conformance::store(|| async { Arc::new(MapStore::default()) }).await;
    report.assert_clean();
}

#[tokio::test]
async fn as_a_trait_object_on_one_thread() {
    let fresh = || async { Arc::new(MapStore::default()) as Arc<dyn InventoryStore> };
    conformance::store(fresh).await.assert_clean();
}
