//! The suites of the queue, the locks and the bus against the plainest that
//! can pass them, on tokio's paused clock and on the machine's.
#![cfg(feature = "conformance")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::conformance::{self, Counts, QueueTerms};
use flux_core::protocol::Message;
use flux_core::seams::{
    DeadLetter, Delivery, Lease, LockManager, Member, OrderQueue, OutcomeBus, OutcomeReceiver,
    OutcomeSender, Outcomes, QueueDepth, Receipt, SeamError, outcome_channel,
};
use flux_core::{ItemId, Order, OrderId, Timestamp};
use tokio::time::{Instant, sleep};

const BOUND: usize = 500;
const TICK: Duration = Duration::from_millis(1);

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().expect("no call panics")
}

/// A message that is not done: delivered again from `visible` on.
struct Waiting {
    message: Message,
    attempt: u32,
    visible: Instant,
    receipt: Option<Receipt>,
}

struct PlainQueue {
    visibility: Duration,
    state: Mutex<(Vec<Waiting>, Vec<DeadLetter>, u64)>,
}

impl PlainQueue {
    fn new(visibility: Duration) -> Self {
        Self { visibility, state: Mutex::default() }
    }

    fn settle(&self, receipts: &[Receipt], mut settle: impl FnMut(Waiting) -> Option<Waiting>) {
        let waiting = &mut lock(&self.state).0;
        for receipt in receipts {
            let found = waiting.iter().position(|w| w.receipt.as_ref() == Some(receipt));
            if let Some(index) = found {
                let left = settle(waiting.remove(index));
                if let Some(left) = left {
                    waiting.insert(index, left);
                }
            }
        }
    }

    fn take(&self, max: usize) -> Vec<Delivery> {
        let (waiting, _, receipts) = &mut *lock(&self.state);
        let now = Instant::now();
        let visible = waiting.iter_mut().filter(|w| w.visible <= now).take(max);
        let deliver = |waiting: &mut Waiting| {
            *receipts += 1;
            waiting.attempt += 1;
            waiting.visible = now + self.visibility;
            let receipt = Receipt(receipts.to_string());
            waiting.receipt = Some(receipt.clone());
            Delivery::new(waiting.message.clone(), receipt, waiting.attempt)
        };
        visible.map(deliver).collect()
    }
}

#[async_trait]
impl OrderQueue for PlainQueue {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        let waiting = &mut lock(&self.state).0;
        if waiting.len() + messages.len() > BOUND {
            let retry_after = Duration::from_secs(1);
            return Err(SeamError::Overloaded { service: "plain queue", retry_after });
        }
        waiting.extend(messages.iter().cloned().map(|message| Waiting {
            message,
            attempt: 0,
            visible: Instant::now(),
            receipt: None,
        }));
        Ok(())
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        let end = Instant::now() + wait;
        loop {
            let deliveries = self.take(max);
            if !deliveries.is_empty() || Instant::now() >= end {
                return Ok(deliveries);
            }
            sleep(TICK).await;
        }
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.settle(receipts, |_| None);
        Ok(())
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        let visible = Instant::now() + delay;
        self.settle(receipts, |waiting| Some(Waiting { visible, receipt: None, ..waiting }));
        Ok(())
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        let visible = Instant::now() + self.visibility;
        self.settle(receipts, |waiting| Some(Waiting { visible, ..waiting }));
        Ok(())
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        for (receipt, reason) in receipts {
            let (mut message, buried_at) = (None, Timestamp::default());
            self.settle(std::slice::from_ref(receipt), |waiting| {
                message = Some(waiting.message);
                None
            });
            let letter = message.map(|message| DeadLetter::new(message, reason, buried_at));
            lock(&self.state).1.extend(letter);
        }
        Ok(())
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        Ok(lock(&self.state).1.iter().take(max).cloned().collect())
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        let letters: Vec<_> = {
            let dead = &mut lock(&self.state).1;
            let count = max.min(dead.len());
            dead.drain(..count).map(|letter| letter.message).collect()
        };
        self.send(&letters).await?;
        Ok(letters.len())
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        let waiting = &lock(&self.state).0;
        Ok(waiting.iter().find_map(|waiting| match &waiting.message {
            Message::Place(order) if order.id == id => Some(order.clone()),
            _ => None,
        }))
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        let (waiting, dead, _) = &*lock(&self.state);
        let now = Instant::now();
        let in_flight =
            waiting.iter().filter(|w| w.receipt.is_some() && w.visible > now).count() as u64;
        let waiting = waiting.len() as u64 - in_flight;
        let depth = QueueDepth::builder().waiting(waiting).in_flight(in_flight);
        Ok(depth.dead(dead.len() as u64).build())
    }
}

/// Each key's owner and the end of the lease.
type Held = HashMap<ItemId, (String, Instant)>;

#[derive(Default)]
struct PlainLocks {
    state: Mutex<(Held, u64)>,
    members: Mutex<HashMap<String, Instant>>,
}

impl PlainLocks {
    fn try_acquire(&self, keys: &[ItemId], ttl: Duration) -> Option<Lease> {
        let (held, owners) = &mut *lock(&self.state);
        let now = Instant::now();
        if keys.iter().any(|key| held.get(key).is_some_and(|(_, end)| *end > now)) {
            return None;
        }
        *owners += 1;
        let owner = owners.to_string();
        held.extend(keys.iter().map(|key| (key.clone(), (owner.clone(), now + ttl))));
        Some(Lease::new(keys.to_vec(), owner))
    }
}

#[async_trait]
impl LockManager for PlainLocks {
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let end = Instant::now() + wait;
        loop {
            let lease = self.try_acquire(keys, ttl);
            if lease.is_some() || Instant::now() >= end {
                return Ok(lease);
            }
            sleep(TICK).await;
        }
    }

    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        let (now, mut members) = (Instant::now(), lock(&self.members));
        members.insert(member.to_owned(), now + ttl);
        members.retain(|_, end| *end > now);
        Ok(members.iter().map(|(name, end)| Member::new(name, *end - now)).collect())
    }

    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        lock(&self.members).remove(member);
        Ok(())
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError> {
        let held = &mut lock(&self.state).0;
        let (now, mut ours) = (Instant::now(), true);
        for key in &lease.keys {
            match held.get_mut(key) {
                Some((owner, end)) if *owner == lease.owner && *end > now => *end = now + ttl,
                _ => ours = false,
            }
        }
        Ok(ours)
    }

    async fn release(&self, lease: &Lease) -> Result<(), SeamError> {
        let held = &mut lock(&self.state).0;
        held.retain(|key, (owner, _)| !(lease.keys.contains(key) && *owner == lease.owner));
        Ok(())
    }
}

struct PlainBus(OutcomeSender);

#[async_trait]
impl OutcomeBus for PlainBus {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        // An error only says that nobody listens.
        let _ = self.0.send(outcomes);
        Ok(())
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.0.subscribe()
    }
}

async fn queue(visibility: Duration) -> conformance::Report {
    let terms = QueueTerms { visibility, bound: Some(BOUND), counts: Counts::Exact };
    conformance::queue(terms, || async { Arc::new(PlainQueue::new(visibility)) }).await
}

#[tokio::test(start_paused = true)]
async fn the_queue_on_a_paused_clock() {
    queue(Duration::from_secs(30)).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_on_the_machines_clock() {
    queue(Duration::from_millis(150)).await.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn the_locks_on_a_paused_clock_as_a_trait_object() {
    let fresh = || async { Arc::new(PlainLocks::default()) as Arc<dyn LockManager> };
    conformance::locks(Duration::from_secs(10), fresh).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_on_the_machines_clock() {
    let fresh = || async { Arc::new(PlainLocks::default()) };
    conformance::locks(Duration::from_millis(150), fresh).await.assert_clean();
}

#[tokio::test]
async fn the_bus() {
    conformance::bus(|| async { Arc::new(PlainBus(outcome_channel(64))) }).await.assert_clean();
}
