//! The scenario of a major upgrade, without a store for backups.

use serde_json::{Value, json};
use servicedb::api::names::{ANNOTATION_UPGRADE, ANNOTATION_UPGRADE_ACTION};
use servicedb::api::{RequestState, ServiceDatabase, UpgradePhase};

use super::{NAME, REQUEST, insert};
use crate::harness::Sandbox;

const FROM: &str = "17";
const TO: &str = "18";

/// The version before, and room for copies of the data.
pub fn spec() -> Value {
    json!({"postgres": {"version": FROM}, "backup": {"enabled": false}, "storage": {"size": "1Gi"}})
}

/// Rows, all of which must be there afterwards.
pub async fn prepare(sandbox: &Sandbox) {
    insert(sandbox, &[1, 2, 3]).await;
}

/// Declares the version and requests the upgrade, in one change.
pub async fn act(sandbox: &Sandbox) {
    let patch = json!({
        "metadata": {"annotations": {ANNOTATION_UPGRADE: REQUEST, ANNOTATION_UPGRADE_ACTION: "Start"}},
        "spec": {"postgres": {"version": TO}},
    });
    sandbox.patch::<ServiceDatabase>(NAME, &patch).await;
}

/// Whether the request has a result, and the server that answers is the one that it names.
///
/// # Errors
/// What is still missing.
pub fn settled(found: &ServiceDatabase) -> Result<(), String> {
    let status = found.status.clone().unwrap_or_default();
    let upgrade = status.upgrade.ok_or("the upgrade is not taken up")?;
    let run = upgrade.last_request.as_ref().filter(|run| run.request == REQUEST);
    let version = match (upgrade.phase, run.map(|run| run.state)) {
        (UpgradePhase::Upgraded, Some(RequestState::Done)) => TO,
        (UpgradePhase::Failed, Some(RequestState::Failed)) => FROM,
        _ => return Err(format!("{upgrade:?}")),
    };
    let serves = status.postgres_version.unwrap_or_default();
    if serves.starts_with(version) { Ok(()) } else { Err(format!("{:?}, and it runs {serves}", upgrade.phase)) }
}

/// Whether it ended with the data from before, by design: why.
pub fn gave_up(found: &ServiceDatabase) -> Option<String> {
    let upgrade = found.status.clone()?.upgrade?;
    let run = upgrade.last_request.filter(|run| run.request == REQUEST && run.state == RequestState::Failed)?;
    Some(run.message.unwrap_or_default())
}

#[test]
fn it_ends_with_one_version_that_serves() {
    let found = |phase: &str, state: &str, serves: &str| {
        let run = json!({"request": REQUEST, "state": state, "startedAt": "2026-11-30T10:00:00Z", "message": "why"});
        super::sample(json!({
            "postgresVersion": serves, "upgrade": {"from": 17, "to": 18, "phase": phase, "lastRequest": run},
        }))
    };
    assert_eq!(settled(&found("Upgraded", "Done", "18.1")), Ok(()));
    assert!(settled(&found("Upgraded", "Done", "17.7")).is_err());
    assert!(settled(&found("Switching", "Running", "17.7")).is_err());
    assert_eq!(gave_up(&found("Upgraded", "Done", "18.1")), None);
    let failed = found("Failed", "Failed", "17.7");
    assert_eq!((settled(&failed), gave_up(&failed).as_deref()), (Ok(()), Some("why")));
}
