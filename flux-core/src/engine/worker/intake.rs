//! The tasks that bring deliveries to the worker: its membership, and a receiver for each
//! partition of the queue.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use super::membership;
use super::receiving::{self, Deliveries, Received, Signals};
use crate::engine::core::Core;
use crate::seams::Receipt;

/// Batches of deliveries that wait for the worker.
const DELIVERED_MAX: usize = 4;

/// What brings deliveries to the worker.
pub(super) struct Intake {
    pub(super) delivered: mpsc::Receiver<Vec<Received>>,
    pub(super) served: watch::Receiver<Vec<bool>>,
    /// Whether the worker takes more of each partition.
    open: Vec<watch::Sender<bool>>,
    /// None of them ends before the worker does.
    pub(super) tasks: JoinSet<()>,
    extending: AbortHandle,
}

impl Intake {
    pub(super) fn start(
        core: &Arc<Core>,
        me: String,
        deliveries: &Arc<Deliveries>,
        is_ill: watch::Receiver<bool>,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        let partitions = core.backend.queues().len();
        let (serve, served) = watch::channel(vec![false; partitions]);
        let (hand_over, delivered) = mpsc::channel(DELIVERED_MAX);
        let keeping_up = membership::keep_up(Arc::clone(core), me, is_ill, serve, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keeping_up);
        let mut open = Vec::with_capacity(partitions);
        for partition in 0..partitions {
            let (opens, is_open) = watch::channel(false);
            open.push(opens);
            let signals = Signals { served: served.clone(), is_open, stop: stop.clone() };
            let (core, deliveries) = (Arc::clone(core), Arc::clone(deliveries));
            let receiving =
                receiving::receive(core, partition, signals, deliveries, hand_over.clone());
            tasks.spawn(receiving);
        }
        let extending = receiving::extend(Arc::clone(core), Arc::downgrade(deliveries));
        let extending = tasks.spawn(extending);
        Self { delivered, served, open, tasks, extending }
    }

    /// Has those partitions received that the worker takes more of.
    pub(super) fn receive_from(&self, takes: impl Fn(usize) -> bool) {
        for (partition, is_open) in self.open.iter().enumerate() {
            let takes = takes(partition);
            is_open.send_if_modified(|open| std::mem::replace(open, takes) != takes);
        }
    }

    /// Receives nothing more, and returns what was received and not taken.
    pub(super) async fn stop(self) -> Vec<(usize, Receipt)> {
        let Self { mut delivered, served, open, mut tasks, extending } = self;
        // Told to stop as well, or sent away, the receivers drop their ends.
        delivered.close();
        drop((served, open));
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
