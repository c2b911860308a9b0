//! Flags, environment and `.env`, in that order of precedence.

use std::env::VarError;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PathBufValueParser, Resettable, TypedValueParser};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, ValueEnum};
use flux_core::{BuyerRules, InvalidInput, ItemSpec, Role};
use http::Uri;
use ipnet::IpNet;

use crate::setup::dotenv::{self, DotenvError};
use crate::setup::origin::origin;
use crate::setup::secret::Secret;
use crate::setup::webhook::{SigningKeys, WebhookUrl};

const LISTEN: &str = "FLUX_LISTEN";
const OPS_LISTEN: &str = "FLUX_OPS_LISTEN";
const BACKEND: &str = "FLUX_BACKEND";
const DATA_DIR: &str = "FLUX_DATA_DIR";
const ARCHIVE_DIR: &str = "FLUX_ARCHIVE_DIR";
const KEEP_REJECTED: &str = "FLUX_KEEP_REJECTED";
const REJECTED_MAX: &str = "FLUX_REJECTED_MAX";
const KEEP_CHANGES: &str = "FLUX_KEEP_CHANGES";
const CHANGES_MAX: &str = "FLUX_CHANGES_MAX";
const PARTITIONS: &str = "FLUX_PARTITIONS";
const CREATE: &str = "FLUX_CREATE";
const HOLDS_PER_BUYER: &str = "FLUX_HOLDS_PER_BUYER";
const HOLD_AGAIN_AFTER: &str = "FLUX_HOLD_AGAIN_AFTER";
const OPERATOR_TOKEN: &str = "FLUX_OPERATOR_TOKEN";
const BUYER_JWT_SECRET: &str = "FLUX_BUYER_JWT_SECRET";
const BUYER_JWT_AUDIENCE: &str = "FLUX_BUYER_JWT_AUDIENCE";
const BUYER_JWT_ISSUER: &str = "FLUX_BUYER_JWT_ISSUER";
pub(super) const WEBHOOK_SECRET: &str = "FLUX_WEBHOOK_SECRET";
pub(super) const QUEUE: &str = "SQS_QUEUE_URL";
pub(super) const TABLE: &str = "DYNAMODB_TABLE";
pub(super) const REDIS_URL: &str = "REDIS_URL";
pub(super) const REDIS_HOST: &str = "REDIS_HOST";
pub(super) const REDIS_PORT: &str = "REDIS_PORT";
pub(super) const REDIS_PASSWORD: &str = "REDIS_PASSWORD";

/// Ten years, in seconds.
const KEEP_REJECTED_MAX: u64 = 10 * 365 * 86_400;

/// Most webhooks: each keeps some megabytes of messages, and the feed its cursor.
const WEBHOOKS_MAX: usize = 16;

/// Variables that no message may show.
pub(super) const SECRETS: [&str; 7] = [
    OPERATOR_TOKEN,
    BUYER_JWT_SECRET,
    WEBHOOK_SECRET,
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
  FLUX_OPERATOR_TOKEN    what operator calls must bring as a bearer token; without it
                         `serve` makes one and keeps it in DATA_DIR/operator-token
  FLUX_BUYER_JWT_SECRET  the key of the buyers' HS256 tokens; without it buyers
                         need none
  FLUX_WEBHOOK_SECRET    what webhooks are signed with, like whsec_ and base64 of 24 to
                         64 bytes; two, with a space between, while receivers change over
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

    /// Address for /healthz, /readyz and /metrics alone, which no limit of the
    /// other one touches; that one answers them no more.
    #[arg(long, env = OPS_LISTEN, value_name = "ADDRESS")]
    pub ops_listen: Option<SocketAddr>,

    /// Where orders and items live. [default: embedded; aws where
    /// SQS_QUEUE_URL and DYNAMODB_TABLE are set]
    #[arg(long, env = BACKEND, value_enum)]
    pub backend: Option<BackendKind>,

    /// Directory of the embedded backend's files, and of the operator's token
    /// that `serve` makes.
    #[arg(long, env = DATA_DIR, default_value = "flux-data", value_parser = PathBufValueParser::new().try_map(path))]
    pub data_dir: PathBuf,

    /// Seconds for which a rejected order is remembered; 3600 at least. After
    /// that, its id is a new order's.
    #[arg(
        long,
        env = KEEP_REJECTED,
        value_name = "SECONDS",
        default_value_t = 86_400,
        value_parser = clap::value_parser!(u64).range(3_600..=KEEP_REJECTED_MAX)
    )]
    pub keep_rejected: u64,

    /// Rejected orders that the embedded backend remembers, the newest.
    #[arg(
        long,
        env = REJECTED_MAX,
        value_name = "N",
        default_value_t = 10_000_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000)
    )]
    pub rejected_max: u64,

    /// The running server that `backup` and `archive` ask, without TLS, and `audit`, `dead-letters` and
    /// `redrive` if it is given: these open the store themselves otherwise.
    /// [default of both: http://127.0.0.1:5000]
    #[arg(long, value_name = "URL")]
    pub url: Option<Uri>,

    /// The copy that `restore` reads; standard input if it is `-`.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub from: PathBuf,

    /// Seconds for which the embedded backend keeps changes in the feed of /v1/changes; 0
    /// keeps none, and then there is no feed.
    #[arg(
        long,
        env = KEEP_CHANGES,
        value_name = "SECONDS",
        default_value_t = 7 * 86_400,
        value_parser = clap::value_parser!(u64).range(0..=KEEP_REJECTED_MAX)
    )]
    pub keep_changes: u64,

    /// Changes that the embedded backend keeps, the newest, some 80 bytes of disk each.
    #[arg(
        long,
        env = CHANGES_MAX,
        value_name = "N",
        default_value_t = 20_000_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000)
    )]
    pub changes_max: u64,

    /// Partitions of the aws backend's queue, an SQS queue each, 1 to 256: fixed when they
    /// are made, and another number is refused. [default: what there is, or 16 with --create]
    #[arg(long, env = PARTITIONS, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub partitions: Option<u16>,

    /// Make queues, dead-letter queues and table of the aws backend if they are
    /// missing: for tests and trials.
    #[arg(long, env = CREATE, value_parser = BoolishValueParser::new())]
    pub create: bool,

    /// Rows that the aws backend spreads the stock of a new pool over, for one
    /// that sells more than ten thousand orders a second; 1 to 32.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    pub stripes: usize,

    /// Most dead letters to list or put back.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count)]
    pub max: usize,

    /// A pool to put on sale if it is missing; may be repeated. For `archive` an item's id
    /// alone.
    #[arg(long = "item", value_name = "ID=CAPACITY")]
    pub items: Vec<String>,

    /// Directory that `archive` writes to, while no server has the data directory open.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,

    /// Directory that a running server writes archives to. [default: DATA_DIR/archives]
    #[arg(long, env = ARCHIVE_DIR, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(path))]
    pub archive_dir: Option<PathBuf>,

    /// A TOML file of items to put on sale if they are missing: `[[item]]`
    /// tables with `item_id` and the fields of `PUT /v1/items/{id}`.
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Origin whose pages may call /v1, as browsers send it, like
    /// `https://shop.example`; may be repeated.
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = origin)]
    pub cors_origins: Vec<http::HeaderValue>,

    /// Audience that buyers' tokens must be made out for, their `aud`.
    /// [default: any]
    #[arg(long, env = BUYER_JWT_AUDIENCE, value_name = "AUD", value_parser = claim)]
    pub buyer_jwt_audience: Option<String>,

    /// Issuer that buyers' tokens must be of, their `iss`. [default: any]
    #[arg(long, env = BUYER_JWT_ISSUER, value_name = "ISS", value_parser = claim)]
    pub buyer_jwt_issuer: Option<String>,

    /// Where to send every change of an order or an item, signed as Standard Webhooks
    /// says with FLUX_WEBHOOK_SECRET; https; may be repeated. (`serve` with the embedded
    /// backend.)
    #[arg(long = "webhook", value_name = "URL")]
    webhook_texts: Vec<String>,

    /// Those, read by [`read`](Self::read): an error of clap's would show what may be a secret.
    #[arg(skip)]
    pub webhooks: Vec<WebhookUrl>,

    /// Let webhooks go to loopback, link-local and private addresses too, and by http.
    #[arg(long)]
    pub webhook_private: bool,

    /// Seconds for which a message that its receiver refuses is tried before it is given up.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    pub webhook_give_up_after: Duration,

    /// Live holds of one buyer over all items before `buyer_limit`.
    /// [default: no limit]
    #[arg(long, env = HOLDS_PER_BUYER, value_name = "N")]
    pub holds_per_buyer: Option<NonZeroU32>,

    /// Seconds for which a buyer gets no hold of an item after one of it ended
    /// unpaid, expired or released, but `buyer_limit`. [default: none]
    #[arg(long, env = HOLD_AGAIN_AFTER, value_name = "SECONDS", value_parser = seconds)]
    pub hold_again_after: Option<Duration>,

    /// Requests a second of one buyer before 429. [default: no limit]
    #[arg(long, value_name = "N")]
    pub limit_per_buyer: Option<NonZeroU32>,

    /// Requests a second from one address before 429. [default: no limit]
    #[arg(long, value_name = "N")]
    pub limit_per_peer: Option<NonZeroU32>,

    /// Connections at once before 503.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = count)]
    pub connections_max: usize,

    /// Connections at once from one address before 503; an IPv6 /64 is one address.
    /// [default: a quarter of --connections-max]
    #[arg(long, value_name = "N")]
    pub connections_per_peer: Option<NonZeroUsize>,

    /// Network of proxies whose `Forwarded` or `X-Forwarded-For` names the address
    /// that limits count; may be repeated.
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Requests being answered at once before 503.
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = count)]
    pub requests_max: usize,

    /// Event streams at once before 503.
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = count)]
    pub streams_max: usize,

    /// Seconds a request's head may take.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub head_timeout: Duration,

    /// Seconds a request's body may take.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub body_timeout: Duration,

    /// Bytes of an item's definition before 413, 1048576 to 16777216: more than the
    /// largest hall needs.
    #[arg(long, value_name = "BYTES", default_value_t = 4 * 1024 * 1024, value_parser = item_bytes)]
    pub item_body_max: usize,

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

    /// The token that operator calls must bring.
    #[arg(skip)]
    pub operator_token: Option<Secret>,

    /// The key of the buyers' tokens.
    #[arg(skip)]
    pub buyer_jwt_secret: Option<Secret>,

    /// The keys that webhooks are signed with.
    #[arg(skip)]
    pub webhook_keys: Option<SigningKeys>,
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
    /// Write a copy of the running server's store to standard output.
    Backup,
    /// Make a store of a copy.
    Restore,
    /// Move sales that are over, each named by `--item`, into files: by the running server
    /// into its --archive-dir, or without one into the directory that --to names.
    Archive,
    /// Give room that the embedded backend's file does not use back to the system, while no
    /// server has it open.
    Compact,
}

impl Command {
    /// The role of its engine.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Serve | Self::Worker => Role::Both,
            Self::Api
            | Self::Audit
            | Self::DeadLetters
            | Self::Redrive
            | Self::Backup
            | Self::Restore
            | Self::Archive
            | Self::Compact => Role::AcceptOnly,
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

/// A variable's value. An empty one is one that is not set: templates of `.env`
/// have them.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Config {
    /// Reads `.env` in the working directory if there is one, then the
    /// environment and the flags. Ends the process with a message when they
    /// can't be read.
    ///
    /// # Errors
    /// When `.env` is there and malformed, when a secret is not what it seems to
    /// be, and when values can't work together.
    pub fn read() -> Result<Self, ConfigError> {
        // First, as one that is no text would be replaced by the file's.
        for name in SECRETS.into_iter().chain([QUEUE, TABLE, REDIS_HOST, REDIS_PORT]) {
            if let Err(VarError::NotUnicode(_)) = std::env::var(name) {
                return Err(ConfigError::NotText(name));
            }
        }
        dotenv::load(&SECRETS)?;
        let mut command = Self::command();
        // But for those who may do what, an empty variable is one that is not set.
        let empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let checks = |name: &OsStr| name == BUYER_JWT_AUDIENCE || name == BUYER_JWT_ISSUER;
        let unset = |flag: &&Arg| flag.get_env().is_some_and(|name| empty(name) && !checks(name));
        let unset: Vec<_> =
            command.get_arguments().filter(unset).map(Arg::get_id).cloned().collect();
        for flag in unset {
            command = command.mut_arg(flag, |arg| arg.env(Resettable::Reset));
        }
        let matches = command.get_matches();
        let mut config = Self::from_arg_matches(&matches).unwrap_or_else(|wrong| wrong.exit());
        config.operator_token = Secret::from_environment(OPERATOR_TOKEN)?;
        config.buyer_jwt_secret = Secret::from_environment(BUYER_JWT_SECRET)?;
        config.webhook_keys = SigningKeys::from_environment(WEBHOOK_SECRET)?;
        let url = |text: &String| WebhookUrl::parse(text);
        let webhooks = config.webhook_texts.iter().map(url).collect::<Result<_, _>>();
        config.webhooks = webhooks.map_err(|rule| InvalidInput::new("--webhook", rule))?;
        config.check()?;
        config.check_webhooks()?;
        Ok(config)
    }

    /// The pools to put on sale.
    ///
    /// # Errors
    /// [`InvalidInput`] for one that is not `ID=CAPACITY`.
    pub fn pools(&self) -> Result<Vec<ItemSpec>, InvalidInput> {
        let named = |wrong: InvalidInput| InvalidInput::new("--item", wrong.to_string());
        self.items.iter().map(|text| pool(text).map_err(named)).collect()
    }

    /// The directory that a running server writes archives to.
    #[must_use]
    pub fn archive_dir(&self) -> PathBuf {
        self.archive_dir.clone().unwrap_or_else(|| self.data_dir.join("archives"))
    }

    /// Refuses what each value by itself does not show to be impossible.
    fn check(&self) -> Result<(), InvalidInput> {
        if self.command != Command::Archive {
            self.pools()?;
        }
        let claims = self.buyer_jwt_audience.is_some() || self.buyer_jwt_issuer.is_some();
        if claims && self.buyer_jwt_secret.is_none() {
            let rule = "must be set where buyers' tokens are to have an audience or an issuer: without it buyers need no token";
            return Err(InvalidInput::new(BUYER_JWT_SECRET, rule));
        }
        for name in [QUEUE, TABLE, REDIS_HOST] {
            let printed = |value: &String| value.bytes().all(|byte| byte.is_ascii_graphic());
            if let Some(value) = variable(name).filter(|value| !printed(value)) {
                let rule = format!("must be visible ASCII without white space, was {value:?}");
                return Err(InvalidInput::new(name, rule));
            }
        }
        Ok(())
    }

    /// Refuses webhooks that could never be sent, or only to where none may go.
    fn check_webhooks(&self) -> Result<(), InvalidInput> {
        let wrong = |rule: String| Err(InvalidInput::new("--webhook", rule));
        if self.webhooks.is_empty() {
            return Ok(());
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            return wrong(format!("may be given {WEBHOOKS_MAX} times"));
        }
        for (index, webhook) in self.webhooks.iter().enumerate() {
            let origin = webhook.origin();
            if self.webhooks[..index].contains(webhook) {
                return wrong(format!("one at {origin} is given twice"));
            }
            if let Some(why) = webhook.is_private().filter(|_| !self.webhook_private) {
                return wrong(format!("{origin} {why}; --webhook-private allows that"));
            }
        }
        if self.webhook_keys.is_none() {
            let rule = "must be set where there is a --webhook, to sign what is sent; make one as: echo \"whsec_$(openssl rand -base64 32)\"";
            return Err(InvalidInput::new(WEBHOOK_SECRET, rule));
        }
        match (self.command, self.backend()) {
            (Command::Api | Command::Worker, _) => wrong("is sent by `serve` alone".to_owned()),
            (_, BackendKind::Aws) => wrong(
                "needs the embedded backend: on AWS each process would send everything (follow GET /v1/changes, or the table's stream)".to_owned(),
            ),
            _ if self.keep_changes == 0 => {
                wrong("needs the feed of changes, which --keep-changes 0 switches off".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What the store asks of buyers before they get another hold.
    #[must_use]
    pub fn buyer_rules(&self) -> BuyerRules {
        let rules = BuyerRules::builder().maybe_holds_max(self.holds_per_buyer);
        rules.maybe_hold_again_after(self.hold_again_after).build()
    }

    /// The address to listen on, if it is to listen.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.command {
            Command::Serve | Command::Api => {
                Some(self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5000))))
            }
            Command::Worker
            | Command::Audit
            | Command::DeadLetters
            | Command::Redrive
            | Command::Backup
            | Command::Restore
            | Command::Archive
            | Command::Compact => self.listen,
        }
    }

    /// Connections that one peer may have.
    #[must_use]
    pub fn connections_per_peer(&self) -> usize {
        self.connections_per_peer.map_or((self.connections_max / 4).max(1), NonZeroUsize::get)
    }

    /// The queue's name or URL, without the numbers of partitions, and the table's name.
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
    /// A variable is not UTF-8.
    #[error("{0} is not UTF-8 text")]
    NotText(&'static str),
    /// A value can never work.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
}

fn pool(text: &str) -> Result<ItemSpec, InvalidInput> {
    // An id may have equals signs in it; a capacity may not.
    let (id, capacity) = text
        .rsplit_once('=')
        .ok_or_else(|| InvalidInput::new("item", "must be ID=CAPACITY, like ticket_1=100"))?;
    let capacity = capacity
        .parse()
        .map_err(|_| InvalidInput::new("capacity", "must be a number, like ticket_1=100"))?;
    ItemSpec::pool(id, capacity)
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
            Err("must be written as IPv4, as such peers are".to_owned())
        }
        Ok(network) => Ok(network),
        Err(_) => Err("must be like 10.0.0.0/8 or 2001:db8::/32".to_owned()),
    }
}

fn path(path: PathBuf) -> Result<PathBuf, String> {
    let text = path.as_os_str().as_encoded_bytes();
    let around = text.trim_ascii().len() != text.len();
    if around || text.iter().any(u8::is_ascii_control) {
        return Err("has white space around it, or a line end in it".to_owned());
    }
    Ok(path)
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1: with 0 nothing could be done".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("must be a whole number, at least 1".to_owned()),
    }
}

fn claim(text: &str) -> Result<String, String> {
    if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
        return Err(
            "must not be empty, nor have white space around it: no token has it so".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("must be seconds, more than 0 and at most 86400".to_owned()),
    }
}

fn item_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (1024 * 1024..=16 * 1024 * 1024).contains(bytes));
    bytes.ok_or_else(|| "must be bytes, 1048576 to 16777216".to_owned())
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
    fn a_trusted_network_is_one_that_peers_can_be_in() {
        for good in ["10.0.0.0/8", "10.1.2.3/8", "127.0.0.1", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert!(network(good).is_ok(), "{good}");
        }
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_peer_has_a_quarter_of_the_connections_and_one_at_least() {
        let most = |args: &[&str]| {
            Config::parse_from([&["flux-server"], args].concat()).connections_per_peer()
        };
        assert_eq!(most(&[]), 4_096);
        assert_eq!(most(&["--connections-max", "3"]), 1);
        assert_eq!(most(&["--connections-max", "8", "--connections-per-peer", "8"]), 8);
    }
}
