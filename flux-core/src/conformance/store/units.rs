//! G1, G2 and G8: each unit once, none lost, none stranded.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::shop::{
    HOLD, Shop, T0, after, cancelled, confirmed, expired, hall, held, held_until, item, moved,
    place, pool, refund_due, released, seats, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, eventually, same};
use crate::protocol::{CommitOutcome, ItemSpec, PutItemError};
use crate::seams::{InventoryStore, PutOutcome};

pub(super) async fn no_more_is_taken_than_is_there<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let a = shop.claim("a").await?;
    let make = |n, quantity| held(n, "ann", &[units("a", quantity)]);
    shop.fenced(&[&a], &[place(&make(1, 6))]).await?;
    shop.fenced(&[&a], &[place(&make(2, 3)), place(&make(3, 3))]).await?;
    let summed = held(4, "ann", &[units("a", 3), units("a", 3)]);
    shop.fenced(&[&a], &[place(&summed)]).await?;
    shop.absent(&[&make(1, 6), &make(2, 3), &make(3, 3), &summed]).await?;
    shop.numbers("a", (5, 0, 0)).await?;

    let all = make(5, 5);
    shop.apply(&[&a], &[place(&all)]).await?;
    shop.fenced(&[&a], &[place(&make(6, 1))]).await?;
    let all = shop.pay(&all, "p1").await?;
    shop.fenced(&[&a], &[place(&make(7, 1))]).await?;
    // Nor does a late payment, though the order had the units before.
    shop.apply(&[&a], &[turn(&all, &cancelled(&all, "p1"))]).await?;
    let early = make(8, 1);
    let over = expired(&early);
    shop.apply(&[&a], &[place(&early)]).await?;
    shop.apply(&[&a], &[turn(&early, &over), place(&make(9, 5))]).await?;
    shop.fenced(&[&a], &[turn(&over, &confirmed(&over, "p2"))]).await?;
    shop.stored(&[&over]).await?;
    shop.numbers("a", (0, 5, 0)).await
}

/// One token, many writers: the claim does not keep these apart.
pub(super) async fn no_more_is_taken_by_writers_at_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 10), hall("h", &["x", "y"])]).await?;
    let (a, h) = (Arc::new(shop.claim("a").await?), Arc::new(shop.claim("h").await?));
    let mut tasks = JoinSet::new();
    for n in 1..=32 {
        let (shop, a, h) = (shop.clone(), a.clone(), h.clone());
        tasks.spawn(async move {
            let units = shop.write(&[&a], &[place(&held(n, "ann", &[units("a", 1)]))]).await?;
            let seat = held(n + 100, "ann", &[seats("h", &[["x", "y"][n as usize % 2]])]);
            let seat = shop.write(&[&h], &[place(&seat)]).await?;
            Checked::Ok([units, seat].map(|o| u32::from(o == CommitOutcome::Applied)))
        });
    }
    let mut applied = [0, 0];
    while let Some(result) = tasks.join_next().await {
        let [units, seat] = result.map_err(|error| Failure::new(error.to_string()))??;
        applied = [applied[0] + units, applied[1] + seat];
    }
    same("orders over 10 units and 2 seats that were applied", &applied, &[10, 2])?;
    shop.numbers("a", (0, 10, 0)).await?;
    shop.numbers("h", (0, 2, 0)).await
}

pub(super) async fn a_seat_has_one_owner<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[hall("h", &["x", "y", "z"]), pool("a", 5)]).await?;
    let (h, a) = (shop.claim("h").await?, shop.claim("a").await?);
    let make = |n, names: &[&str]| held(n, "ann", &[seats("h", names)]);
    shop.fenced(&[&h], &[place(&make(1, &["x"])), place(&make(2, &["y", "x"]))]).await?;
    shop.fenced(&[&h], &[place(&make(3, &["x", "nowhere"]))]).await?;
    shop.fenced(&[&h], &[place(&held(4, "ann", &[units("h", 1)]))]).await?;
    shop.fenced(&[&a], &[place(&held(5, "ann", &[seats("a", &["x"])]))]).await?;
    shop.taken("h", &[]).await?;

    let h = shop.claim("h").await?;
    let first = make(6, &["z", "x"]);
    shop.apply(&[&h], &[place(&first)]).await?;
    shop.taken("h", &["x", "z"]).await?;
    let h = shop.claim("h").await?;
    shop.fenced(&[&h], &[place(&make(7, &["y", "z"]))]).await?;
    let first = shop.pay(&first, "p1").await?;
    shop.fenced(&[&h], &[place(&make(8, &["x"]))]).await?;
    shop.numbers("h", (1, 0, 2)).await?;
    shop.apply(&[&h], &[turn(&first, &cancelled(&first, "p1"))]).await?;
    shop.taken("h", &[]).await?;
    shop.sell(&["h"], &[place(&make(9, &["x"])), place(&make(10, &["y"]))]).await?;
    shop.taken("h", &["x", "y"]).await?;
    shop.numbers("h", (1, 2, 0)).await?;
    shop.numbers("a", (5, 0, 0)).await
}

pub(super) async fn numbers_add_up_through_every_state<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let a = shop.claim("a").await?;
    let make = |n: u128| held(n, "ann", &[units("a", n as u64)]);
    let [one, two, three, four, five] = [1, 2, 3, 4, 5].map(make);
    let places = [&one, &two, &three, &four, &five].map(place);
    shop.apply(&[&a], &places).await?;
    shop.numbers("a", (5, 15, 0)).await?;
    shop.apply(&[&a], &[turn(&one, &released(&one))]).await?;
    shop.numbers("a", (6, 14, 0)).await?;
    let two = shop.pay(&two, "p2").await?;
    shop.numbers("a", (6, 12, 2)).await?;
    shop.apply(&[&a], &[turn(&three, &expired(&three)), turn(&four, &expired(&four))]).await?;
    shop.numbers("a", (13, 5, 2)).await?;
    // Paid late: the third takes its stock again, the fourth is owed its money.
    let retaken = confirmed(&three, "p3");
    shop.apply(&[&a], &[turn(&expired(&three), &retaken)]).await?;
    shop.numbers("a", (10, 5, 5)).await?;
    shop.apply(&[], &[turn(&expired(&four), &refund_due(&four, "p4"))]).await?;
    shop.numbers("a", (10, 5, 5)).await?;
    // The fifth is paid late too, before anybody ended its hold.
    shop.apply(&[&a], &[turn(&five, &confirmed(&five, "p5"))]).await?;
    shop.numbers("a", (10, 0, 10)).await?;
    shop.apply(&[&a], &[turn(&two, &cancelled(&two, "p2"))]).await?;
    shop.numbers("a", (12, 0, 8)).await?;
    shop.apply(&[&a], &[turn(&retaken, &cancelled(&retaken, "p3"))]).await?;
    shop.numbers("a", (15, 0, 5)).await?;
    same("stock claimed at the end", &shop.claim("a").await?.stock.available(), &15)
}

pub(super) async fn what_is_taken_stays_taken_when_the_item_changes<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5), hall("h", &["x", "y", "z"])]).await?;
    let order = held(1, "ann", &[units("a", 3), seats("h", &["y"])]);
    shop.sell(&["a", "h"], &[place(&order)]).await?;
    let put = async |spec| Checked::Ok(shop.store.put_item(&spec).await?);
    let in_use =
        |name, taken| PutOutcome::Refused(PutItemError::CapacityInUse { item: item(name), taken });
    let kind = |name| PutOutcome::Refused(PutItemError::KindChange { item: item(name) });
    same("fewer units than are taken", &put(pool("a", 2)).await?, &in_use("a", 3))?;
    same("a hall without a taken seat", &put(hall("h", &["x", "z"])).await?, &in_use("h", 1))?;
    same("a pool made a hall", &put(hall("a", &["x", "y", "z"])).await?, &kind("a"))?;
    same("a hall made a pool", &put(pool("h", 3)).await?, &kind("h"))?;
    shop.numbers("a", (2, 3, 0)).await?;
    shop.taken("h", &["y"]).await?;

    same("fewer units", &put(pool("a", 3)).await?, &PutOutcome::Changed)?;
    shop.numbers("a", (0, 3, 0)).await?;
    same("more units", &put(pool("a", 8)).await?, &PutOutcome::Changed)?;
    shop.numbers("a", (5, 3, 0)).await?;
    let other = hall("h", &["w", "v", "y", "x"]);
    same("other seats", &put(other).await?, &PutOutcome::Changed)?;
    shop.taken("h", &["y"]).await?;
    shop.sell(&["a", "h"], &[turn(&order, &released(&order))]).await?;
    shop.numbers("a", (8, 0, 0)).await?;
    shop.taken("h", &[]).await
}

/// The fields of a definition are open, so one can be made that no store could
/// read back.
pub(super) async fn a_definition_that_breaks_a_rule_is_refused<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let good = pool("a", 5);
    let shop = Shop::open(store, std::slice::from_ref(&good)).await?;
    let a = shop.claim("a").await?;
    let times = ItemSpec { opens_at: Some(T0), closes_at: Some(T0), ..good.clone() };
    let name = ItemSpec { name: Some("n".repeat(257)), ..good.clone() };
    for bad in [times, name] {
        let new = ItemSpec { id: item("b"), ..bad.clone() };
        for bad in [&bad, &new] {
            let put = shop.store.put_item(bad).await?;
            let refused = matches!(put, PutOutcome::Refused(PutItemError::Invalid(_)));
            ensure!(refused, "put of {bad:?} was answered {put:?}");
        }
    }
    let stored = shop.store.stock(&good.id).await?.map(|(spec, _)| spec);
    same("the definition", &stored.as_deref(), &Some(&good))?;
    same("an item that was refused", &shop.store.stock(&item("b")).await?, &None)?;
    // Nor did it fence anybody.
    shop.apply(&[&a], &[place(&held(1, "ann", &[units("a", 1)]))]).await
}

pub(super) async fn stock_comes_back_once<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 6), hall("h", &["x", "y"])]).await?;
    let make = |n, seat| held(n, "ann", &[units("a", 2), seats("h", &[seat])]);
    let (one, two) = (make(1, "x"), make(2, "y"));
    let kept = held(3, "bob", &[units("a", 2)]);
    shop.sell(&["a", "h"], &[place(&one), place(&two), place(&kept)]).await?;
    let (a, h) = (shop.claim("a").await?, shop.claim("h").await?);
    shop.apply(&[&a, &h], &[turn(&one, &released(&one))]).await?;
    shop.apply(&[&a, &h], &[turn(&two, &expired(&two))]).await?;
    for again in [turn(&one, &released(&one)), turn(&one, &expired(&one))] {
        same("a second end", &shop.write(&[&a, &h], &[again]).await?, &moved(&[&one]))?;
    }
    for again in [turn(&two, &released(&two)), turn(&two, &expired(&two))] {
        same("a second end", &shop.write(&[&a, &h], &[again]).await?, &moved(&[&two]))?;
    }
    shop.numbers("a", (4, 2, 0)).await?;
    shop.numbers("h", (2, 0, 0)).await?;
    // All of it can be sold again, and not one more.
    shop.apply(&[&a, &h], &[place(&make(4, "y")), place(&make(5, "x"))]).await?;
    shop.fenced(&[&a], &[place(&held(6, "ann", &[units("a", 1)]))]).await?;
    shop.numbers("a", (0, 6, 0)).await?;
    shop.numbers("h", (0, 2, 0)).await
}

pub(super) async fn units_pass_from_hand_to_hand_in_one_commit<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 2), hall("h", &["x"])]).await?;
    let make = |n, who| held(n, who, &[units("a", 2), seats("h", &["x"])]);
    let (one, two, three) = (make(1, "ann"), make(2, "bob"), make(3, "cid"));
    shop.sell(&["a", "h"], &[place(&one)]).await?;
    shop.sell(&["a", "h"], &[turn(&one, &released(&one)), place(&two)]).await?;
    shop.taken("h", &["x"]).await?;
    shop.sell(&["a", "h"], &[turn(&two, &expired(&two)), place(&three)]).await?;
    shop.taken("h", &["x"]).await?;
    shop.numbers("a", (0, 2, 0)).await?;
    shop.stored(&[&released(&one), &expired(&two), &three]).await
}

pub(super) async fn due_holds_are_listed_earliest_first<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 100), pool("b", 100)]).await?;
    let ends = |n, seconds| {
        held_until(n, "ann", &[units("a", 1), units("b", 1)], after(Duration::from_secs(seconds)))
    };
    // In no order of their ids.
    let [third, first, second, open, paid, freed, over] =
        [ends(1, 30), ends(2, 10), ends(3, 20), ends(4, 31), ends(5, 5), ends(6, 6), ends(7, 7)];
    let all = [&third, &first, &second, &open, &paid, &freed, &over];
    shop.sell(&["a", "b"], &all.map(place)).await?;
    shop.pay(&paid, "p1").await?;
    let (a, b) = (shop.claim("a").await?, shop.claim("b").await?);
    shop.apply(&[&a, &b], &[turn(&freed, &released(&freed)), turn(&over, &expired(&over))]).await?;
    shop.apply(&[&a, &b], &[turn(&expired(&over), &confirmed(&over, "p2"))]).await?;

    let now = after(Duration::from_secs(30));
    let due = async |now, limit, should_be: &[&_]| {
        let should_be: Vec<_> = should_be.iter().map(|o: &&crate::Order| o.id).collect();
        eventually(|| async {
            let listed = shop.store.due_holds(now, limit).await?;
            same("holds that are due", &listed.due, &should_be)?;
            // The open one must not be slept through.
            let open_ends = after(Duration::from_secs(31));
            let slept = now < open_ends && listed.next.is_none_or(|next| next > open_ends);
            ensure!(!slept, "the next hold ends at {:?}, not {open_ends:?}", listed.next);
            Ok(())
        })
        .await
    };
    due(now, 10, &[&first, &second, &third]).await?;
    due(now, 2, &[&first, &second]).await?;
    due(crate::Timestamp::from_millis(now.as_millis() - 1), 10, &[&first, &second]).await?;
    due(T0, 10, &[]).await?;
    shop.apply(&[&a, &b], &[turn(&first, &expired(&first))]).await?;
    due(now, 1, &[&second]).await?;
    shop.apply(&[&a, &b], &[turn(&second, &expired(&second))]).await?;
    shop.apply(&[&a, &b], &[turn(&third, &confirmed(&third, "p3"))]).await?;
    due(now, 10, &[]).await?;
    due(after(HOLD), 10, &[&open]).await?;
    ensure!(shop.find(open.id).await?.is_some(), "listing changes nothing");
    shop.numbers("a", (96, 1, 3)).await
}
