//! The scenario of a restore in place, from the object store of the local cluster.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use servicedb::api::names::{ANNOTATION_RESTORE, ANNOTATION_RESTORE_TO};
use servicedb::api::{RequestState, ServiceDatabase};

use super::{NAME, REQUEST, STEP, insert};
use crate::harness::{Sandbox, column, plugin, until};

/// The name of the state that is restored: the same in each run, unlike a time.
const POINT: &str = "before";

/// An archive, and no backup but the first and the one that a restore needs.
pub fn spec() -> Value {
    json!({"backup": {"store": "main", "schedule": {"incremental": "", "verification": ""}}})
}

/// A backup; rows, of which the last two are left by the restore.
pub async fn prepare(sandbox: &Sandbox) {
    sandbox.condition(NAME, "BackedUp", "True", "BackedUp", STEP).await;
    insert(sandbox, &[1, 2]).await;
    let connection = sandbox.connect(NAME).await;
    let segment =
        column(&connection, "SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("the segment of WAL");
    let named = plugin(sandbox, &["restore-point", NAME, POINT]).await;
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    insert(sandbox, &[3, 4]).await;
    let newest = "SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver";
    until("the named state is archived", STEP, || async {
        let archived = column(&connection, newest).await.map_err(|refusal| format!("{refusal:?}"))?;
        if archived >= segment { Ok(()) } else { Err(format!("{archived:?}, and it is in {segment:?}")) }
    })
    .await;
}

/// Requests the restore.
pub async fn act(sandbox: &Sandbox) {
    let target = json!({"name": POINT}).to_string();
    let annotations = json!({ANNOTATION_RESTORE: REQUEST, ANNOTATION_RESTORE_TO: target});
    sandbox.patch::<ServiceDatabase>(NAME, &json!({"metadata": {"annotations": annotations}})).await;
}

/// Whether the request has a result; after a restore, also whether the full backup is there that it needs.
///
/// # Errors
/// What is still missing.
pub fn settled(found: &ServiceDatabase) -> Result<(), String> {
    let status = found.status.clone().unwrap_or_default();
    let run = status.restore.map(|restore| restore.run).filter(|run| run.request == REQUEST);
    let run = run.ok_or("the request is not taken up")?;
    match run.state {
        RequestState::Running => Err(format!("{run:?}")),
        RequestState::Failed => Ok(()),
        RequestState::Done => {
            let backup = status.backup.unwrap_or_default();
            let left_at = backup.left_timelines.last().map(|left| left.left_at.0);
            let is_covered = |at: Timestamp| left_at.is_some_and(|left_at| at >= left_at);
            let has_full = backup.newest_full.as_ref().is_some_and(|full| is_covered(full.started_at.0));
            let has_ended = backup.last_run.as_ref().is_some_and(|last| last.run.state == RequestState::Done);
            if has_full && has_ended { Ok(()) } else { Err(format!("{backup:?}")) }
        }
    }
}

/// Whether it ended with a refusal that left everything as it was, by design: why.
pub fn gave_up(found: &ServiceDatabase) -> Option<String> {
    let run = found.status.clone()?.restore?.run;
    (run.request == REQUEST && run.state == RequestState::Failed).then(|| run.message.unwrap_or_default())
}

#[test]
fn it_ends_restored_with_a_full_backup_or_refused() {
    let found = |state: &str, full_at: &str| {
        let status = json!({
            "restore": {"request": REQUEST, "state": state, "startedAt": "2026-11-30T10:00:00Z", "message": "why"},
            "backup": {
                "store": "main", "path": "/x",
                "leftTimelines": [{"timeline": 1, "leftAt": "2026-11-30T10:00:30Z", "continuedAs": 2}],
                "newestFull": {"label": "f", "type": "Full", "startedAt": full_at, "finishedAt": full_at,
                               "databaseBytes": 1, "storedBytes": 1},
                "lastRun": {"type": "Full", "job": "j", "state": "Done", "startedAt": full_at},
            },
        });
        super::sample(status)
    };
    assert!(settled(&found("Running", "2026-11-30T10:01:00Z")).is_err());
    assert!(settled(&found("Done", "2026-11-30T09:00:00Z")).is_err(), "the backup of the state that was left");
    assert_eq!(settled(&found("Done", "2026-11-30T10:01:00Z")), Ok(()));
    assert_eq!(gave_up(&found("Done", "2026-11-30T10:01:00Z")), None);
    let failed = found("Failed", "2026-11-30T09:00:00Z");
    assert_eq!((settled(&failed), gave_up(&failed).as_deref()), (Ok(()), Some("why")));
}
