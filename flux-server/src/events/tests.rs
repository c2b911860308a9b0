use std::time::Duration;

use bytes::Bytes;
use flux_core::clock::{Clock, TokioClock};
use flux_core::seams::{
    OutcomeBus, OutcomeReceiver, OutcomeSender, Outcomes, SeamError, outcome_channel,
};
use flux_core::{Backend, Flux, ItemSpec, Order, OrderRequest, PaymentRef, Timestamp};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;
use tokio::time::{Instant, advance, sleep, timeout};

use super::*;

/// A tick and a little.
const SOON: Duration = Duration::from_millis(150);

struct Scene {
    flux: Flux,
    hub: Hub,
    stop: watch::Sender<bool>,
    clock: Arc<TokioClock>,
}

impl Scene {
    async fn new(items: &[(&str, u64)]) -> Self {
        Self::on(Backend::memory(), items).await
    }

    async fn on(backend: Backend, items: &[(&str, u64)]) -> Self {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000)));
        let flux = Flux::builder(backend).clock(clock.clone()).start();
        for (id, capacity) in items {
            flux.put_item(ItemSpec::pool(id, *capacity).expect("pool")).await.expect("put");
        }
        let (stop, stopping) = watch::channel(false);
        let hub = Hub::start(flux.clone(), stopping);
        Self { flux, hub, stop, clock }
    }

    async fn buy(&self, item: &str, units: u64) -> Order {
        let request = OrderRequest::units("ann", item, units).expect("order");
        self.flux.place(request).await.expect("placed")
    }

    fn item(&self, id: &str) -> EventStream<Feed> {
        self.hub.items(Some(ItemId::new(id).expect("id")))
    }
}

/// The next event's name and JSON; comments are passed over.
async fn next(stream: &mut EventStream<Feed>) -> (String, Value) {
    loop {
        let frame = stream.frame().await.expect("an event").expect("infallible");
        let text = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8");
        if text != ":\n\n" {
            return parse(&text).remove(0);
        }
    }
}

fn parse(text: &str) -> Vec<(String, Value)> {
    let blocks = text.strip_suffix("\n\n").expect("whole events").split("\n\n");
    let parse = |block: &str| {
        let rest = block.strip_prefix("event: ").expect("a name");
        let (name, json) = rest.split_once("\ndata: ").expect("data");
        (name.to_owned(), serde_json::from_str(json).expect("JSON"))
    };
    blocks.map(parse).collect()
}

async fn available(stream: &mut EventStream<Feed>) -> u64 {
    let (name, item) = next(stream).await;
    assert_eq!(name, "item");
    item["available"].as_u64().expect("a number")
}

async fn assert_quiet(stream: &mut EventStream<Feed>, time: Duration) {
    let heard = timeout(time, next(stream)).await;
    assert!(heard.is_err(), "nothing had changed: {heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_present_and_hears_each_change() {
    let scene = Scene::new(&[("a", 10), ("b", 10)]).await;
    scene.buy("a", 1).await;
    let mut stream = scene.item("a");
    assert_eq!(available(&mut stream).await, 9);
    scene.buy("b", 1).await;
    assert_quiet(&mut stream, Duration::from_secs(3)).await;
    let order = scene.buy("a", 2).await;
    let asked = Instant::now();
    assert_eq!(available(&mut stream).await, 7);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_quiet(&mut stream, Duration::from_millis(10)).await;
    // A payment changes no level.
    let asked = Instant::now();
    scene.flux.confirm(order.id, PaymentRef::new("p").expect("ref")).await.expect("paid");
    let (_, item) = next(&mut stream).await;
    assert_eq!((&item["held"], &item["sold"]), (&1.into(), &2.into()));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_quiet(&mut stream, Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn all_items_come_first_and_then_those_that_change_or_are_new() {
    let scene = Scene::new(&[("a", 10), ("b", 20)]).await;
    let mut stream = scene.hub.items(None);
    assert_eq!((available(&mut stream).await, available(&mut stream).await), (10, 20));
    scene.buy("b", 1).await;
    assert_eq!(available(&mut stream).await, 19);
    scene.flux.put_item(ItemSpec::pool("c", 5).expect("pool")).await.expect("put");
    assert_eq!(available(&mut stream).await, 5);
    scene.buy("c", 1).await;
    assert_eq!(available(&mut stream).await, 4);
    assert_quiet(&mut stream, Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn no_item_comes_more_than_ten_times_in_any_second() {
    let scene = Scene::new(&[("a", 10_000)]).await;
    let busy = scene.item("a");
    let mut streams = vec![(busy, Vec::new())];
    // A stream that connects at any moment of a tick keeps to it as well.
    for round in 0..3_000 {
        if round % 37 == 0 && streams.len() < 40 {
            streams.push((scene.item("a"), Vec::new()));
        }
        scene.buy("a", 1).await;
        for (stream, times) in &mut streams {
            while let Ok(left) = timeout(Duration::ZERO, available(stream)).await {
                times.push((Instant::now(), left));
            }
        }
        advance(Duration::from_millis(3)).await;
    }
    sleep(Duration::from_secs(2)).await;
    for (stream, times) in &mut streams {
        while let Ok(left) = timeout(Duration::ZERO, available(stream)).await {
            times.push((Instant::now(), left));
        }
        assert!(times.len() > 30, "changes do arrive: {}", times.len());
        let over =
            times.windows(11).find(|eleven| eleven[10].0 - eleven[0].0 < Duration::from_secs(1));
        assert_eq!(over, None);
        assert!(times.windows(2).all(|two| two[1].1 < two[0].1), "in order, without repeats");
        assert_eq!(times.last().expect("some").1, 7_000, "the last state");
    }
}

#[tokio::test(start_paused = true)]
async fn what_time_changes_is_told_too() {
    let scene = Scene::new(&[]).await;
    let now = scene.clock.now();
    let spec = ItemSpec::builder()
        .id("a")
        .capacity(1)
        .opens_at(now + Duration::from_secs(30))
        .closes_at(now + Duration::from_secs(60));
    scene.flux.put_item(spec.build().expect("pool")).await.expect("put");
    let (mut one, mut all) = (scene.item("a"), scene.hub.items(None));
    for state in ["scheduled", "open", "closed"] {
        assert_eq!(next(&mut one).await.1["state"], state);
        assert_eq!(next(&mut all).await.1["state"], state);
    }
    let passed = scene.clock.now().since(now);
    assert!(passed <= Duration::from_millis(61_200), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_came_and_went_leaves_nobody_behind() {
    let scene = Scene::new(&[("a", 10)]).await;
    let mut early = scene.item("a");
    assert_eq!(available(&mut early).await, 10);
    // Within the rest after a change, one more comes, is seen by somebody who
    // connects, and is taken back.
    let first = scene.buy("a", 1).await;
    assert_eq!(available(&mut early).await, 9);
    let order = scene.buy("a", 1).await;
    let mut late = scene.item("a");
    assert_eq!(available(&mut late).await, 8);
    scene.flux.release(order.id).await.expect("released");
    assert_eq!(available(&mut late).await, 9);
    scene.flux.release(first.id).await.expect("released");
    assert_eq!(available(&mut late).await, 10);
    assert_eq!(available(&mut early).await, 10);
}

#[tokio::test(start_paused = true)]
async fn one_who_reads_too_slowly_starts_again_from_the_present() {
    let scene = Scene::new(&[("a", 1_000)]).await;
    let mut stream = scene.item("a");
    assert_eq!(available(&mut stream).await, 1_000);
    for _ in 0..2 * UPDATES_KEPT {
        scene.buy("a", 1).await;
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(available(&mut stream).await, 1_000 - 2 * UPDATES_KEPT as u64);
    scene.buy("a", 1).await;
    assert_eq!(available(&mut stream).await, 999 - 2 * UPDATES_KEPT as u64);
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_quiet_stream_alive_and_stop_ends_it() {
    let scene = Scene::new(&[("a", 1)]).await;
    let (mut stream, mut pulse) = (scene.item("a"), scene.hub.pulse());
    let begun = Instant::now();
    assert_eq!(available(&mut stream).await, 1);
    for beat in 1..4 {
        let comment = stream.frame().await.expect("goes on").expect("infallible");
        assert_eq!(comment.into_data().ok(), Some(Bytes::from_static(b":\n\n")));
        assert_eq!(begun.elapsed(), beat * COMMENT_EVERY);
    }
    next(&mut pulse).await;
    scene.stop.send_replace(true);
    assert!(stream.frame().await.is_none() && stream.is_end_stream());
    assert!(pulse.frame().await.is_none() && scene.item("a").frame().await.is_none());
    timeout(Duration::from_secs(1), scene.hub.finished()).await.expect("the tasks ended");
}

/// A bus that can be asked how many listen.
#[derive(Debug)]
struct Bus(OutcomeSender);

#[async_trait::async_trait]
impl OutcomeBus for Bus {
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        let _ = self.0.send(outcomes);
        Ok(())
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.0.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_listens_for_nobody() {
    let outcomes = outcome_channel(8);
    let bus = Arc::new(Bus(outcomes.clone()));
    let scene = Scene::on(Backend { bus, ..Backend::memory() }, &[("a", 10)]).await;
    sleep(Duration::from_secs(1)).await;
    let engine = outcomes.receiver_count();
    for _ in 0..3 {
        let (mut one, mut all) = (scene.item("a"), scene.hub.items(None));
        let mut pulse = scene.hub.pulse();
        assert_eq!((available(&mut one).await, available(&mut all).await), (10, 10));
        next(&mut pulse).await;
        assert_eq!(outcomes.receiver_count(), engine + 2);
        drop((one, all, pulse));
        sleep(Duration::from_secs(62)).await;
        assert_eq!(outcomes.receiver_count(), engine);
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_are_lost_are_made_good() {
    let bus = Arc::new(Bus(outcome_channel(1)));
    let scene = Scene::on(Backend { bus, ..Backend::memory() }, &[("a", 100), ("b", 9)]).await;
    let mut stream = scene.item("a");
    assert_eq!(available(&mut stream).await, 100);
    for _ in 0..50 {
        scene.buy("a", 1).await;
        scene.buy("b", 9).await;
        scene.flux.put_item(ItemSpec::pool("b", 1_000).expect("pool")).await.expect("put");
    }
    let asked = Instant::now();
    while available(&mut stream).await != 50 {}
    assert!(asked.elapsed() < 2 * SOON, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_outcomes_is_made_good() {
    let outcomes = outcome_channel(8);
    let bus = Arc::new(Bus(outcomes.clone()));
    let backend = Backend::memory();
    let scene = Scene::on(Backend { bus, ..backend.clone() }, &[("a", 100)]).await;
    let mut stream = scene.item("a");
    assert_eq!(available(&mut stream).await, 100);
    // Bought elsewhere: the store knows, the outcomes here do not.
    let elsewhere = Flux::builder(backend).start();
    elsewhere.place(OrderRequest::units("bob", "a", 1).expect("order")).await.expect("placed");
    let asked = Instant::now();
    outcomes.send(Arc::new(Outcomes::gap())).expect("somebody listens");
    assert_eq!(available(&mut stream).await, 99);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_pulse_counts_orders_and_their_waits() {
    const MOMENT: Duration = Duration::from_millis(9);
    let scene = Scene::new(&[]).await;
    let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(5).build();
    scene.flux.put_item(capped.expect("pool")).await.expect("put");
    let mut first = scene.hub.pulse();
    let (name, quiet) = next(&mut first).await;
    assert_eq!(name, "pulse");
    let zero = r#"{"held":0,"rejected":0,"turned_away":0,"p50_ms":null,"p99_ms":null}"#;
    assert_eq!(quiet, serde_json::from_str::<Value>(zero).expect("JSON"));
    scene.buy("a", 5).await;
    scene.buy("a", 1).await;
    scene.hub.turned_away();
    let (_, pulse) = next(&mut first).await;
    assert_eq!((&pulse["held"], &pulse["rejected"]), (&1.into(), &1.into()));
    assert_eq!(pulse["turned_away"], 1);
    assert_eq!((&pulse["p50_ms"], &pulse["p99_ms"]), (&0.into(), &0.into()));
    // Whoever comes later hears of the last minute at once.
    let mut late = scene.hub.pulse();
    let asked = Instant::now();
    assert_eq!((next(&mut late).await.1, next(&mut late).await.1), (quiet, pulse));
    assert!(asked.elapsed() < MOMENT);
    for _ in 0..100 {
        next(&mut first).await;
    }
    let mut last = scene.hub.pulse();
    for _ in 0..60 {
        timeout(MOMENT, next(&mut last)).await.expect("a minute is kept");
    }
    assert!(timeout(MOMENT, next(&mut last)).await.is_err(), "and no more");
}
