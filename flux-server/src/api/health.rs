//! The calls of operations: whether the process lives and works, and its figures.

use std::time::Duration;

use flux_core::Error;
use http::StatusCode;
use serde::Serialize;

use crate::app::App;
use crate::http::problem::{Problem, note};
use crate::http::response::{self, Answer};

/// Time within which a backend that is ready answers.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`.
pub(crate) fn alive() -> Answer {
    response::json(StatusCode::OK, &Health { status: "alive" })
}

/// `GET /metrics`.
pub(crate) async fn metrics(app: &App) -> Answer {
    response::bytes(TEXT, app.figures.render(&app.flux, &app.http, app.requests()).await)
}

/// `GET /readyz`.
pub(crate) async fn ready(app: &App) -> Result<Answer, Problem> {
    if app.shutdown.is_draining() {
        return Err(Problem::unavailable("the server is stopping"));
    }
    let asked = app.flux.check_backends();
    // A reading has no effect, so no failure leaves one open.
    match tokio::time::timeout(READY_WITHIN, asked).await {
        Ok(Ok(())) => Ok(response::json(StatusCode::OK, &Health { status: "ready" })),
        Ok(Err(error)) => {
            if let Error::Backend(error) = &error {
                note(error);
            }
            Err(Problem::unavailable("the backends do not work"))
        }
        Err(_) => Err(Problem::unavailable("the backends do not answer")),
    }
}
