//! The whole of a judgement: rounds one after the other, each judged while it goes on
//! and when it is sold out.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use flux_core::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::figures::Figures;
use super::keeper::{Blow, Blows, Keeper, Outages};
use super::options::Options;
use super::report;
use super::round::Round;
use super::teller::Site;

const POLL: Duration = Duration::from_millis(50);

/// A fault, and when it was known. Times count from the start.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(super) at: Duration,
    pub(super) round: u32,
    pub(super) fault: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.1} s, round {}: {}", self.at.as_secs_f64(), self.round, self.fault)
    }
}

/// The outcome.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(super) seed: u64,
    pub(super) clients: u32,
    pub(super) took: Duration,
    pub(super) rounds: u32,
    pub(super) found: Vec<Found>,
    pub(super) blows: Blows,
    pub(super) figures: Figures,
}

impl Verdict {
    /// Whether nothing speaks against the server.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Times that the server was killed.
    pub(crate) fn kills(&self) -> usize {
        self.count(Blow::Killed)
    }

    pub(super) fn count(&self, blow: Blow) -> usize {
        self.blows.iter().filter(|(is, _)| *is == blow).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report::show(self, f)
    }
}

/// What the rounds have in common.
#[derive(Debug)]
pub(super) struct Court {
    pub(super) options: Options,
    pub(super) site: Arc<Site>,
    pub(super) began: Instant,
    pub(super) began_at: Timestamp,
    pub(super) outages: Outages,
    pub(super) seed: u64,
    /// A name that no other sale has.
    pub(super) sale: String,
    found: Mutex<Vec<Found>>,
}

impl Court {
    /// Notes faults that were not known, and says them; whether there were any.
    pub(super) fn find(&self, round: u32, faults: impl IntoIterator<Item = String>) -> bool {
        let mut found = self.found();
        let known = found.len();
        for fault in faults {
            let is_known = |known: &Found| known.round == round && known.fault == fault;
            if !found.iter().any(is_known) {
                let fault = Found { at: self.began.elapsed(), round, fault };
                println!("  {fault}");
                found.push(fault);
            }
        }
        found.len() > known
    }

    /// Whether a fault was found, and one is enough.
    pub(super) fn is_over(&self) -> bool {
        !self.options.keep_going && !self.found().is_empty()
    }

    /// Waits until it is.
    pub(super) async fn over(&self) {
        while !self.is_over() {
            sleep(POLL).await;
        }
    }

    fn found(&self) -> MutexGuard<'_, Vec<Found>> {
        // No change in here panics half-way.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges the server.
pub(crate) async fn run(options: &Options) -> Result<Verdict> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let (began, began_at) = (Instant::now(), Timestamp::now());
    let outages = Outages::with_recovery(options.recovery());
    let mut site = Site::find(&options.url).await?;
    let keeper = Keeper::start(options, &site, began, &outages, seed).await?;
    site.token = options.token()?;
    let court = Arc::new(Court {
        options: options.clone(),
        site: Arc::new(site),
        began,
        began_at,
        outages: outages.clone(),
        seed,
        sale: Uuid::now_v7().simple().to_string(),
        found: Mutex::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let keeping = tokio::spawn({
        let court = Arc::clone(&court);
        async move {
            let kept = keeper.keep(stopped).await;
            // A server that does not come back is a fault as any other.
            kept.map_err(|error| court.find(0, [format!("{error:#}")])).ok()
        }
    });

    let until = began + Duration::from_secs(options.seconds);
    let mut closings = JoinSet::new();
    let mut figures = Figures::default();
    let mut rounds = 0;
    while Instant::now() < until && !court.is_over() {
        rounds += 1;
        let end = until.min(Instant::now() + Duration::from_secs(options.round_seconds));
        let round = tokio::select! {
            round = Round::open(&court, rounds) => round?,
            () = court.over() => break,
        };
        let clients = round.storm(end).await;
        closings.spawn(round.close(clients));
        while let Some(closed) = closings.try_join_next() {
            figures.add(closed?);
        }
    }
    // What is left is sold without blows.
    let _ = stop.send(true);
    let keeper = keeping.await?;
    while let Some(closed) = closings.join_next().await {
        figures.add(closed?);
    }
    drop(keeper);
    let blows = outages.list();
    for (blow, at) in &blows {
        if *blow == Blow::Fell {
            court.find(
                0,
                [format!("the server ended by itself at {:.1} s", at.start.as_secs_f64())],
            );
        }
    }
    let found = court.found().clone();
    let clients = options.clients;
    Ok(Verdict { seed, clients, took: began.elapsed(), rounds, found, blows, figures })
}
