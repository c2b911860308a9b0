//! The outcomes as an application hears them: until its engine has stopped.

use std::sync::Arc;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use crate::seams::{OutcomeReceiver, Outcomes};

/// The outcomes of a sale as they come, from
/// [`Flux::subscribe`](super::Flux::subscribe). It ends once the engine has
/// stopped and everything told before was read; it does not keep the engine
/// running.
#[derive(Debug)]
pub struct Subscription {
    outcomes: OutcomeReceiver,
    /// Fails when the engine's last task is gone.
    engine: watch::Receiver<()>,
    /// Messages still to be read, once the engine has stopped: the bus may
    /// serve others and go on.
    left: Option<u64>,
}

impl Subscription {
    pub(super) fn new(outcomes: OutcomeReceiver, engine: watch::Receiver<()>) -> Self {
        Self { outcomes, engine, left: None }
    }

    /// Waits for the next outcomes. Cancel-safe: none are lost by dropping it.
    ///
    /// # Errors
    /// `Lagged` when this receiver fell behind and lost the oldest: read what
    /// you need to know by [`Flux::order`](super::Flux::order) or
    /// [`Flux::item`](super::Flux::item), as after a
    /// [gap](Outcomes::is_gap). `Closed` when the engine has stopped.
    pub async fn recv(&mut self) -> Result<Arc<Outcomes>, RecvError> {
        if !self.has_engine_stopped() {
            tokio::select! {
                heard = self.outcomes.recv() => return heard,
                _ = self.engine.changed() => {}
            }
        }
        self.try_recv().map_err(|error| match error {
            TryRecvError::Lagged(lost) => RecvError::Lagged(lost),
            TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
        })
    }

    /// The next outcomes, if there are any.
    ///
    /// # Errors
    /// `Empty` when there are none yet, else as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Arc<Outcomes>, TryRecvError> {
        let has_stopped = self.has_engine_stopped();
        let heard = match self.left {
            Some(0) => Err(TryRecvError::Closed),
            _ => self.outcomes.try_recv(),
        };
        let read = match heard {
            Ok(_) => 1,
            Err(TryRecvError::Lagged(lost)) => lost,
            Err(TryRecvError::Empty) if has_stopped => return Err(TryRecvError::Closed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => 0,
        };
        self.left = self.left.map(|left| left.saturating_sub(read));
        heard
    }

    fn has_engine_stopped(&mut self) -> bool {
        if self.left.is_none() && self.engine.has_changed().is_err() {
            self.left = Some(self.outcomes.len() as u64);
        }
        self.left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ItemId;
    use crate::seams::{Availability, outcome_channel};

    fn told(available: u32) -> Arc<Outcomes> {
        let item = ItemId::new("a").expect("a name");
        Arc::new(Outcomes {
            orders: Vec::new(),
            availability: vec![Availability { item, available }],
        })
    }

    #[tokio::test]
    async fn it_ends_with_what_was_told_before_the_engine_stopped() {
        let (bus, (tasks, engine)) = (outcome_channel(2), watch::channel(()));
        let mut heard = Subscription::new(bus.subscribe(), engine.clone());
        let mut behind = Subscription::new(bus.subscribe(), engine);
        assert_eq!(heard.try_recv(), Err(TryRecvError::Empty));
        bus.send(told(3)).expect("they listen");
        assert_eq!(heard.recv().await, Ok(told(3)));
        bus.send(told(2)).expect("they listen");
        bus.send(told(1)).expect("they listen");
        drop(tasks);
        assert_eq!(heard.recv().await, Ok(told(2)));
        assert_eq!(behind.try_recv(), Err(TryRecvError::Lagged(1)));
        for receiver in [&mut heard, &mut behind] {
            while let Ok(outcomes) = receiver.try_recv() {
                assert_ne!(outcomes, told(3));
            }
        }
        bus.send(told(0)).expect("they listen");
        assert_eq!(heard.recv().await, Err(RecvError::Closed));
        assert_eq!(behind.try_recv(), Err(TryRecvError::Closed));
    }
}
