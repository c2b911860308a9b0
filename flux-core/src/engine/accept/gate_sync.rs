//! Keeps the gate true and wakes those who wait: one task hears the outcomes,
//! the other reads again what a lost message would keep shut, and so hears when
//! the store has stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::engine::core::{Core, stopped};

/// The time from one reading of the shut items to the next.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Tells gate, waiters and the worker of each outcome, until told to stop.
pub(crate) async fn listen(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut receiver = core.backend.bus.subscribe();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            heard = receiver.recv() => match heard {
                Ok(outcomes) if outcomes.is_gap() => missed(&core),
                Ok(outcomes) => {
                    core.gate.set_availability(&outcomes.availability);
                    core.waiters.tell(&outcomes);
                    core.expect_ends(&outcomes.orders);
                }
                Err(RecvError::Lagged(_)) => missed(&core),
                // Those who wait look for themselves now and then.
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Has everybody look for what was missed.
fn missed(core: &Core) {
    core.waiters.tell_all();
    core.expect_end(None);
}

/// Reads shut items again, until told to stop.
pub(crate) async fn refresh(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut again = interval(REFRESH_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = again.tick() => {}
        }
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            refreshed = core.gate.refresh_shut(&*core.backend.store) => {
                // One that stopped may be read still, and perhaps nobody writes.
                if let Err(error) = refreshed.and_then(|_| core.backend.store.check()) {
                    core.note(&error);
                    debug!(%error, "the gate could not be refreshed");
                }
            }
        }
    }
}
