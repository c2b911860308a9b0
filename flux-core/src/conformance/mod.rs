//! The suite every backend is held to.

mod check;
pub mod history;
mod store;

use std::sync::Arc;

pub use check::{Check, CheckResult, Failure, Report};

use crate::seams::InventoryStore;

/// Runs every check of an inventory store, each on an empty store from `fresh`.
pub async fn store<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(store_checks(), fresh).await
}

/// The checks of [`store`], for a runner of your own.
#[must_use]
pub fn store_checks<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    store::all()
}
