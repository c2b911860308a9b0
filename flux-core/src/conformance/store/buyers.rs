//! G6: what a store with rules about buyers asks of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::shop::{
    HOLD, Shop, T0, after, barred, cancelled, confirmed, expired, held, held_from, id, place, pool,
    released_at, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, same};
use crate::protocol::{BuyerRules, Claim, CommitOutcome, Order};
use crate::seams::InventoryStore;

const PAUSE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// The rules that the checks are for.
pub(crate) const BUYER_RULES: BuyerRules =
    BuyerRules { holds_max: NonZeroU32::new(2), hold_again_after: Some(PAUSE) };

const ITEMS: [&str; 4] = ["a", "b", "c", "d"];

async fn open<S>(store: Arc<S>) -> Checked<(Shop<S>, Vec<Arc<Claim>>)>
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &ITEMS.map(|id| pool(id, 1_000))).await?;
    let mut claims = Vec::new();
    for item in ITEMS {
        claims.push(Arc::new(shop.claim(item).await?));
    }
    Ok((shop, claims))
}

fn one(n: u128, who: &str, item: &str) -> Order {
    held(n, who, &[units(item, 1)])
}

pub(super) async fn no_buyer_has_more_holds_than_the_rule<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let (shop, claims) = open(store).await?;
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| &*claims[at]);
    let (first, second) = (one(1, "ann", "a"), one(2, "ann", "b"));
    shop.apply(&[a], &[place(&first)]).await?;
    shop.apply(&[b], &[place(&second)]).await?;
    let full = async |claim, writes: &[Order], barred_ids: &[u128]| {
        let writes: Vec<_> = writes.iter().map(place).collect();
        let outcome = shop.write(&[claim], &writes).await?;
        same("a third hold for the holder of 2", &outcome, &barred(barred_ids))
    };
    full(c, &[one(3, "ann", "c")], &[3]).await?;
    // Which of the commit get nothing is told at once; the others are as they were.
    full(c, &[3, 4, 5].map(|n| one(n, ["ann", "bob"][n as usize % 2], "c")), &[4]).await?;
    full(c, &[one(6, "bob", "c"), one(7, "ann", "c"), one(8, "ann", "c")], &[7, 8]).await?;
    shop.absent(&[&one(3, "ann", "c"), &one(6, "bob", "c")]).await?;
    // The commit's own count, those of a late comer among them.
    full(c, &[12, 13, 14].map(|n| one(n, "cyd", "c")), &[14]).await?;
    shop.apply(&[c], &[place(&one(6, "bob", "c"))]).await?;
    // What is paid for is no hold any more, nor what is cancelled after that.
    let paid = shop.pay(&first, "p1").await?;
    let third = one(3, "ann", "c");
    shop.apply(&[c], &[place(&third)]).await?;
    full(d, &[one(9, "ann", "d")], &[9]).await?;
    shop.apply(&[a], &[turn(&paid, &cancelled(&paid, "p1"))]).await?;
    full(d, &[one(9, "ann", "d")], &[9]).await?;
    // One that ended makes room, and may be paid for late.
    shop.apply(&[b], &[turn(&second, &expired(&second))]).await?;
    let fourth = one(9, "ann", "d");
    shop.apply(&[d], &[place(&fourth)]).await?;
    let late = turn(&expired(&second), &confirmed(&second, "p2"));
    shop.apply(&[b], &[late]).await?;
    full(d, &[one(10, "ann", "d")], &[10]).await?;
    // So does one that ends in the commit.
    let ends = turn(&fourth, &confirmed(&fourth, "p4"));
    let tenth = one(10, "ann", "d");
    shop.apply(&[d], &[ends, place(&tenth)]).await?;
    full(a, &[one(11, "ann", "a")], &[11]).await?;
    shop.numbers("c", (998, 2, 0)).await?;
    shop.numbers("d", (998, 1, 1)).await
}

/// Claims do not keep these apart: they are of different items, or one token has
/// many writers.
pub(super) async fn no_buyer_has_more_holds_by_writers_at_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let (shop, claims) = open(store).await?;
    let mut applied: Vec<Order> = Vec::new();
    for round in 0..3 {
        let mut tasks = JoinSet::new();
        for n in 1..=24 {
            let at = n as usize % ITEMS.len();
            let who = ["ann", "bob"][n as usize % 3 % 2];
            let order = one(round * 100 + n, who, ITEMS[at]);
            let (shop, claim) = (shop.clone(), claims[at].clone());
            tasks.spawn(async move {
                let outcome = shop.write(&[&claim], &[place(&order)]).await?;
                Checked::Ok((outcome, order))
            });
        }
        // A payment ends a hold while others begin: two more, not three.
        for order in std::mem::take(&mut applied) {
            let shop = shop.clone();
            tasks.spawn(async move {
                shop.pay(&order, "paid").await?;
                Checked::Ok((CommitOutcome::Applied, order))
            });
        }
        let mut paid = 0;
        while let Some(result) = tasks.join_next().await {
            match result.map_err(|error| Failure::new(error.to_string()))?? {
                (CommitOutcome::Applied, order) if order.id < id(round * 100) => paid += 1,
                (CommitOutcome::Applied, order) => applied.push(order),
                _ => {}
            }
        }
        for who in ["ann", "bob"] {
            let holds = applied.iter().filter(|order| order.buyer.as_str() == who).count();
            ensure!(holds <= 2, "{who} has {holds} holds where 2 are allowed");
        }
        ensure!(round > 0 || applied.len() == 4, "{} of 4 holds were given", applied.len());
        ensure!(round == 0 || paid > 0, "nothing was paid for");
        // What was turned down only because it came before the payments.
        for (n, who) in (50..).zip(["ann", "bob"]) {
            while applied.iter().filter(|order| order.buyer.as_str() == who).count() < 2 {
                let order = one(round * 100 + n + 2 * applied.len() as u128, who, "a");
                shop.apply(&[&claims[0]], &[place(&order)]).await?;
                applied.push(order);
            }
            let more = one(round * 100 + n + 40, who, "b");
            let outcome = shop.write(&[&claims[1]], &[place(&more)]).await?;
            let should_be = barred(&[round * 100 + n + 40]);
            same("a third hold, when all is at rest", &outcome, &should_be)?;
        }
    }
    Ok(())
}

pub(super) async fn nobody_holds_again_within_the_pause<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let (shop, claims) = open(store).await?;
    let [a, b, c] = [0, 1, 2].map(|at| &*claims[at]);
    let no = async |claims: &[&Claim], order: &Order| {
        let outcome = shop.write(claims, &[place(order)]).await?;
        same("a hold within the pause", &outcome, &barred(&[order.id.as_uuid().as_u128()]))
    };
    // Released after ten seconds, and so from then on.
    let first = one(1, "ann", "a");
    let end = after(Duration::from_secs(10));
    shop.apply(&[a], &[place(&first)]).await?;
    shop.apply(&[a], &[turn(&first, &released_at(&first, end))]).await?;
    let again = |n, lines: &[_], at| held_from(n, "ann", lines, at);
    let a1 = [units("a", 1)];
    no(&[a], &again(2, &a1, end)).await?;
    no(&[a], &again(2, &a1, after(Duration::from_millis(69_999)))).await?;
    // All or nothing: one paused item is enough.
    no(&[a, b], &again(3, &[units("b", 1), units("a", 1)], end)).await?;
    shop.absent(&[&again(2, &a1, end)]).await?;
    // Other items and other buyers are not touched.
    shop.apply(&[b], &[place(&again(4, &[units("b", 1)], end))]).await?;
    shop.apply(&[a], &[place(&held_from(5, "bob", &a1, end))]).await?;
    let next = again(6, &a1, end + PAUSE);
    shop.apply(&[a], &[place(&next)]).await?;

    // Expired, and so from the end of the hold on, however late that was seen.
    shop.apply(&[a], &[turn(&next, &expired(&next))]).await?;
    let ended = end + PAUSE + HOLD;
    no(&[a], &again(7, &a1, ended + (PAUSE - MOMENT))).await?;
    let last = again(8, &a1, ended + PAUSE);
    shop.apply(&[a], &[place(&last)]).await?;

    // A payment pauses nothing; an end in the commit pauses what is behind it.
    let paid = shop.pay(&last, "p8").await?;
    let more = again(9, &a1, ended + PAUSE);
    shop.apply(&[a], &[turn(&paid, &cancelled(&paid, "p8")), place(&more)]).await?;
    let cyd = one(10, "cyd", "c");
    shop.apply(&[c], &[place(&cyd)]).await?;
    let end = T0 + MOMENT;
    let (ends, new) = (released_at(&cyd, end), held_from(11, "cyd", &[units("c", 1)], end));
    let outcome = shop.write(&[c], &[turn(&cyd, &ends), place(&new)]).await?;
    same("an order behind the end of a hold", &outcome, &barred(&[11]))?;
    shop.apply(&[c], &[place(&new), turn(&cyd, &ends)]).await?;
    shop.numbers("a", (998, 2, 0)).await?;
    shop.numbers("c", (999, 1, 0)).await
}

/// One token, many writers, who all come within the pause, and then at its end.
pub(super) async fn a_pause_holds_for_writers_at_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let (shop, claims) = open(store).await?;
    let first = one(1, "ann", "a");
    shop.apply(&[&claims[0]], &[place(&first)]).await?;
    let end = T0 + MOMENT;
    shop.apply(&[&claims[0]], &[turn(&first, &released_at(&first, end))]).await?;
    for (round, at, holds) in [(100, end, 0), (200, end + PAUSE, 2)] {
        let mut tasks = JoinSet::new();
        for n in 1..=16 {
            let order = held_from(round + n, "ann", &[units("a", 1)], at);
            let (shop, claim) = (shop.clone(), claims[0].clone());
            tasks.spawn(async move { shop.write(&[&claim], &[place(&order)]).await });
        }
        let mut applied = 0;
        while let Some(result) = tasks.join_next().await {
            let outcome = result.map_err(|error| Failure::new(error.to_string()))??;
            applied += u32::from(outcome == CommitOutcome::Applied);
        }
        same("holds that were given at once", &applied, &holds)?;
    }
    shop.numbers("a", (998, 2, 0)).await
}
