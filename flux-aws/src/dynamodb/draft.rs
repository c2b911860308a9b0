//! A commit in DynamoDB's words: the stock rows as they would be, the orders,
//! the counts of capped buyers, the logs, each under its condition. What it
//! does, and so what the conditions are, is for
//! [`judge`](flux_core::protocol::judge) to say.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use flux_core::protocol::{Changes, Commit, Expect, Gain, OrderWrite, Refusal, judge};
use flux_core::{BuyerId, ItemId, OrderId};
use uuid::Uuid;

use super::conditions::{write_buyer, write_order, write_stock_row};
use super::format::DueKeys;
use super::hoarding::{BuyerRows, Buyers};
use super::rows::{Entry, FORGOTTEN, Key, Row, forgotten_at, number, string};
use super::stock_row::{Known, StockRow};

/// A stock row the commit rests on.
#[derive(Debug)]
pub(super) struct StockChange {
    pub(super) item: ItemId,
    pub(super) stripe: usize,
    before: StockRow,
    pub(super) after: StockRow,
}

/// The row that an action of the transaction writes or checks.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Order(OrderId),
    StockRow(ItemId, usize),
    Buyer(ItemId, BuyerId),
    Holds(BuyerId),
    Pause(ItemId, BuyerId),
    Log,
}

/// A transaction in the making; see the module.
#[derive(Debug)]
pub(super) struct Draft<'c> {
    commit: &'c Commit,
    keep_rejected: Duration,
    due_keys: &'c DueKeys,
    pub(super) stock_changes: Vec<StockChange>,
    gains: Vec<(Target, Key, Gain)>,
    buyers: BuyerRows,
    logs: Vec<Row>,
}

impl<'c> Draft<'c> {
    /// Drafts a commit. `stripe` is the one to keep to; `None` chooses the fullest. Orders
    /// that are turned down are remembered for `keep_rejected`.
    ///
    /// # Errors
    /// The rule's refusal, if it stands whatever the orders and the buyers' rows are.
    pub(super) fn new(
        commit: &'c Commit,
        known: &[Known],
        stripe: Option<usize>,
        buyers: &Buyers,
        keep_rejected: Duration,
        due_keys: &'c DueKeys,
    ) -> Result<Self, Refusal> {
        let of = |item: &ItemId| known.iter().find(|known| known.head.id == *item);
        let stripe_of = |known: &Known| stripe.unwrap_or_else(|| known.fullest());
        let now = |item: &ItemId| of(item).map(|known| known.now(stripe_of(known)));
        let Changes { stocks, gains, buyers: changes } =
            judge(commit, now, named_once(), |_, _| 0, buyers.now())?;
        let changed = stocks.into_iter().filter_map(|(item, stock)| {
            let known = of(item)?;
            let stripe = stripe_of(known);
            let before = known.stock_rows[stripe].clone();
            let after = StockRow { stock, ..before.clone() };
            Some(StockChange { item: item.clone(), stripe, before, after })
        });
        let gained = gains.into_iter().filter(|(_, gain)| gain.units != 0);
        let gained = gained.filter_map(|((item, buyer), gain)| {
            let key = Key::buyer(item, of(item)?.head.capped_since, buyer);
            Some((Target::Buyer(item.clone(), buyer.clone()), key, gain))
        });
        let mut draft = Self {
            commit,
            keep_rejected,
            due_keys,
            stock_changes: changed.collect(),
            gains: gained.collect(),
            buyers: buyers.rows(commit, changes),
            logs: Vec::new(),
        };
        draft.name_orders();
        for change in &mut draft.stock_changes {
            change.after.revision += u64::from(change.after != change.before);
        }
        Ok(draft)
    }

    /// Enters new orders in the tails of their items' stock rows, or as strays where
    /// nobody could claim one. One of these is an order's home.
    fn name_orders(&mut self) {
        let mut strays: BTreeMap<&ItemId, Vec<(Entry, Option<u64>)>> = BTreeMap::new();
        for write in self.commit.writes.iter().filter(|write| write.expect == Expect::Absent) {
            let order = &write.order;
            let forgotten = forgotten_at(order, self.keep_rejected);
            let second = order.decided_at().map_or(0, |at| at.as_millis() / 1_000);
            let mut named: Vec<&ItemId> = Vec::with_capacity(order.lines.len());
            let home = order.lines.iter().map(|line| &line.item);
            let home =
                home.clone().find(|item| self.stock_changes.iter().any(|p| p.item == **item));
            let home = home.unwrap_or(&order.lines[0].item);
            for line in order.lines.iter() {
                if named.contains(&&line.item) {
                    continue;
                }
                named.push(&line.item);
                let entry = Entry::new(order, *home == line.item);
                let change = self.stock_changes.iter_mut().find(|c| c.item == line.item);
                match (change, forgotten) {
                    (Some(change), Some(at)) => change.after.turn_down(entry, second, at),
                    (Some(change), None) => change.after.tail.push(entry),
                    (None, at) => strays.entry(&line.item).or_default().push((entry, at)),
                }
            }
        }
        for (item, entries) in strays {
            // Ids that grow with time, so that a listing can go on where it was.
            let mut row = Key::stray(Uuid::now_v7()).into_row();
            row.insert("item".to_owned(), string(item));
            // Nobody could claim the item, so all of them were turned down.
            let forgotten = entries.iter().map(|(_, at)| *at).collect::<Option<Vec<_>>>();
            if let Some(at) = forgotten.and_then(|all| all.into_iter().max()) {
                row.insert(FORGOTTEN.to_owned(), number(at));
            }
            let entries: Vec<Entry> = entries.into_iter().map(|(entry, _)| entry).collect();
            row.insert("orders".to_owned(), Entry::write_all(&entries));
            self.logs.push(row);
        }
        for StockChange { item, stripe, after, .. } in &mut self.stock_changes {
            self.logs.extend(after.take_log(item, *stripe));
        }
    }

    /// The transaction, each action with what it is about.
    pub(super) fn actions(&self, table: &str, buyers: &Buyers) -> Vec<(Target, TransactWriteItem)> {
        let mut actions = Vec::with_capacity(self.commit.writes.len() + self.stock_changes.len());
        for write in &self.commit.writes {
            let action = write_order(table, write, buyers, self.keep_rejected, self.due_keys);
            actions.push((Target::Order(write.order.id), action));
        }
        for StockChange { item, stripe, before, after } in &self.stock_changes {
            let action = write_stock_row(table, item, *stripe, before, after);
            actions.push((Target::StockRow(item.clone(), *stripe), action));
        }
        for (target, key, gain) in &self.gains {
            actions.push((target.clone(), write_buyer(table, key.clone(), *gain)));
        }
        actions.extend(self.buyers.actions(table, buyers));
        for row in &self.logs {
            let put = Put::builder().table_name(table).set_item(Some(row.clone()));
            let put = put.build().expect("table and row are set");
            actions.push((Target::Log, TransactWriteItem::builder().put(put).build()));
        }
        actions
    }
}

/// A filter that passes each order once: DynamoDB takes one action on a row.
pub(super) fn named_once<'c>() -> impl FnMut(&'c OrderWrite) -> bool {
    let mut named = HashSet::new();
    move |write| named.insert(write.order.id)
}
