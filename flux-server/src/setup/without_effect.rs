//! What is configured and has no effect: said at start, as whoever set it believes that it has.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::CommandFactory;

use crate::setup::config::{
    BackendKind, Config, QUEUE, REDIS_HOST, REDIS_PASSWORD, REDIS_PORT, REDIS_URL, SECRETS, TABLE,
    WEBHOOK_SECRET, variable,
};

/// A sentence for each setting that changes nothing.
#[must_use]
pub fn without_effect(config: &Config) -> Vec<String> {
    let mut said = Vec::new();
    let is_set = |name: &str| variable(name).is_some();
    for (set, other) in [(QUEUE, TABLE), (TABLE, QUEUE)] {
        if config.backend() == BackendKind::Embedded && is_set(set) && !is_set(other) {
            said.push(format!("{set} is set and {other} is not, so orders are kept in files here"));
        }
    }
    match config.backend() {
        BackendKind::Embedded => {
            for name in [REDIS_URL, REDIS_HOST].into_iter().filter(|name| is_set(name)) {
                said.push(format!("{name} is set, and the embedded backend uses no Redis"));
            }
            if config.create || config.stripes != 1 || config.partitions.is_some() {
                let flags =
                    "--create, --partitions and --stripes have no effect on the embedded backend";
                said.push(flags.to_owned());
            }
        }
        BackendKind::Aws if is_set(REDIS_URL) && is_set(REDIS_HOST) => {
            said.push(format!("{REDIS_HOST} is set and has no effect, as {REDIS_URL} is set too"));
        }
        BackendKind::Aws => {}
    }
    if !is_set(REDIS_URL) && !is_set(REDIS_HOST) {
        for name in [REDIS_PORT, REDIS_PASSWORD].into_iter().filter(|name| is_set(name)) {
            said.push(format!("{name} is set and has no effect without {REDIS_HOST}"));
        }
    }
    if config.webhooks.is_empty() && is_set(WEBHOOK_SECRET) {
        said.push(format!("{WEBHOOK_SECRET} is set and has no effect without --webhook"));
    }
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    said.extend(unknown(names).map(|name| format!("{name} is set, and nothing here reads it")));
    said
}

/// The names that look like ours and are not.
fn unknown(names: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let command = Config::command();
    let flags = command.get_arguments().filter_map(|flag| flag.get_env().map(OsStr::to_owned));
    let known: HashSet<_> = flags.chain(SECRETS.map(OsString::from)).collect();
    names.filter(move |name| {
        // Kubernetes tells of a service named flux in such variables.
        let service = name.starts_with("FLUX_SERVICE_") || name.starts_with("FLUX_PORT");
        name.starts_with("FLUX_") && !service && !known.contains(OsStr::new(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_misspelt_is_told_from_those_that_are_read() {
        let names = [
            "FLUX_LISTEN",
            "FLUX_OPERATOR_TOKEN",
            "FLUX_OPERATER_TOKEN",
            "FLUX_BUYER_JWT_AUDIENCE",
            "FLUX_BUYER_JWT_AUD",
            "FLUX_PORT_5000_TCP_ADDR",
            "FLUX_SERVICE_HOST",
            "PATH",
        ];
        let unknown: Vec<_> = unknown(names.map(str::to_owned).into_iter()).collect();
        assert_eq!(unknown, ["FLUX_OPERATER_TOKEN", "FLUX_BUYER_JWT_AUD"]);
    }
}
