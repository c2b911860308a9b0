//! The calls of operations: whether the process lives and works, and its figures.

use std::time::Duration;

use bytes::Bytes;
use flux_core::Error;
use http::StatusCode;
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::http::problem::{Problem, note};
use crate::http::response::{self, Answer};

/// Time within which a backend that is ready answers.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// Time within which there is a copy to tell from, whoever makes it.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`.
pub(crate) fn alive(app: &App) -> Result<Answer, Problem> {
    check_engine(app)?;
    Ok(response::json(StatusCode::OK, &Health { status: "alive" }))
}

fn check_engine(app: &App) -> Result<(), Problem> {
    match app.flux.failure() {
        Some(_) => {
            Err(Problem::unavailable("the engine has failed; the process must be restarted"))
        }
        None => Ok(()),
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(app: &App) -> Result<Answer, Problem> {
    let render =
        async { Bytes::from(app.figures.render(&app.flux, &app.http, app.requests()).await) };
    match timeout(TOLD_WITHIN, app.rendered.get(render)).await {
        Ok(text) => Ok(response::bytes(TEXT, text)),
        Err(_) => Err(Problem::unavailable("the figures are not there in time")),
    }
}

/// `GET /readyz`.
pub(crate) async fn ready(app: &App) -> Result<Answer, Problem> {
    check_engine(app)?;
    if app.shutdown.is_draining() {
        return Err(Problem::unavailable("the server is stopping"));
    }
    match timeout(TOLD_WITHIN, app.readiness.get(check_backends(app))).await {
        Ok(Ok(())) => Ok(response::json(StatusCode::OK, &Health { status: "ready" })),
        Ok(Err(why)) => Err(Problem::unavailable(why)),
        Err(_) => Err(Problem::unavailable(SILENT)),
    }
}

const SILENT: &str = "the backends do not answer";

async fn check_backends(app: &App) -> Result<(), &'static str> {
    // A reading has no effect, so no failure leaves one open.
    match timeout(READY_WITHIN, app.flux.check_backends()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            if let Error::Backend(error) = &error {
                note(error);
            }
            Err("the backends do not work")
        }
        Err(_) => Err(SILENT),
    }
}
