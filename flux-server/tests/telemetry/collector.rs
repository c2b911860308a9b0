//! A collector of spans: takes OTLP over HTTP and keeps it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::until;

/// A span as it came.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) ended_nanos: u64,
    pub(crate) attributes: HashMap<String, String>,
}

impl From<otlp::Span> for Span {
    fn from(span: otlp::Span) -> Self {
        let attribute = |KeyValue { key, value, .. }| {
            let text = match value.and_then(|value| value.value) {
                Some(any_value::Value::StringValue(text)) => text,
                other => format!("{other:?}"),
            };
            (key, text)
        };
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            ended_nanos: span.end_time_unix_nano,
            attributes: span.attributes.into_iter().map(attribute).collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All requests, each with its headers.
type Taken = Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>;

pub(crate) struct Collector {
    pub(crate) url: String,
    taken: Taken,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let taken = Taken::default();
        let (stop, stopped) = oneshot::channel();
        let (told, hears) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let takes = Arc::clone(&taken);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                told.send(listener.local_addr().expect("an address")).expect("somebody asks");
                tokio::select! {
                    () = collect(listener, takes) => {}
                    _ = stopped => {}
                }
            });
        });
        let url = format!("http://{}", hears.recv().expect("it listens"));
        Self { url, taken, stop: Some(stop), thread: Some(thread) }
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.taken.lock().expect("no panic").clone();
        let resources = requests.into_iter().flat_map(|(_, request)| request.resource_spans);
        let spans = resources.flat_map(|of| of.scope_spans).flat_map(|scope| scope.spans);
        spans.map(Span::from).collect()
    }

    /// Waits for the span of this name that is a child of `parent`.
    #[track_caller]
    pub(crate) fn child(&self, parent: &str, name: &str) -> Span {
        let is_it = |span: &Span| span.parent == parent && span.name == name;
        until(&format!("{name} below {parent}"), || self.spans().into_iter().find(is_it))
    }

    /// Waits for the span of a request.
    #[track_caller]
    pub(crate) fn request(&self, id: &str) -> Span {
        let is_it =
            |span: &Span| span.attributes.get("request_id").is_some_and(|found| found == id);
        until(&format!("request {id}"), || self.spans().into_iter().find(is_it))
    }

    /// A header of the first request.
    pub(crate) fn header(&self, name: &str) -> String {
        let taken = self.taken.lock().expect("no panic");
        let (headers, _) = taken.first().expect("something came");
        headers.get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    }

    /// Everything that came, as text.
    pub(crate) fn text(&self) -> String {
        let taken = self.taken.lock().expect("no panic");
        taken.iter().map(|(_, request)| format!("{request:?}")).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the collector failed");
    }
}

async fn collect(listener: TcpListener, taken: Taken) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let take = service_fn(|request| take(Arc::clone(&taken), request));
        let http = hyper::server::conn::http1::Builder::new();
        // One at a time: the exporter sends batch after batch.
        if let Err(error) = http.serve_connection(TokioIo::new(socket), take).await {
            eprintln!("collector: {error}");
        }
    }
}

async fn take(
    taken: Taken,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let spans = ExportTraceServiceRequest::decode(body).expect("protobuf");
    taken.lock().expect("no panic").push((head.headers, spans));
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    Ok(Response::new(Full::new(answer.into())))
}
