//! The outcome bus within the process.

use std::sync::Arc;

use async_trait::async_trait;

use crate::seams::{
    OutcomeBus, OutcomeReceiver, OutcomeSender, Outcomes, SeamError, outcome_channel,
};

/// Commits a subscriber may fall behind before it loses the oldest.
const OUTCOMES_KEPT: usize = 1024;

/// An [`OutcomeBus`] that reaches this process only.
#[derive(Debug)]
pub struct MemoryBus {
    sender: OutcomeSender,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self { sender: outcome_channel(OUTCOMES_KEPT) }
    }
}

#[async_trait]
impl OutcomeBus for MemoryBus {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        // An error says that nobody listens, which is fine.
        let _ = self.sender.send(outcomes);
        Ok(())
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.sender.subscribe()
    }
}
