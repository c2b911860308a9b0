//! The state that all handlers share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flux_core::backends::embedded::Embedded;
use flux_core::{Error, Flux, Role};
use http::HeaderValue;
use tokio::sync::Notify;
use tracing::Instrument;

use crate::auth::{Auth, BuyerTokens};
use crate::events::Hub;
use crate::http::problem::Problem;
use crate::limit::{Limits, Peer, Peers, Place, Places, Share, Use};
use crate::listed::Listed;
use crate::recent::Recent;
use crate::setup::config::{BackendKind, Command, Config};
use crate::setup::secret::Secret;
use crate::shutdown::Shutdown;
use crate::telemetry::{Figures, Http};
use crate::webhooks::{Webhook, Webhooks};

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
    /// A copy of the list of items, where reading it costs.
    pub(crate) listed: Option<Arc<Listed>>,
    /// Those who are connected, or named by a proxy that is.
    pub(crate) peers: Arc<Peers>,
    /// Connections.
    pub(crate) connections: Arc<Places>,
    /// Connections beyond those, which are told so.
    pub(crate) turned_away: Arc<Places>,
    /// Connections to the address of health and metrics. No other limit is asked there.
    pub(crate) ops_connections: Arc<Places>,
    /// The source of event streams.
    pub(crate) hub: Hub,
    /// Counts requests and connections.
    pub(crate) http: Arc<Http>,
    /// The figures of `/metrics`.
    pub(crate) figures: Figures,
    /// The figures as they were told last.
    pub(crate) rendered: Recent<Bytes>,
    /// Whether the backends worked when last asked, or why not.
    pub(crate) readiness: Recent<Result<(), &'static str>>,
    /// The origins whose pages may call `/v1`.
    pub(crate) cors_origins: Vec<HeaderValue>,
    /// Bounds and times.
    pub(crate) bounds: Bounds,
    /// Whether only health and metrics are answered.
    pub(crate) operations_only: bool,
    /// Whether those have an address of their own, and are answered nowhere else.
    pub(crate) ops_apart: bool,
    /// The signals that stop it.
    pub(crate) shutdown: Arc<Shutdown>,
    requests: Places,
    none_left: Notify,
    bodies: Arc<Places>,
    batches: Arc<Places>,
    streams: Arc<Places>,
    inventories: Arc<Places>,
    halls: Arc<Places>,
    backups: Arc<Places>,
    audits: Arc<Places>,
    archives: Arc<Places>,
    /// The directory that archives are made in.
    pub(crate) archive_dir: PathBuf,
    /// The store that can be copied, if it is in files here.
    pub(crate) embedded: Option<Arc<Embedded>>,
    /// Those that are told of every change.
    pub(crate) webhooks: Arc<[Webhook]>,
}

/// Most streams of one address: a change is written to all of them at once, and
/// whoever orders then waits for that.
const STREAMS_PER_PEER: usize = 256;
/// Batches of orders at once, from before their bodies are read; the largest has 1 MiB.
const BATCHES_MAX: usize = 64;
/// Lists of all owners being written at once.
const INVENTORIES_MAX: usize = 8;
/// Seats of whole halls being written at once; the largest has 13 MB.
const HALLS_MAX: usize = 64;
/// Copies of the store being read at once: while one is, the file can't use pages again.
const BACKUPS_MAX: usize = 1;
/// Recounts of the store at once: each reads all orders.
const AUDITS_MAX: usize = 1;
/// Archives being made at once.
const ARCHIVES_MAX: usize = 1;
/// Connections beyond the limits that are told so, or asked of health, at once.
pub const TURNED_AWAY_MAX: usize = 128;
/// Connections to the address of health and metrics.
pub const OPS_CONNECTIONS_MAX: usize = 64;

/// Bounds and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Time a request's head may take.
    pub(crate) head: Duration,
    /// Time a request's body may take.
    pub(crate) body: Duration,
    /// Bytes of an item's definition.
    pub(crate) item_body_max: usize,
    /// Time a connection may be idle.
    pub(crate) idle: Duration,
}

/// The server, as one request has it: one of the permits to be answered, given
/// back when dropped.
pub(crate) struct RequestPermit {
    app: Arc<App>,
    peer: Peer,
}

/// A request whose body has not come yet. It has a place among those, and none
/// among the requests being answered.
pub(crate) struct BodyPermit {
    app: Arc<App>,
    place: Place,
}

impl App {
    /// A server for `flux`, whose calls are counted by `http`.
    #[must_use]
    pub fn new(flux: Flux, config: &Config, figures: Figures, http: Http) -> Self {
        let shutdown = Arc::new(Shutdown::default());
        let places = |for_what, max| Places::new(for_what, max, Share::AsManyAsAreFree);
        let shared = |for_what, max| Arc::new(places(for_what, max));
        Self {
            role: config.command.role(),
            auth: Auth::new(
                config.operator_token.as_ref().map(Secret::reveal),
                config.buyer_jwt_secret.as_ref().map(|secret| BuyerTokens {
                    secret: secret.reveal(),
                    audience: config.buyer_jwt_audience.as_deref(),
                    issuer: config.buyer_jwt_issuer.as_deref(),
                }),
            ),
            limits: Limits::new(config.limit_per_buyer, config.limit_per_peer),
            cors_origins: config.cors_origins.clone(),
            bounds: Bounds {
                head: config.head_timeout,
                body: config.body_timeout,
                item_body_max: config.item_body_max,
                idle: config.idle_timeout,
            },
            operations_only: config.command == Command::Worker,
            ops_apart: config.ops_listen.is_some(),
            http: Arc::new(http),
            figures,
            rendered: Recent::default(),
            readiness: Recent::default(),
            listed: (config.backend() == BackendKind::Aws).then(Arc::default),
            hub: Hub::start(flux.clone(), shutdown.watch_draining()),
            flux,
            shutdown,
            peers: Arc::new(Peers::new(config.trusted_proxies.clone())),
            connections: Arc::new(Places::new(
                Use::Connection,
                config.connections_max,
                Share::AtMost(config.connections_per_peer()),
            )),
            turned_away: shared(Use::TurnedAway, TURNED_AWAY_MAX),
            ops_connections: shared(Use::Operations, OPS_CONNECTIONS_MAX),
            requests: places(Use::Request, config.requests_max),
            none_left: Notify::new(),
            bodies: shared(Use::Body, config.requests_max),
            batches: shared(Use::Batch, BATCHES_MAX),
            streams: Arc::new(Places::new(
                Use::Stream,
                config.streams_max,
                Share::AsManyAsAreFreeUpTo(STREAMS_PER_PEER),
            )),
            inventories: shared(Use::Inventory, INVENTORIES_MAX),
            halls: shared(Use::Hall, HALLS_MAX),
            backups: shared(Use::Backup, BACKUPS_MAX),
            audits: shared(Use::Audit, AUDITS_MAX),
            archives: shared(Use::Archive, ARCHIVES_MAX),
            archive_dir: config.archive_dir(),
            embedded: None,
            webhooks: Arc::default(),
        }
    }

    /// The same server, which gives out copies of this store of its engine.
    #[must_use]
    pub fn with_store(self, embedded: Option<Arc<Embedded>>) -> Self {
        Self { embedded, ..self }
    }

    /// The same server, which tells how these webhooks stand.
    #[must_use]
    pub fn with_webhooks(self, webhooks: &Webhooks) -> Self {
        Self { webhooks: webhooks.all(), ..self }
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
        if error.is_of_the_gate() {
            self.hub.turned_away();
        }
    }

    /// A permit for a request of `peer`'s to be answered.
    pub(crate) fn request(self: &Arc<Self>, peer: Peer) -> Result<RequestPermit, Problem> {
        let entered = self.requests.enter(&peer);
        let permit = RequestPermit { app: Arc::clone(self), peer };
        entered.then_some(permit).ok_or_else(|| beyond("too many requests at once"))
    }

    /// Requests being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.taken()
    }

    /// Waits until no request is being answered, its caller there or not.
    /// Cancel-safe.
    pub async fn finished(&self) {
        while self.requests() > 0 {
            self.none_left.notified().await;
        }
    }
}

/// The answer where there is no place left for this peer.
fn beyond(detail: &'static str) -> Problem {
    Problem::unavailable(format!("{detail}, in all or from this address; nothing was accepted"))
}

impl RequestPermit {
    /// The server alone, for what goes on after the answer began.
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// A permit to stream.
    pub(crate) fn stream(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.streams, "too many streams at once")
    }

    /// A permit to place many orders at once.
    pub(crate) fn batch(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.batches, "too many batches at once")
    }

    /// A permit to list all owners.
    pub(crate) fn inventory(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.inventories, "too many read the inventory at once")
    }

    /// A permit to list seats.
    pub(crate) fn hall(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.halls, "too many read seats at once")
    }

    /// A permit to copy the store.
    pub(crate) fn backup(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.backups, "another backup is being read")
    }

    /// A permit to count the store anew.
    pub(crate) fn audit(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.audits, "another audit is on its way")
    }

    /// A permit to make an archive.
    pub(crate) fn archive(&self) -> Result<Place, Problem> {
        self.one_of(&self.app.archives, "another archive is being made")
    }

    /// Counts another request of this peer's, that came within this one.
    pub(crate) fn count_another(&self) -> Result<(), Problem> {
        self.app.limits.peer(&self.peer)
    }

    fn one_of(&self, places: &Arc<Places>, detail: &'static str) -> Result<Place, Problem> {
        places.take(&self.peer).ok_or_else(|| beyond(detail))
    }

    /// Leaves its place to others until the body is there.
    pub(crate) fn wait_for_body(self) -> Result<BodyPermit, Problem> {
        let place = self.one_of(&self.app.bodies, "too many requests wait for their bodies")?;
        Ok(BodyPermit { app: self.app(), place })
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
        &self.app
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.app.requests.leave(&self.peer) == 0 {
            self.app.none_left.notify_one();
        }
    }
}

impl BodyPermit {
    /// A permit to be answered, now that the body is there.
    pub(crate) fn go_on(self) -> Result<RequestPermit, Problem> {
        self.app.request(self.place.peer().clone())
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
        let peer = app.peers.of([127, 0, 0, 1].into());
        let asked = app.request(peer).expect("a permit").finish(ended);
        let short = Duration::from_millis(1);
        assert!(timeout(short, asked).await.is_err());
        assert_eq!(app.requests(), 1);
        assert!(timeout(short, app.finished()).await.is_err());
        end.send(()).expect("it is waited for");
        app.finished().await;
        assert_eq!(app.requests(), 0);
    }
}
