//! A strict reader of Prometheus' text format.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A page of figures, read.
pub(crate) struct Figures {
    /// Values by series, as in `name{label="value"}`.
    pub(crate) values: HashMap<String, f64>,
    /// Names of metrics, those of histograms' parts included.
    pub(crate) names: HashSet<String>,
}

impl Figures {
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// Reads a page.
    #[track_caller]
    pub(crate) fn read(page: &str) -> Self {
        let mut figures = Self { values: HashMap::new(), names: HashSet::new() };
        let (mut kinds, mut helped) = (HashMap::new(), HashSet::new());
        let mut current = String::new();
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help text");
                assert!(helped.insert(name.to_owned()) && !text.is_empty(), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}: twice");
                assert!(helped.contains(name), "{line}: no help before it");
                current = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = split(series);
                let part = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line}: stray"));
                let parts: &[&str] = match kinds[&current].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(parts.contains(&part), "{line}: not a {}", kinds[&current]);
                assert_eq!(part == "_bucket", labels.contains_key("le"), "{line}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
                let old = figures.values.insert(series.to_owned(), value);
                assert!(old.is_none(), "{line}: twice");
                figures.names.insert(name.to_owned());
            }
        }
        figures.check_histograms();
        figures
    }

    /// Buckets count up to the count.
    fn check_histograms(&self) {
        let mut buckets: HashMap<String, Vec<(f64, f64)>> = HashMap::new();
        for (series, count) in &self.values {
            let (name, mut labels) = split(series);
            let Some(name) = name.strip_suffix("_bucket") else { continue };
            let bound = labels.remove("le").expect("a bound");
            let bound =
                if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
            buckets.entry(format!("{name} {labels:?}")).or_default().push((bound, *count));
        }
        assert!(!buckets.is_empty());
        for (histogram, mut buckets) in buckets {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{histogram}: {buckets:?}");
            assert_eq!(buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY), "{histogram}");
        }
    }
}

/// A series' name and labels.
fn split(series: &str) -> (&str, BTreeMap<String, String>) {
    let Some((name, rest)) = series.split_once('{') else { return (series, BTreeMap::new()) };
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("{series}: no end"));
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{series}: labels"));
        let end = end_of_string(value).unwrap_or_else(|| panic!("{series}: no closing quote"));
        let old = labels.insert(label.to_owned(), value[..end].to_owned());
        assert!(old.is_none(), "{series}: {label} twice");
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (name, labels)
}

fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(at)
    })
}
