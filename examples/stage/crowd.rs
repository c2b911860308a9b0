//! The crowd: every buyer of a [`Sale`] with an order of their own, many at
//! once, some of them impatient enough to send it twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::{Error, Flux, Order, OrderRequest, OrderStatus};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::sale::{Sale, Sends, follows};
use crate::tally::Tally;

/// Tries of a call that was told to come back later.
const TRIES_MAX: u32 = 20;

/// An answer that reached a buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The buyer who heard it.
    pub buyer: u32,
    /// The order as it was told, or `None` when the gate turned it away.
    pub order: Option<Order>,
}

/// Lets the buyers of `sale` in, the numbers in `who`, and returns when each
/// has an answer. `hear` is called with every answer the moment it reaches its
/// buyer.
///
/// # Panics
/// When `hear` does.
pub async fn storm<H>(flux: &Flux, sale: &Sale, who: Vec<u32>, hear: H) -> Tally
where
    H: Fn(Heard) + Send + Sync + 'static,
{
    let crowd = Arc::new(Crowd {
        wishes: sale.wishes(),
        sale: sale.clone(),
        flux: flux.clone(),
        hear,
        tally: Mutex::default(),
        began: Instant::now(),
    });
    let who = Arc::new(who);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tills = JoinSet::new();
    for _ in 0..sale.in_flight.clamp(1, who.len().max(1)) {
        let (crowd, who, next) = (Arc::clone(&crowd), Arc::clone(&who), Arc::clone(&next));
        tills.spawn(async move {
            while let Some(&buyer) = who.get(next.fetch_add(1, Ordering::Relaxed)) {
                crowd.serve(buyer).await;
                // Being turned away takes no waiting at all: without this the
                // late ones would keep the early ones from hearing their answers.
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(till) = tills.join_next().await {
        till.expect("a till neither panics nor is cancelled");
    }
    let mut tally = crowd.lock().clone();
    tally.took = crowd.began.elapsed();
    tally
}

struct Crowd<H> {
    sale: Sale,
    wishes: Vec<u32>,
    flux: Flux,
    hear: H,
    tally: Mutex<Tally>,
    began: Instant,
}

impl<H: Fn(Heard)> Crowd<H> {
    /// One buyer, from the order to the last answer.
    async fn serve(&self, number: u32) {
        match self.shop(number).await {
            Ok(last) => self.lock().outcome.add(last.as_ref()),
            Err(error) => self.lock().fault(format!("buyer {number}: {error}")),
        }
    }

    async fn shop(&self, number: u32) -> Result<Option<Order>, Error> {
        let buyer = self.sale.buyer(number, self.wishes[number as usize])?;
        let mut answer = match buyer.sends {
            Sends::Once => self.place(&buyer.request).await?,
            Sends::Together => {
                let (one, other) =
                    tokio::join!(self.place(&buyer.request), self.place(&buyer.request));
                self.compare(one?, other?)
            }
            Sends::Again => {
                let one = self.place(&buyer.request).await?;
                self.tell(number, one.clone());
                let other = self.place(&buyer.request).await?;
                self.compare(one, other)
            }
        };
        self.tell(number, answer.clone());
        if let (Some(order), Some(payment)) = (&answer, buyer.pays)
            && matches!(order.status(), OrderStatus::Held | OrderStatus::Confirmed)
        {
            let paid = self.flux.confirm(order.id, payment).await?;
            self.tell(number, Some(paid.clone()));
            answer = Some(paid);
        }
        Ok(answer)
    }

    async fn place(&self, request: &OrderRequest) -> Result<Option<Order>, Error> {
        for _ in 0..TRIES_MAX {
            let asked = Instant::now();
            let answer = match self.flux.place(request.clone()).await {
                Ok(order) => Some(order),
                Err(Error::SoldOut(_)) => None,
                Err(Error::Overloaded { retry_after }) => {
                    tokio::time::sleep(retry_after).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.lock().call(answer.as_ref(), asked.elapsed(), self.began.elapsed());
            return Ok(answer);
        }
        Err(Error::Overloaded { retry_after: Duration::ZERO })
    }

    /// Both answers to one order must be one decision. Nothing is given back
    /// in these sales, so what the gate turned away can't be held.
    fn compare(&self, one: Option<Order>, other: Option<Order>) -> Option<Order> {
        let agree = match (&one, &other) {
            (None, None) => true,
            (Some(order), None) | (None, Some(order)) => order.status() == OrderStatus::Rejected,
            (Some(one), Some(other)) => follows(one, other),
        };
        let mut tally = self.lock();
        tally.repeats += 1;
        if !agree {
            tally.contradicted += 1;
            tally.fault(format!("one order, two answers: {one:?} and {other:?}"));
        }
        other.or(one)
    }

    fn tell(&self, buyer: u32, order: Option<Order>) {
        (self.hear)(Heard { buyer, order });
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        // No change in here panics half-way.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
