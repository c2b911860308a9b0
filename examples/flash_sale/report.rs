//! The report of a sale, for a person to read.

use std::time::Duration;

use flux_core::OrderStatus;
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use stage::{Outcome, Sale, Stock, Tally};

const BAR_MAX: u64 = 40;

pub(crate) fn opening(sale: &Sale, books: &str) {
    let (units, what) = match sale.stock {
        Stock::Units(units) => (units, "units"),
        Stock::Seats(seats) => (seats, "seats"),
    };
    let items = if sale.items == 1 { "1 item".into() } else { format!("each of {}", sale.items) };
    println!(
        "{} buyers want {} {what} of {items}, {} at a time (seed {})",
        HumanCount(sale.buyers.into()),
        HumanCount(units.into()),
        HumanCount(sale.in_flight as u64),
        sale.seed,
    );
    println!("the books are {books}");
}

pub(crate) fn reopened(within: Duration, taken: u64, waiting: usize) {
    println!(
        "reopened in {} with {} tickets taken; {} buyers still wait for an answer",
        time(within),
        HumanCount(taken),
        HumanCount(waiting as u64),
    );
}

/// Prints what became of everybody.
pub(crate) fn outcome(sale: &Sale, outcome: &Outcome) {
    let units = u64::from(sale.items) * u64::from(sale.stock.capacity());
    let (paid, held) = (outcome.count(OrderStatus::Confirmed), outcome.count(OrderStatus::Held));
    println!();
    row(paid + held, &format!("have a ticket, of {} on sale", HumanCount(units)));
    row(paid, "  paid");
    row(held, "  held");
    row(outcome.turned_away, "turned away at the gate");
    for (reason, orders) in &outcome.rejected {
        row(*orders, &format!("rejected: {reason}"));
    }
    for (status, orders) in &outcome.orders {
        if !status.owns_stock() && *status != OrderStatus::Rejected {
            row(*orders, status.as_str());
        }
    }
}

/// Prints the pace.
pub(crate) fn pace(tally: &Tally) {
    let rate = |count: u64, time: Duration| {
        HumanCount((count as f64 / time.as_secs_f64().max(1e-9)) as u64)
    };
    let (buyers, decisions) = (tally.outcome.buyers(), tally.outcome.decisions());
    println!();
    row(tally.repeats, &format!("orders sent twice, {} with another answer", tally.contradicted));
    println!(
        "{:>11} buyers in {}: {} a second",
        HumanCount(buyers).to_string(),
        time(tally.took),
        rate(buyers, tally.took)
    );
    println!(
        "{:>11} decisions in {}: {} a second",
        HumanCount(decisions).to_string(),
        time(tally.decided_within),
        rate(decisions, tally.decided_within),
    );
    println!();
    println!("  latency       p50      p90      p99    p99.9      max");
    latency("decision", &tally.decided);
    latency("the gate", &tally.gate);
    println!();
    bars(&tally.decided);
}

fn row(count: u64, what: &str) {
    println!("{:>11} {what}", HumanCount(count).to_string());
}

fn latency(what: &str, histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    print!("  {what}");
    for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
        print!("{:>9}", time(Duration::from_nanos(histogram.value_at_quantile(quantile))));
    }
    println!();
}

/// A bar for each step of 1, 2, 5, 10 microseconds and so on.
fn bars(histogram: &Histogram<u64>) {
    let steps = (3..).flat_map(|digits| [1, 2, 5].map(|first| first * 10u64.pow(digits)));
    let mut bars = Vec::new();
    let mut from = 0;
    for to in steps {
        bars.push((from, to, histogram.count_between(from, to - 1)));
        from = to;
        if to > histogram.max() {
            break;
        }
    }
    let tallest = bars.iter().map(|(.., count)| *count).max().unwrap_or(0).max(1);
    for (from, to, count) in bars.into_iter().skip_while(|(.., count)| *count == 0) {
        let bar = "#".repeat((count * BAR_MAX).div_ceil(tallest) as usize);
        println!("  {:>7} to {:>7} {bar} {}", step(from), step(to), HumanCount(count));
    }
}

/// Nanoseconds in whole units.
fn step(nanos: u64) -> String {
    match nanos {
        nanos if nanos < 1_000_000 => format!("{} µs", nanos / 1_000),
        nanos if nanos < 1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        nanos => format!("{} s", nanos / 1_000_000_000),
    }
}

/// Three digits and a unit.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}
