//! The drawing: latency over percentiles, both on logarithmic scales.

use std::fmt::Write;

use super::{QUANTILES, grouped};

/// The size of the picture, and of the part that the curves are drawn in.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 446.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 576.0;
const TOP: f64 = 98.0;
const BOTTOM: f64 = 382.0;

/// The least distance of two names.
const LINE: f64 = 18.0;

/// Colours that people who see few colours can tell apart, on white.
const COLOURS: [&str; 3] = ["#0072b2", "#008060", "#c84b00"];

/// Steps of the curve from one named percentile to the next.
const STEPS: u32 = 40;

/// A curve: its name, and its milliseconds at each of [`points`].
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) ms: Vec<(f64, f64)>,
}

/// The percentiles that are drawn: log10 of 1 / (1 - quantile), and the quantile.
pub(super) fn points() -> impl Iterator<Item = (f64, f64)> {
    let (first, last) = (nines(QUANTILES[0].0), nines(QUANTILES[QUANTILES.len() - 1].0));
    let steps = STEPS * (QUANTILES.len() as u32 - 1);
    (0..=steps).map(move |step| {
        let x = first + (last - first) * f64::from(step) / f64::from(steps);
        (x, 1.0 - 10_f64.powf(-x))
    })
}

/// Draws the curves, of orders that come at parts of `capacity`.
pub(super) fn draw(curves: &[Curve], capacity: f64) -> String {
    let mut svg = String::new();
    let all = || curves.iter().flat_map(|curve| &curve.ms).map(|(_, ms)| *ms);
    let least = step_below(all().fold(f64::INFINITY, f64::min));
    let most = step_above(all().fold(0.0, f64::max));
    let scale = Scale { least, most };
    head(&mut svg, capacity);
    axes(&mut svg, &scale);
    let mut taken = Vec::new();
    // From above, so that names that are too close go down in their order.
    let mut order: Vec<_> = curves.iter().zip(COLOURS).collect();
    order.sort_by(|(a, _), (b, _)| last(b).total_cmp(&last(a)));
    for (curve, colour) in order {
        let line = curve.ms.iter().fold(String::new(), |mut line, (x, ms)| {
            let space = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{space}{:.1},{:.1}", scale.x(*x), scale.y(*ms));
            line
        });
        add(
            &mut svg,
            &format!(
                r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round"/>"#
            ),
        );
        for (quantile, _) in QUANTILES {
            let near = |(x, _): &(f64, f64)| (x - nines(quantile)).abs();
            let point = curve.ms.iter().min_by(|a, b| near(a).total_cmp(&near(b)));
            let Some((_, ms)) = point else { continue };
            let (x, y) = (scale.x(nines(quantile)), scale.y(*ms));
            add(&mut svg, &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#));
        }
        let lowest = taken.last().map_or(TOP, |above| above + LINE);
        let y = f64::max(scale.y(last(curve)) + 4.0, lowest);
        taken.push(y);
        text(
            &mut svg,
            RIGHT + 12.0,
            y,
            &format!(r#"fill="{colour}" font-weight="600""#),
            &curve.name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn head(svg: &mut String, capacity: f64) {
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif" font-size="13" fill="#333">"##
    );
    add(svg, "<title>How long an order for one hot item waits, by percentile</title>");
    // Of its own, so that it can be read on a dark page.
    add(svg, &format!(r##"<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>"##));
    let title = r##"font-size="17" font-weight="600" fill="#111""##;
    text(svg, 20.0, 30.0, title, "How long an order for one hot item waits");
    let below = format!(
        "Orders come by schedule, at parts of the {} a second that a closed loop reaches.",
        grouped(capacity)
    );
    text(svg, 20.0, 51.0, r##"fill="#555""##, &below);
    text(
        svg,
        20.0,
        TOP - 13.0,
        r##"font-size="12" fill="#555""##,
        "ms until it is durable and answered, counted from when it was due",
    );
}

fn axes(svg: &mut String, scale: &Scale) {
    let mut step = scale.least;
    while step < scale.most * 1.01 {
        let y = scale.y(step);
        add(svg, &format!(r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="#e2e2e2"/>"##));
        text(
            svg,
            LEFT - 10.0,
            y + 4.5,
            r#"text-anchor="end""#,
            &format!("{} ms", (step * 1e6).round() / 1e6),
        );
        step = step_above(step * 1.01);
    }
    for (quantile, name) in QUANTILES {
        let x = scale.x(nines(quantile));
        add(svg, &format!(r##"<path d="M{x:.1} {TOP}V{BOTTOM}" stroke="#e2e2e2"/>"##));
        text(svg, x, BOTTOM + 20.0, r#"text-anchor="middle""#, name);
    }
    add(svg, &format!(r##"<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="#888"/>"##));
    let middle = f64::midpoint(LEFT, RIGHT);
    let below = r##"text-anchor="middle" fill="#555""##;
    text(svg, middle, BOTTOM + 44.0, below, "of the orders wait no longer");
}

struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    fn x(&self, nines_of: f64) -> f64 {
        let (first, last) = (nines(QUANTILES[0].0), nines(QUANTILES[QUANTILES.len() - 1].0));
        LEFT + (RIGHT - LEFT) * (nines_of - first) / (last - first)
    }

    fn y(&self, ms: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (ms / self.least).log10() / (self.most / self.least).log10()
    }
}

/// Log10 of 1 / (1 - quantile): how many nines it has.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// The nearest of 1, 2, 5, 10, 20 … that is no more.
fn step_below(ms: f64) -> f64 {
    let decade = 10_f64.powf(ms.log10().floor());
    [5.0, 2.0, 1.0].map(|step| step * decade).into_iter().find(|step| *step <= ms).unwrap_or(decade)
}

/// The nearest of 1, 2, 5, 10, 20 … that is no less.
fn step_above(ms: f64) -> f64 {
    let decade = 10_f64.powf(ms.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= ms).unwrap_or(10.0 * decade)
}

fn last(curve: &Curve) -> f64 {
    curve.ms.last().map_or(0.0, |(_, ms)| *ms)
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    add(svg, &format!(r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{text}</text>"#));
}

fn add(svg: &mut String, line: &str) {
    svg.push_str("  ");
    svg.push_str(line);
    svg.push('\n');
}
