//! Commits that are refused because of some of their orders: the others are decided
//! again at once, and as if these had never been among them.

mod ill_store;
mod troubles;

use std::sync::Arc;
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::layers::{Operation, YesLocks};
use flux_core::protocol::{Commit, CommitOutcome, Message, Verdict, View};
use flux_core::seams::{CommitMax, InventoryStore};
use flux_core::{
    Backend, BuyerId, Flux, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderRequest,
    OrderStatus, Timestamp,
};
use tokio::time::sleep;
use uuid::Uuid;

use self::ill_store::IllStore;
use self::troubles::Troubles;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn engine(backend: &Backend) -> Flux {
    Flux::builder(backend.clone()).clock(Arc::new(TokioClock::starting_at(START))).start()
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

/// An order for a unit, as another process sent it.
fn sent(n: u128) -> Message {
    let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
    let buyer = BuyerId::new(format!("buyer-{n}")).expect("a name");
    Message::Place(Order::queued(id(n), buyer, lines, TokioClock::starting_at(START).now()))
}

fn one(n: u128) -> Result<OrderRequest> {
    Ok(OrderRequest::units(format!("buyer-{n}").as_str(), "a", 1)?.with_id(id(n)))
}

/// The bounds of one commit: none, and those of DynamoDB.
fn bounds() -> [CommitMax; 2] {
    let bounded = CommitMax::builder().parts(100).bytes(2_500_000).side_by_side(16).build();
    [CommitMax::UNLIMITED, bounded]
}

/// Fifty orders come together for the 49 units that are left, and one of them is a
/// repeat: on the first try it takes the last unit from one of the others.
#[tokio::test(start_paused = true)]
async fn a_repeat_costs_those_it_came_with_one_more_write_and_nobody_a_unit() -> Result {
    for max in bounds() {
        let (well, troubles) = (Backend::memory(), Troubles::default());
        let before = engine(&well);
        before.put_item(ItemSpec::pool("a", 50)?).await?;
        before.place(one(7)?).await?;
        before.shutdown().await;

        let (store, _) = IllStore::bounded(Arc::clone(&well.store), max);
        let flux = engine(&Backend { store, ..well.clone() }.layered(troubles.clone()));
        let calls = || {
            let calls = [Operation::Claim, Operation::Commit, Operation::Orders];
            calls.map(|operation| troubles.calls(operation))
        };
        let all: Vec<Message> = (1..=50).map(sent).collect();
        well.queue.send(&all).await?;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(calls(), [1, 2, 1], "claims, commits and reads");
        for n in 1..=50 {
            let order = flux.order(id(n)).await?.expect("it was sent");
            assert_eq!(order.status(), OrderStatus::Held, "{order:?}");
        }
        let depth = flux.depth().await?;
        assert_eq!((depth.waiting, depth.in_flight, depth.dead), (0, 0, 0));
        assert!(flux.audit().await?.is_clean());
    }
    Ok(())
}

/// Takes the item over, and releases an order.
async fn release_elsewhere(store: Arc<dyn InventoryStore>, order: OrderId) {
    let item = ItemId::new("a").expect("a name");
    let found = store.orders(&[order]).await.expect("it answers").remove(0).expect("it is held");
    let claim = store.claim(&[item]).await.expect("it answers").remove(0).expect("it is there");
    let claims = vec![(claim.spec.id.clone(), claim.token)];
    let mut view = View::default();
    view.insert(claim);
    let Verdict::Write(write) = view.decide(&Message::Release(order), Some(&found), START) else {
        panic!("a hold is released");
    };
    let outcomes = store.commit(&[Commit { claims, writes: vec![write] }]).await;
    assert_eq!(outcomes.expect("it answers"), [CommitOutcome::Applied]);
}

/// A commit is refused for a buyer's cap. Before the worker decides again, another, whom
/// the lock manager granted the same item, takes it and gives the buyer's unit back.
#[tokio::test(start_paused = true)]
async fn a_buyer_is_over_the_cap_only_as_long_as_nobody_else_had_the_item() -> Result {
    for max in bounds() {
        let well = Backend::memory();
        let before = engine(&well);
        let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(1).build()?;
        before.put_item(capped).await?;
        before.place(one(7)?).await?;
        before.shutdown().await;

        let (store, illness) = IllStore::bounded(Arc::clone(&well.store), max);
        let flux = engine(&Backend { store, locks: Arc::new(YesLocks), ..well.clone() });
        let elsewhere = Arc::clone(&well.store);
        illness.of_a_meddler(move || release_elsewhere(elsewhere, id(7)));
        let again = flux.place(OrderRequest::units("buyer-7", "a", 1)?).await?;
        assert_eq!(again.status(), OrderStatus::Held, "{again:?}");
        assert!(flux.audit().await?.is_clean());
    }
    Ok(())
}

/// Two holds are given back beside orders of buyers who have all that they may: the commit
/// is refused for these, once, and nobody waits.
#[tokio::test(start_paused = true)]
async fn what_is_given_back_beside_a_buyer_over_the_cap_is_given_back_at_once() -> Result {
    for max in bounds() {
        let (well, troubles) = (Backend::memory(), Troubles::default());
        let before = engine(&well);
        let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(1).build()?;
        before.put_item(capped).await?;
        for n in 1..=4 {
            before.place(one(n)?).await?;
        }
        before.shutdown().await;

        let (store, _) = IllStore::bounded(Arc::clone(&well.store), max);
        let flux = engine(&Backend { store, ..well.clone() }.layered(troubles.clone()));
        let over = |n| {
            let order = sent(n).order_id();
            let lines = Lines::new(vec![Line::units("a", 1)?])?;
            let buyer = BuyerId::new(format!("buyer-{}", n - 10))?;
            let at = TokioClock::starting_at(START).now();
            Ok::<_, Box<dyn std::error::Error>>(Message::Place(Order::queued(
                order, buyer, lines, at,
            )))
        };
        well.queue
            .send(&[Message::Release(id(1)), Message::Release(id(2)), over(13)?, over(14)?])
            .await?;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(troubles.calls(Operation::Commit), 2, "one is refused");
        let mut found = Vec::new();
        for n in [1, 2, 3, 4, 13, 14] {
            found.push(flux.order(id(n)).await?.expect("it was sent").status());
        }
        let [held, released, rejected] =
            [OrderStatus::Held, OrderStatus::Released, OrderStatus::Rejected];
        assert_eq!(found, [released, released, held, held, rejected, rejected]);
        assert!(flux.audit().await?.is_clean());
    }
    Ok(())
}
