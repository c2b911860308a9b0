//! G6: a buyer's cap holds over all of that buyer's orders.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::shop::{
    Shop, cancelled, capped, confirmed, expired, hall, held, over_cap, place, pool, released,
    seats, turn, units,
};
use crate::conformance::check::{Checked, Failure, same};
use crate::protocol::{CommitOutcome, ItemSpec, Line, Order};
use crate::seams::{InventoryStore, PutOutcome};

fn one(n: u128, who: &str) -> Order {
    held(n, who, &[units("a", 1)])
}

pub(super) async fn a_cap_holds_over_commits<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[capped("a", 20, 3), pool("b", 20)]).await?;
    let (a, b) = (shop.claim("a").await?, shop.claim("b").await?);
    let first = held(1, "ann", &[units("a", 2)]);
    shop.apply(&[&a], &[place(&first)]).await?;
    let two = held(2, "ann", &[units("a", 2)]);
    let outcome = shop.write(&[&a], &[place(&two)]).await?;
    same("2 more for the holder of 2 of 3", &outcome, &over_cap("a", "ann", 2))?;
    shop.apply(&[&a], &[place(&one(3, "ann"))]).await?;
    // Paying changes nothing about what the buyer owns.
    shop.pay(&first, "p1").await?;
    let outcome = shop.write(&[&a], &[place(&one(4, "ann"))]).await?;
    same("1 more for the owner of 3 of 3", &outcome, &over_cap("a", "ann", 3))?;
    shop.absent(&[&two, &one(4, "ann")]).await?;
    // Neither other buyers nor other items are touched.
    shop.apply(&[&a], &[place(&held(5, "bob", &[units("a", 3)]))]).await?;
    shop.apply(&[&b], &[place(&held(6, "ann", &[units("b", 9)]))]).await?;
    shop.numbers("a", (14, 4, 2)).await?;
    shop.numbers("b", (11, 9, 0)).await
}

pub(super) async fn a_cap_holds_over_the_sum_of_a_commit<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[capped("a", 20, 2)]).await?;
    let a = shop.claim("a").await?;
    let writes = [place(&one(1, "ann")), place(&one(2, "bob")), place(&one(3, "ann"))];
    let third = place(&one(4, "ann"));
    let outcome = shop.write(&[&a], &[&writes[..], &[third]].concat()).await?;
    same("3 orders of one buyer for 2", &outcome, &over_cap("a", "ann", 0))?;
    let lines: [Line; 2] = [units("a", 1), units("a", 2)];
    let outcome = shop.write(&[&a], &[place(&held(5, "ann", &lines))]).await?;
    same("2 lines of one order for 3", &outcome, &over_cap("a", "ann", 0))?;
    shop.absent(&[&one(1, "ann"), &one(2, "bob"), &one(3, "ann"), &one(4, "ann")]).await?;
    shop.apply(&[&a], &writes).await?;
    shop.numbers("a", (17, 3, 0)).await
}

/// One token, many writers: the claim does not keep these apart.
pub(super) async fn a_cap_holds_over_commits_at_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[capped("a", 1_000, 4)]).await?;
    let claim = Arc::new(shop.claim("a").await?);
    let mut tasks = JoinSet::new();
    for n in 1..=48 {
        let (shop, claim) = (shop.clone(), claim.clone());
        let who = ["ann", "bob"][n as usize % 2];
        tasks.spawn(async move { shop.write(&[&claim], &[place(&one(n, who))]).await });
    }
    let mut applied = 0;
    while let Some(result) = tasks.join_next().await {
        let outcome = result.map_err(|error| Failure::new(error.to_string()))??;
        applied += u32::from(outcome == CommitOutcome::Applied);
    }
    same("units that 2 buyers got, capped at 4", &applied, &8)?;
    shop.numbers("a", (992, 8, 0)).await
}

pub(super) async fn what_comes_back_gives_the_buyer_room<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[capped("a", 20, 1)]).await?;
    let a = shop.claim("a").await?;
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|n| one(n, "ann"));
    let full = async |n| {
        let outcome = shop.write(&[&a], &[place(&one(n, "ann"))]).await?;
        same("1 more for the owner of 1 of 1", &outcome, &over_cap("a", "ann", 1))
    };
    shop.apply(&[&a], &[place(&first)]).await?;
    full(91).await?;
    shop.apply(&[&a], &[turn(&first, &released(&first))]).await?;
    shop.apply(&[&a], &[place(&second)]).await?;
    full(92).await?;
    shop.apply(&[&a], &[turn(&second, &expired(&second))]).await?;
    shop.apply(&[&a], &[place(&third)]).await?;
    full(93).await?;
    // A late payment may not break the cap either.
    let late = turn(&expired(&second), &confirmed(&second, "p2"));
    let outcome = shop.write(&[&a], std::slice::from_ref(&late)).await?;
    same("a late payment of the owner of 1 of 1", &outcome, &over_cap("a", "ann", 1))?;
    let third = shop.pay(&third, "p3").await?;
    shop.apply(&[&a], &[turn(&third, &cancelled(&third, "p3"))]).await?;
    shop.apply(&[&a], &[late]).await?;
    full(94).await?;
    // Units that a commit gives back may be taken again by the same commit.
    let paid = confirmed(&second, "p2");
    shop.apply(&[&a], &[turn(&paid, &cancelled(&paid, "p2")), place(&fourth)]).await?;
    full(95).await?;
    shop.numbers("a", (19, 1, 0)).await
}

pub(super) async fn a_cap_that_comes_later_counts_earlier_orders<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let (first, second) = (held(1, "ann", &[units("a", 3)]), one(2, "ann"));
    let freed = held(3, "ann", &[units("a", 5)]);
    shop.sell(&["a"], &[place(&first), place(&second), place(&freed)]).await?;
    shop.sell(&["a"], &[turn(&freed, &released(&freed))]).await?;
    let first = shop.pay(&first, "p1").await?;
    let put = async |spec| {
        same("put_item with another cap", &shop.store.put_item(&spec).await?, &PutOutcome::Changed)
    };
    put(capped("a", 20, 2)).await?;
    let a = shop.claim("a").await?;
    let full = shop.write(&[&a], &[place(&one(4, "ann"))]).await?;
    same("1 more for the owner of 4 of 2", &full, &over_cap("a", "ann", 4))?;
    shop.apply(&[&a], &[place(&one(5, "bob"))]).await?;
    // A buyer above a later cap may give back in steps.
    shop.apply(&[&a], &[turn(&second, &released(&second))]).await?;
    let full = shop.write(&[&a], &[place(&one(4, "ann"))]).await?;
    same("1 more for the owner of 3 of 2", &full, &over_cap("a", "ann", 3))?;
    shop.apply(&[&a], &[turn(&first, &cancelled(&first, "p1"))]).await?;
    shop.apply(&[&a], &[place(&held(6, "ann", &[units("a", 2)]))]).await?;
    // Gone and back again, it counts what was taken in between.
    put(pool("a", 20)).await?;
    shop.sell(&["a"], &[place(&held(7, "ann", &[units("a", 4)]))]).await?;
    put(capped("a", 20, 7)).await?;
    let a = shop.claim("a").await?;
    let full = shop.write(&[&a], &[place(&held(8, "ann", &[units("a", 2)]))]).await?;
    same("2 more for the owner of 6 of 7", &full, &over_cap("a", "ann", 6))?;
    shop.apply(&[&a], &[place(&one(9, "ann"))]).await?;
    shop.numbers("a", (12, 8, 0)).await
}

/// The count goes by what is taken, not by what the new definition has to offer.
pub(super) async fn a_cap_that_comes_with_another_capacity_counts_earlier_orders<S>(
    store: Arc<S>,
) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20), hall("h", &["v", "w", "x", "y", "z"])]).await?;
    let seat = |n, name| held(n, "ann", &[seats("h", &[name])]);
    let orders = [held(1, "ann", &[units("a", 4)]), held(2, "bob", &[units("a", 5)]), seat(3, "x")];
    shop.sell(&["a", "h"], &orders.each_ref().map(place)).await?;
    let put = async |spec| {
        same("put_item with a cap", &shop.store.put_item(&spec).await?, &PutOutcome::Changed)
    };
    // Fewer units, and fewer seats, than were left before.
    put(capped("a", 10, 2)).await?;
    let seated = ItemSpec::builder().id("h").seats(["w", "x"]).max_per_buyer(1).build();
    put(seated.expect("a good definition")).await?;
    let full = async |order: Order, live| {
        let (on, who) = (order.lines[0].item.as_str(), order.buyer.as_str());
        let claim = shop.claim(on).await?;
        let outcome = shop.write(&[&claim], &[place(&order)]).await?;
        same("more for who has had enough", &outcome, &over_cap(on, who, live))
    };
    full(one(4, "ann"), 4).await?;
    full(one(5, "bob"), 5).await?;
    full(seat(6, "w"), 1).await?;
    // Lower still, and with more to offer again.
    put(capped("a", 9, 1)).await?;
    put(capped("a", 40, 5)).await?;
    full(held(7, "ann", &[units("a", 2)]), 4).await?;
    full(one(8, "bob"), 5).await?;
    shop.sell(&["a"], &[place(&one(9, "ann"))]).await?;
    shop.numbers("a", (30, 10, 0)).await?;
    shop.numbers("h", (1, 1, 0)).await
}
