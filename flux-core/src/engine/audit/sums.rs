//! The units of one item, as listings of all orders show them, and what they say of the
//! stock that was read between two of them.

use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::protocol::{Order, OrderStatus, Timestamp};

/// Longest time by which the clocks of those who end holds differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// The units of one item in one listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) held: u64,
    pub(super) sold: u64,
    /// Units that came back. They are never taken again by their order, but for late
    /// payments.
    ended: u64,
    /// Units paid for whose hold had ended before the count began: in the second listing,
    /// some of them by payments that came late and took stock again.
    paid_late: u64,
    /// The same, of holds that ended meanwhile, or may have.
    perhaps_paid_late: u64,
    /// Changes with every order and every state.
    digest: u64,
}

impl Sums {
    /// Adds an order's units. `since` is when the count began.
    pub(super) fn add(
        &mut self,
        order: &Order,
        units: u64,
        digests: &RandomState,
        since: Timestamp,
        now: Timestamp,
    ) {
        let status = order.status();
        match status {
            OrderStatus::Queued | OrderStatus::Rejected => return,
            OrderStatus::Held => self.held += units,
            OrderStatus::Confirmed => self.sold += units,
            _ => self.ended += units,
        }
        if matches!(status, OrderStatus::Confirmed | OrderStatus::Cancelled)
            && let Some(end) = order.hold().map(|hold| hold.expires_at)
        {
            if end <= since {
                self.paid_late += units;
            } else if end <= now + CLOCKS_DIFFER {
                self.perhaps_paid_late += units;
            }
        }
        let digest = digests.hash_one((order.id, status));
        self.digest = self.digest.wrapping_add(digest);
    }

    /// Units held or sold.
    pub(super) fn taken(&self) -> u64 {
        self.held + self.sold
    }

    /// Units that were ever taken.
    fn ever(&self) -> u64 {
        self.taken() + self.ended
    }
}

/// Whether all of the item's orders were in the same states in both listings, and so at
/// each moment between.
pub(super) fn is_still(before: &Sums, after: &Sums) -> bool {
    before.digest == after.digest
}

/// The numbers between which the units that were taken at a moment between the listings
/// lie.
pub(super) fn taken_between(before: &Sums, after: &Sums) -> RangeInclusive<u64> {
    if is_still(before, after) {
        return after.taken()..=after.taken();
    }
    // What was ever taken only grows, and so does what ended, but for the units that late
    // payments took again.
    let paid_late = after.paid_late.saturating_sub(before.paid_late) + after.perhaps_paid_late;
    let least = before.ever().saturating_sub(after.ended + paid_late);
    let most = (after.ever() + paid_late).saturating_sub(before.ended);
    least..=most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Hold, Line, Lines, OrderId, OrderState, PaymentRef};

    const T0: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn order(n: u128, state: fn(Hold) -> OrderState) -> Order {
        let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
        let hold = Hold { decided_at: T0, expires_at: T0 + Duration::from_secs(600) };
        Order::queued(id, "ann".parse().expect("ann"), lines, T0).with_state(state(hold))
    }

    fn paid(hold: Hold) -> OrderState {
        OrderState::Confirmed(hold, PaymentRef::new("p").expect("p"))
    }

    fn sums(orders: &[Order], digests: &RandomState, now: Timestamp) -> Sums {
        let mut sums = Sums::default();
        for order in orders {
            sums.add(order, 1, digests, T0 + Duration::from_secs(3_600), now);
        }
        sums
    }

    #[test]
    fn what_stands_still_is_told_exactly_and_what_moves_is_bounded() {
        let digests = RandomState::new();
        let now = T0 + Duration::from_secs(3_600);
        let listing = |orders: &[Order]| sums(orders, &digests, now);
        let (held, freed) = (order(1, OrderState::Held), order(1, OrderState::Released));
        let (other, bought) = (order(2, OrderState::Held), order(2, paid));
        let still = listing(&[held.clone(), other.clone()]);
        assert_eq!(taken_between(&still, &still), 2..=2);
        // One was given back: at a moment between there were two, or one.
        let before = listing(std::slice::from_ref(&held));
        let after = listing(std::slice::from_ref(&freed));
        assert_eq!(taken_between(&before, &after), 0..=1);
        // One came, or two took turns on one unit that the listings saw at the wrong times.
        assert_eq!(taken_between(&listing(&[]), &listing(std::slice::from_ref(&held))), 0..=1);
        let turns = taken_between(&before, &listing(&[freed, other.clone()]));
        assert_eq!(turns, 0..=2);
        // Equal sums of other orders are no stillness.
        assert!(!is_still(&before, &listing(std::slice::from_ref(&other))));
        assert!(!is_still(&listing(&[other]), &listing(&[bought])));
    }

    #[test]
    fn a_late_payment_may_have_come_before_or_after() {
        let digests = RandomState::new();
        let now = T0 + Duration::from_secs(3_600);
        let before = sums(&[order(1, OrderState::Expired)], &digests, now);
        let after = sums(&[order(1, paid)], &digests, now);
        let taken = taken_between(&before, &after);
        assert!(taken.contains(&0) && taken.contains(&1), "{taken:?}");
    }
}
