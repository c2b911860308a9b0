//! Notes of what is accepted and not decided: how long they count, and their price.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::clock::Clock;
use flux_core::seams::{InventoryStore, Sight};
use flux_core::{Metadata, Order, Timestamp};

use crate::table::{
    NOW, apply, bill_of, claim, client, held, id, new, order, pool, rejected, table_name, units,
};

/// A clock that a test sets.
#[derive(Debug, Clone)]
struct Set(Arc<AtomicU64>);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Set {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn selling() -> (Arc<DynamoStore>, Set, Meter) {
    let (clock, meter) = (Set(Arc::new(AtomicU64::new(NOW.as_millis()))), Meter::default());
    let (client, table) = (client().await, table_name());
    let store = DynamoStore::builder().client(&client).table(&table).meter(meter.clone());
    let store = Arc::new(store.clock(Arc::new(clock.clone())).build());
    store.create_table().await.expect("the emulator makes tables");
    store.put_item(&pool("a", 9)).await.expect("put");
    (store, clock, meter)
}

fn asked(buyer: &str) -> Order {
    order(1, buyer, &[units("a", 1)])
}

async fn known(store: &DynamoStore) -> Option<Order> {
    store.known(&[id(1)], Sight::Now).await.expect("it answers").remove(0)
}

#[tokio::test]
async fn a_reservation_ends_after_a_minute_and_a_note_does_not() {
    let (store, clock, _) = selling().await;
    let (anns, bobs) = (asked("ann"), asked("bob"));
    let reserve = async |order: &Order| store.reserve(order).await.expect("it answers");
    assert_eq!(reserve(&anns).await, None);
    clock.advance(Duration::from_secs(59));
    assert_eq!(reserve(&bobs).await, Some(anns.clone()), "it may be on its way");
    clock.advance(Duration::from_secs(2));
    assert_eq!(reserve(&bobs).await, None);
    assert_eq!(reserve(&anns).await, Some(bobs.clone()));
    assert_eq!(known(&store).await, None);
    store.note_accepted(&bobs).await.expect("noted");
    clock.advance(Duration::from_secs(14 * 24 * 3_600));
    assert_eq!(reserve(&anns).await, Some(bobs.clone()));
    assert_eq!(known(&store).await, Some(bobs));
}

#[tokio::test]
async fn a_note_costs_two_units_and_its_decision_no_more_than_any() {
    let (store, _, meter) = selling().await;
    let claimed = claim(&store, "a").await;
    let decide = async |n, order: &Order| {
        let ((), bill) = bill_of(&meter, apply(&store, &[&claimed], vec![new(order)])).await;
        println!("order {n}: {} write units", bill.write_units);
        bill.write_units
    };
    let mut costs = Vec::new();
    for n in 2..4 {
        let order = order(n, "ann", &[units("a", 1)]);
        if n == 3 {
            let noting = async {
                store.reserve(&order).await.expect("reserved");
                store.note_accepted(&order).await.expect("noted");
            };
            let ((), bill) = bill_of(&meter, noting).await;
            assert_eq!((bill.read_units, bill.write_units), (0.0, 2.0));
        }
        costs.push(decide(n, &held(&order)).await);
    }
    assert_eq!(costs[0], costs[1]);
    // One that is turned down is forgotten in its own time.
    let order = order(4, "ann", &[units("a", 1)]);
    store.note_accepted(&order).await.expect("noted");
    apply(&store, &[&claimed], vec![new(&rejected(&order))]).await;
    assert_eq!(store.orders(&[id(4)]).await.expect("it answers"), [Some(rejected(&order))]);
}

#[tokio::test]
async fn a_note_has_what_is_attached_to_the_order() {
    let (store, _, _) = selling().await;
    let attached = Metadata::new([("basket", "7")]).expect("a pair");
    let (plain, order) = (asked("ann"), asked("ann").with_metadata(attached));
    let reserve = async |order: &Order| store.reserve(order).await.expect("it answers");
    assert_eq!(reserve(&order).await, None);
    assert_eq!(reserve(&order).await, None, "it is its own");
    assert_eq!(reserve(&plain).await, Some(order.clone()));
    store.note_accepted(&order).await.expect("noted");
    assert_eq!(known(&store).await, Some(order));
}

#[tokio::test]
async fn a_table_that_older_processes_may_work_on_takes_no_note() {
    let (client, table) = (client().await, table_name());
    let store = || DynamoStore::builder().client(&client).table(&table).build();
    store().create_table().await.expect("the emulator makes tables");
    store().put_item(&pool("a", 9)).await.expect("put");
    let format = |name: &str| AttributeValue::S(name.to_owned());
    client
        .update_item()
        .table_name(&table)
        .key("pk", format("flux"))
        .key("sk", format("format"))
        .update_expression("SET version = :version")
        .expression_attribute_values(":version", AttributeValue::N("2".to_owned()))
        .send()
        .await
        .expect("written");
    let store = store();
    assert_eq!(store.reserve(&asked("ann")).await.expect("it answers"), None);
    store.note_accepted(&asked("ann")).await.expect("it answers");
    assert_eq!(known(&store).await, None, "an older process would take it for a decision");
    let claimed = claim(&store, "a").await;
    apply(&store, &[&claimed], vec![new(&held(&order(2, "ann", &[units("a", 1)])))]).await;
}
