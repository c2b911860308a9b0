//! The calls of an application: starting and stopping in this file, the others
//! in a file for each subject.

#[cfg(feature = "archive")]
mod archive;
mod changes;
mod follow_ups;
mod items;
mod operations;
mod orders;
mod refunds;
mod removals;

use std::sync::{Arc, RwLock, Weak};

use bon::bon;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

pub use changes::Follower;
pub use items::{Seat, SeatState};

use super::accept::gate_sync;
use super::clock_watch;
use super::core::Core;
use super::described_metrics;
use super::error::Error;
use super::failure::Failure;
use super::settings::{Role, Settings};
use super::worker;
use crate::backends::Backend;
#[cfg(feature = "embedded")]
use crate::backends::embedded::Embedded;
use crate::clock::{Clock, SystemClock};
use crate::protocol::OrderId;
use crate::random::Random;

/// A sale: items, orders and the worker that decides them. Cheap to clone;
/// the worker stops when the last clone is dropped or
/// [`shutdown`](Self::shutdown) is called.
///
/// Every call may be dropped at any point and repeated: an order id is decided
/// once. A dropped call may still take effect.
#[derive(Debug, Clone)]
pub struct Flux {
    engine: Arc<Engine>,
}

/// What all handles share.
#[derive(Debug)]
struct Engine {
    /// Another one after [`Flux::reopen`].
    running: RwLock<Arc<Running>>,
    started: Started,
    /// Held by whoever reopens or stops; what a start that failed left for the next.
    reopening: Mutex<Option<Arc<watch::Sender<()>>>>,
    /// Held by whoever archives, or counts what is there.
    archiving: Mutex<()>,
}

/// What an engine was started with.
#[derive(Debug)]
struct Started {
    backend: Backend,
    settings: Settings,
    clock: Arc<dyn Clock>,
    role: Role,
    worker_name: String,
    seed: Option<u64>,
}

/// The engine from one start to its end.
#[derive(Debug)]
struct Running {
    core: Arc<Core>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Lives as long as a task.
    living: Weak<watch::Sender<()>>,
    /// Fails when the last task is gone.
    alive: watch::Receiver<()>,
}

impl Started {
    /// Starts the tasks. Who waits for the end of those before waits for theirs with
    /// `living`.
    fn start(&self, living: Option<Arc<watch::Sender<()>>>) -> Running {
        let Self { backend, settings, clock, role, worker_name, seed } = self;
        let chance = seed.map_or_else(Random::from_system, Random::seeded);
        let (backend, settings) = (backend.clone(), settings.clone());
        let core = Arc::new(Core::new(backend, clock.clone(), settings, *role, chance));
        let (stop, stopped) = watch::channel(false);
        let living = living.unwrap_or_else(|| Arc::new(watch::Sender::new(())));
        let (weak, alive) = (Arc::downgrade(&living), living.subscribe());
        let supervisor = Supervisor { core: Arc::clone(&core), stopped: stopped.clone(), living };
        let mut tasks = vec![
            supervisor.spawn("listener", gate_sync::listen(Arc::clone(&core), stopped.clone())),
            supervisor.spawn("reader", gate_sync::refresh(Arc::clone(&core), stopped.clone())),
            supervisor.spawn("clock", clock_watch::run(Arc::clone(&core), stopped.clone())),
        ];
        if core.has_worker() {
            let work = worker::work(Arc::clone(&core), worker_name.clone(), stopped);
            tasks.push(supervisor.spawn("worker", work));
        }
        Running { core, stop, tasks: Mutex::new(tasks), living: weak, alive }
    }
}

impl Running {
    async fn shutdown(&self) {
        self.core.inbox.close();
        // Without a listener this does nothing: the tasks are gone already.
        self.stop.send_replace(true);
        // A call that is dropped half-way leaves the rest to the next.
        let mut tasks = self.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the engine was not awaited to its end");
            }
            tasks.pop();
        }
    }
}

#[bon]
impl Flux {
    /// Starts an engine on `backend`, within a tokio runtime and after the
    /// application installed its metrics recorder.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let settings = Settings::builder().calls_max(1_000).build();
    /// let flux = Flux::builder(Backend::memory()).settings(settings).start();
    /// flux.put_item(ItemSpec::pool("ticket", 100)?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// `start` panics outside of a tokio runtime.
    #[builder(finish_fn = start, builder_type(name = FluxBuilder, doc {
    /// Starts an engine by `start`. For an example see [`Flux::builder`].
    }))]
    pub fn builder(
        #[builder(start_fn)] backend: Backend,
        /// Bounds and times; those of [`Settings::default`].
        #[builder(default)]
        settings: Settings,
        /// The clock that dates orders and ends holds, guarded against
        /// [steps](crate::clock); the machine's.
        #[builder(default = Arc::new(SystemClock))]
        clock: Arc<dyn Clock>,
        /// Whether this engine decides orders; [`Role::Both`].
        #[builder(default)]
        role: Role,
        /// The name of its worker among those on the same queue: unlike that of any other,
        /// or they take each other for one. By default a random one.
        #[builder(into)]
        worker_name: Option<String>,
        /// The seed of the waits that are left to chance; on a runtime of one thread whose
        /// clock is paused, what an engine does is then the same each time. By default it
        /// is the system's.
        seed: Option<u64>,
    ) -> Self {
        described_metrics::describe();
        let worker_name = worker_name.unwrap_or_else(|| OrderId::new().to_string());
        let started = Started { backend, settings, clock, role, worker_name, seed };
        let running = RwLock::new(Arc::new(started.start(None)));
        Self {
            engine: Arc::new(Engine {
                running,
                started,
                reopening: Mutex::default(),
                archiving: Mutex::default(),
            }),
        }
    }

    fn running(&self) -> Arc<Running> {
        self.engine.running.read().expect("nothing panics under this lock").clone()
    }

    pub(super) fn core(&self) -> Arc<Core> {
        self.running().core.clone()
    }
}

/// Watches over the tasks of an engine: one that ends without being told to is
/// the engine's failure.
struct Supervisor {
    core: Arc<Core>,
    stopped: watch::Receiver<bool>,
    /// Dropped with the last task.
    living: Arc<watch::Sender<()>>,
}

impl Supervisor {
    fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let Self { core, stopped, living } = self;
        let (core, stopped, living) = (Arc::clone(core), stopped.clone(), living.clone());
        let task = tokio::spawn(task);
        tokio::spawn(async move {
            let _living = living;
            let ended = task.await;
            // Without a handle to the engine there is nobody to tell it to stop.
            if *stopped.borrow() || stopped.has_changed().is_err() {
                return ended.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the engine's {name} failed while stopping");
                });
            }
            let reason = match ended {
                Ok(()) => "it was not told to".to_owned(),
                // The runtime is going down, and nobody is left to hear of it.
                Err(error) if error.is_cancelled() => return,
                Err(error) => error.to_string(),
            };
            core.fail(&Failure::Task { task: name, reason });
        })
    }
}

#[cfg(feature = "embedded")]
impl Flux {
    /// Opens the sale kept in a directory, which is made if it is missing, and
    /// starts its worker: the [embedded backend](crate::backends::embedded) with
    /// the defaults of everything. Must be called within a tokio runtime.
    /// Dropping the call before it returns leaves the directory in use for a
    /// moment.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let flux = Flux::open(directory.path()).await?;
    /// flux.put_item(ItemSpec::pool("ticket", 100)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 2)?).await?;
    /// flux.shutdown().await;
    /// drop(flux);
    ///
    /// let flux = Flux::open(directory.path()).await?;
    /// assert_eq!(flux.order(order.id).await?, Some(order));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OpenError`](crate::backends::embedded::OpenError) when the directory
    /// is in use, damaged or can't be read.
    pub async fn open(
        path: impl Into<std::path::PathBuf>,
    ) -> Result<Self, crate::backends::embedded::OpenError> {
        let path = path.into();
        let opening = tokio::task::spawn_blocking(move || Embedded::open(path));
        let embedded =
            opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(Self::builder(embedded.backend()).start())
    }
}

impl Flux {
    /// Waits until the engine can't go on, and returns the reason: its store or
    /// queue has [stopped](crate::SeamError::Stopped), or one of its tasks ended
    /// without being told to, as by a panic. From then on it accepts nothing.
    /// [`reopen`](Self::reopen) goes on in place; or call [`shutdown`](Self::shutdown), let
    /// go of the engine and its backend, and open them anew, best in a new process. An
    /// engine that is well, or stops as it is told, never completes this.
    /// Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let flux = Flux::builder(Backend::memory()).start();
    /// # let told_to_stop = async {};
    /// tokio::select! {
    ///     failure = flux.failed() => return Err(failure.into()),
    ///     () = told_to_stop => {}
    /// }
    /// flux.shutdown().await;
    /// assert!(flux.failure().is_none());
    /// # Ok(()) }
    /// ```
    pub async fn failed(&self) -> Failure {
        let core = self.core();
        let mut failure = core.failure.subscribe();
        let known = failure.wait_for(Option::is_some).await.expect("the sender is in the core");
        known.clone().expect("it was waited for")
    }

    /// The reason why the engine can't go on, if it [failed](Self::failed).
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.core().failure.borrow().clone()
    }

    /// Stops: accepts nothing more, decides what was asked of this engine's
    /// worker, hands the rest back to the queue, and returns when the worker
    /// is done. Bound it with a time-out of your own; dropping it leaves the
    /// engine stopping, and another call waits for the rest.
    ///
    /// After it, whatever needs no worker here still works: reading items and
    /// orders, [`put_item`](Self::put_item), [`confirm`](Self::confirm) of a
    /// hold that has not ended, [`audit`](Self::audit), dead letters. New
    /// orders are [`ShuttingDown`](crate::Error::ShuttingDown), and so are, on
    /// an engine with a worker, releases, cancellations and payments that come
    /// late. [Subscriptions](Self::subscribe) end.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// flux.shutdown().await;
    ///
    /// let late = flux.place(OrderRequest::units("bob", "ticket", 1)?).await;
    /// assert!(matches!(late, Err(Error::ShuttingDown)));
    /// let paid = flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    /// assert_eq!(paid.status(), OrderStatus::Confirmed);
    /// # Ok(()) }
    /// ```
    pub async fn shutdown(&self) {
        let mut living = self.engine.reopening.lock().await;
        self.running().shutdown().await;
        *living = None;
    }

    /// Goes on after the engine [failed](Self::failed), in place: every handle to it is one
    /// to what goes on, [subscriptions](Self::subscribe) as well. The embedded store opens
    /// its file anew, with all that was acknowledged, as
    /// [`InventoryStore::reopen`](crate::seams::InventoryStore::reopen) says; only calls
    /// that were on their way at the failure may have taken effect or not. An engine that has
    /// not failed goes on as it is. Takes as long as opening the file does. Cancel safety: a
    /// dropped call leaves the engine failed, and may be made again.
    ///
    /// Until then what is on disk can be read: after a full disk
    /// [`order`](Self::order), [`orders`](Self::orders), [`item`](Self::item) and the change
    /// feed answer, all but orders that are not decided yet.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # let room = || Ok::<(), std::io::Error>(());
    /// if let Some(failure) = flux.failure() {
    ///     eprintln!("{failure}; waiting for room on the disk");
    ///     room()?;
    ///     flux.reopen().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`] when the cause is still there; [`Error::ShuttingDown`] for an
    /// engine that was told to stop and has not failed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn reopen(&self) -> Result<(), Error> {
        let mut living = self.engine.reopening.lock().await;
        let running = self.running();
        let store = &running.core.backend.store;
        if running.core.failure.borrow().is_none() && store.check().is_ok() {
            return match *running.stop.borrow() {
                true => Err(Error::ShuttingDown),
                false => Ok(()),
            };
        }
        // Before the tasks end, so that who listens goes on, however often it takes.
        *living = living.take().or_else(|| running.living.upgrade());
        running.shutdown().await;
        store.reopen().await?;
        let again = Arc::new(self.engine.started.start(living.take()));
        *self.engine.running.write().expect("nothing panics under this lock") = again;
        tracing::info!("the engine goes on");
        Ok(())
    }
}
