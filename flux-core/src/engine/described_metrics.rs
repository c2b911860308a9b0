//! Descriptions of the crate's metrics for the recorder. The table of the README
//! names the same ones.

use metrics::Unit;

use crate::protocol::OrderStatus;

const COUNTERS: [(&str, &str); 12] = [
    ("flux_orders_total", "Orders that came to have a status."),
    ("flux_gate_turned_away_total", "Calls turned away at the gate: sold out, not open, closed."),
    ("flux_fenced_total", "Commits refused because another worker claimed the item."),
    ("flux_conflicts_total", "Commits refused because an order was decided or a buyer over a cap."),
    ("flux_unknown_commits_total", "Commits whose answer was lost."),
    ("flux_unlocked_total", "Claims made without a lock service."),
    ("flux_unpublished_total", "Outcomes that were not published."),
    (
        "flux_notifications_dropped_total",
        "Batches whose outcomes or acknowledgements were dropped.",
    ),
    ("flux_buried_total", "Messages given up."),
    ("flux_clock_steps_total", "Steps of the clock by more than a second."),
    ("flux_seam_errors_total", "Failed calls of the backends."),
    ("flux_seam_retries_total", "Calls of the backends that were tried again."),
];
const GAUGES: [(&str, &str); 2] = [
    (
        "flux_clock_doubt_seconds",
        "How far the clock was stepped, until it has stood there for ten seconds; else 0.",
    ),
    (
        "flux_clock_skew_seconds",
        "How far the clock is ahead of that of the service behind the store.",
    ),
];
const HISTOGRAMS: [(&str, Unit, &str); 7] = [
    (
        "flux_accept_seconds",
        Unit::Seconds,
        "From past the gate to an order's durable acceptance in the queue.",
    ),
    (
        "flux_decide_seconds",
        Unit::Seconds,
        "From past the gate, or into the queue, to an order's durable decision.",
    ),
    ("flux_batch_orders", Unit::Count, "Messages decided together."),
    ("flux_batch_seconds", Unit::Seconds, "How long deciding them took."),
    ("flux_commit_orders", Unit::Count, "Orders in one write of the store."),
    ("flux_commit_seconds", Unit::Seconds, "How long a write of the store took."),
    ("flux_seam_seconds", Unit::Seconds, "How long a call of a backend took."),
];

/// Describes the metrics to the recorder; one that knows them already loses
/// nothing by it. Begins the series whose labels are known, as one that begins
/// with its first event hides that event from a rate.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        metrics::describe_counter!(name, Unit::Count, help);
        if name != "flux_orders_total" && !name.starts_with("flux_seam_") {
            metrics::counter!(name).increment(0);
        }
    }
    for (name, help) in GAUGES {
        metrics::describe_gauge!(name, Unit::Seconds, help);
        metrics::gauge!(name).increment(0.0);
    }
    for (name, unit, help) in HISTOGRAMS {
        metrics::describe_histogram!(name, unit, help);
        if !name.starts_with("flux_seam_") {
            drop(metrics::histogram!(name));
        }
    }
    // An order is counted from its decision on.
    for status in OrderStatus::ALL.iter().filter(|status| **status != OrderStatus::Queued) {
        metrics::counter!("flux_orders_total", "status" => status.as_str()).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Adds the names of metrics that stand in `text` between two `quote`s.
    fn names_in(text: &str, quote: char, names: &mut BTreeSet<String>) {
        let of_flux = text.split(quote).skip(1).filter_map(|part| part.strip_prefix("flux_"));
        let endings = ["_total", "_seconds", "_orders"];
        for name in of_flux.filter_map(|part| part.split('{').next()) {
            if endings.iter().any(|ending| name.ends_with(ending)) {
                names.insert(format!("flux_{name}"));
            }
        }
    }

    fn names_used(folder: &Path, names: &mut BTreeSet<String>) -> std::io::Result<()> {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                names_used(&path, names)?;
            } else if !path.ends_with("described_metrics.rs") {
                names_in(&std::fs::read_to_string(&path)?, '"', names);
            }
        }
        Ok(())
    }

    #[test]
    fn every_metric_is_described_here_and_in_the_readme() -> std::io::Result<()> {
        let counters = COUNTERS.iter().map(|(name, _)| name);
        let gauges = GAUGES.iter().map(|(name, _)| name);
        let histograms = HISTOGRAMS.iter().map(|(name, ..)| name);
        let described = counters.chain(gauges).chain(histograms).map(ToString::to_string).collect();
        let (mut used, mut told) = (BTreeSet::new(), BTreeSet::new());
        names_used(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used)?;
        names_in(include_str!("../../README.md"), '`', &mut told);
        assert_eq!(used, described, "in the source, and described");
        assert_eq!(told, described, "in the README, and described");
        Ok(())
    }
}
