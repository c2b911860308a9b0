//! Health, and what is served from the binary itself.

use std::time::Duration;

use flux_core::Error;
use http::StatusCode;
use http::header::CONTENT_SECURITY_POLICY;
use serde::Serialize;

use crate::api::page;
use crate::api::route::Route;
use crate::app::App;
use crate::http::problem::{Problem, note};
use crate::http::response::{self, Answer};

/// A backend that takes longer to answer is not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// What operations ask, and what is served from the binary.
pub(crate) async fn answer(app: &App, route: Route) -> Result<Answer, Problem> {
    match route {
        Route::Healthz => Ok(response::json(StatusCode::OK, &Health { status: "alive" })),
        Route::Readyz => {
            ready(app).await?;
            Ok(response::json(StatusCode::OK, &Health { status: "ready" }))
        }
        Route::Metrics => Ok(response::bytes(TEXT, app.figures.render(app).await)),
        Route::Pulse => Ok(response::events(app.hub.pulse(), app.stream()?)),
        Route::OpenApi => Ok(response::bytes("application/json", OPEN_API)),
        _ => {
            let mut answer = response::bytes("text/html; charset=utf-8", page::PAGE);
            answer.headers_mut().insert(CONTENT_SECURITY_POLICY, page::may());
            Ok(answer)
        }
    }
}

async fn ready(app: &App) -> Result<(), Problem> {
    if app.is_draining() {
        return Err(Problem::unavailable("the server is stopping"));
    }
    let asked = app.flux.check_backends();
    // Nothing was to take effect, so no failure leaves that open.
    match tokio::time::timeout(READY_WITHIN, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            if let Error::Backend(error) = &error {
                note(error);
            }
            Err(Problem::unavailable("the backends do not work"))
        }
        Err(_) => Err(Problem::unavailable("the backends do not answer")),
    }
}

const OPEN_API: &str = include_str!("../../openapi.json");
