//! A query whose rows become samples: its first columns are labels, as text, the others values, as `float8`.

use std::time::Duration;

use tokio_postgres::{Client, Statement};

use super::text::{Family, Kind};

/// How long the metrics of a query that opens files are kept.
pub const KEPT: Duration = Duration::from_secs(60);

/// A metric that a column has.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// The metric's name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its help.
    pub help: &'static str,
}

/// A counter.
pub const fn counter(name: &'static str, help: &'static str) -> Value {
    Value { name, kind: Kind::Counter, help }
}

/// A gauge.
pub const fn gauge(name: &'static str, help: &'static str) -> Value {
    Value { name, kind: Kind::Gauge, help }
}

/// A query. Its columns are `labels`, then `values`. A value that is NULL has no sample.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The first major version of PostgreSQL that it is for.
    pub since: u32,
    /// Whether it opens files, such as those of all tables: its metrics are read once in [`KEPT`].
    pub opens_files: bool,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// Labels that each sample has.
    pub constant: &'static [(&'static str, &'static str)],
    /// The metrics.
    pub values: &'static [Value],
    /// The statement.
    pub sql: &'static str,
}

/// Queries that succeed or fail together, by the name that `pg_scrape_collector_success` has for them.
#[derive(Clone, Copy, Debug)]
pub struct Collector {
    /// The name.
    pub name: &'static str,
    /// The queries.
    pub queries: &'static [Query],
}

/// Runs a query.
///
/// # Errors
/// If the server refuses it, or its columns are others.
pub async fn run(client: &Client, statement: &Statement, query: &Query) -> Result<Vec<Family>, tokio_postgres::Error> {
    let rows = client.query(statement, &[]).await?;
    let mut families: Vec<_> =
        query.values.iter().map(|value| Family::new(value.name, value.kind, value.help)).collect();
    let first_value = query.labels.len();
    for row in &rows {
        let contents = (0..first_value)
            .map(|column| row.try_get::<_, Option<&str>>(column))
            .collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
        for (index, family) in families.iter_mut().enumerate() {
            if let Some(value) = row.try_get::<_, Option<f64>>(first_value + index)? {
                let labels = query.labels.iter().copied().zip(contents.iter().map(|content| content.unwrap_or("")));
                family.sample(query.constant.iter().copied().chain(labels), value);
            }
        }
    }
    Ok(families)
}
