//! A pool spread over several rows: nothing is stranded on one, nobody hears
//! "sold out" while another has some, and it is quicker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::Order;
use flux_core::OrderStatus;
use flux_core::conformance::history::Demand;
use flux_core::protocol::{Claim, CommitOutcome};
use flux_core::seams::InventoryStore;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::sale::{Sale, owned};
use crate::table::{
    apply, available, claim, client, commit, fresh, held, new, order, pool, single, store,
    table_name, units,
};
use crate::wire::{Fate, wired};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_engines_sell_eight_stripes_to_the_last_unit() {
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(client().await);
    }
    let sale = Arc::new(Sale::open(wires, 8, &[pool("a", 1_000)]).await);
    let mut buyers = JoinSet::new();
    for seed in 0..1_600 {
        let few = vec![units("a", 1 + seed % 2)];
        buyers.spawn(Arc::clone(&sale).buy(seed, format!("buyer-{seed}"), few));
    }
    while let Some(bought) = buyers.join_next().await {
        bought.expect("no panic");
    }
    let left = u64::from(available(&sale.truth, "a").await);
    assert!(left < 2, "whoever wanted one got it");
    for more in 0..left {
        let seed = 10_000 + more;
        let last = Arc::clone(&sale).buy(seed, format!("last-{more}"), vec![units("a", 1)]);
        assert!(last.await.is_some_and(|order| order.status().owns_stock()), "{left} are left");
    }
    let end = sale.judge(Demand::CoversStock).await;
    assert_eq!(owned(&end.orders, "a"), 1_000);
    // No units came back, so whoever wanted one unit and was turned down was
    // turned down after the last order that got some.
    let wants_one = |order: &&Order| order.lines[0].ask.units() == 1;
    let decided = |order: &Order| order.decided_at();
    let is_turned_down = |order: &&Order| order.status() == OrderStatus::Rejected;
    let turned_down =
        end.orders.iter().filter(is_turned_down).filter(wants_one).filter_map(decided).min();
    let sold =
        end.orders.iter().filter(|order| order.status().owns_stock()).filter_map(decided).max();
    assert!(turned_down.is_none() || turned_down >= sold, "{turned_down:?} {sold:?}");
}

#[tokio::test]
async fn the_rest_is_brought_together_for_whoever_wants_more_than_a_stripe_has() {
    let store = fresh(8).await;
    store.put_item(&pool("a", 20)).await.expect("put");
    let claimed = claim(&store, "a").await;
    let large = |n| held(&order(n, &format!("buyer-{n}"), &[units("a", 7)]));
    let commits: Vec<_> = (1..=3).map(|n| commit(&[&claimed], vec![new(&large(n))])).collect();
    let outcomes = store.commit(&commits).await.expect("committed");
    let applied = outcomes.iter().filter(|o| **o == CommitOutcome::Applied).count();
    let fenced = outcomes.iter().filter(|o| matches!(o, CommitOutcome::Fenced(_))).count();
    assert_eq!((applied, fenced), (2, 1), "{outcomes:?}");
    let claimed = claim(&store, "a").await;
    assert_eq!(claimed.stock.available(), 6);
    apply(&store, &[&claimed], vec![new(&held(&order(9, "nine", &[units("a", 6)])))]).await;
    assert_eq!(available(&store, "a").await, 0);
}

/// A store with 4,000 units of "a" on eight stripes, and its rows.
async fn eight_times_500(decide: impl Fn(&str, &str) -> Fate + Send + Sync + 'static) -> Striped {
    let (client, table, meter) = (client().await, table_name(), Meter::default());
    let store = store(&wired(&client, decide), &table, 8, &meter).await;
    store.create_table().await.expect("made");
    store.put_item(&pool("a", 4_000)).await.expect("put");
    Striped { client, table, store }
}

struct Striped {
    client: Client,
    table: String,
    store: Arc<DynamoStore>,
}

impl Striped {
    fn row(stripe: usize) -> [(String, AttributeValue); 2] {
        let pk = if stripe == 0 { "item a".to_owned() } else { format!("stripe {stripe} a") };
        [("pk".into(), AttributeValue::S(pk)), ("sk".into(), AttributeValue::S("shelf".into()))]
    }

    /// The units of each stripe.
    async fn spread(&self) -> Vec<u32> {
        let mut units = Vec::new();
        for stripe in 0..8 {
            let get = self.client.get_item().table_name(&self.table).consistent_read(true);
            let row = get.set_key(Some(Self::row(stripe).into())).send().await.expect("read");
            let row = row.item.expect("it is there");
            units.push(row["available"].as_n().expect("a number").parse().expect("units"));
        }
        units
    }

    /// Leaves all units on the last stripe.
    async fn gather(&self, units: u32) {
        for stripe in 0..8 {
            let units = if stripe == 7 { units } else { 0 };
            let set = self.client.update_item().table_name(&self.table);
            let set = set.set_key(Some(Self::row(stripe).into()));
            let set = set.update_expression("SET available = :units");
            let units = AttributeValue::N(units.to_string());
            set.expression_attribute_values(":units", units).send().await.expect("set");
        }
    }

    async fn sell(&self, claimed: &Claim, n: usize, quantity: u64) -> CommitOutcome {
        let order = held(&order(n, &format!("buyer-{n}"), &[units("a", quantity)]));
        let commit = commit(&[claimed], vec![new(&order)]);
        self.store.commit(&[commit]).await.expect("told").remove(0)
    }
}

#[tokio::test]
async fn after_an_order_larger_than_a_stripe_the_others_go_on_selling() {
    let writes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writes);
    let sale = eight_times_500(move |operation, body| {
        if operation == "TransactWriteItems" && body.contains(":was_revision") {
            count.fetch_add(body.matches(":was_revision\":").count(), Ordering::SeqCst);
        }
        Fate::Well
    })
    .await;
    let claimed = claim(&sale.store, "a").await;
    assert_eq!(sale.sell(&claimed, 1, 501).await, CommitOutcome::Applied);
    let spread = sale.spread().await;
    assert_eq!(spread.iter().sum::<u32>(), 3_499, "{spread:?}");
    assert!(spread.iter().all(|units| *units >= 200), "{spread:?}");
    let written = writes.load(Ordering::SeqCst);
    assert!(written <= 4, "three rows to bring a share, and one to sell it: {written}");
    // As many commits at once as there are stripes, each of a unit for a hundred.
    let commits = (0..8).map(|part| {
        let orders = (0..90).map(|n| new(&held(&single(1_000 + part * 100 + n, "a"))));
        commit(&[&claimed], orders.collect())
    });
    let outcomes = sale.store.commit(&commits.collect::<Vec<_>>()).await.expect("told");
    assert!(outcomes.iter().all(|o| *o == CommitOutcome::Applied), "{outcomes:?}");
    let spread = sale.spread().await;
    assert_eq!(spread.iter().sum::<u32>(), 3_499 - 8 * 90, "{spread:?}");
}

#[tokio::test]
async fn of_two_orders_larger_than_a_stripe_at_once_nothing_is_oversold() {
    let sale = eight_times_500(|_, _| Fate::Well).await;
    let mut sold = 0;
    for round in 0..4 {
        let claimed = claim(&sale.store, "a").await;
        let two = (0..2).map(|n| sale.sell(&claimed, round * 2 + n, 700));
        let outcomes = futures_util::future::join_all(two).await;
        for outcome in &outcomes {
            match outcome {
                CommitOutcome::Applied => sold += 700,
                other => assert!(matches!(other, CommitOutcome::Fenced(_)), "{outcomes:?}"),
            }
        }
        assert_eq!(sale.spread().await.iter().sum::<u32>(), 4_000 - sold);
    }
    assert_eq!(sold, 3_500, "five times 700, and not a sixth time");
}

#[tokio::test]
async fn an_order_larger_than_everything_is_refused_and_moves_nothing() {
    let sale = eight_times_500(|_, _| Fate::Well).await;
    let claimed = claim(&sale.store, "a").await;
    let orders = (0..5).map(|n| order(n, &format!("buyer-{n}"), &[units("a", 801)]));
    let commit = commit(&[&claimed], orders.map(|order| new(&held(&order))).collect());
    let outcome = sale.store.commit(&[commit]).await.expect("told");
    assert!(matches!(outcome[..], [CommitOutcome::Fenced(_)]), "{outcome:?}");
    assert_eq!(sale.spread().await, [500; 8]);
}

#[tokio::test]
async fn a_stock_that_was_left_on_one_stripe_is_spread_again() {
    let sale = eight_times_500(|_, _| Fate::Well).await;
    sale.gather(3_499).await;
    let claimed = claim(&sale.store, "a").await;
    let sell = |n: usize| commit(&[&claimed], vec![new(&held(&single(n, "a")))]);
    let commits: Vec<_> = (0..8).map(sell).collect();
    let outcomes = sale.store.commit(&commits).await.expect("told");
    assert!(outcomes.iter().all(|o| *o == CommitOutcome::Applied), "{outcomes:?}");
    let spread = sale.spread().await;
    assert_eq!(spread.iter().sum::<u32>(), 3_491, "{spread:?}");
    assert!(spread.iter().all(|units| *units >= 200), "{spread:?}");
}

#[tokio::test]
async fn a_claim_fences_every_stripe() {
    let (client, table, meter) = (client().await, table_name(), Meter::default());
    let old = store(&client, &table, 8, &meter).await;
    old.create_table().await.expect("made");
    old.put_item(&pool("a", 800)).await.expect("put");
    let before = claim(&old, "a").await;
    // Another process claims it: the first one remembers it as its own.
    let other = store(&client, &table, 8, &meter).await;
    claim(&other, "a").await;
    let commits: Vec<_> =
        (0..16).map(|n| commit(&[&before], vec![new(&held(&single(n, "a")))])).collect();
    let outcomes = old.commit(&commits).await.expect("told");
    assert!(outcomes.iter().all(|o| matches!(o, CommitOutcome::Fenced(_))), "{outcomes:?}");
    assert_eq!(available(&old, "a").await, 800);
}

#[tokio::test]
async fn a_claim_that_is_overtaken_halfway_begins_again() {
    let (well, table, meter) = (client().await, table_name(), Meter::default());
    let ((goes, gate), met) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&met);
    let slow = wired(&well, move |operation, body| {
        let is_first = || count.fetch_add(1, Ordering::SeqCst) == 0;
        match operation == "UpdateItem" && body.contains("stripe 1 a") && is_first() {
            true => Fate::Held(gate.clone()),
            false => Fate::Well,
        }
    });
    let quick = store(&well, &table, 3, &meter).await;
    quick.create_table().await.expect("made");
    quick.put_item(&pool("a", 90)).await.expect("put");
    let slow = store(&slow, &table, 3, &meter).await;
    let claiming = tokio::spawn({
        let slow = Arc::clone(&slow);
        async move { claim(&slow, "a").await }
    });
    while met.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let overtakes = claim(&quick, "a").await;
    goes.send(true).expect("the call waits");
    let last = claiming.await.expect("no panic");
    assert!(last.token > overtakes.token);
    let sell = |claim, n| commit(&[claim], vec![new(&held(&single(n, "a")))]);
    let commits: Vec<_> = (0..9).map(|n| sell(&last, n)).collect();
    let outcomes = slow.commit(&commits).await.expect("told");
    assert!(outcomes.iter().all(|o| *o == CommitOutcome::Applied), "{outcomes:?}");
    let outcomes = quick.commit(&[sell(&overtakes, 10)]).await.expect("told");
    assert!(matches!(outcomes[..], [CommitOutcome::Fenced(_)]), "{outcomes:?}");
}

/// Times the sale of all of one item with so much added to each call.
async fn time_to_sell(stripes: usize, orders: u64, added: Duration) -> Duration {
    let far = wired(&client().await, move |_, _| Fate::Slow(added));
    let sale = Arc::new(Sale::open(vec![far], stripes, &[pool("a", orders)]).await);
    let began = Instant::now();
    let mut buyers = JoinSet::new();
    for seed in 0..orders {
        // None of them pays.
        let number = seed * 3 + 1;
        buyers.spawn(Arc::clone(&sale).buy(number, format!("buyer-{seed}"), vec![units("a", 1)]));
    }
    while let Some(bought) = buyers.join_next().await {
        assert!(bought.expect("no panic").is_some());
    }
    let took = began.elapsed();
    assert_eq!(u64::from(owned(&sale.judge(Demand::CoversStock).await.orders, "a")), orders);
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_stripes_beside_one() {
    // The emulator writes one transaction after the other, so that stripes
    // save the time on the way and nothing else.
    for added in [5, 50] {
        let added = Duration::from_millis(added);
        let one = time_to_sell(1, 3_000, added).await;
        let eight = time_to_sell(8, 3_000, added).await;
        let ratio = one.as_secs_f64() / eight.as_secs_f64();
        println!("3,000 orders, {added:?} added: 1 stripe {one:?}, 8 {eight:?}: {ratio:.1}");
    }
}
