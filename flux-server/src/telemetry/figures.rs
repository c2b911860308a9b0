//! The recorder behind `/metrics`, and what is looked up when it is asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flux_core::{Flux, Timestamp};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::TelemetryError;
use super::http::Http;
use super::text::Text;

/// Upper bounds of times, in seconds. An order may wait for half a minute.
const SECONDS: [f64; 17] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Upper bounds of orders in a batch.
const ORDERS: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];
/// Period in which samples are put into their buckets; until then each takes memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// Items whose units are told; each has series of its own.
const ITEMS_MAX: usize = 100;
/// Time within which a backend must answer, or it is left out.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

const COUNTERS: [(&str, &str); 14] = [
    ("flux_http_requests_total", "Requests by route and status."),
    ("flux_http_no_place_total", "Connections and requests that were one too many."),
    ("flux_log_lines_lost_total", "Lines of the log that were not read in time."),
    ("flux_calls_total", "Calls to SQS, DynamoDB and Redis by service and operation."),
    ("flux_sqs_requests_total", "SQS requests as they are billed."),
    ("flux_redis_commands_total", "Commands to Redis."),
    ("flux_redis_failures_total", "Commands and connections to Redis that failed."),
    ("flux_redis_leases_lost_total", "Leases that had ended or gone to another."),
    ("flux_redis_junk_total", "Outcomes over Redis that could not be read."),
    ("flux_webhook_delivered_total", "Messages that receivers of webhooks took."),
    ("flux_webhook_failed_attempts_total", "Attempts at a webhook's message that failed."),
    ("flux_webhook_given_up_total", "Messages of webhooks that were given up."),
    ("flux_webhook_forgotten_total", "Messages given up beyond those that are kept."),
    ("flux_webhook_changes_gone_total", "Times that changes were gone before a webhook came."),
];
const GAUGES: [(&str, &str); 7] = [
    ("flux_redis_up", "Whether Redis answers."),
    ("flux_dynamodb_read_units", "Read units that DynamoDB counted; they only grow."),
    ("flux_dynamodb_write_units", "Write units that DynamoDB counted; they only grow."),
    ("flux_webhook_waiting", "Messages of a webhook that were read and not taken yet."),
    ("flux_webhook_in_flight", "Messages of a webhook that are on their way."),
    ("flux_webhook_given_up", "Messages of a webhook that were given up and are kept."),
    ("flux_webhook_oldest_seconds", "Age of the oldest change that a webhook has not told."),
];

/// The figures of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Figures {
    recorded: PrometheusHandle,
    started: SystemTime,
}

impl Figures {
    /// Installs the process's recorder.
    pub(super) fn install() -> Result<Self, TelemetryError> {
        let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(suffix("_seconds"), &SECONDS)
            .and_then(|b| b.set_buckets_for_metric(suffix("_orders"), &ORDERS))
            .expect("there are buckets")
            .build_recorder();
        let recorded = recorder.handle();
        metrics::set_global_recorder(recorder)
            .map_err(|error| TelemetryError::Twice(error.to_string()))?;
        for (name, help) in COUNTERS {
            metrics::describe_counter!(name, help);
        }
        for (name, help) in GAUGES {
            metrics::describe_gauge!(name, help);
        }
        let help = "From a request's head to its answer, by route.";
        metrics::describe_histogram!("flux_http_request_seconds", help);
        let help = "How long an attempt at a webhook's message took.";
        metrics::describe_histogram!("flux_webhook_attempt_seconds", help);
        // A series that begins with its first event hides that event from
        // `rate`, so those that are known begin here, or in flux-core.
        let by_label =
            |name: &str| ["flux_http_", "flux_webhook_"].iter().any(|p| name.starts_with(p));
        for (name, _) in COUNTERS.iter().filter(|(name, _)| !by_label(name)) {
            metrics::counter!(*name).increment(0);
        }
        Ok(Self { recorded, started: SystemTime::now() })
    }

    /// Sorts samples into buckets for ever.
    pub(super) async fn keep_up(self) {
        let mut again = interval(UPKEEP_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            self.recorded.run_upkeep();
        }
    }

    /// Renders all figures as Prometheus reads them, with `in_flight` requests
    /// being answered. What a backend does not tell in time is left out.
    /// Cancel-safe.
    pub async fn render(&self, flux: &Flux, http: &Http, in_flight: usize) -> String {
        let mut text = Text(self.recorded.render());
        text.one(
            "flux_http_connections",
            "gauge",
            "Connections that are open.",
            http.connections(),
        );
        text.one("flux_http_requests_in_flight", "gauge", "Requests being answered.", in_flight);
        let looked = async {
            queue(&mut text, flux).await?;
            owed(&mut text, flux).await?;
            items(&mut text, flux).await
        };
        match timeout(LOOK_WITHIN, looked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "some figures could not be looked up"),
            Err(_) => debug!("some figures were not told in time"),
        }
        self.process(&mut text);
        text.0
    }

    fn process(&self, text: &mut Text) {
        text.metric("flux_build_info", "gauge", "What runs.");
        text.value("flux_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = "process_start_time_seconds";
        text.one(name, "gauge", "When it was started.", started.as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            text.one("process_resident_memory_bytes", "gauge", "Memory in use.", bytes);
        }
        if let Some(files) = open_files() {
            text.one("process_open_fds", "gauge", "Open files and sockets.", files);
        }
    }
}

async fn queue(text: &mut Text, flux: &Flux) -> Result<(), flux_core::Error> {
    let depth = flux.depth().await?;
    let name = "flux_queue_messages";
    text.metric(name, "gauge", "Messages in the queue and the worker's inbox.");
    text.value(name, &[("state", "waiting")], depth.waiting);
    text.value(name, &[("state", "in_flight")], depth.in_flight);
    text.value(name, &[("state", "dead")], depth.dead);
    let age = depth.oldest.as_secs_f64();
    text.one("flux_queue_oldest_seconds", "gauge", "Age of the oldest message.", age);
    Ok(())
}

async fn owed(text: &mut Text, flux: &Flux) -> Result<(), flux_core::Error> {
    let owed = flux.owed().await?;
    text.one("flux_owed_orders", "gauge", "Orders whose money is to be returned.", owed.orders);
    let now = Timestamp::from(SystemTime::now());
    let age = owed.since.map_or(0.0, |since| now.since(since).as_secs_f64());
    text.one("flux_owed_oldest_seconds", "gauge", "Time for which the oldest of it is owed.", age);
    Ok(())
}

async fn items(text: &mut Text, flux: &Flux) -> Result<(), flux_core::Error> {
    let items = flux.items(None, ITEMS_MAX).await?;
    let name = "flux_item_units";
    text.metric(name, "gauge", "Where an item's units are; the first 100 items.");
    for item in &items {
        let id = item.spec.id.as_str();
        let states = [("available", item.available), ("held", item.held), ("sold", item.sold)];
        for (state, units) in states {
            text.value(name, &[("item", id), ("state", state)], units);
        }
    }
    Ok(())
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The number of open files, which Linux tells as the directory's size from 6.2 on.
fn open_files() -> Option<u64> {
    std::fs::metadata("/proc/self/fd").ok().map(|files| files.len()).filter(|files| *files > 0)
}
