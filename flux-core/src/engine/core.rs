//! What the calls, the worker and the listener share.

use std::sync::Arc;

use super::gate::Gate;
use super::lane::Lane;
use super::settings::Settings;
use super::waiters::Waiters;
use crate::backends::Backend;
use crate::clock::Clock;
use crate::seams::News;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Backend,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) gate: Gate,
    pub(super) lane: Lane,
    pub(super) waiters: Waiters,
}

impl Core {
    /// Tells whoever listens. Best effort: those who wait look for themselves
    /// now and then.
    pub(super) async fn publish(&self, news: Arc<News>) {
        if let Err(error) = self.backend.bus.publish(news).await {
            metrics::counter!("flux_unpublished_total").increment(1);
            tracing::debug!(%error, "the news was not published");
        }
    }
}
