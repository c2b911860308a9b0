//! An order under an id of the caller's own: a repeat of the order that has the
//! id already, or another order, for which the id can't be used again.

use std::sync::Arc;

use super::id_guard::IdGuard;
use crate::engine::core::{Core, is_decided};
use crate::engine::error::Error;
use crate::protocol::Order;

/// What becomes of an order that asks to come in.
pub(super) enum Admitted {
    /// An order to bring in, its id guarded if the caller chose it.
    New(Order, Option<Arc<IdGuard>>),
    /// A repeat of this order.
    Decided(Order),
}

impl Core {
    /// Admits an order under an id of the caller's own. A repeat is answered
    /// with the order that has the id, whatever the gate says by then.
    pub(super) async fn admit_chosen(
        &self,
        order: Order,
        refusal: Option<Error>,
    ) -> Result<Admitted, Error> {
        let guard = match refusal {
            None => Ok(self.guarded_ids.take(&order)),
            Some(refusal) => self.guarded_ids.get(order.id).ok_or(refusal),
        };
        let refusal = match guard {
            Ok(guard) if order.asks_the_same_as(guard.order()) => {
                return Ok(Admitted::New(guard.order().clone(), Some(guard)));
            }
            // The guard is for another order, but this may repeat a known one.
            Ok(_other) => Error::IdReused(order.id),
            Err(refusal) => refusal,
        };
        let known = self.order_of_new_id(order.id).await?;
        let Some(known) = known else { return Err(self.refused(refusal)) };
        let known = same(&order, known)?;
        if is_decided(&known) {
            return Ok(Admitted::Decided(known));
        }
        let guard = self.guarded_ids.take(&known);
        Ok(Admitted::New(known, Some(guard)))
    }
}

/// The known order, if the one that is `asked` for repeats it.
// G3: an id stands for one order; other contents under it are refused.
pub(super) fn same(asked: &Order, known: Order) -> Result<Order, Error> {
    if asked.asks_the_same_as(&known) { Ok(known) } else { Err(Error::IdReused(asked.id)) }
}
