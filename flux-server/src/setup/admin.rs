//! The commands of an operator: recount, and look after dead letters.

use std::fmt::{Display, Write};
use std::io::{self, Write as _};

use anyhow::{Context, Result, ensure};
use flux_core::Flux;
use flux_core::protocol::Message;

use crate::setup::config::{Command, Config};

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
        Command::Audit => audit(flux).await,
        Command::DeadLetters => dead_letters(flux, config.max).await,
        Command::Redrive => redrive(flux, config.max).await,
    })
}

async fn audit(flux: &Flux) -> Result<()> {
    let audit = flux.audit().await.context("the sale could not be counted")?;
    print(&audit)?;
    ensure!(audit.is_clean(), "the audit found faults");
    Ok(())
}

async fn dead_letters(flux: &Flux, max: usize) -> Result<()> {
    let letters = flux.dead_letters(max).await.context("dead letters could not be read")?;
    let mut list = String::new();
    for letter in &letters {
        let what = match &letter.message {
            Message::Place(_) => "place",
            Message::Release(_) => "release",
            Message::Cancel(_) => "cancel",
            Message::Expire(_) => "expire",
            Message::LatePayment(..) => "late payment",
        };
        let (at, order) = (letter.buried_at, letter.message.order_id());
        let _ = writeln!(list, "{at} {what} {order}: {}", letter.reason);
    }
    let _ = write!(list, "{} dead letters", letters.len());
    print(list)
}

async fn redrive(flux: &Flux, max: usize) -> Result<()> {
    let count = flux.redrive(max).await.context("dead letters could not be put back")?;
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
