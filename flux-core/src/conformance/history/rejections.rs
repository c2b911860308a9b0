//! Whether the reasons of rejections were so, by what the claims of their writes
//! had shown.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::replay::{Turn, bursts, token_of, turn_of, units_of};
use super::{Fault, Grant, Log, Write};
use crate::protocol::{
    Ask, BuyerId, BuyerRules, Effect, ItemId, ItemKind, ItemSpec, Line, OrderId, Reason,
};

/// The claims that were granted, by item.
type Grants<'g> = BTreeMap<&'g ItemId, Vec<&'g Grant>>;

pub(super) fn check(
    log: &Log,
    applied: &[&Write],
    grants: &Grants<'_>,
    rules: BuyerRules,
) -> Vec<Fault> {
    let definitions = Definitions::of(grants);
    let at_limit = at_limit(log, applied, grants);
    let mut faults = Vec::new();
    for write in applied {
        for order in write.commit.writes.iter().map(|write| &write.order) {
            let Some(reason) = order.reason() else { continue };
            let mut lines = order.lines.iter();
            let is_true = match reason {
                Reason::UnknownItem => {
                    let since = log.asked_at(order.id);
                    let told: HashSet<&ItemId> = log
                        .missing
                        .iter()
                        .filter(|missing| (since..=write.began).contains(&missing.ended))
                        .map(|missing| &missing.item)
                        .collect();
                    lines.any(|line| match definitions.of_write(write, &line.item) {
                        Some(spec) => !is_of_its_kind(line, spec),
                        None => told.contains(&line.item),
                    })
                }
                Reason::NotOpen => lines.any(|line| {
                    definitions.any(write, &line.item, |spec| {
                        spec.opens_at.is_some_and(|opens| order.placed_at < opens)
                    })
                }),
                Reason::Closed => lines.any(|line| {
                    definitions.any(write, &line.item, |spec| {
                        spec.closes_at.is_some_and(|closes| order.placed_at >= closes)
                    })
                }),
                Reason::BuyerLimit => {
                    let is_capped = |line: &Line| {
                        token_of(write, &line.item).is_none()
                            && definitions.any(write, &line.item, |s| s.max_per_buyer.is_some())
                    };
                    !rules.are_off() || at_limit.contains(&order.id) || lines.any(is_capped)
                }
                _ => true,
            };
            if !is_true && let Some(first) = order.lines.first() {
                let (order, item) = (order.id, first.item.clone());
                faults.push(Fault::FalselyRefused { order, item, reason });
            }
        }
    }
    faults
}

/// Every definition that a claim has shown.
struct Definitions<'g> {
    by_turn: HashMap<(&'g ItemId, Turn), &'g ItemSpec>,
    all: &'g Grants<'g>,
}

impl<'g> Definitions<'g> {
    fn of(all: &'g Grants<'g>) -> Self {
        let each = all.values().flatten();
        let by_turn = each.map(|grant| ((&grant.spec.id, turn_of(grant)), &*grant.spec)).collect();
        Self { by_turn, all }
    }

    /// The definition that the write goes by, where it has claimed the item.
    fn of_write(&self, write: &Write, item: &ItemId) -> Option<&'g ItemSpec> {
        let turn = (write.life, token_of(write, item)?);
        self.by_turn.get(&(item, turn)).copied()
    }

    /// Whether `rule` is true of the definition that the write goes by; where that is
    /// not known, of any.
    fn any(&self, write: &Write, item: &ItemId, rule: impl Fn(&ItemSpec) -> bool) -> bool {
        match self.of_write(write, item) {
            Some(spec) => rule(spec),
            None => self.all.get(item).into_iter().flatten().any(|grant| rule(&grant.spec)),
        }
    }
}

/// Whether the line asks for what the item has: units of a pool, or seats of a hall.
fn is_of_its_kind(line: &Line, spec: &ItemSpec) -> bool {
    matches!(
        (&line.ask, &spec.kind),
        (Ask::Units(_), ItemKind::Pool(_)) | (Ask::Seats(_), ItemKind::Seats(_))
    )
}

/// The units that a buyer had of an item, from a burst of writes on.
struct Had {
    began: u64,
    /// `None` while a write of the burst has no answer.
    ended: Option<u64>,
    /// The most in the course of the burst.
    most: i64,
    after: i64,
}

/// The rejected orders that did not fit under a cap: at a moment since they were
/// first asked the buyer may have had that much.
fn at_limit(log: &Log, applied: &[&Write], grants: &Grants<'_>) -> HashSet<OrderId> {
    let mut at_limit = HashSet::new();
    for (item, grants) in grants {
        let caps: HashMap<Turn, i64> = grants
            .iter()
            .filter_map(|grant| Some((turn_of(grant), grant.spec.max_per_buyer?.get().into())))
            .collect();
        let mut buyers: HashMap<&BuyerId, Vec<Had>> = HashMap::new();
        for (turn, burst) in bursts(item, applied) {
            let began = burst.iter().map(|write| write.began).min().unwrap_or_default();
            let ended: Option<Vec<u64>> = burst.iter().map(|write| write.ended).collect();
            let ended = ended.and_then(|ended| ended.into_iter().max());
            let writes = || burst.iter().flat_map(|write| &write.commit.writes);
            let mut changes: HashMap<&BuyerId, (i64, i64)> = HashMap::new();
            for write in writes() {
                let (taken, given_back) = changes.entry(&write.order.buyer).or_default();
                match write.effect() {
                    Effect::Takes => *taken += units_of(&write.order, item),
                    Effect::GivesBack => *given_back += units_of(&write.order, item),
                    Effect::None => {}
                }
            }
            for (buyer, (taken, given_back)) in changes {
                let had = buyers.entry(buyer).or_default();
                let most = had.last().map_or(0, |had| had.after) + taken;
                had.push(Had { began, ended, most, after: most - given_back });
            }
            let Some(cap) = caps.get(&turn) else { continue };
            for order in writes().map(|write| &write.order) {
                if order.reason() == Some(Reason::BuyerLimit)
                    && let Some(had) = buyers.get(&order.buyer)
                    && most_since(had, log.asked_at(order.id)) + units_of(order, item) > *cap
                {
                    at_limit.insert(order.id);
                }
            }
        }
    }
    at_limit
}

/// The most that the buyer had since that step.
fn most_since(had: &[Had], step: u64) -> i64 {
    let mut most = 0;
    for (n, then) in had.iter().enumerate().rev() {
        if had.get(n + 1).is_some_and(|next| next.began < step) {
            break;
        }
        most = most.max(then.after);
        if then.ended.is_none_or(|ended| ended >= step) {
            most = most.max(then.most);
        }
    }
    most
}
