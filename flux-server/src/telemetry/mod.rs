//! Telemetry: a log, figures for Prometheus, and traces where someone collects
//! them.
//!
//! | part | file |
//! |---|---|
//! | the log, to standard error | `logs`, `log_writer` |
//! | spans of requests, and where they are sent | `traces`, `collector` |
//! | the recorder behind `/metrics`, and what is measured when it is asked | `figures`, `text` |
//! | requests and connections | `http` |

mod collector;
mod figures;
mod http;
mod log_writer;
mod logs;
mod text;
mod traces;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::task::JoinHandle;
use tracing::{error, warn};
use tracing_subscriber::prelude::*;

pub use figures::Figures;
pub use http::{Answering, Http, Open};
pub use traces::{answered, request_span};

use crate::setup::config::LogFormat;

/// Telemetry of a running process.
pub struct Telemetry {
    figures: Figures,
    spans: Option<SdkTracerProvider>,
    upkeep: JoinHandle<()>,
}

/// The reason that there can be no telemetry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG: {0}; write it like info or flux_core=debug,info")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// Spans can't be sent where they should be.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT must be like http://localhost:4318 ({0})")]
    Endpoint(String),
    /// Somebody else logs or measures in this process.
    #[error("telemetry is already set up in this process: {0}")]
    Twice(String),
}

impl Telemetry {
    /// Sets the process's log, recorder and exporter up, by `RUST_LOG` and
    /// `OTEL_*` in the environment. Once, within a tokio runtime, before
    /// anything is measured: what is met earlier stays silent.
    ///
    /// # Errors
    /// [`TelemetryError`]; nothing should go on then.
    pub fn start(format: LogFormat) -> Result<Self, TelemetryError> {
        let spans = traces::provider()?;
        tracing_subscriber::registry()
            .with(logs::layer(format)?)
            .with(spans.as_ref().map(traces::layer))
            .try_init()
            .map_err(|error| TelemetryError::Twice(error.to_string()))?;
        let figures = Figures::install()?;
        let upkeep = tokio::spawn(figures.clone().keep_up());
        Ok(Self { figures, spans, upkeep })
    }

    /// The figures of this process.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Has panics logged like everything else: the standard library's own lines
    /// would wait for a reader that has stopped.
    pub fn log_panics(&self) {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("unnamed");
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
            let backtrace = backtrace.map(tracing::field::display);
            error!(thread, backtrace, "{panic}");
        }));
    }

    /// Sends the spans that are left, and returns after `longest` at the
    /// latest.
    pub async fn finish(self, longest: Duration) {
        self.upkeep.abort();
        let Some(spans) = self.spans else { return };
        let sending = tokio::task::spawn_blocking(move || spans.shutdown_with_timeout(longest));
        if let Ok(Err(error)) = sending.await {
            warn!(%error, "some spans were not sent");
        }
    }
}

/// Says something outside of the log, on standard error.
pub fn say(text: impl Display) {
    // It takes every line.
    let _ = writeln!(log_writer::LogWriter, "{text}");
}

/// Waits until what was logged and said is written, for `longest` at most.
pub fn flush(longest: Duration) {
    log_writer::flush(longest);
}
