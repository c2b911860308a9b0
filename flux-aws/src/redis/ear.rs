//! A listener to one channel of Redis, whatever becomes of its connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use flux_core::backoff::Backoff;
use futures_util::StreamExt;
use redis::RedisError;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::link::{COMMAND_MAX, CONNECT_MAX, Link, timed_out};

/// After so much silence the connection is asked whether it still stands.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const PAUSE: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// What is made of the messages of a channel.
pub(super) trait Heard: Send + 'static {
    /// The connection stands anew: messages from before are lost, or were never
    /// listened for.
    fn missed(&self);

    /// Takes a message. Nothing here waits: the client reads ahead without a bound.
    fn hear(&self, message: &[u8]);
}

/// The listener.
pub(super) struct Ear<H> {
    pub(super) link: Arc<Link>,
    pub(super) channel: Arc<str>,
    /// What comes by the channel, for the log.
    pub(super) what: &'static str,
    pub(super) heard: H,
}

impl<H: Heard> Ear<H> {
    /// Listens for ever.
    pub(super) async fn listen(self) {
        let what = self.what;
        let mut failures = 0;
        loop {
            self.link.up().await;
            let ended = match self.subscribe().await {
                Ok((sink, stream)) => {
                    if failures > 1 {
                        info!("{what} of other processes are heard again");
                    }
                    failures = 0;
                    self.heard.missed();
                    self.hear(sink, stream).await
                }
                Err(error) => error,
            };
            metrics::counter!("flux_redis_failures_total").increment(1);
            // If all of Redis is away, this is how it is found out in silence.
            let answers = self.link.command::<()>("PING", &redis::cmd("PING")).await.is_ok();
            failures += 1;
            if answers && failures == 2 {
                warn!(error = %ended, "Redis answers, but {what} of other processes are not heard");
            } else {
                debug!(error = %ended, "{what} of other processes are not heard for now");
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

    async fn hear(&self, mut sink: PubSubSink, mut stream: PubSubStream) -> RedisError {
        loop {
            match timeout(SILENCE_MAX, stream.next()).await {
                Ok(Some(message)) => self.heard.hear(message.get_payload_bytes()),
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
}

/// Notes a message that is none of ours, or not of this version.
pub(super) fn note_junk(message: &[u8]) {
    metrics::counter!("flux_redis_junk_total").increment(1);
    debug!(bytes = message.len(), "a message can't be read");
}
