//! `kubectl servicedb top`: the databases of a namespace, or one of them with graphs, again and again.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Deserialize;

use super::args::Connection;
use super::connection::{self, PluginError};
use super::statistics::Source;
use super::table::Table;
use crate::api::{ServiceDatabase, conditions as kind};

/// Interval between two reads.
const INTERVAL: Duration = Duration::from_secs(2);
/// The number of values in a graph.
const WIDTH: usize = 60;
/// The heights of a graph's column.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const QUERY: &str = "\
    SELECT (SELECT sum(xact_commit + xact_rollback)::float8 FROM pg_stat_database) AS transactions,
           (SELECT sum(tup_inserted + tup_updated + tup_deleted)::float8 FROM pg_stat_database) AS written,
           (SELECT sum(blks_read)::float8 FROM pg_stat_database) AS read,
           (SELECT sum(active_time)::float8 FROM pg_stat_database) AS active_ms,
           (SELECT count(*)::float8 FROM pg_stat_activity WHERE backend_type = 'client backend') AS sessions,
           (SELECT count(*)::float8 FROM pg_locks WHERE NOT granted) AS waits,
           (pg_current_wal_lsn() - '0/0')::float8 AS wal";

/// What the server has counted.
#[derive(Deserialize, Debug, Clone, Copy)]
struct Counted {
    transactions: f64,
    written: f64,
    read: f64,
    active_ms: f64,
    sessions: f64,
    waits: f64,
    wal: f64,
}

/// The lines of one database: what is shown, with its unit, from two counts and the seconds between them.
type Line = (&'static str, &'static str, fn(&Counted, &Counted, f64) -> f64);

const LINES: [Line; 7] = [
    ("transactions", "/s", |now, before, seconds| (now.transactions - before.transactions) / seconds),
    ("rows written", "/s", |now, before, seconds| (now.written - before.written) / seconds),
    ("blocks read", "/s", |now, before, seconds| (now.read - before.read) / seconds),
    ("at work", " sessions", |now, before, seconds| (now.active_ms - before.active_ms) / seconds / 1000.0),
    ("sessions", "", |now, _, _| now.sessions),
    ("lock waits", "", |now, _, _| now.waits),
    ("WAL", " kB/s", |now, before, seconds| (now.wal - before.wal) / seconds / 1024.0),
];

/// Shows the table or the graphs, until it is interrupted; once where the output is no terminal, or on request.
///
/// # Errors
/// If the cluster or the statistics cannot be read.
pub async fn run(connection: &Connection, name: Option<&str>, once: bool) -> Result<ExitCode, PluginError> {
    let once = once || !std::io::stdout().is_terminal();
    match name {
        Some(name) => one(connection, name, once).await,
        None => fleet(connection, once).await,
    }
}

async fn fleet(connection: &Connection, once: bool) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let databases: Api<ServiceDatabase> = Api::namespaced(client, &namespace);
    loop {
        let found = databases.list(&ListParams::default()).await;
        let found = found.map_err(|error| PluginError::kubernetes("listing the ServiceDatabases", error))?;
        show(&overview(&found.items), once)?;
        if once {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A line for each database; those that are not Ready first.
fn overview(databases: &[ServiceDatabase]) -> String {
    let holds = |database: &ServiceDatabase, kind: &str| {
        let conditions = database.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status == "True", condition.reason.clone())).unwrap_or_default()
    };
    let mut sorted: Vec<_> = databases.iter().collect();
    sorted.sort_by_key(|database| (holds(database, kind::READY).0, database.name_any()));
    let mut table =
        Table::new(["NAME", "READY", "REASON", "AVAILABLE", "INSTANCES", "PRIMARY", "SIZE", "VOLUME FULL IN"]);
    for database in sorted {
        let status = database.status.clone().unwrap_or_default();
        let (ready, reason) = holds(database, kind::READY);
        let yes = |value: bool| if value { "yes" } else { "NO" }.to_owned();
        let capacity = status.capacity.unwrap_or_default();
        table.row([
            database.name_any(),
            yes(ready),
            reason,
            yes(holds(database, kind::DATABASE_AVAILABLE).0),
            status.instances.unwrap_or_default(),
            status.primary.unwrap_or_default(),
            capacity.database_bytes.map(megabytes).unwrap_or_default(),
            capacity.volume_full_in_days.map(|days| format!("{days} days")).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn megabytes(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

async fn one(connection: &Connection, name: &str, once: bool) -> Result<ExitCode, PluginError> {
    let source = Source::of(connection, name, None).await?;
    let mut histories: Vec<VecDeque<f64>> = vec![VecDeque::new(); LINES.len()];
    let mut last: Option<(Instant, Counted)> = None;
    loop {
        let at = Instant::now();
        let rows: Vec<Counted> = source.rows(QUERY).await?;
        let Some(now) = rows.first().copied() else { return Ok(ExitCode::FAILURE) };
        if let Some((before_at, before)) = last {
            let seconds = at.duration_since(before_at).as_secs_f64().max(0.001);
            for (history, (_, _, value)) in histories.iter_mut().zip(LINES) {
                history.push_back(value(&now, &before, seconds).max(0.0));
                if history.len() > WIDTH {
                    history.pop_front();
                }
            }
            show(&graphs(name, &histories), once)?;
            if once {
                return Ok(ExitCode::SUCCESS);
            }
        }
        last = Some((at, now));
        tokio::time::sleep(INTERVAL).await;
    }
}

fn graphs(name: &str, histories: &[VecDeque<f64>]) -> String {
    let mut text = format!("{name}, its primary\n");
    for (history, (label, unit, _)) in histories.iter().zip(LINES) {
        let now = history.back().copied().unwrap_or_default();
        text += &format!("  {label:<14} {:>12}  {}\n", format!("{now:.1}{unit}"), graph(history));
    }
    text
}

/// Values as columns, the highest of them as the highest column.
fn graph(values: &VecDeque<f64>) -> String {
    let highest = values.iter().copied().fold(0.0_f64, f64::max);
    let column = |value: &f64| {
        let part = if highest > 0.0 { value / highest } else { 0.0 };
        // From 0 to 7.
        BARS[((part * 7.0).round() as usize).min(BARS.len() - 1)]
    };
    values.iter().map(column).collect()
}

fn show(text: &str, once: bool) -> Result<(), PluginError> {
    let mut output = std::io::stdout().lock();
    // Home, and clear what is below.
    let clear = if once { "" } else { "\u{1b}[H\u{1b}[J" };
    write!(output, "{clear}{text}")
        .and_then(|()| output.flush())
        .map_err(|error| PluginError::Output(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_graph_is_as_high_as_its_highest_value() {
        assert_eq!(graph(&VecDeque::from([0.0, 3.5, 7.0])), "▁▅█");
        assert_eq!(graph(&VecDeque::from([0.0, 0.0])), "▁▁");
        assert_eq!(graph(&VecDeque::new()), "");
    }

    #[test]
    fn a_database_in_trouble_is_the_first() {
        let database = |name: &str, ready: &str| -> ServiceDatabase {
            let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "m",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({
                "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": name},
                "spec": {"storage": {"size": "1Gi"}}, "status": {"conditions": [condition], "instances": "2/3"}
            }))
            .expect("a resource")
        };
        let text = overview(&[database("a", "True"), database("b", "False")]);
        let names: Vec<_> = text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(text.contains("2/3"));
    }
}
