//! The rules about buyers: the suite of flux-core, what they cost, and processes that
//! are not of one mind about them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::conformance::{self, BUYER_RULES};
use flux_core::protocol::{CommitOutcome, Expect, OrderWrite};
use flux_core::seams::{ConfirmOutcome, InventoryStore, Payment};
use flux_core::{BuyerRules, Hold, Order, OrderState, OrderStatus, PaymentRef};

use crate::table::{
    LATER, NOW, apply, bill_of, claim, client, commit, held, id, new, order, pool, table_name,
    units,
};

async fn with_rules(table: &str, rules: BuyerRules, meter: &Meter) -> Arc<DynamoStore> {
    let client = client().await;
    let store = DynamoStore::builder().client(&client).table(table).buyer_rules(rules);
    let store = store.meter(meter.clone()).build();
    store.create_table().await.expect("the emulator makes tables");
    Arc::new(store)
}

async fn fresh(rules: BuyerRules) -> Arc<DynamoStore> {
    with_rules(&table_name(), rules, &Meter::default()).await
}

fn holds(max: u32) -> BuyerRules {
    BuyerRules::builder().maybe_holds_max(NonZeroU32::new(max)).build()
}

fn one(n: usize) -> Order {
    held(&order(n, "ann", &[units("a", 1)]))
}

fn ended(order: &Order) -> OrderWrite {
    let order = order.with_state(OrderState::Expired(Hold::between(NOW, LATER)));
    OrderWrite { order, expect: Expect::Status(OrderStatus::Held) }
}

fn barred(orders: &[usize]) -> CommitOutcome {
    let barred = orders.iter().map(|n| id(*n)).collect();
    CommitOutcome::Conflict { moved: vec![], over_cap: vec![], barred }
}

async fn write(store: &DynamoStore, writes: Vec<OrderWrite>) -> CommitOutcome {
    let claimed = claim(store, "a").await;
    store.commit(&[commit(&[&claimed], writes)]).await.expect("told").remove(0)
}

async fn pay(store: &DynamoStore, n: usize) {
    let payment = Payment::new(id(n), PaymentRef::new("p").expect("a name"), NOW);
    let paid = store.confirm(&[payment]).await.expect("paid");
    assert!(matches!(&paid[..], [ConfirmOutcome::Settled(_)]), "{paid:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_with_rules_keeps_them() {
    conformance::store_with_buyer_rules(|| fresh(BUYER_RULES)).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rule_that_nobody_breaks_changes_nothing_else() {
    let lax = BuyerRules::builder().holds_max(NonZeroU32::MAX).build();
    conformance::store(|| fresh(lax)).await.assert_clean();
}

#[tokio::test]
async fn as_many_orders_go_into_a_commit_as_the_store_says() {
    let store = fresh(BUYER_RULES).await;
    store.put_item(&pool("a", 1_000)).await.expect("put");
    let max = store.commit_max();
    let each = max.parts_per_order + max.parts_per_line;
    assert_eq!(each, 3, "its own row, its buyer's, and that of the pause");
    let full = (max.parts - 2) / each;
    let of = |n: usize| held(&order(n, &format!("buyer-{n}"), &[units("a", 1)]));
    apply(&store, &[&claim(&store, "a").await], (0..full).map(|n| new(&of(n))).collect()).await;
    let ends = (0..full).map(|n| ended(&of(n))).collect();
    apply(&store, &[&claim(&store, "a").await], ends).await;
}

#[tokio::test]
async fn what_is_held_before_the_rule_is_on_counts_for_nothing_and_makes_no_room() {
    let table = table_name();
    let before = with_rules(&table, BuyerRules::default(), &Meter::default()).await;
    before.put_item(&pool("a", 1_000)).await.expect("put");
    assert_eq!(
        write(&before, (1..=5).map(|n| new(&one(n))).collect()).await,
        CommitOutcome::Applied
    );
    let store = with_rules(&table, holds(2), &Meter::default()).await;
    let two = vec![new(&one(6)), new(&one(7))];
    assert_eq!(write(&store, two).await, CommitOutcome::Applied);
    assert_eq!(write(&store, vec![new(&one(8))]).await, barred(&[8]));
    // Of those from before one ends, one in the commit of a new order, one is paid.
    assert_eq!(write(&store, vec![ended(&one(1))]).await, CommitOutcome::Applied);
    assert_eq!(write(&store, vec![ended(&one(2)), new(&one(8))]).await, barred(&[8]));
    pay(&store, 3).await;
    assert_eq!(write(&store, vec![new(&one(8))]).await, barred(&[8]));
    // And of those that are counted.
    pay(&store, 6).await;
    assert_eq!(write(&store, vec![new(&one(8)), new(&one(9))]).await, barred(&[9]));
    assert_eq!(write(&store, vec![ended(&one(7)), new(&one(8)), new(&one(9))]).await, {
        CommitOutcome::Applied
    });
    assert_eq!(write(&store, vec![new(&one(10))]).await, barred(&[10]));
}

#[tokio::test]
async fn a_process_without_the_rule_leaves_nobody_barred_for_ever() {
    let table = table_name();
    let first = with_rules(&table, holds(2), &Meter::default()).await;
    first.put_item(&pool("a", 1_000)).await.expect("put");
    let two = vec![new(&one(1)), new(&one(2))];
    assert_eq!(write(&first, two).await, CommitOutcome::Applied);
    // It ends what is counted, by a payment and by a commit.
    let without = with_rules(&table, BuyerRules::default(), &Meter::default()).await;
    assert_eq!(write(&without, vec![ended(&one(1))]).await, CommitOutcome::Applied);
    pay(&without, 2).await;
    let without = with_rules(&table, BuyerRules::default(), &Meter::default()).await;
    assert_eq!(write(&without, vec![new(&one(3))]).await, CommitOutcome::Applied);
    pay(&without, 3).await;
    // Back to the rule, the count begins anew.
    let again = with_rules(&table, holds(2), &Meter::default()).await;
    let two = vec![new(&one(4)), new(&one(5))];
    assert_eq!(write(&again, two).await, CommitOutcome::Applied);
    assert_eq!(write(&again, vec![new(&one(6))]).await, barred(&[6]));
}

#[tokio::test]
async fn a_shorter_pause_does_not_replace_a_longer_one() {
    let rules = BuyerRules::builder().hold_again_after(Duration::from_secs(60)).build();
    let store = fresh(rules).await;
    store.put_item(&pool("a", 1_000)).await.expect("put");
    let both = vec![new(&one(1)), new(&one(2))];
    assert_eq!(write(&store, both).await, CommitOutcome::Applied);
    assert_eq!(write(&store, vec![ended(&one(1))]).await, CommitOutcome::Applied);
    let early = Hold::between(NOW, NOW + Duration::from_secs(1));
    let released = one(2).with_state(OrderState::Released(early));
    let released = OrderWrite { order: released, expect: Expect::Status(OrderStatus::Held) };
    assert_eq!(write(&store, vec![released]).await, CommitOutcome::Applied);
    let at = |n, decided_at| {
        let hold = Hold::between(decided_at, decided_at + Duration::from_secs(600));
        new(&one(n).with_state(OrderState::Held(hold)))
    };
    let just_before = LATER + Duration::from_millis(59_999);
    assert_eq!(write(&store, vec![at(3, just_before)]).await, barred(&[3]));
    let over = LATER + Duration::from_secs(60);
    assert_eq!(write(&store, vec![at(3, over)]).await, CommitOutcome::Applied);
}

/// The figures of `design.md`: `cargo test … hoarding -- --nocapture`.
#[tokio::test]
async fn the_cost_of_the_rules() {
    for (what, rules, hold_max, confirm_max) in [
        ("off", BuyerRules::default(), 5.5, 2.0),
        ("holds", holds(2), 7.5, 8.0),
        ("both", BUYER_RULES, 9.5, 8.0),
    ] {
        let meter = Meter::default();
        let store = with_rules(&table_name(), rules, &meter).await;
        store.put_item(&pool("a", 1_000)).await.expect("put");
        let claimed = claim(&store, "a").await;
        let of = |n: usize| held(&order(n, &format!("buyer-{n}"), &[units("a", 1)]));
        apply(&store, &[&claimed], vec![new(&of(0))]).await;
        let held = async {
            for n in 1..=20 {
                apply(&store, &[&claimed], vec![new(&of(n))]).await;
            }
        };
        let ((), bill) = bill_of(&meter, held).await;
        let each = bill.write_units / 20.0;
        let ((), bill) = bill_of(&meter, pay(&store, 1)).await;
        println!("{what}: held {each:.2} write units, confirm {:.2}", bill.write_units);
        assert!(each <= hold_max && bill.write_units <= confirm_max, "{what}: {each} {bill:?}");
    }
}

#[tokio::test]
async fn a_process_without_the_rule_that_only_commits_leaves_nobody_barred_either() {
    let table = table_name();
    let first = with_rules(&table, holds(1), &Meter::default()).await;
    first.put_item(&pool("a", 1_000)).await.expect("put");
    assert_eq!(write(&first, vec![new(&one(1))]).await, CommitOutcome::Applied);
    let without = with_rules(&table, BuyerRules::default(), &Meter::default()).await;
    assert_eq!(write(&without, vec![ended(&one(1))]).await, CommitOutcome::Applied);
    let again = with_rules(&table, holds(1), &Meter::default()).await;
    assert_eq!(write(&again, vec![new(&one(2))]).await, CommitOutcome::Applied);
    assert_eq!(write(&again, vec![new(&one(3))]).await, barred(&[3]));
}

#[tokio::test]
async fn more_ends_than_a_count_has_make_no_room_for_more() {
    let (table, client) = (table_name(), client().await);
    let store = with_rules(&table, holds(2), &Meter::default()).await;
    store.put_item(&pool("a", 1_000)).await.expect("put");
    let two = vec![new(&one(1)), new(&one(2))];
    assert_eq!(write(&store, two).await, CommitOutcome::Applied);
    // DynamoDB deletes the count of a buyer who long holds nothing new.
    let rows = client.scan().table_name(&table).consistent_read(true).send().await;
    let mut rows = rows.expect("read").items.expect("rows").into_iter();
    let count = rows.find(|row| row.contains_key("holds")).expect("the buyer's count");
    let key = ["pk", "sk"].map(|name| (name.to_owned(), count[name].clone()));
    let delete = client.delete_item().table_name(&table).set_key(Some(key.into()));
    delete.send().await.expect("deleted");
    assert_eq!(write(&store, vec![new(&one(3))]).await, CommitOutcome::Applied);
    let two = vec![ended(&one(1)), ended(&one(2))];
    assert_eq!(write(&store, two).await, CommitOutcome::Applied);
    assert_eq!(write(&store, vec![new(&one(4))]).await, CommitOutcome::Applied);
    assert_eq!(write(&store, vec![new(&one(5))]).await, barred(&[5]), "it holds two");
}
