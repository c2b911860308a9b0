//! The partitions that a worker serves, by who else is there: rendezvous hashing
//! (Thaler and Ravishankar, 1998) with bounded loads (Mirrokni, Thorup, Zadimoghaddam,
//! 2018), so that no worker serves more than its share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, warn};

use crate::engine::core::{Core, stopped};
use crate::protocol::ItemId;
use crate::seams::{Member, SeamError, hash, partition_of};

/// The time from one renewal of a membership to the next.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// The time that a membership lasts unless it is renewed: so long that three renewals in a
/// row may fail, and so short that others have decided something within five seconds.
const LASTS: Duration = Duration::from_millis(4_500);
/// The time after which a membership that has ended is surely forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(5);

/// The end of a member's name that says that the store is ill as seen from there.
const ILL: &str = "/ill";

/// What a member's name says: who it is, the partitions that it knows of, and whether the
/// store is ill as seen from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Card<'n> {
    worker: &'n str,
    /// `None` if it does not say.
    partitions: Option<usize>,
    is_ill: bool,
}

impl<'n> Card<'n> {
    fn read(name: &'n str) -> Self {
        let well = name.strip_suffix(ILL);
        let (name, is_ill) = (well.unwrap_or(name), well.is_some());
        let read = |(worker, partitions): (&'n str, &str)| Some((worker, partitions.parse().ok()?));
        match name.rsplit_once('/').and_then(read) {
            Some((worker, partitions)) => Self { worker, partitions: Some(partitions), is_ill },
            None => Self { worker: name, partitions: None, is_ill },
        }
    }

    fn name(&self) -> String {
        let Self { worker, partitions, is_ill } = self;
        let partitions = partitions.map(|partitions| format!("/{partitions}"));
        format!("{worker}{}{}", partitions.unwrap_or_default(), if *is_ill { ILL } else { "" })
    }
}

/// A number of partitions that another member knows of and that is not ours.
fn other_number(members: &[Member], partitions: usize) -> Option<usize> {
    let numbers = members.iter().filter_map(|member| Card::read(&member.name).partitions);
    numbers.filter(|number| *number != partitions).min()
}

/// Whether the worker `me` serves each of the partitions, if these are the members. Those
/// for whom the store is ill serve none while there are others; those who know of another
/// number of partitions don't count.
fn shares(me: &str, members: &[Member], partitions: usize) -> Vec<bool> {
    let cards = members.iter().map(|member| Card::read(&member.name));
    let ours = |card: &Card<'_>| card.partitions.is_none_or(|number| number == partitions);
    let (ill, mut well): (Vec<_>, Vec<_>) = cards.filter(ours).partition(|card| card.is_ill);
    // One whose state changed a moment ago may be counted twice.
    well.retain(|card| ill.iter().all(|ill| ill.worker != card.worker));
    let counted = if well.is_empty() { ill } else { well };
    // By the name as it is joined when all is well: versions that know of no cards go by it.
    let well_name = |card: Card<'_>| Card { is_ill: false, ..card }.name();
    let mut members: Vec<(String, bool)> =
        counted.into_iter().map(|card| (well_name(card.clone()), card.worker == me)).collect();
    members.sort_unstable();
    members.dedup();
    if members.is_empty() {
        return vec![true; partitions];
    }
    let most = partitions.div_ceil(members.len());
    let mut load = vec![0; members.len()];
    let mut mine = vec![false; partitions];
    for (partition, mine) in mine.iter_mut().enumerate() {
        let open = (0..members.len()).filter(|member| load[*member] < most);
        let first = open.max_by_key(|member| hash(&members[*member].0, partition as u64 + 1));
        let first = first.expect("there is room for all");
        load[first] += 1;
        *mine = members[first].1;
    }
    mine
}

/// Whether it is for other workers to serve the orders of an item.
pub(crate) fn is_others(served: &[bool], item: &ItemId) -> bool {
    served.len() > 1 && !served[partition_of(item, served.len())]
}

/// Tells everybody here which partitions the worker serves.
fn serve(core: &Core, served: &watch::Sender<Vec<bool>>, shares: Vec<bool>) {
    for (serves, share) in core.serves.iter().zip(&shares) {
        serves.store(*share, Ordering::Relaxed);
    }
    served.send_if_modified(|served| {
        let changed = *served != shares;
        *served = shares;
        changed
    });
}

/// Keeps up the worker's membership, and tells which partitions it serves.
pub(crate) async fn keep_up(
    core: Arc<Core>,
    me: String,
    mut is_ill: watch::Receiver<bool>,
    served: watch::Sender<Vec<bool>>,
    mut stop: watch::Receiver<bool>,
) {
    let partitions = core.backend.queues().len();
    let mut known_at: Option<Instant> = None;
    let mut strange = None;
    let mut card = Card { worker: &me, partitions: Some(partitions), is_ill: false };
    loop {
        let was = card.clone();
        card.is_ill = *is_ill.borrow_and_update();
        let name = card.name();
        let asked_at = Instant::now();
        let mut again_at = asked_at + RENEW_EVERY;
        let joined = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            () = served.closed() => break,
            joined = timeout(RENEW_EVERY, core.backend.locks.join(&name, LASTS)) => joined,
        };
        match joined.unwrap_or_else(|_| Err(SeamError::unavailable("the lock manager"))) {
            Ok(members) => {
                known_at = Some(asked_at);
                // All look at the moment at which one is gone, and share what it served.
                let others = members.iter().filter(|member| member.name != name);
                if let Some(ends_in) = others.map(|member| member.ends_in).min() {
                    again_at = again_at.min(Instant::now() + ends_in + FORGOTTEN_AFTER);
                }
                let other = other_number(&members, partitions);
                if let Some(other) = other.filter(|_| other != strange) {
                    error!(
                        "another worker on this queue knows of {other} partitions, and this one \
                         of {partitions}: what is in those that only one knows is served by \
                         nobody else; start all with the same number"
                    );
                }
                strange = other;
                serve(&core, &served, shares(&me, &members, partitions));
            }
            Err(error) => {
                debug!(%error, "no membership");
                // Better twice than not at all.
                if known_at.is_none_or(|at| at.elapsed() >= LASTS) {
                    serve(&core, &served, vec![true; partitions]);
                }
            }
        }
        if was != card {
            warn!(is_ill = card.is_ill, "the worker's way to the store changed");
            leave(&core, &was).await;
        }
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            () = served.closed() => break,
            Ok(()) = is_ill.changed() => {}
            () = sleep_until(again_at) => {}
        }
    }
    leave(&core, &card).await;
}

async fn leave(core: &Core, card: &Card<'_>) {
    let left = timeout(RENEW_EVERY, core.backend.locks.leave(&card.name())).await;
    if !matches!(left, Ok(Ok(()))) {
        debug!(?left, "the membership was not ended; it ends by itself");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use async_trait::async_trait;

    use super::*;
    use crate::backends::Backend;
    use crate::clock::SystemClock;
    use crate::engine::{Role, Settings};
    use crate::random::Random;
    use crate::seams::{Lease, LockManager};

    fn members(count: usize) -> Vec<Member> {
        (0..count).map(|n| Member::new(format!("worker {n}"), LASTS)).collect()
    }

    /// The member that serves each partition.
    fn servers(members: &[Member], partitions: usize) -> Vec<usize> {
        let shares = members.iter().map(|me| shares(&me.name, members, partitions));
        let shares: Vec<_> = shares.collect();
        let server = |partition: usize| {
            let serving: Vec<_> = (0..members.len()).filter(|n| shares[*n][partition]).collect();
            assert_eq!(serving.len(), 1, "partition {partition} of {} members", members.len());
            serving[0]
        };
        (0..partitions).map(server).collect()
    }

    #[test]
    fn each_partition_is_served_by_one_and_nobody_serves_more_than_its_share() {
        for partitions in [1, 2, 16, 64] {
            for count in [1, 2, 3, 4, 8, 16, 17] {
                let members = members(count);
                let servers = servers(&members, partitions);
                for member in 0..count {
                    let served = servers.iter().filter(|server| **server == member).count();
                    assert!(served <= partitions.div_ceil(count), "{count} for {partitions}");
                }
                let reversed: Vec<_> = members.iter().rev().cloned().collect();
                let order = shares("worker 0", &reversed, partitions);
                assert_eq!(order, shares("worker 0", &members, partitions), "in no order");
            }
        }
    }

    #[test]
    fn one_worker_less_moves_hardly_more_than_its_share() {
        let (all, partitions) = (members(8), 64);
        let before = servers(&all, partitions);
        for gone in 0..all.len() {
            let left: Vec<_> = all.iter().filter(|m| **m != all[gone]).cloned().collect();
            let after = servers(&left, partitions);
            let moved = (0..partitions).filter(|p| all[before[*p]] != left[after[*p]]).count();
            assert!((8..=24).contains(&moved), "{moved} of {partitions} moved");
        }
    }

    fn named(names: &[&str]) -> Vec<Member> {
        names.iter().map(|name| Member::new(*name, LASTS)).collect()
    }

    /// Those of so many partitions that a worker serves.
    fn count(me: &str, members: &[&str], partitions: usize) -> usize {
        shares(me, &named(members), partitions).into_iter().filter(|served| *served).count()
    }

    #[test]
    fn one_whose_store_is_ill_serves_nothing_while_there_are_others() {
        assert_eq!(count("a", &["a/16/ill", "b/16"], 16), 0);
        assert_eq!(count("b", &["a/16/ill", "b/16"], 16), 16);
        assert_eq!(count("a", &["a/16/ill"], 16), 16, "there is nobody else");
        assert_eq!(count("a", &["a/16/ill", "b/16/ill"], 16), 8, "nor anybody who is well");
        assert_eq!(count("a", &["a/16", "a/16/ill", "b/16"], 16), 0, "it was well");
        let before = shares("b", &named(&["a/16", "b/16", "c/16"]), 16);
        let with_ill = shares("b", &named(&["a/16", "b/16", "c/16", "d/16/ill"]), 16);
        assert_eq!(before, with_ill, "one that is ill takes nothing along");
    }

    /// Versions before there were cards hash each member's name as it was joined.
    #[test]
    fn an_earlier_version_beside_it_comes_to_the_same_shares() {
        let names = ["a", "b/16", "c", "d/16"];
        let mut loads = [0; 4];
        for partition in 0..16_u64 {
            let open = (0..4).filter(|member| loads[*member] < 4);
            let first = open.max_by_key(|member| hash(names[*member], partition + 1));
            let first = first.expect("there is room for all");
            loads[first] += 1;
            for (at, worker) in ["a", "b", "c", "d"].into_iter().enumerate() {
                let serves = shares(worker, &named(&names), 16)[partition as usize];
                assert_eq!(serves, at == first, "{worker} and partition {partition}");
            }
        }
    }

    #[test]
    fn who_knows_of_another_number_of_partitions_does_not_count() {
        let members = ["a/16", "b/8", "c/d/16", "e"];
        assert_eq!(count("b", &members, 8), 4, "who does not say may know the same");
        let ours = ["a", "c/d", "e"].map(|me| count(me, &members, 16));
        assert_eq!(ours.iter().sum::<usize>(), 16);
        assert_eq!(other_number(&named(&members), 16), Some(8));
        assert_eq!(other_number(&named(&["a/16", "e"]), 16), None);
    }

    #[test]
    fn a_card_is_read_as_it_is_written() {
        for name in ["a", "a/16", "a/16/ill", "a/b", "a/b/3", "a/ill"] {
            assert_eq!(Card::read(name).name(), name);
        }
    }

    #[test]
    fn somebody_whom_nobody_counts_serves_nothing() {
        assert_eq!(shares("another", &members(3), 4), [false; 4]);
        assert_eq!(shares("me", &[], 4), [true; 4], "better twice than not at all");
    }

    /// A lock service that knows of another worker, as long as it is there.
    struct Service {
        is_away: AtomicBool,
        joins: AtomicUsize,
    }

    #[async_trait]
    impl LockManager for Service {
        async fn acquire(
            &self,
            _: &[ItemId],
            _: Duration,
            _: Duration,
        ) -> Result<Option<Lease>, SeamError> {
            Ok(None)
        }
        async fn join(&self, me: &str, lasts: Duration) -> Result<Vec<Member>, SeamError> {
            self.joins.fetch_add(1, Ordering::Relaxed);
            match self.is_away.load(Ordering::Relaxed) {
                true => std::future::pending().await,
                false => Ok([me, "another"].map(|name| Member::new(name, lasts)).to_vec()),
            }
        }
        async fn renew(&self, _: &Lease, _: Duration) -> Result<bool, SeamError> {
            Ok(true)
        }
        async fn release(&self, _: &Lease) -> Result<(), SeamError> {
            Ok(())
        }
    }

    /// The partitions of four that a worker serves, as they change, and what stops it.
    fn kept_up(
        service: Arc<dyn LockManager>,
        me: &str,
    ) -> (watch::Receiver<Vec<bool>>, impl Sized) {
        let partitions = (0..4).map(|_| Backend::memory().queue).collect();
        let backend = Backend { partitions, locks: service, ..Backend::memory() };
        let (settings, chance) = (Settings::default(), Random::seeded(1));
        let core = Core::new(backend, Arc::new(SystemClock), settings, Role::Both, chance);
        let (serve, served) = watch::channel(vec![false; 4]);
        let (stop, stopped) = watch::channel(false);
        let is_ill = watch::Sender::new(false);
        let told = is_ill.subscribe();
        tokio::spawn(keep_up(Arc::new(core), me.into(), told, serve, stopped));
        (served, (stop, is_ill))
    }

    #[tokio::test(start_paused = true)]
    async fn all_hear_that_one_is_gone_when_its_membership_ends() {
        let locks = Backend::memory().locks;
        let (one, _one) = kept_up(Arc::clone(&locks), "one");
        tokio::time::sleep(Duration::from_millis(370)).await;
        let (other, _other) = kept_up(Arc::clone(&locks), "other");
        tokio::time::sleep(Duration::from_millis(2_510)).await;
        let ends_at = Instant::now() + LASTS;
        locks.join("gone", LASTS).await.expect("it is counted");
        let serving = || {
            let both = [one.borrow().clone(), other.borrow().clone()];
            (0..4).map(|n| both.iter().filter(|served| served[n]).count()).collect::<Vec<_>>()
        };
        sleep_until(ends_at - Duration::from_millis(1)).await;
        assert!(serving().contains(&0), "it serves one of them");
        sleep_until(ends_at + 2 * FORGOTTEN_AFTER).await;
        assert_eq!(serving(), [1; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_lock_service_a_worker_serves_all_once_its_membership_has_ended() {
        let service =
            Arc::new(Service { is_away: AtomicBool::new(false), joins: AtomicUsize::new(0) });
        let (served, _stop) = kept_up(service.clone(), "me");
        let count = || served.borrow().iter().filter(|served| **served).count();
        let second = Duration::from_secs(1);
        tokio::time::sleep(10 * second).await;
        assert_eq!((count(), service.joins.load(Ordering::Relaxed)), (2, 10));
        service.is_away.store(true, Ordering::Relaxed);
        tokio::time::sleep(4 * second).await;
        assert_eq!(count(), 2, "the others count on it as yet");
        tokio::time::sleep(3 * second).await;
        assert_eq!(count(), 4);
        service.is_away.store(false, Ordering::Relaxed);
        tokio::time::sleep(7 * second).await;
        assert_eq!(count(), 2);
    }
}
