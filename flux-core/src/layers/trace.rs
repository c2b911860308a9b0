//! A layer that logs each call and measures how long it took.

use std::error::Error;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tracing::{Instrument, debug, debug_span, warn};

use super::{Call, Layer};
use crate::seams::SeamError;

/// Wraps each call in a `seam` span and tells of its end at debug level, or at
/// warn level when it failed. (A bound that was reached did its work: debug.)
/// A call whose future is dropped leaves no trace but its span.
///
/// | metric | labels | what |
/// |---|---|---|
/// | `flux_seam_seconds` | `service`, `operation` | histogram of all calls |
/// | `flux_seam_errors_total` | `service`, `operation`, `error` | failed calls: `unavailable`, `unknown`, `overloaded`, `broken`, `unknown_cursor` |
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace;

impl Layer for Trace {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let service = call.operation.service().as_str();
        let operation = call.operation.as_str();
        let started = Instant::now();

        let answer = run().instrument(debug_span!("seam", service, operation)).await;

        let elapsed = started.elapsed();
        histogram!("flux_seam_seconds", "service" => service, "operation" => operation)
            .record(elapsed);
        match &answer {
            Ok(_) => debug!(service, operation, ?elapsed, "answered"),
            Err(error) => {
                counter!("flux_seam_errors_total", "service" => service,
                    "operation" => operation, "error" => kind(error))
                .increment(1);
                let source: &(dyn Error + 'static) = error;
                if matches!(error, SeamError::Overloaded { .. }) {
                    debug!(service, operation, ?elapsed, error = source, "turned away");
                } else {
                    warn!(service, operation, ?elapsed, error = source, "failed");
                }
            }
        }
        answer
    }
}

fn kind(error: &SeamError) -> &'static str {
    match error {
        SeamError::Unavailable { .. } => "unavailable",
        SeamError::Unknown { .. } => "unknown",
        SeamError::Overloaded { .. } => "overloaded",
        SeamError::Broken { .. } => "broken",
        SeamError::Stopped { .. } => "stopped",
        SeamError::UnknownCursor { .. } => "unknown_cursor",
        SeamError::ChangesGone { .. } => "changes_gone",
        SeamError::TooManyConsumers { .. } => "too_many_consumers",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        set_default_local_recorder,
    };
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Subscriber};

    use super::*;
    use crate::layers::testing::{Fake, backend};

    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<String>>>);

    impl Ear {
        fn hear(&self, what: impl Into<String>) {
            self.0.lock().expect("no panic").push(what.into());
        }
        fn metric(&self, key: &Key) {
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            self.hear(format!("{} {}", key.name(), labels.join(" ")));
        }
    }

    impl Recorder for Ear {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.metric(key);
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            self.metric(key);
            Histogram::noop()
        }
    }

    impl Subscriber for Ear {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == module_path!().trim_end_matches("::tests")
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.hear(format!("span {}", span.metadata().name()));
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.hear(match *event.metadata().level() {
                Level::DEBUG => "debug",
                Level::WARN => "warn",
                _ => "another level",
            });
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn calls_are_measured_and_only_failures_are_warned_of() {
        let full = SeamError::Overloaded { service: "queue", retry_after: Duration::from_secs(1) };
        let fake = Fake::failing([full, SeamError::unknown("store")]);
        let traced = backend(&fake).layered(Trace);

        let ear = Ear::default();
        let _metrics = set_default_local_recorder(&ear);
        let _log = tracing::subscriber::set_default(ear.clone());
        assert!(traced.queue.send(&[]).await.is_err());
        assert!(traced.store.commit(&[]).await.is_err());
        assert!(traced.store.commit(&[]).await.is_ok());

        assert_eq!(
            *ear.0.lock().expect("no panic"),
            [
                "span seam",
                "flux_seam_seconds queue send",
                "flux_seam_errors_total queue send overloaded",
                "debug",
                "span seam",
                "flux_seam_seconds store commit",
                "flux_seam_errors_total store commit unknown",
                "warn",
                "span seam",
                "flux_seam_seconds store commit",
                "debug",
            ]
        );
    }
}
