//! The addresses of Redis and the stand-ins for SQS and DynamoDB, told by the
//! environment as `tests/services` sets it.

use std::io;

/// The variables that each process is told; the rest it is not.
const NAMES: [&str; 6] = [
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "REDIS_URL",
];

/// The environment of a fleet's processes.
#[derive(Debug, Clone)]
pub struct Services {
    vars: Vec<(String, String)>,
}

impl Services {
    /// Reads what `tests/services` tells, with a queue and a table of this name.
    ///
    /// # Errors
    /// When the services are not started, or are not on this machine: nobody's
    /// bill is to grow by an example.
    pub fn from_env(name: &str) -> io::Result<Self> {
        let mut vars = Vec::new();
        for known in NAMES {
            let value = std::env::var(known).map_err(|_| {
                let start = "start the services: tests/services COMMAND, with this as the command";
                io::Error::other(format!("{known} is not set; {start}"))
            })?;
            if value.contains("://") {
                loopback(&value)?;
            }
            vars.push((known.to_owned(), value));
        }
        let services = Self { vars };
        Ok(services.with("SQS_QUEUE_URL", name).with("DYNAMODB_TABLE", name))
    }

    /// The same services with this variable set anew.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.retain(|(known, _)| known != name);
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// The value of a variable.
    ///
    /// # Panics
    /// When it is none of the fleet's.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let found = self.vars.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name} is not told")).1
    }

    pub(super) fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars.iter().map(|(name, value)| (&name[..], &value[..]))
    }
}

/// The `host:port` of a URL on this machine.
///
/// # Errors
/// When it is on another.
pub fn loopback(url: &str) -> io::Result<&str> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let address = rest.split('/').next().unwrap_or_default();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    match ["127.0.0.1", "localhost", "[::1]"].contains(&host) {
        true => Ok(address),
        false => Err(io::Error::other(format!("{url} is not on this machine"))),
    }
}
