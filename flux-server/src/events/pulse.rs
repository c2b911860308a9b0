//! The task behind the pulse: once a second, how many orders were decided and
//! turned away, and how long they had waited when it was known. It listens to
//! the outcomes of the whole sale, so it costs those who sell nothing, and only
//! while somebody watches or did within the last minute.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flux_core::seams::Outcomes;
use flux_core::{Flux, OrderStatus, Timestamp};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use super::{Ask, Told, UPDATES_KEPT, event};

const BEAT: Duration = Duration::from_secs(1);
/// Seconds that a new stream is told of, and for which the task goes on without any.
const KEPT: usize = 60;
/// Milliseconds that a longer wait counts as.
const WAIT_MAX: usize = 10_000;

/// Serves streams until the last handle of the hub is gone.
pub(super) async fn run(flux: Flux, mut asks: mpsc::Receiver<Ask>, turned_away: Arc<AtomicU64>) {
    while let Some(first) = asks.recv().await {
        let updates = broadcast::channel(UPDATES_KEPT).0;
        let mut past = VecDeque::with_capacity(KEPT);
        let mut second = Second::default();
        let mut outcomes = flux.subscribe();
        let mut alone = 0;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        turned_away.store(0, Ordering::Relaxed);
        admit(first, &past, &updates);
        while alone < KEPT {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => admit(ask, &past, &updates),
                    None => return,
                },
                heard = outcomes.recv() => match heard {
                    Ok(outcomes) => second.count(&outcomes, flux.now()),
                    // The plot is then a little low.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                _ = beat.tick() => {
                    let event = second.event(turned_away.swap(0, Ordering::Relaxed));
                    second.clear();
                    if past.len() == KEPT {
                        past.pop_front();
                    }
                    past.push_back(event.clone());
                    alone = if updates.send(event).is_ok() { 0 } else { alone + 1 };
                }
            }
        }
    }
}

fn admit(ask: Ask, past: &VecDeque<Bytes>, updates: &broadcast::Sender<Bytes>) {
    let now = past.iter().cloned().collect();
    // Whoever asked may have gone again.
    let _ = ask.answer.send(Told { now, updates: updates.subscribe() });
}

/// The decisions of one beat.
struct Second {
    held: u64,
    rejected: u64,
    /// Orders by how many milliseconds they had waited.
    waits: Vec<u32>,
}

impl Default for Second {
    fn default() -> Self {
        Self { held: 0, rejected: 0, waits: vec![0; WAIT_MAX + 1] }
    }
}

impl Second {
    fn count(&mut self, outcomes: &Outcomes, now: Timestamp) {
        for order in &outcomes.orders {
            match order.status() {
                OrderStatus::Held => self.held += 1,
                OrderStatus::Rejected => self.rejected += 1,
                _ => continue,
            }
            let waited = now.since(order.placed_at).as_millis();
            self.waits[usize::try_from(waited).map_or(WAIT_MAX, |waited| waited.min(WAIT_MAX))] +=
                1;
        }
    }

    fn clear(&mut self) {
        (self.held, self.rejected) = (0, 0);
        self.waits.fill(0);
    }

    /// The wait that this share of the orders did not exceed.
    fn wait(&self, percent: u64) -> Option<usize> {
        let mut left = ((self.held + self.rejected) * percent).div_ceil(100);
        self.waits.iter().position(|&orders| {
            let reached = left > 0 && left <= u64::from(orders);
            left = left.saturating_sub(u64::from(orders));
            reached
        })
    }

    fn event(&self, turned_away: u64) -> Bytes {
        let second = json!({
            "held": self.held,
            "rejected": self.rejected,
            "turned_away": turned_away,
            "p50_ms": self.wait(50),
            "p99_ms": self.wait(99),
        });
        event("pulse", second.to_string().as_bytes())
    }
}
