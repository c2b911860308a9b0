//! The tasks that bring deliveries to the worker: its membership, and a receiver for each
//! partition of the queue.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use super::membership;
use super::receiving::{self, Deliveries, Received, Signals};
use crate::engine::core::Core;
use crate::protocol::OrderId;
use crate::seams::Receipt;

/// Batches of deliveries that wait for the worker.
const DELIVERED_MAX: usize = 4;

/// What brings deliveries to the worker.
pub(super) struct Intake {
    pub(super) delivered: mpsc::Receiver<Vec<Received>>,
    pub(super) served: watch::Receiver<Vec<bool>>,
    pub(super) has_room: watch::Sender<bool>,
    /// None of them ends before the worker does.
    pub(super) tasks: JoinSet<()>,
    extending: AbortHandle,
}

impl Intake {
    pub(super) fn start(
        core: &Arc<Core>,
        deliveries: &Arc<Deliveries>,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        let partitions = core.backend.queues().len();
        let (serve, served) = watch::channel(vec![false; partitions]);
        let (has_room, room) = watch::channel(true);
        let (hand_over, delivered) = mpsc::channel(DELIVERED_MAX);
        let me = OrderId::new().to_string();
        let keeping_up = membership::keep_up(Arc::clone(core), me, serve, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keeping_up);
        for partition in 0..partitions {
            let signals =
                Signals { served: served.clone(), has_room: room.clone(), stop: stop.clone() };
            let (core, deliveries) = (Arc::clone(core), Arc::clone(deliveries));
            let receiving =
                receiving::receive(core, partition, signals, deliveries, hand_over.clone());
            tasks.spawn(receiving);
        }
        let extending = receiving::extend(Arc::clone(core), Arc::downgrade(deliveries));
        let extending = tasks.spawn(extending);
        Self { delivered, served, has_room, tasks, extending }
    }

    /// Receives nothing more, and returns what was received and not taken.
    pub(super) async fn stop(self) -> Vec<(usize, Receipt)> {
        let Self { mut delivered, served, has_room, mut tasks, extending } = self;
        // Told to stop as well, or sent away, the receivers drop their ends.
        delivered.close();
        drop((served, has_room));
        let mut untaken = Vec::new();
        while let Some(received) = delivered.recv().await {
            untaken.extend(received.iter().map(|received| received.delivery.named()));
        }
        extending.abort();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && !error.is_cancelled()
            {
                warn!(%error, "what brings deliveries failed");
            }
        }
        untaken
    }
}
