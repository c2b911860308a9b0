//! What is accepted comes from the queue, and is done there once its own order is
//! decided and that is durable: whatever becomes of those it came with.

mod ill_store;
mod troubles;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::layers::{Call, Faults, Layer, Operation};
use flux_core::protocol::Message;
use flux_core::{
    Backend, BuyerId, Error, Flux, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderRequest,
    OrderStatus, SeamError, Settings, Timestamp,
};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::ill_store::{Fails, IllStore, Illness};
use self::troubles::{Trouble, Troubles};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A backend whose store may fall ill, and the same with its store in good health.
fn backends() -> (Backend, Illness, Backend) {
    let well = Backend::memory();
    let (store, illness) = IllStore::around(Arc::clone(&well.store));
    (Backend { store, ..well.clone() }, illness, well)
}

/// Calls that take their time, so that callers gather meanwhile.
fn slow() -> Faults {
    let slow = Faults::builder().seed(7).delay(1.0).delay_max(Duration::from_millis(4));
    slow.build().expect("fits")
}

fn engine(backend: &Backend) -> Flux {
    Flux::builder(backend.clone()).clock(Arc::new(TokioClock::starting_at(START))).start()
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn one(item: &str) -> OrderRequest {
    OrderRequest::units("ann", item, 1).expect("a request")
}

/// An order for a unit of each item, as another process sent it.
fn sent(n: u128, items: &[&str]) -> Message {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("a line"));
    let lines = Lines::new(lines.collect()).expect("lines");
    let buyer = BuyerId::new(format!("buyer-{n}")).expect("a name");
    Message::Place(Order::queued(id(n), buyer, lines, TokioClock::starting_at(START).now()))
}

async fn assert_held(flux: &Flux, n: u128) -> Result {
    let order = flux.wait(id(n), 10 * MINUTE).await.map_err(|error| format!("{n}: {error}"))?;
    assert_eq!(order.status(), OrderStatus::Held, "{order:?}");
    Ok(())
}

async fn assert_at_rest(flux: &Flux) -> Result {
    let depth = flux.depth().await?;
    assert_eq!((depth.waiting, depth.in_flight, depth.dead), (0, 0, 0));
    let audit = flux.audit().await?;
    assert!(audit.is_clean(), "{audit}");
    Ok(())
}

/// The worker takes up a caller's order, four messages and the end of a hold in one
/// go, and the write of one of the messages fails.
#[tokio::test(start_paused = true)]
async fn one_message_that_can_not_be_written_comes_again_whoever_comes_with_it() -> Result {
    const ITEMS: [&str; 4] = ["a", "b", "c", "d"];
    for ill in 0..ITEMS.len() {
        let ((backend, illness, _), troubles) = (backends(), Troubles::default());
        let backend = backend.layered(troubles.clone());
        let flux = engine(&backend);
        flux.put_item(ItemSpec::builder().id("h").capacity(1).hold_seconds(2).build()?).await?;
        for item in ITEMS.into_iter().chain(["caller", "before"]) {
            flux.put_item(ItemSpec::pool(item, 5)?).await?;
        }
        let hold = flux.place(one("h")).await?;
        // A slow write keeps the worker until all of it is there.
        troubles.set(Operation::Commit, Trouble::Slow(4 * SECOND));
        let before = tokio::spawn({
            let flux = flux.clone();
            async move { flux.place(one("before")).await }
        });
        sleep(SECOND).await;
        troubles.clear();
        illness.of_order(id(ill as u128), Fails::Unheard);
        let messages: Vec<_> = (0..).zip(ITEMS).map(|(n, item)| sent(n, &[item])).collect();
        sleep(2 * SECOND).await;
        backend.queue.send(&messages).await?;
        assert_eq!(flux.place(one("caller")).await?.status(), OrderStatus::Held);
        assert_eq!(before.await??.status(), OrderStatus::Held);
        for n in (0..ITEMS.len()).filter(|n| *n != ill) {
            assert_held(&flux, n as u128).await?;
        }
        let ended = flux.order(hold.id).await?.expect("it was placed");
        assert_eq!(ended.status(), OrderStatus::Expired);

        illness.heal();
        assert_held(&flux, ill as u128).await?;
        sleep(MINUTE).await;
        assert_at_rest(&flux).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_and_never_became_durable_is_decided_by_the_next_process() -> Result {
    let (ill, illness, well) = backends();
    let flux = engine(&ill);
    flux.put_item(ItemSpec::pool("a", 5)?).await?;
    illness.of_every_order(Fails::Durability);
    for _ in 0..3 {
        flux.submit(one("a")).await?;
    }
    well.queue.send(&[sent(1, &["a"]), sent(2, &["a"])]).await?;
    sleep(SECOND).await;
    flux.shutdown().await;
    let depth = well.queue.depth().await?;
    assert_eq!(depth.waiting + depth.in_flight, 5, "{depth:?}");

    let next = engine(&well);
    for n in [1, 2] {
        assert_held(&next, n).await?;
    }
    sleep(MINUTE).await;
    let item = next.item(&ItemId::new("a")?).await?.expect("it is there");
    assert_eq!((item.available, item.held), (0, 5));
    assert_at_rest(&next).await
}

#[tokio::test(start_paused = true)]
async fn an_item_that_can_not_be_claimed_has_its_orders_wait_and_no_other() -> Result {
    let (backend, illness, _) = backends();
    let flux = engine(&backend);
    for item in ["a", "b", "c"] {
        flux.put_item(ItemSpec::pool(item, 5)?).await?;
    }
    illness.of_item(ItemId::new("b")?);
    let messages = [sent(1, &["a"]), sent(2, &["b"]), sent(3, &["a", "b"]), sent(4, &["c"])];
    backend.queue.send(&messages).await?;
    for n in [1, 4] {
        assert_held(&flux, n).await?;
    }
    sleep(5 * SECOND).await;
    for n in [2, 3] {
        let order = flux.order(id(n)).await?.expect("it is in the queue");
        assert_eq!(order.status(), OrderStatus::Queued, "{order:?}");
    }
    illness.heal();
    for n in [2, 3] {
        assert_held(&flux, n).await?;
    }
    sleep(MINUTE).await;
    assert_at_rest(&flux).await
}

/// The write of one order is never heard of, in each turn beside writes that are taken.
#[tokio::test(start_paused = true)]
async fn an_order_nobody_hears_of_is_given_up_though_others_do_well() -> Result {
    let (backend, illness, _) = backends();
    let flux = engine(&backend.layered(slow()));
    for item in ["a", "b"] {
        flux.put_item(ItemSpec::pool(item, 1_000_000)?).await?;
    }
    illness.of_order(id(1), Fails::Unheard);
    let mut others = JoinSet::new();
    for _ in 0..16 {
        let flux = flux.clone();
        others.spawn(async move {
            for _ in 0..2_000 {
                flux.place(one("b")).await.expect("there is enough");
            }
        });
    }
    let order = OrderRequest::builder().id(id(1)).buyer("eve").lines(vec![Line::units("a", 1)?]);
    let answer = flux.place(order.build()?).await;
    assert!(matches!(answer, Err(Error::OutcomePending(_))), "{answer:?}");
    assert!(others.try_join_next().is_none(), "it was given up only when the others were gone");
    Ok(())
}

/// Callers fill every turn, and holds end by the thousand.
#[tokio::test(start_paused = true)]
async fn what_was_submitted_is_decided_beside_a_flood_of_callers() -> Result {
    let settings = Settings::builder().batch_max(8).build();
    let flux = Flux::builder(Backend::memory().layered(slow())).settings(settings).start();
    flux.put_item(ItemSpec::pool("a", 1_000_000)?).await?;
    let mut flood = JoinSet::new();
    for _ in 0..64 {
        let flux = flux.clone();
        flood.spawn(async move {
            loop {
                flux.place(one("a")).await.expect("there is enough");
            }
        });
    }
    tokio::time::sleep(SECOND).await;
    for _ in 0..5 {
        let queued = flux.submit(one("a")).await?;
        let order = flux.wait(queued.id, SECOND).await?;
        assert_eq!(order.status(), OrderStatus::Held, "within a second");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_received_and_waits_for_the_worker_does_not_come_again() -> Result {
    let (backend, troubles) = (Backend::memory_with(), Troubles::default());
    let backend = backend.visibility(10 * SECOND).build().layered(troubles.clone());
    let settings = Settings::builder().batch_max(2).build();
    let flux = Flux::builder(backend.clone()).settings(settings).start();
    flux.put_item(ItemSpec::pool("a", 20)?).await?;
    troubles.set(Operation::Commit, Trouble::Slow(MINUTE));
    let messages: Vec<_> = (0..10).map(|n| sent(n, &["a"])).collect();
    backend.queue.send(&messages).await?;
    for second in 1..50 {
        sleep(SECOND).await;
        let again = backend.queue.receive(10, Duration::ZERO).await?;
        assert!(again.is_empty(), "after {second} s: {again:?}");
    }
    troubles.clear();
    for n in 0..10 {
        assert_held(&flux, n).await?;
    }
    sleep(MINUTE).await;
    assert_at_rest(&flux).await
}

/// Counts the batches that are received.
#[derive(Clone, Default)]
struct Batches(Arc<AtomicUsize>);

impl Layer for Batches {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> std::result::Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<T, SeamError>> + Send,
    {
        if call.operation == Operation::Receive {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        run().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_uses_up_few_deliveries() -> Result {
    let ((backend, illness, _), batches) = (backends(), Batches::default());
    let backend = backend.layered(batches.clone());
    let settings = Settings::builder().batch_max(10).build();
    let flux = Flux::builder(backend.clone()).settings(settings).start();
    flux.put_item(ItemSpec::pool("a", 5_000)?).await?;
    illness.of_every_order(Fails::Unheard);
    let messages: Vec<_> = (0..5_000).map(|n| sent(n, &["a"])).collect();
    backend.queue.send(&messages).await?;
    sleep(MINUTE).await;
    // Each counts against ten messages, whose fault it is not.
    let received = batches.0.load(Ordering::Relaxed);
    assert!(received <= 60, "{received} batches were received in a minute");
    illness.heal();
    for n in [0, 4_999] {
        assert_held(&flux, n).await?;
    }
    Ok(())
}
