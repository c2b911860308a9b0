//! The power of one engine: without it nothing it does reaches anybody, and nobody it
//! serves hears of it again.

use std::future::pending;

use flux_core::layers::{Call, Layer};
use flux_core::seams::SeamError;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    On,
    Frozen,
    Off,
}

#[derive(Debug, Clone)]
pub(crate) struct Power(watch::Sender<State>);

impl Power {
    pub(crate) fn on() -> Self {
        Self(watch::Sender::new(State::On))
    }

    /// The engine crashes: its calls end where they are.
    pub(crate) fn cut(&self) {
        self.0.send_replace(State::Off);
    }

    /// The engine stands still between any two steps.
    pub(crate) fn freeze(&self) {
        self.change(State::On, State::Frozen);
    }

    pub(crate) fn thaw(&self) {
        self.change(State::Frozen, State::On);
    }

    pub(crate) fn is_on(&self) -> bool {
        *self.0.borrow() == State::On
    }

    fn change(&self, from: State, to: State) {
        self.0.send_if_modified(|state| {
            let changes = *state == from;
            if changes {
                *state = to;
            }
            changes
        });
    }

    /// Waits until the engine crashes.
    pub(crate) async fn is_cut(&self) {
        let _ = self.0.subscribe().wait_for(|state| *state == State::Off).await;
    }

    async fn is_thawed(&self) {
        let _ = self.0.subscribe().wait_for(|state| *state != State::Frozen).await;
    }
}

impl Layer for Power {
    async fn around<T, F, Fut>(&self, _: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let call = async {
            self.is_thawed().await;
            let answer = run().await;
            self.is_thawed().await;
            answer
        };
        tokio::select! {
            biased;
            () = self.is_cut() => pending().await,
            answer = call => answer,
        }
    }
}
