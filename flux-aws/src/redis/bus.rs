//! Outcomes over pub/sub, one channel for each prefix. This process's own
//! subscribers hear at once, without Redis; the others by one `PUBLISH` for
//! all that came while the last was on its way.

use std::sync::Arc;

use async_trait::async_trait;
use flux_core::seams::{
    OutcomeBus, OutcomeReceiver, OutcomeSender, Outcomes, SeamError, outcome_channel,
};
use tokio::task::JoinSet;

use super::Redis;
use super::ear::{Ear, Heard, note_junk};
use super::link::{COMMAND_MAX, Link, SERVICE};
use super::wire::Wire;
use crate::batcher::{Batcher, NotBatched};

/// Outcomes a subscriber may fall behind before it loses the oldest.
const OUTCOMES_KEPT: usize = 1024;
/// Outcomes that may wait for one `PUBLISH`, and that goes in one at most.
const WAITING_MAX: usize = 1024;
const BATCH_MAX: usize = 256;

/// An [`OutcomeBus`] over Redis: see [`Redis::bus`]. Dropping it ends its
/// tasks and its subscribers' channels.
///
/// Whenever its connection stood anew, its subscribers hear of a
/// [gap](Outcomes::gap).
#[derive(Debug)]
pub struct RedisBus {
    here: OutcomeSender,
    elsewhere: Batcher<Arc<Outcomes>, Result<(), SeamError>>,
    _listener: JoinSet<()>,
}

impl RedisBus {
    pub(super) fn new(redis: Redis) -> Self {
        let here = outcome_channel(OUTCOMES_KEPT);
        let wire = Arc::new(Wire::new());
        let channel: Arc<str> = format!("flux:news:{}", redis.prefix).into();
        let mut listener = JoinSet::new();
        let ear = Ear {
            link: Arc::clone(&redis.link),
            channel: Arc::clone(&channel),
            what: "outcomes",
            heard: Others { wire: Arc::clone(&wire), here: here.clone() },
        };
        listener.spawn(ear.listen());
        let elsewhere =
            Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |batch: Vec<Arc<Outcomes>>| {
                let (redis, wire, channel) =
                    (redis.clone(), Arc::clone(&wire), Arc::clone(&channel));
                async move {
                    let told = tell(&redis.link, &channel, wire.write(&batch)).await;
                    batch.iter().map(|_| told.clone()).collect()
                }
            });
        Self { here, elsewhere, _listener: listener }
    }
}

#[async_trait]
impl OutcomeBus for RedisBus {
    /// Tells this process's subscribers first, whatever comes of it; an error
    /// says that those of others may not have. Dropping the future does not
    /// take the outcomes back.
    async fn publish(&self, outcomes: Arc<Outcomes>) -> Result<(), SeamError> {
        // An error says that nobody listens here, which is fine.
        let _ = self.here.send(Arc::clone(&outcomes));
        match self.elsewhere.call(outcomes).await {
            Ok(told) => told,
            Err(NotBatched::Full) => {
                Err(SeamError::Overloaded { service: SERVICE, retry_after: COMMAND_MAX })
            }
            Err(NotBatched::Lost) => Err(SeamError::unknown(SERVICE)),
        }
    }

    fn subscribe(&self) -> OutcomeReceiver {
        self.here.subscribe()
    }
}

async fn tell(link: &Link, channel: &str, messages: Vec<String>) -> Result<(), SeamError> {
    for message in messages {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(message);
        link.command::<()>("PUBLISH", &publish).await?;
    }
    Ok(())
}

/// The outcomes of other processes.
struct Others {
    wire: Arc<Wire>,
    here: OutcomeSender,
}

impl Heard for Others {
    fn missed(&self) {
        let _ = self.here.send(Arc::new(Outcomes::gap()));
    }

    fn hear(&self, message: &[u8]) {
        match self.wire.read(message) {
            Ok(None) => {}
            Ok(Some(outcomes)) => {
                let _ = self.here.send(Arc::new(outcomes));
            }
            Err(_) => note_junk(message),
        }
    }
}
