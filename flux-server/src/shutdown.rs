//! The two signals of a server that stops: it drains, then it closes.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The signals, and whether each was given.
#[derive(Debug, Default)]
pub struct Shutdown {
    draining: Signal,
    closing: Signal,
}

#[derive(Debug, Default)]
struct Signal {
    told: watch::Sender<bool>,
    // The same for those who only look, as looking into a channel takes a lock.
    given: AtomicBool,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.told.send_replace(true);
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let mut told = self.told.subscribe();
        async move {
            // Without a sender there is no server left to wait for.
            let _ = told.wait_for(|told| *told).await.map(drop);
        }
    }
}

impl Shutdown {
    /// Turns new orders away: `/readyz` says so first, then waits and streams
    /// end, and each connection with its next answer.
    pub fn start_draining(&self) {
        self.draining.give();
    }

    /// Ends the connections that are idle.
    pub fn start_closing(&self) {
        self.closing.give();
    }

    /// Whether the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_given()
    }

    /// Whether connections that are idle are ended.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_given()
    }

    /// Waits until the server stops. Cancel-safe.
    pub fn draining(&self) -> impl Future<Output = ()> + use<> {
        self.draining.wait()
    }

    /// Waits until connections that are idle are ended. Cancel-safe.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.closing.wait()
    }

    /// Tells `true` once the server stops.
    pub(crate) fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.told.subscribe()
    }
}
