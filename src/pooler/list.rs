//! `servicedb pools`: the pools of this pod, a line each, for `kubectl servicedb pooler`.

use std::process::ExitCode;

use super::console::{Console, Row};

/// The columns: of PgBouncer's table, in the order of the output.
const COLUMNS: [&str; 8] =
    ["database", "user", "cl_active", "cl_waiting", "maxwait", "maxwait_us", "sv_active", "sv_idle"];

/// Prints the pools, their columns separated by tabs.
pub async fn list() -> ExitCode {
    let pools = async { Console::open().await?.table("SHOW POOLS").await };
    match pools.await {
        Ok(pools) => {
            for row in pools.iter().filter(|row| row.get("database").is_some_and(|name| name != "pgbouncer")) {
                println!("{}", line(row));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn line(row: &Row) -> String {
    COLUMNS.map(|column| row.get(column).map_or("", String::as_str)).join("\t")
}
