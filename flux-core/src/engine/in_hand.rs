//! One request for each id while it is brought in. Whether an id is taken and
//! taking it are two steps, on the store and the queue; in between, and while
//! the worker has an order that is not decided, the id is in hand, and nobody
//! brings in another order under it.
//!
//! Only ids that callers chose are here: nobody else knows one the engine made
//! before the call that made it is over. What is in hand ends with the last
//! call or round of the [lane](super::lane) that holds it, so there are never
//! more than calls and messages of the lane: a call that is dropped leaves its
//! message there, undecided and in no queue, and the round's hold with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;

use crate::protocol::{Order, OrderId};

/// The orders in hand.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    /// Callers chose the ids, so the hash is seeded at random.
    orders: Mutex<HashMap<OrderId, Weak<Held>, RandomState>>,
}

/// Keeps an order in hand; all who hold an id share it.
#[derive(Debug)]
pub(crate) struct Held {
    order: Order,
    among: Arc<InHand>,
}

impl InHand {
    /// What is in hand under the id of `order`: this order, unless another
    /// call's is.
    pub(crate) fn take(self: &Arc<Self>, order: &Order) -> Arc<Held> {
        let mut orders = self.lock();
        if let Some(held) = orders.get(&order.id).and_then(Weak::upgrade) {
            return held;
        }
        let held = Arc::new(Held { order: order.clone(), among: Arc::clone(self) });
        orders.insert(order.id, Arc::downgrade(&held));
        held
    }

    /// What is in hand under an id.
    pub(crate) fn get(&self, id: OrderId) -> Option<Arc<Held>> {
        self.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Nobody may drop a [`Held`] under it.
    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, Weak<Held>, RandomState>> {
        // Nothing in here panics half-way through a change.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The order as the first who asked for it has it: repeats are brought in
    /// as this one, so it doesn't matter which of them is decided.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut orders = self.among.lock();
        // The next may have taken the id since the last holder let go.
        if orders.get(&self.order.id).is_some_and(|held| std::ptr::eq(held.as_ptr(), self)) {
            orders.remove(&self.order.id);
        }
    }
}
