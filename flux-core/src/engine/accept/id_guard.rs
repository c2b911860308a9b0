//! Guards of order ids: one request at a time for each id. Looking whether an
//! id is taken and taking it are two steps, on the store and the queue; in
//! between, and while the worker has an order that is not decided, a guard
//! stands for the id, and nobody brings in another order under it.
//!
//! Only ids that callers chose are guarded: an id that the engine made is
//! known to nobody else before the call is over. A guard ends with the last
//! call or batch of the [inbox](super::inbox) that has it, so there are never
//! more guards than calls and messages of the inbox. A dropped call leaves its
//! message there, undecided and in no queue, and its guard with the batch.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use foldhash::fast::RandomState;

use crate::protocol::{Order, OrderId};
use crate::sync::{Mutex, MutexGuard};

/// The orders being brought in, by id.
#[derive(Debug, Default)]
pub(crate) struct GuardedIds {
    /// Callers chose the ids, so the hash is seeded at random.
    orders: Mutex<HashMap<OrderId, Weak<IdGuard>, RandomState>>,
}

/// Guards the id of an order; all who bring it in share the guard.
#[derive(Debug)]
pub(crate) struct IdGuard {
    order: Order,
    among: Arc<GuardedIds>,
}

impl GuardedIds {
    /// The guard of `order`'s id: another call's if there is one, else a new one
    /// for this order.
    pub(crate) fn take(self: &Arc<Self>, order: &Order) -> Arc<IdGuard> {
        let mut orders = self.lock();
        if let Some(guard) = orders.get(&order.id).and_then(Weak::upgrade) {
            return guard;
        }
        let guard = Arc::new(IdGuard { order: order.clone(), among: Arc::clone(self) });
        orders.insert(order.id, Arc::downgrade(&guard));
        guard
    }

    /// The guard of an id, if there is one.
    pub(crate) fn get(&self, id: OrderId) -> Option<Arc<IdGuard>> {
        self.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Locks the map. Nobody may drop an [`IdGuard`] meanwhile.
    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, Weak<IdGuard>, RandomState>> {
        // Each change of the map is one call, so it is whole whoever panicked.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdGuard {
    /// The order of the first request under the id. Repeats are brought in as
    /// this one, so it doesn't matter which of them is decided.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }
}

impl Drop for IdGuard {
    fn drop(&mut self) {
        let mut orders = self.among.lock();
        // A new guard may have taken the id since the last clone of this one
        // went.
        if orders.get(&self.order.id).is_some_and(|guard| std::ptr::eq(guard.as_ptr(), self)) {
            orders.remove(&self.order.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::engine::Flux;
    use crate::engine::accept::inbox::Inbox;
    use crate::protocol::{ItemSpec, Message, Timestamp};
    use crate::{Backend, OrderRequest};

    /// Starts a call, and drops it.
    async fn poll_once(call: impl Future) {
        let mut call = Box::pin(call);
        poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
    }

    fn id() -> OrderId {
        OrderId::from_uuid(uuid::Uuid::nil())
    }

    fn request(buyer: &str) -> OrderRequest {
        OrderRequest::units(buyer, "a", 1).expect("a request").with_id(id())
    }

    fn order(buyer: &str) -> Order {
        let OrderRequest { buyer, lines, .. } = request(buyer);
        Order::queued(id(), buyer, lines, Timestamp::default())
    }

    #[test]
    fn an_id_is_one_order_until_all_let_go() {
        let guarded_ids = Arc::new(GuardedIds::default());
        let anns = guarded_ids.take(&order("ann"));
        let same = guarded_ids.take(&order("bob"));
        assert!(Arc::ptr_eq(&anns, &same));
        drop(anns);
        assert_eq!(guarded_ids.take(&order("bob")).order(), &order("ann"));
        drop(same);
        assert!(guarded_ids.lock().is_empty());
        assert_eq!(guarded_ids.take(&order("bob")).order(), &order("bob"));
    }

    #[test]
    fn whoever_lets_go_leaves_the_next_ones_guard() {
        let guarded_ids = Arc::new(GuardedIds::default());
        let guard = |buyer: &str| {
            let order = order(buyer);
            for _ in 0..20_000 {
                let guard = guarded_ids.take(&order);
                let again = guarded_ids.get(order.id);
                assert!(again.is_some_and(|again| Arc::ptr_eq(&again, &guard)), "it was let go");
            }
        };
        std::thread::scope(|scope| {
            for buyer in ["ann", "bob", "eve", "zoe"] {
                scope.spawn(move || guard(buyer));
            }
        });
        assert!(guarded_ids.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_guards_its_id_as_long_as_its_message_waits() {
        let flux = Flux::builder(Backend::memory()).start();
        let spec = ItemSpec::pool("a", 5).expect("an item");
        flux.put_item(spec).await.expect("it is new");
        poll_once(flux.place(request("ann"))).await;
        assert_eq!(flux.core().guarded_ids.lock().len(), 1);
        while flux.order(id()).await.expect("it can be read").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        flux.place(request("ann")).await.expect("it is decided");
        flux.submit(request("ann")).await.expect("it is decided");
        assert!(flux.place(request("bob")).await.is_err());
        flux.shutdown().await;
        assert!(flux.core().guarded_ids.lock().is_empty());
    }

    #[tokio::test]
    async fn a_worker_that_goes_lets_go() {
        let (guarded_ids, inbox) = (Arc::new(GuardedIds::default()), Inbox::new(8, 1));
        let span = tracing::Span::none();
        let guard = || Some(guarded_ids.take(&order("ann")));
        poll_once(inbox.ask(Message::Place(order("ann")), guard(), &span)).await;
        let full = inbox.ask(Message::Place(order("ann")), guard(), &span).await;
        assert!(full.is_err());
        assert_eq!(guarded_ids.lock().len(), 1);
        inbox.abandon();
        assert!(guarded_ids.lock().is_empty());
        let closed = inbox.ask(Message::Place(order("ann")), guard(), &span).await;
        assert!(closed.is_err());
        assert!(guarded_ids.lock().is_empty());
    }
}
