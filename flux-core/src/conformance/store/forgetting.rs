//! What a store may forget: rejected orders, after their time, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::shop::{
    Shop, T0, cancelled, commit, confirmed, expired, held, id, moved, owing, place, pool, refund,
    refund_due, rejected, released, returned, turn, units,
};
use crate::conformance::check::{Checked, eventually, same};
use crate::protocol::{CommitOutcome, Order};
use crate::seams::{InventoryStore, OrderFilter};

/// Time past which a store that was asked for ended holds has forgotten.
const SLACK: Duration = Duration::from_secs(60);

/// Has the store look at its orders as it does now and then.
async fn sweep<S>(shop: &Shop<S>, after: Duration) -> Checked
where
    S: InventoryStore + ?Sized,
{
    shop.store.due_holds(T0 + after, 10).await?;
    Ok(())
}

pub(super) async fn a_rejected_order_is_remembered_for_its_time<S>(
    (store, keep): (Arc<S>, Duration),
) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let orders: Vec<Order> = (1..=20).map(|n| rejected(n, "ann", &[units("a", 9)])).collect();
    shop.apply(&[], &orders.iter().map(place).collect::<Vec<_>>()).await?;
    sweep(&shop, keep).await?;
    shop.stored(&orders.iter().collect::<Vec<_>>()).await?;
    let again = shop.write(&[], &[place(&orders[0])]).await?;
    same("an id that is remembered", &again, &moved(&[&orders[0]]))
}

pub(super) async fn a_forgotten_id_is_a_new_orders<S>((store, keep): (Arc<S>, Duration)) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let turned_down = rejected(1, "ann", &[units("a", 9)]);
    shop.apply(&[], &[place(&turned_down)]).await?;
    eventually(|| async {
        sweep(&shop, keep + SLACK).await?;
        same("a rejected order whose time is over", &shop.find(id(1)).await?, &None)
    })
    .await?;
    let order = held(1, "bob", &[units("a", 2)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    shop.stored(&[&order]).await?;
    shop.numbers("a", (3, 2, 0)).await?;
    // Decided once, as any other.
    let claim = shop.claim("a").await?;
    let again = shop.commit(commit(&[&claim], &[place(&order)])).await?;
    let CommitOutcome::Conflict { moved, .. } = again else {
        return same("an id that is taken again", &again, &super::shop::moved(&[&order]));
    };
    same("an id that is taken again", &moved, &vec![id(1)])?;
    // And remembered as any other: what is left of the first one does not count.
    sweep(&shop, 3 * (keep + SLACK)).await?;
    shop.stored(&[&order]).await?;
    let page = shop.store.list_orders(&OrderFilter::default(), None, 10).await?;
    same("the orders under an id that was forgotten", &page.orders, &vec![order])
}

pub(super) async fn what_was_ever_held_is_remembered_for_good<S>(
    (store, keep): (Arc<S>, Duration),
) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let orders: Vec<Order> = (1..=6).map(|n| held(n, "ann", &[units("a", 1)])).collect();
    let lost = rejected(7, "ann", &[units("a", 99)]);
    let writes: Vec<_> = orders.iter().chain([&lost]).map(place).collect();
    shop.sell(&["a"], &writes).await?;
    let now = [
        orders[0].clone(),
        confirmed(&orders[1], "p1"),
        released(&orders[2]),
        expired(&orders[3]),
        refund_due(&orders[4], "p4"),
        cancelled(&orders[5], "p5"),
    ];
    let (gone, paid) = (expired(&orders[4]), confirmed(&orders[5], "p5"));
    shop.pay(&orders[1], "p1").await?;
    shop.pay(&orders[5], "p5").await?;
    let turns = [
        turn(&orders[2], &now[2]),
        turn(&orders[3], &now[3]),
        turn(&orders[4], &gone),
        turn(&paid, &now[5]),
    ];
    shop.sell(&["a"], &turns).await?;
    shop.apply(&[], &[turn(&gone, &now[4])]).await?;
    for years in 1..=3 {
        sweep(&shop, keep + years * Duration::from_secs(365 * 24 * 3600)).await?;
        shop.stored(&now.iter().collect::<Vec<_>>()).await?;
    }
    shop.numbers("a", (7, 1, 1)).await
}

/// A rejected order that money came for outlasts its time, and the refund too.
pub(super) async fn a_debt_is_remembered_for_good<S>((store, keep): (Arc<S>, Duration)) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 9)]).await?;
    let turned_down: Vec<Order> = (1..=3).map(|n| rejected(n, "ann", &[units("a", 99)])).collect();
    shop.apply(&[], &turned_down.iter().map(place).collect::<Vec<_>>()).await?;
    for order in &turned_down[..2] {
        shop.confirm(order, "p", T0).await?;
    }
    let returned_at = refund("r", T0 + keep);
    shop.refund(&turned_down[1], returned_at.clone()).await?;
    let owing = [0, 1].map(|n| owing(&turned_down[n], "p", T0));
    let now = [owing[0].clone(), returned(&owing[1], returned_at)];
    for years in 1..=3 {
        sweep(&shop, keep + years * Duration::from_secs(365 * 24 * 3600)).await?;
        shop.stored(&now.iter().collect::<Vec<_>>()).await?;
    }
    eventually(|| async {
        sweep(&shop, keep + SLACK).await?;
        same("a rejected order without a debt", &shop.find(id(3)).await?, &None)
    })
    .await?;
    same("what is owed", &shop.store.owed().await?.orders, &1)
}
