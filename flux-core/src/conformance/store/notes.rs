//! G3 and G4: what is accepted and not decided. A store may note it or not; either way it
//! is decided like anything else.

use std::sync::Arc;

use super::shop::{Shop, T0, held, id, moved, order, payment, place, pool, units};
use crate::conformance::check::{Checked, ensure, same};
use crate::protocol::Order;
use crate::seams::{ConfirmOutcome, InventoryStore, OrderFilter, Payment, Sight};

async fn known<S>(shop: &Shop<S>, n: u128) -> Checked<Option<Order>>
where
    S: InventoryStore + ?Sized,
{
    let ids = [id(n), id(999)];
    let before = shop.store.known(&ids, Sight::MayLag).await?;
    let mut known = shop.store.known(&ids, Sight::Now).await?;
    same("answers to a read of two", &[before.len(), known.len()], &[2, 2])?;
    same("an order nobody heard of", &known.pop().flatten(), &None)?;
    Ok(known.pop().flatten())
}

pub(super) async fn an_order_that_is_noted_is_decided_like_any_other<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let claim = shop.claim("a").await?;
    let lines = [units("a", 2)];
    let (asked, decided) = (order(1, "ann", &lines), held(1, "ann", &lines));
    for what in ["who has a new id", "who has it, for whoever reserved it"] {
        same(what, &shop.store.reserve(&asked).await?, &None)?;
    }
    same("an order that is only reserved", &known(&shop, 1).await?, &None)?;
    shop.store.note_accepted(&asked).await?;
    let noted = known(&shop, 1).await?;
    let is_noted = noted.is_some();
    ensure!(noted.is_none_or(|noted| noted == asked), "another order was noted");
    if is_noted {
        for again in [&asked, &order(1, "bob", &lines), &order(1, "ann", &[units("a", 3)])] {
            same("who has the id", &shop.store.reserve(again).await?, &Some(asked.clone()))?;
        }
    }
    shop.absent(&[&decided]).await?;
    let paid = Payment { order: id(1), payment: payment("p1"), at: T0 };
    let paid = shop.store.confirm(&[paid]).await?;
    same("a payment of what is not decided", &paid, &vec![ConfirmOutcome::NotFound])?;
    let page = shop.store.list_orders(&OrderFilter::default(), None, 10).await?;
    same("orders that are listed", &page.orders, &vec![])?;

    shop.apply(&[&claim], &[place(&decided)]).await?;
    for _ in 0..2 {
        shop.stored(&[&decided]).await?;
        same("the order", &known(&shop, 1).await?, &Some(decided.clone()))?;
        same("who has the id", &shop.store.reserve(&asked).await?, &Some(decided.clone()))?;
        shop.store.note_accepted(&asked).await?;
    }
    let outcome = shop.write(&[&claim], &[place(&decided)]).await?;
    same("a second decision of an id", &outcome, &moved(&[&decided]))?;
    shop.numbers("a", (7, 2, 0)).await
}

pub(super) async fn a_reservation_keeps_nobody_from_deciding<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let claim = shop.claim("a").await?;
    let lines = [units("a", 2)];
    let anns = order(1, "ann", &lines);
    same("who has a new id", &shop.store.reserve(&anns).await?, &None)?;
    let before = shop.store.reserve(&order(1, "bob", &lines)).await?;
    ensure!(before.is_none_or(|before| before == anns), "nobody else asked for the id");
    let bobs = held(1, "bob", &lines);
    shop.absent(&[&bobs]).await?;
    shop.apply(&[&claim], &[place(&bobs)]).await?;
    shop.stored(&[&bobs]).await?;
    same("who has the id", &shop.store.reserve(&anns).await?, &Some(bobs))?;
    shop.numbers("a", (7, 2, 0)).await
}
