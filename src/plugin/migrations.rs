//! `kubectl servicedb migrations`: the whole ledger, and word of a run until it ends.

use std::collections::BTreeMap;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::age::{age, duration};
use super::args::Connection;
use super::connection::{PluginError, connect, read};
use super::psql;
use super::table::{Table, plain};
use crate::api::conditions::{self as kind, reason};
use crate::api::{MigrationRecord, MigrationState, ServiceDatabase};
use crate::contract::migration::LEDGER_IS_GENUINE;

/// How often a run is looked at.
const POLL: Duration = Duration::from_secs(1);
/// What psql says instead of a ledger that is none.
const FOREIGN: &str = "foreign";

/// A row of the ledger.
#[derive(Deserialize, Debug)]
struct Row {
    version: i64,
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
        // A database that is still being made is followed, too.
        Err(error) if follow => eprintln!("the ledger cannot be read yet: {error}"),
        Err(error) => return Err(error),
    }
    let mut resource = resource;
    let mut told = states(&resource);
    while follow && is_under_way(&resource) {
        tokio::time::sleep(POLL).await;
        resource = read(&client, &namespace, name).await?;
        let now = states(&resource);
        for (version, line) in &now {
            if told.get(version) != Some(line) {
                println!("{line}");
            }
        }
        told = now;
    }
    println!("{}", verdict(&resource));
    Ok(if follow && !holds(&resource) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Read in the primary, since status has the last 20 alone. Nothing of it is read that is not
/// what the migration Job makes: the person here is a superuser, and a migration may have put
/// something else in its place.
async fn ledger(
    connection: &Connection,
    client: &Client,
    namespace: &str,
    resource: &ServiceDatabase,
) -> Result<Vec<Row>, PluginError> {
    let script = format!(
        "SET search_path = pg_catalog;\n\
         BEGIN READ ONLY;\n\
         SELECT to_regclass('servicedb.migrations') IS NOT NULL AS there \\gset\n\
         \\if :there\n\
         LOCK TABLE ONLY servicedb.migrations, servicedb.revision IN ACCESS SHARE MODE;\n\
         SELECT ({LEDGER_IS_GENUINE}) AS genuine \\gset\n\
         \\if :genuine\n\
         SELECT json_agg(row_to_json(m)) FROM (SELECT version, name, status, started_at, duration_ms, error, \
         down_sql IS NOT NULL AS reversible FROM ONLY servicedb.migrations ORDER BY version) m;\n\
         \\else\n\\echo {FOREIGN}\n\\endif\n\\endif\n\
         COMMIT;\n"
    );
    let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"].map(Into::into);
    let mut command = psql::command(connection, client, namespace, resource, false, &arguments).await?;
    let failed = |source| PluginError::Kubectl { program: psql::program(), source };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim() {
        _ if !output.status.success() => {
            Err(PluginError::Output("psql in the primary's pod did not give the ledger".to_owned()))
        }
        "" => Ok(Vec::new()),
        FOREIGN => Err(PluginError::Output(
            "servicedb.migrations is not what the migration Job makes: look at it with kubectl servicedb psql"
                .to_owned(),
        )),
        json => serde_json::from_str(json).map_err(|error| PluginError::Output(error.to_string())),
    }
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

fn states(resource: &ServiceDatabase) -> BTreeMap<i64, String> {
    let recent = resource.status.iter().flat_map(|status| &status.migrations).flat_map(|migrations| &migrations.recent);
    recent.map(|record| (record.version, line(record))).collect()
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
    format!("{} {} {state}{took}{error}", record.version, plain(&record.name))
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

/// Whether status is of this spec, and says that waiting may bring something.
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
        || "the operator has not looked at the migrations yet".to_owned(),
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
