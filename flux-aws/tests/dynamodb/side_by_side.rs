//! Commits of one call: which are on their way at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_core::protocol::CommitOutcome;
use flux_core::seams::InventoryStore;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::table::{
    available, capped, claim, client, commit, held, new, order, pool, single, store, table_name,
    units,
};
use crate::wire::{Fate, wired};

#[tokio::test]
async fn commits_on_one_striped_item_are_on_their_way_at_once() {
    let ((goes, gate), met) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&met);
    let client = wired(&client().await, move |operation, body| {
        if operation != "TransactWriteItems" || !body.contains("order 00000000") {
            return Fate::Well;
        }
        count.fetch_add(1, Ordering::SeqCst);
        Fate::Held(gate.clone())
    });
    let store = store(&client, &table_name(), 3, &Meter::default()).await;
    store.create_table().await.expect("made");
    store.put_item(&pool("a", 90)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let sell = |n| commit(&[&claimed], vec![new(&held(&single(n, "a")))]);
    let commits = [1, 2, 3].map(sell);
    let all = async {
        while met.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        goes.send(true).expect("the calls wait");
    };
    let patience = Duration::from_secs(20);
    let both = async { tokio::join!(store.commit(&commits), all) };
    let (outcomes, ()) = timeout(patience, both).await.expect("no stripe waits for another");
    assert!(outcomes.expect("told").iter().all(|told| *told == CommitOutcome::Applied));
    assert_eq!(available(&store, "a").await, 87);
}

#[tokio::test]
async fn an_order_above_a_whole_cap_is_told_what_its_buyer_has() {
    let store = store(&client().await, &table_name(), 1, &Meter::default()).await;
    store.create_table().await.expect("made");
    store.put_item(&capped("a", 9, 2)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let anns = |n, quantity| new(&held(&order(n, "ann", &[units("a", quantity)])));
    let commits = [anns(1, 1), anns(2, 3)].map(|write| commit(&[&claimed], vec![write]));
    let outcomes = store.commit(&commits).await.expect("told");
    let [CommitOutcome::Applied, CommitOutcome::Conflict { over_cap, .. }] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!((over_cap.len(), over_cap[0].live), (1, 1), "{over_cap:?}");
}
