//! What a process remembers of items: it saves reads, and is looked after where it is old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flux_aws::bill::Meter;
use flux_core::protocol::{CommitOutcome, Expect, OrderWrite};
use flux_core::seams::{InventoryStore, Payment, PutOutcome};
use flux_core::{Hold, ItemSpec, OrderState, OrderStatus, PaymentRef};
use tokio::sync::watch;

use crate::table::{
    LATER, NOW, apply, available, bill_of, claim, client, commit, fresh_metered, held, id, item,
    new, pool, single, store, table_name,
};
use crate::wire::{Fate, wired};

#[tokio::test]
async fn halls_that_were_read_once_are_not_read_again() {
    let meter = Meter::default();
    let store = fresh_metered(1, &meter).await;
    for name in ["h", "i"] {
        let hall = ItemSpec::hall(name, ["x", "y"]).expect("a hall");
        store.put_item(&hall).await.expect("put");
        claim(&store, name).await;
    }
    let ((), bill) = bill_of(&meter, async {
        for name in ["h", "i", "h", "i"] {
            claim(&store, name).await;
        }
    })
    .await;
    let calls: Vec<_> = bill.calls.iter().map(|((_, call), count)| (&call[..], *count)).collect();
    assert_eq!(calls, [("UpdateItem", 4)]);
}

#[tokio::test]
async fn stock_that_came_back_unheard_is_looked_for_before_an_order_is_refused() {
    let (goes, gate) = watch::channel(false);
    let (is_late, landed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (late, lands) = (Arc::clone(&is_late), Arc::clone(&landed));
    let (client, table) = (client().await, table_name());
    let client = wired(&client, move |operation, _| {
        match operation == "TransactWriteItems" && late.load(Ordering::SeqCst) {
            true => Fate::Late(gate.clone(), Arc::clone(&lands)),
            false => Fate::Well,
        }
    });
    let store = store(&client, &table, 1, &Meter::default()).await;
    store.create_table().await.expect("made");
    store.put_item(&pool("a", 1)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let first = held(&single(1, "a"));
    apply(&store, &[&claimed], vec![new(&first)]).await;
    // Its unit comes back by a write that nobody hears of, and not before it is missed.
    is_late.store(true, Ordering::SeqCst);
    let order = first.with_state(OrderState::Released(Hold::between(NOW, LATER)));
    let release = OrderWrite { order, expect: Expect::Status(OrderStatus::Held) };
    let outcome = store.commit(&[commit(&[&claimed], vec![release])]).await.expect("told");
    assert_eq!(outcome, [CommitOutcome::Unknown]);
    is_late.store(false, Ordering::SeqCst);
    let take = |n| commit(&[&claimed], vec![new(&held(&single(n, "a")))]);
    let outcome = store.commit(&[take(2)]).await.expect("told");
    assert!(matches!(outcome[..], [CommitOutcome::Fenced(_)]), "{outcome:?}");
    goes.send(true).expect("the calls wait");
    while landed.load(Ordering::SeqCst) == 0 || available(&store, "a").await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.commit(&[take(3)]).await.expect("told"), [CommitOutcome::Applied]);
}

#[tokio::test]
async fn a_change_is_a_write_of_each_of_the_items_rows() {
    let (client, table) = (client().await, table_name());
    let store = store(&client, &table, 2, &Meter::default()).await;
    store.create_table().await.expect("made");
    store.put_item(&pool("a", 100)).await.expect("put");
    let revisions = async || {
        let rows = client.scan().table_name(&table).consistent_read(true).send().await;
        let rows = rows.expect("read").items.expect("rows");
        let revision = |row: &std::collections::HashMap<String, _>| row.get("revision").cloned();
        let numbers = rows.iter().filter_map(revision);
        let mut numbers: Vec<u64> = numbers
            .map(|number: aws_sdk_dynamodb::types::AttributeValue| {
                number.as_n().expect("a number").parse().expect("a number")
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(revisions().await, [0, 0]);
    assert_eq!(store.put_item(&pool("a", 120)).await.expect("put"), PutOutcome::Changed);
    assert_eq!(revisions().await, [1, 1]);
}

#[tokio::test]
async fn what_a_process_did_shows_in_its_numbers_at_once() {
    let store = fresh_metered(1, &Meter::default()).await;
    store.put_item(&pool("a", 9)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let numbers = async || {
        let items = store.items(&[item("a")]).await.expect("read");
        let item = items[0].clone().expect("it is there");
        (item.available, item.held, item.sold)
    };
    assert_eq!(numbers().await, (9, 0, 0));
    apply(&store, &[&claimed], vec![new(&held(&single(1, "a")))]).await;
    assert_eq!(numbers().await, (8, 1, 0));
    let payment = Payment::new(id(1), PaymentRef::new("p").expect("a name"), NOW);
    store.confirm(&[payment]).await.expect("paid");
    assert_eq!(numbers().await, (8, 0, 1));
}
