//! The promises of a store that items can leave.

use std::sync::Arc;

use super::check::{Check, Checked, Failure, checks, ensure, same};
use super::store::shop::{
    HOLD, Shop, after, cancelled, held, item, owing, place, pool, rejected, released, turn, units,
};
use crate::protocol::{ItemSpec, PutItemError};
use crate::seams::{
    ArchiveId, Deletion, InventoryStore, Leaving, PutOutcome, RemovalRefused, Removals, Sealing,
};

pub(super) fn all<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    checks! {
        "removals" {
            only_a_sale_that_is_over_is_sealed,
            what_is_sealed_stays_as_it_is,
            a_seal_that_is_broken_leaves_nothing_behind,
            orders_leave_only_for_an_archive_that_is_filed,
            items_leave_last_and_leave_a_tombstone,
            what_never_sold_anything_is_deleted,
        }
    }
}

fn removals_of<S: InventoryStore + ?Sized>(store: &S) -> Checked<&dyn Removals> {
    store.removals().ok_or_else(|| Failure::new("nothing leaves the store"))
}

/// A pool whose sale is over when the checks' holds end.
fn closing(id: &str, capacity: u64) -> ItemSpec {
    ItemSpec { closes_at: Some(after(HOLD)), ..pool(id, capacity) }
}

/// Seals what can be.
async fn seal(removals: &dyn Removals, names: &[&str], archive: ArchiveId) -> Checked<Leaving> {
    let names: Vec<_> = names.iter().map(|name| item(name)).collect();
    match removals.seal(&names, archive, after(HOLD)).await? {
        Sealing::Sealed(leaving) => Ok(leaving),
        other => Err(Failure::new(format!("{names:?} were not sealed: {other:?}"))),
    }
}

async fn only_a_sale_that_is_over_is_sealed<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop =
        Shop::open(store.clone(), &[closing("a", 5), closing("b", 5), pool("open", 5)]).await?;
    let removals = removals_of(&*store)?;
    let refused = async |names: &[&str], at| {
        let names: Vec<_> = names.iter().map(|name| item(name)).collect();
        match removals.seal(&names, ArchiveId::new(), at).await? {
            Sealing::Refused(why) => Ok(why),
            other => Err(Failure::new(format!("{names:?}: {other:?}"))),
        }
    };
    let unknown = RemovalRefused::UnknownItem(item("none"));
    same("of an item that is not there", &refused(&["a", "none"], after(HOLD)).await?, &unknown)?;
    let not_closed = |name| RemovalRefused::NotClosed(item(name));
    same("of one without an end", &refused(&["open"], after(HOLD)).await?, &not_closed("open"))?;
    same("before its end", &refused(&["a"], after(HOLD / 2)).await?, &not_closed("a"))?;
    let order = held(1, "ann", &[units("a", 2)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    let still = RemovalRefused::Held { item: item("a"), units: 2 };
    same("while units are held", &refused(&["a"], after(HOLD)).await?, &still)?;
    // Refused together, neither of them was sealed.
    shop.claim("a").await?;
    shop.pay(&order, "p").await?;
    let archive = ArchiveId::new();
    let leaving = seal(removals, &["a"], archive).await?;
    let again = seal(removals, &["a"], ArchiveId::new()).await?;
    same("sealed again", &again, &leaving)?;
    let others = refused(&["a", "open"], after(HOLD)).await?;
    let leaves = RemovalRefused::Leaving(vec![item("a")]);
    same("with another", &others, &leaves)?;
    // An order that owns nothing may be on both, and in the files of the first.
    same("another beside it", &refused(&["b"], after(HOLD)).await?, &leaves)
}

async fn what_is_sealed_stays_as_it_is<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store.clone(), &[closing("a", 9), pool("b", 9)]).await?;
    let removals = removals_of(&*store)?;
    let [paid, back] = [1, 2].map(|n| held(n, "ann", &[units("a", 1), units("b", 1)]));
    shop.sell(&["a", "b"], &[place(&paid), place(&back)]).await?;
    let paid = shop.pay(&paid, "p").await?;
    let back_now = released(&back);
    shop.sell(&["a", "b"], &[turn(&back, &back_now)]).await?;
    let claims = [shop.claim("a").await?, shop.claim("b").await?];
    seal(removals, &["a"], ArchiveId::new()).await?;

    let claimed = store.claim(&[item("a")]).await?;
    same("a claim of a sealed item", &claimed, &vec![None])?;
    let put = store.put_item(&closing("a", 10)).await?;
    let archived = PutOutcome::Refused(PutItemError::Archived { item: item("a") });
    same("a definition of a sealed item", &put, &archived)?;
    let [a, b] = &claims;
    shop.fenced(&[a, b], &[turn(&paid, &cancelled(&paid, "p"))]).await?;
    shop.fenced(&[a, b], &[place(&held(3, "bob", &[units("a", 1)]))]).await?;
    let stray = shop.confirm(&back_now, "late", after(HOLD)).await;
    ensure!(stray.is_err(), "money for an order that is leaving was noted: {stray:?}");
    shop.stored(&[&paid, &back_now]).await?;
    // All else goes on.
    shop.sell(&["b"], &[place(&held(4, "bob", &[units("b", 1)]))]).await
}

async fn a_seal_that_is_broken_leaves_nothing_behind<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store.clone(), &[closing("a", 9)]).await?;
    let removals = removals_of(&*store)?;
    let archive = ArchiveId::new();
    seal(removals, &["a"], archive).await?;
    removals.unseal(archive).await?;
    let order = held(1, "ann", &[units("a", 1)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    same("put again", &store.put_item(&closing("a", 10)).await?, &PutOutcome::Changed)?;
    shop.sell(&["a"], &[turn(&order, &released(&order))]).await?;
    // Of an archive that is filed it can't be broken: its orders may be gone.
    seal(removals, &["a"], archive).await?;
    removals.file(archive, [7; 32]).await?;
    removals.unseal(archive).await?;
    same("a claim", &store.claim(&[item("a")]).await?, &vec![None])?;
    let leaving = seal(removals, &["a"], ArchiveId::new()).await?;
    same("what it is filed by", &leaving.filed, &Some([7; 32]))?;
    let other = removals.file(archive, [8; 32]).await;
    ensure!(other.is_err(), "it was filed with another checksum");
    removals.file(archive, [7; 32]).await?;
    Ok(())
}

async fn orders_leave_only_for_an_archive_that_is_filed<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store.clone(), &[closing("a", 9), pool("b", 9)]).await?;
    let removals = removals_of(&*store)?;
    let paid = held(1, "ann", &[units("a", 2)]);
    let stays = held(2, "ann", &[units("b", 1)]);
    let both = held(3, "ann", &[units("a", 1), units("b", 1)]);
    let refused = rejected(4, "bob", &[units("a", 99)]);
    let owes = owing(&rejected(5, "bob", &[units("a", 99)]), "p", after(HOLD));
    let all = [&paid, &stays, &both, &refused, &owes];
    shop.sell(&["a", "b"], &all.map(place)).await?;
    let [paid, both] = [shop.pay(&paid, "p").await?, shop.pay(&both, "p").await?];
    let archive = ArchiveId::new();
    seal(removals, &["a"], archive).await?;
    let early = removals.take_out(archive, std::slice::from_ref(&paid)).await;
    ensure!(early.is_err(), "an order left before its archive was filed");
    removals.file(archive, [7; 32]).await?;
    let as_it_was = held(1, "ann", &[units("a", 2)]);
    for (why, wrong) in [
        ("is on another item", &stays),
        ("owns units of another item", &both),
        ("is in another state", &as_it_was),
        ("owes money", &owes),
    ] {
        let taken = removals.take_out(archive, &[refused.clone(), wrong.clone()]).await;
        ensure!(taken.is_err(), "an order left that {why}");
    }
    shop.stored(&[&paid, &stays, &both, &refused, &owes]).await?;
    let leave = [paid.clone(), refused.clone()];
    for _ in 0..2 {
        removals.take_out(archive, &leave).await?;
        shop.absent(&[&paid, &refused]).await?;
    }
    shop.stored(&[&stays, &both, &owes]).await?;
    let early = removals.bury(archive, 2).await;
    ensure!(early.is_err(), "an item left of which an order owns units");
    shop.numbers("a", (8, 0, 1)).await
}

async fn items_leave_last_and_leave_a_tombstone<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let specs = [closing("a", 9), closing("b", 9), pool("c", 9)];
    let shop = Shop::open(store.clone(), &specs).await?;
    let removals = removals_of(&*store)?;
    let order = held(1, "ann", &[units("a", 1), units("b", 1)]);
    shop.sell(&["a", "b"], &[place(&order)]).await?;
    let order = shop.pay(&order, "p").await?;
    let archive = ArchiveId::new();
    let leaving = seal(removals, &["b", "a"], archive).await?;
    same("what leaves", &leaving.items, &vec![item("a"), item("b")])?;
    removals.file(archive, [7; 32]).await?;
    removals.take_out(archive, &[order]).await?;
    let tombstones = removals.bury(archive, 1).await?;
    same("buried again", &removals.bury(archive, 1).await?, &tombstones)?;
    let told: Vec<_> = tombstones.iter().map(|t| (&t.item, t.archive, t.orders)).collect();
    same("tombstones", &told, &vec![(&item("a"), archive, 1), (&item("b"), archive, 1)])?;
    same("all of them", &removals.tombstones(None, 9).await?, &tombstones)?;
    let behind = removals.tombstones(Some(&item("a")), 9).await?;
    same("those behind a", &behind, &tombstones[1..].to_vec())?;
    let (count, last) = removals.buried().await?;
    ensure!(count == 2 && last.is_some(), "{count} are buried, the last {last:?}");
    let left: Vec<_> = store.list_items(None, 9).await?.iter().map(|i| i.spec.id.clone()).collect();
    same("items that are left", &left, &vec![item("c")])?;
    let sealed = removals.seal(&[item("a"), item("b")], ArchiveId::new(), after(HOLD)).await?;
    same("sealed when they are gone", &sealed, &Sealing::Archived(tombstones.clone()))?;
    let put = store.put_item(&pool("a", 1)).await?;
    let archived = PutOutcome::Refused(PutItemError::Archived { item: item("a") });
    same("put when it is gone", &put, &archived)?;
    let forgotten = removals.delete(&item("a")).await?;
    same("a tombstone deleted", &forgotten, &Deletion::Forgotten(tombstones[0].clone()))?;
    same("put anew", &store.put_item(&pool("a", 1)).await?, &PutOutcome::Created)?;
    shop.numbers("a", (1, 0, 0)).await
}

async fn what_never_sold_anything_is_deleted<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store.clone(), &[pool("a", 9), pool("sold", 9)]).await?;
    let removals = removals_of(&*store)?;
    let order = held(1, "ann", &[units("a", 2)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    let still = RemovalRefused::Held { item: item("a"), units: 2 };
    let deleted = removals.delete(&item("a")).await?;
    same("deleted while held", &deleted, &Deletion::Refused(still))?;
    let claim = shop.claim("a").await?;
    shop.apply(&[&claim], &[turn(&order, &released(&order))]).await?;
    same("deleted", &removals.delete(&item("a")).await?, &Deletion::Deleted)?;
    let unknown = Deletion::Refused(RemovalRefused::UnknownItem(item("a")));
    same("deleted twice", &removals.delete(&item("a")).await?, &unknown)?;
    shop.fenced(&[&claim], &[place(&held(2, "bob", &[units("a", 1)]))]).await?;
    same("a claim", &store.claim(&[item("a")]).await?, &vec![None])?;
    same("put anew", &store.put_item(&pool("a", 1)).await?, &PutOutcome::Created)?;

    let sold = held(3, "ann", &[units("sold", 1)]);
    shop.sell(&["sold"], &[place(&sold)]).await?;
    let sold = shop.pay(&sold, "p").await?;
    shop.sell(&["sold"], &[turn(&sold, &cancelled(&sold, "p"))]).await?;
    let refused = Deletion::Refused(RemovalRefused::Sold(item("sold")));
    same("deleted when it sold", &removals.delete(&item("sold")).await?, &refused)
}
