//! The backend that keeps orders and items: files, or AWS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flux_core::Flux;
use flux_core::backends::embedded::Embedded;
use tracing::warn;

use crate::setup::config::{BackendKind, Command, Config};

/// An engine on its backend.
pub struct Opened {
    /// The engine.
    pub flux: Flux,
    /// The store, if it is in files here.
    pub embedded: Option<Arc<Embedded>>,
    /// Writes the bill so far; the embedded backend costs nothing.
    pub bill: Option<Box<dyn Fn() -> String + Send>>,
}

/// Opens the backend that the configuration names and starts its engine.
///
/// # Errors
/// Says what is missing or in the way, and what to do about it.
pub async fn open(config: &Config) -> Result<Opened> {
    let kind = config.backend();
    check_built(kind, cfg!(feature = "aws"))?;
    match kind {
        BackendKind::Embedded => open_embedded(config).await,
        #[cfg(feature = "aws")]
        BackendKind::Aws => {
            let (flux, meter) = crate::setup::aws::open(config).await?;
            Ok(Opened {
                flux,
                embedded: None,
                bill: Some(Box::new(move || meter.bill().to_string())),
            })
        }
        #[cfg(not(feature = "aws"))]
        BackendKind::Aws => unreachable!("a build without aws refused it above"),
    }
}

/// Refuses a backend that the program was built without.
fn check_built(kind: BackendKind, with_aws: bool) -> Result<()> {
    ensure!(
        with_aws || kind != BackendKind::Aws,
        "this program was built without the feature aws, which --backend aws and SQS_QUEUE_URL with DYNAMODB_TABLE need; build it with: cargo build --release -p flux-server --features aws"
    );
    Ok(())
}

async fn open_embedded(config: &Config) -> Result<Opened> {
    let builder = Embedded::builder(config.data_dir.clone())
        .keep_rejected(Duration::from_secs(config.keep_rejected))
        .rejected_max(config.rejected_max)
        .keep_changes(Duration::from_secs(config.keep_changes))
        .changes_max(config.changes_max)
        .buyer_rules(config.buyer_rules());
    let opened = tokio::task::spawn_blocking(move || builder.open()).await?;
    let embedded = opened.with_context(|| format!("can't open {}", config.data_dir.display()))?;
    match config.command {
        Command::Api => warn!(
            "api with the embedded backend: orders are accepted and nobody decides them, as no worker can open this data directory; run `serve` to have both"
        ),
        Command::Worker => warn!(
            "worker with the embedded backend: it decides what this data directory has and no more, as nothing that accepts orders can open it; run `serve` to have both"
        ),
        _ => {}
    }
    let flux = Flux::builder(embedded.backend()).role(config.command.role()).start();
    Ok(Opened { flux, embedded: Some(Arc::new(embedded)), bill: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_aws_names_the_feature_and_the_command() {
        for (kind, with_aws) in [
            (BackendKind::Embedded, false),
            (BackendKind::Embedded, true),
            (BackendKind::Aws, true),
        ] {
            assert!(check_built(kind, with_aws).is_ok(), "{kind:?}");
        }
        let refused = check_built(BackendKind::Aws, false).expect_err("no aws").to_string();
        assert!(refused.contains("the feature aws"), "{refused}");
        assert!(refused.ends_with("cargo build --release -p flux-server --features aws"));
    }
}
