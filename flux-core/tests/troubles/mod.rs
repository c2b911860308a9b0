//! Backends in trouble, for tests on tokio's paused clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::layers::{Call, Layer, Operation};
use flux_core::seams::SeamError;

/// The trouble that an operation is in.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "not every test has each")]
pub(crate) enum Trouble {
    /// Works after so long.
    Slow(Duration),
    /// Gone, which takes so long to find out.
    Away(Duration),
}

/// A layer that makes trouble.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles {
    troubles: Arc<Mutex<HashMap<Operation, Trouble>>>,
    calls: Arc<Mutex<HashMap<Operation, usize>>>,
}

#[allow(dead_code, reason = "not every test uses each")]
impl Troubles {
    /// From now on.
    pub(crate) fn set(&self, operation: Operation, trouble: Trouble) {
        self.troubles.lock().expect("no panic").insert(operation, trouble);
    }

    /// The number of calls so far.
    pub(crate) fn calls(&self, operation: Operation) -> usize {
        self.calls.lock().expect("no panic").get(&operation).copied().unwrap_or_default()
    }

    /// All is well again.
    pub(crate) fn clear(&self) {
        self.troubles.lock().expect("no panic").clear();
    }
}

impl Layer for Troubles {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> std::result::Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<T, SeamError>> + Send,
    {
        *self.calls.lock().expect("no panic").entry(call.operation).or_default() += 1;
        let trouble = self.troubles.lock().expect("no panic").get(&call.operation).copied();
        match trouble {
            Some(Trouble::Slow(time)) => tokio::time::sleep(time).await,
            Some(Trouble::Away(time)) => {
                tokio::time::sleep(time).await;
                return Err(SeamError::unavailable("it"));
            }
            None => {}
        }
        run().await
    }
}
