//! Reads of the written: one by one, in lists and page by page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::shop::{
    Shop, T0, after, buyer, cancelled, capped, expired, hall, held, id, item, place, pool,
    rejected, released, seats, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, eventually, same};
use crate::protocol::{ItemId, ItemSpec, Metadata, Order, OrderId, OrderStatus, Stock};
use crate::seams::{Cursor, InventoryStore, OrderFilter, PutOutcome, SeamError};

/// Most pages that a listing may take.
const PAGES_MAX: usize = 1_000;

pub(super) async fn a_definition_reads_as_it_was_put<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let full = ItemSpec::builder().id("full").name("Ünë ~ name").capacity(7).hold_seconds(61);
    let full = full.max_per_buyer(3).opens_at(T0).closes_at(after(Duration::from_millis(1)));
    let full = full.build().map_err(|error| Failure::new(error.to_string()))?;
    let mut specs = vec![full, hall("hall", &["B2", "A1", "~"]), pool("empty", 0)];
    let shop = Shop::open(store, &specs).await?;
    for spec in &specs {
        let again = shop.store.put_item(spec).await?;
        same("put_item of the same definition", &again, &PutOutcome::Unchanged)?;
    }
    specs[0] = ItemSpec { name: None, ..specs[0].clone() };
    specs[1] = ItemSpec { hold: crate::HoldTime::MIN, ..specs[1].clone() };
    specs[2] = capped("empty", 0, 1);
    for spec in &specs {
        same("put_item", &shop.store.put_item(spec).await?, &PutOutcome::Changed)?;
        let claim = shop.claim(spec.id.as_str()).await?;
        same("the definition as claimed", &*claim.spec, spec)?;
        let (read, stock) = shop.stock(spec.id.as_str()).await?;
        same("the definition as read", &*read, spec)?;
        same("the stock", &stock, &Stock::full(spec))?;
        let items = shop.store.items(std::slice::from_ref(&spec.id)).await?;
        let shown = items.into_iter().next().flatten();
        let shown = shown.ok_or_else(|| Failure::new(format!("items: no {}", spec.id)))?;
        same("the definition as shown", &*shown.spec, spec)?;
    }
    Ok(())
}

pub(super) async fn what_is_not_there_is_none<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5), pool("b", 5)]).await?;
    let asked: Vec<ItemId> = ["b", "nowhere", "a"].map(item).to_vec();
    let items = shop.store.items(&asked).await?;
    let found: Vec<_> =
        items.iter().map(|item| item.as_ref().map(|item| item.spec.id.clone())).collect();
    let should_be = vec![Some(item("b")), None, Some(item("a"))];
    same("items, in the order asked", &found, &should_be)?;
    same("stock of no item", &shop.store.stock(&item("nowhere")).await?, &None)?;
    same("claims of no item", &shop.store.claim(&[item("nowhere")]).await?, &vec![None])?;

    let orders: Vec<Order> = (1..=120).map(|n| rejected(n, "ann", &[units("a", 1)])).collect();
    for batch in orders.chunks(20) {
        shop.apply(&[], &batch.iter().map(place).collect::<Vec<_>>()).await?;
    }
    let ids: Vec<OrderId> = (1..=240).rev().map(id).collect();
    let found = shop.store.orders(&ids).await?;
    let should_be: Vec<_> =
        ids.iter().map(|id| orders.iter().find(|order| order.id == *id).cloned()).collect();
    same("orders, in the order asked", &found, &should_be)?;
    same("orders of no id", &shop.store.orders(&[]).await?, &vec![])?;
    same("items of no id", &shop.store.items(&[]).await?, &vec![])
}

pub(super) async fn what_is_attached_to_an_order_stays_with_it<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 5)]).await?;
    let most = Metadata::new((0..16).map(|n| (format!("{n:~>64}"), "Ü \"\n".repeat(12))));
    let most = most.map_err(|error| Failure::new(error.to_string()))?;
    let held = held(1, "ann", &[units("a", 1)]).with_metadata(most);
    let few = Metadata::new([("note", "")]).map_err(|error| Failure::new(error.to_string()))?;
    let rejected = rejected(2, "ann", &[units("a", 1), units("a", 9)]).with_metadata(few);
    let rejected = Order { failed_line: Some(1), ..rejected };
    shop.sell(&["a"], &[place(&held), place(&rejected)]).await?;
    let paid = shop.pay(&held, "p1").await?;
    same("metadata after a payment", &paid.metadata, &held.metadata)?;
    let cancelled = cancelled(&paid, "p1");
    shop.sell(&["a"], &[turn(&paid, &cancelled)]).await?;
    let read = shop.store.orders(&[held.id, rejected.id]).await?;
    let should_be = vec![Some(cancelled.clone()), Some(rejected.clone())];
    same("orders with something attached", &read, &should_be)?;
    let mut listed = list(&*shop.store, &OrderFilter::default(), 10).await?;
    listed.sort_by_key(|order| order.id);
    same("their listing", &listed, &vec![cancelled, rejected])
}

/// Every page of a listing.
async fn list<S>(store: &S, filter: &OrderFilter, limit: usize) -> Checked<Vec<Order>>
where
    S: InventoryStore + ?Sized,
{
    let (mut orders, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let page = store.list_orders(filter, after.as_ref(), limit).await?;
        ensure!(page.orders.len() <= limit, "{} orders on a page of {limit}", page.orders.len());
        orders.extend(page.orders);
        after = page.next;
        if after.is_none() {
            return Ok(orders);
        }
    }
    Err(Failure::new(format!("a listing did not end within {PAGES_MAX} pages")))
}

pub(super) async fn orders_are_listed_by_buyer_item_and_status<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 50), pool("b", 50), hall("h", &["x", "y"])]).await?;
    let mut orders = [
        held(1, "ann", &[units("a", 1), units("b", 1)]),
        held(2, "bob", &[units("b", 1), units("b", 2)]),
        held(3, "ann", &[seats("h", &["x"])]),
        rejected(4, "bob", &[units("a", 9)]),
        held(5, "ann", &[units("a", 2)]),
        held(6, "bob", &[units("a", 1), seats("h", &["y"])]),
        rejected(7, "ann", &[units("nowhere", 1)]),
    ];
    shop.sell(&["a", "b", "h"], &orders.iter().map(place).collect::<Vec<_>>()).await?;
    orders[0] = shop.pay(&orders[0], "p1").await?;
    let freed = released(&orders[4]);
    shop.sell(&["a"], &[turn(&orders[4], &freed)]).await?;
    orders[4] = freed;

    let names = |names: &[&'static str]| -> Vec<Option<&'static str>> {
        std::iter::once(None).chain(names.iter().copied().map(Some)).collect()
    };
    let statuses = [
        None,
        Some(OrderStatus::Held),
        Some(OrderStatus::Confirmed),
        Some(OrderStatus::Released),
        Some(OrderStatus::Rejected),
        Some(OrderStatus::RefundDue),
    ];
    for buyer_name in names(&["ann", "bob", "nobody"]) {
        for item_name in names(&["a", "b", "h", "nowhere"]) {
            for status in statuses {
                let filter = OrderFilter {
                    buyer: buyer_name.map(buyer),
                    item: item_name.map(item),
                    status,
                    money: None,
                };
                let should_be: Vec<_> =
                    orders.iter().filter(|order| filter.matches(order)).cloned().collect();
                for limit in [1, 2, 100] {
                    eventually(|| async {
                        let mut listed = list(&*shop.store, &filter, limit).await?;
                        listed.sort_by_key(|order| order.id);
                        let what = format!("{filter:?} by pages of {limit}");
                        same(&what, &listed, &should_be)
                    })
                    .await?;
                }
            }
        }
    }
    Ok(())
}

pub(super) async fn a_listing_survives_writes_between_its_pages<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 500)]).await?;
    let a = shop.claim("a").await?;
    let make = |n| held(n, "ann", &[units("a", 1)]);
    let early: Vec<Order> = (0..20).map(|n| make(n * 10 + 5)).collect();
    shop.apply(&[&a], &early.iter().map(place).collect::<Vec<_>>()).await?;
    let filter = OrderFilter { buyer: Some(buyer("ann")), ..OrderFilter::default() };
    eventually(|| async {
        same("orders listed", &list(&*shop.store, &filter, 100).await?.len(), &early.len())
    })
    .await?;

    let (mut seen, mut after, mut pages) = (Vec::new(), None::<Cursor>, 0);
    loop {
        let page = shop.store.list_orders(&filter, after.as_ref(), 3).await?;
        seen.extend(page.orders.iter().map(|order| order.id));
        // A neighbour on either side of every order.
        if let Some(order) = early.get(pages) {
            let n = order.id.as_uuid().as_u128();
            shop.apply(&[&a], &[place(&make(n - 1)), place(&make(n + 1))]).await?;
        }
        pages += 1;
        ensure!(pages <= PAGES_MAX, "a listing did not end within {PAGES_MAX} pages");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let unique: BTreeSet<_> = seen.iter().copied().collect();
    same("orders listed once", &unique.len(), &seen.len())?;
    let missed: Vec<_> = early.iter().filter(|order| !unique.contains(&order.id)).collect();
    ensure!(missed.is_empty(), "there from the start, but not listed: {missed:?}");

    match shop.store.list_orders(&filter, Some(&Cursor("no cursor / at all".into())), 3).await {
        Err(SeamError::UnknownCursor { .. }) => Ok(()),
        other => Err(Failure::new(format!("a foreign cursor was answered {other:?}"))),
    }
}

pub(super) async fn an_order_that_changes_between_two_pages_is_listed_once<S>(
    store: Arc<S>,
) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 500), pool("b", 500)]).await?;
    // By where a listing begins, by which buyer's orders, and by state: each has another way
    // to come past an order again.
    let by_state = |status| OrderFilter { status: Some(status), ..OrderFilter::default() };
    let filters = [
        OrderFilter::default(),
        OrderFilter { buyer: Some(buyer("ann")), ..OrderFilter::default() },
        OrderFilter { item: Some(item("b")), ..OrderFilter::default() },
        by_state(OrderStatus::Held),
        by_state(OrderStatus::Confirmed),
        by_state(OrderStatus::Released),
    ];
    for (round, filter) in filters.iter().enumerate() {
        let first = 1_000 * (round as u128 + 1);
        let lines = [units("a", 1), units("b", 1)];
        let mut orders: Vec<_> = (first..first + 24).map(|n| held(n, "ann", &lines)).collect();
        let (some, others) = orders.split_at(12);
        shop.sell(&["a", "b"], &some.iter().map(place).collect::<Vec<_>>()).await?;
        shop.sell(&["a", "b"], &others.iter().map(place).collect::<Vec<_>>()).await?;
        let total = orders.len() * (round + 1);
        eventually(|| async {
            let all = list(&*shop.store, &OrderFilter::default(), 100).await?;
            same("orders listed", &all.len(), &total)
        })
        .await?;

        let (mut seen, mut after, mut pages) = (Vec::<OrderId>::new(), None::<Cursor>, 0);
        let mut changed = BTreeSet::new();
        loop {
            let page = shop.store.list_orders(filter, after.as_ref(), 3).await?;
            seen.extend(page.orders.iter().map(|order| order.id));
            pages += 1;
            ensure!(pages <= PAGES_MAX, "a listing did not end within {PAGES_MAX} pages");
            after = page.next;
            if after.is_none() {
                break;
            }
            // One that was listed already, and one that perhaps was not.
            let number = |order: &Order| order.id.as_uuid().as_u128();
            let listed = orders
                .iter()
                .position(|order| seen.contains(&order.id) && !changed.contains(&number(order)));
            let any = orders.iter().rposition(|order| !changed.contains(&number(order)));
            for at in BTreeSet::from_iter(listed.into_iter().chain(any)) {
                changed.insert(number(&orders[at]));
                orders[at] = change(&shop, &orders[at], pages + at).await?;
            }
        }
        let unique: BTreeSet<_> = seen.iter().copied().collect();
        let mut twice = seen.clone();
        twice.sort_unstable();
        let twice: Vec<_> = twice.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        ensure!(twice.is_empty(), "{filter:?}: listed twice, as they changed: {twice:?}");
        let missed: Vec<_> = orders
            .iter()
            .filter(|order| filter.matches(order) && !unique.contains(&order.id))
            // One that came to be selected on the way may be listed or not.
            .filter(|order| filter.status.is_none() || order.status() == OrderStatus::Held)
            .collect();
        ensure!(missed.is_empty(), "{filter:?}: there all the while, not listed: {missed:?}");
    }
    Ok(())
}

/// Pays a held order, gives it back, or both, by turns; the order as it then stands.
async fn change<S>(shop: &Shop<S>, order: &Order, turns: usize) -> Checked<Order>
where
    S: InventoryStore + ?Sized,
{
    let paid = match turns % 4 {
        0 | 1 => Some(shop.pay(order, "p1").await?),
        _ => None,
    };
    let after = match (turns % 4, &paid) {
        (0, Some(paid)) => return Ok(paid.clone()),
        (_, Some(paid)) => cancelled(paid, "p1"),
        (2, _) => released(order),
        _ => expired(order),
    };
    shop.sell(&["a", "b"], &[turn(paid.as_ref().unwrap_or(order), &after)]).await?;
    Ok(after)
}

pub(super) async fn items_are_listed_by_id<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let specs: Vec<_> =
        ["m", "a", "Z", "ab", "a~", "zz", "0"].iter().map(|id| pool(id, 5)).collect();
    let shop = Shop::open(store, &specs).await?;
    shop.sell(&["ab"], &[place(&held(1, "ann", &[units("ab", 2)]))]).await?;
    let mut sorted: Vec<ItemId> = specs.iter().map(|spec| spec.id.clone()).collect();
    sorted.sort();
    for limit in [1, 3, 7, 100] {
        eventually(|| async {
            let (mut seen, mut after) = (Vec::new(), None::<ItemId>);
            for _ in 0..=specs.len() {
                let page = shop.store.list_items(after.as_ref(), limit).await?;
                ensure!(page.len() <= limit, "{} items on a page of {limit}", page.len());
                seen.extend(page.iter().map(|item| item.spec.id.clone()));
                after = page.last().map(|item| item.spec.id.clone());
                if after.is_none() {
                    break;
                }
            }
            same(&format!("items by pages of {limit}"), &seen, &sorted)
        })
        .await?;
    }
    eventually(|| async {
        let page = shop.store.list_items(Some(&item("aa")), 1).await?;
        let shown = page.first().map(|item| (item.spec.id.clone(), item.available, item.held));
        same("the first item after one that is not there", &shown, &Some((item("ab"), 3, 2)))
    })
    .await
}
