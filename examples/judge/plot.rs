//! The verdict as a picture: answers a second, resales and overtakings over time,
//! with the times at which the server was away.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::figures::Sample;
use super::keeper::Blow;
use super::verdict::Verdict;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const HEIGHT: f64 = 150.0;
const GAP: f64 = 55.0;
const DOT: &str = "#1f78b4";
const DOT_OVER_OUTAGE: &str = "#e6550d";
const TICKS_MAX: f64 = 12.0;
/// Seconds from one tick to the next.
const STEPS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];
/// Lines across a plot of times.
const LEVELS: [(&str, Duration); 7] = [
    ("1 ms", Duration::from_millis(1)),
    ("10 ms", Duration::from_millis(10)),
    ("0.1 s", Duration::from_millis(100)),
    ("1 s", Duration::from_secs(1)),
    ("10 s", Duration::from_secs(10)),
    ("100 s", Duration::from_secs(100)),
    ("1000 s", Duration::from_secs(1_000)),
];
/// What is stacked, from below, by the beginning of its name.
const KINDS: [(&str, &str); 6] = [
    ("held", "#2a7f3f"),
    ("confirmed", "#7fc97f"),
    ("queued", "#a6cee3"),
    ("rejected", "#fdae61"),
    ("turned away", "#cab2d6"),
    ("no answer", "#d7191c"),
];

/// Writes it as an SVG.
pub(super) fn write(file: &Path, verdict: &Verdict) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, draw(verdict))
}

fn draw(verdict: &Verdict) -> String {
    let figures = &verdict.figures;
    let seconds = verdict.took.as_secs_f64().max(1.0);
    let mut plot = Plot { svg: String::new(), seconds, top: GAP };

    let stacked = figures.by_second.iter().map(|(second, kinds)| {
        let many = |start: &str| -> u64 {
            kinds.iter().filter(|(kind, _)| kind.starts_with(start)).map(|(_, many)| many).sum()
        };
        (*second, KINDS.map(|(kind, _)| many(kind)))
    });
    let stacked: Vec<(u64, [u64; 6])> = stacked.collect();
    let most = stacked.iter().map(|(_, many)| many.iter().sum::<u64>()).max().unwrap_or(1).max(1);
    plot.frame("orders: answers a second", &verdict.blows);
    plot.level(0.0, "0");
    plot.level(1.0, &most.to_string());
    for (second, many) in &stacked {
        let mut below = 0;
        for ((_, colour), many) in KINDS.iter().zip(many) {
            plot.bar(*second, below as f64 / most as f64, *many as f64 / most as f64, colour);
            below += many;
        }
    }
    let mut x = LEFT + 260.0;
    for (kind, colour) in KINDS {
        let y = plot.top - 8.0;
        let _ = write!(
            plot.svg,
            r#"<rect x="{x}" y="{}" width="10" height="10" fill="{colour}"/><text x="{}" y="{y}">{kind}</text>"#,
            y - 9.0,
            x + 14.0,
        );
        x += 110.0;
    }
    plot.next();

    plot.dots(
        "from the end of a hold to its resale (orange: the server was away in between)",
        &[(&figures.resale, DOT), (&figures.resale_over_outage, DOT_OVER_OUTAGE)],
        &verdict.blows,
    );
    plot.dots(
        "overtaken orders: from 202 to the last that overtook it",
        &[(&figures.overtaken, DOT)],
        &verdict.blows,
    );
    let height = plot.top;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{}<text x="{LEFT}" y="{}">seconds; grey bands: killed (dark) or frozen (light); {} faults</text></svg>"##,
        plot.svg,
        height - 20.0,
        verdict.found.len(),
    )
}

struct Plot {
    svg: String,
    seconds: f64,
    top: f64,
}

impl Plot {
    fn x(&self, at: Duration) -> f64 {
        let share = (at.as_secs_f64() / self.seconds).min(1.0);
        LEFT + share * (WIDTH - LEFT - 20.0)
    }

    /// The axes, with the blows behind them.
    fn frame(&mut self, title: &str, blows: &[(Blow, std::ops::Range<Duration>)]) {
        let (top, bottom) = (self.top, self.top + HEIGHT);
        for (blow, time) in blows {
            let (from, to) = (self.x(time.start), self.x(time.end));
            let colour = if *blow == Blow::Frozen { "#eeeeee" } else { "#bbbbbb" };
            let wide = (to - from).max(1.0);
            let _ = write!(
                self.svg,
                r#"<rect x="{from:.1}" y="{top}" width="{wide:.1}" height="{HEIGHT}" fill="{colour}"/>"#
            );
        }
        let _ = write!(
            self.svg,
            r##"<text x="{LEFT}" y="{}">{title}</text><path d="M{LEFT} {top}V{bottom}H{}" fill="none" stroke="#333"/>"##,
            top - 8.0,
            WIDTH - 20.0,
        );
        let is_wide = |step: &f64| self.seconds / step <= TICKS_MAX;
        let step = STEPS.into_iter().find(is_wide).unwrap_or(self.seconds);
        let mut at = 0.0;
        while at <= self.seconds {
            let x = self.x(Duration::from_secs_f64(at));
            let _ = write!(
                self.svg,
                r#"<text x="{x:.1}" y="{}" text-anchor="middle">{at:.0}</text>"#,
                bottom + 14.0
            );
            at += step;
        }
    }

    /// A line across at that share of the height.
    fn level(&mut self, share: f64, name: &str) {
        let y = self.top + HEIGHT * (1.0 - share);
        let _ = write!(
            self.svg,
            r##"<text x="{}" y="{:.1}" text-anchor="end">{name}</text><path d="M{LEFT} {y:.1}H{}" stroke="#333" stroke-opacity="0.15"/>"##,
            LEFT - 6.0,
            y + 4.0,
            WIDTH - 20.0,
        );
    }

    fn bar(&mut self, second: u64, from: f64, share: f64, colour: &str) {
        let [x, next] = [second, second + 1].map(|at| self.x(Duration::from_secs(at)));
        let (high, wide) = (share * HEIGHT, (next - x).max(0.5));
        let y = self.top + HEIGHT - from * HEIGHT - high;
        let _ = write!(
            self.svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{wide:.1}" height="{high:.1}" fill="{colour}"/>"#
        );
    }

    /// A dot for each sample, each power of ten as high as the next.
    fn dots(
        &mut self,
        title: &str,
        samples: &[(&[Sample], &str)],
        blows: &[(Blow, std::ops::Range<Duration>)],
    ) {
        self.frame(title, blows);
        let times = || samples.iter().flat_map(|(samples, _)| *samples).map(|(_, time)| *time);
        let most = times().max().unwrap_or_default();
        let levels = 1 + LEVELS[1..].iter().take_while(|(_, below)| *below < most).count();
        for (level, (name, _)) in LEVELS.iter().enumerate().take(levels + 1) {
            self.level(level as f64 / levels as f64, name);
        }
        let lowest = LEVELS[0].1;
        for (samples, colour) in samples {
            for (at, time) in *samples {
                let above = (time.as_secs_f64() / lowest.as_secs_f64()).log10() / levels as f64;
                let (x, y) = (self.x(*at), self.top + HEIGHT * (1.0 - above.clamp(0.0, 1.0)));
                let _ = write!(
                    self.svg,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="1.5" fill="{colour}"/>"#
                );
            }
        }
        self.next();
    }

    fn next(&mut self) {
        self.top += HEIGHT + GAP;
    }
}
