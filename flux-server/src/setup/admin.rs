//! The commands of an operator: recount, and look after dead letters. With `--url` a
//! running server does it, else this process with a store that no other has open.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::{Context, Result, ensure};
use flux_core::{Audit, AuditFault, Flux};
use http::Method;

use crate::api::admin::{LetterView, Letters, Redriven};
use crate::setup::config::{BackendKind, Command, Config};
use crate::setup::running::ask_for;

/// Most dead letters of one call.
const LETTERS_MAX: usize = 1_000;

/// Has a running server do what the command asks for; `None` if it asks none.
pub async fn ask(config: &Config) -> Option<Result<()>> {
    config.url.as_ref()?;
    Some(match config.command {
        Command::Audit => match ask_for(config, Method::GET, "/v1/audit", None).await {
            Ok(audit) => report(&audit),
            Err(error) => Err(error),
        },
        Command::DeadLetters => ask_for_letters(config).await,
        Command::Redrive => ask_to_redrive(config).await,
        _ => return None,
    })
}

async fn ask_for_letters(config: &Config) -> Result<()> {
    let max = config.max;
    ensure!(max <= LETTERS_MAX, "--max: a server lists {LETTERS_MAX} at most");
    let path = format!("/v1/dead-letters?limit={max}");
    let Letters { dead_letters } = ask_for(config, Method::GET, &path, None).await?;
    list(&dead_letters)
}

async fn ask_to_redrive(config: &Config) -> Result<()> {
    let mut count = 0;
    while count < config.max {
        let limit = LETTERS_MAX.min(config.max - count);
        let path = format!("/v1/dead-letters/redrive?limit={limit}");
        let Redriven { redriven } = ask_for(config, Method::POST, &path, None).await?;
        count += redriven;
        if redriven < limit {
            break;
        }
    }
    tell_redriven(count)
}

/// Does what the command asks for and prints it; `None` if it is to serve.
pub async fn run(config: &Config, flux: &Flux) -> Option<Result<()>> {
    Some(match config.command {
        Command::Serve
        | Command::Api
        | Command::Worker
        | Command::Backup
        | Command::Restore
        | Command::Archive
        | Command::Compact => return None,
        Command::Audit => audit(config, flux).await,
        Command::DeadLetters => dead_letters(flux, config.max).await,
        Command::Redrive => redrive(flux, config.max).await,
    })
}

async fn audit(config: &Config, flux: &Flux) -> Result<()> {
    let mut audit = flux.audit().await.context("the sale could not be counted")?;
    if config.backend() == BackendKind::Embedded {
        // The store is this process's alone, which ends no holds.
        let all = audit.faults.len();
        audit.faults.retain(|fault| !matches!(fault, AuditFault::HoldOutlived(_)));
        let ended = all - audit.faults.len();
        if ended > 0 {
            print(format_args!("{ended} holds or more have ended, and end when it is served"))?;
        }
    }
    report(&audit)
}

fn report(audit: &Audit) -> Result<()> {
    print(audit)?;
    ensure!(audit.is_clean(), "the audit found faults");
    Ok(())
}

async fn dead_letters(flux: &Flux, max: usize) -> Result<()> {
    let letters = flux.dead_letters(max).await.context("dead letters could not be read")?;
    list(&letters.iter().map(LetterView::from).collect::<Vec<_>>())
}

fn list(letters: &[LetterView<'_>]) -> Result<()> {
    let lines: String = letters.iter().map(|letter| format!("{letter}\n")).collect();
    print(format_args!("{lines}{} dead letters", letters.len()))
}

async fn redrive(flux: &Flux, max: usize) -> Result<()> {
    tell_redriven(flux.redrive(max).await.context("dead letters could not be put back")?)
}

fn tell_redriven(count: usize) -> Result<()> {
    print(format_args!("{count} dead letters put back in the queue"))
}

/// Prints an answer. Who asked and has heard enough, as `head` has, is not told of
/// that.
fn print(answer: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{answer}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("the answer could not be written to standard output"),
    }
}
