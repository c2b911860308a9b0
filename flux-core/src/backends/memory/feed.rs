//! The change feed in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;

use super::store::SERVICE;
use crate::protocol::{ConsumerName, ItemSpec, Order, Timestamp};
use crate::seams::{
    CONSUMERS_MAX, Change, ChangeFeed, ChangePage, Changed, Consumer, Cursor, Removed, SeamError,
};

/// Most changes kept, unless told otherwise.
pub(super) const CHANGES_MAX: usize = 100_000;

/// A change, which shares the order or the item with the store.
#[derive(Debug)]
enum Kept {
    Order(Arc<Order>),
    Item(Arc<ItemSpec>),
    Removed(Removed),
}

/// A [`ChangeFeed`] in memory: the newest changes, up to a number of them.
#[derive(Debug)]
pub(super) struct MemoryFeed {
    max: usize,
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    changes: VecDeque<(Timestamp, Kept)>,
    /// The number of the newest change.
    newest: u64,
    now: Timestamp,
    consumers: BTreeMap<ConsumerName, u64>,
}

impl MemoryFeed {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default(), newest: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Adds an item's definition. Call it under the lock of the store, as
    /// [`orders`](Self::orders), so that both have one order.
    pub(super) fn item(&self, spec: &Arc<ItemSpec>) {
        self.add(Timestamp::default(), [Kept::Item(spec.clone())]);
    }

    /// Adds an item that is gone.
    pub(super) fn removed(&self, removed: Removed) {
        self.add(Timestamp::default(), [Kept::Removed(removed)]);
    }

    /// Adds orders that were changed at a time.
    pub(super) fn orders(&self, now: Timestamp, orders: impl IntoIterator<Item = Arc<Order>>) {
        self.add(now, orders.into_iter().map(Kept::Order));
    }

    fn add(&self, now: Timestamp, changes: impl IntoIterator<Item = Kept>) {
        let mut state = self.lock();
        state.now = state.now.max(now);
        let now = state.now;
        for change in changes {
            state.newest += 1;
            state.changes.push_back((now, change));
        }
        let over = state.changes.len().saturating_sub(self.max);
        state.changes.drain(..over);
        let newest = state.newest;
        self.newest.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }
}

impl State {
    fn number(&self, cursor: &Cursor) -> Result<u64, SeamError> {
        let number = cursor.0.parse().ok().filter(|number| *number <= self.newest);
        number.ok_or(SeamError::UnknownCursor { service: SERVICE })
    }
}

fn cursor(number: u64) -> Cursor {
    Cursor(number.to_string())
}

#[async_trait]
impl ChangeFeed for MemoryFeed {
    async fn changes(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangePage, SeamError> {
        let after = after.map(|after| self.lock().number(after)).transpose()?;
        let mut newest = self.newest.subscribe();
        let is_newer = |newest: &u64| *newest > after.unwrap_or(0);
        // Nothing came in time: an empty page.
        let _ = timeout(wait, newest.wait_for(is_newer)).await;
        let state = self.lock();
        let gone = state.newest - state.changes.len() as u64;
        let after = after.unwrap_or(gone);
        let skipped = after.checked_sub(gone);
        let skipped = skipped.ok_or(SeamError::ChangesGone { service: SERVICE })? as usize;
        let change = |(number, (at, kept)): (u64, &(Timestamp, Kept))| {
            let changed = match kept {
                Kept::Order(order) => Changed::Order(Order::clone(order)),
                Kept::Item(spec) => Changed::Item(ItemSpec::clone(spec)),
                Kept::Removed(removed) => Changed::Removed(removed.clone()),
            };
            Change::new(cursor(number), *at, changed)
        };
        let changes: Vec<Change> =
            (after + 1..).zip(state.changes.range(skipped..)).take(limit).map(change).collect();
        let next = cursor(after + changes.len() as u64);
        Ok(ChangePage::new(changes, next))
    }

    async fn newest(&self) -> Result<Cursor, SeamError> {
        Ok(cursor(self.lock().newest))
    }

    async fn keep_cursor(&self, consumer: &Consumer) -> Result<(), SeamError> {
        let mut state = self.lock();
        let after = state.number(&consumer.after)?;
        let is_new = !state.consumers.contains_key(&consumer.name);
        if is_new && state.consumers.len() >= CONSUMERS_MAX {
            return Err(SeamError::TooManyConsumers { service: SERVICE });
        }
        state.consumers.insert(consumer.name.clone(), after);
        Ok(())
    }

    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError> {
        let state = self.lock();
        let known = state.consumers.iter();
        Ok(known.map(|(name, after)| Consumer::new(name.clone(), cursor(*after))).collect())
    }

    async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, SeamError> {
        Ok(self.lock().consumers.remove(name).is_some())
    }
}
