//! The way of deliveries to the worker, and how they are kept from coming again while it
//! has them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use crate::backoff::Backoff;
use crate::engine::core::{Core, stopped};
use crate::protocol::Message;
use crate::seams::{Delivery, OrderQueue, Receipt};

/// Longest wait of one receive for messages: SQS allows no more.
const LONG_POLL: Duration = Duration::from_secs(20);
/// The time from one extension of visibility to the next, while a message waits here:
/// the shorter, the sooner it can come again where a worker is gone.
const EXTEND_EVERY: Duration = Duration::from_secs(3);
/// Pauses between receives that fail.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));

/// A delivery on its way to the worker.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) delivery: InHand,
    pub(crate) attempt: u32,
}

/// The deliveries that a worker has and has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Mutex<Taken>);

/// The moment each was taken, or last extended, by partition and receipt.
type Taken = HashMap<(usize, Receipt), Instant>;

/// One of the deliveries, until it is dropped.
#[derive(Debug)]
pub(crate) struct InHand {
    receipt: (usize, Receipt),
    among: Arc<Deliveries>,
}

impl Deliveries {
    /// Takes a delivery of a partition into the worker's hands.
    pub(crate) fn take(self: &Arc<Self>, partition: usize, receipt: Receipt) -> InHand {
        let receipt = (partition, receipt);
        self.lock().insert(receipt.clone(), Instant::now());
        InHand { receipt, among: Arc::clone(self) }
    }

    /// Those that must be extended by now, by partition.
    fn to_extend(&self) -> BTreeMap<usize, Vec<Receipt>> {
        let mut old: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((partition, receipt), since) in self.lock().iter_mut() {
            if since.elapsed() >= EXTEND_EVERY / 2 {
                *since = Instant::now();
                old.entry(*partition).or_default().push(receipt.clone());
            }
        }
        old
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand {
    pub(crate) fn partition(&self) -> usize {
        self.receipt.0
    }

    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt.1
    }

    /// Its partition and receipt.
    pub(crate) fn named(&self) -> (usize, Receipt) {
        self.receipt.clone()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.among.lock().remove(&self.receipt);
    }
}

/// What a receiver waits for.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Whether the worker serves each partition.
    pub(crate) served: watch::Receiver<Vec<bool>>,
    /// Whether it takes more of this one. Nobody else waits for it: a watch wakes those who
    /// wait in no certain order.
    pub(crate) is_open: watch::Receiver<bool>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Receives the messages of a partition while the worker serves it and has room.
pub(crate) async fn receive(
    core: Arc<Core>,
    partition: usize,
    mut signals: Signals,
    deliveries: Arc<Deliveries>,
    hand_over: mpsc::Sender<Vec<Received>>,
) {
    let Signals { served, is_open, stop } = &mut signals;
    let queue = Arc::clone(&core.backend.queues()[partition]);
    let mut failures = 0;
    loop {
        let open = async {
            // Its sender is gone with the worker.
            let _ = is_open.wait_for(|is_open| *is_open).await;
        };
        tokio::select! {
            biased;
            () = stopped(stop) => return,
            () = hand_over.closed() => return,
            () = open => {}
        }
        let received = tokio::select! {
            biased;
            () = stopped(stop) => return,
            () = hand_over.closed() => return,
            received = queue.receive(core.settings.batch_max, LONG_POLL) => received,
        };
        match received {
            Ok(received) if received.is_empty() => {}
            Ok(received) if !served.borrow()[partition] => {
                hand_back(&*queue, received.into_iter().map(|r| r.receipt).collect()).await;
            }
            Ok(received) => {
                failures = 0;
                let take = |Delivery { message, receipt, attempt }| {
                    let delivery = deliveries.take(partition, receipt);
                    Received { message, delivery, attempt }
                };
                let received = received.into_iter().map(take).collect();
                if let Err(unsent) = hand_over.send(received).await {
                    let receipts = unsent.0.iter().map(|r| r.delivery.receipt().clone());
                    hand_back(&*queue, receipts.collect()).await;
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                core.note(&error);
                debug!(%error, failures, "nothing could be received");
                tokio::select! {
                    biased;
                    () = stopped(stop) => return,
                    () = tokio::time::sleep(PAUSE.full_jitter_by(failures, &core.chance)) => {}
                }
            }
        }
    }
}

/// Hands back what the worker does not take.
async fn hand_back(queue: &dyn OrderQueue, receipts: Vec<Receipt>) {
    if let Err(error) = queue.retry(&receipts, Duration::ZERO).await {
        debug!(%error, "messages were not handed back; they come back by themselves");
    }
}

/// Extends the deliveries that the worker has for long, until it is gone.
pub(crate) async fn extend(core: Arc<Core>, deliveries: Weak<Deliveries>) {
    let mut again = interval(EXTEND_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let Some(deliveries) = deliveries.upgrade() else { return };
        // A slow partition holds up no other.
        let calls = deliveries.to_extend().into_iter().map(async |(partition, receipts)| {
            if let Err(error) = core.backend.queues()[partition].extend(&receipts).await {
                debug!(%error, "visibility was not extended; messages may come twice");
            }
        });
        join_all(calls).await;
    }
}
