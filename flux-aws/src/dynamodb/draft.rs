//! What a commit would write, worked out before anything is: the stock_rows as
//! they would be, the orders, the counts of capped buyers, the logs.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{
    AttributeValue as Value, ConditionCheck, Put, ReturnValuesOnConditionCheckFailure as OnFailure,
    TransactWriteItem, Update,
};
use flux_core::protocol::{Commit, Effect, Expect, OverCap, Stock};
use flux_core::{BuyerId, ItemId, OrderId};
use uuid::Uuid;

use super::rows::{Entry, Key, Row, number, order_row, string};
use super::stock_row::{Known, StockRow, TAIL_MAX};
use super::table::values;

/// A shelf the commit rests on.
#[derive(Debug)]
pub(super) struct StockChange {
    pub(super) item: ItemId,
    pub(super) stripe: usize,
    before: StockRow,
    pub(super) after: StockRow,
}

/// What an action of the transaction is about.
#[derive(Debug)]
pub(super) enum Target {
    Order(OrderId),
    StockRow(ItemId, usize),
    Buyer(ItemId, BuyerId),
    Log,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Draft<'c> {
    commit: &'c Commit,
    pub(super) stock_changes: Vec<StockChange>,
    /// Units that buyers of capped items would gain or lose, and the cap.
    buyers: BTreeMap<(&'c ItemId, &'c BuyerId), (i64, u32, u64)>,
    logs: Vec<Row>,
    /// Items of which more is asked than there is where we look.
    pub(super) overtaken: Vec<ItemId>,
    /// Buyers who would gain more than a whole cap; what they have is not
    /// known, so it says `u32::MAX`.
    pub(super) over_cap: Vec<OverCap>,
}

impl<'c> Draft<'c> {
    /// `stripe` is the one to keep to; `None` chooses the fullest.
    pub(super) fn new(commit: &'c Commit, known: &[Known], stripe: Option<usize>) -> Self {
        let fullest = |known: &Known| {
            let available = |k: &usize| known.stock_rows[*k].stock.available();
            (0..known.stock_rows.len()).max_by_key(available).unwrap_or(0)
        };
        let change = |known: &Known| {
            let stripe = stripe.unwrap_or_else(|| fullest(known));
            let before = known.stock_rows[stripe].clone();
            StockChange { item: known.head.id.clone(), stripe, after: before.clone(), before }
        };
        let mut draft = Self {
            commit,
            stock_changes: known.iter().map(change).collect(),
            buyers: BTreeMap::new(),
            logs: Vec::new(),
            overtaken: Vec::new(),
            over_cap: Vec::new(),
        };
        draft.move_stock(known);
        draft.name_orders();
        draft.over_cap = draft.beyond_a_cap();
        for change in &mut draft.stock_changes {
            change.after.revision += u64::from(change.after != change.before);
        }
        draft
    }

    fn move_stock(&mut self, known: &[Known]) {
        for write in &self.commit.writes {
            let takes = match write.effect() {
                Effect::Takes => true,
                Effect::GivesBack => false,
                Effect::None => continue,
            };
            for line in write.order.lines.iter() {
                let at = known.iter().position(|known| known.head.id == line.item);
                let at = at.expect("a commit that moves stock has its claims");
                let (spec, stock) = (&known[at].spec, &mut self.stock_changes[at].after.stock);
                if !takes {
                    stock.give_back(spec, &line.ask);
                } else if stock.take(spec, &line.ask).is_err()
                    && !self.overtaken.contains(&line.item)
                {
                    self.overtaken.push(line.item.clone());
                }
                if let Some(cap) = spec.max_per_buyer {
                    let units = i64::from(line.ask.units());
                    let since = known[at].head.capped_since;
                    let gain = self.buyers.entry((&line.item, &write.order.buyer));
                    let gain = gain.or_insert((0, cap.get(), since));
                    gain.0 += if takes { units } else { -units };
                }
            }
        }
    }

    /// Names new orders on the stock_rows of their items, or as strays where
    /// nobody could claim one. One of these is an order's home.
    fn name_orders(&mut self) {
        let mut strays: BTreeMap<&ItemId, Vec<Entry>> = BTreeMap::new();
        for write in self.commit.writes.iter().filter(|write| write.expect == Expect::Absent) {
            let order = &write.order;
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
                match self.stock_changes.iter_mut().find(|change| change.item == line.item) {
                    Some(change) => change.after.tail.push(entry),
                    None => strays.entry(&line.item).or_default().push(entry),
                }
            }
        }
        for (item, entries) in strays {
            // Ids that grow with time, so that a listing can go on where it was.
            let mut row = Key::stray(Uuid::now_v7()).into_row();
            row.insert("item".to_owned(), string(item));
            row.insert("orders".to_owned(), Entry::write_all(&entries));
            self.logs.push(row);
        }
        for StockChange { item, stripe, after, .. } in &mut self.stock_changes {
            if after.tail.len() > TAIL_MAX {
                let mut row = Key::log(item, *stripe, after.logged).into_row();
                row.insert("orders".to_owned(), Entry::write_all(&after.tail));
                self.logs.push(row);
                after.logged += after.tail.len() as u64;
                after.tail.clear();
            }
        }
    }

    fn beyond_a_cap(&self) -> Vec<OverCap> {
        let beyond = |(_, (gain, cap, _)): &(_, &(i64, u32, u64))| *gain > i64::from(*cap);
        let over = |((item, buyer), _): (&(&ItemId, &BuyerId), _)| OverCap {
            item: ItemId::clone(item),
            buyer: BuyerId::clone(buyer),
            live: u32::MAX,
        };
        self.buyers.iter().filter(beyond).map(over).collect()
    }

    /// The transaction, each action with what it is about.
    pub(super) fn actions(&self, table: &str) -> Vec<(Target, TransactWriteItem)> {
        let mut actions = Vec::with_capacity(self.commit.writes.len() + self.stock_changes.len());
        for write in &self.commit.writes {
            let put = Put::builder().table_name(table).set_item(Some(order_row(&write.order)));
            let put = match write.expect {
                Expect::Absent => put.condition_expression("attribute_not_exists(pk)"),
                Expect::Status(status) => put
                    .condition_expression("#status = :status")
                    .expression_attribute_names("#status", "status")
                    .expression_attribute_values(":status", string(status)),
            };
            let put = put.build().expect("table and row are set");
            let action = TransactWriteItem::builder().put(put).build();
            actions.push((Target::Order(write.order.id), action));
        }
        for StockChange { item, stripe, before, after } in &self.stock_changes {
            let action = write_stock_row(table, item, *stripe, before, after);
            actions.push((Target::StockRow(item.clone(), *stripe), action));
        }
        for ((item, buyer), (gain, cap, since)) in &self.buyers {
            if *gain != 0 {
                let action = write_buyer(table, Key::buyer(item, *since, buyer), *gain, *cap);
                let target = Target::Buyer(ItemId::clone(item), BuyerId::clone(buyer));
                actions.push((target, action));
            }
        }
        for row in &self.logs {
            let put = Put::builder().table_name(table).set_item(Some(row.clone()));
            let put = put.build().expect("table and row are set");
            actions.push((Target::Log, TransactWriteItem::builder().put(put).build()));
        }
        actions
    }
}

/// Writes a shelf if it is as it was, or only holds its token against it if
/// nothing changes.
fn write_stock_row(
    table: &str,
    item: &ItemId,
    stripe: usize,
    before: &StockRow,
    after: &StockRow,
) -> TransactWriteItem {
    let key = Key::stock_row(item, stripe).into_row();
    if before == after {
        let check = ConditionCheck::builder()
            .table_name(table)
            .set_key(Some(key))
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":epoch", number(before.token.0))
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let check = check.build().expect("table, key and condition are set");
        return TransactWriteItem::builder().condition_check(check).build();
    }
    let mut set = Vec::new();
    let mut named = values([
        (":was_epoch", number(before.token.0)),
        (":was_revision", number(before.revision)),
    ]);
    let was = before.attributes();
    for (name, value) in after.attributes() {
        if !was.contains(&(name, value.clone())) {
            set.push(format!("{name} = :{name}"));
            named.insert(format!(":{name}"), value);
        }
    }
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key))
        .update_expression(format!("SET {}", set.join(", ")))
        .condition_expression("epoch = :was_epoch AND revision = :was_revision")
        .set_expression_attribute_values(Some(named))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}

/// Adds to what a buyer holds or owns, as far as the cap allows.
fn write_buyer(table: &str, key: Key, gain: i64, cap: u32) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key.into_row()))
        .update_expression("ADD live :gain")
        .expression_attribute_values(":gain", number(gain))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    // Who gives back may be above a cap that came later.
    let update = if gain < 0 {
        update
    } else {
        let room: Value = number(i64::from(cap) - gain);
        update
            .condition_expression("attribute_not_exists(live) OR live <= :room")
            .expression_attribute_values(":room", room)
    };
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}

/// Brings the whole stock of a striped item to its fullest stripe.
pub(super) fn consolidating(table: &str, known: &Known) -> Vec<TransactWriteItem> {
    let available = |stripe: &usize| known.stock_rows[*stripe].stock.available();
    let fullest = (0..known.stock_rows.len()).max_by_key(available).unwrap_or(0);
    let all = known.stock().available();
    let mut actions = Vec::new();
    for (stripe, before) in known.stock_rows.iter().enumerate() {
        let available = if stripe == fullest { all } else { 0 };
        if before.stock.available() != available {
            let mut after = before.clone();
            after.stock = Stock::Pool { available };
            after.revision += 1;
            actions.push(write_stock_row(table, &known.head.id, stripe, before, &after));
        }
    }
    actions
}
