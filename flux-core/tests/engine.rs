//! The engine's calls as an application sees them, on the memory backend and
//! tokio's paused clock.

mod ill_store;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::memory::{MemoryBus, MemoryStore};
use flux_core::clock::TokioClock;
use flux_core::layers::{BrokenLocks, YesLocks};
use flux_core::seams::{CommitMax, OrderFilter, OutcomeBus, Outcomes};
use flux_core::{
    Backend, Error, Flux, ItemId, ItemSpec, Line, Order, OrderId, OrderRequest, OrderStatus,
    PaymentRef, Reason, Role, SeatState, Settings, Timestamp,
};
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use self::ill_store::{Fails, IllStore, Illness};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)))
}

fn engine(backend: &Backend) -> Flux {
    Flux::builder(backend.clone()).clock(clock()).start()
}

async fn sale(spec: ItemSpec) -> Result<Flux> {
    let flux = engine(&Backend::memory());
    flux.put_item(spec).await?;
    Ok(flux)
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn item(name: &str) -> ItemId {
    ItemId::new(name).expect("a name")
}

fn paid(name: &str) -> PaymentRef {
    PaymentRef::new(name).expect("a reference")
}

fn one(buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request")
}

/// One unit of each of `items`.
fn each(items: &[&str]) -> OrderRequest {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("a line")).collect();
    OrderRequest::builder().buyer("ann").lines(lines).build().expect("a request")
}

/// Places all requests at once.
async fn place_all(
    flux: &Flux,
    requests: impl IntoIterator<Item = OrderRequest>,
) -> Result<Vec<std::result::Result<Order, Error>>> {
    let place = |request| {
        let flux = flux.clone();
        tokio::spawn(async move { flux.place(request).await })
    };
    let calls: Vec<_> = requests.into_iter().map(place).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await?);
    }
    Ok(answers)
}

async fn numbers(flux: &Flux, name: &str) -> Result<[u32; 3]> {
    let item = flux.item(&item(name)).await?.expect("the item is there");
    Ok([item.available, item.held, item.sold])
}

async fn assert_sound(flux: &Flux) -> Result {
    let audit = flux.audit().await?;
    assert!(audit.is_clean(), "{audit}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_repeat_gets_the_first_answer_and_other_contents_are_refused() -> Result {
    let flux = sale(ItemSpec::pool("a", 1)?).await?;
    let held = flux.place(one("ann").with_id(id(1))).await?;
    assert_eq!(held.status(), OrderStatus::Held);
    // The gate is shut now, and a repeat gets the order all the same.
    assert_eq!(flux.place(one("ann").with_id(id(1))).await?, held);
    assert_eq!(flux.submit(one("ann").with_id(id(1))).await?, held);
    let other = flux.place(one("bob").with_id(id(1))).await;
    assert!(matches!(other, Err(Error::IdReused(reused)) if reused == id(1)));
    assert!(matches!(flux.place(one("bob")).await, Err(Error::SoldOut(_))));
    assert_eq!(flux.order(id(2)).await?, None);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn many_repeats_at_once_are_one_order() -> Result {
    let flux = sale(ItemSpec::pool("a", 100)?).await?;
    let answers = place_all(&flux, (0..200).map(|n| one("ann").with_id(id(n % 4)))).await?;
    let answers: Vec<Order> = answers.into_iter().collect::<std::result::Result<_, _>>()?;
    for answer in &answers {
        let mut same = answers.iter().filter(|other| other.id == answer.id);
        assert!(same.all(|other| other == answer));
    }
    assert_eq!(numbers(&flux, "a").await?, [96, 4, 0]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn a_repeat_takes_nothing_from_those_who_came_with_it() -> Result {
    let flux = sale(ItemSpec::pool("a", 2)?).await?;
    let first = flux.place(one("ann").with_id(id(1))).await?;
    // One unit is left, and the repeat is decided ahead of the newcomer.
    let answers = place_all(&flux, [one("ann").with_id(id(1)), one("bob")]).await?;
    let answers: Vec<Order> = answers.into_iter().collect::<std::result::Result<_, _>>()?;
    assert_eq!(answers[0], first);
    assert_eq!(answers[1].status(), OrderStatus::Held, "{:?}", answers[1]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn a_submitted_order_is_queued_then_decided() -> Result {
    let flux = sale(ItemSpec::pool("a", 1)?).await?;
    let queued = flux.submit(one("ann")).await?;
    assert_eq!(queued.status(), OrderStatus::Queued);
    assert!(flux.order(queued.id).await?.is_some());
    let decided = flux.wait(queued.id, Duration::from_secs(5)).await?;
    assert_eq!(decided.status(), OrderStatus::Held);
    assert!(decided.asks_the_same_as(&queued));
    let nobody = flux.wait(id(9), Duration::from_secs(5)).await;
    assert!(matches!(nobody, Err(Error::NotFound(_))));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_and_its_stock_is_sold_again_within_two_seconds() -> Result {
    let flux = sale(ItemSpec::builder().id("a").capacity(1).hold_seconds(60).build()?).await?;
    let first = flux.place(one("ann")).await?;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(matches!(flux.place(one("bob")).await, Err(Error::SoldOut(_))));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let expired = flux.order(first.id).await?.expect("remembered");
    assert_eq!(expired.status(), OrderStatus::Expired);
    let second = flux.place(one("bob")).await?;
    assert_eq!(second.status(), OrderStatus::Held);

    // Money for the first comes too late, and once.
    for _ in 0..2 {
        let late = flux.confirm(first.id, paid("p1")).await;
        assert!(matches!(late, Err(Error::RefundDue(order)) if order.id == first.id));
    }
    // And for the second in time, however often it is told.
    for _ in 0..2 {
        let confirmed = flux.confirm(second.id, paid("p2")).await?;
        assert_eq!(confirmed.status(), OrderStatus::Confirmed);
    }
    let other = flux.confirm(second.id, paid("p3")).await.expect_err("it is paid");
    assert!(other.to_string().contains("with payment p2"), "{other}");
    assert!(matches!(other, Error::AlreadyPaid(order) if order.id == second.id));
    assert_eq!(numbers(&flux, "a").await?, [0, 0, 1]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn a_late_payment_takes_the_stock_again_if_it_is_there() -> Result {
    let flux = sale(ItemSpec::builder().id("a").capacity(1).hold_seconds(1).build()?).await?;
    let order = flux.place(one("ann")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&flux, "a").await?, [1, 0, 0]);
    let confirmed = flux.confirm(order.id, paid("p1")).await?;
    assert_eq!(confirmed.status(), OrderStatus::Confirmed);
    assert_eq!(numbers(&flux, "a").await?, [0, 0, 1]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn a_late_payment_keeps_to_the_cap() -> Result {
    let spec = ItemSpec::builder().id("a").capacity(5).hold_seconds(1).max_per_buyer(1).build()?;
    let flux = sale(spec).await?;
    let first = flux.place(one("ann")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = flux.place(one("ann")).await?;
    assert_eq!(second.status(), OrderStatus::Held);
    assert!(matches!(flux.confirm(first.id, paid("p1")).await, Err(Error::RefundDue(_))));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn release_and_cancel_free_the_stock_once() -> Result {
    let flux = sale(ItemSpec::pool("a", 2)?).await?;
    let order = flux.place(one("ann")).await?;
    for _ in 0..2 {
        assert_eq!(flux.release(order.id).await?.status(), OrderStatus::Released);
    }
    assert_eq!(numbers(&flux, "a").await?, [2, 0, 0]);
    assert!(matches!(flux.confirm(order.id, paid("p")).await, Err(Error::NotHeld(_))));
    assert!(matches!(flux.cancel(order.id).await, Err(Error::NotConfirmed(_))));

    let order = flux.place(one("ann")).await?;
    flux.confirm(order.id, paid("p")).await?;
    assert!(matches!(flux.release(order.id).await, Err(Error::NotHeld(_))));
    for _ in 0..2 {
        assert_eq!(flux.cancel(order.id).await?.status(), OrderStatus::Cancelled);
    }
    assert_eq!(numbers(&flux, "a").await?, [2, 0, 0]);
    for unknown in [flux.release(id(7)).await, flux.cancel(id(7)).await] {
        assert!(matches!(unknown, Err(Error::NotFound(_))));
    }
    assert!(matches!(flux.confirm(id(7), paid("p")).await, Err(Error::NotFound(_))));
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_over_concurrent_orders() -> Result {
    let spec = ItemSpec::builder().id("a").capacity(100).max_per_buyer(2).build()?;
    let flux = sale(spec).await?;
    let mut held = 0;
    for answer in place_all(&flux, (0..10).map(|_| one("ann"))).await? {
        let order = answer?;
        match order.status() {
            OrderStatus::Held => held += 1,
            _ => assert_eq!(order.reason(), Some(Reason::BuyerLimit)),
        }
    }
    assert_eq!(held, 2);
    // A later batch learns it from the store.
    assert_eq!(flux.place(one("ann")).await?.reason(), Some(Reason::BuyerLimit));
    assert_eq!(flux.place(one("bob")).await?.status(), OrderStatus::Held);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn several_items_go_together_or_not_at_all() -> Result {
    let flux = sale(ItemSpec::pool("a", 3)?).await?;
    flux.put_item(ItemSpec::hall("hall", ["A1", "A2"])?).await?;
    let both = |buyer: &str, seat: &str| -> Result<OrderRequest> {
        let lines = vec![Line::units("a", 1)?, Line::seats("hall", [seat])?];
        Ok(OrderRequest::builder().buyer(buyer).lines(lines).build()?)
    };
    assert_eq!(flux.place(both("ann", "A1")?).await?.status(), OrderStatus::Held);
    assert_eq!(flux.place(both("bob", "A1")?).await?.reason(), Some(Reason::SeatTaken));
    assert_eq!(numbers(&flux, "a").await?, [2, 1, 0]);
    let wrong = flux.place(both("bob", "Z9")?).await;
    assert!(matches!(wrong, Err(Error::Invalid(error)) if error.field() == "seats"));
    let wrong = flux.place(OrderRequest::units("bob", "hall", 1)?).await;
    assert!(matches!(wrong, Err(Error::Invalid(error)) if error.field() == "quantity"));
    let unknown = flux.place(OrderRequest::units("bob", "nothing", 1)?).await;
    assert!(matches!(unknown, Err(Error::UnknownItem(_))));
    let seats = flux.seats(&item("hall")).await?.expect("a hall");
    let states: Vec<_> = seats.iter().map(|seat| seat.state).collect();
    assert_eq!(states, [SeatState::Taken, SeatState::Free]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn growing_opens_the_gate_and_shrinking_stops_at_what_is_taken() -> Result {
    let flux = sale(ItemSpec::pool("a", 1)?).await?;
    flux.place(one("ann")).await?;
    assert!(matches!(flux.place(one("bob")).await, Err(Error::SoldOut(_))));
    assert!(matches!(flux.put_item(ItemSpec::pool("a", 0)?).await, Err(Error::PutItem(_))));
    flux.put_item(ItemSpec::pool("a", 2)?).await?;
    assert_eq!(flux.place(one("bob")).await?.status(), OrderStatus::Held);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_on_is_refused_at_once() -> Result {
    let settings = Settings::builder().calls_max(8).batch_max(4).build();
    let flux = Flux::builder(Backend::memory()).clock(clock()).settings(settings).start();
    flux.put_item(ItemSpec::pool("a", 1_000)?).await?;
    let (mut held, mut refused) = (0, 0);
    for answer in place_all(&flux, (0..50).map(|_| one("ann"))).await? {
        match answer {
            Ok(_) => held += 1,
            Err(Error::Overloaded { retry_after }) => {
                assert!(!retry_after.is_zero());
                refused += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    assert!(held >= 8 && refused > 0, "{held} held, {refused} refused");
    assert_eq!(numbers(&flux, "a").await?, [1_000 - held, held, 0]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_outcomes_end_with_the_engine_and_not_before() -> Result {
    let backend = Backend::memory();
    let (flux, other) = (engine(&backend), engine(&backend));
    flux.put_item(ItemSpec::pool("a", 10)?).await?;
    let (mut outcomes, mut others) = (flux.subscribe(), other.subscribe());
    let mut placed = HashSet::new();
    for order in place_all(&flux, (0..5).map(|_| one("ann"))).await? {
        placed.insert(order?.id);
    }
    flux.shutdown().await;
    let last = other.place(one("bob")).await?.id;
    let mut told = HashSet::new();
    while let Ok(outcomes) = outcomes.recv().await {
        told.extend(outcomes.orders.iter().map(|order| order.id));
    }
    assert!(placed.is_subset(&told), "{placed:?}, of which told: {told:?}");
    assert_eq!(flux.subscribe().recv().await, Err(RecvError::Closed));

    drop(other);
    let mut told = HashSet::new();
    while let Ok(outcomes) = others.recv().await {
        told.extend(outcomes.orders.iter().map(|order| order.id));
    }
    assert!(told.contains(&last) && placed.is_subset(&told), "{told:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_what_was_asked_and_takes_nothing_more() -> Result {
    let flux = sale(ItemSpec::pool("a", 100)?).await?;
    let asking = tokio::spawn({
        let flux = flux.clone();
        async move { place_all(&flux, (0..50).map(|_| one("ann"))).await.expect("joined") }
    });
    tokio::task::yield_now().await;
    flux.shutdown().await;
    let mut held = 0;
    for answer in asking.await? {
        match answer {
            Ok(order) => held += u32::from(order.status() == OrderStatus::Held),
            Err(error) => assert!(matches!(error, Error::ShuttingDown)),
        }
    }
    assert!(matches!(flux.place(one("bob")).await, Err(Error::ShuttingDown)));
    assert!(matches!(flux.submit(one("bob")).await, Err(Error::ShuttingDown)));
    assert_eq!(numbers(&flux, "a").await?, [100 - held, held, 0]);
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn accepting_and_deciding_can_be_apart() -> Result {
    let backend = Backend::memory();
    let front = Flux::builder(backend.clone()).clock(clock()).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 1)?).await?;
    let waiting = tokio::spawn({
        let front = front.clone();
        async move { front.place(one("ann")).await }
    });
    let unheard = front.submit(one("bob").with_id(id(2))).await?;
    assert_eq!(unheard.status(), OrderStatus::Queued);
    let _worker = engine(&backend);
    let first = waiting.await??;
    let second = front.wait(id(2), Duration::from_secs(5)).await?;
    let mut both = [first.status(), second.status()];
    both.sort();
    assert_eq!(both, [OrderStatus::Held, OrderStatus::Rejected]);
    let winner = if first.status() == OrderStatus::Held { first } else { second };
    assert_eq!(front.release(winner.id).await?.status(), OrderStatus::Released);
    assert_sound(&front).await
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_news_has_those_who_wait_look_for_themselves() -> Result {
    let backend = Backend::memory();
    let bus = Arc::new(MemoryBus::default());
    let deaf = Backend { bus: bus.clone(), ..backend.clone() };
    let front = Flux::builder(deaf).clock(clock()).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 1)?).await?;
    front.submit(one("ann").with_id(id(1))).await?;
    let waiting = tokio::spawn({
        let front = front.clone();
        async move { front.wait(id(1), Duration::from_secs(60)).await }
    });
    // By now it looks every two seconds; the last time was at 9.1.
    tokio::time::sleep(Duration::from_millis(9_500)).await;
    let _worker = engine(&backend);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    let told = tokio::time::Instant::now();
    bus.publish(Arc::new(Outcomes::gap())).await?;
    assert_eq!(waiting.await??.status(), OrderStatus::Held);
    assert!(told.elapsed() < Duration::from_millis(100), "{:?}", told.elapsed());
    Ok(())
}

/// The lock makes it fast; the store makes it right.
async fn sell_with_three_engines(backend: Backend) -> Result {
    let settings = Settings::builder().tries_max(64).build();
    let start = || Flux::builder(backend.clone()).clock(clock()).settings(settings.clone()).start();
    let engines: Vec<Flux> = (0..3).map(|_| start()).collect();
    engines[0].put_item(ItemSpec::pool("a", 50)?).await?;
    engines[0].put_item(ItemSpec::pool("b", 30)?).await?;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..300 {
        let flux = engines[n % 3].clone();
        let request = if n % 5 == 0 { each(&["a", "b"]) } else { each(&["a"]) };
        calls.spawn(async move {
            if n % 2 == 0 { flux.place(request).await } else { flux.submit(request).await }
        });
    }
    while let Some(answer) = calls.join_next().await {
        match answer? {
            Ok(_) | Err(Error::SoldOut(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    while engines[0].depth().await?.waiting + engines[0].depth().await?.in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(numbers(&engines[0], "a").await?[0], 0, "nothing is stranded");
    assert_sound(&engines[0]).await
}

#[tokio::test(start_paused = true)]
async fn three_engines_sell_each_unit_once() -> Result {
    sell_with_three_engines(Backend::memory()).await
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_grants_everybody_everything_sells_each_unit_once() -> Result {
    let locks = Arc::new(YesLocks);
    sell_with_three_engines(Backend { locks, ..Backend::memory() }).await
}

#[tokio::test(start_paused = true)]
async fn without_a_lock_service_each_unit_is_sold_once() -> Result {
    let locks = Arc::new(BrokenLocks);
    sell_with_three_engines(Backend { locks, ..Backend::memory() }).await
}

#[tokio::test(start_paused = true)]
async fn small_atomic_writes_leave_nothing_over() -> Result {
    for side_by_side in [1, 2, 5] {
        sell_by_small_writes(side_by_side).await?;
    }
    Ok(())
}

/// In the order of their arrival, though several writes of one item are on their way.
#[tokio::test(start_paused = true)]
async fn a_crowd_for_one_item_is_served_by_several_small_writes_at_once() -> Result {
    for side_by_side in [1, 2, 5] {
        let small = CommitMax::builder().parts(7).bytes(2_000).side_by_side(side_by_side).build();
        let store = Arc::new(MemoryStore::with_commit_max(small));
        let flux = engine(&Backend { store, ..Backend::memory() });
        flux.put_item(ItemSpec::pool("a", 60)?).await?;
        let answers = place_all(&flux, (0..100).map(|_| one("ann"))).await?;
        for (at, answer) in answers.into_iter().enumerate() {
            let is_held = answer.is_ok_and(|order| order.status() == OrderStatus::Held);
            assert_eq!(is_held, at < 60, "the {at}th of a hundred for sixty, {side_by_side}");
        }
        assert_sound(&flux).await?;
    }
    Ok(())
}

async fn sell_by_small_writes(side_by_side: usize) -> Result {
    let small = CommitMax::builder().parts(7).bytes(2_000).side_by_side(side_by_side).build();
    let store = Arc::new(MemoryStore::with_commit_max(small));
    let backend = Backend { store, ..Backend::memory() };
    let flux = Flux::builder(backend).clock(clock()).start();
    flux.put_item(ItemSpec::pool("a", 10)?).await?;
    flux.put_item(ItemSpec::builder().id("b").capacity(10).max_per_buyer(1000).build()?).await?;
    let items: [&[&str]; 3] = [&["a"], &["b"], &["a", "b"]];
    for answer in place_all(&flux, (0..40).map(|n| each(items[n % 3]))).await? {
        match answer {
            Ok(_) | Err(Error::SoldOut(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    assert_eq!((numbers(&flux, "a").await?[0], numbers(&flux, "b").await?[0]), (0, 0));
    assert_sound(&flux).await
}

fn on_a_store_that_may_fall_ill() -> (Flux, Illness) {
    let backend = Backend::memory();
    let (store, illness) = IllStore::around(backend.store);
    (engine(&Backend { store, ..backend }), illness)
}

#[tokio::test(start_paused = true)]
async fn a_poison_message_is_given_up_with_its_reason_and_the_rest_goes_on() -> Result {
    let (flux, illness) = on_a_store_that_may_fall_ill();
    illness.of_order(id(1), Fails::Call);
    flux.put_item(ItemSpec::pool("a", 1_000)?).await?;
    flux.submit(one("ann").with_id(id(1))).await?;
    for n in 2..600 {
        flux.submit(one("bob").with_id(id(n))).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for n in 2..600 {
        let order = flux.wait(id(n), Duration::from_secs(60)).await?;
        assert_eq!(order.status(), OrderStatus::Held);
    }
    let dead = flux.dead_letters(10).await?;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].message.order_id(), id(1));
    assert!(dead[0].reason.contains("times"), "{}", dead[0].reason);
    assert_eq!(flux.redrive(10).await?, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_outage_gives_no_order_up() -> Result {
    let (flux, illness) = on_a_store_that_may_fall_ill();
    flux.put_item(ItemSpec::pool("a", 100)?).await?;
    illness.of_every_order(Fails::Call);
    for n in 1..50 {
        flux.submit(one("ann").with_id(id(n))).await?;
    }
    // A caller is told that it may have taken effect, for that is so.
    let asked = flux.place(one("bob").with_id(id(90))).await;
    assert!(matches!(asked, Err(Error::OutcomePending(_))), "{asked:?}");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    illness.heal();
    for n in 1..50 {
        let order = flux.wait(id(n), Duration::from_secs(120)).await?;
        assert_eq!(order.status(), OrderStatus::Held);
    }
    assert!(flux.dead_letters(10).await?.is_empty());
    assert_sound(&flux).await
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_poison_message_is_given_up_though_nothing_new_comes() -> Result {
    let (flux, illness) = on_a_store_that_may_fall_ill();
    // No hold ends meanwhile, which would be something that goes well as well.
    flux.put_item(ItemSpec::builder().id("a").capacity(100).hold_seconds(86_400).build()?).await?;
    illness.of_every_order(Fails::Call);
    for n in 1..10 {
        flux.submit(one("ann").with_id(id(n))).await?;
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    illness.of_order(id(1), Fails::Call);
    for n in 2..10 {
        let order = flux.wait(id(n), Duration::from_secs(120)).await?;
        assert_eq!(order.status(), OrderStatus::Held);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dead = flux.dead_letters(10).await?;
    assert_eq!(dead.iter().map(|letter| letter.message.order_id()).collect::<Vec<_>>(), [id(1)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn bounds_of_zero_and_endless_waits_do_no_harm() -> Result {
    let settings = Settings::builder()
        .batch_max(0)
        .deliveries_max(0)
        .tries_max(0)
        .sweep_every(Duration::MAX)
        .build();
    let flux = Flux::builder(Backend::memory()).clock(clock()).settings(settings).start();
    flux.put_item(ItemSpec::pool("a", 10)?).await?;
    assert_eq!(flux.place(one("ann")).await?.status(), OrderStatus::Held);
    let queued = flux.submit(one("ann")).await?;
    let decided = flux.wait(queued.id, Duration::MAX).await?;
    assert_eq!(decided.status(), OrderStatus::Held);
    tokio::join!(flux.shutdown(), flux.shutdown());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_an_end_outlasts_a_day() -> Result {
    let front = Flux::builder(Backend::memory()).role(Role::AcceptOnly).clock(clock()).start();
    front.put_item(ItemSpec::pool("a", 10)?).await?;
    let queued = front.submit(one("ann")).await?;
    let waiting = front.wait(queued.id, Duration::MAX);
    let longer = Duration::from_secs(36 * 3_600);
    assert!(tokio::time::timeout(longer, waiting).await.is_err(), "nobody decided it");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn seats_added_elsewhere_can_be_bought_here() -> Result {
    let backend = Backend::memory();
    let (here, elsewhere) = (engine(&backend), engine(&backend));
    here.put_item(ItemSpec::hall("hall", ["A1"])?).await?;
    here.place(OrderRequest::seats("ann", "hall", ["A1"])?).await?;
    elsewhere.put_item(ItemSpec::hall("hall", ["A1", "A2"])?).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let order = here.place(OrderRequest::seats("bob", "hall", ["A2"])?).await?;
    assert_eq!(order.status(), OrderStatus::Held);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_audit_says_what_there_is() -> Result {
    let flux = sale(ItemSpec::pool("a", 3)?).await?;
    flux.place(one("ann")).await?;
    let said = flux.audit().await?.to_string();
    assert_eq!(said, "1 item, 3 units, 2 available\n1 orders, 1 held\naudit: 0 faults");
    flux.put_item(ItemSpec::pool("b", 4)?).await?;
    let said = flux.audit().await?.to_string();
    assert!(said.starts_with("2 items, 7 units, 6 available\n"), "{said}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn orders_are_listed_by_buyer() -> Result {
    let flux = sale(ItemSpec::pool("a", 3)?).await?;
    for buyer in ["ann", "bob", "ann"] {
        flux.place(one(buyer)).await?;
    }
    let filter = OrderFilter::builder().buyer("ann".parse()?).build();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = flux.orders(&filter, after.as_ref(), 1).await?;
        assert!(page.orders.len() <= 1);
        found.extend(page.orders);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|order| order.buyer.as_str() == "ann"));
    Ok(())
}
