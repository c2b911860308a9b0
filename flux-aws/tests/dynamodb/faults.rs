//! Failures that only the service itself makes, and seldom: each means what it
//! should, and no write is lost or made twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::{CommitOutcome, Expect, OrderWrite};
use flux_core::seams::{
    ConfirmOutcome, InventoryStore, OrderFilter, Payment, PutOutcome, SeamError, Sight,
};
use flux_core::{OrderState, OrderStatus, PaymentRef};
use tokio::sync::watch;

use crate::table::{
    apply, available, bill_of, calls, capped, claim, client, commit, held, id, item, listed, new,
    order, pool, single, store, table_name, units,
};
use crate::wire::{Fate, wired};

/// Two stores in one table: one well connected, one by way of `decide`.
async fn two(
    meter: &Meter,
    decide: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
) -> (Arc<DynamoStore>, Arc<DynamoStore>) {
    let (client, table) = (client().await, table_name());
    let well = store(&client, &table, 1, &Meter::default()).await;
    well.create_table().await.expect("made");
    (well, store(&wired(&client, decide), &table, 1, meter).await)
}

/// Gives the first calls of one operation these fates, and then none.
fn first(
    operation: &'static str,
    fates: Vec<Fate>,
) -> (impl Fn(&str, &str) -> Fate + Send + Sync + 'static, Arc<AtomicUsize>) {
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    let decide = move |called: &str, _: &str| {
        if called != operation {
            return Fate::Well;
        }
        let nth = count.fetch_add(1, Ordering::SeqCst);
        fates.get(nth).cloned().unwrap_or(Fate::Well)
    };
    (decide, met)
}

fn cancelled(reasons: &[&str]) -> Fate {
    let reasons = reasons.iter().map(|code| format!(r#"{{"Code":"{code}","Message":"as told"}}"#));
    let reasons = reasons.collect::<Vec<_>>().join(",");
    let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let message = "Transaction cancelled, please refer cancellation reasons";
    Fate::Answer(
        400,
        format!(r#"{{"__type":"{kind}","Message":"{message}","CancellationReasons":[{reasons}]}}"#),
    )
}

/// Commits one order through a wire that fails the first tries, and tells what
/// came of it and how often it was tried.
async fn commit_meeting(fates: Vec<Fate>) -> (Result<CommitOutcome, SeamError>, usize, bool) {
    let (decide, met) = first("TransactWriteItems", fates);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let claim = claim(&store, "a").await;
    let outcome = store.commit(&[commit(&[&claim], vec![new(&held(&single(1, "a")))])]).await;
    let is_there = well.orders(&[id(1)]).await.expect("read")[0].is_some();
    assert_eq!(available(&well, "a").await, 5 - u32::from(is_there), "half a commit");
    (outcome.map(|mut outcomes| outcomes.remove(0)), met.load(Ordering::SeqCst), is_there)
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for passes in [
        cancelled(&["None", "TransactionConflict"]),
        cancelled(&["ThrottlingError", "None"]),
        cancelled(&["ProvisionedThroughputExceeded", "TransactionConflict"]),
        Fate::throttle(),
        Fate::failure(400, "ThrottlingException"),
        Fate::failure(400, "RequestLimitExceeded"),
        Fate::failure(400, "KMSThrottlingException"),
        Fate::failure(400, "KmsThrottled"),
        cancelled(&["None", "KmsThrottled"]),
        Fate::failure(400, "TransactionInProgressException"),
        Fate::failure(500, "InternalServerError"),
        Fate::Lost,
    ] {
        let (outcome, tries, is_there) = commit_meeting(vec![passes.clone(); 2]).await;
        assert_eq!(outcome.expect("applied"), CommitOutcome::Applied, "{passes:?}");
        assert_eq!((tries, is_there), (3, true), "{passes:?}");
    }
}

#[tokio::test]
async fn what_lasts_is_unavailable_if_nothing_was_written_and_unknown_if_it_may_have_been() {
    let (outcome, ..) = commit_meeting(vec![cancelled(&["TransactionConflict"]); 99]).await;
    assert!(matches!(outcome, Err(SeamError::Unavailable { .. })), "{outcome:?}");
    let (outcome, ..) = commit_meeting(vec![Fate::throttle(); 99]).await;
    assert!(matches!(outcome, Err(SeamError::Unavailable { .. })), "{outcome:?}");
    let mut lost = vec![Fate::throttle(); 99];
    lost[0] = Fate::Lost;
    let (outcome, _, is_there) = commit_meeting(lost).await;
    assert_eq!((outcome.expect("an answer"), is_there), (CommitOutcome::Unknown, true));
    let mut failed = vec![Fate::throttle(); 99];
    failed[1] = Fate::failure(500, "InternalServerError");
    let (outcome, _, is_there) = commit_meeting(failed).await;
    assert_eq!((outcome.expect("an answer"), is_there), (CommitOutcome::Unknown, false));
}

#[tokio::test]
async fn what_never_passes_is_told_at_once() {
    for never in [
        cancelled(&["ValidationError", "None"]),
        cancelled(&["ItemCollectionSizeLimitExceeded", "TransactionConflict"]),
        cancelled(&["None", "None"]),
        Fate::failure(400, "ValidationException"),
        Fate::failure(400, "IdempotentParameterMismatchException"),
        Fate::failure(400, "AccessDeniedException"),
        Fate::failure(400, "ResourceNotFoundException"),
    ] {
        let (outcome, tries, is_there) = commit_meeting(vec![never.clone(); 2]).await;
        assert!(matches!(outcome, Err(SeamError::Broken { .. })), "{never:?}: {outcome:?}");
        assert_eq!((tries, is_there), (1, false), "{never:?}");
    }
}

#[tokio::test]
async fn a_commit_that_arrives_after_the_next_claim_writes_nothing() {
    let ((goes, gate), landed) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let late = vec![Fate::Late(gate, Arc::clone(&landed)); 6];
    let (decide, _) = first("TransactWriteItems", late);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let before = claim(&store, "a").await;
    let late = held(&single(1, "a"));
    let outcome = store.commit(&[commit(&[&before], vec![new(&late)])]).await.expect("told");
    assert_eq!(outcome, [CommitOutcome::Unknown]);
    let after = claim(&store, "a").await;
    assert!(after.token > before.token);
    goes.send(true).expect("the calls wait");
    while landed.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    assert_eq!(well.orders(&[id(1)]).await.expect("read"), [None]);
    assert_eq!(available(&well, "a").await, 5);
    apply(&store, &[&after], vec![new(&held(&single(2, "a")))]).await;
}

#[tokio::test]
async fn a_commit_that_arrives_late_and_first_is_found() {
    let (goes, gate) = watch::channel(false);
    let late = vec![Fate::Late(gate, Arc::default()); 6];
    let (decide, _) = first("TransactWriteItems", late);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let before = claim(&store, "a").await;
    let late = held(&single(1, "a"));
    let outcome = store.commit(&[commit(&[&before], vec![new(&late)])]).await.expect("told");
    assert_eq!(outcome, [CommitOutcome::Unknown]);
    goes.send(true).expect("the calls wait");
    while well.orders(&[id(1)]).await.expect("read")[0].is_none() {
        tokio::task::yield_now().await;
    }
    let after = claim(&store, "a").await;
    assert_eq!(after.stock.available(), 4, "six tries were one commit");
    let outcome = store.commit(&[commit(&[&after], vec![new(&late)])]).await.expect("told");
    let moved = CommitOutcome::Conflict { moved: vec![id(1)], over_cap: vec![], barred: vec![] };
    assert_eq!(outcome, [moved]);
}

#[tokio::test]
async fn a_commit_that_arrives_late_does_not_undo_a_later_one_of_its_claim() {
    let ((goes, gate), landed) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let late = vec![Fate::Late(gate, Arc::clone(&landed)); 6];
    let (decide, _) = first("TransactWriteItems", late);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let late = commit(&[&claimed], vec![new(&held(&single(1, "a")))]);
    assert_eq!(store.commit(&[late]).await.expect("told"), [CommitOutcome::Unknown]);
    let second = order(2, "buyer-2", &[units("a", 3)]);
    apply(&store, &[&claimed], vec![new(&held(&second))]).await;
    goes.send(true).expect("the calls wait");
    while landed.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    assert_eq!(well.orders(&[id(1)]).await.expect("read"), [None]);
    assert_eq!(available(&well, "a").await, 2);
}

#[tokio::test]
async fn keys_and_rows_that_a_batch_left_out_are_asked_again() {
    let (reads, writes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (read, written) = (Arc::clone(&reads), Arc::clone(&writes));
    let (well, store) = two(&Meter::default(), move |operation, body| {
        let (met, name) = match operation {
            "BatchGetItem" => (&read, "UnprocessedKeys"),
            "BatchWriteItem" => (&written, "UnprocessedItems"),
            _ => return Fate::Well,
        };
        if met.fetch_add(1, Ordering::SeqCst) >= 3 {
            return Fate::Well;
        }
        let asked: serde_json::Value = serde_json::from_str(body).expect("JSON");
        Fate::Answer(200, format!(r#"{{"{name}":{}}}"#, asked["RequestItems"]))
    })
    .await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let claimed = claim(&well, "a").await;
    apply(&well, &[&claimed], vec![new(&held(&single(1, "a"))), new(&held(&single(2, "a")))]).await;
    let found = store.orders(&[id(1), id(2), id(3)]).await.expect("read");
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    let hall = flux_core::ItemSpec::hall("h", ["x", "y"]).expect("a hall");
    store.put_item(&hall).await.expect("put");
    assert_eq!(claim(&well, "h").await.stock.available(), 2, "its seats were written");
    assert!(reads.load(Ordering::SeqCst) > 3 && writes.load(Ordering::SeqCst) == 4);
}

#[tokio::test]
async fn batches_that_leave_everything_out_end() {
    let decide = |operation: &str, body: &str| match operation {
        "BatchGetItem" => {
            let asked: serde_json::Value = serde_json::from_str(body).expect("JSON");
            Fate::Answer(200, format!(r#"{{"UnprocessedKeys":{}}}"#, asked["RequestItems"]))
        }
        _ => Fate::Well,
    };
    let (_, store) = two(&Meter::default(), decide).await;
    let read = store.orders(&[id(1), id(2)]).await;
    assert!(matches!(read, Err(SeamError::Unavailable { .. })), "{read:?}");
}

#[tokio::test]
async fn payments_of_one_call_are_not_said_to_be_refused_when_some_were_taken() {
    let failing = |operation: &str, body: &str| match operation {
        "UpdateItem" if body.contains(&id(2).to_string()) => Fate::throttle(),
        _ => Fate::Well,
    };
    let (well, store) = two(&Meter::default(), failing).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let claimed = claim(&well, "a").await;
    apply(&well, &[&claimed], vec![new(&held(&single(1, "a"))), new(&held(&single(2, "a")))]).await;
    let payment = PaymentRef::new("pay").expect("a name");
    let pay = |n| Payment::new(id(n), payment.clone(), crate::table::NOW);
    let paid = store.confirm(&[pay(1), pay(2)]).await;
    assert!(matches!(paid, Err(SeamError::Unknown { .. })), "{paid:?}");
    let paid = store.confirm(&[pay(2)]).await;
    assert!(matches!(paid, Err(SeamError::Unavailable { .. })), "{paid:?}");
    let again = well.confirm(&[pay(1), pay(2)]).await.expect("paid");
    assert!(again.iter().all(|paid| matches!(paid, ConfirmOutcome::Settled(_))), "{again:?}");
}

#[tokio::test]
async fn a_listing_waits_for_orders_that_are_not_to_be_seen_yet() {
    // For a while, reads don't show one of the orders.
    let hidden = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&hidden);
    let (well, reader) = two(&Meter::default(), move |operation, body| {
        let hides = operation == "BatchGetItem"
            && body.contains(&id(7).to_string())
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if hides { Fate::Answer(200, r#"{"Responses":{}}"#.into()) } else { Fate::Well }
    })
    .await;
    well.put_item(&pool("a", 50)).await.expect("put");
    let claimed = claim(&well, "a").await;
    let orders: Vec<_> = (0..40).map(|n| held(&single(n, "a"))).collect();
    apply(&well, &[&claimed], orders.iter().map(new).collect()).await;
    assert_eq!(listed(&reader, &OrderFilter::default()).await.len(), 40);
    hidden.store(usize::MAX, Ordering::SeqCst);
    let page = reader.list_orders(&OrderFilter::default(), None, 1_000).await;
    let error = page.expect_err("an order is missing");
    assert!(matches!(error, SeamError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cap_counts_what_was_sold_between_its_look_and_its_claim() {
    let (goes, gate) = watch::channel(false);
    let (decide, met) = first("UpdateItem", vec![Fate::Held(gate)]);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let coming = tokio::spawn(async move { store.put_item(&capped("a", 5, 1)).await });
    while met.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let claimed = claim(&well, "a").await;
    apply(&well, &[&claimed], vec![new(&held(&order(1, "ann", &[units("a", 1)])))]).await;
    goes.send(true).expect("the call waits");
    assert_eq!(coming.await.expect("no panic").expect("put"), PutOutcome::Changed);
    let claimed = claim(&well, "a").await;
    let second = new(&held(&order(2, "ann", &[units("a", 1)])));
    let outcome = well.commit(&[commit(&[&claimed], vec![second])]).await.expect("told");
    assert!(
        matches!(&outcome[..], [CommitOutcome::Conflict { over_cap, .. }] if over_cap[0].live == 1),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_count_that_fails_lets_others_claim_at_once() {
    let failing = |operation: &str, _: &str| match operation {
        "BatchWriteItem" => Fate::throttle(),
        _ => Fate::Well,
    };
    let (well, store) = two(&Meter::default(), failing).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let claimed = claim(&well, "a").await;
    apply(&well, &[&claimed], vec![new(&held(&single(1, "a")))]).await;
    store.put_item(&capped("a", 5, 1)).await.expect_err("the count can't be written down");
    assert_eq!(claim(&well, "a").await.spec.max_per_buyer, None);
}

#[tokio::test]
async fn a_call_that_is_refused_for_the_moment_costs_nothing() {
    let meter = Meter::default();
    let (_, store) = two(&meter, |_, _| Fate::throttle()).await;
    let (read, bill) = bill_of(&meter, store.availability(&[item("a")])).await;
    assert!(matches!(read, Err(SeamError::Unavailable { .. })), "{read:?}");
    assert_eq!((calls(&bill), bill.read_units, bill.write_units), (1, 0.0, 0.0));
}

#[tokio::test]
async fn a_call_that_hangs_ends() {
    let (_goes, gate) = watch::channel(false);
    let (decide, _) = first("BatchGetItem", vec![Fate::Held(gate)]);
    let (_, store) = two(&Meter::default(), decide).await;
    let began = tokio::time::Instant::now();
    let read = store.availability(&[item("a")]).await;
    assert!(matches!(read, Err(SeamError::Unknown { .. })), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_change_that_a_sale_overtakes_is_made_again() {
    let (goes, gate) = watch::channel(false);
    let (decide, met) = first("TransactWriteItems", vec![Fate::Held(gate)]);
    let (well, store) = two(&Meter::default(), decide).await;
    well.put_item(&pool("a", 5)).await.expect("put");
    let coming = tokio::spawn(async move { store.put_item(&pool("a", 9)).await });
    while met.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let claimed = claim(&well, "a").await;
    apply(&well, &[&claimed], vec![new(&held(&single(1, "a")))]).await;
    goes.send(true).expect("the call waits");
    assert_eq!(coming.await.expect("no panic").expect("put"), PutOutcome::Changed);
    assert_eq!(available(&well, "a").await, 8, "nine but for the one that was sold");
    let late = well.commit(&[commit(&[&claimed], vec![new(&held(&single(2, "a")))])]).await;
    assert!(matches!(late.expect("told")[..], [CommitOutcome::Fenced(_)]), "a change fences");
}

#[tokio::test]
async fn every_read_is_consistent_but_those_of_the_index() {
    let lagging = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lagging);
    let (_, store) = two(&Meter::default(), move |operation, body| {
        let reads = matches!(operation, "GetItem" | "BatchGetItem" | "Query");
        if reads && !body.contains(r#""ConsistentRead":true"#) && !body.contains("IndexName") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fate::Well
    })
    .await;
    let hall = flux_core::ItemSpec::hall("h", ["x", "y"]).expect("a hall");
    for spec in [pool("a", 50), hall] {
        store.put_item(&spec).await.expect("put");
    }
    let claimed = claim(&store, "a").await;
    let orders: Vec<_> = (0..40).map(|n| new(&held(&single(n, "a")))).collect();
    apply(&store, &[&claimed], orders).await;
    claim(&store, "h").await;
    store.put_item(&capped("a", 50, 2)).await.expect("put");
    assert_eq!(listed(&store, &OrderFilter::default()).await.len(), 40);
    store.list_items(None, 9).await.expect("listed");
    store.due_holds(crate::table::LATER, 9).await.expect("read");
    store.orders(&[single(1, "a").id]).await.expect("read");
    store.known(&[single(1, "a").id], Sight::Now).await.expect("read");
    assert_eq!(lagging.load(Ordering::SeqCst), 0);
    store.known(&[single(1, "a").id], Sight::MayLag).await.expect("read");
    assert_eq!(lagging.load(Ordering::SeqCst), 1, "and those that may lag");
}

#[tokio::test]
async fn an_old_token_is_fenced_where_no_stock_moves() {
    let (old, other) = two(&Meter::default(), |_, _| Fate::Well).await;
    old.put_item(&pool("a", 5)).await.expect("put");
    let before = claim(&old, "a").await;
    let placed = held(&single(1, "a"));
    apply(&old, &[&before], vec![new(&placed)]).await;
    claim(&other, "a").await;
    // The units stay taken, so the stock row stays as it is.
    let paid = PaymentRef::new("pay").expect("a name");
    let paid = OrderState::Confirmed(placed.hold().expect("it is held"), paid);
    let expect = Expect::Status(OrderStatus::Held);
    let late = OrderWrite { order: placed.with_state(paid), expect };
    let outcomes = old.commit(&[commit(&[&before], vec![late])]).await.expect("told");
    assert_eq!(outcomes, [CommitOutcome::Fenced(vec![item("a")])]);
    assert_eq!(other.orders(&[id(1)]).await.expect("read"), [Some(placed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hall_that_changed_under_a_claim_fences() {
    let hall = |seats: u32| {
        flux_core::ItemSpec::hall("h", (0..seats).map(|seat| format!("s{seat}"))).expect("a hall")
    };
    for (before, after) in [(64, 65), (100, 50), (100, 200)] {
        let (client, table, meter) = (client().await, table_name(), Meter::default());
        let old = store(&client, &table, 1, &meter).await;
        old.create_table().await.expect("made");
        old.put_item(&hall(before)).await.expect("put");
        let claimed = claim(&old, "h").await;
        // Another process replaces the definition; this one knows the old seats.
        let other = store(&client, &table, 1, &meter).await;
        other.put_item(&hall(after)).await.expect("put");
        let seat = flux_core::Line::seats("h", ["s0"]).expect("a line");
        let write = new(&held(&order(1, "ann", &[seat])));
        let outcomes = old.commit(&[commit(&[&claimed], vec![write])]).await.expect("told");
        assert_eq!(outcomes, [CommitOutcome::Fenced(vec![item("h")])], "{before} to {after}");
    }
}
