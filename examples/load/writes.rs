//! How many orders share a write, as the engine's own metric has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Counts the embedded store's writes, and the orders in them.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    writes: AtomicU64,
    orders: AtomicU64,
}

impl HistogramFn for Writes {
    fn record(&self, orders: f64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.orders.fetch_add(orders as u64, Ordering::Relaxed);
    }
}

impl Writes {
    /// Orders in a write since the last call.
    pub(crate) fn batch(&self) -> f64 {
        let writes = self.writes.swap(0, Ordering::Relaxed).max(1);
        self.orders.swap(0, Ordering::Relaxed) as f64 / writes as f64
    }
}

/// Hears of one metric only.
pub(crate) struct Metrics(pub(crate) Arc<Writes>);

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        match key.name() {
            "flux_commit_orders" => metrics::Histogram::from_arc(Arc::clone(&self.0)),
            _ => metrics::Histogram::noop(),
        }
    }
}
