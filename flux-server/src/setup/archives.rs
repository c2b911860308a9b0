//! The commands by which sales that are over leave the store: `archive`, by the running server
//! or on a store that none has open, and `compact`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use flux_core::ItemId;
use flux_core::archive::{ArchiveProgress, Archived};
use flux_core::backends::embedded::Embedded;
use http::Method;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::setup::backend::{self, Opened};
use crate::setup::config::{BackendKind, Command, Config};
use crate::setup::running;

const PATH: &str = "/v1/archives";
/// Orders between two lines about how far it came.
const TOLD_EVERY: u64 = 100_000;

/// Does what the command asks for; `None` if it asks for something else.
pub async fn run(config: &Config) -> Option<Result<()>> {
    Some(match (config.command, &config.to) {
        (Command::Archive, Some(dir)) => archive_here(config, dir).await,
        (Command::Archive, None) => archive_there(config).await,
        (Command::Compact, _) => compact(&config.data_dir).await,
        _ => return None,
    })
}

fn items(config: &Config) -> Result<Vec<ItemId>> {
    ensure!(!config.items.is_empty(), "name what to archive: --item ID, which may be repeated");
    Ok(config.items.iter().map(ItemId::new).collect::<Result<_, _>>()?)
}

fn say(archived: &Archived, place: &Path) {
    let Archived { orders, items, .. } = archived;
    let names: Vec<&str> = items.iter().map(ItemId::as_str).collect();
    eprintln!("archived {orders} orders on {} to {}", names.join(", "), place.display());
}

/// Archives items of a store that no server has open, and gives back the room.
async fn archive_here(config: &Config, dir: &Path) -> Result<()> {
    let items = items(config)?;
    let kind = config.backend();
    ensure!(kind == BackendKind::Embedded, "only what the embedded backend keeps is archived");
    let Opened { flux, embedded, .. } = backend::open(config).await?;
    let mut told = 0;
    let tell = |progress| {
        let (what, orders) = match progress {
            ArchiveProgress::Written(orders) => ("written", orders),
            ArchiveProgress::TakenOut(orders) => ("taken out of the store", orders),
            _ => return,
        };
        if orders / TOLD_EVERY != told {
            told = orders / TOLD_EVERY;
            eprintln!("{orders} orders {what}");
        }
    };
    let archived = flux.archive_telling(&items, dir, tell).await;
    flux.shutdown().await;
    drop((flux, embedded));
    let archived = archived.context("nothing was archived, or not to the end: do it again")?;
    say(&archived, &dir.join(archived.archive.to_string()));
    compact(&config.data_dir).await
}

async fn compact(dir: &Path) -> Result<()> {
    let path = dir.to_owned();
    let compacted = spawn_blocking(move || Embedded::compact(path)).await?;
    let (before, after) =
        compacted.with_context(|| format!("{} was not made smaller", dir.display()))?;
    eprintln!("{}: {before} bytes before, {after} now", dir.display());
    Ok(())
}

/// What a server answers.
#[derive(Deserialize)]
struct Made {
    #[serde(flatten)]
    archived: Archived,
    directory: String,
}

/// Has the running server archive items.
async fn archive_there(config: &Config) -> Result<()> {
    let items = items(config)?;
    let asked = serde_json::json!({ "items": items });
    let made = running::ask_for(config, Method::POST, PATH, Some(&asked)).await;
    let made: Made = made.context(
        "asking a running server; nothing is lost and nothing done twice by asking again. To archive where none runs, name a directory with --to",
    )?;
    say(&made.archived, Path::new(&made.directory));
    Ok(())
}
