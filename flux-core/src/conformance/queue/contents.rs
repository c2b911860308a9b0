//! The promises about what can be read of a queue: dead letters, waiting orders,
//! how much there is.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;

pub(super) async fn what_is_buried_can_be_read_and_redriven<Q>(
    (queue, terms): Subject<Q>,
) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    queue.send(&places(1..=4)).await?;
    let mut deliveries = receive_all(&*queue, 4, PATIENCE).await?;
    deliveries.sort_by_key(|delivery| delivery.message.order_id());
    let kept = deliveries.remove(3);
    for delivery in &deliveries {
        let reason = format!("reason {}", delivery.message.order_id());
        queue.bury(&[(delivery.receipt.clone(), reason)]).await?;
        // So that oldest first can be told.
        sleep(Duration::from_millis(2)).await;
    }
    queue.ack(&[kept.receipt]).await?;
    let dead = async |max, should_be: std::ops::RangeInclusive<u128>| {
        let letters = queue.dead_letters(max).await?;
        let read: Vec<_> =
            letters.iter().map(|letter| (letter.message.clone(), letter.reason.clone())).collect();
        let should_be: Vec<_> =
            should_be.map(|n| (place(n), format!("reason {}", id(n)))).collect();
        same(&format!("up to {max} dead letters, oldest first"), &read, &should_be)?;
        let sorted = letters.is_sorted_by_key(|letter| letter.buried_at);
        ensure!(sorted, "the oldest come first: {letters:?}");
        Ok(())
    };
    dead(2, 1..=2).await?;
    dead(10, 1..=3).await?;
    silent(&*queue, terms.visibility * 2).await?;

    same("redriven", &queue.redrive(1).await?, &1)?;
    let first = receive_one(&*queue, again(terms)).await?;
    same("the oldest dead letter", &first.message, &place(1))?;
    dead(10, 2..=3).await?;
    queue.ack(&[first.receipt]).await?;
    same("redriven", &queue.redrive(10).await?, &2)?;
    let rest = receive_all(&*queue, 2, again(terms)).await?;
    queue.ack(&receipts(&rest)).await?;
    same("redriven of none", &queue.redrive(10).await?, &0)?;
    same("dead letters", &queue.dead_letters(10).await?, &vec![])?;
    silent(&*queue, terms.visibility * 2).await
}

pub(super) async fn a_waiting_order_is_found_or_never<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    same("an order that was not sent", &queue.find(id(1)).await?, &None)?;
    queue.send(&[place(1), Message::Release(id(2))]).await?;
    let Some(found) = queue.find(id(1)).await? else {
        // A queue that can't look inside; it must not seem to later either.
        let deliveries = receive_all(&*queue, 2, PATIENCE).await?;
        same("an order in flight", &queue.find(id(1)).await?, &None)?;
        return Ok(queue.ack(&receipts(&deliveries)).await?);
    };
    same("the order found", &Message::Place(found), &place(1))?;
    same("an order that is only released", &queue.find(id(2)).await?, &None)?;
    let deliveries = receive_all(&*queue, 2, PATIENCE).await?;
    let found = queue.find(id(1)).await?.map(Message::Place);
    same("an order in flight", &found, &Some(place(1)))?;
    queue.retry(&receipts(&deliveries), Duration::ZERO).await?;
    let found = queue.find(id(1)).await?.map(Message::Place);
    same("an order handed back", &found, &Some(place(1)))?;
    let deliveries = receive_all(&*queue, 2, again(terms)).await?;
    queue.ack(&receipts(&deliveries)).await?;
    same("an order that is done", &queue.find(id(1)).await?, &None)
}

pub(super) async fn of_two_orders_under_one_id_the_first_is_found<Q>(
    (queue, terms): Subject<Q>,
) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let two = [place(1), Message::Place(order(1, "bob", &[units("a", 2)]))];
    for message in &two {
        queue.send(std::slice::from_ref(message)).await?;
    }
    if queue.find(id(1)).await?.is_none() {
        // A queue that can't look inside.
        return Ok(());
    }
    for (nth, message) in two.iter().enumerate() {
        let (end, mut receives) = (Instant::now() + again(terms) * 2, 0);
        let (mut handed_back, mut done) = (false, false);
        while !done {
            receives += 1;
            let goes_on = Instant::now() < end && receives <= RECEIVES_MAX;
            ensure!(goes_on, "message {nth} under the id was not done");
            let found = queue.find(id(1)).await?.map(Message::Place);
            same("the first order under the id", &found.as_ref(), &Some(message))?;
            let deliveries = queue.receive(10, Duration::from_millis(100)).await?;
            let (these, others): (Vec<_>, Vec<_>) =
                deliveries.into_iter().partition(|delivery| delivery.message == *message);
            queue.retry(&receipts(&others), Duration::ZERO).await?;
            if !handed_back {
                // It stays the first, however often it comes.
                queue.retry(&receipts(&these), Duration::ZERO).await?;
                handed_back = !these.is_empty();
                continue;
            }
            queue.ack(&receipts(&these)).await?;
            let left = queue.find(id(1)).await?.map(Message::Place);
            done = left.as_ref() != Some(message);
        }
    }
    same("an order that is done", &queue.find(id(1)).await?, &None)
}

pub(super) async fn the_depth_tells_where_messages_are<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let (queue, mut deliveries) = (&*queue, Vec::new());
    let depth = async |waiting, in_flight, dead| {
        eventually(|| async {
            let QueueDepth { waiting: w, in_flight: f, dead: d, .. } = queue.depth().await?;
            let should_be = (terms.counts.of([waiting, in_flight]), dead);
            same("([waiting, in flight], dead)", &(terms.counts.of([w, f]), d), &should_be)
        })
        .await
    };
    // Under a short time-out the numbers move by themselves: in flight is
    // asked for at once, and only of what is extended.
    depth(0, 0, 0).await?;
    queue.send(&places(1..=5)).await?;
    depth(5, 0, 0).await?;
    let end = Instant::now() + PATIENCE;
    while deliveries.len() < 2 {
        ensure!(Instant::now() < end, "{} of 2 messages came", deliveries.len());
        let more = 2 - deliveries.len();
        deliveries.extend(queue.receive(more, Duration::from_millis(100)).await?);
    }
    let given = receipts(&deliveries);
    eventually(|| async {
        queue.extend(&given).await?;
        let depth = queue.depth().await?;
        let told = terms.counts.of([depth.waiting, depth.in_flight]);
        same("[waiting, in flight]", &told, &terms.counts.of([3, 2]))
    })
    .await?;
    queue.ack(&given[..1]).await?;
    queue.bury(&[(given[1].clone(), "poison".into())]).await?;
    depth(3, 0, 1).await?;
    queue.redrive(1).await?;
    depth(4, 0, 0).await
}

pub(super) async fn a_full_queue_says_so<Q>((queue, terms): Subject<Q>) -> Checked
where
    Q: OrderQueue + ?Sized,
{
    let Some(bound) = terms.bound else { return Ok(()) };
    let messages = places(1..=bound as u128);
    for batch in messages.chunks(100) {
        queue.send(batch).await?;
    }
    let more = places(1_000_001..=1_000_001);
    let full = |result: Result<(), SeamError>| match result {
        Err(SeamError::Overloaded { retry_after, .. }) if !retry_after.is_zero() => Ok(()),
        other => Err(Failure::new(format!("a full queue of {bound} answered {other:?}"))),
    };
    full(queue.send(&more).await)?;
    // Messages being worked on are not done: they still count.
    let mut deliveries = queue.receive(10, PATIENCE).await?;
    full(queue.send(&more).await)?;
    let first = deliveries.remove(0);
    queue.ack(&[first.receipt]).await?;
    queue.send(&more).await?;
    full(queue.send(&places(1_000_002..=1_000_002)).await)
}
