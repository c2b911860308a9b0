//! G9: money that is owed is noted, found, and returned once.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::shop::{
    HOLD, Shop, T0, after, cancelled, confirmed, expired, held, id, moved, owing, place, pool,
    refund, refund_due, rejected, released, returned, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, eventually, same};
use crate::protocol::{Expect, Money, Order, OrderId, OrderWrite};
use crate::seams::{InventoryStore, OrderFilter, Owed, RefundOutcome, Repayment};

fn one(n: u128) -> Order {
    held(n, "ann", &[units("a", 1)])
}

/// Orders 1 to 8: held, paid, released, expired, owed a refund, cancelled, rejected, and
/// rejected with money for it. Those that owe are 5, 6 and 8.
async fn one_of_each<S>(shop: &Shop<S>) -> Checked<Vec<Order>>
where
    S: InventoryStore + ?Sized,
{
    let mut orders: Vec<Order> = (1..=6).map(one).collect();
    orders.extend([7, 8].map(|n| rejected(n, "ann", &[units("a", 99)])));
    shop.sell(&["a"], &orders.iter().map(place).collect::<Vec<_>>()).await?;
    for n in [1, 5] {
        orders[n] = shop.pay(&orders[n], "p").await?;
    }
    let turns = [
        (2, released(&orders[2])),
        (3, expired(&orders[3])),
        (4, expired(&orders[4])),
        (5, cancelled(&orders[5], "p")),
    ];
    let writes: Vec<_> = turns.iter().map(|(at, to)| turn(&orders[*at], to)).collect();
    shop.sell(&["a"], &writes).await?;
    turns.into_iter().for_each(|(at, to)| orders[at] = to);
    let due = refund_due(&orders[4], "p");
    shop.apply(&[], &[turn(&orders[4], &due)]).await?;
    orders[4] = due;
    shop.confirm(&orders[7], "p", after(HOLD)).await?;
    orders[7] = owing(&orders[7], "p", after(HOLD));
    shop.stored(&orders.iter().collect::<Vec<_>>()).await?;
    Ok(orders)
}

pub(super) async fn a_refund_is_ruled_on_by_the_orders_money<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    use RefundOutcome::{ByAnother, NotFound, NotOwed, Refunded};
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let mut orders = one_of_each(&shop).await?;
    same("a refund of nothing", &shop.refund(&one(99), refund("r", T0)).await?, &NotFound)?;
    for order in &mut orders {
        let first = shop.refund(order, refund("r", after(HOLD * 2))).await?;
        if order.money() != Money::Owed {
            same("a refund of what is not owed", &first, &NotOwed(order.clone()))?;
            continue;
        }
        *order = returned(order, refund("r", after(HOLD * 2)));
        same("a refund of what is owed", &first, &Refunded(order.clone()))?;
        let again = shop.refund(order, refund("r", after(HOLD * 3))).await?;
        same("the same refund again", &again, &Refunded(order.clone()))?;
        let other = shop.refund(order, refund("other", after(HOLD * 3))).await?;
        same("another refund", &other, &ByAnother(order.clone()))?;
    }
    shop.stored(&orders.iter().collect::<Vec<_>>()).await?;
    shop.numbers("a", (18, 1, 1)).await?;

    let told = |n: usize| Repayment::new(orders[n].id, refund("r", T0));
    let all = [told(5), Repayment::new(id(99), refund("r", T0)), told(0)];
    let outcomes = shop.store.refund(&all).await?;
    let should_be = vec![Refunded(orders[5].clone()), NotFound, NotOwed(orders[0].clone())];
    same("refunds, in the order asked", &outcomes, &should_be)?;
    same("refunds of nothing", &shop.store.refund(&[]).await?, &vec![])
}

pub(super) async fn of_two_refunds_at_once_one_is_noted<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    const ROUNDS: u128 = 30;
    let shop = Shop::open(store, &[pool("a", 1_000)]).await?;
    for n in 1..=ROUNDS {
        let order = one(n);
        shop.sell(&["a"], &[place(&order)]).await?;
        let paid = shop.pay(&order, "p").await?;
        let back = cancelled(&paid, "p");
        shop.sell(&["a"], &[turn(&paid, &back)]).await?;
        let mut tasks = JoinSet::new();
        for by in ["r1", "r2", "r1"] {
            let (shop, order) = (shop.clone(), back.clone());
            tasks.spawn(async move {
                Checked::Ok((by, shop.refund(&order, refund(by, after(HOLD))).await?))
            });
        }
        let mut answers = Vec::new();
        while let Some(result) = tasks.join_next().await {
            answers.push(result.map_err(|error| Failure::new(error.to_string()))??);
        }
        let stored = shop.find(order.id).await?;
        let stored = stored.ok_or_else(|| Failure::new("a cancelled order is gone"))?;
        same("a refunded order", &stored.money(), &Money::Refunded)?;
        for (by, answer) in answers {
            let ours = stored.refund() == Some(&refund(by, after(HOLD)));
            let fits = match &answer {
                RefundOutcome::Refunded(order) => ours && *order == stored,
                RefundOutcome::ByAnother(order) => !ours && *order == stored,
                _ => false,
            };
            ensure!(fits, "{by} was answered {answer:?}, the order is {stored:?}");
        }
    }
    shop.numbers("a", (1_000, 0, 0)).await
}

pub(super) async fn money_is_written_only_where_it_stands_as_expected<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let order = one(1);
    shop.sell(&["a"], &[place(&order)]).await?;
    let freed = released(&order);
    shop.sell(&["a"], &[turn(&order, &freed)]).await?;
    let owing = owing(&freed, "p", after(HOLD));
    let note = |to: &Order, money| OrderWrite {
        order: to.clone(),
        expect: Expect::Money(freed.status(), money),
    };
    let refused = moved(&[&order]);
    let returned = returned(&owing, refund("r", after(HOLD)));
    let early = shop.write(&[], &[note(&returned, Money::Owed)]).await?;
    same("a refund of what is not owed", &early, &refused)?;
    shop.apply(&[], &[note(&owing, Money::None)]).await?;
    let twice = shop.write(&[], &[note(&owing, Money::None)]).await?;
    same("money that is noted already", &twice, &refused)?;
    shop.stored(&[&owing]).await?;
    shop.apply(&[], &[note(&returned, Money::Owed)]).await?;
    let twice = shop.write(&[], &[note(&returned, Money::Owed)]).await?;
    same("a refund that is noted already", &twice, &refused)?;
    shop.stored(&[&returned]).await
}

/// All orders whose money is owed, by pages of that many.
async fn listed<S>(shop: &Shop<S>, filter: &OrderFilter, limit: usize) -> Checked<Vec<OrderId>>
where
    S: InventoryStore + ?Sized,
{
    let (mut ids, mut after) = (Vec::new(), None);
    for _ in 0..1_000 {
        let page = shop.store.list_orders(filter, after.as_ref(), limit).await?;
        ensure!(page.orders.len() <= limit, "{} orders on a page of {limit}", page.orders.len());
        for order in page.orders {
            same("the money of an order that is listed as owing", &order.money(), &Money::Owed)?;
            ids.push(order.id);
        }
        after = page.next;
        if after.is_none() {
            return Ok(ids);
        }
    }
    Err(Failure::new("the list of what is owed does not end"))
}

pub(super) async fn what_is_owed_is_counted_and_listed_until_it_is_returned<S>(
    store: Arc<S>,
) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20), pool("b", 5)]).await?;
    let owed = OrderFilter::builder().money(Money::Owed).build();
    same("what is owed at first", &shop.store.owed().await?, &Owed::default())?;
    let orders = one_of_each(&shop).await?;
    let owes = |order: &&Order| order.money() == Money::Owed;
    let shows = async |owing: &[&Order]| {
        let should_be: BTreeSet<OrderId> = owing.iter().map(|order| order.id).collect();
        let since = owing.iter().filter_map(|order| order.owed_since()).min();
        let count = Owed::new(owing.len() as u64, since);
        eventually(|| async {
            same("what is owed", &shop.store.owed().await?, &count)?;
            for limit in [1, 2, 100] {
                let ids = listed(&shop, &owed, limit).await?;
                same("orders listed twice", &(ids.len() - should_be.len()), &0)?;
                same("orders that owe", &ids.into_iter().collect(), &should_be)?;
            }
            Ok(())
        })
        .await
    };
    let owing: Vec<&Order> = orders.iter().filter(owes).collect();
    shows(&owing).await?;
    let of_b = OrderFilter { item: Some(super::shop::item("b")), ..owed.clone() };
    same("what is owed of another item", &listed(&shop, &of_b, 100).await?, &vec![])?;
    let returned = OrderFilter::builder().money(Money::Refunded).build();
    let page = shop.store.list_orders(&returned, None, 100).await?;
    same("what is returned", &page.orders, &vec![])?;
    for left in (0..owing.len()).rev() {
        shop.refund(owing[left], refund("r", after(HOLD))).await?;
        shows(&owing[..left]).await?;
    }
    Ok(())
}

/// A refund touches no stock: whoever has the item goes on.
pub(super) async fn a_refund_needs_no_claim_and_fences_nobody<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let (one, two) = (one(1), one(2));
    let a = shop.claim("a").await?;
    shop.apply(&[&a], &[place(&one)]).await?;
    let paid = shop.pay(&one, "p").await?;
    let back = cancelled(&paid, "p");
    shop.apply(&[&a], &[turn(&confirmed(&one, "p"), &back)]).await?;
    shop.refund(&back, refund("r", after(HOLD))).await?;
    shop.apply(&[&a], &[place(&two)]).await?;
    shop.numbers("a", (19, 1, 0)).await
}
