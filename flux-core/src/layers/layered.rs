//! One wrapper that is all four seams: each method goes through the layer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Call, Layer, Operation};
use crate::clock::ClockReference;
use crate::protocol::{
    Claim, Commit, CommitOutcome, ConsumerName, Item, ItemId, ItemSpec, Message, Order, OrderId,
    Stock, Timestamp,
};
use crate::seams::{
    ArchiveId, Begun, ChangeFeed, ChangePage, CommitMax, ConfirmOutcome, Consumer, Cursor,
    DeadLetter, Deletion, Delivery, Digest, DueHolds, InventoryStore, KeptClock, Lease,
    LockManager, Member, OrderFilter, OrderPage, OrderQueue, OutcomeBus, OutcomeReceiver, Outcomes,
    Owed, Payment, PutOutcome, QueueDepth, Recalled, Receipt, RefundOutcome, Removals, Repayment,
    Sealing, SeamError, ServiceTime, Sight, Tombstone, WantedReceiver,
};

/// The behaviour that [`Layered`] puts around a seam. Every [`Layer`] goes around
/// each call; only [`Faults`](super::Faults) also changes what a call carries.
pub trait Hooks: Send + Sync + 'static {
    /// See [`Layer::around`].
    fn around<T, F, Fut>(
        &self,
        call: Call,
        run: F,
    ) -> impl Future<Output = Result<T, SeamError>> + Send
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send;

    /// Rearranges the deliveries of a `receive` of up to `max`.
    fn received(&self, _deliveries: &mut Vec<Delivery>, _max: usize) {}

    /// Blurs the outcomes of a `commit`.
    fn committed(&self, _outcomes: &mut [CommitOutcome]) {}

    /// Keeps a `commit` back, and answers it with an error; or lets it go on,
    /// behind the earlier commits that it returns.
    fn detain(&self, _commits: &[Commit]) -> Result<Vec<Commit>, SeamError> {
        Ok(Vec::new())
    }

    /// Decides whether the outcomes that are being published get lost.
    fn loses_outcomes(&self) -> bool {
        false
    }
}

impl<L: Layer> Hooks for L {
    fn around<T, F, Fut>(
        &self,
        call: Call,
        run: F,
    ) -> impl Future<Output = Result<T, SeamError>> + Send
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        Layer::around(self, call, run)
    }
}

/// A seam, or several in one, with a [`Layer`] or [`Faults`](super::Faults)
/// around each call.
#[derive(Debug)]
pub struct Layered<S: ?Sized, L> {
    inner: Arc<S>,
    layer: L,
}

impl<S: ?Sized, L> Layered<S, L> {
    /// Puts `layer` around `inner`, a concrete type or a trait object.
    #[must_use]
    pub fn new(inner: Arc<S>, layer: L) -> Self {
        Self { inner, layer }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: OrderQueue + ?Sized, L: Hooks> OrderQueue for Layered<S, L> {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        self.layer.around(Operation::Send.into(), || self.inner.send(messages)).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        let call = Call::waiting(Operation::Receive, wait);
        let mut deliveries = self.layer.around(call, || self.inner.receive(max, wait)).await?;
        self.layer.received(&mut deliveries, max);
        Ok(deliveries)
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.layer.around(Operation::Ack.into(), || self.inner.ack(receipts)).await
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        self.layer.around(Operation::Retry.into(), || self.inner.retry(receipts, delay)).await
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.layer.around(Operation::Extend.into(), || self.inner.extend(receipts)).await
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        self.layer.around(Operation::Bury.into(), || self.inner.bury(receipts)).await
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        self.layer.around(Operation::DeadLetters.into(), || self.inner.dead_letters(max)).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        self.layer.around(Operation::Redrive.into(), || self.inner.redrive(max)).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        self.layer.around(Operation::Find.into(), || self.inner.find(id)).await
    }

    async fn recall(&self, id: OrderId) -> Result<Recalled, SeamError> {
        self.layer.around(Operation::Recall.into(), || self.inner.recall(id)).await
    }

    async fn announce(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        self.layer.around(Operation::Announce.into(), || self.inner.announce(id)).await
    }

    fn finds_all(&self) -> bool {
        self.inner.finds_all()
    }

    fn tells_of(&self, order: OrderId) -> bool {
        self.inner.tells_of(order)
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        self.layer.around(Operation::Depth.into(), || self.inner.depth()).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: LockManager + ?Sized, L: Hooks> LockManager for Layered<S, L> {
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let call = Call::waiting(Operation::Acquire, wait);
        self.layer.around(call, || self.inner.acquire(keys, ttl, wait)).await
    }

    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let call = Operation::AcquireFree.into();
        self.layer.around(call, || self.inner.acquire_free(keys, ttl)).await
    }

    fn wanted(&self) -> WantedReceiver {
        self.inner.wanted()
    }

    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        self.layer.around(Operation::Join.into(), || self.inner.join(member, ttl)).await
    }

    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        self.layer.around(Operation::Leave.into(), || self.inner.leave(member)).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError> {
        self.layer.around(Operation::Renew.into(), || self.inner.renew(lease, ttl)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), SeamError> {
        self.layer.around(Operation::Release.into(), || self.inner.release(lease)).await
    }
}

impl<S: InventoryStore + ?Sized, L: Hooks> Layered<S, L> {
    async fn let_go_of_late(&self, commits: &[Commit]) -> Result<(), SeamError> {
        let late = self.layer.detain(commits)?;
        if !late.is_empty() {
            // Their callers were told that the outcome is unknown.
            drop(self.inner.commit(&late).await);
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: InventoryStore + ?Sized, L: Hooks + Clone> InventoryStore for Layered<S, L> {
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        self.layer.around(Operation::PutItem.into(), || self.inner.put_item(spec)).await
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        self.layer.around(Operation::Claim.into(), || self.inner.claim(items)).await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        self.let_go_of_late(commits).await?;
        let call = Operation::Commit.into();
        let mut outcomes = self.layer.around(call, || self.inner.commit(commits)).await?;
        self.layer.committed(&mut outcomes);
        Ok(outcomes)
    }

    async fn begin_commit(&self, commits: &[Commit]) -> Result<Begun, SeamError> {
        self.let_go_of_late(commits).await?;
        let call = Operation::Commit.into();
        let mut begun = self.layer.around(call, || self.inner.begin_commit(commits)).await?;
        self.layer.committed(&mut begun.outcomes);
        Ok(begun)
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        self.layer.around(Operation::Confirm.into(), || self.inner.confirm(payments)).await
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        self.layer.around(Operation::Refund.into(), || self.inner.refund(repayments)).await
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        self.layer.around(Operation::Owed.into(), || self.inner.owed()).await
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        self.layer.around(Operation::Orders.into(), || self.inner.orders(ids)).await
    }

    async fn reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        self.layer.around(Operation::Reserve.into(), || self.inner.reserve(order)).await
    }

    async fn note_accepted(&self, order: &Order) -> Result<(), SeamError> {
        self.layer.around(Operation::NoteAccepted.into(), || self.inner.note_accepted(order)).await
    }

    async fn known(&self, ids: &[OrderId], sight: Sight) -> Result<Vec<Option<Order>>, SeamError> {
        self.layer.around(Operation::Known.into(), || self.inner.known(ids, sight)).await
    }

    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        let call = Operation::ListOrders.into();
        self.layer.around(call, || self.inner.list_orders(filter, after, limit)).await
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        self.layer.around(Operation::DueHolds.into(), || self.inner.due_holds(now, limit)).await
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        self.layer.around(Operation::Items.into(), || self.inner.items(ids)).await
    }

    async fn availability(&self, ids: &[ItemId]) -> Result<Vec<Option<u32>>, SeamError> {
        self.layer.around(Operation::Levels.into(), || self.inner.availability(ids)).await
    }

    fn commit_max(&self) -> CommitMax {
        self.inner.commit_max()
    }

    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError> {
        self.layer.around(Operation::ListItems.into(), || self.inner.list_items(after, limit)).await
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        self.layer.around(Operation::Stock.into(), || self.inner.stock(item)).await
    }

    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        let feed = self.inner.feed()?;
        Some(Arc::new(Layered::new(feed, self.layer.clone())))
    }

    fn removals(&self) -> Option<&dyn Removals> {
        self.inner.removals().map(|_| self as &dyn Removals)
    }

    fn check(&self) -> Result<(), SeamError> {
        self.inner.check()
    }

    async fn reopen(&self) -> Result<(), SeamError> {
        self.inner.reopen().await
    }

    fn kept_clock(&self) -> KeptClock {
        self.inner.kept_clock()
    }

    fn keep_clock(&self, reference: ClockReference) {
        self.inner.keep_clock(reference);
    }

    fn service_time(&self) -> Option<ServiceTime> {
        self.inner.service_time()
    }
}

impl<S: InventoryStore + ?Sized, L: Hooks> Layered<S, L> {
    fn inner_removals(&self) -> Result<&dyn Removals, SeamError> {
        let nothing_leaves = || SeamError::broken("store", "nothing leaves this store");
        self.inner.removals().ok_or_else(nothing_leaves)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: InventoryStore + ?Sized, L: Hooks> Removals for Layered<S, L> {
    async fn seal(
        &self,
        items: &[ItemId],
        archive: ArchiveId,
        now: Timestamp,
    ) -> Result<Sealing, SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::Seal.into(), || inner.seal(items, archive, now)).await
    }

    async fn unseal(&self, archive: ArchiveId) -> Result<(), SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::Unseal.into(), || inner.unseal(archive)).await
    }

    async fn file(&self, archive: ArchiveId, digest: Digest) -> Result<(), SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::File.into(), || inner.file(archive, digest)).await
    }

    async fn take_out(&self, archive: ArchiveId, orders: &[Order]) -> Result<(), SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::TakeOut.into(), || inner.take_out(archive, orders)).await
    }

    async fn bury(&self, archive: ArchiveId, orders: u64) -> Result<Vec<Tombstone>, SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::BuryItems.into(), || inner.bury(archive, orders)).await
    }

    async fn delete(&self, item: &ItemId) -> Result<Deletion, SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::Delete.into(), || inner.delete(item)).await
    }

    async fn tombstones(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::Tombstones.into(), || inner.tombstones(after, limit)).await
    }

    async fn buried(&self) -> Result<(usize, Option<Tombstone>), SeamError> {
        let inner = self.inner_removals()?;
        self.layer.around(Operation::Buried.into(), || inner.buried()).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: OutcomeBus + ?Sized, L: Hooks> OutcomeBus for Layered<S, L> {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        if self.layer.loses_outcomes() {
            return Ok(());
        }
        let call = Operation::Publish.into();
        self.layer.around(call, || self.inner.publish(Arc::clone(&outcomes))).await
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.inner.subscribe()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ChangeFeed + ?Sized, L: Hooks> ChangeFeed for Layered<S, L> {
    async fn changes(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangePage, SeamError> {
        let call = Call::waiting(Operation::ReadChanges, wait);
        self.layer.around(call, || self.inner.changes(after, limit, wait)).await
    }

    async fn newest(&self) -> Result<Cursor, SeamError> {
        self.layer.around(Operation::Newest.into(), || self.inner.newest()).await
    }

    async fn keep_cursor(&self, consumer: &Consumer) -> Result<(), SeamError> {
        self.layer.around(Operation::KeepCursor.into(), || self.inner.keep_cursor(consumer)).await
    }

    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError> {
        self.layer.around(Operation::Consumers.into(), || self.inner.consumers()).await
    }

    async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, SeamError> {
        let call = Operation::ForgetConsumer.into();
        self.layer.around(call, || self.inner.forget_consumer(name)).await
    }

    async fn cursor_of(&self, name: &ConsumerName) -> Result<Option<Cursor>, SeamError> {
        self.layer.around(Operation::Consumers.into(), || self.inner.cursor_of(name)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::layers::testing::{Fake, backend};
    use crate::layers::{Trace, YesLocks};
    use crate::protocol::{Line, Lines};

    #[derive(Clone, Default)]
    struct Spy(Arc<Mutex<Vec<Call>>>);

    impl Layer for Spy {
        async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
        where
            T: Send,
            F: Fn() -> Fut + Send + Sync,
            Fut: Future<Output = Result<T, SeamError>> + Send,
        {
            self.0.lock().expect("no panic").push(call);
            run().await
        }
    }

    #[tokio::test]
    async fn every_method_goes_through_the_layer_once_under_its_own_name() {
        const SECOND: Duration = Duration::from_secs(1);
        let fake = Fake::answering([]);
        let spy = Spy::default();
        let layered = backend(&fake).layered(spy.clone());
        let id = OrderId::from_uuid(uuid::Uuid::nil());
        let spec = ItemSpec::pool("item", 1).expect("a pool");
        let lines = Lines::new(vec![Line::units("item", 1).expect("a line")]).expect("lines");
        let buyer = "ann".parse().expect("a name");
        let order = Order::queued(id, buyer, lines, Timestamp::default());
        let lease = Lease { keys: vec![], owner: String::new() };
        let mut outcomes = layered.bus.subscribe();
        let name = || ConsumerName::new("me").expect("a name");

        let all = async {
            let queue = &layered.queue;
            queue.send(&[]).await?;
            queue.receive(1, SECOND).await?;
            queue.ack(&[]).await?;
            queue.retry(&[], SECOND).await?;
            queue.extend(&[]).await?;
            queue.bury(&[]).await?;
            queue.dead_letters(1).await?;
            queue.redrive(1).await?;
            queue.find(id).await?;
            queue.depth().await?;
            layered.locks.acquire(&[], SECOND, SECOND).await?;
            layered.locks.acquire_free(&[], SECOND).await?;
            layered.locks.join("me", SECOND).await?;
            layered.locks.leave("me").await?;
            layered.locks.renew(&lease, SECOND).await?;
            layered.locks.release(&lease).await?;
            let store = &layered.store;
            store.put_item(&spec).await?;
            store.claim(&[]).await?;
            store.commit(&[]).await?;
            store.confirm(&[]).await?;
            store.orders(&[]).await?;
            store.list_orders(&OrderFilter::default(), None, 1).await?;
            store.due_holds(std::time::SystemTime::UNIX_EPOCH.into(), 1).await?;
            store.items(&[]).await?;
            store.availability(&[]).await?;
            store.list_items(None, 1).await?;
            store.stock(&spec.id).await?;
            layered.bus.publish(Arc::default()).await?;
            let feed = Layered::new(fake.clone(), spy.clone());
            let (cursor, name) = (feed.changes(None, 1, SECOND).await?.next, name());
            feed.newest().await?;
            feed.keep_cursor(&Consumer::new(name.clone(), cursor)).await?;
            feed.cursor_of(&name).await?;
            feed.forget_consumer(&name).await?;
            queue.recall(id).await?;
            queue.announce(id).await?;
            store.reserve(&order).await?;
            store.note_accepted(&order).await?;
            store.known(&[], Sight::Now).await?;
            store.refund(&[]).await?;
            store.owed().await?;
            let (removals, archive) = (store.removals().expect("it has some"), ArchiveId::new());
            removals.seal(&[], archive, Timestamp::default()).await?;
            removals.unseal(archive).await?;
            removals.file(archive, [0; 32]).await?;
            removals.take_out(archive, &[]).await?;
            removals.bury(archive, 0).await?;
            removals.delete(&spec.id).await?;
            removals.tombstones(None, 1).await?;
            removals.buried().await
        };
        all.await.expect("the fake answers well");

        assert_eq!(fake.calls(), Operation::ALL);
        let seen = spy.0.lock().expect("no panic").clone();
        assert_eq!(seen.iter().map(|call| call.operation).collect::<Vec<_>>(), Operation::ALL);
        for call in seen {
            let waits = matches!(
                call.operation,
                Operation::Receive | Operation::Acquire | Operation::ReadChanges
            );
            assert_eq!(call.wait, if waits { SECOND } else { Duration::ZERO }, "{call:?}");
        }
        assert!(outcomes.try_recv().is_ok());
    }

    #[tokio::test]
    async fn a_concrete_type_and_an_object_can_both_be_wrapped() {
        let (a, b) = (ItemId::new("a").expect("name"), ItemId::new("b").expect("name"));
        let concrete = Layered::new(Arc::new(YesLocks), Trace);
        let object: Arc<dyn LockManager> = Arc::new(concrete);
        let twice = Layered::new(object, Trace);
        let lease = twice.acquire(&[b.clone(), a.clone()], Duration::ZERO, Duration::ZERO).await;
        assert_eq!(lease.expect("yes").expect("yes").keys, [a, b]);
    }
}
