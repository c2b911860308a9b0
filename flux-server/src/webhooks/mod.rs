//! Webhooks: every change of an order or an item, sent to whoever was named with
//! `--webhook`, signed as Standard Webhooks says.
//!
//! Each is a consumer of the change feed with tasks of its own. What it can't send waits in
//! the feed, so a receiver that is away takes no memory; see `schedule` for what is sent
//! when, and [`file`] for what would hold others up.
//!
//! | part | file |
//! |---|---|
//! | a change as it is sent | `message` |
//! | what is sent next, and when it is tried again | `schedule` |
//! | one attempt, and where it may go | `sender`, `connector` |
//! | what waits beside the feed, and what was given up | `file` |
//! | the task of one webhook, its figures | `endpoint`, `status` |

mod connector;
mod endpoint;
mod file;
mod message;
mod schedule;
mod sender;
mod status;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use flux_core::seams::Consumer;
use flux_core::{Flux, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::connector::{Connector, Reach};
use self::endpoint::{Endpoint, Resend};
use self::file::File;
pub(crate) use self::message::Subject;
use self::sender::Sender;
pub(crate) use self::status::Standing;
use self::status::Status;
use crate::setup::config::{Command, Config};
use crate::setup::webhook::NAME_PREFIX;

/// Time in which it must be kept how far webhooks came, once they have stopped.
const KEPT_WITHIN: Duration = Duration::from_millis(500);
/// Callers that wait to have messages sent again.
const RESENDS_MAX: usize = 4;

/// The webhooks of a server that sends them, until it [stops](Self::stop).
#[derive(Default)]
pub struct Webhooks {
    all: Arc<[Webhook]>,
    tasks: JoinSet<()>,
    stop: watch::Sender<Option<Instant>>,
}

/// One webhook, as calls see it.
pub(crate) struct Webhook {
    /// Its name among the consumers of the feed.
    pub(crate) name: String,
    /// Scheme, host and port of its receiver.
    pub(crate) origin: String,
    status: Arc<Status>,
    file: Arc<File>,
    resends: mpsc::Sender<Resend>,
}

/// A message that was given up.
pub(crate) struct GivenUp {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) subject: Subject,
    pub(crate) at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) given_up_at: Timestamp,
    pub(crate) error: String,
}

impl Webhooks {
    /// Starts the webhooks of the configuration. One that is new begins with what changes
    /// from now on.
    ///
    /// # Errors
    /// Says what is in the way, and what to do about it.
    pub async fn start(config: &Config, flux: &Flux) -> Result<Self> {
        if config.command != Command::Serve {
            return Ok(Self::default());
        }
        let keys = config.webhook_keys.clone().filter(|_| !config.webhooks.is_empty());
        let Some(keys) = keys else {
            if let Ok(consumers) = flux.consumers().await {
                warn_of_those_gone(&consumers, &[]);
            }
            return Ok(Self::default());
        };
        let feed = flux.feed().context("--webhook needs the feed of changes")?;
        let keys = Arc::new(keys);
        let (dir, private) = (config.data_dir.clone(), config.webhook_private);
        let reach = if private { Reach::Anywhere } else { Reach::Public };
        let opening = spawn_blocking(move || -> Result<_> {
            let connector = Connector::new(reach).context(
                "there are no roots to check receivers' certificates by: install ca-certificates",
            )?;
            Ok((Arc::new(File::open(&dir)?), connector))
        });
        let (file, connector) = opening.await??;
        let mut started = Self::default();
        let mut all = Vec::new();
        let consumers = feed.consumers().await?;
        for url in &config.webhooks {
            let (name, origin) = (url.name(), url.origin());
            let after = match consumers.iter().find(|consumer| consumer.name == name) {
                Some(known) => {
                    info!(webhook = %name, "changes go on to be sent to {origin}");
                    known.after.clone()
                }
                None => {
                    let newest = feed.newest().await?;
                    let new = Consumer::new(name.clone(), newest.clone());
                    feed.keep_cursor(&new)
                        .await
                        .context("a webhook needs a place among the consumers of the feed")?;
                    info!(webhook = %name, "changes are sent to {origin} from now on");
                    newest
                }
            };
            let sender = Sender::new(
                url.clone(),
                Arc::clone(&keys),
                connector.clone(),
                schedule::IN_FLIGHT_MAX,
            );
            let status = Arc::new(Status::new(name.as_str()));
            let (resends, asked) = mpsc::channel(RESENDS_MAX);
            let own = (Arc::clone(&feed), Arc::clone(&file), Arc::clone(&status));
            all.push(Webhook {
                name: name.to_string(),
                origin,
                status,
                file: Arc::clone(&file),
                resends,
            });
            let give_up_after = config.webhook_give_up_after;
            let taking_up = spawn_blocking(move || {
                let (feed, file, status) = own;
                Endpoint::new(name, feed, after, sender, file, status, give_up_after)
            });
            let endpoint = taking_up.await??;
            started.tasks.spawn(endpoint.run(asked, started.stop.subscribe()));
        }
        warn_of_those_gone(&consumers, &all);
        started.all = all.into();
        Ok(started)
    }

    /// All of them, for calls.
    pub(crate) fn all(&self) -> Arc<[Webhook]> {
        Arc::clone(&self.all)
    }

    /// Stops: nothing more is sent, and what is on its way has so long. Then it is kept how
    /// far each came, if that takes no longer than half a second.
    pub async fn stop(&mut self, longest: Duration) {
        let until = Instant::now() + longest;
        self.stop.send_replace(Some(until));
        let stopped = async { while self.tasks.join_next().await.is_some() {} };
        if timeout_at(until + KEPT_WITHIN, stopped).await.is_err() {
            warn!("how far webhooks came could not be kept in time: some messages come again");
            self.tasks.shutdown().await;
        }
    }
}

/// Says which consumers were webhooks.
fn warn_of_those_gone(consumers: &[Consumer], all: &[Webhook]) {
    for consumer in consumers {
        let name = consumer.name.as_str();
        if name.starts_with(NAME_PREFIX) && all.iter().all(|webhook| webhook.name != name) {
            warn!(
                webhook = name,
                "this webhook is configured no more; what it was not told waits in the feed for as long as that is kept; DELETE /v1/changes/consumers/{name} forgets where it was"
            );
        }
    }
}

impl Webhook {
    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        self.status.standing()
    }

    /// Up to `limit` messages that were given up, from a number on.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) async fn given_up(&self, from: u64, limit: usize) -> Result<Vec<GivenUp>> {
        let (file, name) = (Arc::clone(&self.file), self.name.clone());
        let given_up = |record: &file::Record| record.given_up_ms.is_some();
        let found = spawn_blocking(move || file.list(&name, from, limit, given_up)).await??;
        let shown = found.into_iter().map(|(number, record)| GivenUp {
            number,
            at: record.head.at(),
            id: record.head.id,
            kind: record.head.kind,
            subject: record.head.subject,
            attempts: record.attempts,
            given_up_at: Timestamp::from_millis(record.given_up_ms.unwrap_or_default()),
            error: record.error,
        });
        Ok(shown.collect())
    }

    /// Has messages that were given up sent again, one by its id or all, and tells how many.
    /// Cancel-safe: what was asked is done.
    ///
    /// # Errors
    /// When the file can't be written, or the server stops.
    pub(crate) async fn resend(&self, id: Option<String>) -> Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.resends.send(Resend { id, answer }).await.ok().context("the webhook has stopped")?;
        answered.await.context("the webhook has stopped")?
    }
}
