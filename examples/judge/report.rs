//! The verdict in words and figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;

use super::figures::Sample;
use super::keeper::Blow;
use super::verdict::Verdict;

/// Of each guarantee.
const FAULTS_SHOWN: usize = 5;

/// Median, 99th percentile and maximum; `None` of nothing.
fn of(samples: &[Sample]) -> Option<[Duration; 3]> {
    let mut times: Vec<Duration> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let last = times.len().checked_sub(1)?;
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).clamp(1, last + 1) - 1];
    Some([at(50), at(99), times[last]])
}

pub(super) fn show(verdict: &Verdict, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let figures = &verdict.figures;
    let took = verdict.took.as_secs_f64();
    let rate = |many: u64| HumanCount((many as f64 / took) as u64);
    let (rounds, clients, seed) = (verdict.rounds, verdict.clients, verdict.seed);
    writeln!(f, "{took:.0} s, {rounds} rounds, {clients} clients, seed {seed}")?;
    writeln!(
        f,
        "{} calls, {} a second; {} orders decided, {} a second",
        HumanCount(figures.calls),
        rate(figures.calls),
        HumanCount(figures.decided),
        rate(figures.decided),
    )?;
    let away: Vec<Sample> = verdict
        .blows
        .iter()
        .map(|(_, time)| (time.start, time.end.min(verdict.took).saturating_sub(time.start)))
        .collect();
    let (killed, frozen) = (verdict.kills(), verdict.count(Blow::Frozen));
    writeln!(f, "killed {killed} times and started again, frozen {frozen} times")?;

    writeln!(f, "\n{:>12}  answers", "")?;
    for (kind, many) in &figures.answers {
        writeln!(f, "{:>12}  {kind}", HumanCount(*many).to_string())?;
    }

    writeln!(f, "\n{:<44} {:>7} {:>9} {:>9} {:>9}", "", "", "median", "p99", "max")?;
    for (name, samples) in [
        ("away, for a kill or a freeze", &away),
        ("from the end of a hold to its resale", &figures.resale),
        ("  with an outage in between", &figures.resale_over_outage),
        ("overtaken: from 202 to the last that did", &figures.overtaken),
    ] {
        let many = HumanCount(samples.len() as u64).to_string();
        write!(f, "{name:<44} {many:>7}")?;
        for value in of(samples).into_iter().flatten() {
            write!(f, " {:>9}", time(value))?;
        }
        writeln!(f)?;
    }
    writeln!(
        f,
        "{} of {} orders that were accepted before they were decided were overtaken",
        HumanCount(figures.overtaken.len() as u64),
        HumanCount(figures.accepted),
    )?;

    writeln!(f, "\nwhat the clients were told: {} faults", verdict.found.len())?;
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for found in &verdict.found {
        // A guarantee, or the first word of what has none.
        let kind = found.fault.split(' ').next().unwrap_or_default();
        let many = shown.entry(kind).or_default();
        *many += 1;
        if *many <= FAULTS_SHOWN {
            writeln!(f, "  {found}")?;
        }
    }
    Ok(())
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1_000.0),
    }
}
