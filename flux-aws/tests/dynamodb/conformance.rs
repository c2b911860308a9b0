//! The suite of flux-core, bare, striped and in layers.

use std::sync::Arc;
use std::time::Duration;

use flux_core::Backend;
use flux_core::conformance;
use flux_core::layers::{Retry, TimeLimit, Trace};
use flux_core::seams::InventoryStore;

use crate::table::fresh;

async fn assert_conforms(stripes: usize) {
    conformance::store(|| fresh(stripes)).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_row_for_each_item() {
    assert_conforms(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pools_striped_over_three_rows() {
    assert_conforms(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_layers_as_an_application_has_them() {
    let dressed = || async {
        let store: Arc<dyn InventoryStore> = fresh(1).await;
        Backend { store, ..Backend::memory() }
            .layered(TimeLimit::new(Duration::from_secs(20)))
            .layered(Retry::default())
            .layered(Trace)
            .store
    };
    conformance::store(dressed).await.assert_clean();
}
