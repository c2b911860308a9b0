//! Remembers what every buyer was told, across the deaths of those who told
//! it, and finds out whoever goes back on it.

use std::collections::HashMap;

use flux_core::{Error, Flux, Order, OrderStatus};

use crate::crowd::Heard;
use crate::sale::{Sale, follows};

/// The last thing each buyer of a sale was told. Nothing is given back in
/// these sales, so a buyer who was turned away stays without.
#[derive(Debug)]
pub struct Witness {
    sale: Sale,
    last: HashMap<u32, Option<Order>>,
    faults: Vec<String>,
}

impl Witness {
    /// Nobody has been told anything yet.
    #[must_use]
    pub fn new(sale: &Sale) -> Self {
        Self { sale: sale.clone(), last: HashMap::new(), faults: Vec::new() }
    }

    /// Takes down an answer and compares it with what its buyer was told before.
    pub fn hear(&mut self, heard: Heard) {
        let Heard { buyer, order } = heard;
        if order.as_ref().is_some_and(|order| order.id != self.sale.order_id(buyer)) {
            self.faults.push(format!("buyer {buyer} was told of an order that is not theirs"));
        }
        let kept = match (self.last.get(&buyer), &order) {
            (None, _) | (Some(None), None) => true,
            (Some(None), Some(now)) => now.status() == OrderStatus::Rejected,
            (Some(Some(_)), None) => false,
            (Some(Some(before)), Some(now)) => follows(before, now),
        };
        if !kept {
            let before = &self.last[&buyer];
            self.faults.push(format!("buyer {buyer} was told {before:?}, then {order:?}"));
        }
        self.last.insert(buyer, order);
    }

    /// How many buyers were told of a decision.
    #[must_use]
    pub fn decisions(&self) -> usize {
        self.last.values().flatten().count()
    }

    /// How many buyers were told of a unit of theirs.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.last.values().flatten().filter(|order| order.status().owns_stock()).count()
    }

    /// Buyers with something still to hear: the order's answer, or that the
    /// payment was taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a number of the sale is out of bounds.
    pub fn waiting(&self) -> Result<Vec<u32>, Error> {
        let mut waiting = Vec::new();
        for buyer in 0..self.sale.buyers {
            let done = match self.last.get(&buyer) {
                None => false,
                Some(None) => true,
                Some(Some(order)) => {
                    order.status() != OrderStatus::Held || !self.sale.pays(buyer)
                }
            };
            if !done {
                waiting.push(buyer);
            }
        }
        Ok(waiting)
    }

    /// Reads every order a buyer was told of, and says who went back on what.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn faults(&self, flux: &Flux) -> Result<Vec<String>, Error> {
        let mut faults = self.faults.clone();
        for (buyer, told) in &self.last {
            let Some(told) = told else { continue };
            match flux.order(told.id).await? {
                None => faults.push(format!("the order of buyer {buyer} is lost: {told:?}")),
                Some(now) if !follows(told, &now) => {
                    faults.push(format!("buyer {buyer} was told {told:?}, the store has {now:?}"));
                }
                Some(_) => {}
            }
        }
        Ok(faults)
    }
}
