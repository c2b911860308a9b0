//! Commits: each one transaction of every order, stock row, capped buyer and log
//! it touches, under the conditions the trait asks for.
//!
//! A stock row is written as a whole, if its token and its revision are still what
//! they were when its stock was last seen. Within one call, commits that share
//! an item go one after the other, and those on stripes of their own side by
//! side. The conditions find out what goes wrong between processes.

use std::collections::{BTreeSet, HashMap, HashSet};

use aws_sdk_dynamodb::types::CancellationReason;
use flux_core::protocol::{
    Commit, CommitOutcome, FencingToken, ItemNow, OrderWrite, OverCap, Refusal, judge,
};
use flux_core::seams::SeamError;
use flux_core::{BuyerId, ItemId, OrderId};
use futures_util::StreamExt;

use super::DynamoStore;
use super::draft::{Draft, StockChange, Target, named_once};
use super::hoarding::Buyers;
use super::rows::{Key, Row, SERVICE, get_number};
use super::stock_row::{Known, StockRow};
use super::stripes::Rebalanced;
use super::table::{Transacted, in_order};

/// Actions in one transaction; DynamoDB takes no more.
pub(super) const ACTIONS_MAX: usize = 100;
/// Tries of a commit whose stock row was written meanwhile under its own token.
const STALE_TRIES: usize = 10;

/// One of a call's commits, and the stripe it is to keep to.
#[derive(Debug, Clone, Copy)]
struct Turn {
    number: usize,
    stripe: Option<usize>,
}

type Outcome = Result<CommitOutcome, SeamError>;

impl DynamoStore {
    pub(super) async fn commit_all(
        &self,
        commits: &[Commit],
    ) -> Result<Vec<CommitOutcome>, SeamError> {
        let mut outcomes: Vec<Option<Outcome>> = commits.iter().map(|_| None).collect();
        let chains = self.chains(commits);
        let chains = in_order(chains.into_iter().map(|chain| self.run_chain(commits, chain)));
        let done: Vec<Vec<(usize, Option<Outcome>)>> = chains.collect().await;
        let mut left = Vec::new();
        for (number, outcome) in done.into_iter().flatten() {
            if outcome.is_none() {
                left.push(number);
            }
            outcomes[number] = outcome;
        }
        // Commits that found too little on their stripe go to the fullest.
        left.sort_unstable();
        for number in left {
            let commit = &commits[number];
            let outcome = match self.spread_again(commit).await {
                Ok(()) => self.commit_one(commit, None).await,
                Err(error) => Err(error),
            };
            outcomes[number] = outcome.transpose();
        }
        settle(outcomes)
    }

    /// Chains of commits that go one after the other: those that share an item, but
    /// for commits on one striped item alone, which share its stripes out.
    fn chains(&self, commits: &[Commit]) -> Vec<Vec<Turn>> {
        let mut joined: HashSet<&ItemId> = HashSet::new();
        for commit in commits.iter().filter(|commit| commit.claims.len() > 1) {
            joined.extend(commit.claims.iter().map(|(item, _)| item));
        }
        let mut stripes: HashMap<&ItemId, std::iter::Cycle<_>> = HashMap::new();
        let mut chains: Vec<Vec<Turn>> = Vec::new();
        let mut chain_of: HashMap<(&ItemId, Option<usize>), usize> = HashMap::new();
        for (number, commit) in commits.iter().enumerate() {
            let stripe = match &commit.claims[..] {
                [(item, token)] if !joined.contains(item) => {
                    let fullest_first = || self.fullest_stripes(item, *token).into_iter().cycle();
                    stripes.entry(item).or_insert_with(fullest_first).next()
                }
                _ => None,
            };
            let keys = || commit.claims.iter().map(|(item, _)| (item, stripe));
            let met: BTreeSet<usize> =
                keys().filter_map(|key| chain_of.get(&key).copied()).collect();
            let chain = met.first().copied().unwrap_or(chains.len());
            if chain == chains.len() {
                chains.push(Vec::new());
            }
            for other in met.into_iter().skip(1) {
                let moved = std::mem::take(&mut chains[other]);
                chains[chain].extend(moved);
                chain_of.values_mut().filter(|l| **l == other).for_each(|l| *l = chain);
            }
            chains[chain].push(Turn { number, stripe });
            chain_of.extend(keys().map(|key| (key, chain)));
        }
        chains.iter_mut().for_each(|chain| chain.sort_unstable_by_key(|turn| turn.number));
        chains
    }

    async fn run_chain(
        &self,
        commits: &[Commit],
        chain: Vec<Turn>,
    ) -> Vec<(usize, Option<Outcome>)> {
        let mut outcomes = Vec::with_capacity(chain.len());
        let mut fenced: HashSet<(&ItemId, FencingToken)> = HashSet::new();
        for Turn { number, stripe } in chain {
            let commit = &commits[number];
            let lost = commit.claims.iter().filter(|(item, t)| fenced.contains(&(item, *t)));
            let lost: Vec<ItemId> = lost.map(|(item, _)| item.clone()).collect();
            if !lost.is_empty() {
                // The next of the chain would hear the same.
                outcomes.push((number, Some(Ok(CommitOutcome::Fenced(lost)))));
                continue;
            }
            let outcome = self.commit_one(commit, stripe).await.transpose();
            if let Some(Ok(CommitOutcome::Fenced(lost))) = &outcome {
                let is_lost = |(item, _): &&(ItemId, FencingToken)| lost.contains(item);
                fenced.extend(commit.claims.iter().filter(is_lost).map(|(item, t)| (item, *t)));
            }
            outcomes.push((number, outcome));
        }
        outcomes
    }

    /// `None` when the stripe it is to keep to has too little.
    async fn commit_one(
        &self,
        commit: &Commit,
        stripe: Option<usize>,
    ) -> Result<Option<CommitOutcome>, SeamError> {
        let mut fresh = false;
        let due_keys = self.format.due_keys().await?;
        let mut buyers = self.buyers().await?;
        for _ in 0..STALE_TRIES {
            let known = match self.known(commit, fresh).await? {
                Ok(known) => known,
                Err(fenced) => return Ok(Some(CommitOutcome::Fenced(fenced))),
            };
            let draft = Draft::new(commit, &known, stripe, &buyers, self.keep_rejected, due_keys);
            let draft = match draft {
                Ok(draft) => draft,
                Err(Refusal::Overtaken(_)) if stripe.is_some() => return Ok(None),
                Err(Refusal::Overtaken(items)) => {
                    match self.rebalance(commit, &items, &known).await? {
                        Rebalanced::Moved => fresh = false,
                        Rebalanced::NoMove if fresh => {
                            return Ok(Some(CommitOutcome::Fenced(items)));
                        }
                        Rebalanced::NoMove | Rebalanced::Stale => fresh = true,
                    }
                    continue;
                }
                Err(Refusal::Conflict { over_cap, .. }) if !over_cap.is_empty() => {
                    return Ok(Some(self.told_live(commit, over_cap, &known).await?));
                }
                Err(Refusal::Conflict { barred, .. }) if !barred.is_empty() => {
                    match self.told_barred(commit, &known, &mut buyers).await? {
                        None => continue,
                        told => return Ok(told),
                    }
                }
                Err(refusal) => return Ok(Some(refusal.into())),
            };
            let actions = draft.actions(&self.table.name, &buyers);
            if actions.len() > ACTIONS_MAX {
                let reason = format!("a commit of {} rows; {ACTIONS_MAX} go", actions.len());
                return Err(SeamError::broken(SERVICE, reason));
            }
            let (targets, actions): (Vec<Target>, Vec<_>) = actions.into_iter().unzip();
            match self.table.transact(actions).await? {
                Transacted::Applied => {
                    for StockChange { item, stripe, after, .. } in draft.stock_changes {
                        self.remember_stock_row(&item, stripe, after);
                    }
                    return Ok(Some(CommitOutcome::Applied));
                }
                Transacted::Unknown(error) => {
                    tracing::debug!(%error, "a commit was not answered");
                    commit.claims.iter().for_each(|(item, _)| self.forget(item));
                    return Ok(Some(CommitOutcome::Unknown));
                }
                Transacted::Cancelled(reasons) => {
                    let explained = self.explain(commit, &known, &targets, reasons, &mut buyers)?;
                    if let Some(outcome) = explained {
                        return Ok(Some(outcome));
                    }
                    self.heed(&mut buyers).await?;
                    fresh = true;
                }
            }
        }
        // Somebody writes the same stock rows under the same token all the time.
        let items = commit.claims.iter().map(|(item, _)| item.clone()).collect();
        Ok(Some(CommitOutcome::Fenced(items)))
    }

    /// Spreads the stock of a commit's items again if some stripes have far less than
    /// others.
    async fn spread_again(&self, commit: &Commit) -> Result<(), SeamError> {
        if let Ok(known) = self.known(commit, false).await? {
            let items: Vec<ItemId> = commit.claims.iter().map(|(item, _)| item.clone()).collect();
            // Whatever came of it, the commit looks for itself.
            self.rebalance(commit, &items, &known).await?;
        }
        Ok(())
    }

    /// The claimed items, or those whose token is not the newest.
    async fn known(
        &self,
        commit: &Commit,
        fresh: bool,
    ) -> Result<Result<Vec<Known>, Vec<ItemId>>, SeamError> {
        let mut known = Vec::with_capacity(commit.claims.len());
        let mut unknown = Vec::new();
        for (item, token) in &commit.claims {
            if known.iter().any(|known: &Known| known.head.id == *item) || unknown.contains(item) {
                continue;
            }
            match self.remembered(item, *token).filter(|_| !fresh) {
                Some(remembered) => known.push(remembered),
                None => unknown.push(item.clone()),
            }
        }
        let mut fenced = Vec::new();
        if !unknown.is_empty() {
            for (item, read) in unknown.iter().zip(self.items.read(&unknown).await?) {
                let claimed = |(claimed, _): &&(ItemId, FencingToken)| claimed == item;
                let token = commit.claims.iter().find(claimed).map(|(_, token)| *token);
                let ours = |read: &Known| read.stock_rows.iter().all(|s| Some(s.token) == token);
                match read.filter(ours) {
                    Some(read) => {
                        self.remember(read.clone());
                        known.push(read);
                    }
                    None => fenced.push(item.clone()),
                }
            }
        }
        Ok(if fenced.is_empty() { Ok(known) } else { Err(fenced) })
    }

    /// Explains a cancelled transaction: the rule's answer to what was found.
    /// `None` when only what we knew of a stock row was old.
    fn explain(
        &self,
        commit: &Commit,
        known: &[Known],
        targets: &[Target],
        reasons: Vec<CancellationReason>,
        buyers: &mut Buyers,
    ) -> Result<Option<CommitOutcome>, SeamError> {
        let mut tokens: HashMap<&ItemId, Option<FencingToken>> = HashMap::new();
        let mut unexpected: HashSet<OrderId> = HashSet::new();
        let mut live: HashMap<(&ItemId, &BuyerId), u32> = HashMap::new();
        let mut stripes: HashMap<&ItemId, usize> = HashMap::new();
        let mut holders = Vec::new();
        for (target, reason) in targets.iter().zip(reasons) {
            if let Target::StockRow(item, stripe) = target {
                stripes.insert(item, *stripe);
            }
            if reason.code() != Some("ConditionalCheckFailed") {
                continue;
            }
            match target {
                Target::Order(id) => {
                    let write = commit.writes.iter().find(|write| write.order.id == *id);
                    let write = write.expect("an order of the commit");
                    if !buyers.learn_order(write, reason.item.as_ref())? {
                        unexpected.insert(*id);
                    }
                }
                Target::Holds(buyer) => holders.push((buyer, reason.item)),
                Target::Pause(item, buyer) => {
                    buyers.learn_pause(item, buyer, reason.item.as_ref())?;
                }
                Target::Buyer(item, buyer) => {
                    live.insert((item, buyer), live_of(reason.item.as_ref())?);
                }
                Target::StockRow(item, stripe) => {
                    let found = reason.item.as_ref();
                    let token = found.map(Self::token_of).transpose()?;
                    tokens.insert(item, token);
                    // Under a later claim it may be of another definition.
                    if let (Some(row), Some(known)) = (found, of(known, item))
                        && token == Some(known.now(*stripe).token)
                    {
                        self.remember_stock_row(item, *stripe, StockRow::read(row, &known.spec)?);
                    }
                }
                Target::Log => {}
            }
        }
        for (buyer, found) in holders {
            buyers.learn_holds(commit, buyer, found.as_ref())?;
        }
        let now = |item: &ItemId| {
            let now = of(known, item)?.now(stripes.get(item).copied().unwrap_or(0));
            let token = tokens.get(item).copied().unwrap_or(Some(now.token))?;
            Some(ItemNow { token, ..now })
        };
        let is_expected = |write: &OrderWrite| !unexpected.contains(&write.order.id);
        let live_now = |item: &ItemId, buyer: &BuyerId| *live.get(&(item, buyer)).unwrap_or(&0);
        let refusal = judge(commit, now, is_expected, live_now, buyers.now()).err();
        if let Some(Refusal::Fenced(items)) = &refusal {
            items.iter().for_each(|item| self.forget(item));
        }
        Ok(refusal.map(CommitOutcome::from))
    }

    /// The answer to a commit that asks more for a buyer than a whole cap.
    async fn told_live(
        &self,
        commit: &Commit,
        over_cap: Vec<OverCap>,
        known: &[Known],
    ) -> Result<CommitOutcome, SeamError> {
        let mut live = HashMap::new();
        for OverCap { item, buyer, .. } in over_cap {
            let since = of(known, &item).map_or(0, |known| known.head.capped_since);
            let row = self.table.get(Key::buyer(&item, since, &buyer)).await?;
            live.insert((item, buyer), live_of(row.as_ref())?);
        }
        let now = |item: &ItemId| of(known, item).map(|known| known.now(0));
        let live = |item: &ItemId, buyer: &BuyerId| {
            live.get(&(item.clone(), buyer.clone())).copied().unwrap_or(0)
        };
        let refusal = judge(commit, now, named_once(), live, None);
        Ok(refusal.expect_err("a gain above the cap is refused whatever is live").into())
    }
}

fn of<'k>(known: &'k [Known], item: &ItemId) -> Option<&'k Known> {
    known.iter().find(|known| known.head.id == *item)
}

/// Units of a buyer's row, if there is one.
fn live_of(row: Option<&Row>) -> Result<u32, SeamError> {
    let live = row.map(|row| get_number(row, "live")).transpose()?.unwrap_or(0);
    Ok(u32::try_from(live).unwrap_or(u32::MAX))
}

/// Joins the outcomes into one answer: a failure among successes is unknown,
/// so that the others' outcomes are heard.
fn settle(outcomes: Vec<Option<Outcome>>) -> Result<Vec<CommitOutcome>, SeamError> {
    let count = outcomes.len();
    let (mut told, mut failures) = (Vec::with_capacity(count), Vec::new());
    for outcome in outcomes {
        match outcome.unwrap_or(Ok(CommitOutcome::Unknown)) {
            Ok(outcome) => told.push(outcome),
            Err(error) => {
                told.push(CommitOutcome::Unknown);
                failures.push(error);
            }
        }
    }
    let is_broken = |error: &SeamError| !error.can_retry();
    match failures.iter().position(is_broken) {
        Some(broken) => Err(failures.swap_remove(broken)),
        None if failures.len() == count && count > 0 => Err(failures.swap_remove(0)),
        None => Ok(told),
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
