//! The promises of a change feed, and of the store that it belongs to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::check::{Check, Checked, Failure, checks, ensure, same};
use super::store::shop::{
    Shop, cancelled, capped, expired, held, place, pool, rejected, released, turn, units,
};
use crate::protocol::{CommitOutcome, ConsumerName, ItemSpec, Order, OrderId};
use crate::seams::{
    CONSUMERS_MAX, Change, ChangeFeed, Changed, Consumer, Cursor, InventoryStore, SeamError,
};

/// Longest wait for a change that was made.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn all<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    checks! {
        "feed" {
            every_change_is_told_once_in_order,
            what_was_refused_is_not_told,
            reading_goes_on_behind_a_cursor,
            a_reader_is_woken_by_a_change,
            consumers_are_kept_with_their_cursors,
            a_cursor_of_another_feed_is_refused,
        }
    }
}

fn feed_of<S>(store: &Arc<S>) -> Checked<Arc<dyn ChangeFeed>>
where
    S: InventoryStore + ?Sized,
{
    store.feed().ok_or_else(|| Failure::new("the store has no feed"))
}

/// Reads until so many changes came, and makes sure that no more do.
async fn read(feed: &dyn ChangeFeed, after: Option<&Cursor>, count: usize) -> Checked<Vec<Change>> {
    let (mut changes, mut after) = (Vec::new(), after.cloned());
    let deadline = Instant::now() + PATIENCE;
    while changes.len() < count && Instant::now() < deadline {
        let page = feed.changes(after.as_ref(), 3, Duration::from_millis(200)).await?;
        ensure!(page.changes.len() <= 3, "{} changes on a page of 3", page.changes.len());
        if let Some(last) = page.changes.last() {
            same("the place to go on", &page.next, &last.cursor)?;
        }
        changes.extend(page.changes);
        after = Some(page.next);
    }
    let more = feed.changes(after.as_ref(), 3, Duration::ZERO).await?;
    same("changes behind the last", &more.changes, &vec![])?;
    ensure!(changes.len() == count, "{} changes for {count}: {changes:?}", changes.len());
    Ok(changes)
}

/// What became of each order, one state after the other.
fn stories(changes: Vec<Change>) -> HashMap<OrderId, Vec<Order>> {
    let mut stories: HashMap<_, Vec<_>> = HashMap::new();
    for change in changes {
        if let Changed::Order(order) = change.changed {
            stories.entry(order.id).or_default().push(order);
        }
    }
    stories
}

async fn every_change_is_told_once_in_order<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let shop = Shop::open(store, &[pool("a", 50), pool("b", 50)]).await?;
    let [paid, gone, over] = [1, 2, 3].map(|n| held(n, "ann", &[units("a", 1), units("b", 2)]));
    let refused = Order { failed_line: Some(0), ..rejected(4, "bob", &[units("a", 99)]) };
    let all = [&paid, &gone, &over, &refused];
    shop.sell(&["a", "b"], &all.map(place)).await?;
    let confirmed = shop.pay(&paid, "p1").await?;
    let back = cancelled(&confirmed, "p1");
    shop.sell(&["a", "b"], &[turn(&confirmed, &back), turn(&gone, &released(&gone))]).await?;
    shop.sell(&["a", "b"], &[turn(&over, &expired(&over))]).await?;
    let changed = capped("a", 60, 9);
    shop.store.put_item(&changed).await?;

    let changes = read(&*feed, None, 11).await?;
    ensure!(changes.iter().is_sorted_by_key(|change| change.at), "times go back: {changes:?}");
    let items = changes.iter().filter_map(|change| match &change.changed {
        Changed::Item(spec) if spec.id == changed.id => Some(spec.clone()),
        _ => None,
    });
    let items: Vec<ItemSpec> = items.collect();
    same("definitions of an item", &items, &vec![pool("a", 50), changed])?;
    let stories = stories(changes);
    let should_be = HashMap::from([
        (paid.id, vec![paid, confirmed, back]),
        (gone.id, vec![gone.clone(), released(&gone)]),
        (over.id, vec![over.clone(), expired(&over)]),
        (refused.id, vec![refused]),
    ]);
    same("what became of each order", &stories, &should_be)
}

async fn what_was_refused_is_not_told<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let shop = Shop::open(store, &[pool("a", 2)]).await?;
    let first = held(1, "ann", &[units("a", 1)]);
    shop.sell(&["a"], &[place(&first)]).await?;
    let newest = feed.newest().await?;
    shop.store.put_item(&pool("a", 2)).await?;
    // Decided already; a claim that is none; a payment for nobody's order.
    let claim = shop.claim("a").await?;
    let again = shop.write(&[&claim], &[place(&first)]).await?;
    ensure!(again != CommitOutcome::Applied, "an id was decided twice");
    let too_much = held(2, "ann", &[units("a", 9)]);
    let too_much = shop.write(&[&claim], &[place(&too_much)]).await?;
    ensure!(too_much != CommitOutcome::Applied, "more was taken than there is");
    let second = held(3, "ann", &[units("a", 1)]);
    shop.sell(&["a"], &[place(&second)]).await?;
    let changes = read(&*feed, Some(&newest), 1).await?;
    same("the only change", &changes[0].changed, &Changed::Order(second))
}

async fn reading_goes_on_behind_a_cursor<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let shop = Shop::open(store, &[pool("a", 100)]).await?;
    let orders: Vec<Order> = (1..=30).map(|n| held(n, "ann", &[units("a", 1)])).collect();
    for part in orders.chunks(7) {
        shop.sell(&["a"], &part.iter().map(place).collect::<Vec<_>>()).await?;
    }
    let changes = read(&*feed, None, 31).await?;
    for (at, change) in changes.iter().enumerate() {
        let page = feed.changes(Some(&change.cursor), 100, Duration::ZERO).await?;
        same("what is behind a change", &page.changes, &changes[at + 1..].to_vec())?;
    }
    let newest = feed.newest().await?;
    let page = feed.changes(Some(&newest), 100, Duration::ZERO).await?;
    same("what is behind the newest", &page.changes, &vec![])?;
    let none = feed.changes(None, 0, Duration::ZERO).await?;
    same("none asked for", &none.changes, &vec![])?;
    let all = feed.changes(Some(&none.next), 100, Duration::ZERO).await?;
    same("all behind the start", &all.changes, &changes)
}

async fn a_reader_is_woken_by_a_change<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let shop = Shop::open(store, &[pool("a", 100)]).await?;
    let newest = feed.newest().await?;
    let order = held(1, "ann", &[units("a", 1)]);
    let reading = feed.changes(Some(&newest), 10, PATIENCE);
    let selling = async {
        sleep(Duration::from_millis(50)).await;
        shop.sell(&["a"], &[place(&order)]).await
    };
    let began = Instant::now();
    let (page, sold) = tokio::join!(reading, selling);
    sold?;
    let page = page?;
    ensure!(began.elapsed() < PATIENCE, "it waited on though a change came");
    same("changes", &page.changes.len(), &1)?;
    same("the change", &page.changes[0].changed, &Changed::Order(order))?;
    let began = Instant::now();
    let wait = Duration::from_millis(50);
    let page = feed.changes(Some(&page.next), 10, wait).await?;
    same("changes of a quiet time", &page.changes, &vec![])?;
    ensure!(began.elapsed() >= wait, "it did not wait");
    Ok(())
}

async fn consumers_are_kept_with_their_cursors<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let shop = Shop::open(store, &[pool("a", 100)]).await?;
    let order = held(1, "ann", &[units("a", 1)]);
    shop.sell(&["a"], &[place(&order)]).await?;
    let changes = read(&*feed, None, 2).await?;
    let name = |name: &str| ConsumerName::new(name).map_err(|e| Failure::new(e.to_string()));
    let [mailer, books] = [name("mailer")?, name("~books~")?];
    same("a consumer that never came", &feed.cursor_of(&mailer).await?, &None)?;
    for change in &changes {
        feed.keep_cursor(&Consumer::new(mailer.clone(), change.cursor.clone())).await?;
        let kept = feed.cursor_of(&mailer).await?;
        same("a kept cursor", &kept, &Some(change.cursor.clone()))?;
    }
    let first = Consumer::new(books.clone(), changes[0].cursor.clone());
    feed.keep_cursor(&first).await?;
    let second = Consumer::new(mailer.clone(), changes[1].cursor.clone());
    same("the consumers", &feed.consumers().await?, &vec![second, first])?;
    same("a forgotten consumer", &feed.forget_consumer(&mailer).await?, &true)?;
    same("one forgotten twice", &feed.forget_consumer(&mailer).await?, &false)?;
    same("its cursor", &feed.cursor_of(&mailer).await?, &None)?;

    for n in 1..CONSUMERS_MAX {
        let consumer = Consumer::new(name(&format!("c{n}"))?, changes[0].cursor.clone());
        feed.keep_cursor(&consumer).await?;
    }
    let one_more = Consumer::new(name("one-more")?, changes[0].cursor.clone());
    let refused = feed.keep_cursor(&one_more).await;
    ensure!(
        matches!(refused, Err(SeamError::TooManyConsumers { .. })),
        "one consumer too many was answered {refused:?}"
    );
    feed.keep_cursor(&Consumer::new(books, changes[1].cursor.clone())).await?;
    same("how many there are", &feed.consumers().await?.len(), &CONSUMERS_MAX)
}

async fn a_cursor_of_another_feed_is_refused<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let feed = feed_of(&store)?;
    let _shop = Shop::open(store, &[pool("a", 100)]).await?;
    for wrong in ["", "a", "-1", "99999999999999999999999", "9999999999"] {
        let wrong = Cursor(wrong.to_owned());
        let read = feed.changes(Some(&wrong), 1, Duration::ZERO).await;
        ensure!(
            matches!(read, Err(SeamError::UnknownCursor { .. })),
            "{wrong:?} was taken for a place: {read:?}"
        );
    }
    Ok(())
}
