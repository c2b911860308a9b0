//! Leases within the process, for several engines or many workers in one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::backends::until;
use crate::protocol::ItemId;
use crate::seams::{Lease, LockManager, Member, SeamError, WantedReceiver};
use crate::sync::{Mutex, MutexGuard, Notify, timeout_at};

/// The number of leases below which no ended ones are looked for.
const SWEEP_MIN: usize = 64;
/// Calls for keys that somebody has, kept for those who are slow to hear.
const WANTED_KEPT: usize = 64;

/// A [`LockManager`] for this process only. Its time is tokio's.
#[derive(Debug)]
pub struct MemoryLocks {
    leases: Mutex<Leases>,
    members: Mutex<HashMap<String, Instant>>,
    freed: Notify,
    wanted: broadcast::Sender<Arc<[ItemId]>>,
    /// Owners are never outside this process, so counting tells them apart.
    owners: AtomicU64,
}

impl Default for MemoryLocks {
    fn default() -> Self {
        Self {
            leases: Mutex::default(),
            members: Mutex::default(),
            freed: Notify::default(),
            wanted: broadcast::channel(WANTED_KEPT).0,
            owners: AtomicU64::default(),
        }
    }
}

/// The owner of each key, and the end of the lease.
type Leased = HashMap<ItemId, (String, Instant)>;

#[derive(Debug, Default)]
struct Leases {
    leased: Leased,
    /// The number of leases that the last sweep left.
    swept: usize,
}

impl Leases {
    /// Drops leases that ended unreleased once there may be as many of them as
    /// live ones, so that each costs about one look.
    fn sweep(&mut self, now: Instant) {
        if self.leased.len() > SWEEP_MIN.max(self.swept * 2) {
            self.leased.retain(|_, (_, until)| *until > now);
            self.swept = self.leased.len();
        }
    }
}

impl MemoryLocks {
    fn lock(&self) -> MutexGuard<'_, Leases> {
        // A half-made lease is in the way until it ends, and no longer.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases all keys, or says when the first of those in the way ends.
    fn try_acquire(&self, keys: &[ItemId], owner: &str, ttl: Duration) -> Result<(), Instant> {
        let now = Instant::now();
        let mut leases = self.lock();
        leases.sweep(now);
        let leased = &mut leases.leased;
        let taken = |key| leased.get(key).map(|&(_, until)| until).filter(|until| *until > now);
        if let Some(first_end) = keys.iter().filter_map(taken).min() {
            return Err(first_end);
        }
        for key in keys {
            leased.insert(key.clone(), (owner.to_owned(), until(now, ttl)));
        }
        Ok(())
    }
}

fn is_ours(leased: &Leased, key: &ItemId, lease: &Lease, now: Instant) -> bool {
    leased.get(key).is_some_and(|(owner, until)| *owner == lease.owner && *until > now)
}

#[async_trait]
impl LockManager for MemoryLocks {
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let owner = self.owners.fetch_add(1, Ordering::Relaxed).to_string();
        let give_up = until(Instant::now(), wait);
        loop {
            // Listening starts before the look, so that no release is missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let Err(first_end) = self.try_acquire(&keys, &owner, ttl) else {
                return Ok(Some(Lease { keys, owner }));
            };
            if Instant::now() >= give_up {
                return Ok(None);
            }
            // Either way it is worth another look.
            let _ = timeout_at(first_end.min(give_up), freed).await;
        }
    }

    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let owner = self.owners.fetch_add(1, Ordering::Relaxed).to_string();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let (keys, wanted): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .partition(|key| self.try_acquire(std::slice::from_ref(key), &owner, ttl).is_ok());
        if !wanted.is_empty() {
            // An error says that nobody listens, which is fine.
            let _ = self.wanted.send(wanted.into());
        }
        Ok((!keys.is_empty()).then_some(Lease { keys, owner }))
    }

    fn wanted(&self) -> WantedReceiver {
        self.wanted.subscribe()
    }

    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        let now = Instant::now();
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, until| *until > now);
        members.insert(member.to_owned(), until(now, ttl));
        let member = |(name, until): (&String, &Instant)| Member::new(name, *until - now);
        Ok(members.iter().map(member).collect())
    }

    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(member);
        Ok(())
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError> {
        let now = Instant::now();
        let leased = &mut self.lock().leased;
        if !lease.keys.iter().all(|key| is_ours(leased, key, lease, now)) {
            return Ok(false);
        }
        for key in &lease.keys {
            leased.insert(key.clone(), (lease.owner.clone(), until(now, ttl)));
        }
        Ok(true)
    }

    async fn release(&self, lease: &Lease) -> Result<(), SeamError> {
        let now = Instant::now();
        {
            let leased = &mut self.lock().leased;
            for key in &lease.keys {
                if is_ours(leased, key, lease, now) {
                    leased.remove(key);
                }
            }
        }
        self.freed.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_that_ended_unreleased_do_not_pile_up() {
        let locks = MemoryLocks::default();
        let ttl = Duration::from_secs(1);
        let key = |n: usize| ItemId::new(n.to_string()).expect("item");
        let live: Vec<_> = (0..100).map(key).collect();
        let lease = locks.acquire(&live, ttl * 10_000, Duration::ZERO).await.expect("ok");
        assert!(lease.is_some());
        for n in 100..2_000 {
            let lease = locks.acquire(&[key(n)], ttl, Duration::ZERO).await.expect("ok");
            assert!(lease.is_some());
            tokio::time::advance(ttl * 2).await;
            assert!(locks.lock().leased.len() <= 202);
        }
        let lease = locks.acquire(&live[..1], ttl, Duration::ZERO).await.expect("ok");
        assert_eq!(lease, None, "a live lease stays");
    }
}
