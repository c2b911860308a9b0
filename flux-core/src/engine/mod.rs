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
//! | waking the worker for holds that end | `accept/sweep_alarm` |
//! | the spans of orders in the queue | `accept/queued_spans` |
//! | the worker's loop, and the way of a message through it | `worker` |
//! | the partitions of the queue that it serves, and their deliveries | `worker/intake`, `worker/membership`, `worker/receiving` |
//! | the holds that ended | `worker/ended_holds` |
//! | whose turn it is | `worker/backlogs`; where a write is bounded, `worker/gathering` |
//! | the items it has: leased and claimed | `worker/items` |
//! | a turn: decide, commit | `worker/turn` |
//! | which orders share an atomic write | `worker/transactions` |
//! | what becomes of a message: answered, tried again, given up | `worker/outcome` |
//! | its completion: durable, answered, acknowledged, published | `worker/completion` |
//! | the outcomes as an application hears them | `subscription` |
//! | an order to place, the bounds and times, the errors | `request`, `settings`, `error` |
//! | why it can't go on | `failure` |
//! | what the metrics mean | `described_metrics` |
//! | the time, and the watch over it | `steady_clock`, `clock_watch` |
//! | the recount | `audit` |
//!
//! Imports run one way: `flux`, `worker`, `accept`, `core`; `core` takes the
//! parts of `accept` that know nothing of it.

mod accept;
mod audit;
mod clock_watch;
mod core;
mod described_metrics;
mod error;
mod failure;
mod flux;
mod request;
mod settings;
mod steady_clock;
mod subscription;
mod worker;

use std::time::Duration;

pub use audit::{Audit, AuditFault};
pub use error::Error;
pub use failure::Failure;
pub use flux::{Flux, FluxBuilder, Follower, Seat, SeatState};
pub use request::{OrderRequest, OrderRequestBuilder};
pub use settings::{Role, Settings, SettingsBuilder};
pub use subscription::Subscription;

/// Time after which a caller that met a bound should come back: enough for a
/// full inbox to be decided.
const RETRY_AFTER: Duration = Duration::from_secs(1);
