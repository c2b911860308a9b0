//! The connection that commands go by, and its health: while
//! Redis is away a call fails at once, and one task looks whether it is back.

use std::sync::Arc;
use std::time::Duration;

use flux_core::InvalidInput;
use flux_core::backoff::Backoff;
use flux_core::seams::{OrderQueue, SeamError};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, RedisError,
    Script, ServerErrorKind, Value,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{Accepted, RedisBus, RedisLocks, RedisSettings};
use crate::bill::Meter;

/// A connection that takes longer is given up.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A command that takes longer is given up.
pub(super) const COMMAND_MAX: Duration = Duration::from_millis(500);
/// Pauses after failures, in which nothing is asked of Redis.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), PAUSE_MAX);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One Redis; clones share its connection. See the [module](super).
#[derive(Debug, Clone)]
pub struct Redis {
    pub(super) link: Arc<Link>,
    pub(super) prefix: Arc<str>,
    _keeper: Arc<JoinSet<()>>,
}

impl Redis {
    /// Starts to connect, in the background: a Redis that is away is no error,
    /// then or later. Must be called within a tokio runtime; the connection
    /// ends with the last clone.
    ///
    /// By TLS it takes ring as the process's `rustls` provider unless the
    /// application has installed another.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the setting that can't be right.
    pub fn open(settings: impl Into<RedisSettings>, meter: Meter) -> Result<Self, InvalidInput> {
        let (client, prefix) = settings.into().check()?;
        if matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. }) {
            // An error says that there is one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let link = Arc::new(Link { client, meter, state: watch::Sender::new(State::Connecting) });
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(Arc::clone(&link)));
        Ok(Self { link, prefix: prefix.into(), _keeper: Arc::new(keeper) })
    }

    /// Leases on this Redis.
    #[must_use]
    pub fn locks(&self) -> RedisLocks {
        RedisLocks::new(self.clone())
    }

    /// Wraps a queue that can't be looked into: what is sent is noted until
    /// it is acknowledged, so that every process finds it. Must be called
    /// within a tokio runtime.
    #[must_use]
    pub fn remember(&self, queue: Arc<dyn OrderQueue>) -> Accepted {
        let wrapped = self.remember_all(vec![queue]).pop();
        wrapped.expect("as many as there were queues")
    }

    /// [`remember`](Self::remember), for the partitions of one queue. What is in none of
    /// them is looked for once, by the last.
    #[must_use]
    pub fn remember_all(&self, partitions: Vec<Arc<dyn OrderQueue>>) -> Vec<Accepted> {
        Accepted::all(self, partitions)
    }

    /// A bus over this Redis, with a connection of its own to listen by. Must
    /// be called within a tokio runtime.
    #[must_use]
    pub fn bus(&self) -> RedisBus {
        RedisBus::new(self.clone())
    }

    /// Whether Redis answered the last command.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.link.state.borrow(), State::Up(..))
    }
}

#[derive(Debug, Clone)]
enum State {
    /// The first connection is being made; calls wait for it.
    Connecting,
    /// The connection, and a number that tells it from earlier ones.
    Up(u64, MultiplexedConnection),
    Away,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) meter: Meter,
    state: watch::Sender<State>,
}

impl Link {
    /// Sends one command and reads its answer as a `T`.
    pub(super) async fn command<T>(&self, name: &'static str, command: &Cmd) -> Answer<T>
    where
        T: FromRedisValue,
    {
        let value = self.send(name, command).await?.map_err(refusal)?;
        T::from_redis_value(value).map_err(|error| refusal(error.into()))
    }

    /// Runs a script by its hash, or whole where Redis does not know it yet.
    pub(super) async fn script<T, K>(
        &self,
        (script, text): (&Script, &str),
        keys: &[K],
        args: &[&str],
    ) -> Answer<T>
    where
        T: FromRedisValue,
        K: AsRef<str>,
    {
        let command = |name, script| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len());
            for key in keys {
                command.arg(key.as_ref());
            }
            command.arg(args);
            command
        };
        match self.send("EVALSHA", &command("EVALSHA", script.get_hash())).await? {
            Ok(value) => T::from_redis_value(value).map_err(|error| refusal(error.into())),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.command("EVAL", &command("EVAL", text)).await
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Whether Redis is known not to answer.
    pub(super) fn is_away(&self) -> bool {
        matches!(*self.state.borrow(), State::Away)
    }

    /// The number of the present connection; none while Redis is away.
    pub(super) fn number(&self) -> Option<u64> {
        match *self.state.borrow() {
            State::Up(number, _) => Some(number),
            State::Connecting | State::Away => None,
        }
    }

    /// Completes when Redis answers. Cancel-safe.
    pub(super) async fn up(&self) {
        // Both ends are ours, so it does not close.
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Up(..))).await;
    }

    /// The answer of Redis, be it a refusal; an error if there is none.
    async fn send(&self, name: &'static str, command: &Cmd) -> Answer<Result<Value, RedisError>> {
        let (number, mut connection) = self.connection().await?;
        self.meter.redis(name);
        let answer = timeout(COMMAND_MAX, command.query_async(&mut connection)).await;
        match answer.unwrap_or_else(|_| Err(timed_out())) {
            Err(error) if !is_answer(&error) => {
                self.lose(number, &error);
                Err(SeamError::unknown(SERVICE).with_source(error))
            }
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                // Now a replica; the address may lead to another by now.
                self.lose(number, &error);
                Ok(Err(error))
            }
            answer => Ok(answer),
        }
    }

    async fn connection(&self) -> Answer<(u64, MultiplexedConnection)> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        if let Ok(Ok(state)) = timeout(CONNECT_MAX + COMMAND_MAX, known).await
            && let State::Up(number, connection) = &*state
        {
            return Ok((*number, connection.clone()));
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// Leaves Redis alone, unless the connection was replaced already.
    fn lose(&self, number: u64, error: &RedisError) {
        metrics::counter!("flux_redis_failures_total").increment(1);
        let lost = self.state.send_if_modified(|state| {
            let is_this = matches!(state, State::Up(current, _) if *current == number);
            if is_this {
                *state = State::Away;
            }
            is_this
        });
        if lost {
            went_away(error);
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        // One bound for all of a command, not only for its answer.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(None);
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // One that connects and does not answer is not back.
        self.meter.redis("PING");
        let ping = redis::cmd("PING");
        let answer = timeout(COMMAND_MAX, ping.exec_async(&mut connection)).await;
        answer.map_err(|_| timed_out())??;
        Ok(connection)
    }
}

pub(super) const SERVICE: &str = "Redis";
pub(super) type Answer<T> = Result<T, SeamError>;

/// Keeps a connection: the only one that connects, so however many calls wait,
/// Redis sees one probe.
async fn keep(link: Arc<Link>) {
    let mut state = link.state.subscribe();
    let (mut number, mut failures, mut told) = (0, 0, false);
    loop {
        match link.connect().await {
            Ok(connection) => {
                number += 1;
                link.state.send_replace(State::Up(number, connection));
                metrics::gauge!("flux_redis_up").set(1.0);
                if told {
                    info!("Redis is back");
                }
                told = true;
                let since = Instant::now();
                let _ = state.wait_for(|state| matches!(state, State::Away)).await;
                failures = if since.elapsed() < PAUSE_MAX { failures } else { 0 };
            }
            Err(error) => {
                metrics::counter!("flux_redis_failures_total").increment(1);
                if told {
                    debug!(%error, "Redis is still away");
                } else {
                    went_away(&error);
                    told = true;
                }
                link.state.send_replace(State::Away);
            }
        }
        failures += 1;
        sleep(PAUSE.equal_jitter(failures)).await;
    }
}

fn went_away(error: &RedisError) {
    metrics::gauge!("flux_redis_up").set(0.0);
    warn!(%error, "Redis is away; going on without it");
}

pub(super) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Whether the error is Redis' answer, and not the connection's failure.
fn is_answer(error: &RedisError) -> bool {
    use ErrorKind::{AuthenticationFailed, Extension, Server, UnexpectedReturnType};
    matches!(error.kind(), AuthenticationFailed | Extension | Server(_) | UnexpectedReturnType)
}

/// Turns an answer that is an error into ours.
fn refusal(error: RedisError) -> SeamError {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    let for_the_moment = match error.kind() {
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain) => true,
        _ => matches!(error.code(), Some("BUSY" | "OOM" | "NOREPLICAS" | "MISCONF")),
    };
    if for_the_moment {
        return SeamError::unavailable(SERVICE).with_source(error);
    }
    SeamError::broken(SERVICE, error.to_string()).with_source(error)
}
