//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flux_core::{Error, Flux, Role};
use http::HeaderValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::api::route::Route;
use crate::auth::Auth;
use crate::events::Hub;
use crate::http::problem::Problem;
use crate::limit::Limits;
use crate::setup::config::{Command, Config, Secret};
use crate::telemetry::{Figures, Http};

/// One running server.
pub struct App {
    /// The sale.
    pub(crate) flux: Flux,
    /// Whether this process decides orders itself.
    pub(crate) role: Role,
    /// Who may do what.
    pub(crate) auth: Auth,
    /// How often.
    pub(crate) limits: Limits,
    /// Those who watch.
    pub(crate) hub: Hub,
    /// What is counted of requests and connections.
    pub(crate) http: Http,
    /// What `/metrics` tells.
    pub(crate) figures: Figures,
    /// Whose pages may call `/v1`.
    pub(crate) cors_origin: Option<HeaderValue>,
    /// Bounds and times.
    pub(crate) bounds: Bounds,
    /// Only health and metrics are answered.
    pub(crate) operations_only: bool,
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    // The same, for those who only look: looking into a channel takes a lock.
    is_draining: AtomicBool,
    is_closing: AtomicBool,
    requests: AtomicUsize,
    none_left: Notify,
    streams: Arc<Semaphore>,
    inventories: Arc<Semaphore>,
    halls: Arc<Semaphore>,
}

/// Lists of all owners being written at once.
const INVENTORIES_MAX: usize = 4;
/// Seats of whole halls being written at once; the largest has 4 MB.
const HALLS_MAX: usize = 64;

/// Bounds and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// Requests being answered at once.
    pub(crate) requests_max: usize,
    /// Time a request's head may take.
    pub(crate) head: Duration,
    /// Time a request's body may take.
    pub(crate) body: Duration,
    /// Time a connection may be idle, or a peer not read its answer.
    pub(crate) idle: Duration,
}

/// The server, as one request has it: a place among those being answered, given
/// back when dropped.
pub(crate) struct RequestPermit(Arc<App>);

impl App {
    /// A server for `flux`.
    #[must_use]
    pub fn new(flux: Flux, config: &Config, figures: Figures) -> Self {
        let draining = watch::Sender::new(false);
        let (operator, buyers) = (config.operator_token(), config.buyer_jwt_secret());
        Self {
            role: config.command.role(),
            auth: Auth::new(
                operator.as_ref().map(Secret::reveal),
                buyers.as_ref().map(Secret::reveal),
            ),
            limits: Limits::new(config.limit_per_buyer, config.limit_per_peer),
            cors_origin: config.cors_origin.clone(),
            bounds: Bounds {
                connections_max: config.connections_max,
                requests_max: config.requests_max,
                head: config.head_timeout,
                body: config.body_timeout,
                idle: config.idle_timeout,
            },
            operations_only: config.command == Command::Worker,
            http: Http::new(Route::ALL.map(Route::name)),
            figures,
            hub: Hub::start(flux.clone(), draining.subscribe()),
            flux,
            draining,
            closing: watch::Sender::new(false),
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            none_left: Notify::new(),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            inventories: Arc::new(Semaphore::new(INVENTORIES_MAX)),
            halls: Arc::new(Semaphore::new(HALLS_MAX)),
        }
    }

    /// Turns new orders away: `/readyz` says so first, then waits and streams
    /// end, and each connection with its next answer.
    pub fn start_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.draining.send_replace(true);
    }

    /// Ends the connections that are idle.
    pub fn start_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.closing.send_replace(true);
    }

    /// Whether it is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Whether connections that are idle are ended.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Waits until it stops. Cancel-safe.
    pub fn draining(&self) -> impl Future<Output = ()> + use<> {
        becomes_true(self.draining.subscribe())
    }

    /// Waits until connections that are idle are ended. Cancel-safe.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        becomes_true(self.closing.subscribe())
    }

    /// `work`, or `None` once the server stops.
    pub(crate) async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.draining() => None,
        }
    }

    /// Counts an order that was turned away.
    pub(crate) fn note(&self, error: &Error) {
        if matches!(error, Error::SoldOut(_)) {
            self.hub.turned_away();
        }
    }

    /// A place among the requests being answered.
    pub(crate) fn request(self: &Arc<Self>) -> Result<RequestPermit, Problem> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let place = RequestPermit(Arc::clone(self));
        match before < self.bounds.requests_max {
            true => Ok(place),
            false => Err(Problem::unavailable("too many requests at once; nothing was accepted")),
        }
    }

    /// A place among the streams.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        one_of(&self.streams, "too many streams at once")
    }

    /// A place among the lists of all owners.
    pub(crate) fn inventory(&self) -> Result<OwnedSemaphorePermit, Problem> {
        one_of(&self.inventories, "too many read the inventory at once")
    }

    /// A place among the lists of seats.
    pub(crate) fn hall(&self) -> Result<OwnedSemaphorePermit, Problem> {
        one_of(&self.halls, "too many read seats at once")
    }

    /// Requests being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Waits until no request is being answered, its caller there or not.
    /// Cancel-safe.
    pub async fn finished(&self) {
        while self.requests() > 0 {
            self.none_left.notified().await;
        }
    }
}

async fn becomes_true(mut told: watch::Receiver<bool>) {
    // Without a sender there is no server left to wait for.
    let _ = told.wait_for(|told| *told).await.map(drop);
}

fn one_of(places: &Arc<Semaphore>, beyond: &'static str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Problem::unavailable(beyond))
}

impl RequestPermit {
    /// The server alone, for what goes on after the answer began.
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.0)
    }
}

impl std::ops::Deref for RequestPermit {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_one();
        }
    }
}
