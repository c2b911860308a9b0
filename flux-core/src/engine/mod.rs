//! The engine behind [`Flux`].
//!
//! | part | file |
//! |---|---|
//! | the calls | `flux` |
//! | the state they share with the worker, and waiting for an order | `core` |
//! | bringing an order in | `accept/submit` |
//! | one request at a time for each id | `accept/id_guard` |
//! | the early "sold out" | `accept/gate`, kept true by `accept/gate_sync` |
//! | from callers to the worker, by the batch | `accept/inbox` |
//! | waking those whose order was decided elsewhere | `accept/waiters` |
//! | the spans of orders in the queue | `accept/queued_spans` |
//! | the worker's loop | `worker` |
//! | one batch: lease, claim, decide, commit | `worker/batch` |
//! | the items a worker has leased | `worker/leases` |
//! | which orders share an atomic write | `worker/transactions` |
//! | a batch's completion: durable, answered, acknowledged, published | `worker/completion` |
//! | the duration of decisions, and their spans | `worker/decision_metrics` |
//! | the outcomes as an application hears them | `subscription` |
//! | an order to place, the bounds and times, the errors | `request`, `settings`, `error` |
//! | what the metrics mean | `described_metrics` |
//! | the recount | `audit` |
//!
//! Imports run one way: `flux`, `worker`, `accept`, `core`; `core` takes the
//! parts of `accept` that know nothing of it.

mod accept;
mod audit;
mod core;
mod described_metrics;
mod error;
mod flux;
mod request;
mod settings;
mod subscription;
mod worker;

use std::time::Duration;

pub use audit::{Audit, AuditFault};
pub use error::Error;
pub use flux::{Flux, FluxBuilder, Seat, SeatState};
pub use request::{OrderRequest, OrderRequestBuilder};
pub use settings::{Role, Settings, SettingsBuilder};
pub use subscription::Subscription;

/// Time after which a caller that met a bound should come back: enough for a
/// full inbox to be decided.
const RETRY_AFTER: Duration = Duration::from_secs(1);
