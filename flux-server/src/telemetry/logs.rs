//! The log: for people, for machines, or for systemd's journal.

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self as log, FmtContext};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::TelemetryError;
use super::log_writer::LogWriter;
use crate::setup::config::LogFormat;

/// The log on standard error, filtered by `RUST_LOG`.
pub(super) fn layer(
    format: LogFormat,
) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TelemetryError> {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).try_from_env();
    // An empty variable is one that is not set.
    let filter = match std::env::var_os("RUST_LOG") {
        Some(text) if !text.is_empty() => filter?,
        _ => EnvFilter::default().add_directive(LevelFilter::INFO.into()),
    };
    let log = log::layer().with_writer(|| LogWriter);
    Ok(match format {
        LogFormat::Json => log.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text if goes_to_the_journal() => {
            let plain = Format::default().without_time().with_level(false).with_ansi(false);
            log.with_ansi(false).event_format(ForTheJournal(plain)).with_filter(filter).boxed()
        }
        LogFormat::Text => log.with_ansi(takes_colours()).with_filter(filter).boxed(),
    })
}

/// Whether standard error is a terminal whose user does not mind colours
/// (<https://no-color.org>).
fn takes_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// Whether standard error is the journal itself: `JOURNAL_STREAM` is inherited
/// by children that write elsewhere (systemd.exec(5)).
fn goes_to_the_journal() -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let Ok(stderr) = stderr.map(std::fs::File::from).and_then(|file| file.metadata()) else {
        return false;
    };
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    named == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Lines that begin with their priority (sd-daemon(3)); the journal adds the
/// time itself.
struct ForTheJournal(Format<log::format::Full, ()>);

impl<S, N> FormatEvent<S, N> for ForTheJournal
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
