//! Engines of this process, on one table, queue and Redis: one whose clock is
//! wrong, and some whose lock lets everybody in.

use std::sync::Arc;
use std::time::Duration;

use flux_aws::Aws;
use flux_aws::redis::RedisSettings;
use flux_core::clock::{Clock, SystemClock};
use flux_core::layers::YesLocks;
use flux_core::{
    Error, Flux, Item, ItemId, ItemSpec, Order, OrderId, OrderRequest, OrderStatus, PaymentRef,
    Timestamp,
};
use rand::RngExt;
use stage::fleet::Services;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::sale::{ITEM, partitions};

const PATIENCE: Duration = Duration::from_secs(90);

/// A clock that is ahead, or behind.
#[derive(Debug, Clone, Copy)]
struct Off {
    by: Duration,
    is_ahead: bool,
}

impl Clock for Off {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        match self.is_ahead {
            true => now + self.by,
            false => Timestamp::from_millis(now.as_millis() - self.by.as_millis() as u64),
        }
    }
}

async fn aws(name: &str) -> Aws {
    let services = Services::from_env(name).unwrap_or_else(|error| panic!("{error}"));
    let redis = RedisSettings::url(services.get("REDIS_URL")).prefix(name);
    let aws = Aws::builder().queue(name).table(name).redis(redis).create_missing(true);
    let aws = aws.maybe_partitions(partitions());
    aws.open().await.expect("the services are there")
}

async fn engine(name: &str, clock: Arc<dyn Clock>) -> Flux {
    let aws = aws(name).await;
    Flux::builder(aws.backend).settings(aws.settings).clock(clock).start()
}

async fn item(flux: &Flux) -> Item {
    let id = ItemId::new(ITEM).expect("a name");
    flux.item(&id).await.expect("the table is there").expect("it is on sale")
}

/// Places an order, again as long as its outcome is pending. `None` if there was
/// nothing left to be had.
async fn place(flux: &Flux, request: &OrderRequest) -> Option<Order> {
    let end = Instant::now() + PATIENCE;
    loop {
        match flux.place(request.clone()).await {
            Ok(order) => return Some(order),
            Err(Error::SoldOut(_)) => return None,
            Err(Error::OutcomePending(_)) if Instant::now() < end => {}
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
}

fn request(buyer: u32) -> OrderRequest {
    let request = OrderRequest::units(format!("buyer-{buyer}"), ITEM, 1).expect("a request");
    request.with_id(OrderId::from_uuid(Uuid::now_v7()))
}

/// Places an order and pays for it, early or late, again as long as an
/// outcome is pending. `None` if there was nothing to be had.
async fn buy(places: &Flux, pays: &Flux, buyer: u32, pause: Duration) -> Option<Order> {
    let order = place(places, &request(buyer)).await?;
    if order.status() == OrderStatus::Rejected {
        return None;
    }
    sleep(pause).await;
    let payment = PaymentRef::new(format!("payment-{buyer}")).expect("a name");
    let end = Instant::now() + PATIENCE;
    loop {
        match pays.confirm(order.id, payment.clone()).await {
            Ok(order) => return Some(order),
            Err(Error::RefundDue(order)) => return Some(*order),
            Err(Error::OutcomePending(_)) if Instant::now() < end => {}
            Err(error) => panic!("buyer {buyer} pays for {order:?}: {error}"),
        }
    }
}

/// Sales between an engine on time and one that is not, until units were sold again. Which
/// of them serves the item is chance, as its workers' names are: where it is the one ahead,
/// all holds end a minute late, and nobody pays too late.
async fn one_is_off(is_ahead: bool) {
    for _ in 0..8 {
        if sale_with_one_off(is_ahead).await > 0 {
            return;
        }
    }
    panic!("no unit was sold again: this shows nothing");
}

/// A sale of short holds to the last unit; tells how many paid too late.
async fn sale_with_one_off(is_ahead: bool) -> usize {
    const STOCK: u32 = 60;
    const HOLD_SECONDS: u64 = 2;
    let name = format!("flux-test-{}", Uuid::now_v7());
    let right = engine(&name, Arc::new(SystemClock)).await;
    let off = Off { by: Duration::from_secs(60), is_ahead };
    let wrong = engine(&name, Arc::new(off)).await;
    let spec = ItemSpec::builder().id(ITEM).capacity(STOCK.into()).hold_seconds(HOLD_SECONDS);
    right.put_item(spec.build().expect("an item")).await.expect("it is put on sale");

    let mut buyers = JoinSet::new();
    for buyer in 0..400 {
        let engines = [right.clone(), wrong.clone()];
        buyers.spawn(async move {
            let random = |most| rand::rng().random_range(0..=most);
            let [place, pay] = [0, 1].map(|_| engines[random(1)].clone());
            // They come while holds of others end.
            sleep(Duration::from_millis(random(10_000) as u64)).await;
            let pause = Duration::from_millis(random(6_000) as u64);
            buy(&place, &pay, buyer, pause).await
        });
    }
    let all = timeout(PATIENCE, buyers.join_all()).await.expect("everybody is answered");
    let mut told: Vec<Order> = all.into_iter().flatten().collect();
    let refunds = told.iter().filter(|order| order.status() == OrderStatus::RefundDue).count();

    // The last buyers pay at once, until all is sold.
    let end = Instant::now() + PATIENCE;
    let mut buyer = 1_000;
    while item(&right).await.sold < STOCK {
        assert!(Instant::now() < end, "stranded: {:?}", item(&right).await);
        match buy(&right, &right, buyer, Duration::ZERO).await {
            Some(order) => told.push(order),
            None => sleep(Duration::from_millis(50)).await,
        }
        buyer += 1;
    }
    println!("{} paid, {refunds} of them too late", told.len());
    let mut tickets = 0;
    for order in &told {
        let status = order.status();
        assert!(matches!(status, OrderStatus::Confirmed | OrderStatus::RefundDue), "{order:?}");
        tickets += u32::from(status == OrderStatus::Confirmed);
        let now = right.order(order.id).await.expect("the table is there");
        assert_eq!(now.as_ref(), Some(order), "what a buyer was told still holds");
    }
    assert_eq!(tickets, STOCK, "each unit is sold once");
    let audit = right.audit().await.expect("the table is there");
    assert!(audit.is_clean(), "{audit}");
    tokio::join!(right.shutdown(), wrong.shutdown());
    refunds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_ahead() {
    one_is_off(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_behind() {
    one_is_off(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_always_says_yes() {
    const STOCK: u32 = 300;
    let name = format!("flux-test-{}", Uuid::now_v7());
    let mut engines = Vec::new();
    for _ in 0..3 {
        let mut aws = aws(&name).await;
        aws.backend.locks = Arc::new(YesLocks);
        engines.push(Flux::builder(aws.backend).settings(aws.settings).start());
    }
    let spec = ItemSpec::pool(ITEM, STOCK.into()).expect("an item");
    engines[0].put_item(spec).await.expect("it is put on sale");

    let mut buyers = JoinSet::new();
    for till in 0..30 {
        let engines = engines.clone();
        buyers.spawn(async move {
            for buyer in (till..450).step_by(30) {
                let request = request(buyer);
                // Twice at once, with two engines.
                let at = buyer as usize;
                let (one, other) = tokio::join!(
                    place(&engines[at % 3], &request),
                    place(&engines[(at + 1) % 3], &request)
                );
                match (one, other) {
                    (Some(one), Some(other)) => assert_eq!(one, other),
                    (None, Some(order)) | (Some(order), None) => {
                        assert_eq!(order.status(), OrderStatus::Rejected, "{order:?}");
                    }
                    (None, None) => {}
                }
            }
        });
    }
    timeout(PATIENCE, buyers.join_all()).await.expect("everybody is answered");
    let audit = engines[0].audit().await.expect("the table is there");
    assert!(audit.is_clean(), "{audit}");
    assert_eq!((audit.count(OrderStatus::Held), audit.available), (STOCK.into(), 0), "{audit}");
    for engine in &engines {
        engine.shutdown().await;
    }
}
