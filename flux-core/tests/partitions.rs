//! A queue of several partitions is one queue: what is accepted is decided by whoever
//! serves its partition, found while it waits, counted, and given up or brought back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flux_core::seams::{Lease, LockManager, Member};
use flux_core::{
    Backend, Error, Flux, ItemId, ItemSpec, Line, OrderId, OrderRequest, OrderStatus, Role,
    SeamError,
};

use tokio::time::timeout;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const ITEMS: [&str; 6] = ["a", "b", "c", "d", "ticket", "hall"];

fn backend() -> Backend {
    let partitions = (0..4).map(|_| Backend::memory().queue).collect();
    Backend { partitions, ..Backend::memory() }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_is_decided_whatever_its_partition() -> Result {
    let backend = backend();
    let api = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    let mut queued = Vec::new();
    for item in ITEMS {
        api.put_item(ItemSpec::pool(item, 9)?).await?;
        queued.push(api.submit(OrderRequest::units("ann", item, 1)?).await?);
    }
    assert_eq!(api.depth().await?.waiting, 6);
    for order in &queued {
        let found = api.order(order.id).await?.expect("it waits");
        assert_eq!(found.status(), OrderStatus::Queued);
    }
    let used = futures_util::future::try_join_all(backend.partitions.iter().map(|q| q.depth()));
    assert!(used.await?.iter().filter(|depth| depth.waiting > 0).count() > 1);

    let _workers = [(); 2].map(|()| Flux::builder(backend.clone()).start());
    for order in queued {
        let held = api.wait(order.id, Duration::from_secs(30)).await?;
        assert_eq!(held.status(), OrderStatus::Held);
        assert_eq!(api.release(order.id).await?.status(), OrderStatus::Released);
    }
    assert_eq!(api.depth().await?.waiting, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_those_of_all_partitions() -> Result {
    let backend = backend();
    let api = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    for item in ITEMS {
        api.put_item(ItemSpec::pool(item, 9)?).await?;
        api.submit(OrderRequest::units("ann", item, 1)?).await?;
    }
    let mut delivered = Vec::new();
    for queue in &backend.partitions {
        delivered.push(queue.receive(9, Duration::ZERO).await?);
    }
    assert_eq!((api.depth().await?.waiting, api.depth().await?.in_flight), (0, 6));
    for (queue, delivered) in backend.partitions.iter().zip(delivered) {
        for delivery in delivered {
            queue.bury(&[(delivery.receipt, "a test".into())]).await?;
        }
    }
    assert_eq!(api.depth().await?.dead, 6);
    assert_eq!(api.dead_letters(4).await?.len(), 4);
    assert_eq!((api.redrive(4).await?, api.redrive(9).await?), (4, 2));
    assert_eq!((api.depth().await?.dead, api.depth().await?.waiting), (0, 6));
    Ok(())
}

/// Pairs over the items of different workers, each of which is another's first or second.
#[tokio::test(start_paused = true)]
async fn orders_over_the_items_of_several_workers_are_decided_soon() -> Result {
    let backend = backend();
    let workers = [(); 3].map(|()| Flux::builder(backend.clone()).start());
    let api = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    for item in ITEMS {
        api.put_item(ItemSpec::pool(item, 10_000)?).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = tokio::time::Instant::now();
    for round in 0..100 {
        let mut queued = Vec::new();
        for (n, item) in ITEMS.iter().enumerate() {
            let other = ITEMS[(n + 1 + round % 5) % ITEMS.len()];
            let lines = vec![Line::units(item, 1)?, Line::units(other, 1)?];
            let pair = OrderRequest::builder().buyer("ann").lines(lines).build()?;
            queued.push(api.submit(pair).await?);
            queued.push(api.submit(OrderRequest::units("ann", *item, 1)?).await?);
        }
        for order in queued {
            let held = api.wait(order.id, Duration::from_secs(3)).await?;
            assert_eq!(held.status(), OrderStatus::Held, "in round {round}");
        }
    }
    // Some 6 s; four times that where nobody lends anything.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    for item in ITEMS {
        let item = api.item(&item.parse()?).await?.expect("it is on sale");
        assert_eq!((item.held, item.available), (300, 9_700), "{item:?}");
    }
    drop(workers);
    Ok(())
}

/// A lock manager that knows of another worker, which serves everything.
struct Another;

#[async_trait]
impl LockManager for Another {
    async fn acquire(
        &self,
        keys: &[ItemId],
        _: Duration,
        _: Duration,
    ) -> std::result::Result<Option<Lease>, SeamError> {
        Ok(Some(Lease::new(keys.to_vec(), "me")))
    }
    async fn join(&self, _: &str, lasts: Duration) -> std::result::Result<Vec<Member>, SeamError> {
        Ok(vec![Member::new("another", lasts)])
    }
    async fn renew(&self, _: &Lease, _: Duration) -> std::result::Result<bool, SeamError> {
        Ok(true)
    }
    async fn release(&self, _: &Lease) -> std::result::Result<(), SeamError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_worker_serves_is_decided_there() -> Result {
    let backend = backend();
    let elsewhere = Flux::builder(backend.clone()).start();
    let here = Flux::builder(Backend { locks: Arc::new(Another), ..backend.clone() }).start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    here.put_item(ItemSpec::pool("ticket", 9)?).await?;
    let held = here.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    elsewhere.shutdown().await;

    let request = OrderRequest::units("ann", "ticket", 1)?;
    let left = here.place_within(request, Duration::from_millis(900)).await?;
    assert_eq!(left.status(), OrderStatus::Queued, "nobody there decides it as yet");
    let patience = Duration::from_millis(900);
    assert!(timeout(patience, here.release(held.id)).await.is_err());
    let queue = backend.queue_of(&[Line::units("ticket", 1)?]);
    assert_eq!(queue.depth().await?.waiting, 2, "both wait for whoever serves the item");

    // Who does not seem to be there.
    let request = OrderRequest::units("ann", "ticket", 1)?;
    let within = Duration::from_secs(5);
    assert_eq!(here.place_within(request.clone(), within).await?.status(), OrderStatus::Held);
    let chosen = request.clone().with_id(OrderId::new());
    assert_eq!(here.place(chosen).await?.status(), OrderStatus::Held);
    assert_eq!(here.place(request).await?.status(), OrderStatus::Held);
    assert_eq!(here.release(held.id).await?.status(), OrderStatus::Released);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_queue_is_never_told_to_be_refused() -> Result {
    let backend = backend();
    let here = Flux::builder(Backend { locks: Arc::new(Another), ..backend.clone() }).start();
    here.put_item(ItemSpec::pool("ticket", 9)?).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let request = OrderRequest::units("ann", "ticket", 1)?;
    for request in [request.clone(), request.with_id(OrderId::new())] {
        let here = Flux::builder(Backend { locks: Arc::new(Another), ..backend.clone() }).start();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let placing = tokio::spawn({
            let here = here.clone();
            async move { here.place(request).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        here.shutdown().await;
        // It stopped before its own worker was asked, and the order may be decided yet.
        let told = placing.await?.expect_err("nobody decided it");
        assert!(matches!(told, Error::OutcomePending(_)), "{told:?}");
    }
    assert_eq!(here.depth().await?.waiting, 2);
    Ok(())
}
