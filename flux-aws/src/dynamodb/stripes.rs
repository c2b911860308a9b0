//! The spread of a pool's stock over its stripes. A commit that needs more than one stripe
//! has gets it brought there, and the rest is left spread, so that the others go on selling.

use aws_sdk_dynamodb::types::TransactWriteItem;
use flux_core::ItemId;
use flux_core::protocol::{Commit, Effect, Stock};
use flux_core::seams::SeamError;

use super::DynamoStore;
use super::conditions::write_stock_row;
use super::stock_row::{Known, StockRow};
use super::table::Transacted;

/// Units for each stripe that are worth a spread: about a commit of single ones. Fewer are
/// sold from one stripe, with no more moves.
const SHARE_MIN: i64 = 50;

/// What became of a move between stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebalanced {
    /// One stripe of each item has what the commit needs.
    Moved,
    /// There is not so much in all, or no move is needed.
    NoMove,
    /// The rows were not as known, or nobody answered: look again.
    Stale,
}

impl DynamoStore {
    /// Has one stripe of each of these items hold what a commit needs, and the rest spread:
    /// for each item one transaction of as few rows as that takes.
    pub(super) async fn rebalance(
        &self,
        commit: &Commit,
        items: &[ItemId],
        known: &[Known],
    ) -> Result<Rebalanced, SeamError> {
        let mut rebalanced = Rebalanced::NoMove;
        for known in known.iter().filter(|known| items.contains(&known.head.id)) {
            let item = &known.head.id;
            let Some(moved) = moves(known, units_needed(commit, item)) else {
                return Ok(Rebalanced::NoMove);
            };
            // All the moves or none, each row under its token and its revision.
            let actions = moved.iter().map(|(stripe, after)| {
                let before = &known.stock_rows[*stripe];
                write_stock_row(&self.table.name, item, *stripe, before, after)
            });
            let actions: Vec<TransactWriteItem> = actions.collect();
            match self.table.transact(actions).await? {
                Transacted::Applied => {
                    for (stripe, after) in moved {
                        self.remember_stock_row(item, stripe, after);
                    }
                    rebalanced = Rebalanced::Moved;
                }
                Transacted::Cancelled(_) | Transacted::Unknown(_) => {
                    self.forget(item);
                    return Ok(Rebalanced::Stale);
                }
            }
        }
        Ok(rebalanced)
    }
}

/// The most units of an item that a commit has taken at any of its writes.
fn units_needed(commit: &Commit, item: &ItemId) -> i64 {
    let (mut taken, mut most) = (0, 0);
    for write in &commit.writes {
        let sign = match write.effect() {
            Effect::Takes => 1,
            Effect::GivesBack => -1,
            Effect::None => continue,
        };
        for line in write.order.lines.iter().filter(|line| line.item == *item) {
            taken += sign * i64::from(line.ask.units());
            most = most.max(taken);
        }
    }
    most
}

/// The stock rows that change, as they are to be. `None` if none does.
fn moves(known: &Known, needed: i64) -> Option<Vec<(usize, StockRow)>> {
    let available = |row: &StockRow| i64::from(row.stock.available());
    let before: Vec<i64> = known.stock_rows.iter().map(available).collect();
    let after = spread(&before, known.fullest(), needed)?;
    let changed =
        before.iter().zip(after).enumerate().filter(|(_, (before, after))| *before != after);
    let changed = changed.map(|(stripe, (_, available))| {
        let mut row = known.stock_rows[stripe].clone();
        let available = u32::try_from(available).expect("a part of the stock");
        (row.stock, row.revision) = (Stock::Pool { available }, row.revision + 1);
        (stripe, row)
    });
    Some(changed.collect()).filter(|changed: &Vec<_>| !changed.is_empty())
}

/// The units of each stripe, so that the `fullest` has what is `needed` and beside it no
/// stripe has less than half an even share of the rest. Stripes that have less get a
/// whole share, from the fullest others, so that few rows change. `None` if there is not
/// so much in all.
fn spread(available: &[i64], fullest: usize, needed: i64) -> Option<Vec<i64>> {
    let mut units = available.to_vec();
    units[fullest] -= needed;
    let rest: i64 = units.iter().sum();
    if rest < 0 {
        return None;
    }
    let share = rest / units.len() as i64;
    if share >= SHARE_MIN {
        let least = share / 2;
        let mut missing = 0;
        for units in units.iter_mut().filter(|units| **units < least) {
            missing += share - *units;
            *units = share;
        }
        let mut givers: Vec<usize> = (0..units.len()).collect();
        givers.sort_by_key(|stripe| std::cmp::Reverse(units[*stripe]));
        for giver in givers {
            let given = missing.min(units[giver] - least);
            units[giver] -= given;
            missing -= given;
        }
    } else if units[fullest] < 0 {
        units.fill(0);
        units[fullest] = rest;
    }
    units[fullest] += needed;
    Some(units)
}

#[cfg(test)]
mod tests {
    use flux_core::protocol::{Expect, OrderWrite};
    use flux_core::{
        BuyerId, Hold, Line, Lines, Order, OrderId, OrderState, OrderStatus, Timestamp,
    };

    use super::*;

    #[test]
    fn what_is_missing_comes_from_the_fullest_and_the_rest_stays_spread() {
        for (available, fullest, needed, after) in [
            // Enough: nothing moves.
            (vec![500, 400], 0, 350, Some(vec![500, 400])),
            // One unit is missing, and a share for whoever comes next.
            (vec![500; 4], 3, 501, Some(vec![187, 438, 500, 875])),
            // All on one stripe, as it was once left.
            (vec![0, 0, 0, 900], 3, 100, Some(vec![200, 200, 200, 300])),
            // Few units in all are sold from one stripe.
            (vec![20, 30, 40], 2, 41, Some(vec![0, 0, 90])),
            (vec![0, 0, 90], 2, 41, Some(vec![0, 0, 90])),
            (vec![20, 30, 40], 2, 90, Some(vec![0, 0, 90])),
            (vec![20, 30, 40], 2, 91, None),
            (vec![7], 0, 7, Some(vec![7])),
            (vec![7], 0, 8, None),
        ] {
            assert_eq!(spread(&available, fullest, needed), after, "{available:?}, {needed}");
        }
    }

    #[test]
    fn no_unit_is_made_or_lost_whatever_is_needed() {
        let mut seed = 1_u64;
        let mut below = |end: i64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as i64 % end
        };
        for _ in 0..20_000 {
            let stripes = 1 + below(32) as usize;
            let most = 1 + below(2_000);
            let available: Vec<i64> = (0..stripes).map(|_| below(most)).collect();
            let fullest = (0..stripes).max_by_key(|stripe| available[*stripe]).expect("one");
            let total: i64 = available.iter().sum();
            let needed = below(total + 2);
            let Some(after) = spread(&available, fullest, needed) else {
                assert!(needed > total);
                continue;
            };
            assert_eq!(after.iter().sum::<i64>(), total);
            assert!(after.iter().all(|units| *units >= 0) && after[fullest] >= needed);
            let share = (total - needed) / stripes as i64;
            let is_spread = |(stripe, units): (usize, &i64)| {
                *units - if stripe == fullest { needed } else { 0 } >= share / 2
            };
            assert!(share < SHARE_MIN || after.iter().enumerate().all(is_spread), "{after:?}");
        }
    }

    #[test]
    fn what_comes_back_first_is_not_needed() {
        let item = ItemId::new("a").expect("a name");
        let at = Timestamp::from_millis(1);
        let hold = Hold::between(at, at);
        let write = |(state, units): (OrderState, u64)| {
            let lines = Lines::new(vec![Line::units("a", units).expect("a line")]).expect("lines");
            let buyer = BuyerId::new("ann").expect("a name");
            let order = Order::queued(OrderId::from_uuid(uuid::Uuid::nil()), buyer, lines, at);
            let expect = match state {
                OrderState::Held(_) => Expect::Absent,
                _ => Expect::Status(OrderStatus::Held),
            };
            OrderWrite { order: order.with_state(state), expect }
        };
        let takes = |units| (OrderState::Held(hold), units);
        let gives = |units| (OrderState::Released(hold), units);
        for (writes, needed) in [
            (vec![takes(5), takes(2)], 7),
            (vec![gives(3), takes(5)], 2),
            (vec![takes(5), gives(3), takes(4)], 6),
            (vec![gives(3), takes(1)], 0),
        ] {
            let commit = Commit { claims: vec![], writes: writes.into_iter().map(write).collect() };
            assert_eq!(units_needed(&commit, &item), needed, "{commit:?}");
        }
    }
}
