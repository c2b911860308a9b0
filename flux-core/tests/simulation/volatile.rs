//! A store that writes to a disk behind what it decides, and comes back from a power
//! failure with what was on the disk.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::backends::memory::MemoryStore;
use flux_core::clock::ClockReference;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, ChangeFeed, CommitMax, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore,
    KeptClock, OrderFilter, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Repayment,
    SeamError,
};
use flux_core::{Item, ItemId, ItemSpec, Order, OrderId, Timestamp};
use futures_util::FutureExt;

use crate::dice::Dice;

type Answer<T> = Result<T, SeamError>;

#[derive(Debug, Clone)]
pub(crate) struct Volatile(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    store: Arc<MemoryStore>,
    /// All that was done, in order.
    log: Vec<Done>,
    /// The length of what is on the disk.
    durable: usize,
    /// The number of power failures.
    life: u32,
    dice: Dice,
}

#[derive(Debug)]
enum Done {
    Put(ItemSpec),
    Claimed(Vec<ItemId>),
    Committed(Commit),
    Paid(Vec<Payment>),
    Repaid(Vec<Repayment>),
}

/// The answer of a store in memory, which never waits for these calls.
fn now<T>(answer: impl Future<Output = Answer<T>>) -> Answer<T> {
    answer.now_or_never().expect("it is in memory")
}

impl Volatile {
    pub(crate) fn new(seed: u64, max: CommitMax) -> Self {
        let store = Arc::new(MemoryStore::with_commit_max(max));
        let state = State { store, log: Vec::new(), durable: 0, life: 0, dice: Dice(seed) };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.lock().store)
    }

    /// Loses what is not on the disk, or all but some of it. Nobody may be at work.
    pub(crate) fn fail(&self) {
        let mut state = self.lock();
        let unsynced = (state.log.len() - state.durable) as u64;
        let kept = state.durable + state.dice.roll(unsynced + 1) as usize;
        state.log.truncate(kept);
        (state.durable, state.life) = (kept, state.life + 1);
        let store = MemoryStore::with_commit_max(state.store.commit_max());
        for done in &state.log {
            match done {
                Done::Put(spec) => drop(now(store.put_item(spec)).expect("it was put")),
                Done::Claimed(items) => drop(now(store.claim(items)).expect("they were claimed")),
                Done::Committed(commit) => {
                    let outcome = now(store.commit(std::slice::from_ref(commit)));
                    assert_eq!(outcome.expect("it is well"), [CommitOutcome::Applied]);
                }
                Done::Paid(payments) => drop(now(store.confirm(payments)).expect("it is well")),
                Done::Repaid(repaid) => drop(now(store.refund(repaid)).expect("it is well")),
            }
        }
        state.store = Arc::new(store);
    }

    /// Waits until all that was done so far is on the disk.
    fn synced(&self) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        let (seen, life, takes) = {
            let mut state = this.lock();
            (state.log.len(), state.life, Duration::from_millis(1 + state.dice.roll(30)))
        };
        async move {
            if this.lock().durable < seen {
                tokio::time::sleep(takes).await;
            }
            let failed = {
                let mut state = this.lock();
                let failed = state.life != life;
                if !failed {
                    state.durable = state.durable.max(seen);
                }
                failed
            };
            if failed {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[async_trait]
impl InventoryStore for Volatile {
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        let outcome = {
            let mut state = self.lock();
            state.log.push(Done::Put(spec.clone()));
            now(state.store.put_item(spec))
        };
        self.synced().await;
        outcome
    }
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        let mut state = self.lock();
        state.log.push(Done::Claimed(items.to_vec()));
        now(state.store.claim(items))
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        let begun = self.begin_commit(commits).await?;
        begun.durable.wait().await?;
        Ok(begun.outcomes)
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        let outcomes = {
            let mut state = self.lock();
            let outcomes = now(state.store.commit(commits))?;
            for (commit, outcome) in commits.iter().zip(&outcomes) {
                if *outcome == CommitOutcome::Applied {
                    state.log.push(Done::Committed(commit.clone()));
                }
            }
            outcomes
        };
        let synced = self.synced();
        Ok(Begun::new(outcomes, Durable::after(synced.map(Ok))))
    }
    fn commit_max(&self) -> CommitMax {
        self.store().commit_max()
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        let outcomes = {
            let mut state = self.lock();
            state.log.push(Done::Paid(payments.to_vec()));
            now(state.store.confirm(payments))
        };
        self.synced().await;
        outcomes
    }
    async fn refund(&self, repayments: &[Repayment]) -> Answer<Vec<RefundOutcome>> {
        let outcomes = {
            let mut state = self.lock();
            state.log.push(Done::Repaid(repayments.to_vec()));
            now(state.store.refund(repayments))
        };
        self.synced().await;
        outcomes
    }
    async fn owed(&self) -> Answer<Owed> {
        self.store().owed().await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        let orders = now(self.store().orders(ids));
        self.synced().await;
        orders
    }
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Answer<OrderPage> {
        let page = self.store().list_orders(filter, after, limit).await;
        self.synced().await;
        page
    }
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Answer<DueHolds> {
        self.store().due_holds(now, limit).await
    }
    async fn items(&self, ids: &[ItemId]) -> Answer<Vec<Option<Item>>> {
        self.store().items(ids).await
    }
    async fn list_items(&self, after: Option<&ItemId>, limit: usize) -> Answer<Vec<Item>> {
        self.store().list_items(after, limit).await
    }
    async fn stock(&self, item: &ItemId) -> Answer<Option<(Arc<ItemSpec>, Stock)>> {
        self.store().stock(item).await
    }
    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        self.store().feed()
    }

    fn kept_clock(&self) -> KeptClock {
        self.store().kept_clock()
    }
    fn keep_clock(&self, reference: ClockReference) {
        self.store().keep_clock(reference);
    }
}
