//! The metrics and spans of orders as an application's recorder and subscriber
//! see them.

mod ill_store;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use flux_core::{Backend, Error, Flux, ItemSpec, OrderId, OrderRequest};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Record};
use tracing::{Instrument, Subscriber, info_span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use self::ill_store::{Fails, IllStore};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const MINUTE: Duration = Duration::from_secs(60);

fn one(buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request")
}

async fn sale(capacity: u64) -> Result<Flux> {
    let flux = Flux::builder(Backend::memory()).start();
    flux.put_item(ItemSpec::pool("a", capacity)?).await?;
    Ok(flux)
}

type Samples = Arc<Mutex<Vec<(String, f64)>>>;

#[derive(Clone, Default)]
struct Recorded(Samples);

struct Named(String, Samples);

impl HistogramFn for Named {
    fn record(&self, value: f64) {
        self.1.lock().expect("no panic").push((self.0.clone(), value));
    }
}

impl CounterFn for Named {
    fn increment(&self, value: u64) {
        self.record(value as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!("counters are only incremented");
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|label| format!(" {}", label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        self.begin(&name);
        Counter::from_arc(Arc::new(Named(name, self.0.clone())))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.begin(key.name());
        Histogram::from_arc(Arc::new(Named(key.name().to_owned(), self.0.clone())))
    }
}

impl Recorded {
    fn begin(&self, name: &str) {
        self.0.lock().expect("no panic").push((format!("begin {name}"), 0.0));
    }

    fn of(&self, name: &str) -> Vec<f64> {
        let samples = self.0.lock().expect("no panic");
        samples.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn acceptances_and_decisions_are_measured_and_nothing_else() -> Result {
    let _ = spans();
    let recorded = Recorded::default();
    let _metrics = metrics::set_default_local_recorder(&recorded);
    let flux = sale(3).await?;
    let placed = flux.place(one("ann")).await?;
    let queued = flux.submit(one("bob")).await?;
    flux.wait(queued.id, MINUTE).await?;
    flux.place(one("bob").with_id(queued.id)).await?;
    flux.submit(one("bob").with_id(queued.id)).await?;
    flux.release(placed.id).await?;
    flux.shutdown().await;
    assert_eq!(recorded.of("flux_accept_seconds").len(), 1);
    let decided = recorded.of("flux_decide_seconds");
    assert_eq!(decided.len(), 2);
    assert!(decided.iter().all(|seconds| (0.0..60.0).contains(seconds)), "{decided:?}");
    Ok(())
}

#[tokio::test]
async fn every_series_whose_labels_are_known_begins_before_its_first_event() {
    let _ = spans();
    let recorded = Recorded::default();
    let _metrics = metrics::set_default_local_recorder(&recorded);
    let _flux = Flux::builder(Backend::memory()).start();
    let begun = |name: &str| !recorded.of(&format!("begin {name}")).is_empty();
    let known = ["flux_orders_total held", "flux_fenced_total", "flux_decide_seconds"];
    assert_eq!(known.map(begun), [true; 3]);
    let unknown = ["flux_orders_total", "flux_orders_total queued", "flux_seam_seconds"];
    assert_eq!(unknown.map(begun), [false; 3]);
}

#[tokio::test(start_paused = true)]
async fn orders_are_counted_by_the_status_they_came_to_have() -> Result {
    let _ = spans();
    let recorded = Recorded::default();
    let _metrics = metrics::set_default_local_recorder(&recorded);
    let flux = sale(3).await?;
    for _ in 0..3 {
        flux.place(one("ann")).await?;
    }
    flux.put_item(ItemSpec::pool("a", 4)?).await?;
    let queued = flux.submit(one("bob")).await?;
    flux.wait(queued.id, MINUTE).await?;
    flux.release(queued.id).await?;
    flux.shutdown().await;
    let count =
        |status: &str| recorded.of(&format!("flux_orders_total {status}")).iter().sum::<f64>();
    let counts = ["held", "released", "rejected", "confirmed"].map(count);
    assert_eq!(counts, [4.0, 1.0, 0.0, 0.0]);
    assert_eq!(recorded.of("flux_unpublished_total").iter().sum::<f64>(), 0.0);
    Ok(())
}

/// A span that ended: its name with its parents', and its fields.
type Ended = (String, HashMap<&'static str, String>);

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Ended>>>);

#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, id: &tracing::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        context.span(id).expect("it is new").extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &tracing::Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it is open");
        values.record(span.extensions_mut().get_mut::<Fields>().expect("made with it"));
    }

    fn on_close(&self, id: tracing::Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("it is closing");
        let path: Vec<_> = span.scope().from_root().map(|span| span.name()).collect();
        let Fields(fields) = span.extensions_mut().remove().expect("made with it");
        self.0.lock().expect("no panic").push((path.join("/"), fields));
    }
}

/// The subscriber of the process. Each test sets it first: a span that is met
/// before there is one stays off.
fn spans() -> Spans {
    static SPANS: LazyLock<Spans> = LazyLock::new(|| {
        let spans = Spans::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        tracing::subscriber::set_global_default(subscriber).expect("there is no other");
        spans
    });
    SPANS.clone()
}

#[tokio::test(start_paused = true)]
async fn one_trace_leads_from_the_request_to_the_decision() -> Result {
    let spans = spans();
    let flux = sale(2).await?;
    let placed = flux.place(one("ann")).instrument(info_span!("request")).await?;
    let queued = flux.submit(one("bob")).instrument(info_span!("request")).await?;
    flux.wait(queued.id, MINUTE).await?;
    flux.shutdown().await;

    let ended = spans.0.lock().expect("no panic").clone();
    for (path, order) in [("request/place", placed.id), ("request/submit", queued.id)] {
        for (path, status) in [(path.into(), None), (format!("{path}/decide"), Some("held"))] {
            let (_, fields) = ended.iter().find(|(p, _)| *p == path).expect(&path);
            assert_eq!(fields["order"], order.to_string());
            assert_eq!(fields.get("status").map(String::as_str), status);
            assert_eq!(fields.contains_key("waited_seconds"), status.is_some());
        }
    }
    let told: String = ended.iter().flat_map(|(_, fields)| fields.values().cloned()).collect();
    assert!(!told.contains("ann") && !told.contains("bob"), "{told}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_was_never_written_is_no_decision_in_its_span() -> Result {
    let spans = spans();
    let backend = Backend::memory();
    let order = OrderId::new();
    let (store, illness) = IllStore::around(backend.store);
    illness.of_order(order, Fails::Call);
    let flux = Flux::builder(Backend { store, ..backend }).start();
    flux.put_item(ItemSpec::pool("a", 1)?).await?;
    let placed = flux.place(one("eve").with_id(order)).instrument(info_span!("failing")).await;
    assert!(matches!(placed, Err(Error::OutcomePending(id)) if id == order), "{placed:?}");
    flux.shutdown().await;
    let ended = spans.0.lock().expect("no panic").clone();
    let (_, fields) = ended.iter().find(|(p, _)| p == "failing/place/decide").expect("it ended");
    assert_eq!(fields["status"], "unsettled");
    Ok(())
}
