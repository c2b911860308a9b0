//! Starts, runs and stops the server.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::conn::server;
use flux_server::serve::serve;
use flux_server::setup::backend::{self, Opened};
use flux_server::setup::config::Config;
use flux_server::setup::{admin, catalog};
use flux_server::telemetry::{Http, Telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Open files beside the connections.
const OTHER_FILES: u64 = 64;

// Orders are made by one thread and let go by another, where the system's
// allocator has them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flux-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    // Before there are threads: it sets environment variables.
    let config = Config::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(run(config));
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    ran
}

async fn run(config: Config) -> Result<()> {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    // Asked for first, so that none is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let telemetry = Telemetry::start(config.log_format)?;
    let Opened { flux, bill } = backend::open(&config).await?;
    if let Some(done) = admin::run(&config, &flux).await {
        flux.shutdown().await;
        return done;
    }
    let mut items = config.items.clone();
    if let Some(file) = &config.catalog {
        items.extend(catalog::read(file)?);
    }
    catalog::put_missing(&flux, items).await?;

    let http = Http::new(Route::ALL.map(Route::name));
    let app = Arc::new(App::new(flux.clone(), &config, telemetry.figures(), http));
    let listener = match config.address() {
        Some(address) => {
            let listener = server::listen(address).with_context(|| {
                format!("can't listen on {address}; choose another with --listen")
            })?;
            warn_of_risks(&config, listener.local_addr()?.ip().is_loopback(), files);
            println!("listening on http://{}", listener.local_addr()?);
            Some(listener)
        }
        None => None,
    };
    let mut serving = Box::pin(async {
        match listener {
            Some(listener) => serve(Arc::clone(&app), listener).await,
            None => app.shutdown().draining().await,
        }
    });
    tokio::select! {
        () = &mut serving => {}
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    app.shutdown().start_draining();
    // The engine and the traces have the rest of the time.
    if tokio::time::timeout(config.drain.mul_f64(0.6), serving).await.is_err() {
        warn!("some connections did not end in time");
    }
    if tokio::time::timeout(config.drain.mul_f64(0.1), app.finished()).await.is_err() {
        warn!("some requests were not finished in time");
    }
    if tokio::time::timeout(config.drain.mul_f64(0.2), flux.shutdown()).await.is_err() {
        warn!("the engine did not stop in time; what it left is found when it is opened again");
    }
    if let Some(bill) = bill {
        info!("the bill of this process: {}", bill());
    }
    info!("stopped");
    telemetry.finish(config.drain.mul_f64(0.05)).await;
    Ok(())
}

fn warn_of_risks(config: &Config, loopback: bool, files: u64) {
    if config.operator_token().is_none() {
        warn!(
            "FLUX_OPERATOR_TOKEN is not set: operator calls are open to every process on this machine, and to whatever a proxy on it passes on"
        );
    }
    match config.buyer_jwt_secret() {
        None => warn!("FLUX_BUYER_JWT_SECRET is not set: anybody may order in any buyer's name"),
        Some(secret) if secret.reveal().len() < 32 => {
            warn!("FLUX_BUYER_JWT_SECRET is shorter than 32 bytes: it can be guessed");
        }
        Some(_) => {}
    }
    if !loopback {
        warn!("listening beyond this machine without TLS: put a proxy with TLS in front");
    }
    if config.limit_per_buyer.is_none() && config.limit_per_peer.is_none() {
        warn!("no --limit-per-buyer and no --limit-per-peer: one caller may take all there is");
    }
    if config.cors_origin.as_ref().is_some_and(|origin| origin == "*") {
        warn!("--cors-origin *: pages of any origin may call /v1");
    }
    if files < config.connections_max as u64 + OTHER_FILES {
        warn!(
            files,
            connections_max = config.connections_max,
            "fewer open files are allowed than connections; raise `ulimit -n`"
        );
    }
}
