//! The suites of the seams, a test for each check: bare, in layers, and
//! through two connections as two processes have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flux_aws::redis::Redis;
use flux_core::ItemId;
use flux_core::conformance::{Check, bus_checks, lock_checks};
use flux_core::layers::{Layered, Retry, TimeLimit, Trace};
use flux_core::seams::{
    Lease, LockManager, Member, OutcomeBus, OutcomeReceiver, Outcomes, SeamError, WantedReceiver,
};

use crate::{open, prefix, shared_url};

/// Time of a lease whose end is waited for.
const SHORT: Duration = Duration::from_millis(300);
const CALL_MAX: Duration = Duration::from_secs(20);

type LockCheck = Check<(Arc<dyn LockManager>, Duration)>;
type BusCheck = Check<Arc<dyn OutcomeBus>>;

fn fresh() -> Redis {
    open(&shared_url(), &prefix())
}

fn layered_locks() -> Arc<dyn LockManager> {
    let limited = Layered::new(Arc::new(fresh().locks()), TimeLimit::new(CALL_MAX));
    let retried = Layered::new(Arc::new(limited), Retry::default());
    Arc::new(Layered::new(Arc::new(retried), Trace))
}

fn layered_bus() -> Arc<dyn OutcomeBus> {
    let limited = Layered::new(Arc::new(fresh().bus()), TimeLimit::new(CALL_MAX));
    let retried = Layered::new(Arc::new(limited), Retry::default());
    Arc::new(Layered::new(Arc::new(retried), Trace))
}

/// Two that share a prefix.
struct Two<T>([T; 2], AtomicUsize);

fn two<T>(of: impl Fn(Redis) -> T) -> Arc<Two<T>> {
    let (url, prefix) = (shared_url(), prefix());
    Arc::new(Two([0, 1].map(|_| of(open(&url, &prefix))), AtomicUsize::new(0)))
}

impl<T> Two<T> {
    /// The next of the two, in turns.
    fn next(&self) -> &T {
        &self.0[self.1.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: LockManager> LockManager for Two<L> {
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        self.next().acquire(keys, ttl, wait).await
    }

    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        self.next().acquire_free(keys, ttl).await
    }

    fn wanted(&self) -> WantedReceiver {
        self.next().wanted()
    }

    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        self.next().join(member, ttl).await
    }

    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        self.next().leave(member).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError> {
        self.next().renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), SeamError> {
        self.next().release(lease).await
    }
}

/// Publishes in one process, listens in the other.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: OutcomeBus> OutcomeBus for Two<B> {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        self.0[0].publish(outcomes).await
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.0[1].subscribe()
    }
}

async fn locks(name: &str, locks: Arc<dyn LockManager>) {
    let checks: Vec<LockCheck> = lock_checks();
    let check = checks.iter().find(|check| check.name == name).expect("a check of this name");
    check.run((locks, SHORT)).await.expect("conforms");
}

async fn bus(name: &str, bus: Arc<dyn OutcomeBus>) {
    let checks: Vec<BusCheck> = bus_checks();
    let check = checks.iter().find(|check| check.name == name).expect("a check of this name");
    check.run(bus).await.expect("conforms");
}

macro_rules! tests {
    ($check:ident: $checks:ty, $all:ident; $bare:expr, $layered:expr, $apart:expr; $($name:ident,)*) => {
        mod $check {
            use super::*;

            #[test]
            fn no_check_is_left_out() {
                let checks: Vec<$checks> = $all();
                let names: Vec<_> = checks.iter().map(|check| check.name).collect();
                assert_eq!(names, [$(stringify!($name)),*]);
            }

            $(mod $name {
                use super::super::*;

                #[tokio::test]
                async fn bare() {
                    $check(stringify!($name), $bare).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn layered() {
                    $check(stringify!($name), $layered).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn apart() {
                    $check(stringify!($name), $apart).await;
                }
            })*
        }
    };
}

tests! {
    locks: LockCheck, lock_checks;
    Arc::new(fresh().locks()), layered_locks(), two(|redis| redis.locks());
    a_key_has_one_holder,
    all_keys_or_none,
    what_is_free_or_none,
    what_others_have_is_wanted,
    a_wait_is_bounded,
    a_waiter_gets_what_is_released,
    a_lease_ends,
    a_renewed_lease_lasts,
    only_what_is_ours_is_released,
    a_lost_lease_is_reported,
    a_crowd_takes_turns,
    members_are_those_who_joined_and_did_not_leave,
    a_member_that_is_not_renewed_is_forgotten,
}

tests! {
    bus: BusCheck, bus_checks;
    Arc::new(fresh().bus()), layered_bus(), two(|redis| redis.bus());
    outcomes_reach_every_subscriber,
    outcomes_arrive_as_they_were_sent,
    publishing_to_nobody_is_no_error,
    a_subscriber_that_leaves_harms_nobody,
}
