//! Orders placed within a time, and under a known id.

use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::memory::MemoryBus;
use flux_core::layers::Operation;
use flux_core::{Backend, Error, Flux, ItemId, ItemSpec, OrderId, OrderRequest, OrderStatus, Role};
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
