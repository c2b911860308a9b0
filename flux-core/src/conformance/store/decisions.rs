//! G3 and G5: an id is decided once, and a commit is all or nothing.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::shop::{
    Shop, cancelled, capped, commit, confirmed, expired, held, id, moved, place, pool, refund_due,
    rejected, released, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, same};
use crate::protocol::{CommitOutcome, Order};
use crate::seams::InventoryStore;

pub(super) async fn an_id_is_decided_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9), pool("b", 9)]).await?;
    let (a, b) = (shop.claim("a").await?, shop.claim("b").await?);
    let first = held(1, "ann", &[units("a", 2)]);
    shop.apply(&[&a], &[place(&first)]).await?;
    let repeats = [
        first.clone(),
        rejected(1, "ann", &[units("a", 2)]),
        held(1, "bob", &[units("a", 3)]),
        held(1, "ann", &[units("b", 1)]),
    ];
    for repeat in &repeats {
        let outcome = shop.write(&[&a, &b], &[place(repeat)]).await?;
        same("a second decision of an id", &outcome, &moved(&[&first]))?;
        shop.stored(&[&first]).await?;
    }
    let no = rejected(2, "bob", &[units("a", 1)]);
    // A refusal takes nothing, so it needs no claim; it is a decision all the same.
    shop.apply(&[], &[place(&no)]).await?;
    let outcome = shop.write(&[&a], &[place(&held(2, "bob", &[units("a", 1)]))]).await?;
    same("a hold after a refusal", &outcome, &moved(&[&no]))?;
    shop.stored(&[&first, &no]).await?;
    shop.numbers("a", (7, 2, 0)).await?;
    shop.numbers("b", (9, 0, 0)).await
}

/// Writers whose claims do not keep them apart, as they are of different items.
pub(super) async fn an_id_is_decided_once_over_different_items<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    const ROUNDS: u128 = 24;
    let shop = Shop::open(store, &[pool("a", 100), pool("b", 100)]).await?;
    let mut sold = [0, 0];
    for n in 1..=ROUNDS {
        let mut tasks = JoinSet::new();
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let shop = shop.clone();
            tasks.spawn(async move {
                let claim = shop.claim(name).await?;
                let order = held(n, name, &[units(name, 1)]);
                let outcome = shop.write(&[&claim], &[place(&order)]).await?;
                Checked::Ok((index, order, outcome))
            });
        }
        let mut winner = None;
        while let Some(result) = tasks.join_next().await {
            let result = result.map_err(|error| Failure::new(error.to_string()))?;
            let (index, order, outcome) = result?;
            if outcome == CommitOutcome::Applied {
                ensure!(winner.is_none(), "order {} was decided twice", order.id);
                sold[index] += 1;
                winner = Some(order);
            } else {
                same("the other decision", &outcome, &moved(&[&order]))?;
            }
        }
        let winner = winner.ok_or_else(|| Failure::new("neither decision was written"))?;
        shop.stored(&[&winner]).await?;
    }
    shop.numbers("a", (100 - sold[0], sold[0], 0)).await?;
    shop.numbers("b", (100 - sold[1], sold[1], 0)).await
}

pub(super) async fn an_order_must_be_what_is_expected<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let claim = shop.claim("a").await?;
    let refuse = async |from: &Order, to: &Order| {
        let outcome = shop.write(&[&claim], &[turn(from, to)]).await?;
        let what = format!("{:?} to {:?} of another order", from.status(), to.status());
        same(&what, &outcome, &moved(&[to]))
    };
    let order = held(1, "ann", &[units("a", 2)]);
    refuse(&order, &released(&order)).await?;
    shop.absent(&[&order]).await?;

    shop.apply(&[&claim], &[place(&order)]).await?;
    let (paid, over) = (confirmed(&order, "p1"), expired(&order));
    refuse(&over, &paid).await?;
    refuse(&over, &refund_due(&order, "p1")).await?;
    refuse(&paid, &cancelled(&order, "p1")).await?;
    shop.stored(&[&order]).await?;
    shop.apply(&[&claim], &[turn(&order, &released(&order))]).await?;
    refuse(&order, &released(&order)).await?;
    refuse(&order, &over).await?;
    refuse(&order, &paid).await?;
    shop.stored(&[&released(&order)]).await?;
    shop.numbers("a", (9, 0, 0)).await
}

pub(super) async fn a_partly_refused_commit_writes_nothing<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let claim = shop.claim("a").await?;
    let make = |n| held(n, "ann", &[units("a", 1)]);
    let (one, two, three) = (make(1), make(2), make(3));
    shop.apply(&[&claim], &[place(&one), place(&two), place(&three)]).await?;
    let (new, newer) = (make(4), make(5));
    let writes = [
        place(&new),
        place(&one),
        turn(&two, &released(&two)),
        turn(&expired(&three), &confirmed(&three, "p1")),
        place(&newer),
    ];
    let outcome = shop.write(&[&claim], &writes).await?;
    same("every order that moved, and only those", &outcome, &moved(&[&one, &three]))?;
    shop.absent(&[&new, &newer]).await?;
    shop.stored(&[&one, &two, &three]).await?;
    shop.numbers("a", (17, 3, 0)).await?;
    // Without them it goes through: the claim is still good.
    shop.apply(&[&claim], &[place(&new), turn(&two, &released(&two)), place(&newer)]).await?;
    shop.numbers("a", (16, 4, 0)).await
}

pub(super) async fn an_order_takes_all_its_items_or_none<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5), pool("b", 1), capped("c", 9, 1)]).await?;
    let (a, b, c) = (shop.claim("a").await?, shop.claim("b").await?, shop.claim("c").await?);
    let short = held(1, "ann", &[units("a", 2), units("b", 2)]);
    shop.fenced(&[&a, &b], &[place(&short)]).await?;
    let above = held(2, "ann", &[units("a", 2), units("b", 1), units("c", 2)]);
    let outcome = shop.write(&[&a, &b, &c], &[place(&above)]).await?;
    same("one line over its cap", &outcome, &super::shop::over_cap("c", "ann", 0))?;
    // One of the claims of its items is missing.
    let all = held(3, "ann", &[units("a", 2), units("b", 1), units("c", 1)]);
    shop.fenced(&[&a, &b], &[place(&all)]).await?;
    shop.fenced(&[&b, &c], &[place(&all)]).await?;
    shop.absent(&[&short, &above, &all]).await?;
    for (name, left) in [("a", 5), ("b", 1), ("c", 9)] {
        shop.numbers(name, (left, 0, 0)).await?;
    }
    shop.apply(&[&a, &b, &c], &[place(&all)]).await?;
    for (name, left, taken) in [("a", 3, 2), ("b", 0, 1), ("c", 8, 1)] {
        shop.numbers(name, (left, taken, 0)).await?;
    }
    shop.fenced(&[&a, &c], &[turn(&all, &released(&all))]).await?;
    shop.numbers("a", (3, 2, 0)).await?;
    shop.apply(&[&a, &b, &c], &[turn(&all, &released(&all))]).await?;
    for (name, left) in [("a", 5), ("b", 1), ("c", 9)] {
        shop.numbers(name, (left, 0, 0)).await?;
    }
    Ok(())
}

pub(super) async fn commits_of_one_call_stand_alone<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9), pool("b", 9)]).await?;
    let lost = shop.claim("b").await?;
    let (a, b) = (shop.claim("a").await?, shop.claim("b").await?);
    let make = |n, name| held(n, "ann", &[units(name, 2)]);
    let (one, two, three) = (make(1, "a"), make(2, "b"), make(3, "b"));
    let commits = [
        commit(&[&a], &[place(&one)]),
        commit(&[&lost], &[place(&two)]),
        commit(&[&a], &[place(&one)]),
        commit(&[&b], &[place(&three)]),
    ];
    let mut outcomes = shop.store.commit(&commits).await?;
    // Of the two commits of one order either may come first.
    if outcomes.get(2) == Some(&CommitOutcome::Applied) {
        outcomes.swap(0, 2);
    }
    let should_be = vec![
        CommitOutcome::Applied,
        CommitOutcome::Fenced(vec![super::shop::item("b")]),
        moved(&[&one]),
        CommitOutcome::Applied,
    ];
    same("outcomes, in the order asked", &outcomes, &should_be)?;
    shop.stored(&[&one, &three]).await?;
    ensure!(shop.find(id(2)).await?.is_none(), "the fenced commit wrote");
    shop.numbers("a", (7, 2, 0)).await?;
    shop.numbers("b", (7, 2, 0)).await?;
    same("outcomes of nothing", &shop.store.commit(&[]).await?, &vec![])
}
