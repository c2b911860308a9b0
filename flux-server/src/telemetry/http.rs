//! Requests by route and status, and how long they took; connections. All
//! handles are made once, so that a request looks nothing up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::StatusCode;
use metrics::{Counter, Histogram};

/// The statuses the server gives, then one for all others.
const STATUSES: [u16; 21] = [
    200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422, 429, 431,
    500, 503,
];

/// Counters of requests and connections.
#[derive(Debug)]
pub struct Http {
    routes: Vec<Route>,
    connections: AtomicU64,
}

#[derive(Debug)]
struct Route {
    name: &'static str,
    seconds: OnceLock<Histogram>,
    requests: [OnceLock<Counter>; STATUSES.len() + 1],
}

/// A connection while it is open.
#[derive(Debug)]
pub struct Open(Arc<Http>);

/// A request while it is being answered.
#[derive(Debug)]
pub struct Answering<'h> {
    http: &'h Http,
    started: Instant,
}

impl Http {
    /// Counters for routes of these names, which are then known by their
    /// index, and for requests that are to none.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let route = |name| Route {
            name,
            seconds: OnceLock::new(),
            requests: [const { OnceLock::new() }; _],
        };
        let routes = names.into_iter().chain(["none"]).map(route).collect();
        Self { routes, connections: AtomicU64::new(0) }
    }

    /// Counts a connection until it is dropped.
    #[must_use]
    pub fn open(self: Arc<Self>) -> Open {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    /// Begins to measure a request, whose head is there.
    pub fn start(&self) -> Answering<'_> {
        Answering { http: self, started: Instant::now() }
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Answering<'_> {
    /// Counts the answer. `route` is the index of its name, `None` when the
    /// request was to none.
    pub fn answered(self, route: Option<usize>, status: StatusCode) {
        let none = self.http.routes.len() - 1;
        let route = &self.http.routes[route.map_or(none, |index| index.min(none))];
        let seconds = route.seconds.get_or_init(
            || metrics::histogram!("flux_http_request_seconds", "route" => route.name),
        );
        seconds.record(self.started.elapsed());
        let status = status.as_u16();
        let index = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        let requests = route.requests[index].get_or_init(|| {
            let status = STATUSES.get(index).map_or("other".into(), u16::to_string);
            metrics::counter!("flux_http_requests_total", "route" => route.name, "status" => status)
        });
        requests.increment(1);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
