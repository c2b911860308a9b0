//! Remembers what every buyer was told, across the deaths of those who told
//! it, and finds out whoever goes back on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flux_core::{Error, Flux, Order, OrderStatus};

use crate::crowd::Heard;
use crate::sale::{Sale, follows};
use crate::tally::Outcome;

/// The last thing each buyer of a sale was told. Nothing is given back in
/// these sales, so a buyer who was turned away stays without.
#[derive(Debug)]
pub struct Witness {
    sale: Sale,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    last: HashMap<u32, Option<Order>>,
    faults: Vec<String>,
}

impl Witness {
    /// A witness of a sale in which nobody has been told anything yet.
    #[must_use]
    pub fn new(sale: &Sale) -> Self {
        Self { sale: sale.clone(), notes: Mutex::default() }
    }

    /// Takes down an answer and compares it with what its buyer was told before.
    pub fn hear(&self, heard: Heard) {
        let Heard { buyer, order } = heard;
        let Notes { last, faults } = &mut *self.lock();
        if order.as_ref().is_some_and(|order| order.id != self.sale.order_id(buyer)) {
            faults.push(format!("buyer {buyer} was told of an order that is not theirs"));
        }
        let before = last.get(&buyer);
        let kept = match (before, &order) {
            (None, _) | (Some(None), None) => true,
            (Some(None), Some(now)) => now.status() == OrderStatus::Rejected,
            (Some(Some(_)), None) => false,
            (Some(Some(before)), Some(now)) => follows(before, now),
        };
        if !kept {
            faults.push(format!("buyer {buyer} was told {before:?}, then {order:?}"));
        }
        last.insert(buyer, order);
    }

    /// The outcome of the sale as the buyers know it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for answer in self.lock().last.values() {
            outcome.add(answer.as_ref());
        }
        outcome
    }

    /// Buyers with something still to hear: the order's answer, or that the
    /// payment was taken.
    #[must_use]
    pub fn waiting(&self) -> Vec<u32> {
        let last = &self.lock().last;
        let waits = |buyer: &u32| match last.get(buyer) {
            None => true,
            Some(None) => false,
            Some(Some(order)) => order.status() == OrderStatus::Held && self.sale.pays(*buyer),
        };
        (0..self.sale.buyers).filter(waits).collect()
    }

    /// Reads every order a buyer was told of, and says who went back on what.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn faults(&self, flux: &Flux) -> Result<Vec<String>, Error> {
        let (told, mut faults) = {
            let notes = self.lock();
            let told: Vec<Order> = notes.last.values().flatten().cloned().collect();
            (told, notes.faults.clone())
        };
        for told in told {
            match flux.order(told.id).await? {
                None => faults.push(format!("an order its buyer was told of is lost: {told:?}")),
                Some(now) if !follows(&told, &now) => {
                    faults.push(format!("a buyer was told {told:?}, the store has {now:?}"));
                }
                Some(_) => {}
            }
        }
        Ok(faults)
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // No change in here panics half-way.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
