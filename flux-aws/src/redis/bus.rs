//! Outcomes over pub/sub, one channel for each prefix. This process's own
//! subscribers hear at once, without Redis; the others by one `PUBLISH` for
//! all that came while the last was on its way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flux_core::backoff::Backoff;
use flux_core::seams::{
    OutcomeBus, OutcomeReceiver, OutcomeSender, Outcomes, SeamError, outcome_channel,
};
use futures_util::StreamExt;
use redis::RedisError;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::Redis;
use super::link::{COMMAND_MAX, CONNECT_MAX, Link, SERVICE, timed_out};
use super::wire::Wire;
use crate::batcher::{Batcher, NotBatched};

/// Outcomes a subscriber may fall behind before it loses the oldest.
const OUTCOMES_KEPT: usize = 1024;
/// Outcomes that may wait for one `PUBLISH`, and that goes in one at most.
const WAITING_MAX: usize = 1024;
const BATCH_MAX: usize = 256;
/// After so much silence the connection is asked whether it still stands.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const PAUSE: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

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
            wire: Arc::clone(&wire),
            here: here.clone(),
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

/// The listener for the outcomes of other processes.
struct Ear {
    link: Arc<Link>,
    channel: Arc<str>,
    wire: Arc<Wire>,
    here: OutcomeSender,
}

impl Ear {
    async fn listen(self) {
        let mut failures = 0;
        loop {
            self.link.up().await;
            let ended = match self.subscribe().await {
                Ok((sink, stream)) => {
                    if failures > 1 {
                        info!("outcomes of other processes are heard again");
                    }
                    failures = 0;
                    // Outcomes from before are lost, or were never listened for.
                    let _ = self.here.send(Arc::new(Outcomes::gap()));
                    self.hear(sink, stream).await
                }
                Err(error) => error,
            };
            metrics::counter!("flux_redis_failures_total").increment(1);
            // If all of Redis is away, this is how it is found out in silence.
            let answers = self.link.command::<()>("PING", &redis::cmd("PING")).await.is_ok();
            failures += 1;
            if answers && failures == 2 {
                warn!(error = %ended, "Redis answers, but outcomes of other processes are not heard");
            } else {
                debug!(error = %ended, "outcomes of other processes are not heard for now");
            }
            sleep(PAUSE.equal_jitter(failures)).await;
        }
    }

    async fn subscribe(&self) -> Result<(PubSubSink, PubSubStream), RedisError> {
        let connecting = timeout(CONNECT_MAX, self.link.client.get_async_pubsub()).await;
        let mut connection = connecting.map_err(|_| timed_out())??;
        self.link.meter.redis("SUBSCRIBE");
        let subscribed = timeout(COMMAND_MAX, connection.subscribe(&*self.channel)).await;
        subscribed.map_err(|_| timed_out())??;
        Ok(connection.split())
    }

    /// Hands out what comes until nothing more can. The client reads ahead
    /// without a bound, so nothing here waits for a subscriber.
    async fn hear(&self, mut sink: PubSubSink, mut stream: PubSubStream) -> RedisError {
        loop {
            match timeout(SILENCE_MAX, stream.next()).await {
                Ok(Some(message)) => self.hand_out(message.get_payload_bytes()),
                Ok(None) => return io::Error::from(io::ErrorKind::BrokenPipe).into(),
                Err(_) => {
                    self.link.meter.redis("PING");
                    match timeout(COMMAND_MAX, sink.ping::<redis::Value>()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return error,
                        Err(_) => return timed_out(),
                    }
                }
            }
        }
    }

    fn hand_out(&self, message: &[u8]) {
        match self.wire.read(message) {
            Ok(None) => {}
            Ok(Some(outcomes)) => {
                let _ = self.here.send(Arc::new(outcomes));
            }
            Err(junk) => {
                metrics::counter!("flux_redis_junk_total").increment(1);
                debug!(?junk, bytes = message.len(), "a message can't be read");
            }
        }
    }
}
