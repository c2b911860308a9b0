//! A fake backend for the tests of the layers: it answers as it is told and
//! remembers its calls.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::Operation;
use crate::backends::Backend;
use crate::protocol::ConsumerName;
use crate::protocol::{
    Claim, Commit, CommitOutcome, FencingToken, Item, ItemId, ItemSpec, Message, Order, OrderId,
    Stock, Timestamp,
};
use crate::seams::{ArchiveId, ChangeFeed, ChangePage, Consumer, Deletion, Digest};
use crate::seams::{
    ConfirmOutcome, Cursor, DeadLetter, Delivery, DueHolds, InventoryStore, Lease, LockManager,
    Member, OrderFilter, OrderPage, OrderQueue, OutcomeBus, OutcomeReceiver, OutcomeSender,
    Outcomes, Payment, PutOutcome, QueueDepth, Recalled, Receipt, SeamError, Sight,
    outcome_channel,
};
use crate::seams::{Owed, RefundOutcome, Repayment};
use crate::seams::{Removals, Sealing, Tombstone};

/// The course of one call.
pub(super) enum Step {
    Fail(SeamError),
    After(Duration),
    Never,
}

/// A backend whose calls take the steps it was given, and then succeed.
pub(super) struct Fake {
    steps: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Operation>>,
    committed: Mutex<Vec<u64>>,
    outcomes: OutcomeSender,
}

pub(super) fn backend(fake: &Arc<Fake>) -> Backend {
    let (queue, locks, store, bus) = (fake.clone(), fake.clone(), fake.clone(), fake.clone());
    Backend { queue, locks, store, bus, partitions: Vec::new() }
}

/// A commit that can be told from others.
pub(super) fn commit(token: u64) -> Commit {
    let item = ItemId::new("item").expect("a name");
    Commit { claims: vec![(item, FencingToken(token))], writes: vec![] }
}

pub(super) fn deliveries(n: usize) -> Vec<Delivery> {
    let id = OrderId::from_uuid(uuid::Uuid::nil());
    let message = Message::Expire(id);
    (0..n)
        .map(|i| Delivery { message: message.clone(), receipt: Receipt(i.to_string()), attempt: 1 })
        .collect()
}

impl Fake {
    pub(super) fn answering(steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            steps: Mutex::new(steps.into_iter().collect()),
            calls: Mutex::default(),
            committed: Mutex::default(),
            outcomes: outcome_channel(8),
        })
    }

    pub(super) fn failing(errors: impl IntoIterator<Item = SeamError>) -> Arc<Self> {
        Self::answering(errors.into_iter().map(Step::Fail))
    }

    /// The calls it got, in order.
    pub(super) fn calls(&self) -> Vec<Operation> {
        self.calls.lock().expect("no panic").clone()
    }

    /// The commits that reached it, by token, in order.
    pub(super) fn committed(&self) -> Vec<u64> {
        self.committed.lock().expect("no panic").clone()
    }

    async fn step(&self, operation: Operation) -> Result<(), SeamError> {
        self.calls.lock().expect("no panic").push(operation);
        let step = self.steps.lock().expect("no panic").pop_front();
        match step {
            None => Ok(()),
            Some(Step::Fail(error)) => Err(error),
            Some(Step::After(time)) => {
                sleep(time).await;
                Ok(())
            }
            Some(Step::Never) => pending().await,
        }
    }
}

#[async_trait]
impl OrderQueue for Fake {
    async fn send(&self, _: &[Message]) -> Result<(), SeamError> {
        self.step(Operation::Send).await
    }
    async fn receive(&self, max: usize, _: Duration) -> Result<Vec<Delivery>, SeamError> {
        self.step(Operation::Receive).await.map(|()| deliveries(max.min(8)))
    }
    async fn ack(&self, _: &[Receipt]) -> Result<(), SeamError> {
        self.step(Operation::Ack).await
    }
    async fn retry(&self, _: &[Receipt], _: Duration) -> Result<(), SeamError> {
        self.step(Operation::Retry).await
    }
    async fn extend(&self, _: &[Receipt]) -> Result<(), SeamError> {
        self.step(Operation::Extend).await
    }
    async fn bury(&self, _: &[(Receipt, String)]) -> Result<(), SeamError> {
        self.step(Operation::Bury).await
    }
    async fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, SeamError> {
        self.step(Operation::DeadLetters).await.map(|()| vec![])
    }
    async fn redrive(&self, _: usize) -> Result<usize, SeamError> {
        self.step(Operation::Redrive).await.map(|()| 0)
    }
    async fn find(&self, _: OrderId) -> Result<Option<Order>, SeamError> {
        self.step(Operation::Find).await.map(|()| None)
    }
    async fn recall(&self, _: OrderId) -> Result<Recalled, SeamError> {
        self.step(Operation::Recall).await.map(|()| Recalled::Unknown)
    }
    async fn announce(&self, _: OrderId) -> Result<Option<Order>, SeamError> {
        self.step(Operation::Announce).await.map(|()| None)
    }
    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        self.step(Operation::Depth).await.map(|()| QueueDepth::default())
    }
}

#[async_trait]
impl LockManager for Fake {
    async fn acquire(
        &self,
        _: &[ItemId],
        _: Duration,
        _: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        self.step(Operation::Acquire).await.map(|()| None)
    }
    async fn acquire_free(&self, _: &[ItemId], _: Duration) -> Result<Option<Lease>, SeamError> {
        self.step(Operation::AcquireFree).await.map(|()| None)
    }

    async fn join(&self, _: &str, _: Duration) -> Result<Vec<Member>, SeamError> {
        self.step(Operation::Join).await.map(|()| Vec::new())
    }

    async fn leave(&self, _: &str) -> Result<(), SeamError> {
        self.step(Operation::Leave).await
    }
    async fn renew(&self, _: &Lease, _: Duration) -> Result<bool, SeamError> {
        self.step(Operation::Renew).await.map(|()| true)
    }
    async fn release(&self, _: &Lease) -> Result<(), SeamError> {
        self.step(Operation::Release).await
    }
}

#[async_trait]
impl InventoryStore for Fake {
    async fn put_item(&self, _: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.step(Operation::PutItem).await.map(|()| PutOutcome::Created)
    }
    async fn claim(&self, _: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        self.step(Operation::Claim).await.map(|()| vec![])
    }
    /// A commit made twice is a conflict, as in a real store.
    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        self.step(Operation::Commit).await?;
        let mut committed = self.committed.lock().expect("no panic");
        let mut outcomes = vec![];
        for commit in commits {
            let token = commit.claims[0].1.0;
            outcomes.push(if committed.contains(&token) {
                CommitOutcome::Conflict { moved: vec![], over_cap: vec![], barred: vec![] }
            } else {
                CommitOutcome::Applied
            });
            committed.push(token);
        }
        Ok(outcomes)
    }
    async fn confirm(&self, _: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        self.step(Operation::Confirm).await.map(|()| vec![])
    }
    async fn refund(&self, _: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        self.step(Operation::Refund).await.map(|()| vec![])
    }
    async fn owed(&self) -> Result<Owed, SeamError> {
        self.step(Operation::Owed).await.map(|()| Owed::default())
    }
    async fn orders(&self, _: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.step(Operation::Orders).await.map(|()| vec![])
    }
    async fn reserve(&self, _: &Order) -> Result<Option<Order>, SeamError> {
        self.step(Operation::Reserve).await.map(|()| None)
    }
    async fn note_accepted(&self, _: &Order) -> Result<(), SeamError> {
        self.step(Operation::NoteAccepted).await
    }
    async fn known(&self, _: &[OrderId], _: Sight) -> Result<Vec<Option<Order>>, SeamError> {
        self.step(Operation::Known).await.map(|()| vec![])
    }
    async fn list_orders(
        &self,
        _: &OrderFilter,
        _: Option<&Cursor>,
        _: usize,
    ) -> Result<OrderPage, SeamError> {
        self.step(Operation::ListOrders).await.map(|()| OrderPage::default())
    }
    async fn due_holds(&self, _: Timestamp, _: usize) -> Result<DueHolds, SeamError> {
        self.step(Operation::DueHolds).await.map(|()| DueHolds::default())
    }
    async fn items(&self, _: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        self.step(Operation::Items).await.map(|()| vec![])
    }
    async fn availability(&self, _: &[ItemId]) -> Result<Vec<Option<u32>>, SeamError> {
        self.step(Operation::Levels).await.map(|()| vec![])
    }
    async fn list_items(&self, _: Option<&ItemId>, _: usize) -> Result<Vec<Item>, SeamError> {
        self.step(Operation::ListItems).await.map(|()| vec![])
    }
    async fn stock(&self, _: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        self.step(Operation::Stock).await.map(|()| None)
    }
    fn removals(&self) -> Option<&dyn Removals> {
        Some(self)
    }
}

#[async_trait]
impl Removals for Fake {
    async fn seal(&self, _: &[ItemId], _: ArchiveId, _: Timestamp) -> Result<Sealing, SeamError> {
        self.step(Operation::Seal).await.map(|()| Sealing::Archived(vec![]))
    }
    async fn unseal(&self, _: ArchiveId) -> Result<(), SeamError> {
        self.step(Operation::Unseal).await
    }
    async fn file(&self, _: ArchiveId, _: Digest) -> Result<(), SeamError> {
        self.step(Operation::File).await
    }
    async fn take_out(&self, _: ArchiveId, _: &[Order]) -> Result<(), SeamError> {
        self.step(Operation::TakeOut).await
    }
    async fn bury(&self, _: ArchiveId, _: u64) -> Result<Vec<Tombstone>, SeamError> {
        self.step(Operation::BuryItems).await.map(|()| vec![])
    }
    async fn delete(&self, _: &ItemId) -> Result<Deletion, SeamError> {
        self.step(Operation::Delete).await.map(|()| Deletion::Deleted)
    }
    async fn tombstones(&self, _: Option<&ItemId>, _: usize) -> Result<Vec<Tombstone>, SeamError> {
        self.step(Operation::Tombstones).await.map(|()| vec![])
    }
    async fn buried(&self) -> Result<(usize, Option<Tombstone>), SeamError> {
        self.step(Operation::Buried).await.map(|()| (0, None))
    }
}

#[async_trait]
impl OutcomeBus for Fake {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        self.step(Operation::Publish).await?;
        // Sending fails without a subscriber, which is fine.
        drop(self.outcomes.send(outcomes));
        Ok(())
    }
    fn subscribe(&self) -> OutcomeReceiver {
        self.outcomes.subscribe()
    }
}

#[async_trait]
impl ChangeFeed for Fake {
    async fn changes(
        &self,
        _: Option<&Cursor>,
        _: usize,
        _: Duration,
    ) -> Result<ChangePage, SeamError> {
        let page = || ChangePage::new(vec![], Cursor(String::new()));
        self.step(Operation::ReadChanges).await.map(|()| page())
    }
    async fn newest(&self) -> Result<Cursor, SeamError> {
        self.step(Operation::Newest).await.map(|()| Cursor(String::new()))
    }
    async fn keep_cursor(&self, _: &Consumer) -> Result<(), SeamError> {
        self.step(Operation::KeepCursor).await
    }
    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError> {
        self.step(Operation::Consumers).await.map(|()| vec![])
    }
    async fn forget_consumer(&self, _: &ConsumerName) -> Result<bool, SeamError> {
        self.step(Operation::ForgetConsumer).await.map(|()| false)
    }
}
