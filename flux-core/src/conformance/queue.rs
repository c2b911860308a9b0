//! The promises of an order queue: each message at least once, whatever its
//! workers do.
//!
//! Order is not asked for, since the trait promises none. Nor is a second
//! delivery a failure when the time-out may have run out: a check that was
//! itself too slow to tell starts over.

mod contents;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Check, Checked, Failure, PATIENCE, checks, ensure, eventually, same};
use super::store::shop::{id, order, payment, seats, units};
use crate::protocol::{Message, Metadata, OrderId};
use crate::seams::{Delivery, OrderQueue, QueueDepth, Receipt, SeamError};

/// The facts that the suite must know of the queues it is given.
#[derive(Debug, Clone, Copy)]
pub struct QueueTerms {
    /// The time after which a delivery left alone comes again. The checks wait
    /// for it a few times over, so let it be short; under `tokio::time::pause`,
    /// and with a queue that keeps time by tokio's clock, no real time is
    /// spent.
    pub visibility: Duration,
    /// The number of messages that fill the queue, at least 500; `None` leaves
    /// the check of the bound out.
    pub bound: Option<usize>,
    /// The accuracy of [`depth`](OrderQueue::depth).
    pub counts: Counts,
}

/// The accuracy of a queue's numbers, once they caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Every message counts.
    Exact,
    /// Dead letters count; of other messages the numbers tell only none from
    /// some, as a queue that packs messages may know just its number of packs.
    Rough,
}

impl Counts {
    fn of<const N: usize>(self, numbers: [u64; N]) -> [u64; N] {
        match self {
            Self::Exact => numbers,
            Self::Rough => numbers.map(|number| number.min(1)),
        }
    }
}

pub(super) type Subject<Q> = (Arc<Q>, QueueTerms);

pub(super) fn all<Q>() -> Vec<Check<Subject<Q>>>
where
    Q: OrderQueue + ?Sized,
{
    checks! {
        "G4" {
            everything_sent_is_delivered,
            a_delivery_left_alone_comes_again,
            an_extended_delivery_stays_away,
            a_delivery_handed_back_comes_again_in_time,
            a_stale_receipt_settles_nothing,
            a_dropped_receive_loses_nothing,
            many_receivers_miss_nothing,
        }
        "queue" {
            what_is_settled_stays_settled,
            contents::what_is_buried_can_be_read_and_redriven,
            an_empty_queue_answers_after_the_wait,
            a_waiting_receiver_is_woken,
            contents::a_waiting_order_is_found_or_never,
            contents::of_two_orders_under_one_id_the_first_is_found,
            contents::the_depth_tells_where_messages_are,
            contents::a_full_queue_says_so,
        }
    }
}

/// Most calls of `receive` a check makes: on a paused clock, a queue that
/// delivers for ever lets no time pass.
const RECEIVES_MAX: usize = 10_000;

/// An order, every third with something attached.
fn place(n: u128) -> Message {
    let attached = n.is_multiple_of(3).then(|| ("basket", format!("\"{n}\" ü")));
    let metadata = Metadata::new(attached).expect("the checks attach little");
    Message::Place(order(n, "ann", &[units("a", 1)]).with_metadata(metadata))
}

fn places(range: std::ops::RangeInclusive<u128>) -> Vec<Message> {
    range.map(place).collect()
}

fn lock<T>(ids: &Mutex<T>) -> MutexGuard<'_, T> {
    ids.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt.clone()).collect()
}

/// Receives until `count` different orders came, or for so long.
async fn receive_all<Q>(queue: &Q, count: usize, within: Duration) -> Checked<Vec<Delivery>>
where
    Q: OrderQueue + ?Sized,
{
    let end = Instant::now() + within;
    let (mut deliveries, mut seen, mut receives) = (Vec::new(), HashSet::new(), 0);
    while seen.len() < count {
        let left = end.saturating_duration_since(Instant::now());
        receives += 1;
        let goes_on = !left.is_zero() && receives <= RECEIVES_MAX;
        ensure!(goes_on, "{} of {count} messages came within {within:?}", seen.len());
        let wait = left.min(Duration::from_secs(1));
        for delivery in queue.receive(100, wait).await? {
            seen.insert(delivery.message.order_id());
            deliveries.push(delivery);
        }
    }
    Ok(deliveries)
}

async fn receive_one<Q: OrderQueue + ?Sized>(queue: &Q, within: Duration) -> Checked<Delivery> {
    let mut deliveries = receive_all(queue, 1, within).await?;
    same("messages received of one sent", &deliveries.len(), &1)?;
    Ok(deliveries.remove(0))
}

/// Checks that nothing comes for so long.
async fn silent<Q: OrderQueue + ?Sized>(queue: &Q, time: Duration) -> Checked {
    let deliveries = queue.receive(10, time).await?;
    ensure!(deliveries.is_empty(), "delivered though done: {deliveries:?}");
    Ok(())
}

fn again(terms: QueueTerms) -> Duration {
    terms.visibility * 2 + PATIENCE
}

async fn everything_sent_is_delivered<Q>((queue, _): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let mut sent = vec![
        Message::Place(order(1, "ann", &[units("a", 3), seats("h", &["x", "y"])])),
        Message::Release(id(2)),
        Message::Cancel(id(3)),
        Message::Expire(id(4)),
        Message::LatePayment(id(5), payment("p5")),
    ];
    sent.extend(places(6..=400));
    queue.send(&[]).await?;
    queue.send(&sent[..1]).await?;
    queue.send(&sent[1..]).await?;
    let mut missing: HashMap<OrderId, &Message> =
        sent.iter().map(|message| (message.order_id(), message)).collect();
    let (end, mut receives) = (Instant::now() + PATIENCE, 0);
    while !missing.is_empty() {
        receives += 1;
        let goes_on = Instant::now() < end && receives <= RECEIVES_MAX;
        ensure!(goes_on, "{} messages did not come", missing.len());
        let deliveries = queue.receive(30, Duration::from_millis(200)).await?;
        ensure!(deliveries.len() <= 30, "{} messages where 30 were asked for", deliveries.len());
        for delivery in &deliveries {
            ensure!(delivery.attempt >= 1, "attempts count from 1");
            if let Some(sent) = missing.remove(&delivery.message.order_id()) {
                same("the message", &&delivery.message, &sent)?;
            }
        }
        queue.ack(&receipts(&deliveries)).await?;
    }
    Ok(())
}

async fn a_delivery_left_alone_comes_again<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    queue.send(&places(1..=3)).await?;
    let first = receive_all(&*queue, 3, PATIENCE).await?;
    let attempts = |deliveries: &[Delivery]| -> HashMap<OrderId, u32> {
        deliveries.iter().map(|d| (d.message.order_id(), d.attempt)).collect()
    };
    let second = receive_all(&*queue, 3, again(terms)).await?;
    let before = attempts(&first);
    for (id, attempt) in attempts(&second) {
        let earlier = before.get(&id).copied().unwrap_or_default();
        ensure!(attempt > earlier, "attempt {attempt} of {id} comes after {earlier}");
    }
    Ok(())
}

/// Fails only if something came before the time-out could have run out;
/// `false` when too much time passed to tell.
async fn stays_away<Q>(
    queue: &Q,
    since: Instant,
    for_: Duration,
    terms: QueueTerms,
) -> Checked<bool>
where
    Q: OrderQueue + ?Sized,
{
    let deliveries = queue.receive(10, for_).await?;
    let in_time = since.elapsed() < terms.visibility;
    ensure!(deliveries.is_empty() || !in_time, "came again before its time: {deliveries:?}");
    Ok(in_time && deliveries.is_empty())
}

async fn an_extended_delivery_stays_away<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let most = terms.visibility * 5 / 8;
    queue.send(&places(1..=1)).await?;
    for _ in 0..5 {
        let since = Instant::now();
        let delivery = receive_one(&*queue, again(terms)).await?;
        let mut told = stays_away(&*queue, since, most, terms).await?;
        for _ in 0..2 {
            if told {
                let since = Instant::now();
                queue.extend(std::slice::from_ref(&delivery.receipt)).await?;
                told = stays_away(&*queue, since, most, terms).await?;
            }
        }
        if told {
            // Left alone at last, it comes again after all.
            let later = receive_one(&*queue, again(terms)).await?;
            return same("the message", &later.message, &delivery.message);
        }
        queue.retry(&[delivery.receipt], Duration::ZERO).await?;
    }
    Err(Failure::new("the machine was too slow for this time-out; give a longer one"))
}

async fn a_delivery_handed_back_comes_again_in_time<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    queue.send(&places(1..=1)).await?;
    let first = receive_one(&*queue, PATIENCE).await?;
    let since = Instant::now();
    queue.retry(std::slice::from_ref(&first.receipt), Duration::ZERO).await?;
    let second = receive_one(&*queue, again(terms)).await?;
    let took = since.elapsed();
    ensure!(took < terms.visibility + PATIENCE, "handed back without delay, it took {took:?}");
    ensure!(second.attempt > first.attempt, "attempt {} follows {}", second.attempt, first.attempt);

    // Due at the moment it would have timed out, and later than that.
    let mut last = second;
    for delay in [terms.visibility, terms.visibility * 2] {
        queue.retry(&[last.receipt], delay).await?;
        let since = Instant::now();
        last = receive_one(&*queue, delay + again(terms)).await?;
        let took = since.elapsed();
        ensure!(took >= delay * 3 / 4, "handed back for {delay:?}, it came after {took:?}");
        same("the message", &last.message, &first.message)?;
    }
    Ok(())
}

async fn a_stale_receipt_settles_nothing<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    queue.send(&places(1..=1)).await?;
    let first = receive_one(&*queue, PATIENCE).await?;
    let stale = [first.receipt.clone()];
    let second = receive_one(&*queue, again(terms)).await?;
    ensure!(first.receipt != second.receipt, "two deliveries have one receipt");
    queue.ack(&stale).await?;
    queue.bury(&[(first.receipt.clone(), "stale".into())]).await?;
    queue.retry(&[second.receipt], Duration::ZERO).await?;
    let third = receive_one(&*queue, again(terms)).await?;
    same("the message", &third.message, &first.message)?;
    same("dead letters", &queue.dead_letters(10).await?.len(), &0)?;
    queue.ack(&[third.receipt]).await?;
    queue.retry(&stale, Duration::ZERO).await?;
    queue.extend(&stale).await?;
    silent(&*queue, terms.visibility * 2).await
}

async fn what_is_settled_stays_settled<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    queue.send(&places(1..=20)).await?;
    let deliveries = receive_all(&*queue, 20, PATIENCE).await?;
    let mut given = receipts(&deliveries);
    queue.ack(&given).await?;
    given.truncate(3);
    // Acknowledging twice is no error.
    queue.ack(&given).await?;
    queue.ack(&[]).await?;
    silent(&*queue, terms.visibility * 2).await
}

async fn a_dropped_receive_loses_nothing<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    for n in 0..20 {
        let receiving = queue.receive(10, terms.visibility);
        let dropped = timeout(Duration::from_micros(n * 50), receiving).await;
        queue.send(&[place(u128::from(n) + 1)]).await?;
        if let Ok(deliveries) = dropped {
            queue.retry(&receipts(&deliveries?), Duration::ZERO).await?;
        }
    }
    // Acknowledged as they come: a queue may keep the messages on an item back
    // while an earlier one is out.
    let (mut seen, end) = (HashSet::new(), Instant::now() + again(terms));
    while seen.len() < 20 {
        let left = end.saturating_duration_since(Instant::now());
        for delivery in receive_all(&*queue, 1, left).await? {
            seen.insert(delivery.message.order_id());
            queue.ack(&[delivery.receipt]).await?;
        }
    }
    Ok(())
}

async fn many_receivers_miss_nothing<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    const MESSAGES: u128 = 400;
    let end = Instant::now() + again(terms);
    let mut tasks = JoinSet::new();
    let (seen, returned) =
        (Arc::new(Mutex::new(HashSet::new())), Arc::new(Mutex::new(HashSet::new())));
    for worker in 0..6_u128 {
        let (queue, seen, returned) = (queue.clone(), seen.clone(), returned.clone());
        tasks.spawn(async move {
            let share = MESSAGES / 4;
            if worker < 4 {
                queue.send(&places(worker * share + 1..=(worker + 1) * share)).await?;
            }
            for _ in 0..RECEIVES_MAX {
                let deliveries = queue.receive(7, Duration::from_millis(100)).await?;
                // Every fourth message is given back once, as by a failing worker.
                let (back, done): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|delivery| {
                    let id = delivery.message.order_id();
                    id.as_uuid().as_u128().is_multiple_of(4) && lock(&returned).insert(id)
                });
                queue.retry(&receipts(&back), Duration::ZERO).await?;
                queue.ack(&receipts(&done)).await?;
                let mut seen = lock(&seen);
                seen.extend(done.iter().map(|delivery| delivery.message.order_id()));
                if seen.len() == MESSAGES as usize {
                    return Checked::Ok(());
                }
                ensure!(Instant::now() < end, "{} of {MESSAGES} messages came", seen.len());
            }
            Err(Failure::new("messages came again and again, and others did not"))
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.map_err(|error| Failure::new(error.to_string()))??;
    }
    Ok(())
}

async fn an_empty_queue_answers_after_the_wait<Q>((queue, _): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    for wait in [Duration::ZERO, Duration::from_millis(50)] {
        let since = Instant::now();
        let deliveries = queue.receive(10, wait).await?;
        same("deliveries of an empty queue", &deliveries, &vec![])?;
        let took = since.elapsed();
        ensure!(took < wait + PATIENCE, "waiting up to {wait:?} took {took:?}");
    }
    Ok(())
}

async fn a_waiting_receiver_is_woken<Q>((queue, _): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let (receiver, since) = (queue.clone(), Instant::now());
    let wait = PATIENCE * 3;
    let receiving = tokio::spawn(async move { receiver.receive(10, wait).await });
    sleep(Duration::from_millis(20)).await;
    queue.send(&places(1..=1)).await?;
    let deliveries = receiving.await.map_err(|error| Failure::new(error.to_string()))??;
    same("messages for a waiting receiver", &deliveries.len(), &1)?;
    let took = since.elapsed();
    ensure!(took < wait, "a receiver that could wait {wait:?} was woken after {took:?}");
    Ok(())
}
