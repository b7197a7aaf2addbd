//! The definitions of a team's own queries, in the form of CloudNativePG's `customQueriesConfigMap` and of
//! `prometheus-postgres-exporter`'s custom queries: a map from a name to the statement and its columns. A definition
//! that is wrong is refused, and the others hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::agent::metrics::text::Kind;

/// The largest text.
const LARGEST: usize = 64 << 10;
/// The longest statement, in bytes.
const LONGEST_STATEMENT: usize = 16 << 10;
/// How many queries there may be.
const MOST_QUERIES: usize = 20;
/// How many labels, and how many metrics, a query may have.
const MOST_COLUMNS: [usize; 2] = [8, 16];
/// The longest name of a query or a column: PostgreSQL's own limit.
const LONGEST_NAME: usize = 63;
/// The longest help and the longest message, in characters.
const LONGEST_TEXT: usize = 200;
/// The longest time for which rows may be kept, in seconds.
const LONGEST_KEPT: u64 = 86_400;
/// What the name of no metric of a team begins with: those of PostgreSQL and Servicedb, the agent's process, and
/// Prometheus' own.
const RESERVED: [&str; 4] = ["pg_", "servicedb_", "process_", "scrape_"];

/// The checked definitions of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    /// Those that can be run.
    pub queries: Vec<Definition>,
    /// The others: the name, and what is wrong.
    pub refused: Vec<(String, String)>,
}

/// One query.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name, with which the names of its metrics begin.
    pub name: String,
    /// The statement.
    pub sql: String,
    /// The columns that are used.
    pub columns: Vec<Column>,
    /// Whether only the primary runs it.
    pub primary_only: bool,
    /// How long its rows are kept at least.
    pub kept: Duration,
}

/// A column of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// What becomes of it.
    pub usage: Usage,
}

/// What becomes of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Usage {
    /// A label with the column's name.
    Label,
    /// The value of a metric.
    Value {
        /// The metric's name.
        metric: String,
        /// Its type.
        kind: Kind,
        /// Its help.
        help: String,
    },
}

/// A definition as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    query: String,
    metrics: Vec<BTreeMap<String, WrittenColumn>>,
    /// CloudNativePG's word, and the exporter's.
    #[serde(default, alias = "master")]
    primary: bool,
    #[serde(default)]
    cache_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenColumn {
    usage: String,
    #[serde(default)]
    description: String,
}

/// Reads a text.
///
/// # Errors
/// If it is no map of definitions. A single definition that is wrong is in [`Definitions::refused`].
pub fn parse(text: &str) -> Result<Definitions, String> {
    if text.len() > LARGEST {
        return Err(format!("the queries have {} bytes; {LARGEST} are the most", text.len()));
    }
    let written: Option<serde_yaml::Mapping> =
        serde_yaml::from_str(text).map_err(|error| clipped(&format!("the queries are no map in YAML: {error}")))?;
    let written = written.unwrap_or_default();
    if written.len() > MOST_QUERIES {
        return Err(format!("there are {} queries; {MOST_QUERIES} are the most", written.len()));
    }
    let (mut definitions, mut metrics) = (Definitions::default(), BTreeSet::new());
    for (name, written) in written {
        let Some(name) = name.as_str() else { return Err("the name of a query is no text".to_owned()) };
        match define(name, written, &metrics) {
            Ok(definition) => {
                metrics.extend(definition.metrics().map(str::to_owned));
                definitions.queries.push(definition);
            }
            Err(problem) => {
                definitions.refused.push((name.chars().take(LONGEST_NAME).collect(), clipped(&problem)));
            }
        }
    }
    Ok(definitions)
}

impl Definition {
    /// The names of its metrics.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter_map(|column| match &column.usage {
            Usage::Label => None,
            Usage::Value { metric, .. } => Some(metric.as_str()),
        })
    }
}

fn define(name: &str, written: serde_yaml::Value, taken: &BTreeSet<String>) -> Result<Definition, String> {
    if !is_name(name) {
        return Err("its name must begin with a letter or `_`, and have letters, digits and `_` only".to_owned());
    }
    let written: Written = serde_yaml::from_value(written).map_err(|error| error.to_string())?;
    let sql = written.query.trim().trim_end_matches(';').trim_end().to_owned();
    if sql.is_empty() || sql.len() > LONGEST_STATEMENT {
        return Err(format!("its query must have from 1 to {LONGEST_STATEMENT} bytes"));
    }
    let (mut columns, mut names, mut metrics) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (column, written) in written.metrics.into_iter().flatten() {
        if !is_name(&column) || !names.insert(column.clone()) {
            return Err(format!("the name of the column {} is no name, or there twice", clipped(&column)));
        }
        let kind = match written.usage.to_ascii_uppercase().as_str() {
            "DISCARD" => continue,
            "LABEL" => {
                if column.starts_with("__") {
                    return Err(format!("the label {column} begins with `__`, which is Prometheus' own"));
                }
                columns.push(Column { name: column, usage: Usage::Label });
                continue;
            }
            "GAUGE" => Kind::Gauge,
            "COUNTER" => Kind::Counter,
            other => {
                return Err(format!(
                    "the usage {} of the column {column} is none of LABEL, GAUGE, COUNTER, DISCARD",
                    clipped(other)
                ));
            }
        };
        let metric = format!("{name}_{column}");
        if let Some(prefix) = RESERVED.iter().find(|prefix| metric.starts_with(*prefix)) {
            return Err(format!("its metric {metric} begins with {prefix}, which is reserved: choose another name"));
        }
        if taken.contains(&metric) || !metrics.insert(metric.clone()) {
            return Err(format!("another query has the metric {metric}, too"));
        }
        let help = if written.description.is_empty() { &metric } else { &written.description };
        columns.push(Column { name: column, usage: Usage::Value { help: clipped(help), metric, kind } });
    }
    let labels = columns.iter().filter(|column| column.usage == Usage::Label).count();
    let values = columns.len() - labels;
    if values == 0 {
        return Err("it has no column whose usage is GAUGE or COUNTER".to_owned());
    }
    if labels > MOST_COLUMNS[0] || values > MOST_COLUMNS[1] {
        let [most_labels, most_values] = MOST_COLUMNS;
        return Err(format!(
            "it has {labels} labels and {values} metrics; {most_labels} and {most_values} are the most"
        ));
    }
    let kept = Duration::from_secs(written.cache_seconds.min(LONGEST_KEPT));
    Ok(Definition { name: name.to_owned(), sql, columns, primary_only: written.primary, kept })
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.len() <= LONGEST_NAME
        && text.starts_with(is_letter)
        && text.chars().all(|character| is_letter(character) || character.is_ascii_digit())
}

/// A text for people, in one line, and not longer than it may be.
pub fn clipped(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST_TEXT {
        return line;
    }
    line.chars().take(LONGEST_TEXT - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/monitoring.md, and one of each tool's own documentation's form.
    const TEXT: &str = r#"
shop_orders:
  query: |
    SELECT state, count(*) AS count, extract(epoch FROM now() - min(created_at)) AS oldest_seconds
    FROM orders GROUP BY state;
  primary: true
  cache_seconds: 60
  metrics:
  - state: {usage: "LABEL", description: "State of the orders"}
  - count: {usage: "GAUGE", description: "Orders"}
  - oldest_seconds: {usage: "GAUGE"}
shop_sent:
  query: "SELECT count(*) AS total, 1 AS other FROM sent -- all of them"
  master: true
  metrics:
  - total:
      usage: counter
      description: "Sent"
  - other: {usage: DISCARD}
"#;

    fn refusal(definition: &str) -> String {
        let definitions =
            parse(&format!("good: {{query: SELECT 1 AS a, metrics: [a: {{usage: GAUGE}}]}}\n{definition}"))
                .expect("a map of definitions");
        assert_eq!(definitions.queries.len(), 1, "the other one holds: {definition}");
        let [(_, problem)] = definitions.refused.as_slice() else { panic!("{definition} is accepted") };
        problem.clone()
    }

    #[test]
    fn both_tools_forms_are_read() {
        let definitions = parse(TEXT).expect("definitions");
        assert_eq!(definitions.refused, []);
        let [orders, sent] = definitions.queries.as_slice() else { panic!("{definitions:?}") };
        assert_eq!((orders.name.as_str(), orders.primary_only, orders.kept.as_secs()), ("shop_orders", true, 60));
        assert!(orders.sql.ends_with("GROUP BY state"), "{}", orders.sql);
        assert_eq!(orders.metrics().collect::<Vec<_>>(), ["shop_orders_count", "shop_orders_oldest_seconds"]);
        assert_eq!(orders.columns[0], Column { name: "state".to_owned(), usage: Usage::Label });
        let total = Usage::Value { metric: "shop_sent_total".to_owned(), kind: Kind::Counter, help: "Sent".to_owned() };
        assert_eq!(sent.columns, [Column { name: "total".to_owned(), usage: total }], "another column is left out");
        assert!(sent.primary_only);
        assert_eq!(parse(" \n"), Ok(Definitions::default()));
    }

    #[test]
    fn a_wrong_definition_is_refused_alone_and_says_why() {
        let query = |name: &str, metrics: &str| format!("{name}: {{query: SELECT 1 AS a, metrics: [{metrics}]}}");
        for (definition, part) in [
            (query("pg", "up: {usage: GAUGE}"), "its metric pg_up begins with pg_"),
            (query("pg_locks", "count: {usage: GAUGE}"), "begins with pg_"),
            (query("servicedb", "up: {usage: GAUGE}"), "its metric servicedb_up begins with servicedb_"),
            (query("process", "cpu: {usage: GAUGE}"), "begins with process_"),
            (query("x", "a: {usage: LABEL}"), "no column whose usage is GAUGE or COUNTER"),
            (query("x", "a: {usage: HISTOGRAM}"), "the usage HISTOGRAM of the column a"),
            (query("x", "a: {usage: GAUGE}, a: {usage: LABEL}"), "there twice"),
            (query("x", "__a: {usage: LABEL}, b: {usage: GAUGE}"), "begins with `__`"),
            (query("x", "'a\"b': {usage: GAUGE}"), "is no name"),
            (query("'x y'", "a: {usage: GAUGE}"), "its name must begin with a letter"),
            (query("x", "a: {use: GAUGE}"), "unknown field `use`"),
            ("x: {query: SELECT 1}".to_owned(), "missing field `metrics`"),
            ("x: {query: ' ; ', metrics: [a: {usage: GAUGE}]}".to_owned(), "its query must have from 1"),
            ("x: {query: SELECT 1, metrics: [], runonserver: '>=15'}".to_owned(), "unknown field `runonserver`"),
            ("x: 7".to_owned(), "invalid type"),
        ] {
            let problem = refusal(&definition);
            assert!(problem.contains(part), "{definition}: {problem}");
        }
        let many = (0..9).map(|n| format!("l{n}: {{usage: LABEL}}")).collect::<Vec<_>>().join(", ");
        assert!(refusal(&query("x", &format!("{many}, a: {{usage: GAUGE}}"))).contains("9 labels and 1 metrics"));
    }

    #[test]
    fn two_queries_never_have_the_same_metric() {
        let text = "a: {query: SELECT 1 AS b_c, metrics: [b_c: {usage: GAUGE}]}\n\
                    a_b: {query: SELECT 1 AS c, metrics: [c: {usage: GAUGE}]}";
        let definitions = parse(text).expect("a map");
        assert_eq!(definitions.queries.len(), 1);
        assert_eq!(definitions.refused[0].0, "a_b");
        assert!(definitions.refused[0].1.contains("another query has the metric a_b_c"));
    }

    #[test]
    fn a_text_that_is_no_map_or_too_large_is_an_error() {
        for text in ["- a", "a: b: c", "a: {query: x}\na: {query: y}", "1: {}", "a: *b", "\u{1}"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let many: String = (0..21).map(|n| format!("q{n}: {{}}\n")).collect();
        assert!(parse(&many).expect_err("too many").contains("21 queries"));
        assert!(parse(&"#".repeat(LARGEST + 1)).expect_err("too large").contains("bytes"));
        // Anchors that would grow to a million items.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..19 {
            let before = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", "));
        }
        assert!(parse(&bomb).is_err());
    }
}
