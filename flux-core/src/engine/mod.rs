//! What an application holds: [`Flux`].
//!
//! | part | file |
//! |---|---|
//! | the calls | `flux` |
//! | how an order comes in | `placing` |
//! | one request for each id | `guarded_ids` |
//! | the early "sold out" | `gate` |
//! | from callers to the worker, by the batch | `inbox` |
//! | the worker's loop | `worker` |
//! | one batch: lease, claim, decide, commit, settle | `batch` |
//! | from decided to told | `settle` |
//! | waiting for an order decided elsewhere | `waiters` |
//! | how long decisions took, and their spans | `watch` |
//! | the spans of orders in the queue | `queued_spans` |
//! | the recount | `audit` |

mod accept;
mod audit;
mod core;
mod error;
mod flux;
mod request;
mod settings;
mod worker;

use std::time::Duration;

pub use audit::{Audit, AuditFault};
pub use error::Error;
pub use flux::{Flux, Role};
pub use request::OrderRequest;
pub use settings::Settings;

/// When a caller that met a bound should come back: long enough for a full
/// inbox to be decided.
const RETRY_AFTER: Duration = Duration::from_secs(1);
