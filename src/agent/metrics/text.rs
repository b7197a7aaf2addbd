//! Prometheus' text format, version 0.0.4. `prometheus-client` writes OpenMetrics only, where the name of each
//! counter ends in `_total`: `pg_stat_database_xact_commit` could not be written.

use std::borrow::Cow;
use std::fmt::Write;

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for resets.
    Counter,
    /// It goes up and down.
    Gauge,
    /// The format's own word for neither.
    Untyped,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
        }
    }
}

/// The samples of one metric, with its type and help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    name: Cow<'static, str>,
    kind: Kind,
    help: Cow<'static, str>,
    samples: String,
}

impl Family {
    /// A metric without samples.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: Kind, help: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), kind, help: help.into(), samples: String::new() }
    }

    /// A metric with one sample that has no label.
    pub fn single(name: &'static str, kind: Kind, help: &'static str, value: f64) -> Self {
        let mut family = Self::new(name, kind, help);
        family.sample([], value);
        family
    }

    /// Adds a sample. A label with an empty value counts as absent, and is left out.
    pub fn sample<'a>(&mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: f64) {
        let text = &mut self.samples;
        text.push_str(&self.name);
        let mut first = true;
        for (label, content) in labels.into_iter().filter(|(_, content)| !content.is_empty()) {
            text.push(if first { '{' } else { ',' });
            first = false;
            text.push_str(label);
            text.push_str("=\"");
            for character in content.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        if !first {
            text.push('}');
        }
        // Writing into a String does not fail.
        _ = match value {
            value if value == f64::INFINITY => writeln!(text, " +Inf"),
            value if value == f64::NEG_INFINITY => writeln!(text, " -Inf"),
            value => writeln!(text, " {value}"),
        };
    }

    /// Appends it to a page; a metric without samples is left out.
    pub fn write(&self, page: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        _ = writeln!(page, "# HELP {} {help}\n# TYPE {} {}", self.name, self.name, self.kind.name());
        page.push_str(&self.samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(family: &Family) -> String {
        let mut page = String::new();
        family.write(&mut page);
        page
    }

    #[test]
    fn a_tenants_names_stay_within_their_quotes() {
        let mut family = Family::new("pg_stat_user_tables_seq_scan", Kind::Counter, "Scans\nof a \\ table");
        family.sample([("schemaname", ""), ("relname", "a\"} 1\nb\\")], 3.0);
        assert_eq!(
            page(&family),
            "# HELP pg_stat_user_tables_seq_scan Scans\\nof a \\\\ table\n# TYPE pg_stat_user_tables_seq_scan counter\n\
             pg_stat_user_tables_seq_scan{relname=\"a\\\"} 1\\nb\\\\\"} 3\n"
        );
    }

    #[test]
    fn numbers_are_those_of_the_format() {
        let mut family = Family::new("x", Kind::Gauge, "h");
        for value in [1.5e18, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            family.sample([], value);
        }
        assert!(
            page(&family).ends_with("x 1500000000000000000\nx 0.1\nx NaN\nx +Inf\nx -Inf\nx -1\n"),
            "{}",
            page(&family)
        );
        assert_eq!(page(&Family::new("x", Kind::Gauge, "h")), "", "a metric without samples");
    }
}
