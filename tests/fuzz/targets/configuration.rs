//! The configuration: flags are refused, or keep their bounds; a secret in a `.env` is what
//! its line says, or refused, and no message shows it.
//!
//! The first byte says which: flags, one a line, or a `.env`.

#![no_main]

use std::time::Duration;

use clap::Parser;
use flux_server::fuzzing;
use flux_server::setup::config::Config;
use libfuzzer_sys::fuzz_target;

const SECRETS: [&str; 2] = ["FLUX_OPERATOR_TOKEN", "FLUX_BUYER_JWT_SECRET"];

fn flags(text: &str) {
    let flags = text.lines().take(30);
    let Ok(config) = Config::try_parse_from(std::iter::once("flux-server").chain(flags)) else {
        return;
    };
    for spec in config.pools().unwrap_or_default() {
        spec.check().expect("what is read keeps the rules");
        let written = format!("{}={}", spec.id, spec.capacity());
        let again = Config::try_parse_from(["flux-server", "--item", &written]);
        // A name that begins like a flag needs an equals sign before it.
        if !written.starts_with('-') {
            let again = again.unwrap_or_else(|wrong| panic!("{wrong}")).pools();
            assert_eq!(again.unwrap_or_else(|wrong| panic!("{wrong}")), [spec]);
        }
    }
    let times = [config.head_timeout, config.body_timeout, config.idle_timeout, config.drain];
    for time in times {
        assert!((Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&time));
    }
}

fn dotenv(text: &str) {
    // Something to look for in messages that no message has by chance.
    let text = text.replace("SECRET!", "s3cr3t-s3cr3t");
    if let Err(reason) = fuzzing::dotenv(&text, &SECRETS) {
        assert!(!reason.is_empty() && !reason.contains("s3cr3t-s3cr3t"), "{reason}");
        return;
    }
    // A secret that was let through stands in the file, byte for byte.
    for line in text.lines() {
        for name in SECRETS {
            let Some(value) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('='))
            else {
                continue;
            };
            let bare = value.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if bare && !value.is_empty() {
                let alone = format!("{name}={value}\n");
                assert_eq!(fuzzing::dotenv(&alone, &SECRETS), Ok(()), "a plain secret is taken");
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if which & 1 == 0 { flags(text) } else { dotenv(text) }
});
