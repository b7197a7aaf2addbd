//! `kubectl servicedb migrations`: prints the whole ledger, and follows a run until it ends.

use std::collections::BTreeMap;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::age::{age, duration};
use super::args::Connection;
use super::connection::{PluginError, connect, read};
use super::psql;
use super::table::{Table, plain};
use crate::api::conditions::{self as kind, reason};
use crate::api::names::PostgresNames;
use crate::api::{MigrationRecord, MigrationState, SchemaVersion, ServiceDatabase};

/// The interval at which a run is polled.
const POLL: Duration = Duration::from_secs(1);
/// Timeout of reading the ledger, in seconds.
const PATIENCE: u32 = 30;
/// The size limit of the ledger: ten thousand migrations with an error each are less.
const SIZE: u64 = 16 << 20;
/// The size limit of psql's error message.
const WORDS: u64 = 4096;

/// The query that returns the ledger as a JSON array, the newest first. Every value is cast to a
/// built-in type and truncated, whatever the columns are.
pub const LEDGER_SCRIPT: &str = "\
BEGIN READ ONLY;
SELECT to_regclass('servicedb.migrations') IS NOT NULL AS there \\gset
\\if :there
SELECT json_agg(m) FROM (
    SELECT \"left\"(COALESCE(more ->> 'version_text', version::text), 200) AS version,
           \"left\"(name::text, 255) AS name, \"left\"(status::text, 20) AS status,
           started_at::timestamptz, duration_ms::int8, \"left\"(error::text, 1000) AS error,
           reversible
    FROM (SELECT version, name, status, started_at, duration_ms, error, down_sql IS NOT NULL AS reversible,
                 to_jsonb(t) - 'down_sql' - 'error' AS more
          FROM servicedb.migrations t) l
    ORDER BY COALESCE(more ->> 'ordinal', lpad(version::text, 20, '0')) COLLATE \"C\" DESC LIMIT 10000) m;
\\endif
";

/// A row of the ledger.
#[derive(Deserialize, Debug)]
struct Row {
    version: SchemaVersion,
    name: String,
    status: String,
    started_at: Timestamp,
    duration_ms: Option<i64>,
    reversible: bool,
    error: Option<String>,
}

/// Prints the ledger, and follows a run if asked to.
pub async fn run(connection: &Connection, name: &str, follow: bool) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    match ledger(connection, &client, &namespace, &resource).await {
        Ok(rows) if rows.is_empty() => println!("the ledger is empty"),
        Ok(rows) => print!("{}", table(&rows, Timestamp::now())),
        // A database that is still being created is followed, too.
        Err(error) if follow => eprintln!("the ledger cannot be read yet: {error}"),
        Err(error) => return Err(error),
    }
    let mut resource = resource;
    let mut shown = states(&resource);
    while follow && is_under_way(&resource) {
        tokio::time::sleep(POLL).await;
        resource = read(&client, &namespace, name).await?;
        let now = states(&resource);
        for (version, line) in &now {
            if shown.get(version) != Some(line) {
                println!("{line}");
            }
        }
        shown = now;
    }
    println!("{}", verdict(&resource));
    Ok(if follow && !holds(&resource) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads the ledger in the primary, since status has only the last 20.
///
/// The tenant owns the ledger and may have replaced it: it is read with a login that is not a
/// superuser, and the size of the result is limited. psql does not interpret it.
async fn ledger(
    connection: &Connection,
    client: &Client,
    namespace: &str,
    resource: &ServiceDatabase,
) -> Result<Vec<Row>, PluginError> {
    let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"].map(Into::into);
    let login = psql::Login::Reader { seconds: PATIENCE };
    let mut command = psql::command(connection, client, namespace, resource, login, false, &arguments).await?;
    let failed = |source| PluginError::Kubectl { program: psql::program(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (input, output, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let exchange = async {
        let write = async {
            // This closes the input, which ends the script. If the program does not read it, its own
            // error is more informative.
            if let Some(mut input) = input {
                let _ = input.write_all(LEDGER_SCRIPT.as_bytes()).await;
            }
            Ok(())
        };
        tokio::try_join!(write, at_most(SIZE, output), at_most(WORDS, words))
    };
    // kubectl itself may wait for the API server.
    let patience = Duration::from_secs(u64::from(PATIENCE) * 2);
    let unread = |problem: &str| {
        PluginError::Query(format!(
            "psql in the primary's pod did not return the ledger: {problem}\nIf the server does not know the login {}, \
             an earlier version's agent runs there: let the rollout to this one happen first (kubectl servicedb rollout {} \
             -n {namespace})",
            PostgresNames::READER,
            resource.name_any()
        ))
    };
    let Ok(exchange) = tokio::time::timeout(patience, exchange).await else {
        return Err(unread("timeout"));
    };
    let ((), text, words) = exchange.map_err(failed)?;
    if text.len() as u64 >= SIZE {
        return Err(unread("it exceeds the size limit of a ledger"));
    }
    if !child.wait().await.map_err(failed)?.success() {
        return Err(unread(&plain(&String::from_utf8_lossy(&words))));
    }
    let rows: Option<Vec<Row>> = match String::from_utf8_lossy(&text).trim() {
        "" => None,
        json => serde_json::from_str(json).map_err(|error| unread(&plain(&error.to_string())))?,
    };
    let mut rows = rows.unwrap_or_default();
    rows.reverse();
    Ok(rows)
}

/// The output of a program, up to a number of bytes.
async fn at_most(limit: u64, output: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        output.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let mut table = Table::new(["VERSION", "NAME", "STATE", "STARTED", "TOOK", "REVERSIBLE", "ERROR"]);
    for row in rows {
        let ran = row.status != "pending";
        table.row([
            row.version.to_string(),
            row.name.clone(),
            row.status.clone(),
            if ran { format!("{} ago", age(row.started_at, now)) } else { String::new() },
            row.duration_ms.map(duration).unwrap_or_default(),
            if row.reversible { "yes" } else { "no" }.to_owned(),
            row.error.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

fn states(resource: &ServiceDatabase) -> BTreeMap<SchemaVersion, String> {
    let recent = resource.status.iter().flat_map(|status| &status.migrations).flat_map(|migrations| &migrations.recent);
    recent.map(|record| (record.version.clone(), line(record))).collect()
}

fn line(record: &MigrationRecord) -> String {
    let state = match record.state {
        MigrationState::Pending => "pending",
        MigrationState::Executing => "executing",
        MigrationState::Completed => "completed",
        MigrationState::Failed => "failed",
    };
    let took = record.duration_ms.map(|took| format!(" in {}", duration(took))).unwrap_or_default();
    let error = record.error.as_ref().map(|error| format!(": {}", plain(error))).unwrap_or_default();
    format!("{} {} {state}{took}{error}", plain(&record.version.to_string()), plain(&record.name))
}

fn condition<'a>(resource: &'a ServiceDatabase, kind: &str) -> Option<&'a Condition> {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|condition| condition.type_ == kind)
}

fn applied(resource: &ServiceDatabase) -> Option<&Condition> {
    condition(resource, kind::MIGRATIONS_APPLIED)
}

fn holds(resource: &ServiceDatabase) -> bool {
    applied(resource).is_some_and(|condition| condition.status == "True")
}

/// Whether status describes this spec, and waiting may lead to a change.
fn is_under_way(resource: &ServiceDatabase) -> bool {
    if condition(resource, kind::STALLED)
        .is_some_and(|stalled| stalled.status == "True" && stalled.observed_generation == resource.metadata.generation)
    {
        return false;
    }
    let waiting = [reason::MIGRATIONS_RUNNING, reason::PROGRESSING, reason::DEPENDENCY_NOT_READY, reason::NO_PRIMARY];
    applied(resource).is_none_or(|condition| {
        condition.observed_generation != resource.metadata.generation
            || (condition.status != "True" && waiting.contains(&condition.reason.as_str()))
    })
}

fn verdict(resource: &ServiceDatabase) -> String {
    applied(resource).map_or_else(
        || "the operator has not processed the migrations yet".to_owned(),
        |condition| format!("{}={}: {}", condition.type_, condition.status, plain(&condition.message)),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ledger_is_a_table() {
        let rows: Vec<Row> = serde_json::from_value(json!([
            {"version": 1, "name": "users", "status": "completed", "started_at": "2026-01-01T00:00:00.5+00:00",
             "duration_ms": 12, "reversible": true, "error": null},
            {"version": 2, "name": "index", "status": "pending", "started_at": "2026-01-01T00:00:00+00:00",
             "duration_ms": null, "reversible": false, "error": null},
        ]))
        .expect("rows as the server writes them");
        let text = table(&rows, "2026-01-01T00:05:00Z".parse().expect("a time"));
        assert!(text.contains("  1         users   completed   5m ago    12ms   yes          -\n"), "{text}");
        assert!(text.contains("  2         index   pending     -         -      no           -\n"), "{text}");
    }

    #[test]
    fn a_run_is_followed_until_it_ends() {
        let with = |status: &str, reason: &str, observed: i64| -> ServiceDatabase {
            serde_json::from_value(json!({
                "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase",
                "metadata": {"name": "chat", "generation": 2}, "spec": {"storage": {"size": "1Gi"}},
                "status": {"conditions": [{
                    "type": "MigrationsApplied", "status": status, "reason": reason, "message": "",
                    "observedGeneration": observed, "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            }))
            .expect("a resource")
        };
        assert!(is_under_way(&with("False", "MigrationsRunning", 2)));
        assert!(is_under_way(&with("True", "Applied", 1)), "of the spec before");
        assert!(!is_under_way(&with("True", "Applied", 2)));
        assert!(!is_under_way(&with("False", "MigrationFailed", 2)));
    }
}
