//! Orders placed within a time, and under a known id.

use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::memory::MemoryBus;
use flux_core::clock::{Clock, TokioClock};
use flux_core::layers::Operation;
use flux_core::{
    Backend, Error, Flux, ItemId, ItemSpec, OrderFilter, OrderId, OrderRequest, OrderStatus, Role,
    Settings, Timestamp,
};
use uuid::Uuid;

mod troubles;

use troubles::{Trouble, Troubles};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn one(buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request")
}

async fn sale(capacity: u64) -> Result<(Flux, Troubles)> {
    let troubles = Troubles::default();
    let flux = Flux::builder(Backend::memory().layered(troubles.clone())).start();
    flux.put_item(ItemSpec::pool("a", capacity)?).await?;
    Ok((flux, troubles))
}

async fn assert_sold(flux: &Flux, taken: u32) -> Result {
    let item = flux.item(&ItemId::new("a")?).await?.expect("the item is there");
    assert_eq!(item.held + item.sold, taken);
    let audit = flux.audit().await?;
    assert!(audit.is_clean(), "{audit}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_order_is_decided_if_there_is_time_and_queued_if_there_is_none() -> Result {
    let (flux, troubles) = sale(1).await?;
    troubles.set(Operation::Commit, Trouble::Slow(SECOND));
    let held = flux.place_within(one("ann"), 2 * SECOND).await?;
    assert_eq!(held.status(), OrderStatus::Held);
    assert!(matches!(flux.place_within(one("bob"), SECOND).await, Err(Error::SoldOut(_))));

    let (flux, _) = sale(1).await?;
    let queued = flux.place_within(one("ann"), Duration::ZERO).await?;
    assert_eq!(queued.status(), OrderStatus::Queued);
    assert_eq!(flux.wait(queued.id, MINUTE).await?.status(), OrderStatus::Held);
    assert_sold(&flux, 1).await
}

#[tokio::test(start_paused = true)]
async fn an_order_that_takes_too_long_is_queued_and_decided_once() -> Result {
    let (flux, troubles) = sale(5).await?;
    troubles.set(Operation::Commit, Trouble::Slow(10 * SECOND));
    for request in [one("ann"), one("bob").with_id(id(1))] {
        let queued = flux.place_within(request.clone(), SECOND).await?;
        assert_eq!(queued.status(), OrderStatus::Queued);
        assert!(flux.order(queued.id).await?.is_some(), "it is in the queue");
        let decided = flux.wait(queued.id, MINUTE).await?;
        assert_eq!(decided.status(), OrderStatus::Held);
        let again = flux.place_within(request.with_id(queued.id), MINUTE).await?;
        assert_eq!(again, decided);
    }
    assert_sold(&flux, 2).await
}

#[tokio::test(start_paused = true)]
async fn nothing_was_accepted_is_not_said_of_an_order_the_worker_has() -> Result {
    let (flux, troubles) = sale(1).await?;
    troubles.set(Operation::Commit, Trouble::Slow(10 * SECOND));
    troubles.set(Operation::Send, Trouble::Away(Duration::ZERO));
    let request = one("ann").with_id(id(1));
    let unsettled = flux.place_within(request.clone(), SECOND).await;
    assert!(
        matches!(unsettled, Err(Error::OutcomePending(order)) if order == id(1)),
        "{unsettled:?}"
    );

    // It was decided all the same, and the repeat hears of it.
    troubles.clear();
    let decided = flux.place_within(request, MINUTE).await?;
    assert_eq!(decided.status(), OrderStatus::Held);
    assert_sold(&flux, 1).await
}

#[tokio::test(start_paused = true)]
async fn an_order_decided_while_it_is_queued_as_well_is_told_so() -> Result {
    // The queue takes its time and then fails; the worker is faster.
    let slow = (Operation::Find, Trouble::Slow(5 * SECOND));
    for queue in [slow, (Operation::Send, Trouble::Away(5 * SECOND))] {
        let (flux, troubles) = sale(1).await?;
        troubles.set(Operation::Commit, Trouble::Slow(2 * SECOND));
        troubles.set(Operation::Send, Trouble::Away(Duration::ZERO));
        troubles.set(queue.0, queue.1);
        let decided = flux.place_within(one("ann"), SECOND).await?;
        assert_eq!(decided.status(), OrderStatus::Held);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_worker_elsewhere_is_waited_for() -> Result {
    let backend = Backend::memory();
    let front = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 5)?).await?;
    let queued = front.place_within(one("ann").with_id(id(1)), SECOND).await?;
    assert_eq!(queued.status(), OrderStatus::Queued);

    let waiting = tokio::spawn({
        let front = front.clone();
        async move { front.place_within(one("ann").with_id(id(1)), MINUTE).await }
    });
    let worker = Flux::builder(backend).start();
    assert_eq!(waiting.await??.status(), OrderStatus::Held);
    assert_eq!(front.place_within(one("bob"), MINUTE).await?.status(), OrderStatus::Held);
    let reused = front.place_within(one("bob").with_id(id(1)), MINUTE).await;
    assert!(matches!(reused, Err(Error::IdReused(_))));
    assert_sold(&worker, 2).await
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_answered_whatever_became_of_its_item() -> Result {
    let flux = Flux::builder(Backend::memory()).start();
    flux.put_item(ItemSpec::hall("hall", ["A1", "A2"])?).await?;
    let request = OrderRequest::seats("ann", "hall", ["A2"])?.with_id(id(1));
    flux.place(request.clone()).await?;
    let released = flux.release(id(1)).await?;
    flux.put_item(ItemSpec::hall("hall", ["A1"])?).await?;

    assert_eq!(flux.place(request.clone()).await?, released);
    assert_eq!(flux.submit(request.clone()).await?, released);
    assert_eq!(flux.place_within(request.clone(), SECOND).await?, released);
    let mut other = request.clone();
    other.buyer = OrderRequest::seats("bob", "hall", ["A2"])?.buyer;
    assert!(matches!(flux.submit(other).await, Err(Error::IdReused(_))));
    assert!(matches!(flux.submit(request.with_id(id(2))).await, Err(Error::Invalid(_))));
    let nowhere = OrderRequest::units("ann", "b", 1)?;
    let reused = flux.place(nowhere.clone().with_id(id(1))).await;
    assert!(matches!(reused, Err(Error::IdReused(_))));
    assert!(matches!(flux.place(nowhere.with_id(id(3))).await, Err(Error::UnknownItem(_))));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_missed_a_return_opens_within_a_second() -> Result {
    let backend = Backend::memory();
    // A bus of its own: nothing that the other engine does is heard here.
    let apart = Backend { bus: Arc::new(MemoryBus::default()), ..backend.clone() };
    let (deaf, other) = (Flux::builder(backend).start(), Flux::builder(apart).start());
    deaf.put_item(ItemSpec::pool("a", 1)?).await?;
    let held = deaf.place(one("ann")).await?;
    let shut = deaf.place(one("bob")).await;
    assert!(matches!(shut, Err(Error::SoldOut(_))), "{shut:?}");
    other.release(held.id).await?;
    tokio::time::sleep(SECOND).await;
    let open = deaf.place(one("bob")).await?;
    assert_eq!(open.status(), OrderStatus::Held);
    Ok(())
}

/// Two engines on one backend, one of which hears nothing that the other does.
fn deaf_and_other(backend: Backend, clock: &Arc<TokioClock>) -> (Flux, Flux) {
    let apart = Backend { bus: Arc::new(MemoryBus::default()), ..backend.clone() };
    let start = |backend| Flux::builder(backend).clock(Arc::clone(clock) as Arc<dyn Clock>).start();
    (start(backend), start(apart))
}

fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)))
}

#[tokio::test(start_paused = true)]
async fn the_gate_tells_what_it_can_tell_and_nothing_is_recorded() -> Result {
    let clock = clock();
    let flux = Flux::builder(Backend::memory()).clock(clock.clone()).start();
    let (opens, closes) = (clock.now() + SECOND, clock.now() + MINUTE);
    let spec = ItemSpec::builder().id("a").capacity(3).opens_at(opens).closes_at(closes);
    flux.put_item(spec.build()?).await?;
    flux.put_item(ItemSpec::pool("none", 0)?).await?;

    let request = one("ann").with_id(id(1));
    let early = flux.place(request.clone()).await;
    assert!(matches!(&early, Err(Error::NotOpen(item)) if item.as_str() == "a"), "{early:?}");
    let both = OrderRequest::builder()
        .buyer("ann")
        .lines(vec![flux_core::Line::units("none", 1)?, flux_core::Line::units("a", 1)?]);
    let both = both.build()?;
    let early = flux.submit(both.clone()).await;
    assert!(matches!(early, Err(Error::NotOpen(_))), "the time comes first: {early:?}");

    tokio::time::sleep(SECOND).await;
    let much = flux.place(OrderRequest::units("ann", "a", 4)?).await;
    assert!(matches!(much, Err(Error::SoldOut(_))), "three are left: {much:?}");
    assert!(matches!(flux.place(both).await, Err(Error::SoldOut(_))));
    assert_eq!(flux.place(request.clone()).await?.status(), OrderStatus::Held);

    tokio::time::sleep(MINUTE).await;
    let late = flux.place_within(one("bob"), SECOND).await;
    assert!(matches!(&late, Err(Error::Closed(item)) if item.as_str() == "a"), "{late:?}");
    assert_eq!(flux.place(request).await?.id, id(1), "a repeat is told of its order");
    let orders = flux.orders(&OrderFilter::default(), None, 9).await?.orders;
    assert_eq!(orders.len(), 1, "{orders:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_missed_a_new_definition_opens_within_a_second() -> Result {
    let clock = clock();
    let (deaf, other) = deaf_and_other(Backend::memory(), &clock);
    let spec = |id| ItemSpec::builder().id(id).capacity(9);
    deaf.put_item(spec("a").opens_at(clock.now() + MINUTE).build()?).await?;
    deaf.put_item(spec("b").closes_at(clock.now()).build()?).await?;
    let b = || OrderRequest::units("ann", "b", 1).expect("a request");
    for _ in 0..2 {
        assert!(matches!(deaf.place(one("ann")).await, Err(Error::NotOpen(_))));
        assert!(matches!(deaf.place(b()).await, Err(Error::Closed(_))));
        other.put_item(spec("a").opens_at(clock.now() + SECOND).build()?).await?;
        other.put_item(spec("b").build()?).await?;
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(deaf.place(one("ann")).await?.status(), OrderStatus::Held);
    assert_eq!(deaf.place(b()).await?.status(), OrderStatus::Held);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_missed_that_more_is_left_opens_within_a_second() -> Result {
    let (deaf, other) = deaf_and_other(Backend::memory(), &clock());
    deaf.put_item(ItemSpec::pool("a", 2)?).await?;
    let held = deaf.place(one("ann")).await?;
    let two = || OrderRequest::units("bob", "a", 2).expect("a request");
    assert!(matches!(deaf.place(two()).await, Err(Error::SoldOut(_))));
    other.release(held.id).await?;
    tokio::time::sleep(SECOND).await;
    assert_eq!(deaf.place(two()).await?.status(), OrderStatus::Held);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_the_gate_costs_one_read_a_second() -> Result {
    let (flux, troubles) = sale(1).await?;
    troubles.set(Operation::Stock, Trouble::Slow(SECOND / 10));
    let before = troubles.calls(Operation::Stock);
    for second in 1..=5 {
        tokio::time::sleep(SECOND).await;
        let crowd = (0..500).map(|_| {
            let flux = flux.clone();
            let two = OrderRequest::units("ann", "a", 2).expect("a request");
            tokio::spawn(async move { flux.place(two).await })
        });
        for told in crowd.collect::<Vec<_>>() {
            assert!(matches!(told.await?, Err(Error::SoldOut(_))));
        }
        assert_eq!(troubles.calls(Operation::Stock) - before, second);
    }
    // Nor does each try in vain when the store is away.
    troubles.set(Operation::Stock, Trouble::Away(SECOND / 10));
    tokio::time::sleep(SECOND).await;
    let began = tokio::time::Instant::now();
    let two = || OrderRequest::units("ann", "a", 2).expect("a request");
    let (one, other, third) = tokio::join!(flux.place(two()), flux.place(two()), flux.place(two()));
    assert!(matches!(one, Err(Error::Backend(_))), "{one:?}");
    for told in [other, third] {
        assert!(matches!(told, Err(Error::SoldOut(_))), "{told:?}");
    }
    assert_eq!(began.elapsed(), SECOND / 10);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_so_many_orders_are_waited_for_and_any_number_of_calls_for_each() -> Result {
    let settings = Settings::builder().outcome_waits_max(2).build();
    let backend = Backend::memory();
    let front = Flux::builder(backend.clone()).role(Role::AcceptOnly).settings(settings).start();
    front.put_item(ItemSpec::pool("a", 9)?).await?;
    let place = |n| {
        let front = front.clone();
        tokio::spawn(async move { front.place(one("ann").with_id(id(n))).await })
    };
    let waiting = [place(1), place(2), place(1), place(2)];
    tokio::time::sleep(SECOND / 2).await;
    let refused = front.place(one("ann").with_id(id(3))).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
    assert_eq!(front.depth().await?.waiting, 2, "what is refused is not accepted");

    let worker = Flux::builder(backend).start();
    for call in waiting {
        assert_eq!(call.await??.status(), OrderStatus::Held);
    }
    let next = front.place(one("ann").with_id(id(3))).await?;
    assert_eq!(next.status(), OrderStatus::Held);
    assert_sold(&worker, 3).await
}

#[tokio::test(start_paused = true)]
async fn an_order_costs_a_write_and_no_look_and_its_end_one_of_each() -> Result {
    let troubles = Troubles::default();
    let backend = Backend::memory().layered(troubles.clone());
    let flux = Flux::builder(backend).clock(clock()).start();
    flux.put_item(ItemSpec::builder().id("a").capacity(5).hold_seconds(1).build()?).await?;
    flux.place(one("ann")).await?;
    let costs = || {
        let calls = [Operation::Commit, Operation::Orders, Operation::Known];
        calls.map(|operation| troubles.calls(operation))
    };
    assert_eq!(costs(), [1, 0, 0]);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(costs(), [2, 1, 0]);
    assert_sold(&flux, 0).await
}

#[tokio::test(start_paused = true)]
async fn the_depth_counts_the_calls_that_wait_for_the_worker() -> Result {
    let (flux, troubles) = sale(9).await?;
    flux.submit(one("ann")).await?;
    tokio::time::sleep(SECOND).await;
    troubles.set(Operation::Commit, Trouble::Slow(10 * SECOND));
    let place = |buyer| {
        let flux = flux.clone();
        tokio::spawn(async move { flux.place(one(buyer)).await })
    };
    let mut calls = vec![place("ann")];
    tokio::time::sleep(SECOND).await;
    calls.extend([place("bob"), place("cyd")]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(flux.depth().await?.waiting, 2, "one is being decided");
    for call in calls {
        assert_eq!(call.await??.status(), OrderStatus::Held);
    }
    assert_eq!(flux.depth().await?.waiting, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_order_that_can_not_be_read_ends_in_time() -> Result {
    let troubles = Troubles::default();
    let backend = Backend::memory().layered(troubles.clone());
    let front = Flux::builder(backend).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 9)?).await?;
    let queued = front.submit(one("ann")).await?;
    troubles.set(Operation::Known, Trouble::Away(SECOND / 10));
    let start = tokio::time::Instant::now();
    let waited = tokio::time::timeout(MINUTE, front.wait(queued.id, 5 * SECOND)).await?;
    assert!(matches!(waited, Err(Error::Backend(_))), "{waited:?}");
    let took = start.elapsed();
    assert!((5 * SECOND..6 * SECOND).contains(&took), "{took:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_queued_order_is_released_once_it_is_decided() -> Result {
    let backend = Backend::memory();
    let front = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 5)?).await?;
    let queued = front.submit(one("ann")).await?;
    let released = front.release(queued.id).await;
    assert!(
        matches!(released, Err(Error::OutcomePending(order)) if order == queued.id),
        "{released:?}"
    );
    let releasing = tokio::spawn({
        let front = front.clone();
        async move { front.release(queued.id).await }
    });
    tokio::time::sleep(SECOND).await;
    let worker = Flux::builder(backend).start();
    assert_eq!(releasing.await??.status(), OrderStatus::Released);
    assert_sold(&worker, 0).await
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_busy_worker_are_answered_before_it_stops() -> Result {
    // What the worker sees first, the calls or the end, is left to chance.
    for _ in 0..20 {
        let (flux, troubles) = sale(9).await?;
        troubles.set(Operation::Commit, Trouble::Slow(10 * SECOND));
        let place = |buyer| {
            let flux = flux.clone();
            tokio::spawn(async move { flux.place(one(buyer)).await })
        };
        let mut calls = vec![place("ann")];
        tokio::time::sleep(SECOND).await;
        calls.extend([place("bob"), place("cyd")]);
        tokio::time::sleep(SECOND).await;
        flux.shutdown().await;
        for call in calls {
            assert_eq!(call.await??.status(), OrderStatus::Held);
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_order_that_was_never_accepted() -> Result {
    let (flux, _) = sale(5).await?;
    let start = tokio::time::Instant::now();
    let waited = flux.wait(id(1), MINUTE).await;
    assert!(matches!(waited, Err(Error::NotFound(_))), "{waited:?}");
    assert!(start.elapsed() < SECOND);
    Ok(())
}
