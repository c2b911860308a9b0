//! The promises of an outcome bus: it carries outcomes, with best effort.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::check::{Check, Checked, Failure, PATIENCE, checks, ensure};
use super::store::shop::{confirmed, held, item, rejected, seats, units};
use crate::seams::{Availability, OutcomeBus, OutcomeReceiver, Outcomes};

pub(super) fn all<B>() -> Vec<Check<Arc<B>>>
where
    B: OutcomeBus + ?Sized,
{
    checks! {
        "bus" {
            outcomes_reach_every_subscriber,
            outcomes_arrive_as_they_were_sent,
            publishing_to_nobody_is_no_error,
            a_subscriber_that_leaves_harms_nobody,
        }
    }
}

fn outcomes(n: u128) -> Arc<Outcomes> {
    let orders = vec![
        held(n, "ann", &[units("a", 2), seats("h", &["x", "y"])]),
        confirmed(&held(n + 1_000, "bob", &[units("a", 1)]), "p1"),
        rejected(n + 2_000, "cid", &[units("a", 9)]),
    ];
    let levels = vec![Availability { item: item("a"), available: n as u32 }];
    Arc::new(Outcomes { orders, availability: levels })
}

/// Whether `wanted` comes within a short time; others may come before it.
async fn hears(receiver: &mut OutcomeReceiver, wanted: &Outcomes) -> Checked<bool> {
    let end = Instant::now() + Duration::from_millis(200);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, receiver.recv()).await {
            Ok(Ok(heard)) if *heard == *wanted => return Ok(true),
            Ok(Ok(_)) => {}
            // Whoever falls behind loses the oldest: that is allowed.
            Ok(Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(error)) => return Err(Failure::new(format!("a subscriber was told {error}"))),
            Err(_) => return Ok(false),
        }
    }
}

/// Publishes until every subscriber heard it: the effort is best, not certain,
/// and a connection may still be opening.
async fn all_hear<B>(
    bus: &B,
    subscribers: &mut [OutcomeReceiver],
    wanted: &Arc<Outcomes>,
) -> Checked
where
    B: OutcomeBus + ?Sized,
{
    let end = Instant::now() + PATIENCE;
    let mut deaf: Vec<_> = subscribers.iter_mut().collect();
    while !deaf.is_empty() {
        ensure!(Instant::now() < end, "{} subscribers did not hear of it", deaf.len());
        bus.publish(wanted.clone()).await?;
        let mut still = Vec::new();
        for subscriber in deaf {
            if !hears(subscriber, wanted).await? {
                still.push(subscriber);
            }
        }
        deaf = still;
    }
    Ok(())
}

async fn outcomes_reach_every_subscriber<B>(bus: Arc<B>) -> Checked
where
    B: OutcomeBus + ?Sized,
{
    let mut subscribers = [bus.subscribe(), bus.subscribe(), bus.subscribe()];
    for n in 1..=20 {
        all_hear(&*bus, &mut subscribers, &outcomes(n)).await?;
    }
    Ok(())
}

async fn outcomes_arrive_as_they_were_sent<B>(bus: Arc<B>) -> Checked
where
    B: OutcomeBus + ?Sized,
{
    let mut subscribers = [bus.subscribe()];
    let empty = Arc::new(Outcomes::default());
    // More orders than one commit decides.
    let orders = (1..=200).map(|n| held(n, "ann", &[units("a", 1)])).collect();
    let large = Arc::new(Outcomes { orders, availability: vec![] });
    for wanted in [large, outcomes(1), empty] {
        all_hear(&*bus, &mut subscribers, &wanted).await?;
    }
    Ok(())
}

async fn publishing_to_nobody_is_no_error<B>(bus: Arc<B>) -> Checked
where
    B: OutcomeBus + ?Sized,
{
    for n in 1..=50 {
        bus.publish(outcomes(n)).await?;
    }
    let mut late = [bus.subscribe()];
    all_hear(&*bus, &mut late, &outcomes(99)).await
}

async fn a_subscriber_that_leaves_harms_nobody<B>(bus: Arc<B>) -> Checked
where
    B: OutcomeBus + ?Sized,
{
    let (left, slow) = (bus.subscribe(), bus.subscribe());
    let mut stays = [bus.subscribe()];
    drop(left);
    // A subscriber that never listens must not delay the others.
    for n in 1..=200 {
        bus.publish(outcomes(n)).await?;
    }
    all_hear(&*bus, &mut stays, &outcomes(999)).await?;
    drop(slow);
    all_hear(&*bus, &mut stays, &outcomes(1_000)).await
}
