//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_core::{Flux, Role};
use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::Auth;
use crate::config::{Config, Half};
use crate::limit::Limits;
use crate::problem::Problem;

/// One running server.
pub struct App {
    /// The sale.
    pub flux: Flux,
    /// Whether this process decides orders itself.
    pub role: Role,
    /// Who may do what.
    pub auth: Auth,
    /// How often.
    pub limits: Limits,
    /// Whose pages may call `/v1`.
    pub cors_origin: Option<HeaderValue>,
    /// Bounds and times.
    pub bounds: Bounds,
    /// Only health and metrics are answered.
    pub operations_only: bool,
    phase: watch::Sender<Phase>,
    requests: AtomicUsize,
    streams: Arc<Semaphore>,
}

/// From the first connection to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Takes connections and orders.
    Open,
    /// Takes neither, answers what is there.
    Draining,
    /// Ends connections that wait for nothing.
    Closing,
}

/// Bounds and times.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once.
    pub connections_max: usize,
    /// Requests being answered at once.
    pub requests_max: usize,
    /// Time a request's head may take.
    pub head: Duration,
    /// Time a request's body may take.
    pub body: Duration,
    /// Time a connection may be idle, or a peer not read its answer.
    pub idle: Duration,
}

/// Something of which there may be so many at once; given back when dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a AtomicUsize);

impl App {
    /// A server for `flux`.
    #[must_use]
    pub fn new(flux: Flux, config: &Config) -> Self {
        let (operator, buyers) = (config.operator_token(), config.buyer_jwt_secret());
        Self {
            flux,
            role: if config.half == Half::Api { Role::AcceptOnly } else { Role::Both },
            auth: Auth::new(
                operator.as_ref().map(|token| token.reveal()),
                buyers.as_ref().map(|secret| secret.reveal()),
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
            operations_only: config.half == Half::Worker,
            phase: watch::Sender::new(Phase::Open),
            requests: AtomicUsize::new(0),
            streams: Arc::new(Semaphore::new(config.streams_max)),
        }
    }

    /// Turns new orders away: `/readyz` says so first, then waits and streams
    /// end, and each connection with its next answer.
    pub fn start_draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Ends the connections that are idle.
    pub fn start_closing(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Whether it is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }

    /// Waits until it stops. Cancel-safe.
    pub fn draining(&self) -> impl Future<Output = ()> + use<> {
        self.reached(|phase| phase != Phase::Open)
    }

    /// Waits until connections that are idle are ended. Cancel-safe.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.reached(|phase| phase == Phase::Closing)
    }

    fn reached(&self, here: fn(Phase) -> bool) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // Without a sender there is no server left to stop.
            let _ = phase.wait_for(|phase| here(*phase)).await.map(drop);
        }
    }

    /// `work`, or `None` once the server stops.
    pub async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.draining() => None,
        }
    }

    /// A place among the requests being answered.
    pub fn request(&self) -> Result<Place<'_>, Problem> {
        place(&self.requests, self.bounds.requests_max)
            .ok_or_else(|| Problem::unavailable("too many requests at once; nothing was accepted"))
    }

    /// A place among the streams.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| Problem::unavailable("too many streams at once"))
    }

    /// Requests being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn place(taken: &AtomicUsize, most: usize) -> Option<Place<'_>> {
    let before = taken.fetch_add(1, Ordering::Relaxed);
    let place = Place(taken);
    (before < most).then_some(place)
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
