//! Whether the store can be written from here. A worker that can't leaves its partitions to
//! others, to whom the store may be better, until a look at the store works again. What it
//! can read it may not be able to write: then it is ill again, for longer each time.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Time without a success after which a worker that fails is ill.
pub(super) const ILL_AFTER: Duration = Duration::from_secs(4);
/// Least time from the first failure to the last of one who is ill: what failed for a
/// moment only is not the store.
const FAILS_FOR: Duration = Duration::from_secs(1);
/// Time until an ill worker looks whether it is well.
const LOOK_AFTER: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// What a worker knows of its way to the store.
#[derive(Debug)]
pub(super) struct Health {
    /// The first and the last failure since the last success.
    failed: Option<(Instant, Instant)>,
    is_ill: watch::Sender<bool>,
    ill_since: Option<Instant>,
    /// The times in a row that it was ill, or looked and was not well.
    times: u32,
    looks_at: Option<Instant>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            failed: None,
            is_ill: watch::Sender::new(false),
            ill_since: None,
            times: 0,
            looks_at: None,
        }
    }

    /// Hears when it falls ill, and when it is well again.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.is_ill.subscribe()
    }

    /// Notes that something was written.
    pub(super) fn wrote(&mut self) {
        (self.failed, self.times, self.looks_at) = (None, 0, None);
        self.set_ill(false);
    }

    /// Notes that the store failed.
    pub(super) fn failed(&mut self) {
        let now = Instant::now();
        let (first, _) = *self.failed.get_or_insert((now, now));
        self.failed = Some((first, now));
    }

    fn is_ill(&self) -> bool {
        *self.is_ill.borrow()
    }

    /// Whether it began to fail a moment ago: others may do better, and are about to serve
    /// what this one did.
    pub(super) fn began_to_fail(&self) -> bool {
        match self.is_ill() {
            true => self.ill_since.is_some_and(|since| since.elapsed() < ILL_AFTER),
            false => self.failed.is_some(),
        }
    }

    /// The moment to look after it; `None` while it is well, or looks.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let failed = self.failed.filter(|_| !self.is_ill());
        self.looks_at.or(failed.map(|(first, _)| first + ILL_AFTER))
    }

    /// Finds whether it is ill by now, and begins a look at the store, if it is time.
    pub(super) fn begin_look(&mut self) -> bool {
        let now = Instant::now();
        if let Some((first, last)) = self.failed
            && !self.is_ill()
            && now >= first + ILL_AFTER
        {
            self.failed = None;
            if last - first >= FAILS_FOR {
                self.ill_since = Some(now);
                self.set_ill(true);
                self.look_later();
            }
        }
        let is_time = self.looks_at.is_some_and(|at| at <= now);
        if is_time {
            self.looks_at = None;
        }
        is_time
    }

    /// Takes over what a look showed.
    pub(super) fn looked(&mut self, is_there: bool) {
        if !self.is_ill() {
            // It has written meanwhile.
        } else if is_there {
            self.failed = None;
            self.set_ill(false);
        } else {
            self.look_later();
        }
    }

    fn look_later(&mut self) {
        self.times = self.times.saturating_add(1);
        self.looks_at = Some(Instant::now() + LOOK_AFTER.ceiling(self.times));
    }

    fn set_ill(&self, is_ill: bool) {
        self.is_ill.send_if_modified(|was_ill| std::mem::replace(was_ill, is_ill) != is_ill);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fails for a while, and finds whether that was an illness.
    async fn fail_for(health: &mut Health, long: Duration) -> bool {
        health.failed();
        advance(long).await;
        health.failed();
        assert!(!health.begin_look() && !health.is_ill());
        advance(health.look_at().expect("it looks") - Instant::now()).await;
        assert!(!health.begin_look(), "it is too early for that");
        health.is_ill()
    }

    /// Waits for the next look, which shows whether the store is there.
    async fn look(health: &mut Health, is_there: bool) -> Duration {
        let after = health.look_at().expect("it looks") - Instant::now();
        advance(after).await;
        assert!(health.begin_look() && !health.begin_look());
        health.looked(is_there);
        after
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_for_long_is_ill_until_a_look_works_and_longer_each_time() {
        let mut health = Health::new();
        assert!(fail_for(&mut health, SECOND).await);
        assert_eq!(look(&mut health, false).await, 5 * SECOND);
        assert_eq!(look(&mut health, true).await, 10 * SECOND);
        assert!(!health.is_ill() && health.look_at().is_none());
        assert!(fail_for(&mut health, 3 * SECOND).await, "it can read and not write");
        assert_eq!(look(&mut health, true).await, 20 * SECOND);
        health.wrote();
        assert!(fail_for(&mut health, SECOND).await);
        assert_eq!(look(&mut health, true).await, 5 * SECOND, "as at first");
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_now_and_then_or_failed_for_a_moment_is_not_ill() {
        let mut health = Health::new();
        for _ in 0..10 {
            health.failed();
            advance(ILL_AFTER - SECOND).await;
            health.failed();
            health.wrote();
            assert!(!health.begin_look() && health.look_at().is_none());
        }
        assert!(!fail_for(&mut health, SECOND / 2).await);
        assert!(health.look_at().is_none(), "that is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_ill_and_writes_is_well() {
        let mut health = Health::new();
        assert!(fail_for(&mut health, SECOND).await);
        health.wrote();
        assert!(!health.is_ill() && health.look_at().is_none());
    }
}
