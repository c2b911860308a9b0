//! G7: a worker whose claim is not the newest can't write.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::shop::{
    HOLD, Shop, after, capped, confirmed, expired, forged, held, item, place, pool, rejected,
    released, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, same};
use crate::protocol::{Commit, CommitOutcome, ItemId, Stock};
use crate::seams::{InventoryStore, PutOutcome};

pub(super) async fn an_old_token_is_fenced_and_writes_nothing<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let old = shop.claim("a").await?;
    let new = shop.claim("a").await?;
    ensure!(new.token > old.token, "{:?} was minted after {:?}", new.token, old.token);
    let order = held(1, "ann", &[units("a", 2)]);
    let outcome = shop.write(&[&old], &[place(&order)]).await?;
    same("a commit of the first claim", &outcome, &CommitOutcome::Fenced(vec![item("a")]))?;
    shop.absent(&[&order]).await?;
    shop.numbers("a", (5, 0, 0)).await?;
    shop.apply(&[&new], &[place(&order)]).await?;
    shop.numbers("a", (3, 2, 0)).await?;
    // The newest claim goes on counting, for as many commits as it likes.
    shop.apply(&[&new], &[turn(&order, &released(&order))]).await?;
    shop.numbers("a", (5, 0, 0)).await
}

pub(super) async fn every_change_of_stock_is_fenced<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let (first, second) = (held(1, "ann", &[units("a", 2)]), held(2, "bob", &[units("a", 3)]));
    shop.sell(&["a"], &[place(&first), place(&second)]).await?;
    let over = expired(&second);
    shop.sell(&["a"], &[turn(&second, &over)]).await?;
    let sold = shop.pay(&first, "p1").await?;

    let stale = shop.claim("a").await?;
    shop.claim("a").await?;
    let cancel = turn(&sold, &super::shop::cancelled(&sold, "p1"));
    shop.fenced(&[&stale], &[cancel]).await?;
    shop.fenced(&[&stale], &[turn(&over, &confirmed(&over, "p2"))]).await?;
    shop.fenced(&[&stale], &[place(&rejected(3, "cid", &[units("a", 9)]))]).await?;
    shop.stored(&[&sold, &over]).await?;
    shop.numbers("a", (7, 0, 2)).await
}

pub(super) async fn one_fenced_item_fences_the_commit<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5), pool("b", 5)]).await?;
    let both = held(1, "ann", &[units("a", 1), units("b", 1)]);
    for (lost, kept) in [("a", "b"), ("b", "a")] {
        let (stale, live) = (shop.claim(lost).await?, shop.claim(kept).await?);
        shop.claim(lost).await?;
        for claims in [[&stale, &live], [&live, &stale]] {
            let outcome = shop.write(&claims, &[place(&both)]).await?;
            let fenced = CommitOutcome::Fenced(vec![item(lost)]);
            same(&format!("a commit that lost {lost}"), &outcome, &fenced)?;
        }
    }
    shop.absent(&[&both]).await?;
    shop.numbers("a", (5, 0, 0)).await?;
    shop.numbers("b", (5, 0, 0)).await
}

pub(super) async fn a_new_definition_fences<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let stale = shop.claim("a").await?;
    for changed in [pool("a", 6), capped("a", 6, 1)] {
        let outcome = shop.store.put_item(&changed).await?;
        same("put_item of another definition", &outcome, &PutOutcome::Changed)?;
        let order = held(1, "ann", &[units("a", 1)]);
        let outcome = shop.write(&[&stale], &[place(&order)]).await?;
        same("a commit decided before", &outcome, &CommitOutcome::Fenced(vec![item("a")]))?;
        let claim = shop.claim("a").await?;
        same("the claimed definition", &*claim.spec, &changed)?;
        ensure!(claim.token > stale.token, "put_item must not set tokens back");
    }
    shop.numbers("a", (6, 0, 0)).await
}

pub(super) async fn only_a_token_that_was_given_counts<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5), pool("b", 5)]).await?;
    let (a, b) = (shop.claim("a").await?, shop.claim("b").await?);
    let order = held(1, "ann", &[units("a", 1)]);
    for token in [0, a.token.0 + 1_000_000, u64::MAX >> 1] {
        shop.fenced(&[&forged(&a, token)], &[place(&order)]).await?;
    }
    let absent = (item("nowhere"), a.token);
    let claims = vec![(item("a"), a.token), absent];
    let outcome = shop.commit(Commit { claims, writes: vec![place(&order)] }).await?;
    same("a claim of no item", &outcome, &CommitOutcome::Fenced(vec![item("nowhere")]))?;
    // Stock is never moved without the claim of its item.
    shop.fenced(&[], &[place(&order)]).await?;
    shop.fenced(&[&b], &[place(&order)]).await?;
    shop.absent(&[&order]).await?;
    shop.apply(&[&a], &[place(&order)]).await?;
    shop.fenced(&[], &[turn(&order, &released(&order))]).await?;
    shop.fenced(&[&b], &[turn(&order, &expired(&order))]).await?;
    shop.numbers("a", (4, 1, 0)).await
}

pub(super) async fn a_claim_shows_the_moment_it_was_made<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let first = shop.claim("a").await?;
    same("stock of an untouched item", &first.stock, &Stock::full(&first.spec))?;
    let order = held(1, "ann", &[units("a", 2)]);
    shop.apply(&[&first], &[place(&order)]).await?;
    let second = shop.claim("a").await?;
    same("stock claimed after a sale", &second.stock.available(), &3)?;
    shop.apply(&[&second], &[turn(&order, &expired(&order))]).await?;
    let third = shop.claim("a").await?;
    same("stock claimed after it came back", &third.stock.available(), &5)?;

    let asked: Vec<ItemId> = ["a", "nowhere"].map(item).to_vec();
    let claims = shop.store.claim(&asked).await?;
    let found: Vec<bool> = claims.iter().map(Option::is_some).collect();
    same("claims, in the order asked", &found, &vec![true, false])?;
    same("claims of nothing", &shop.store.claim(&[]).await?, &vec![])
}

/// A worker freezes between deciding and writing, is replaced, and thaws.
pub(super) async fn a_thawed_worker_changes_nothing<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 2)]).await?;
    let order = held(1, "ann", &[units("a", 2)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    let frozen = shop.claim("a").await?;
    let over = expired(&order);
    let next = held(2, "bob", &[units("a", 2)]);
    shop.sell(&["a"], &[turn(&order, &over)]).await?;
    shop.sell(&["a"], &[place(&next)]).await?;
    // It saw the first order held, and the hold is over by its clock too.
    ensure!(after(HOLD) >= order.hold().map_or(after(HOLD), |h| h.expires_at), "the hold is over");
    for late in [&over, &released(&order)] {
        // It is fenced, and the order moved: either is a good answer.
        let outcome = shop.write(&[&frozen], &[turn(&order, late)]).await?;
        ensure!(outcome != CommitOutcome::Applied, "a thawed worker wrote {late:?}");
    }
    shop.fenced(&[&frozen], &[turn(&next, &released(&next))]).await?;
    shop.stored(&[&over, &next]).await?;
    shop.numbers("a", (0, 2, 0)).await
}

pub(super) async fn of_many_claims_at_once_one_can_write<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    const CLAIMS: u128 = 48;
    let shop = Shop::open(store, &[pool("a", 1_000)]).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..CLAIMS {
        let shop = shop.clone();
        tasks.spawn(async move { shop.claim("a").await });
    }
    let mut claims = Vec::new();
    while let Some(claim) = tasks.join_next().await {
        claims.push(claim.map_err(|error| Failure::new(error.to_string()))??);
    }
    let tokens: HashSet<_> = claims.iter().map(|claim| claim.token).collect();
    same("different tokens", &tokens.len(), &claims.len())?;
    let newest = tokens.iter().max().copied();

    let mut tasks = JoinSet::new();
    for (n, claim) in (1..).zip(claims) {
        let shop = shop.clone();
        tasks.spawn(async move {
            let order = held(n, "ann", &[units("a", 1)]);
            let outcome = shop.write(&[&claim], &[place(&order)]).await?;
            Checked::Ok((claim.token, outcome == CommitOutcome::Applied))
        });
    }
    while let Some(result) = tasks.join_next().await {
        let (token, applied) = result.map_err(|error| Failure::new(error.to_string()))??;
        let should_be = Some(token) == newest;
        same(&format!("{token:?} of {newest:?} wrote"), &applied, &should_be)?;
    }
    shop.numbers("a", (999, 1, 0)).await
}
