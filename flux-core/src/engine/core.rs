//! What the calls, the worker and the listener share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::accept::gate::Gate;
use super::accept::id_guard::GuardedIds;
use super::accept::inbox::Inbox;
use super::accept::queued_spans::QueuedSpans;
use super::accept::waiters::Waiters;
use super::settings::Settings;
use crate::backends::Backend;
use crate::clock::Clock;
use crate::seams::Outcomes;

/// A bus that takes longer is left behind.
const PUBLISH_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Backend,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) gate: Gate,
    pub(super) guarded_ids: Arc<GuardedIds>,
    pub(super) inbox: Inbox,
    pub(super) waiters: Waiters,
    pub(super) queued_spans: QueuedSpans,
    /// Kept, because looking it up costs as much as the gate's answer.
    pub(super) turned_away: metrics::Counter,
}

impl Core {
    /// Tells whoever listens. Best effort: those who wait look for themselves
    /// now and then.
    pub(super) async fn publish(&self, outcomes: Arc<Outcomes>) {
        let published = timeout(PUBLISH_MAX, self.backend.bus.publish(outcomes)).await;
        if !matches!(published, Ok(Ok(()))) {
            metrics::counter!("flux_unpublished_total").increment(1);
            tracing::debug!(?published, "the outcomes were not published");
        }
    }
}

/// `after` from now; a time past all reason becomes a year.
pub(super) fn from_now(after: Duration) -> Instant {
    Instant::now() + after.min(Duration::from_secs(365 * 24 * 3600))
}
