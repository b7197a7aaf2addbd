//! `kubectl servicedb drift`: compares the schema with the migrations.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use super::table::plain;
use crate::api::conditions::{self as kind, reason};
use crate::api::names::ANNOTATION_CHECK_DRIFT;
use crate::api::{DriftStatus, ServiceDatabase};

/// The interval at which the result is polled.
const POLL: Duration = Duration::from_millis(500);

/// The exit code of a failed check.
const UNKNOWN: u8 = 2;

/// Requests a check, waits for its result, and prints it; the exit code shows whether there is
/// drift.
pub async fn run(connection: &Connection, name: &str, timeout: Duration) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    if resource.spec.migrations.as_ref().is_none_or(|migrations| migrations.source.job.is_some()) {
        eprintln!("error: {name} has no migrations to compare its schema with");
        return Ok(ExitCode::from(UNKNOWN));
    }
    if let Some(hindrance) = hindrance(&resource) {
        eprintln!("error: the schema is not at its target, so it is not compared: {hindrance}");
        return Ok(ExitCode::from(UNKNOWN));
    }
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    annotate(&client, &namespace, name, &[(ANNOTATION_CHECK_DRIFT, Some(token.clone()))]).await?;
    let deadline = Instant::now() + timeout;
    loop {
        let resource = read(&client, &namespace, name).await?;
        let hindrance = hindrance(&resource);
        if let Some(drift) = resource
            .status
            .and_then(|status| status.drift)
            .filter(|drift| drift.request.as_deref() == Some(token.as_str()))
        {
            print!("{}", describe(&drift));
            return Ok(match drift {
                DriftStatus { error: Some(_), .. } => ExitCode::from(UNKNOWN),
                DriftStatus { count: 0, .. } => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            });
        }
        if Instant::now() >= deadline {
            eprintln!(
                "error: no answer within {} s; the request is kept, and is done once the schema is at its target \
                 (kubectl servicedb status {name} -n {namespace})",
                timeout.as_secs()
            );
            if let Some(hindrance) = hindrance {
                eprintln!("{hindrance}");
            }
            return Ok(ExitCode::from(UNKNOWN));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why there will be no result without a change.
fn hindrance(resource: &ServiceDatabase) -> Option<String> {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let applied = conditions.into_iter().find(|condition| condition.type_ == kind::MIGRATIONS_APPLIED)?;
    let under_way = [reason::MIGRATIONS_RUNNING, reason::PROGRESSING].contains(&applied.reason.as_str());
    (applied.status != "True" && !under_way).then(|| format!("{}: {}", applied.reason, plain(&applied.message)))
}

fn describe(drift: &DriftStatus) -> String {
    if let Some(error) = &drift.error {
        return format!("the check failed: {}\n", plain(error));
    }
    if drift.count == 0 {
        return "the schema matches the migrations\n".to_owned();
    }
    let mut text: String = drift.differences.iter().map(|difference| format!("{}\n", plain(difference))).collect();
    let shown = i64::try_from(drift.differences.len()).unwrap_or(i64::MAX);
    if drift.count > shown {
        text += &format!("and {} more\n", drift.count - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_listed_or_counted() {
        let drift = |found: serde_json::Value| -> DriftStatus {
            let mut status = json!({"checkedAt": "2026-01-01T00:00:00Z", "goal": "g", "count": 0});
            status.as_object_mut().expect("an object").extend(found.as_object().expect("an object").clone());
            serde_json::from_value(status).expect("a status")
        };
        assert_eq!(describe(&drift(json!({}))), "the schema matches the migrations\n");
        let some = describe(&drift(json!({"count": 3, "differences": ["table public.x is not in the migrations"]})));
        assert_eq!(some, "table public.x is not in the migrations\nand 2 more\n");
        assert!(describe(&drift(json!({"error": "no server"}))).contains("no server"));
    }
}
