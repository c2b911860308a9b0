//! Holds end on time, however long nothing happened before they were made, and
//! whoever made them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_core::backends::memory::MemoryBus;
use flux_core::clock::TokioClock;
use flux_core::layers::{Call, Layer, Operation};
use flux_core::seams::{OutcomeBus, Outcomes, SeamError};
use flux_core::{
    Backend, Flux, ItemId, ItemSpec, OrderId, OrderRequest, OrderStatus, Role, Settings, Timestamp,
};
use tokio::time::{Instant, sleep};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longer than a worker takes to find that there is nothing to do.
const QUIET: Duration = Duration::from_secs(70);
const HOLD: Duration = Duration::from_secs(5);
/// The time from the end of a hold to its stock being on sale, at most.
const RESOLD_WITHIN: Duration = Duration::from_millis(500);

/// Engines on one backend, by one clock.
struct Place {
    backend: Backend,
    clock: Arc<TokioClock>,
}

impl Place {
    fn new(backend: Backend) -> Self {
        let noon = Timestamp::from_millis(1_700_000_000_000);
        Self { backend, clock: Arc::new(TokioClock::starting_at(noon)) }
    }

    fn engine(&self) -> Flux {
        self.engine_with(Role::Both, Settings::default())
    }

    fn engine_with(&self, role: Role, settings: Settings) -> Flux {
        let engine = Flux::builder(self.backend.clone()).clock(self.clock.clone());
        engine.role(role).settings(settings).start()
    }

    /// An engine that has done nothing for long, with fifty units for sale.
    async fn quiet_sale(&self) -> Result<Flux> {
        let flux = self.engine();
        let spec = ItemSpec::builder().id("a").capacity(50).hold_seconds(HOLD.as_secs());
        flux.put_item(spec.max_per_buyer(50).build()?).await?;
        sleep(QUIET).await;
        Ok(flux)
    }
}

fn units(buyer: &str, units: u64) -> OrderRequest {
    OrderRequest::units(buyer, "a", units).expect("a request")
}

/// Waits until all is for sale again, and returns how long that took.
async fn all_back(flux: &Flux) -> Result<Duration> {
    let (start, item) = (Instant::now(), ItemId::new("a")?);
    while flux.item(&item).await?.expect("it was put").available < 50 {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(start.elapsed())
}

#[track_caller]
fn assert_on_time(took: Duration) {
    assert!((HOLD..HOLD + RESOLD_WITHIN).contains(&took), "back on sale after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_made_after_a_quiet_minute_is_resold_on_time() -> Result {
    let flux = Place::new(Backend::memory()).quiet_sale().await?;
    flux.place(units("ann", 50)).await?;
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_buyer_is_not_kept_by_a_hold_of_hers_that_ended() -> Result {
    let flux = Place::new(Backend::memory()).quiet_sale().await?;
    let first = flux.place(units("ann", 50)).await?;
    sleep(HOLD + RESOLD_WITHIN).await;
    let ended = flux.order(first.id).await?.map(|order| order.status());
    assert_eq!(ended, Some(OrderStatus::Expired));
    let second = flux.place(units("ann", 50)).await?;
    assert_eq!((second.status(), second.reason()), (OrderStatus::Held, None));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hold_made_of_a_delivery_is_resold_on_time() -> Result {
    let place = Place::new(Backend::memory());
    let flux = place.quiet_sale().await?;
    let front = place.engine_with(Role::AcceptOnly, Settings::default());
    let queued = front.submit(units("ann", 50)).await?;
    let held = front.wait(queued.id, HOLD).await?;
    assert_eq!(held.status(), OrderStatus::Held);
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hold_whose_worker_is_gone_is_resold_on_time_by_another() -> Result {
    let place = Place::new(Backend::memory());
    let flux = place.quiet_sale().await?;
    let other = place.engine();
    other.place(units("ann", 50)).await?;
    drop(other);
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_nobody_heard_of_is_resold_on_time_by_a_worker_that_was_busy_lately() -> Result
{
    let mut place = Place::new(Backend::memory());
    let bus = std::mem::replace(&mut place.backend.bus, Arc::new(MemoryBus::default()));
    let flux = place.quiet_sale().await?;
    flux.place(units("bob", 1)).await?;
    assert_on_time(all_back(&flux).await?);
    // Until there is nothing left to look for, and not yet for a minute.
    sleep(2 * HOLD).await;
    place.backend.bus = bus;
    let other = place.engine();
    other.place(units("ann", 50)).await?;
    other.shutdown().await;
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn holds_that_were_not_heard_of_are_looked_for_after_a_gap_in_the_news() -> Result {
    let mut place = Place::new(Backend::memory());
    let bus = Arc::new(MemoryBus::default());
    let news = std::mem::replace(&mut place.backend.bus, bus.clone());
    let flux = place.quiet_sale().await?;
    place.backend.bus = news;
    let other = place.engine();
    other.place(units("ann", 50)).await?;
    drop(other);
    bus.publish(Arc::new(Outcomes::gap())).await?;
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_before_the_next_sweep_brings_it_forward() -> Result {
    let settings = Settings::builder().sweep_every(Duration::from_secs(3_600)).build();
    let place = Place::new(Backend::memory());
    let [flux, other] = [(); 2].map(|()| place.engine_with(Role::Both, settings.clone()));
    flux.put_item(ItemSpec::builder().id("a").capacity(50).hold_seconds(5).build()?).await?;
    sleep(QUIET).await;
    flux.place(units("ann", 25)).await?;
    other.place(units("bob", 25).with_id(OrderId::new())).await?;
    drop(other);
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

/// Counts the searches for ended holds.
#[derive(Clone, Default)]
struct Looks(Arc<AtomicUsize>);

impl Layer for Looks {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> std::result::Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<T, SeamError>> + Send,
    {
        if call.operation == Operation::DueHolds {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        run().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hears_of_no_hold_looks_seldom() -> Result {
    let looks = Looks::default();
    let flux = Place::new(Backend::memory().layered(looks.clone())).quiet_sale().await?;
    looks.0.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(600)).await;
    // On AWS each is paid for.
    let looks = looks.0.load(Ordering::Relaxed);
    assert!((10..=30).contains(&looks), "{looks} looks in ten minutes");
    flux.place(units("ann", 50)).await?;
    assert_on_time(all_back(&flux).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_knows_when_holds_end_looks_no_sooner() -> Result {
    let looks = Looks::default();
    let place = Place::new(Backend::memory().layered(looks.clone()));
    let flux = place.engine();
    flux.put_item(ItemSpec::builder().id("a").capacity(50).hold_seconds(300).build()?).await?;
    flux.place(units("ann", 50)).await?;
    looks.0.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(299)).await;
    // A search costs as many queries as the index has keys.
    let seen = looks.0.load(Ordering::Relaxed);
    assert!((4..=12).contains(&seen), "{seen} looks in five minutes");
    sleep(Duration::from_secs(1) + RESOLD_WITHIN).await;
    assert_eq!(flux.item(&ItemId::new("a")?).await?.expect("it was put").available, 50);
    Ok(())
}
