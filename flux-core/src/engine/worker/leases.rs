//! The items a worker has leased, so that others leave them alone for a while.
//! Without an answer from the lock manager, or when somebody keeps a lease too
//! long, it goes on without one: the claim in the store decides.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::engine::core::Core;
use crate::protocol::ItemId;
use crate::seams::Lease;

/// Time after meeting another worker during which a worker makes room for
/// others.
const CROWDED_FOR: Duration = Duration::from_secs(10);
/// Time for which a worker leaves items alone that it had its turn with: longer
/// than others take to look whether they are free.
const CEDED_FOR: Duration = Duration::from_millis(60);

/// Items leased together.
#[derive(Debug)]
struct LeasedItems {
    items: HashSet<ItemId>,
    /// `None` where the worker goes on without a lease.
    lease: Option<Lease>,
    since: Instant,
    renewed: Instant,
}

/// The leases of one worker.
#[derive(Debug)]
pub(crate) struct HeldLeases {
    core: Arc<Core>,
    leases: Vec<LeasedItems>,
    met_others: Option<Instant>,
    /// Items left to others, until then.
    ceded: Option<(HashSet<ItemId>, Instant)>,
}

impl HeldLeases {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, leases: Vec::new(), met_others: None, ceded: None }
    }

    /// Whether other workers want the same items, as far as is known.
    pub(crate) fn is_crowded(&self) -> bool {
        self.met_others.is_some_and(|met| met.elapsed() < CROWDED_FOR)
    }

    /// Leases those of `items` that are free, and returns those that somebody
    /// else has.
    pub(crate) async fn lease_free(&mut self, items: &[ItemId]) -> HashSet<ItemId> {
        let (ceded, free): (Vec<_>, Vec<_>) =
            self.uncovered(items).into_iter().partition(|item| self.is_ceded(item));
        let mut others = self.lease_uncovered(free).await;
        if !others.is_empty() {
            self.met_others = Some(Instant::now());
        }
        others.extend(ceded);
        others
    }

    async fn lease_uncovered(&mut self, items: Vec<ItemId>) -> HashSet<ItemId> {
        if items.is_empty() {
            return HashSet::new();
        }
        let ttl = self.core.settings.lease_ttl;
        match self.core.backend.locks.acquire_free(&items, ttl).await {
            Ok(lease) => {
                let leased = lease.as_ref().map(|lease| lease.keys.iter().cloned().collect());
                let leased: HashSet<ItemId> = leased.unwrap_or_default();
                let others = items.into_iter().filter(|item| !leased.contains(item)).collect();
                if lease.is_some() {
                    self.begin(leased, lease);
                }
                others
            }
            Err(error) => {
                metrics::counter!("flux_unlocked_total").increment(1);
                debug!(%error, "no lock manager; going on without a lease");
                self.begin(items.into_iter().collect(), None);
                HashSet::new()
            }
        }
    }

    /// Leases all of `items`: waits until whoever has them lets go, or for so
    /// long that the worker goes on without a lease.
    pub(crate) async fn lease_all(&mut self, items: &[ItemId]) {
        let items = self.uncovered(items);
        if items.is_empty() {
            return;
        }
        if let Some((_, until)) = &self.ceded
            && items.iter().any(|item| self.is_ceded(item))
        {
            sleep_until(*until).await;
        }
        let settings = &self.core.settings;
        let lease =
            self.core.backend.locks.acquire(&items, settings.lease_ttl, settings.lease_wait);
        let lease = lease.await.unwrap_or_else(|error| {
            metrics::counter!("flux_unlocked_total").increment(1);
            debug!(%error, "no lock manager; going on without a lease");
            None
        });
        self.begin(items.into_iter().collect(), lease);
    }

    fn uncovered(&self, items: &[ItemId]) -> Vec<ItemId> {
        let is_covered =
            |item: &ItemId| self.leases.iter().any(|leased| leased.items.contains(item));
        items.iter().filter(|item| !is_covered(item)).cloned().collect()
    }

    fn is_ceded(&self, item: &ItemId) -> bool {
        let ceded = self.ceded.as_ref();
        ceded.is_some_and(|(items, until)| items.contains(item) && Instant::now() < *until)
    }

    fn begin(&mut self, items: HashSet<ItemId>, lease: Option<Lease>) {
        let now = Instant::now();
        self.leases.push(LeasedItems { items, lease, since: now, renewed: now });
    }

    /// Lets go of items whose time is up, renews the leases of the others, and
    /// tells which items it has no more.
    pub(crate) async fn tidy(&mut self) -> Vec<ItemId> {
        let (claim_max, ttl) = (self.core.settings.claim_max, self.core.settings.lease_ttl);
        let mut ended = self.end(|leased| leased.since.elapsed() >= claim_max).await;
        if self.is_crowded() && !ended.is_empty() {
            self.ceded = Some((ended.iter().cloned().collect(), Instant::now() + CEDED_FOR));
        }
        let mut lost = HashSet::new();
        for leased in &mut self.leases {
            let Some(lease) = &leased.lease else { continue };
            if leased.renewed.elapsed() < ttl / 2 {
                continue;
            }
            match self.core.backend.locks.renew(lease, ttl).await {
                Ok(true) => leased.renewed = Instant::now(),
                Ok(false) => lost.extend(leased.items.iter().cloned()),
                Err(error) => debug!(%error, "the lease was not renewed; going on without"),
            }
        }
        if !lost.is_empty() {
            ended.extend(self.end_those_of(&lost).await);
        }
        ended
    }

    /// Lets go of whatever was leased together with one of `items`, which others
    /// took.
    pub(crate) async fn end_those_of(&mut self, items: &HashSet<ItemId>) -> Vec<ItemId> {
        self.met_others = Some(Instant::now());
        self.end(|leased| !leased.items.is_disjoint(items)).await
    }

    pub(crate) async fn end_all(&mut self) -> Vec<ItemId> {
        self.end(|_| true).await
    }

    async fn end(&mut self, ends: impl Fn(&LeasedItems) -> bool) -> Vec<ItemId> {
        let (ended, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.leases).into_iter().partition(ends);
        self.leases = kept;
        let mut items = Vec::new();
        for leased in ended {
            if let Some(lease) = &leased.lease
                && let Err(error) = self.core.backend.locks.release(lease).await
            {
                debug!(%error, "the lease was not released; it will end by itself");
            }
            items.extend(leased.items);
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Backend;
    use crate::clock::SystemClock;
    use crate::engine::{Role, Settings};

    fn worker(backend: &Backend) -> HeldLeases {
        let (clock, settings) = (Arc::new(SystemClock), Settings::default());
        HeldLeases::new(Arc::new(Core::new(backend.clone(), clock, settings, Role::Both)))
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_time_in_a_crowd_a_worker_lets_others_go_first() {
        let backend = Backend::memory();
        let (mut ann, mut bob) = (worker(&backend), worker(&backend));
        let items = [ItemId::new("a").expect("a name")];
        let all = HashSet::from(items.clone());

        assert_eq!(ann.lease_free(&items).await, HashSet::new());
        assert_eq!(bob.lease_free(&items).await, all);
        assert_eq!((ann.is_crowded(), bob.is_crowded()), (false, true));
        ann.end_all().await;
        assert_eq!(bob.lease_free(&items).await, HashSet::new());

        tokio::time::advance(Settings::default().claim_max).await;
        assert_eq!(bob.tidy().await, items);
        assert_eq!(bob.lease_free(&items).await, all, "free, and left to others");
        let since = Instant::now();
        bob.lease_all(&items).await;
        assert_eq!(since.elapsed(), CEDED_FOR, "nobody came");
        assert_eq!(ann.lease_free(&items).await, all);

        tokio::time::advance(CROWDED_FOR).await;
        assert_eq!((ann.is_crowded(), bob.is_crowded()), (false, false));
        assert_eq!(bob.tidy().await, items);
        assert_eq!(bob.lease_free(&items).await, HashSet::new(), "alone, it goes on at once");
    }
}
