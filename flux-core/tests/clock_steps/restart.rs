//! The embedded store and the clock: a restart knows whether it was stepped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flux_core::backends::embedded::Embedded;
use flux_core::clock::{Clock, SinceBoot, SystemClock};
use flux_core::{Flux, ItemSpec, OrderId, OrderRequest, OrderStatus, Timestamp};

/// A clock whose hands are moved by the test, in milliseconds.
#[derive(Debug)]
struct Hands {
    base: Instant,
    passed: AtomicU64,
    ahead: AtomicI64,
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        let passed = 1_700_000_000_000 + self.passed.load(Ordering::Relaxed);
        Timestamp::from_millis(passed.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Instant {
        self.base + Duration::from_millis(self.passed.load(Ordering::Relaxed))
    }

    fn since_boot(&self) -> Option<SinceBoot> {
        Some(SinceBoot::new(7, Duration::from_millis(self.passed.load(Ordering::Relaxed))))
    }
}

fn open(directory: &tempfile::TempDir, clock: Arc<dyn Clock>) -> Flux {
    let embedded = Embedded::builder(directory.path()).clock(clock.clone()).open();
    Flux::builder(embedded.expect("it opens").backend()).clock(clock).start()
}

/// Holds a unit of an item of its own for so many seconds.
async fn hold(flux: &Flux, item: &str, seconds: u64) -> OrderId {
    let spec = ItemSpec::builder().id(item).capacity(1).hold_seconds(seconds);
    flux.put_item(spec.build().expect("an item")).await.expect("it is put");
    let request = OrderRequest::units("ann", item, 1).expect("a request");
    flux.place(request).await.expect("it is decided").id
}

async fn status(flux: &Flux, id: OrderId) -> OrderStatus {
    flux.order(id).await.expect("the store answers").expect("it was placed").status()
}

async fn until_ended(flux: &Flux, id: OrderId, within: Duration) {
    let began = Instant::now();
    while status(flux, id).await != OrderStatus::Expired {
        assert!(began.elapsed() < within, "{id} is held still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_step_while_nothing_ran_counts_ten_seconds_after_the_start() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let directory = tempfile::tempdir().expect("a directory");
    let (passed, ahead) = (AtomicU64::new(0), AtomicI64::new(0));
    let clock = Arc::new(Hands { base: Instant::now(), passed, ahead });
    let pass = |millis: u64| clock.passed.fetch_add(millis, Ordering::Relaxed);

    let flux = open(&directory, clock.clone());
    let (short, long) = (hold(&flux, "short", 5).await, hold(&flux, "long", 600).await);
    flux.shutdown().await;
    drop(flux);

    clock.ahead.store(3_600_000, Ordering::Relaxed);
    pass(5_000);
    let flux = open(&directory, clock.clone());
    until_ended(&flux, short, PATIENCE).await;
    assert_eq!(status(&flux, long).await, OrderStatus::Held, "it has its time");
    pass(10_000);
    until_ended(&flux, long, PATIENCE).await;
    flux.shutdown().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_ordinary_restart_ends_the_holds_that_are_over_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let flux = open(&directory, Arc::new(SystemClock));
    let id = hold(&flux, "short", 1).await;
    flux.shutdown().await;
    drop(flux);

    let flux = open(&directory, Arc::new(SystemClock));
    // Without what was kept it would be ten seconds.
    until_ended(&flux, id, Duration::from_secs(9)).await;
    flux.shutdown().await;
}
