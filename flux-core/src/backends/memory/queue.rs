//! The queue in memory: durable for as long as the process lives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{DEPTH_MAX, VISIBILITY};
use crate::backends::state::queue::{QueueLimits, QueueState, REDRIVEN_AT_ONCE, Waiting};
use crate::clock::{Clock, SystemClock};
use crate::protocol::{Message, Order, OrderId};
use crate::seams::{DeadLetter, Delivery, OrderQueue, QueueDepth, Receipt, SeamError};

/// An [`OrderQueue`] in memory. Delays and time-outs run on tokio's clock.
///
/// It keeps 100,000 dead letters; [`bury`](OrderQueue::bury) answers
/// [`SeamError::Overloaded`] to more, and the deliveries come again.
#[derive(Debug)]
pub struct MemoryQueue {
    waiting: Waiting<QueueState>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        let limits = QueueLimits { visibility: VISIBILITY, depth_max: DEPTH_MAX };
        Self::with_limits(limits, Arc::new(SystemClock))
    }
}

impl MemoryQueue {
    pub(crate) fn with_limits(limits: QueueLimits, clock: Arc<dyn Clock>) -> Self {
        Self { waiting: Waiting::new(QueueState::new(limits, 0)), clock }
    }
}

#[async_trait]
impl OrderQueue for MemoryQueue {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        {
            let mut queue = self.waiting.lock();
            queue.room_for(messages.len())?;
            queue.send(messages, self.clock.now());
        }
        self.waiting.wake_one();
        Ok(())
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        Ok(self.waiting.receive(max, wait).await)
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.waiting.lock().ack(receipts);
        Ok(())
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        self.waiting.lock().retry(receipts, delay, Instant::now());
        self.waiting.wake_one();
        Ok(())
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.waiting.lock().extend(receipts, Instant::now());
        Ok(())
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        let mut queue = self.waiting.lock();
        queue.room_for_dead(receipts.len())?;
        queue.bury(receipts, self.clock.now());
        Ok(())
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        let letters = self.waiting.lock().dead_letters(max);
        Ok(letters.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        let max = max.min(self.waiting.lock().dead());
        let mut count = 0;
        while count < max {
            let mut queue = self.waiting.lock();
            let (seqs, messages) = queue.redrivable(REDRIVEN_AT_ONCE.min(max - count));
            if seqs.is_empty() {
                break;
            }
            queue.forget_dead(seqs.len());
            queue.send(&messages, self.clock.now());
            drop(queue);
            count += seqs.len();
            self.waiting.wake_one();
        }
        Ok(count)
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        Ok(self.waiting.lock().find(id).cloned())
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        Ok(self.waiting.lock().depth(self.clock.now()))
    }
}
