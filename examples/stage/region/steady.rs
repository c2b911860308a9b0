//! Orders that come at a steady rate, the time that each waits for its decision, and
//! what a worker's trouble does to it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use flux_core::{ItemId, Order, SeamError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::demand::number;
use super::{Counts, Decided, Market};

/// The time from one batch of arrivals to the next.
const TICK: Duration = Duration::from_millis(1);
/// The time until claims and waiting are as usual.
const WARM_AFTER: Duration = Duration::from_secs(1);

/// A steady demand.
#[derive(Debug, Clone)]
pub struct Steady {
    /// Where the orders come.
    pub market: Market,
    /// Orders a second (a Poisson process).
    pub rate: f64,
    /// The time for which they come.
    pub lasts: Duration,
    /// The first of the items that anybody asks for: orders for those before are left out.
    pub from_item: usize,
    /// What goes wrong, and when.
    pub troubles: Vec<(Duration, Trouble)>,
}

/// What goes wrong. All that happens to a worker happens to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The worker is gone in the middle of what it does.
    Kill,
    /// The worker stands still.
    Freeze,
    /// It goes on where it was.
    Thaw,
    /// The worker can't reach its store any more.
    StoreAway,
    /// It can again.
    StoreBack,
    /// Nobody has a lock service any more.
    LocksAway,
}

/// What came of a steady demand.
#[derive(Debug)]
pub struct Course {
    /// Orders that came.
    pub sent: usize,
    /// What was asked of the store, once all was as usual and until the last order came.
    pub counts: Counts,
    /// The moment of the first trouble, or of the last order.
    pub trouble_at: Instant,
    usual_from: Instant,
    ended_at: Instant,
    partitions: usize,
    decided: Vec<Decided>,
}

/// Waiting times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// Half of the orders wait no longer.
    pub p50: Duration,
    /// 99 of a hundred.
    pub p99: Duration,
    /// 999 of a thousand.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// How others took over from a worker in trouble.
#[derive(Debug, Clone, Copy)]
pub struct Takeover {
    /// The partitions that it served.
    pub lost: usize,
    /// The partitions of others that went from one of them to another.
    pub moved: usize,
    /// The longest time that an item of its partitions was asked for without an answer,
    /// while orders came.
    pub without_answer: Duration,
    /// The time until others had decided something in each of its partitions.
    pub served_after: Duration,
    /// The longest wait of an order in its partitions: those in its hands come back when
    /// the queue's time for them is over.
    pub slowest: Duration,
    /// The waits in the others' partitions before the trouble.
    pub others_usual: Waits,
    /// The longest wait from the trouble on, in the partitions that stayed where they were.
    pub stayed_slowest: Duration,
    /// The longest wait in those that moved from one of the others to another.
    pub moved_slowest: Duration,
}

impl Steady {
    /// Lets the orders come, and waits for the last decision. Must be called within a
    /// runtime whose clock is paused.
    ///
    /// # Errors
    /// When the services do not take what is prepared.
    ///
    /// # Panics
    /// When the orders are not decided within an hour of the region's time.
    pub async fn run(self) -> Result<Course, SeamError> {
        let mut market = self.market.open().await?;
        let mut dice = StdRng::seed_from_u64(self.market.seed + 1);
        let mut troubles = self.troubles.iter().peekable();
        let began = Instant::now();
        let (mut sent, mut next, mut usual) = (0, 0.0, None);
        let mut trouble_at = began + self.lasts;
        while began.elapsed() < self.lasts {
            while let Some((_, trouble)) = troubles.next_if(|(at, _)| *at <= began.elapsed()) {
                trouble_at = trouble_at.min(Instant::now());
                match trouble {
                    Trouble::Kill => market.links[0].kill(),
                    Trouble::Freeze => market.links[0].freeze(),
                    Trouble::Thaw => market.links[0].thaw(),
                    Trouble::StoreAway => market.links[0].set_store_away(true),
                    Trouble::StoreBack => market.links[0].set_store_away(false),
                    Trouble::LocksAway => {
                        market.links.iter().for_each(|link| link.set_locks_away(true));
                    }
                }
            }
            if usual.is_none() && began.elapsed() >= WARM_AFTER {
                usual = Some(market.region.counts());
            }
            let mut orders: Vec<Order> = Vec::new();
            while next <= began.elapsed().as_secs_f64() {
                next += -(1.0 - dice.random::<f64>()).ln() / self.rate;
                let order = market.next();
                if order.lines.iter().all(|line| number(&line.item) >= self.from_item) {
                    orders.push(order);
                }
            }
            sent += orders.len();
            market.send(orders).await?;
            sleep(TICK).await;
        }
        let ended_at = Instant::now();
        let counts = market.region.counts() - usual.unwrap_or_default();
        for (_, trouble) in troubles {
            match trouble {
                Trouble::Thaw => market.links[0].thaw(),
                Trouble::StoreBack => market.links[0].set_store_away(false),
                _ => panic!("only its end may come after the last order"),
            }
        }
        market.decided(sent).await;
        let decided = market.region.decided().clone();
        let (usual_from, partitions) = (began + WARM_AFTER, self.market.partitions);
        Ok(Course { sent, counts, trouble_at, usual_from, ended_at, partitions, decided })
    }
}

impl Waits {
    /// The waiting times of decisions.
    pub fn of<'d>(decided: impl Iterator<Item = &'d Decided>) -> Self {
        let mut waits: Vec<Duration> = decided.map(|decided| decided.after).collect();
        waits.sort_unstable();
        let Some(last) = waits.len().checked_sub(1) else { return Self::default() };
        let at = |share: f64| waits[(last as f64 * share).round() as usize];
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: waits[last] }
    }
}

impl Course {
    /// Orders that were decided more than once, or never.
    pub fn wrong(&self) -> usize {
        let once: HashSet<_> = self.decided.iter().map(|decided| decided.order).collect();
        (self.decided.len() - once.len()) + (self.sent - once.len())
    }

    /// The usual decisions: those of orders that came once all was as usual, and that
    /// were made before any trouble.
    pub fn usual(&self) -> impl Iterator<Item = &Decided> {
        let is_usual = |d: &&Decided| d.at - d.after >= self.usual_from && d.at < self.trouble_at;
        self.decided.iter().filter(is_usual)
    }

    /// Decisions made from the trouble on, until the last order came.
    pub fn troubled(&self) -> impl Iterator<Item = &Decided> {
        let is_troubled = |d: &&Decided| d.at >= self.trouble_at && d.at < self.ended_at;
        self.decided.iter().filter(is_troubled)
    }

    /// How others took over from the first worker.
    pub fn takeover(&self) -> Takeover {
        let partition = |decided: &Decided| decided.partition;
        // Whoever decided there last before the trouble, and whether anybody else did since.
        let mut server = vec![None; self.partitions];
        let mut moved = vec![false; self.partitions];
        for decided in &self.decided {
            let (at, by) = (partition(decided), Some(decided.worker));
            match decided.at < self.trouble_at {
                true => server[at] = by,
                false => moved[at] |= server[at] != by,
            }
        }
        let is_lost = |d: &&Decided| server[partition(d)] == Some(0);
        let stays = |d: &&Decided| !is_lost(d) && !moved[partition(d)];
        let moves = |d: &&Decided| !is_lost(d) && moved[partition(d)];
        let after = || self.decided.iter().filter(|decided| decided.at >= self.trouble_at);
        let mut answered: HashMap<&ItemId, Instant> = HashMap::new();
        let mut served: HashMap<usize, Instant> = HashMap::new();
        let mut without_answer = Duration::ZERO;
        for decided in after().filter(is_lost).filter(|decided| decided.at < self.ended_at) {
            let last = answered.insert(&decided.item, decided.at).unwrap_or(self.trouble_at);
            without_answer = without_answer.max(decided.after.min(decided.at - last));
            if decided.worker != 0 {
                served.entry(partition(decided)).or_insert(decided.at);
            }
        }
        let served_at = served.into_values().max().unwrap_or(self.trouble_at);
        Takeover {
            lost: server.iter().filter(|server| **server == Some(0)).count(),
            moved: (0..self.partitions).filter(|n| server[*n] != Some(0) && moved[*n]).count(),
            without_answer,
            served_after: served_at - self.trouble_at,
            slowest: Waits::of(after().filter(is_lost)).max,
            others_usual: Waits::of(self.usual().filter(|d| !is_lost(d))),
            stayed_slowest: Waits::of(after().filter(stays)).max,
            moved_slowest: Waits::of(after().filter(moves)).max,
        }
    }
}
