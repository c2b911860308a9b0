//! Prometheus text for what is looked up when it is asked for. It comes and
//! goes, where the recorder would keep the last value for ever.

use std::fmt::{Display, Write};

/// Lines of Prometheus' text format (exposition format 0.0.4).
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String);

impl Text {
    /// Begins a metric.
    pub(super) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// A value of the metric begun last.
    pub(super) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, of)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for letter in of.chars() {
                match letter {
                    '"' | '\\' => self.0.extend(['\\', letter]),
                    '\n' => self.0.push_str("\\n"),
                    _ => self.0.push(letter),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// A metric of one value.
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    fn line(&mut self, text: impl Display) {
        writeln!(self.0, "{text}").expect("a string takes all text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.metric("a", "gauge", "What it is.");
        text.value("a", &[("item", r#"x"\y"#), ("state", "held")], 3);
        text.value("a", &[], 0.5);
        let wanted = "# HELP a What it is.\n# TYPE a gauge\n\
             a{item=\"x\\\"\\\\y\",state=\"held\"} 3\na 0.5\n";
        assert_eq!(text.0, wanted);
    }
}
