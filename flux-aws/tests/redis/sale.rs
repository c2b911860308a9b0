//! Whole sales with leases and outcomes over Redis: fast while it is there,
//! right when it is wiped, killed or absent.

use std::sync::Arc;
use std::time::Duration;

use flux_core::{Backend, Error, Flux, ItemSpec, OrderRequest, OrderStatus, Role};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::open;
use crate::server::{Server, free_port};

const STOCK: u64 = 300;
const BUYERS: usize = 500;
const SALE_MAX: Duration = Duration::from_secs(60);

fn request(n: usize) -> OrderRequest {
    OrderRequest::units(format!("buyer{n}"), "a", 1).expect("a request")
}

/// A process's engine: the queue and the store are everybody's, the way to
/// Redis is its own.
fn engine(shared: &Backend, url: &str, role: Role) -> Flux {
    let redis = open(url, "sale");
    let (locks, bus) = (Arc::new(redis.locks()), Arc::new(redis.bus()));
    Flux::builder(Backend { locks, bus, ..shared.clone() }).role(role).start()
}

/// Sells everything through one process that accepts and two that decide,
/// while `trouble` happens to Redis, and checks the guarantees.
async fn sell(url: &str, trouble: impl AsyncFnOnce(Arc<Flux>)) -> Duration {
    let shared = Backend::memory();
    let front = Arc::new(engine(&shared, url, Role::AcceptOnly));
    front.put_item(ItemSpec::pool("a", STOCK).expect("an item")).await.expect("put");
    let workers = [0, 1].map(|_| engine(&shared, url, Role::Both));
    let since = Instant::now();
    let mut buyers = JoinSet::new();
    for buyer in 0..50 {
        let front = Arc::clone(&front);
        buyers.spawn(async move {
            for n in (buyer..BUYERS).step_by(50) {
                match front.place(request(n)).await {
                    Ok(_) | Err(Error::SoldOut(_)) => {}
                    Err(error) => panic!("order {n}: {error}"),
                }
            }
        });
    }
    let all = async { tokio::join!(trouble(Arc::clone(&front)), buyers.join_all()) };
    timeout(SALE_MAX, all).await.expect("every buyer is answered");
    let took = since.elapsed();
    let audit = front.audit().await.expect("the store is there");
    assert!(audit.is_clean(), "{audit}");
    assert_eq!((audit.count(OrderStatus::Held), audit.available), (STOCK, 0), "{audit}");
    for engine in workers.iter().chain([&*front]) {
        engine.shutdown().await;
    }
    took
}

/// Waits until so much is sold.
async fn sold(front: &Flux, units: u64) {
    let mut level = STOCK as u32;
    while u64::from(level) > STOCK - units {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let item = front.item(&crate::item("a")).await.expect("the store is there");
        level = item.expect("it is on sale").available;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_nobody_waits_for_a_second_look() {
    let server = Server::start().await;
    let shared = Backend::memory();
    let front = engine(&shared, &server.url(), Role::AcceptOnly);
    front.put_item(ItemSpec::pool("a", STOCK).expect("an item")).await.expect("put");
    let worker = engine(&shared, &server.url(), Role::Both);
    front.place(request(0)).await.expect("decided");
    let mut waits = Vec::new();
    for n in 1..=20 {
        let since = Instant::now();
        front.place(request(n)).await.expect("decided");
        waits.push(since.elapsed());
    }
    waits.sort();
    println!("an order told over Redis took {:?}, the slowest {:?}", waits[10], waits[19]);
    // Without outcomes the first look is after a tenth of a second.
    assert!(waits[10] < Duration::from_millis(90), "{waits:?}");
    worker.shutdown().await;
    front.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_killed_and_started_again_during_a_sale() {
    let mut server = Server::start().await;
    let url = server.url();
    let took = sell(&url, async |front| {
        sold(&front, 30).await;
        server.ask(&["FLUSHALL"]).await;
        sold(&front, 60).await;
        server.kill();
        sold(&front, 120).await;
        server.resume().await;
    });
    println!("sold through it in {:?}", took.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_from_the_start_of_a_sale() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    println!("sold without Redis in {:?}", sell(&url, async |_| {}).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_all_through_a_sale() {
    let server = Server::start().await;
    println!("sold with Redis in {:?}", sell(&server.url(), async |_| {}).await);
}
