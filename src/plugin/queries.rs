//! `kubectl servicedb queries`: the statements that took most, by what they took.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Deserialize;

use super::args::Connection;
use super::connection::PluginError;
use super::statistics::Source;
use super::table::{Table, plain};

/// What statements are ordered by.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Time of all calls.
    Total,
    /// Time of one call.
    Mean,
    /// Number of calls.
    Calls,
    /// Blocks that were read from outside of PostgreSQL's buffers, and written.
    Io,
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Total => "total_ms",
            Self::Mean => "mean_ms",
            Self::Calls => "calls",
            Self::Io => "blocks",
        }
    }
}

/// The longest text of a statement in the table.
const WIDTH: usize = 100;

#[derive(Deserialize, Debug)]
struct Row {
    total_ms: f64,
    mean_ms: f64,
    calls: i64,
    rows: i64,
    blocks: i64,
    share: f64,
    login: String,
    query: String,
}

/// The texts are normalised by the server: constants are `$1`. Utility statements keep theirs, and are left out;
/// so are those of Servicedb itself.
fn query(by: By, limit: u16) -> String {
    format!(
        "SELECT sum(s.total_exec_time) AS total_ms, sum(s.total_exec_time) / greatest(sum(s.calls), 1) AS mean_ms,
                sum(s.calls)::int8 AS calls, sum(s.rows)::int8 AS rows,
                sum(s.shared_blks_read + s.shared_blks_written + s.temp_blks_read + s.temp_blks_written)::int8 AS blocks,
                coalesce(sum(s.total_exec_time) / nullif(sum(sum(s.total_exec_time)) OVER (), 0), 0) AS share,
                s.userid::regrole::text AS login, \"left\"(min(s.query), 4000) AS query
         FROM public.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
         WHERE d.datname <> 'postgres' AND s.userid::regrole::text NOT IN ('postgres', 'servicedb_monitor', 'servicedb_reader')
         GROUP BY s.userid, s.dbid, s.queryid ORDER BY {} DESC LIMIT {limit}",
        by.column()
    )
}

/// Prints the statements, or forgets what was counted.
///
/// # Errors
/// If the statistics cannot be read.
pub async fn run(
    connection: &Connection,
    name: &str,
    pod: Option<String>,
    by: By,
    limit: u16,
    reset: bool,
) -> Result<ExitCode, PluginError> {
    let source = Source::of(connection, name, pod).await?;
    if reset {
        source.as_superuser("SELECT public.pg_stat_statements_reset()").await?;
        println!("the statistics of statements begin anew");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Row> = source.rows(&query(by, limit)).await?;
    print!("{}", table(&rows));
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(["TOTAL", "SHARE", "MEAN", "CALLS", "ROWS", "BLOCKS", "LOGIN", "STATEMENT"]);
    for row in rows {
        let text = plain(&row.query);
        let statement = match text.char_indices().nth(WIDTH) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        table.row([
            milliseconds(row.total_ms),
            format!("{:.0} %", row.share * 100.0),
            milliseconds(row.mean_ms),
            row.calls.to_string(),
            row.rows.to_string(),
            row.blocks.to_string(),
            row.login.clone(),
            statement,
        ]);
    }
    table.render()
}

/// A duration with the unit that keeps it short.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms < 7_200_000.0 => format!("{:.0} min", ms / 60_000.0),
        ms => format!("{:.1} h", ms / 3_600_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_one_line_and_no_longer_than_the_table() {
        let row = Row {
            total_ms: 90_000.0,
            mean_ms: 0.25,
            calls: 360_000,
            rows: 0,
            blocks: 7,
            share: 0.5,
            login: "chat_a".into(),
            query: format!("SELECT\n\t\u{1b}[31m{}", "x".repeat(200)),
        };
        let text = table(&[row]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("90.0 s") && text.contains("250 µs") && text.contains("50 %"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains('…'), "{text}");
    }

    #[test]
    fn each_order_is_a_column_of_the_query() {
        for by in By::value_variants() {
            assert!(query(*by, 5).contains(&format!(" AS {}", by.column())), "{by:?}");
        }
    }
}
