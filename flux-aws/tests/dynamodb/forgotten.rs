//! Rejected orders, which DynamoDB deletes when their time has come. The emulator does not
//! within a test, so the tests delete what it would.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue as Value, TimeToLiveSpecification, TimeToLiveStatus};
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::Claim;
use flux_core::seams::{InventoryStore, OrderFilter};
use flux_core::{
    Backend, BuyerId, Flux, ItemSpec, Line, Order, OrderId, OrderRequest, OrderState, OrderStatus,
    Reason, Timestamp,
};

use crate::table::{
    NOW, apply, bill_of, calls, capped, claim, client, held, id, item, listed, new, order, pool,
    rejected, single, store, table_name, units,
};
use crate::wire::{Fate, wired};

type Row = HashMap<String, Value>;

/// A store, and a look behind it.
struct Shop {
    client: Client,
    table: String,
    meter: Meter,
    store: Arc<DynamoStore>,
}

impl Shop {
    async fn open() -> Self {
        let (client, table, meter) = (client().await, table_name(), Meter::default());
        let store = store(&client, &table, 1, &meter).await;
        store.create_table().await.expect("the emulator makes tables");
        Self { client, table, meter, store }
    }

    async fn selling(spec: ItemSpec) -> (Self, Claim) {
        let shop = Self::open().await;
        shop.store.put_item(&spec).await.expect("put");
        let claimed = claim(&shop.store, spec.id.as_str()).await;
        (shop, claimed)
    }

    async fn rows(&self) -> Vec<Row> {
        let pages = self.client.scan().table_name(&self.table).consistent_read(true);
        let rows = pages.into_paginator().items().send().try_collect().await;
        rows.expect("the emulator scans")
    }

    /// Deletes as DynamoDB would, now or late: of the rows to be forgotten those that `is_due`.
    async fn forget(&self, is_due: impl Fn(&str) -> bool) -> usize {
        let rows = self.rows().await.into_iter().filter(|row| row.contains_key("forgotten"));
        let due: Vec<Row> = rows.filter(|row| is_due(text(row, "pk"))).collect();
        for row in &due {
            self.delete(row).await;
        }
        due.len()
    }

    async fn delete(&self, row: &Row) {
        let key = ["pk", "sk"].map(|name| (name.to_owned(), row[name].clone()));
        let delete = self.client.delete_item().table_name(&self.table);
        delete.set_key(Some(key.into())).send().await.expect("deleted");
    }

    async fn listed(&self, filter: &OrderFilter) -> BTreeSet<OrderId> {
        let listed = listed(&self.store, filter).await;
        let ids: BTreeSet<OrderId> = listed.iter().map(|order| order.id).collect();
        assert_eq!(ids.len(), listed.len(), "each once");
        ids
    }
}

fn text<'r>(row: &'r Row, name: &str) -> &'r str {
    row[name].as_s().expect("text")
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<OrderId> {
    numbers.into_iter().map(id).collect()
}

/// Orders by turns held and turned down.
fn by_turns(n: usize) -> Order {
    let order = single(n, "ticket");
    if n.is_multiple_of(2) { held(&order) } else { rejected(&order) }
}

fn is_kept(n: &usize) -> bool {
    n.is_multiple_of(2)
}

#[tokio::test]
async fn rejected_orders_and_what_names_them_have_an_end_and_nothing_else_has() {
    let (shop, claimed) = Shop::selling(capped("ticket", 1_000, 2)).await;
    for start in [0, 40, 80] {
        let writes = (start..start + 40).map(|n| new(&by_turns(n)));
        apply(&shop.store, &[&claimed], writes.collect()).await;
    }
    apply(
        &shop.store,
        &[&claimed],
        (200..290).map(|n| new(&rejected(&single(n, "ticket")))).collect(),
    )
    .await;
    apply(&shop.store, &[], vec![new(&rejected(&single(300, "nothing")))]).await;
    let a_day_later = (NOW.as_millis() / 1_000 + 86_400).to_string();
    let mut logs = [0, 0];
    for row in shop.rows().await {
        let pk = text(&row, "pk");
        let is_log_of_rejected = pk == "rejected 0 ticket";
        logs[0] += usize::from(is_log_of_rejected);
        logs[1] += usize::from(pk == "log 0 ticket");
        let ends = is_log_of_rejected
            || pk == "stray"
            || row.get("status").is_some_and(|status| status.as_s().expect("text") == "rejected");
        let forgotten = row.get("forgotten").map(|at| at.as_n().expect("a number"));
        assert_eq!(forgotten, ends.then_some(&a_day_later), "{row:?}");
    }
    assert!(logs[0] > 0 && logs[1] > 0, "{logs:?}");
    let rejected = (1..120).step_by(2).chain(200..290).chain([300]);
    let filter = OrderFilter::builder().status(OrderStatus::Rejected).build();
    assert_eq!(shop.listed(&filter).await, ids(rejected), "until then they are there");
}

#[tokio::test]
async fn a_listing_skips_what_is_forgotten_and_nothing_else() {
    let (shop, claimed) = Shop::selling(pool("ticket", 1_000)).await;
    for start in (0..200).step_by(10) {
        let writes = (start..start + 10).map(|n| new(&by_turns(n)));
        apply(&shop.store, &[&claimed], writes.collect()).await;
    }
    apply(&shop.store, &[], vec![new(&rejected(&single(300, "nothing")))]).await;
    let of_item = OrderFilter::builder().item(item("ticket")).build();
    let all = OrderFilter::default();
    let of_buyer = OrderFilter::builder().buyer(BuyerId::new("buyer-3").expect("a name")).build();
    assert_eq!(shop.listed(&of_item).await, ids(0..200));
    assert_eq!(shop.listed(&all).await, ids((0..200).chain([300])));
    assert_eq!(shop.listed(&of_buyer).await, ids([3]));

    // Some of them, and none of the rows that name them.
    let early: BTreeSet<String> = (1..100).step_by(2).map(|n| format!("order {}", id(n))).collect();
    assert_eq!(shop.forget(|pk| early.contains(pk)).await, 50);
    let left = (0..200).filter(|n| is_kept(n) || *n >= 100);
    assert_eq!(shop.listed(&of_item).await, ids(left.clone()));
    assert_eq!(shop.listed(&all).await, ids(left.chain([300])));
    assert_eq!(shop.listed(&of_buyer).await, ids([]));

    // Then the earliest row that names them, then all.
    let logs = shop.rows().await.into_iter().filter(|row| text(row, "pk") == "rejected 0 ticket");
    let first = logs.min_by_key(|row| text(row, "sk").to_owned()).expect("a row");
    shop.delete(&first).await;
    let seen = shop.listed(&of_item).await;
    assert!(
        seen.is_superset(&ids((0..200).filter(is_kept))) && seen.contains(&id(199)),
        "{seen:?}"
    );
    assert!(shop.forget(|_| true).await > 50);
    for filter in [&of_item, &all] {
        assert_eq!(shop.listed(filter).await, ids((0..200).filter(is_kept)));
    }

    // What came later is found past the gap.
    apply(
        &shop.store,
        &[&claimed],
        (400..490).map(|n| new(&rejected(&single(n, "ticket")))).collect(),
    )
    .await;
    assert_eq!(shop.listed(&of_item).await, ids((0..200).filter(is_kept).chain(400..490)));

    // An order that is kept must be there.
    let mut kept = shop.rows().await.into_iter();
    let kept = kept.find(|row| text(row, "pk") == format!("order {}", id(0)));
    shop.delete(&kept.expect("it is there")).await;
    let failed = shop.store.list_orders(&of_item, None, 10).await.expect_err("one is missing");
    assert!(format!("{failed:?}").contains("is named in a log and not there"), "{failed:?}");
}

#[tokio::test]
async fn a_cap_that_comes_late_counts_those_who_hold_and_reads_no_other() {
    let (shop, claimed) = Shop::selling(pool("ticket", 1_000)).await;
    let anns = |n| order(n, "ann", &[units("ticket", 1)]);
    let writes = (0..90).map(|n| new(&if n < 3 { held(&anns(n)) } else { rejected(&anns(n)) }));
    apply(&shop.store, &[&claimed], writes.collect()).await;
    // Half of them were forgotten.
    let gone: BTreeSet<String> = (3..50).map(|n| format!("order {}", id(n))).collect();
    assert_eq!(shop.forget(|pk| gone.contains(pk)).await, 47);
    let capped = capped("ticket", 1_000, 3);
    let (put, bill) = bill_of(&shop.meter, shop.store.put_item(&capped)).await;
    put.expect("put");
    assert!(bill.read_units <= 15.0, "three orders are read, not ninety: {bill:?}");
    let claimed = claim(&shop.store, "ticket").await;
    let fourth = crate::table::commit(&[&claimed], vec![new(&held(&anns(100)))]);
    let told = shop.store.commit(&[fourth]).await.expect("told");
    assert!(format!("{told:?}").contains("over_cap"), "{told:?}");
}

#[tokio::test]
async fn an_order_that_was_forgotten_is_a_new_one() {
    let shop = Shop::open().await;
    let hall = ItemSpec::hall("hall", ["A1", "A2"]).expect("a hall");
    let flux = Flux::builder(Backend { store: shop.store.clone(), ..Backend::memory() }).start();
    flux.put_item(hall).await.expect("put");
    let place = |n: usize, buyer: &str| {
        let line = Line::seats("hall", ["A1"]).expect("a line");
        let request = OrderRequest::builder().id(id(n)).buyer(buyer).lines(vec![line]);
        let (flux, request) = (flux.clone(), request.build().expect("a request"));
        async move { flux.place(request).await.expect("decided") }
    };
    let first = place(1, "ann").await;
    let refused = place(2, "bob").await;
    assert_eq!(
        (refused.status(), refused.reason()),
        (OrderStatus::Rejected, Some(Reason::SeatTaken))
    );
    flux.release(first.id).await.expect("released");
    assert_eq!(place(2, "bob").await, refused, "a repeat hears the same, while it is there");
    assert_eq!(shop.forget(|pk| pk.starts_with("order ")).await, 1);
    let again = place(2, "bob").await;
    assert_eq!(again.status(), OrderStatus::Held, "{again:?}");
    assert_eq!(shop.listed(&OrderFilter::default()).await, ids([1, 2]));
    let audit = flux.audit().await.expect("read");
    assert!(audit.is_clean(), "{audit}");
    flux.shutdown().await;
}

#[tokio::test]
async fn orders_of_both_kinds_at_once_cost_no_more_than_of_one() {
    let (shop, claimed) = Shop::selling(pool("ticket", 1_000)).await;
    let full = shop.store.commit_max().parts - 2;
    let ((), bill) = bill_of(&shop.meter, async {
        for start in (0..10 * full).step_by(full) {
            let writes = (start..start + full).map(|n| new(&by_turns(n)));
            apply(&shop.store, &[&claimed], writes.collect()).await;
        }
    })
    .await;
    // 3.06 where all are held, 2.06 where none is.
    let each = bill.write_units / (10 * full) as f64;
    assert!(each <= 2.6, "{each}");
    let stock_row = shop.rows().await.into_iter().find(|row| text(row, "pk") == "item ticket");
    let named = stock_row.expect("it is there");
    let bytes = |name: &str| named[name].as_b().expect("bytes").as_ref().len() / 20;
    assert!(bytes("tail") + bytes("rejected") <= 2 * full, "what a stock row names is bounded");
    assert_eq!(shop.listed(&OrderFilter::default()).await.len(), 10 * full);
}

#[tokio::test]
async fn a_table_that_is_made_forgets_and_one_that_does_not_can_still_be_used() {
    let shop = Shop::open().await;
    let ttl = |shop: &Shop| shop.client.describe_time_to_live().table_name(&shop.table).send();
    let described = ttl(&shop).await.expect("described").time_to_live_description;
    let described = described.expect("a description");
    assert_eq!(described.time_to_live_status, Some(TimeToLiveStatus::Enabled));
    assert_eq!(described.attribute_name.as_deref(), Some("forgotten"));
    shop.store.create_table().await.expect("again is no harm");

    let off = TimeToLiveSpecification::builder().enabled(false).attribute_name("forgotten");
    let update = shop.client.update_time_to_live().table_name(&shop.table);
    let off = off.build().expect("both are set");
    update.time_to_live_specification(off).send().await.expect("turned off");
    shop.store.check().await.expect("only a warning");
    shop.store.create_table().await.expect("it is turned on");
    let described = ttl(&shop).await.expect("described").time_to_live_description;
    let status = described.and_then(|described| described.time_to_live_status);
    assert_eq!(status, Some(TimeToLiveStatus::Enabled));
}

#[tokio::test]
async fn a_listing_goes_on_past_rows_that_went_before_their_time() {
    let shop = Shop::open().await;
    shop.store.put_item(&pool("ticket", 1_000)).await.expect("put");
    let claimed = claim(&shop.store, "ticket").await;
    // Turned down now, and so to be remembered for a day.
    let now = Timestamp::from(std::time::SystemTime::now());
    let turned_down =
        |n| single(n, "ticket").with_state(OrderState::Rejected(now, Reason::SoldOut));
    let writes = (0..90).map(|n| new(&turned_down(n)));
    apply(&shop.store, &[&claimed], writes.collect()).await;
    apply(&shop.store, &[&claimed], vec![new(&turned_down(90))]).await;
    assert_eq!(shop.listed(&OrderFilter::default()).await, ids(0..91));
    assert!(shop.forget(|pk| pk == "rejected 0 ticket").await > 0);
    let of_item = OrderFilter::builder().item(item("ticket")).build();
    assert_eq!(shop.listed(&of_item).await, ids([90]), "what came since is named elsewhere");
}

#[tokio::test]
async fn orders_of_an_item_that_is_not_there_cost_one_look_at_it() {
    let shop = Shop::open().await;
    shop.store.check().await.expect("the table is ours");
    let of_nothing = OrderFilter::builder().item(item("nothing")).build();
    let (found, bill) = bill_of(&shop.meter, shop.listed(&of_nothing)).await;
    assert_eq!(found, ids([]));
    assert_eq!(calls(&bill), 2, "its first stock row, and the strays: {bill:?}");
}

#[tokio::test]
async fn a_log_of_kept_orders_that_is_gone_is_no_end_of_the_listing() {
    let (shop, claimed) = Shop::selling(pool("ticket", 1_000)).await;
    let writes = (0..40).map(|n| new(&held(&single(n, "ticket"))));
    apply(&shop.store, &[&claimed], writes.collect()).await;
    let log = shop.rows().await.into_iter().find(|row| text(row, "pk") == "log 0 ticket");
    shop.delete(&log.expect("it is full enough for one")).await;
    let failed = shop.store.list_orders(&OrderFilter::default(), None, 10).await;
    let failed = failed.expect_err("orders are missing");
    assert!(format!("{failed:?}").contains("that is not there"), "{failed:?}");
}

#[tokio::test]
async fn a_log_of_rejected_orders_that_is_not_to_be_seen_yet_is_waited_for() {
    let shop = Shop::open().await;
    shop.store.put_item(&pool("ticket", 1_000)).await.expect("put");
    let claimed = claim(&shop.store, "ticket").await;
    let now = Timestamp::from(std::time::SystemTime::now());
    let turned_down =
        |n| single(n, "ticket").with_state(OrderState::Rejected(now, Reason::SoldOut));
    apply(&shop.store, &[&claimed], (0..40).map(|n| new(&turned_down(n))).collect()).await;
    // The first look at the log finds nothing, by both of its calls.
    let hidden = AtomicUsize::new(2);
    let client = wired(&shop.client, move |operation, body| {
        let hides = operation == "Query"
            && body.contains("rejected 0 ticket")
            && hidden.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if hides { Fate::Answer(200, r#"{"Items":[],"Count":0}"#.into()) } else { Fate::Well }
    });
    let reader = store(&client, &shop.table, 1, &shop.meter).await;
    assert_eq!(listed(&reader, &OrderFilter::default()).await.len(), 40);
}
