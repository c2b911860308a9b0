//! Starts, runs and stops the server.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use flux_server::api::route::Route;
use flux_server::app::{App, OPS_CONNECTIONS_MAX, TURNED_AWAY_MAX};
use flux_server::conn::server;
use flux_server::serve::{operations, serve};
use flux_server::setup::backend::{self, Opened};
use flux_server::setup::config::{Command, Config};
use flux_server::setup::without_effect::without_effect;
use flux_server::setup::{admin, archives, catalog, copies, operator_token};
use flux_server::telemetry::{self, Http, Telemetry};
use flux_server::webhooks::Webhooks;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// Open files beside the connections.
const OTHER_FILES: usize = 128 + TURNED_AWAY_MAX + OPS_CONNECTIONS_MAX;
/// The status of a process whose engine has failed: `EX_SOFTWARE` of sysexits(3).
const ENGINE_FAILED: u8 = 70;
/// Time for the last lines to be written.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(200);

// Orders are made by one thread and let go by another, where the system's
// allocator has them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let status = start().unwrap_or_else(|error| {
        telemetry::say(format_args!("flux-server: {error:#}"));
        ExitCode::FAILURE
    });
    telemetry::flush(LAST_LINES_WITHIN);
    status
}

fn start() -> Result<ExitCode> {
    without_huge_pages();
    // Before there are threads: it sets environment variables.
    let config = Config::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(run(config));
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    ran
}

/// Has memory come in small pages. The system clears a huge one, of 2 MiB, while who asked
/// for it waits: where memory is slow to get, that made the 99th percentile of the wait
/// for an order 41 ms at half load, and 2 ms without.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    // An old system that can't goes on with them.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

async fn run(mut config: Config) -> Result<ExitCode> {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    // Asked for first, so that none is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let pools = if config.command == Command::Archive { Vec::new() } else { config.pools()? };
    let items = catalog::wanted(&pools, config.catalog.as_deref())?;
    let telemetry = Telemetry::start(config.log_format)?;
    telemetry.log_panics();
    if let Some(done) = copies::run(&config).await {
        return done.map(|()| ExitCode::SUCCESS);
    }
    if let Some(done) = admin::ask(&config).await {
        return done.map(|()| ExitCode::SUCCESS);
    }
    if let Some(done) = archives::run(&config).await {
        return done.map(|()| ExitCode::SUCCESS);
    }
    let Opened { flux, embedded, bill } = backend::open(&config).await?;
    if let Some(done) = admin::run(&config, &flux).await {
        flux.shutdown().await;
        return done.map(|()| ExitCode::SUCCESS);
    }
    for said in without_effect(&config) {
        warn!("{said}");
    }
    operator_token::provide(&mut config)?;
    // Before anything is put on sale, so that they are told of that too.
    let mut webhooks = Webhooks::start(&config, &flux).await?;
    catalog::put_missing(&flux, items).await?;

    fit_connections(&mut config, files);
    let http = Http::new(Route::ALL.map(Route::name));
    let app = App::new(flux.clone(), &config, telemetry.figures(), http);
    let app = Arc::new(app.with_store(embedded).with_webhooks(&webhooks));
    // Dropped at the end, once there is nothing more to ask about.
    let mut for_operations = JoinSet::new();
    if let Some(address) = config.ops_listen {
        let listener = server::listen(address).with_context(|| {
            format!("can't listen on {address}; choose another with --ops-listen")
        })?;
        announce("health and metrics", listener.local_addr()?);
        for_operations.spawn(operations(Arc::clone(&app), listener));
    }
    let listener = match config.address() {
        Some(address) => {
            let listener = server::listen(address).with_context(|| {
                format!("can't listen on {address}; choose another with --listen")
            })?;
            warn_of_risks(&config, listener.local_addr()?.ip().is_loopback());
            announce("listening", listener.local_addr()?);
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
        failure = flux.failed() => {
            error!(error = &failure as &dyn Error, "stopping, as the engine has failed");
        }
    }
    app.shutdown().start_draining();
    // The engine and the traces have the rest of the time.
    let serving = tokio::time::timeout(config.drain.mul_f64(0.6), serving);
    let (served, ()) = tokio::join!(serving, webhooks.stop(config.drain.mul_f64(0.3)));
    if served.is_err() {
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
    Ok(flux.failure().map_or(ExitCode::SUCCESS, |_| ENGINE_FAILED.into()))
}

/// Says on standard output where the server listens. It serves whether anybody
/// can read that or not.
fn announce(what: &'static str, address: SocketAddr) {
    tokio::task::spawn_blocking(move || {
        // Whoever waits for this line then finds in the log what was said before it.
        telemetry::flush(LAST_LINES_WITHIN);
        if let Err(error) = writeln!(std::io::stdout(), "{what} on http://{address}") {
            warn!(%error, "nobody can read on standard output: {what} on http://{address}");
        }
    });
}

/// Takes no more connections than files may be open: who has the last of them would
/// keep everybody else out, whatever the shares.
fn fit_connections(config: &mut Config, files: u64) {
    let fit = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(1);
    if fit < config.connections_max {
        warn!(
            files,
            connections_max = fit,
            "fewer open files are allowed than connections; raise `ulimit -n`"
        );
        config.connections_max = fit;
    }
}

fn warn_of_risks(config: &Config, loopback: bool) {
    match &config.buyer_jwt_secret {
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
    if config.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        warn!("--trusted-proxy of all addresses: every peer may name itself as it likes");
    }
}
