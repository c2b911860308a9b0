//! Workers that want the same items, and one that comes back from a pause:
//! nobody waits for long. On a paused clock, so that the times are those of
//! the engine and not of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flux_core::clock::TokioClock;
use flux_core::layers::{Call, Faults, Layer, Operation};
use flux_core::seams::SeamError;
use flux_core::{Backend, Flux, ItemSpec, OrderRequest, OrderStatus, Role, Settings, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)))
}

fn one(item: &str) -> OrderRequest {
    OrderRequest::units("ann", item, 1).expect("a good request")
}

/// Engines on one backend and one clock, with the times of services behind a
/// network.
struct Fleet {
    backend: Backend,
    clock: Arc<TokioClock>,
}

impl Fleet {
    fn of(backend: Backend) -> Self {
        Self { backend, clock: clock() }
    }

    fn engine(&self, role: Role) -> Flux {
        let settings = Settings::builder()
            .claim_max(Duration::from_millis(200))
            .sweep_every(Duration::from_secs(1))
            .batch_max(100)
            .build();
        let engine = Flux::builder(self.backend.clone()).clock(self.clock.clone());
        engine.settings(settings).role(role).start()
    }
}

/// Items can't be claimed while it is away.
#[derive(Clone, Default)]
struct Away(Arc<AtomicBool>);

impl Layer for Away {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> std::result::Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<T, SeamError>> + Send,
    {
        if self.0.load(Ordering::SeqCst) && call.operation == Operation::Claim {
            return Err(SeamError::unavailable("store"));
        }
        run().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_back_soon_after_a_short_outage() -> Result {
    let away = Away::default();
    let fleet = Fleet::of(Backend::memory().layered(away.clone()));
    let flux = fleet.engine(Role::Both);
    flux.put_item(ItemSpec::pool("a", 9)?).await?;
    for _ in 0..4 {
        sleep(Duration::from_secs(130)).await;
        away.0.store(true, Ordering::SeqCst);
        flux.submit(one("a")).await?;
        sleep(Duration::from_millis(2_500)).await;
        away.0.store(false, Ordering::SeqCst);
        let back = Instant::now();
        let queued = flux.submit(one("a")).await?;
        let order = flux.wait(queued.id, Duration::from_secs(120)).await?;
        assert_eq!(order.status(), OrderStatus::Held);
        assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn workers_with_an_item_each_are_not_held_up_by_holds_that_end() -> Result {
    let fleet = Fleet::of(Backend::memory());
    let engines = [fleet.engine(Role::Both), fleet.engine(Role::Both)];
    for item in ["a", "b"] {
        let spec = ItemSpec::builder().id(item).capacity(1_000_000).hold_seconds(5);
        engines[0].put_item(spec.build()?).await?;
    }
    let mut floods = JoinSet::new();
    for (flux, item) in engines.iter().cloned().zip(["a", "b"]) {
        floods.spawn(async move {
            let (mut worst, began) = (Duration::ZERO, Instant::now());
            while began.elapsed() < Duration::from_secs(40) {
                let asked = Instant::now();
                flux.place(one(item)).await.expect("there is enough");
                worst = worst.max(asked.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
            worst
        });
    }
    for worst in floods.join_all().await {
        assert!(worst < Duration::from_secs(1), "{worst:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn eight_workers_on_one_item_take_turns() -> Result {
    let slow = Faults::builder().seed(7).delay(1.0).delay_max(Duration::from_millis(20));
    let fleet = Fleet::of(Backend::memory().layered(slow.build()?));
    let api = fleet.engine(Role::AcceptOnly);
    let _workers: Vec<Flux> = (0..8).map(|_| fleet.engine(Role::Both)).collect();
    api.put_item(ItemSpec::pool("a", 1_000_000)?).await?;
    let mut buyers = JoinSet::new();
    for n in 0..4_000 {
        let flux = api.clone();
        buyers.spawn(async move {
            sleep(Duration::from_millis(n * 5)).await;
            let asked = Instant::now();
            let queued = flux.submit(one("a")).await.expect("it is accepted");
            let order = flux.wait(queued.id, Duration::from_secs(60)).await.expect("decided");
            assert_eq!(order.status(), OrderStatus::Held);
            asked.elapsed()
        });
    }
    let worst = buyers.join_all().await.into_iter().max().expect("there are buyers");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    Ok(())
}
