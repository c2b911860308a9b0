//! Callers who wait for the outcome of one order. The listener, `listen` in
//! `gate_sync`, wakes them when it hears of it from the bus; a caller whose
//! outcome was lost there looks for itself (`until` in `core`).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::engine::error::Error;
use crate::protocol::OrderId;
use crate::seams::Outcomes;
use crate::sync::{Mutex, MutexGuard, Notified, Notify};

#[derive(Debug, Default)]
struct Waiter {
    woken: Arc<Notify>,
    callers: usize,
}

/// The orders that callers wait for; their number is bounded.
#[derive(Debug)]
pub(crate) struct Waiters {
    orders: Mutex<HashMap<OrderId, Waiter>>,
    max: usize,
}

/// One caller's wait; over when dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'w> {
    waiters: &'w Waiters,
    id: OrderId,
    woken: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn new(max: usize) -> Self {
        Self { orders: Mutex::default(), max }
    }

    /// Registers a caller who waits for an order.
    pub(crate) fn register(&self, id: OrderId) -> Result<Waiting<'_>, Error> {
        let mut orders = self.lock();
        if orders.len() >= self.max && !orders.contains_key(&id) {
            return Err(Error::Overloaded { retry_after: crate::engine::RETRY_AFTER });
        }
        let waiter = orders.entry(id).or_default();
        waiter.callers += 1;
        let woken = Arc::clone(&waiter.woken);
        Ok(Waiting { waiters: self, id, woken })
    }

    /// Wakes those whose orders are in the outcomes.
    pub(crate) fn tell(&self, outcomes: &Outcomes) {
        let orders = self.lock();
        if orders.is_empty() {
            return;
        }
        for order in &outcomes.orders {
            if let Some(waiter) = orders.get(&order.id) {
                waiter.woken.notify_waiters();
            }
        }
    }

    /// Wakes everybody: outcomes were missed.
    pub(crate) fn tell_all(&self) {
        for waiter in self.lock().values() {
            waiter.woken.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, Waiter>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// Completes when an outcome of the order is told after this was first
    /// polled or [enabled](tokio::sync::futures::Notified::enable).
    pub(crate) fn told(&self) -> Notified<'_> {
        self.woken.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut orders = self.waiters.lock();
        if let Some(waiter) = orders.get_mut(&self.id) {
            waiter.callers -= 1;
            if waiter.callers == 0 {
                orders.remove(&self.id);
            }
        }
    }
}
