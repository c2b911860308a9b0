//! The rules about buyers, [`BuyerRules`], on rows of the table.
//!
//! A buyer's live holds are counted in a row, and each order whose hold is in a
//! count says in which (`counted`), so that it leaves that count once and no other.
//! Nothing is counted while the rule is off. A process without the rule that ends a
//! hold which is in a count leaves the count alone, and raises the table's `holds_epoch`
//! instead: processes that start with the rule count anew from there.
//!
//! A pause is a row of the buyer and the item, with its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    ConditionCheck, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
};
use flux_core::protocol::{
    BuyerChanges, BuyerRules, BuyersNow, Commit, CommitOutcome, ConfirmRuling, Expect, HoldGain,
    OrderWrite, PauseChange, Refusal, confirm, judge,
};
use flux_core::seams::{ConfirmOutcome, Payment, SeamError};
use flux_core::{BuyerId, ItemId, OrderId, OrderStatus, Timestamp};
use tokio::sync::OnceCell;

use super::DynamoStore;
use super::draft::{Target, named_once};
use super::rows::{
    FORGOTTEN, Key, Row, SERVICE, get_number, number, opt_number, read_order, string,
};
use super::stock_row::Known;
use super::store::PAID;
use super::table::{Transacted, values};

/// Time after which the row of a buyer who holds nothing any more may be deleted.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Tries of a payment whose order changes meanwhile.
const PAY_TRIES: usize = 3;

/// The rules of one process.
#[derive(Debug, Default)]
pub(super) struct Hoarding {
    pub(super) rules: BuyerRules,
    /// The epoch of the counts, read when it is first needed.
    epoch: OnceCell<u64>,
    /// Whether holds that are in a count are no surprise any more.
    left_counts: AtomicBool,
}

impl Hoarding {
    pub(super) fn new(rules: BuyerRules) -> Self {
        Self { rules, ..Self::default() }
    }
}

/// What is known of buyers when a commit is drafted, and learned when it is cancelled.
#[derive(Debug, Default)]
pub(super) struct Buyers {
    pub(super) rules: BuyerRules,
    epoch: u64,
    /// Without the rule: whether holds that end are looked at.
    minds_counts: bool,
    /// Orders whose holds are in no count of this epoch.
    uncounted: HashSet<OrderId>,
    /// Buyers who have no row to take a hold from.
    rowless: HashSet<BuyerId>,
    /// Pauses that end later than one that begins.
    longer: HashMap<(ItemId, BuyerId), u64>,
    /// Whether an order was met that is in a count nobody keeps up.
    left_a_count: bool,
    holds: HashMap<BuyerId, u32>,
    pauses: HashMap<(ItemId, BuyerId), Timestamp>,
}

impl BuyersNow for Buyers {
    fn rules(&self) -> BuyerRules {
        self.rules
    }

    fn holds(&self, buyer: &BuyerId) -> u32 {
        self.holds.get(buyer).copied().unwrap_or(0)
    }

    fn paused_until(&self, item: &ItemId, buyer: &BuyerId) -> Option<Timestamp> {
        self.pauses.get(&(item.clone(), buyer.clone())).copied()
    }
}

fn begins(write: &OrderWrite) -> bool {
    write.expect == Expect::Absent && write.order.status() == OrderStatus::Held
}

fn ends(write: &OrderWrite) -> bool {
    write.expect == Expect::Status(OrderStatus::Held) && write.order.status() != OrderStatus::Held
}

/// The second, and one more, after which DynamoDB may delete a row.
fn deletable(at: Timestamp) -> u64 {
    (at + KEPT).as_millis() / 1_000 + 1
}

/// What a commit writes for the rules.
#[derive(Debug, Default)]
pub(super) struct BuyerRows {
    holds: Vec<(BuyerId, HoldGain, Timestamp)>,
    pauses: Vec<(ItemId, BuyerId, PauseChange)>,
}

impl Buyers {
    /// What is looked at when judging; nothing while the rules are off.
    pub(super) fn now(&self) -> Option<&dyn BuyersNow> {
        (!self.rules.are_off()).then_some(self)
    }

    /// The rows of a commit that `changes` so much.
    pub(super) fn rows(&self, commit: &Commit, changes: BuyerChanges<'_>) -> BuyerRows {
        let mut rows = BuyerRows::default();
        if self.rules.holds_max.is_some() {
            let mut holds: BTreeMap<&BuyerId, (HoldGain, Timestamp)> = BTreeMap::new();
            for write in &commit.writes {
                let buyer = &write.order.buyer;
                if begins(write) {
                    let (gain, last) = holds.entry(buyer).or_default();
                    (gain.holds, gain.begun) = (gain.holds + 1, gain.begun + 1);
                    *last = (*last).max(write.order.hold().map_or(*last, |hold| hold.expires_at));
                } else if ends(write) && self.is_taken_off(write) {
                    holds.entry(buyer).or_default().0.holds -= 1;
                }
            }
            let holds = holds.into_iter();
            rows.holds = holds.map(|(buyer, (gain, last))| (buyer.clone(), gain, last)).collect();
        }
        for ((item, buyer), mut change) in changes.pauses {
            let key = (item.clone(), buyer.clone());
            let longer = self.longer.get(&key).map(|end| Timestamp::from_millis(*end));
            if longer >= change.until {
                change.until = None;
            }
            if change != PauseChange::default() {
                rows.pauses.push((key.0, key.1, change));
            }
        }
        rows
    }

    fn forget_rows(&mut self) {
        self.holds.clear();
        self.pauses.clear();
    }

    fn is_taken_off(&self, write: &OrderWrite) -> bool {
        !self.uncounted.contains(&write.order.id) && !self.rowless.contains(&write.order.buyer)
    }

    /// Adds to an order's put the count that its hold is in, or what is expected of it.
    pub(super) fn count(
        &self,
        write: &OrderWrite,
        row: &mut Row,
    ) -> Option<(&'static str, Option<u64>)> {
        let is_on = self.rules.holds_max.is_some();
        if is_on && begins(write) {
            row.insert("counted".to_owned(), number(self.epoch));
            return None;
        }
        match (ends(write), is_on) {
            (true, true) if self.uncounted.contains(&write.order.id) => {
                Some(("(attribute_not_exists(counted) OR counted <> :counted)", Some(self.epoch)))
            }
            (true, true) => Some(("counted = :counted", Some(self.epoch))),
            (true, false) if self.minds_counts => Some(("attribute_not_exists(counted)", None)),
            _ => None,
        }
    }

    /// Learns from an order that is not as expected; `true` if all that is wrong is
    /// the count its hold is in.
    pub(super) fn learn_order(
        &mut self,
        write: &OrderWrite,
        found: Option<&Row>,
    ) -> Result<bool, SeamError> {
        let Some(found) = found.filter(|_| ends(write)) else { return Ok(false) };
        if found.get("status") != Some(&string(OrderStatus::Held)) {
            return Ok(false);
        }
        if self.rules.holds_max.is_none() {
            self.left_a_count = true;
        } else if opt_number(found, "counted")? == Some(self.epoch) {
            self.uncounted.remove(&write.order.id);
        } else {
            self.uncounted.insert(write.order.id);
        }
        Ok(true)
    }

    /// Learns from the row of a buyer whose holds were not as expected.
    pub(super) fn learn_holds(
        &mut self,
        commit: &Commit,
        buyer: &BuyerId,
        found: Option<&Row>,
    ) -> Result<(), SeamError> {
        let of_buyer = |write: &&OrderWrite| write.order.buyer == *buyer;
        if !commit.writes.iter().filter(of_buyer).any(begins) {
            self.rowless.insert(buyer.clone());
            return Ok(());
        }
        // Holds that the count does not have end as well, and make no room in it.
        let beside = commit.writes.iter().filter(of_buyer);
        let beside = beside.filter(|write| ends(write) && !self.is_taken_off(write)).count();
        let holds = holds_of(found)?.saturating_add(u32::try_from(beside).unwrap_or(u32::MAX));
        self.holds.insert(buyer.clone(), holds);
        Ok(())
    }

    /// Learns from the row of a pause.
    pub(super) fn learn_pause(
        &mut self,
        item: &ItemId,
        buyer: &BuyerId,
        found: Option<&Row>,
    ) -> Result<(), SeamError> {
        if let Some(end) = paused_until(found)? {
            let key = (item.clone(), buyer.clone());
            self.longer.insert(key.clone(), end.as_millis());
            self.pauses.insert(key, end);
        }
        Ok(())
    }
}

fn holds_of(row: Option<&Row>) -> Result<u32, SeamError> {
    let holds = row.map(|row| get_number(row, "holds")).transpose()?.unwrap_or(0);
    Ok(u32::try_from(holds).unwrap_or(u32::MAX))
}

fn paused_until(row: Option<&Row>) -> Result<Option<Timestamp>, SeamError> {
    let until = row.map(|row| opt_number(row, "again_from")).transpose()?.flatten();
    Ok(until.map(Timestamp::from_millis))
}

impl BuyerRows {
    /// The actions, each with what it is about.
    pub(super) fn actions(&self, table: &str, buyers: &Buyers) -> Vec<(Target, TransactWriteItem)> {
        let holds = self.holds.iter().map(move |(buyer, gain, last)| {
            let key = Key::holder(buyers.epoch, buyer);
            (Target::Holds(buyer.clone()), write_holds(table, key, *gain, buyers.rules, *last))
        });
        let pauses = self.pauses.iter().map(move |(item, buyer, change)| {
            let action = write_pause(table, Key::pause(item, buyer), *change);
            (Target::Pause(item.clone(), buyer.clone()), action)
        });
        holds.chain(pauses).collect()
    }
}

/// Adds to a buyer's live holds, as far as the rule allows.
fn write_holds(
    table: &str,
    key: Key,
    gain: HoldGain,
    rules: BuyerRules,
    last: Timestamp,
) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key.into_row()))
        .expression_attribute_values(":gain", number(gain.holds))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    // G6: the holds there are and those that begin; no row stands for none.
    let update = match rules.holds_max.and_then(|max| gain.live_max(max)) {
        Some(live_max) => update
            .update_expression(format!("ADD holds :gain SET {FORGOTTEN} = :deletable"))
            .condition_expression("attribute_not_exists(holds) OR holds <= :live_max")
            .expression_attribute_values(":live_max", number(live_max))
            .expression_attribute_values(":deletable", number(deletable(last))),
        None => update
            .update_expression("ADD holds :gain")
            .condition_expression("holds >= :least")
            .expression_attribute_values(":least", number(-gain.holds)),
    };
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}

/// Looks whether a pause is over where a hold begins, and begins one where a hold ends.
fn write_pause(table: &str, key: Key, change: PauseChange) -> TransactWriteItem {
    // G6: a hold that begins, and the end of the pause before it.
    let earliest = change.over_by.into_iter().chain(change.until).min();
    let earliest = number(earliest.unwrap_or_default().as_millis());
    let condition = "attribute_not_exists(again_from) OR again_from <= :earliest";
    let Some(until) = change.until else {
        let check = ConditionCheck::builder()
            .table_name(table)
            .set_key(Some(key.into_row()))
            .condition_expression(condition)
            .expression_attribute_values(":earliest", earliest)
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let check = check.build().expect("table, key and condition are set");
        return TransactWriteItem::builder().condition_check(check).build();
    };
    let named = values([
        (":earliest", earliest),
        (":until", number(until.as_millis())),
        (":deletable", number(deletable(until))),
    ]);
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(key.into_row()))
        .update_expression(format!("SET again_from = :until, {FORGOTTEN} = :deletable"))
        .condition_expression(condition)
        .set_expression_attribute_values(Some(named))
        .return_values_on_condition_check_failure(OnFailure::AllOld);
    let update = update.build().expect("table, key and expression are set");
    TransactWriteItem::builder().update(update).build()
}

impl DynamoStore {
    /// What a commit begins with.
    pub(super) async fn buyers(&self) -> Result<Buyers, SeamError> {
        let rules = self.hoarding.rules;
        let minds_counts = !self.hoarding.left_counts.load(Ordering::Relaxed);
        let epoch = if rules.holds_max.is_some() { self.epoch().await? } else { 0 };
        Ok(Buyers { rules, epoch, minds_counts, ..Buyers::default() })
    }

    async fn epoch(&self) -> Result<u64, SeamError> {
        let read = async || {
            let row = self.table.get(Key::format()).await?;
            let epoch = row.map(|row| opt_number(&row, "holds_epoch")).transpose()?.flatten();
            Ok(epoch.unwrap_or(0))
        };
        self.hoarding.epoch.get_or_try_init(read).await.copied()
    }

    /// Has those who count holds from now on begin anew, as this process does not take
    /// off what it ends. Once in its life.
    pub(super) async fn leave_counts(&self) -> Result<(), SeamError> {
        if !self.hoarding.left_counts.load(Ordering::Relaxed) {
            let next = self.table.update(Key::format()).update_expression("ADD holds_epoch :one");
            let next = next.expression_attribute_values(":one", number(1));
            self.table.write(next).await?;
            self.hoarding.left_counts.store(true, Ordering::Relaxed);
            tracing::warn!(
                "this process has no limit of holds for each buyer, and others on table {:?} have: start all of them with the same one",
                self.table.name
            );
        }
        Ok(())
    }

    /// Does what was learned to be done before a commit is drafted anew.
    pub(super) async fn heed(&self, buyers: &mut Buyers) -> Result<(), SeamError> {
        if std::mem::take(&mut buyers.left_a_count) {
            self.leave_counts().await?;
            buyers.minds_counts = false;
        }
        Ok(())
    }

    /// The answer to a commit that the rules refuse by what is known: the rule's, by the
    /// rows as they are. `None` when what was known is no longer so.
    pub(super) async fn told_barred(
        &self,
        commit: &Commit,
        known: &[Known],
        buyers: &mut Buyers,
    ) -> Result<Option<CommitOutcome>, SeamError> {
        let (mut holders, mut paused) = (HashSet::new(), HashSet::new());
        for write in commit.writes.iter().filter(|write| begins(write)) {
            let order = &write.order;
            if buyers.rules.holds_max.is_some() {
                holders.insert(&order.buyer);
            }
            if buyers.rules.pause().is_some() {
                paused.extend(order.lines.iter().map(|line| (&line.item, &order.buyer)));
            }
        }
        let epoch = buyers.epoch;
        let holder = |buyer: &BuyerId| Key::holder(epoch, buyer);
        let keys = holders.iter().map(|buyer| holder(buyer));
        let keys = keys.chain(paused.iter().map(|(item, buyer)| Key::pause(item, buyer)));
        let rows = self.table.get_all(keys.collect()).await?;
        buyers.forget_rows();
        for buyer in holders {
            buyers.holds.insert(buyer.clone(), holds_of(rows.get(&holder(buyer)))?);
        }
        for (item, buyer) in paused {
            if let Some(end) = paused_until(rows.get(&Key::pause(item, buyer)))? {
                buyers.pauses.insert((item.clone(), buyer.clone()), end);
            }
        }
        let now = |item: &ItemId| {
            known.iter().find(|known| known.head.id == *item).map(|known| known.now(0))
        };
        let refusal = judge(commit, now, named_once(), |_, _| 0, buyers.now()).err();
        buyers.forget_rows();
        Ok(refusal.filter(|refusal| matches!(refusal, Refusal::Conflict { .. })).map(Into::into))
    }

    /// Pays an order, and takes its hold off the count it is in.
    pub(super) async fn pay(&self, payment: &Payment) -> Result<ConfirmOutcome, SeamError> {
        let Payment { order: id, payment: paid, at, .. } = payment;
        for _ in 0..PAY_TRIES {
            let minds_counts = self.hoarding.rules.holds_max.is_some()
                || !self.hoarding.left_counts.load(Ordering::Relaxed);
            let (row, order) = match self.try_pay(payment, minds_counts).await? {
                Ok(paid) => return Ok(paid),
                Err(None) => return Ok(ConfirmOutcome::NotFound),
                Err(Some(row)) => {
                    let order = read_order(&row)?;
                    if order.status() == OrderStatus::Queued {
                        return Ok(ConfirmOutcome::NotFound);
                    }
                    (row, order)
                }
            };
            let write = match confirm(&order, paid, *at) {
                ConfirmRuling::Repeat => return Ok(ConfirmOutcome::Settled(order)),
                ConfirmRuling::Late => return Ok(ConfirmOutcome::Late(order)),
                ConfirmRuling::NotHeld => return Ok(ConfirmOutcome::NotHeld(order)),
                ConfirmRuling::Owe(write) => match self.write_money(&write).await? {
                    true => return Ok(ConfirmOutcome::NotHeld(write.order)),
                    false => continue,
                },
                ConfirmRuling::Write(write) => write,
            };
            let Some(counted) = opt_number(&row, "counted")? else {
                let reason = format!("a payment of {id} was refused for no reason");
                return Err(SeamError::broken(SERVICE, reason));
            };
            if self.hoarding.rules.holds_max.is_none() {
                self.leave_counts().await?;
                continue;
            }
            if self.pay_counted(&write, counted).await? {
                self.held.changed();
                return Ok(ConfirmOutcome::Settled(write.order));
            }
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// Pays an order whose hold is in a count, by a write of both rows. `false` if either
    /// is not as it was.
    async fn pay_counted(&self, write: &OrderWrite, counted: u64) -> Result<bool, SeamError> {
        let key = Key::holder(counted, &write.order.buyer);
        let one = HoldGain { holds: -1, begun: 0 };
        let row = self.table.get(key.clone()).await?;
        let take_off = (holds_of(row.as_ref())? > 0).then(|| {
            write_holds(&self.table.name, key, one, self.hoarding.rules, Timestamp::default())
        });
        let payment = write.order.payment_ref().expect("it was paid");
        let paid = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(Key::order(write.order.id).into_row()))
            .update_expression(PAID)
            .condition_expression("#status = :held AND counted = :counted")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":confirmed", string(OrderStatus::Confirmed))
            .expression_attribute_values(":held", string(OrderStatus::Held))
            .expression_attribute_values(":payment", string(payment))
            .expression_attribute_values(":counted", number(counted));
        let paid = paid.build().expect("table, key and expression are set");
        let paid = TransactWriteItem::builder().update(paid).build();
        match self.table.transact([paid].into_iter().chain(take_off).collect()).await? {
            Transacted::Applied => Ok(true),
            Transacted::Cancelled(_) => Ok(false),
            Transacted::Unknown(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_may_go_once_its_time_is_over_and_not_before() {
        let at = Timestamp::from_millis(1_700_000_000_999);
        assert_eq!(deletable(at), 1_700_000_000 + 7 * 24 * 3_600 + 1);
    }
}
