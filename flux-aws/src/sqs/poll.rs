//! Polls, run in a task: one at a time, for all who wait. What it brings
//! stays here if they went away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::seams::{Delivery, SeamError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::SERVICE;
use super::calls::POLL_MAX;
use super::queue::{Queue, lock};

/// Time between short polls, as SQS itself waits whole seconds.
const SHORT: Duration = Duration::from_millis(100);

/// The progress of a poll.
#[derive(Debug, Clone)]
enum Phase {
    Away,
    /// Its messages can be taken; those that can't be handed out are being seen to.
    Landed,
    Over(Option<SeamError>),
}

#[derive(Debug)]
pub(super) struct Polls {
    queue: Arc<Queue>,
    state: Mutex<(Option<watch::Receiver<Phase>>, JoinSet<()>)>,
}

/// The caller that began a poll: this one, or another before it.
#[derive(PartialEq)]
enum Whose {
    Mine,
    Anothers,
}

impl Polls {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, state: Mutex::default() }
    }

    pub(super) async fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, SeamError> {
        let start = Instant::now();
        // Waits beyond a day, say, are as good as a day.
        let end = start + wait.min(Duration::from_secs(86_400));
        let mut polled = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if polled && left < Duration::from_secs(1) {
                sleep_until(end.min(Instant::now() + SHORT)).await;
            }
            let deliveries = self.take(max).await;
            if !deliveries.is_empty() || max == 0 || polled && Instant::now() >= end {
                return Ok(deliveries);
            }
            let (mut poll, whose) = self.poll(left);
            polled = true;
            // Its first step is awaited to the end by whoever asked for it: a
            // poll outlasts its wait by the time of a call.
            let landed = poll.wait_for(|phase| !matches!(phase, Phase::Away));
            let result = match whose {
                Whose::Mine => Ok(landed.await.map(|_| ())),
                Whose::Anothers => timeout_at(end, landed).await.map(|r| r.map(|_| ())),
            };
            if matches!(result, Ok(Ok(()))) && lock(&self.queue.in_flight).has_buffered() {
                continue;
            }
            let over = timeout_at(end, poll.wait_for(|phase| matches!(phase, Phase::Over(_))));
            match over.await.map(|phase| phase.map(|phase| phase.clone())) {
                Ok(Ok(Phase::Over(Some(error)))) => return Err(error),
                Ok(Err(_)) => return Err(SeamError::unknown(SERVICE)),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }

    async fn take(&self, max: usize) -> Vec<Delivery> {
        let (deliveries, ageing) = lock(&self.queue.in_flight).take(max, Instant::now());
        if !ageing.is_empty()
            && let Err(error) = self.queue.extend(ageing).await
        {
            debug!(%error, "visibility was not extended; messages may come twice");
        }
        deliveries
    }

    /// The poll that is on its way, or a new one.
    fn poll(&self, wait: Duration) -> (watch::Receiver<Phase>, Whose) {
        let (running, tasks) = &mut *lock(&self.state);
        while tasks.try_join_next().is_some() {}
        if let Some(poll) = running
            && poll.has_changed().is_ok()
            && !matches!(*poll.borrow(), Phase::Over(_))
        {
            return (poll.clone(), Whose::Anothers);
        }
        let (phase, poll) = watch::channel(Phase::Away);
        // SQS takes whole seconds: up, if they are all but full.
        let wait = (wait + SHORT).min(POLL_MAX);
        tasks.spawn(run(Arc::clone(&self.queue), wait, phase));
        *running = Some(poll.clone());
        (poll, Whose::Mine)
    }
}

async fn run(queue: Arc<Queue>, wait: Duration, phase: watch::Sender<Phase>) {
    let over = match queue.calls.receive(&queue.url, wait, queue.visibility).await {
        Ok(received) => {
            let troubles = queue.take_in(received);
            phase.send_replace(Phase::Landed);
            for trouble in troubles {
                queue.settle_trouble(trouble).await;
            }
            None
        }
        Err(error) => Some(error),
    };
    phase.send_replace(Phase::Over(over));
}
