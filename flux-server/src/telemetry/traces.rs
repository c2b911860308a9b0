//! Spans of requests, and their way to a collector: OTLP over HTTP, as
//! OpenTelemetry's environment variables say.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Empty;
use tracing::{Span, Subscriber, debug_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::TelemetryError;
use super::collector::Collector;

/// The exporter of spans, if the environment names a collector.
pub(super) fn provider() -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default();
    if endpoint.is_empty() {
        return Ok(None);
    }
    if !endpoint.starts_with("http://") {
        let why = "spans are sent without TLS, so to a collector nearby";
        return Err(TelemetryError::Endpoint(why.to_owned()));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new())
        .build()
        .map_err(|error| TelemetryError::Endpoint(error.to_string()))?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    let provider = SdkTracerProvider::builder().with_resource(resource.build());
    Ok(Some(provider.with_batch_exporter(exporter).build()))
}

/// Turns the spans of Flux into OpenTelemetry's.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("flux", LevelFilter::DEBUG))
}

/// The span of a request, which continues the caller's trace if it named one
/// (W3C `traceparent`). Enter it while the request is answered. Costs one look
/// at a flag while nobody wants it.
#[must_use]
pub fn request_span(parts: &Parts, route: &'static str, request_id: &HeaderValue) -> Span {
    let span = debug_span!(
        target: "flux",
        "request",
        otel.name = route,
        otel.kind = "server",
        otel.status_code = Empty,
        http.route = route,
        http.request.method = parts.method.as_str(),
        http.response.status_code = Empty,
        request_id = request_id.to_str().unwrap_or_default(),
    );
    if !span.is_disabled() {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Headers(&parts.headers));
        // Without a collector there is no trace to continue.
        let _ = span.set_parent(caller);
    }
    span
}

/// Says in a request's span how it was answered.
pub fn answered(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
