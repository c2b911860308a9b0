//! The items that a worker has: leased, so that others leave them alone for a while, and
//! claimed, so that it knows their stock and nobody else can write it. Without an
//! answer from the lock manager, or when somebody keeps a lease too long, it goes on
//! without one: the claim in the store decides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::debug;

use super::{Event, PAUSE_MAX, Worker, membership};
use crate::backoff::spread_by;
use crate::engine::core::Core;
use crate::protocol::{Claim, ItemId};
use crate::seams::{Lease, SeamError, WantedReceiver};

/// Claims at once of items that could not be claimed together.
const CLAIMS_MAX: usize = 32;
/// Pause between two looks whether another worker let go of an item.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Time after meeting another worker during which a worker makes room for others.
const CROWDED_FOR: Duration = Duration::from_secs(10);
/// Time for which a worker leaves items alone that it had its turn with: longer
/// than others take to look whether they are free.
const CEDED_FOR: Duration = Duration::from_millis(60);
/// Time for which a worker has an item to itself, whoever else wants it, if there is work
/// on it: one that is borrowed, or its own if it has no turn till then.
const LOAN: Duration = Duration::from_millis(400);
/// Time for which a worker leaves an item alone that it let others have.
const LENT_FOR: Duration = Duration::from_millis(30);
/// Time for which an item is kept for a message that waits for others too, for each time
/// that it had to.
const KEPT_FOR: Duration = Duration::from_millis(20);
/// Longest such time.
const KEPT_FOR_MAX: Duration = Duration::from_secs(1);
/// Longest wait of the end of a hold for an item that others have: then it is looked for
/// anew, with those that ended meanwhile.
const SPARE_WAIT: Duration = Duration::from_millis(500);

/// The items of one worker.
#[derive(Debug, Default)]
pub(crate) struct Items {
    had: HashMap<ItemId, Had, RandomState>,
    /// Items that others have, and since when they are wanted here.
    wanted: HashMap<ItemId, Instant, RandomState>,
    met_others: Option<Instant>,
    /// The time to look after them.
    upkeep_at: Option<Instant>,
}

/// An item that the worker has.
#[derive(Debug)]
struct Had {
    /// The owner's name in its lease; `None` where there is no lease.
    owner: Option<Arc<str>>,
    since: Instant,
    renewed: Instant,
    used: Instant,
    /// Whether it had a turn.
    had_turn: bool,
    /// Whether another worker waits for it.
    is_wanted: bool,
    /// It is nobody else's until then.
    kept_until: Instant,
}

impl Had {
    fn new(owner: Option<Arc<str>>, now: Instant) -> Self {
        Self {
            owner,
            since: now,
            renewed: now,
            used: now,
            had_turn: false,
            is_wanted: false,
            kept_until: now,
        }
    }

    fn is_kept(&self) -> bool {
        self.kept_until > Instant::now()
    }

    /// Whether another worker waits for it and may have it.
    fn is_due(&self) -> bool {
        self.is_wanted && !self.is_kept()
    }
}

/// What came of wanting items.
#[derive(Debug, Default)]
pub(crate) struct Obtained {
    /// The items that are the worker's now, unless they can't be claimed.
    pub(crate) leased: Vec<ItemId>,
    pub(crate) owner: Option<Arc<str>>,
    /// Their claims; `None` for an item that is not there.
    pub(crate) claims: Vec<(ItemId, Option<Claim>)>,
    /// Items that somebody else has.
    pub(crate) others: Vec<ItemId>,
    /// Items that could not be claimed.
    pub(crate) failed: Vec<(ItemId, SeamError)>,
}

impl Items {
    /// The moment to look after them; `None` if there are none.
    pub(crate) fn upkeep_at(&self) -> Option<Instant> {
        self.upkeep_at.filter(|_| !self.had.is_empty())
    }

    /// Forgets since when an item is wanted that others have.
    pub(crate) fn want_no_more(&mut self, item: &ItemId) {
        self.wanted.remove(item);
    }

    /// Whether the worker has an item.
    pub(crate) fn has(&self, item: &ItemId) -> bool {
        self.had.contains_key(item)
    }

    /// Notes that another worker wants the same items.
    fn met_others(&mut self) {
        self.met_others = Some(Instant::now());
    }

    fn is_crowded(&self) -> bool {
        self.met_others.is_some_and(|met| met.elapsed() < CROWDED_FOR)
    }

    /// Whether others should get their chance at an item.
    pub(crate) fn is_over(&self, item: &ItemId, claim_max: Duration) -> bool {
        self.had.get(item).is_some_and(|had| had.since.elapsed() >= claim_max)
    }

    /// Whether an item is kept for a message that waits for others too.
    pub(crate) fn is_kept(&self, item: &ItemId) -> bool {
        self.had.get(item).is_some_and(Had::is_kept)
    }

    /// Whether an item is wanted here for so long that the ends of holds wait no more.
    pub(crate) fn is_wanted_for_long(&self, item: &ItemId) -> bool {
        self.wanted.get(item).is_some_and(|since| since.elapsed() >= SPARE_WAIT)
    }

    /// Of these items those that need a lease first, and those that have one or do
    /// without.
    pub(crate) fn without_lease(&self, items: Vec<ItemId>, wait: Duration) -> [Vec<ItemId>; 2] {
        let needs_none = |item: &ItemId| {
            self.had.contains_key(item)
                || self.wanted.get(item).is_some_and(|since| since.elapsed() >= wait)
        };
        let (covered, uncovered) = items.into_iter().partition(needs_none);
        [uncovered, covered]
    }

    /// Takes over what was obtained.
    pub(crate) fn add(&mut self, obtained: &Obtained) {
        let now = Instant::now();
        for item in &obtained.leased {
            self.wanted.remove(item);
            let owner = obtained.owner.clone();
            let had = Had::new(owner, now);
            self.had.insert(item.clone(), had);
        }
        for item in &obtained.others {
            self.wanted.entry(item.clone()).or_insert(now);
        }
        for (item, _) in &obtained.claims {
            if !self.had.contains_key(item) {
                self.wanted.remove(item);
                self.had.insert(item.clone(), Had::new(None, now));
            }
        }
    }

    /// Notes that items were used.
    pub(crate) fn used<'i>(&mut self, items: impl IntoIterator<Item = &'i ItemId>) {
        let now = Instant::now();
        for item in items {
            if let Some(had) = self.had.get_mut(item) {
                (had.used, had.had_turn) = (now, true);
            }
        }
    }

    /// Those that were not used for so long, in no certain order.
    fn unused_for(&self, long: Duration) -> impl Iterator<Item = &ItemId> {
        self.had.iter().filter(move |(_, had)| had.used.elapsed() >= long).map(|(item, _)| item)
    }

    /// Lets go of items, and returns the leases to release.
    pub(crate) fn let_go<'i>(&mut self, items: impl IntoIterator<Item = &'i ItemId>) -> Vec<Lease> {
        leases(items.into_iter().filter_map(|item| {
            self.wanted.remove(item);
            Some((self.had.remove(item)?.owner?, item))
        }))
    }

    /// The leases that were not renewed for so long; they count as renewed.
    pub(crate) fn take_ending(&mut self, after: Duration) -> Vec<Lease> {
        let ending = self.had.iter_mut().filter(|(_, had)| had.renewed.elapsed() >= after);
        leases(ending.filter_map(|(item, had)| {
            had.renewed = Instant::now();
            Some((Arc::clone(had.owner.as_ref()?), item))
        }))
    }
}

/// The leases of items by the name of their owner.
fn leases<'i>(items: impl Iterator<Item = (Arc<str>, &'i ItemId)>) -> Vec<Lease> {
    let mut by_owner: BTreeMap<Arc<str>, Vec<ItemId>> = BTreeMap::new();
    for (owner, item) in items {
        by_owner.entry(owner).or_default().push(item.clone());
    }
    by_owner.into_iter().map(|(owner, keys)| Lease::new(keys, &*owner)).collect()
}

/// Waits for items that other workers want; for ever where nobody tells. Cancel-safe.
pub(super) async fn wanted(receiver: &mut Option<WantedReceiver>) -> Arc<[ItemId]> {
    loop {
        let Some(wanted) = receiver else { return std::future::pending().await };
        match wanted.recv().await {
            Ok(items) => return items,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *receiver = None,
        }
    }
}

/// Leases those of `uncovered` that are free, and claims them and those that are
/// `covered`. One in trouble delays nobody else.
pub(crate) async fn obtain(core: &Core, uncovered: Vec<ItemId>, covered: Vec<ItemId>) -> Obtained {
    let mut obtained = Obtained::default();
    if !uncovered.is_empty() {
        match core.backend.locks.acquire_free(&uncovered, core.settings.lease_ttl).await {
            Ok(lease) => {
                let leased = lease.as_ref().map(|lease| lease.keys.iter().collect());
                let leased: HashSet<&ItemId> = leased.unwrap_or_default();
                let others = uncovered.iter().filter(|item| !leased.contains(item));
                obtained.others = others.cloned().collect();
                if let Some(Lease { keys, owner }) = lease {
                    obtained.owner = Some(owner.into());
                    obtained.leased = keys;
                }
            }
            Err(error) => {
                metrics::counter!("flux_unlocked_total").increment(1);
                debug!(%error, "no lock manager; going on without a lease");
                obtained.leased = uncovered;
            }
        }
    }
    let items: Vec<ItemId> = obtained.leased.iter().cloned().chain(covered).collect();
    if items.is_empty() {
        return obtained;
    }
    match core.backend.store.claim(&items).await {
        Ok(claims) => obtained.claims = items.into_iter().zip(claims).collect(),
        Err(error) if items.len() < 2 => {
            obtained.failed = items.into_iter().map(|item| (item, error.clone())).collect();
        }
        Err(error) => {
            debug!(%error, "items could not be claimed together; trying one by one");
            let each = stream::iter(items).map(async |item| {
                let claim = core.backend.store.claim(std::slice::from_ref(&item)).await;
                (item, claim)
            });
            let mut each = pin!(each.buffer_unordered(CLAIMS_MAX));
            while let Some((item, claim)) = each.next().await {
                match claim {
                    Ok(mut claim) => obtained.claims.push((item, claim.pop().flatten())),
                    Err(error) => obtained.failed.push((item, error)),
                }
            }
        }
    }
    obtained
}

impl Worker {
    /// Leases and claims the items that have a backlog.
    pub(super) fn obtain(&mut self) {
        // Where one worker alone borrows for such messages, the time of a loan is enough.
        let has_loans = !self.is_unlimited() && self.served.len() > 1;
        let kept = self.backlogs.take_kept();
        for (item, waits) in kept.into_iter().filter(|_| !has_loans) {
            if let Some(had) = self.items.had.get_mut(&item) {
                let until = Instant::now() + KEPT_FOR.saturating_mul(waits).min(KEPT_FOR_MAX);
                had.kept_until = had.kept_until.max(until);
            }
        }
        let items = self.backlogs.take_unclaimed();
        if items.is_empty() {
            return;
        }
        let [uncovered, covered] = self.items.without_lease(items, self.core.settings.lease_wait);
        let core = Arc::clone(&self.core);
        self.running.push(Box::pin(async move {
            Event::Obtained(obtain(&core, uncovered, covered).await)
        }));
    }

    /// Takes over what was obtained.
    pub(super) async fn take_over(&mut self, obtained: Obtained) {
        self.items.add(&obtained);
        let every = self.upkeep_every();
        self.items.upkeep_at.get_or_insert_with(|| Instant::now() + every);
        let Obtained { claims, mut others, failed, .. } = obtained;
        // Asked for twice, it may be here already.
        others.retain(|item| !self.items.has(item));
        for (item, claim) in claims {
            match claim {
                Some(claim) => {
                    if self.core.sweep_alarm.meet(claim.spec.hold) {
                        self.core.expect_end(None);
                    }
                    // What was told of its buyers is as old as the claim before.
                    self.over_cap.remove(&item);
                    self.view.insert(claim);
                }
                // There is no such item; that is told to those who wait, and forgotten.
                None if self.backlogs.is_idle(&item) => {
                    self.backlogs.set_unclaimed(&item);
                    continue;
                }
                None => {}
            }
            self.backlogs.set_claimed(&item);
        }
        if !others.is_empty() {
            self.meet_others();
            self.leave_spare_work(&others).await;
        }
        for item in others {
            match self.backlogs.is_idle(&item) {
                true => {
                    self.items.want_no_more(&item);
                    self.backlogs.set_unclaimed(&item);
                }
                false => {
                    self.backlogs.set_elsewhere(&item);
                    self.pause(item, spread_by(LOOK_EVERY, &self.core.chance));
                }
            }
        }
        self.note_unclaimed(failed).await;
    }

    /// Lets go of the items that nobody asks for, and renews the leases of the others.
    pub(super) fn look_after_items(&mut self) {
        let now = Instant::now();
        if self.items.upkeep_at().is_none_or(|at| now < at) {
            return;
        }
        self.items.upkeep_at = Some(now + self.upkeep_every());
        self.lend_wanted();
        let idle_max = match self.items.is_crowded() {
            true => Duration::ZERO,
            false => self.core.settings.idle_max.min(PAUSE_MAX),
        };
        let unused = self.items.unused_for(idle_max);
        let unused = unused.filter(|item| self.backlogs.is_idle(item) && !self.items.is_kept(item));
        let mut left: Vec<ItemId> = unused.cloned().collect();
        if self.items.is_crowded() {
            // Of two that wait for each other's items each gives the other its chance.
            let claim_max = self.core.settings.claim_max;
            let over = self.items.had.keys().filter(|item| self.items.is_over(item, claim_max));
            left.extend(over.filter(|item| self.backlogs.is_waiting(item)).cloned());
        }
        self.let_go(left, Duration::ZERO);
        let ttl = self.core.settings.lease_ttl;
        for lease in self.items.take_ending(ttl / 2) {
            let core = Arc::clone(&self.core);
            self.running.push(Box::pin(async move {
                Event::Renewed(match core.backend.locks.renew(&lease, ttl).await {
                    Ok(true) => Vec::new(),
                    Ok(false) => lease.keys,
                    Err(error) => {
                        debug!(%error, "a lease was not renewed; going on without");
                        Vec::new()
                    }
                })
            }));
        }
    }

    fn upkeep_every(&self) -> Duration {
        let settings = &self.core.settings;
        (settings.idle_max / 2).min(settings.lease_ttl / 4).max(Duration::from_millis(10))
    }

    /// Notes that other workers want items, and lets go of those that have no turn now.
    pub(super) fn note_wanted(&mut self, wanted: &[ItemId]) {
        for item in wanted {
            if let Some(had) = self.items.had.get_mut(item) {
                had.is_wanted = true;
            }
        }
        self.lend_wanted();
    }

    fn lend_wanted(&mut self) {
        let is_free = |item: &&ItemId| !self.backlogs.is_busy(item);
        let wanted = self.items.had.keys().filter(|item| self.is_due(item)).filter(is_free);
        self.lend(wanted.cloned().collect(), Duration::ZERO);
    }

    /// Whether another worker waits for an item and may have it. Where a write is bounded,
    /// and messages about several items are gathered, one that is borrowed is kept long
    /// enough to be worth the way, and a worker's own until it had a turn.
    pub(super) fn is_due(&self, item: &ItemId) -> bool {
        let Some(had) = self.items.had.get(item) else { return false };
        let is_over = had.since.elapsed() >= LOAN || had.had_turn && !self.is_others(item);
        had.is_due() && (is_over || self.is_unlimited() || self.backlogs.is_idle(item))
    }

    /// Lets the workers whose partitions they are in have the items that nothing here waits
    /// for. One with a write on its way follows when that ends.
    pub(super) fn lend_what_is_others(&mut self) {
        let is_theirs = |item: &&ItemId| self.is_others(item) && self.backlogs.is_idle(item);
        let theirs = self.items.had.keys().filter(is_theirs);
        let theirs = theirs.filter(|item| !self.items.is_kept(item)).cloned().collect();
        self.lend(theirs, Duration::ZERO);
    }

    /// Lets others have items, for so long at least.
    pub(super) fn lend(&mut self, mut items: Vec<ItemId>, pause: Duration) {
        items.sort_unstable();
        items.iter().for_each(|item| self.backlogs.set_elsewhere(item));
        self.let_go(items, pause.max(spread_by(LENT_FOR, &self.core.chance)));
    }

    /// Lets go of items. One with a write on its way has its turn to the end.
    /// They are claimed anew `after` a while, if there is something to do.
    pub(super) fn let_go(&mut self, mut items: Vec<ItemId>, after: Duration) {
        if items.is_empty() {
            return;
        }
        items.sort_unstable();
        let leases = self.items.let_go(&items);
        for item in &items {
            self.view.remove(item);
            self.over_cap.remove(item);
            self.backlogs.set_away(item);
        }
        let core = Arc::clone(&self.core);
        self.running.push(Box::pin(async move {
            for lease in leases {
                if let Err(error) = core.backend.locks.release(&lease).await {
                    debug!(%error, "a lease was not released; it will end by itself");
                }
            }
            Event::Released(items, after)
        }));
    }

    /// Has items claimed anew that were let go of, once others had their chance.
    pub(super) fn released(&mut self, items: Vec<ItemId>, after: Duration) {
        let pause = match self.items.is_crowded() {
            true => after.max(CEDED_FOR),
            false => after,
        };
        for item in items {
            match pause.is_zero() {
                true => self.backlogs.set_unclaimed(&item),
                false => self.pause(item, pause),
            }
        }
    }

    /// Lets go of items that others took.
    pub(super) fn lose(&mut self, mut items: Vec<ItemId>) {
        items.retain(|item| self.items.has(item));
        if !items.is_empty() {
            self.meet_others();
        }
        self.let_go(items, Duration::ZERO);
    }

    /// Notes that others want the same items. Where the queue has partitions each item is
    /// somebody's, and the others ask for it.
    pub(super) fn meet_others(&mut self) {
        if self.served.len() < 2 {
            self.items.met_others();
        }
    }

    /// Whether it is for other workers to serve the orders of an item.
    pub(super) fn is_others(&self, item: &ItemId) -> bool {
        membership::is_others(&self.served, item)
    }

    /// Lets go of everything, and waits for whatever is on its way.
    pub(super) async fn let_go_of_all(&mut self) {
        let all = self.items.unused_for(Duration::ZERO).cloned().collect();
        self.let_go(all, Duration::ZERO);
        while self.running.next().await.is_some() {}
    }
}
