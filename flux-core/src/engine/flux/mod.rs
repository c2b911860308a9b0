//! The calls of an application: starting and stopping in this file, the others
//! in a file for each subject.

mod follow_ups;
mod items;
mod operations;
mod orders;

use std::sync::Arc;

use bon::bon;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

pub use items::{Seat, SeatState};

use super::accept::gate_sync;
use super::core::Core;
use super::described_metrics;
use super::settings::{Role, Settings};
use super::worker;
use crate::backends::Backend;
#[cfg(feature = "embedded")]
use crate::backends::embedded::Embedded;
use crate::clock::{Clock, SystemClock};

/// A sale: items, orders and the worker that decides them. Cheap to clone;
/// the worker stops when the last clone is dropped or
/// [`shutdown`](Self::shutdown) is called.
///
/// Every call may be dropped at any point and repeated: an order id is decided
/// once. A dropped call may still take effect.
#[derive(Debug, Clone)]
pub struct Flux {
    pub(super) core: Arc<Core>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Fails when the last task is gone.
    alive: watch::Receiver<()>,
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
        /// The clock that dates orders and ends holds; the machine's.
        #[builder(default = Arc::new(SystemClock))]
        clock: Arc<dyn Clock>,
        /// Whether this engine decides orders; [`Role::Both`].
        #[builder(default)]
        role: Role,
    ) -> Self {
        described_metrics::describe();
        let core = Arc::new(Core::new(backend, clock, settings, role));
        let (stop, stopped) = watch::channel(false);
        let (living, alive) = watch::channel(());
        let mut tasks = vec![
            spawn(&living, gate_sync::listen(Arc::clone(&core), stopped.clone())),
            spawn(&living, gate_sync::refresh(Arc::clone(&core), stopped.clone())),
        ];
        if core.has_worker() {
            tasks.push(spawn(&living, worker::work(Arc::clone(&core), stopped)));
        }
        Self { core, running: Arc::new(Running { stop, tasks: Mutex::new(tasks), alive }) }
    }
}

/// Spawns a task of the engine; `living` is dropped with the last of them.
fn spawn(
    living: &watch::Sender<()>,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let living = living.clone();
    tokio::spawn(async move {
        let _living = living;
        task.await;
    })
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
        self.core.inbox.close();
        // Without a listener this does nothing: the tasks are gone already.
        self.running.stop.send_replace(true);
        // A call that is dropped half-way leaves the rest to the next.
        let mut tasks = self.running.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the engine failed");
            }
            tasks.pop();
        }
    }
}
