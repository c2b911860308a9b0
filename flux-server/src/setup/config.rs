//! Flags, environment and `.env`, in that order of precedence.

use std::env::VarError;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use flux_core::{InvalidInput, ItemSpec, Role};

use crate::setup::dotenv::{self, DotenvError};

const LISTEN: &str = "FLUX_LISTEN";
const BACKEND: &str = "FLUX_BACKEND";
const DATA_DIR: &str = "FLUX_DATA_DIR";
const CREATE: &str = "FLUX_CREATE";
const OPERATOR_TOKEN: &str = "FLUX_OPERATOR_TOKEN";
const BUYER_JWT_SECRET: &str = "FLUX_BUYER_JWT_SECRET";
const QUEUE: &str = "SQS_QUEUE_URL";
const TABLE: &str = "DYNAMODB_TABLE";
pub(super) const REDIS_URL: &str = "REDIS_URL";
pub(super) const REDIS_PASSWORD: &str = "REDIS_PASSWORD";

/// Variables that no message may show.
const SECRETS: [&str; 6] = [
    OPERATOR_TOKEN,
    BUYER_JWT_SECRET,
    REDIS_URL,
    REDIS_PASSWORD,
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// The version, and whether the aws backend is built in.
const VERSION: &str = match cfg!(feature = "aws") {
    true => concat!(env!("CARGO_PKG_VERSION"), " with aws"),
    false => concat!(env!("CARGO_PKG_VERSION"), " without aws"),
};

const AFTER_HELP: &str = "\
Secrets come from the environment or .env alone, where no list of processes shows them:
  FLUX_OPERATOR_TOKEN    what operator calls must bring as a bearer token;
                         without it they are for callers on this machine
  FLUX_BUYER_JWT_SECRET  the key of the buyers' HS256 tokens; without it buyers
                         need none
  REDIS_URL              like rediss://:password@host:6379; or REDIS_HOST,
                         REDIS_PORT and REDIS_PASSWORD
With --backend aws, in a build with the feature aws: SQS_QUEUE_URL and DYNAMODB_TABLE, and what
the AWS SDK reads, such as AWS_REGION, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL.
Telemetry: RUST_LOG, OTEL_EXPORTER_OTLP_ENDPOINT.

Example: flux-server --item ticket_1=100";

/// Sells tickets over HTTP: each once, every buyer answered.
#[derive(Parser)]
#[command(version = VERSION, about, after_help = AFTER_HELP)]
pub struct Config {
    /// What to do.
    #[arg(value_enum, value_name = "COMMAND", default_value_t = Command::Serve)]
    pub command: Command,

    /// Address to listen on. (A worker listens, for health and metrics, only
    /// if this is given.) [default: 127.0.0.1:5000]
    #[arg(long, env = LISTEN)]
    pub listen: Option<SocketAddr>,

    /// Where orders and items live. [default: embedded; aws where
    /// SQS_QUEUE_URL and DYNAMODB_TABLE are set]
    #[arg(long, env = BACKEND, value_enum)]
    pub backend: Option<BackendKind>,

    /// Directory of the embedded backend's files.
    #[arg(long, env = DATA_DIR, default_value = "flux-data")]
    pub data_dir: PathBuf,

    /// Make queue, dead-letter queue and table of the aws backend if they are
    /// missing: for tests and trials.
    #[arg(long, env = CREATE)]
    pub create: bool,

    /// Rows that the aws backend spreads the stock of a new pool over, for one
    /// that sells more than ten thousand orders a second; 1 to 32.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub stripes: usize,

    /// Most dead letters to list or put back.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub max: usize,

    /// A pool to put on sale if it is missing; may be repeated.
    #[arg(long = "item", value_name = "ID=CAPACITY", value_parser = pool)]
    pub items: Vec<ItemSpec>,

    /// A TOML file of items to put on sale if they are missing: `[[item]]`
    /// tables with `item_id` and the fields of `PUT /v1/items/{id}`.
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Origin whose pages may call /v1, or `*`.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub cors_origin: Option<http::HeaderValue>,

    /// Requests a second of one buyer before 429. [default: no limit]
    #[arg(long, value_name = "N")]
    pub limit_per_buyer: Option<NonZeroU32>,

    /// Requests a second from one address before 429. [default: no limit]
    #[arg(long, value_name = "N")]
    pub limit_per_peer: Option<NonZeroU32>,

    /// Connections at once before 503.
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub connections_max: usize,

    /// Requests being answered at once before 503.
    #[arg(long, value_name = "N", default_value_t = 8_192)]
    pub requests_max: usize,

    /// Event streams at once before 503.
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    pub streams_max: usize,

    /// Seconds a request's head may take.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub head_timeout: Duration,

    /// Seconds a request's body may take.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub body_timeout: Duration,

    /// Seconds a connection may be idle.
    #[arg(long, value_name = "SECONDS", default_value = "75", value_parser = seconds)]
    pub idle_timeout: Duration,

    /// Seconds to finish in after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub drain: Duration,

    /// How to write the log, which goes to standard error; RUST_LOG says how
    /// much of it.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// A command: to run the server or one of its halves, or to look after a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Command {
    /// Accept orders and decide them.
    Serve,
    /// Accept orders; workers elsewhere decide them.
    Api,
    /// Decide orders accepted elsewhere.
    Worker,
    /// Count every order and unit anew, and say what is wrong.
    Audit,
    /// List messages that were given up, each with why.
    DeadLetters,
    /// Put dead letters back in the queue.
    Redrive,
}

impl Command {
    /// The role of its engine.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Serve | Self::Worker => Role::Both,
            Self::Api | Self::Audit | Self::DeadLetters | Self::Redrive => Role::AcceptOnly,
        }
    }
}

/// The kind of backend that keeps orders and items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendKind {
    /// Files in a directory, for one process.
    Embedded,
    /// SQS, DynamoDB and Redis; in builds with the feature `aws`.
    Aws,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Text that is not to be shown.
#[derive(Clone)]
pub struct Secret(String);

/// A variable's value. An empty one is one that is not set: templates of `.env`
/// have them.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Secret {
    /// The secret of a variable.
    pub(super) fn from_environment(name: &str) -> Option<Self> {
        variable(name).map(Self)
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Config {
    /// Reads `.env` in the working directory if there is one, then the
    /// environment and the flags. Ends the process with a message when they
    /// can't be read.
    ///
    /// # Errors
    /// When `.env` is there and malformed, and when a secret is not what it
    /// seems to be.
    pub fn read() -> Result<Self, ConfigError> {
        // First, as one that is no text would be replaced by the file's.
        for name in SECRETS {
            if let Err(VarError::NotUnicode(_)) = std::env::var(name) {
                return Err(ConfigError::NotText(name));
            }
        }
        dotenv::load(&SECRETS)?;
        let mut command = Self::command();
        // As with the secrets, an empty variable is one that is not set.
        for (flag, name) in
            [("listen", LISTEN), ("backend", BACKEND), ("data_dir", DATA_DIR), ("create", CREATE)]
        {
            if std::env::var_os(name).is_some_and(|value| value.is_empty()) {
                command = command.mut_arg(flag, |arg| arg.env(Resettable::Reset));
            }
        }
        let matches = command.get_matches();
        Self::from_arg_matches(&matches).or_else(|wrong| wrong.exit())
    }

    /// The token that operator calls must bring.
    #[must_use]
    pub fn operator_token(&self) -> Option<Secret> {
        Secret::from_environment(OPERATOR_TOKEN)
    }

    /// The key of the buyers' tokens.
    #[must_use]
    pub fn buyer_jwt_secret(&self) -> Option<Secret> {
        Secret::from_environment(BUYER_JWT_SECRET)
    }

    /// The address to listen on, if it is to listen.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.command {
            Command::Serve | Command::Api => {
                Some(self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5000))))
            }
            Command::Worker | Command::Audit | Command::DeadLetters | Command::Redrive => {
                self.listen
            }
        }
    }

    /// The queue's name or URL, and the table's name.
    #[must_use]
    pub fn queue_and_table(&self) -> Option<(String, String)> {
        Some((variable(QUEUE)?, variable(TABLE)?))
    }

    /// The backend to use.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        match self.backend {
            Some(kind) => kind,
            None if self.queue_and_table().is_some() => BackendKind::Aws,
            None => BackendKind::Embedded,
        }
    }
}

/// The reason that the configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `.env` can't be used.
    #[error(transparent)]
    Dotenv(#[from] DotenvError),
    /// A secret is not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotText(&'static str),
}

fn pool(text: &str) -> Result<ItemSpec, InvalidInput> {
    // An id may have equals signs in it; a capacity may not.
    let (id, capacity) = text
        .rsplit_once('=')
        .ok_or_else(|| InvalidInput::new("--item", "must be ID=CAPACITY, like ticket_1=100"))?;
    let capacity = capacity
        .parse()
        .map_err(|_| InvalidInput::new("capacity", "must be a number, like ticket_1=100"))?;
    ItemSpec::pool(id, capacity)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("must be seconds, more than 0 and at most 86400".to_owned()),
    }
}

fn origin(text: &str) -> Result<http::HeaderValue, String> {
    let plausible = text == "*" || (text.contains("://") && !text.ends_with('/'));
    text.parse()
        .ok()
        .filter(|_| plausible)
        .ok_or_else(|| "must be like https://shop.example, or *".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn an_item_is_split_at_the_last_equals_sign() {
        let spec = pool("a=b=3").expect("an item");
        assert_eq!((spec.id.as_str(), spec.capacity()), ("a=b", 3));
        for bad in ["a", "a=", "=3", "a=-1", "a=10000001", "a b=1"] {
            assert!(pool(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        assert!(!format!("{:?}", Secret("hunter2".to_owned())).contains("hunter2"));
    }
}
