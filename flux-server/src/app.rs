//! The state that all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flux_core::{Error, Flux, Role};
use http::HeaderValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use crate::auth::Auth;
use crate::events::Hub;
use crate::http::problem::Problem;
use crate::limit::Limits;
use crate::setup::config::{Command, Config, Secret};
use crate::shutdown::Shutdown;
use crate::telemetry::{Figures, Http};

/// One running server.
pub struct App {
    /// The sale.
    pub(crate) flux: Flux,
    /// The engine's role: whether this process decides orders itself.
    pub(crate) role: Role,
    /// Tokens, and what they allow.
    pub(crate) auth: Auth,
    /// Rates of buyers and peers.
    pub(crate) limits: Limits,
    /// The source of event streams.
    pub(crate) hub: Hub,
    /// Counts requests and connections.
    pub(crate) http: Arc<Http>,
    /// The figures of `/metrics`.
    pub(crate) figures: Figures,
    /// The origin whose pages may call `/v1`.
    pub(crate) cors_origin: Option<HeaderValue>,
    /// Bounds and times.
    pub(crate) bounds: Bounds,
    /// Whether only health and metrics are answered.
    pub(crate) operations_only: bool,
    /// The signals that stop it.
    pub(crate) shutdown: Arc<Shutdown>,
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

/// The server, as one request has it: one of the permits to be answered, given
/// back when dropped.
pub(crate) struct RequestPermit(Arc<App>);

impl App {
    /// A server for `flux`, whose calls are counted by `http`.
    #[must_use]
    pub fn new(flux: Flux, config: &Config, figures: Figures, http: Http) -> Self {
        let shutdown = Arc::new(Shutdown::default());
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
            http: Arc::new(http),
            figures,
            hub: Hub::start(flux.clone(), shutdown.watch_draining()),
            flux,
            shutdown,
            requests: AtomicUsize::new(0),
            none_left: Notify::new(),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            inventories: Arc::new(Semaphore::new(INVENTORIES_MAX)),
            halls: Arc::new(Semaphore::new(HALLS_MAX)),
        }
    }

    /// The signals that stop it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// `work`, or `None` once the server stops.
    pub(crate) async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.shutdown.draining() => None,
        }
    }

    /// Counts an order that was turned away.
    pub(crate) fn note(&self, error: &Error) {
        if matches!(error, Error::SoldOut(_)) {
            self.hub.turned_away();
        }
    }

    /// A permit to be answered.
    pub(crate) fn request(self: &Arc<Self>) -> Result<RequestPermit, Problem> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let permit = RequestPermit(Arc::clone(self));
        match before < self.bounds.requests_max {
            true => Ok(permit),
            false => Err(Problem::unavailable("too many requests at once; nothing was accepted")),
        }
    }

    /// A permit to stream.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        one_of(&self.streams, "too many streams at once")
    }

    /// A permit to list all owners.
    pub(crate) fn inventory(&self) -> Result<OwnedSemaphorePermit, Problem> {
        one_of(&self.inventories, "too many read the inventory at once")
    }

    /// A permit to list seats.
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

fn one_of(permits: &Arc<Semaphore>, beyond: &'static str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(permits).try_acquire_owned().map_err(|_| Problem::unavailable(beyond))
}

impl RequestPermit {
    /// The server alone, for what goes on after the answer began.
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.0)
    }

    /// Runs what must be finished even if the caller hangs up. It keeps this
    /// permit, so that the request counts and the server's stop waits for it.
    ///
    /// # Panics
    /// When `work` does.
    pub(crate) async fn finish<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let work = async move {
            let done = work.await;
            drop(self);
            done
        };
        match tokio::spawn(work.in_current_span()).await {
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use flux_core::Backend;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::setup::config::LogFormat;
    use crate::telemetry::Telemetry;

    #[tokio::test(start_paused = true)]
    async fn the_stop_waits_for_work_whose_caller_hung_up() {
        let flux = Flux::builder(Backend::memory()).start();
        let figures = Telemetry::start(LogFormat::Text).expect("the first").figures();
        let app =
            Arc::new(App::new(flux, &Config::parse_from(["flux-server"]), figures, Http::new([])));
        let (end, ended) = oneshot::channel();
        let asked = app.request().expect("a permit").finish(ended);
        let short = Duration::from_millis(1);
        assert!(timeout(short, asked).await.is_err());
        assert_eq!(app.requests(), 1);
        assert!(timeout(short, app.finished()).await.is_err());
        end.send(()).expect("it is waited for");
        app.finished().await;
        assert_eq!(app.requests(), 0);
    }
}
