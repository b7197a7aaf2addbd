//! Continuous archiving into the object store of the local cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::contract::pod::VOLUME;

use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, condition, database, describe, plugin, pod_uid, shared, store, then_restore,
    until, with_notes,
};

const PGBACKREST: &str = "pgbackrest --config=/run/servicedb/archive/pgbackrest.conf --stanza=db";

async fn exec(sandbox: &Sandbox, pod: &str, script: &str) -> String {
    let output = sandbox.exec(pod, script).await;
    assert!(output.status.success(), "{pod}: {script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The newest segment of each timeline in the store.
async fn archived(sandbox: &Sandbox, pod: &str) -> Vec<String> {
    let info = exec(sandbox, pod, &format!("{PGBACKREST} info --output=json")).await;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let archives = info[0]["archive"].as_array().cloned().unwrap_or_default();
    archives.iter().filter_map(|archive| archive["max"].as_str().map(str::to_owned)).collect()
}

/// Ends a segment and waits until it is in the store; returns its name.
pub async fn archive_a_segment(sandbox: &Sandbox, pod: &str) -> String {
    let switch = "psql -XqAtc \"SELECT pg_walfile_name(pg_switch_wal())\"";
    let segment = exec(sandbox, pod, switch).await;
    until("the segment is in the store", SOON, || async {
        let found = archived(sandbox, pod).await;
        if found.iter().any(|newest| *newest >= segment) { Ok(()) } else { Err(format!("{segment}: {found:?}")) }
    })
    .await;
    segment
}

/// The positions in WAL of all segments in the store, in units of a segment, whatever their timeline.
async fn positions(sandbox: &Sandbox, pod: &str) -> BTreeSet<u64> {
    let list =
        exec(sandbox, pod, "pgbackrest --config=/run/servicedb/archive/pgbackrest.conf repo-ls --recurse archive/db")
            .await;
    let segments = list.lines().filter_map(|line| {
        let name = line.rsplit('/').next()?;
        let is_segment = name.len() > 25 && name.as_bytes()[24] == b'-';
        let number = |range| u64::from_str_radix(name.get(range)?, 16).ok();
        is_segment.then(|| Some(number(8..16)? * 256 + number(16..24)?))?
    });
    segments.collect()
}

/// WAL is archived from the first minute, on each timeline, by whoever leads; a store that is away
/// costs nothing but the archive, which has every segment once it is back.
#[test]
fn wal_is_archived_over_switchovers_and_outages_of_the_store() {
    if !Cluster::is_local() {
        // It stops the store.
        return;
    }
    let _store = store::alone();
    shared("archive", async |sandbox| then_restore(outage(&sandbox), store::scale(&sandbox, 1)).await);
}

/// A database whose volume is one of its own, and small.
async fn small(sandbox: &Sandbox) {
    let spec = json!({
        "storage": {"size": "512Mi", "storageClassName": "growable"},
        "backup": {"store": "main", "whenVolumeFills": "StopWrites", "schedule": {"verification": ""}},
    });
    sandbox.create(database("small", spec)).await;
    sandbox.ready("small", READY).await;
    sandbox.condition("small", "ContinuousArchiving", "True", "Archiving", READY).await;
}

/// While WAL waits for a store that is away, a volume that fills makes sessions read-only, and room lets them write.
async fn writes_stop_and_resume(sandbox: &Sandbox) {
    let pod = "small-db-0";
    exec(sandbox, pod, "psql -XqAtc 'SELECT pg_switch_wal()'").await;
    sandbox.condition("small", "ContinuousArchiving", "False", "ArchivingFailed", READY).await;
    // Less than a tenth of the volume is left, and more than a twentieth.
    let fill = format!(
        "cd {VOLUME} && size=$(df --output=size -B1 . | tail -1) && free=$(df --output=avail -B1 . | tail -1) \
         && fallocate -l $((free - size / 100 * 8)) ballast"
    );
    exec(sandbox, pod, &fill).await;
    let told = sandbox.condition("small", "Ready", "False", "WritesStopped", SOON).await;
    assert!(told.message.contains("store main") && told.message.contains("spec.storage.size"), "{}", told.message);
    let read_only = "psql -XqAtc 'SHOW default_transaction_read_only'";
    assert_eq!(exec(sandbox, pod, read_only).await, "on");
    exec(sandbox, pod, &format!("rm {VOLUME}/ballast")).await;
    sandbox.ready("small", SOON).await;
    assert_eq!(exec(sandbox, pod, read_only).await, "off");
}

async fn outage(sandbox: &Arc<Sandbox>) {
    // A standby keeps a sixteenth of the volume as WAL, whether it is archived or not: more than is written here.
    let spec = json!({"instances": 2, "storage": {"size": "2Gi"}, "backup": {"store": "main", "schedule": {"verification": ""}}});
    with_notes(sandbox, spec).await;
    small(sandbox).await;
    let writer = Writer::start(sandbox.clone(), "shop");
    writer.goes_on(20).await;
    let first = sandbox.primary("shop").await;
    let segment = archive_a_segment(sandbox, &first).await;
    let told = sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", SOON).await;
    assert!(told.message.contains("store main"), "{}", told.message);

    let switched = plugin(sandbox, &["switchover", "shop"]).await;
    assert!(switched.status.success(), "{}", String::from_utf8_lossy(&switched.stderr));
    let second = sandbox.primary("shop").await;
    assert_ne!(second, first);
    writer.goes_on(20).await;
    let next = archive_a_segment(sandbox, &second).await;
    assert!(next[..8] > segment[..8], "{next} is of a later timeline than {segment}");

    store::scale(sandbox, 0).await;
    exec(sandbox, &second, "psql -XqAtc 'SELECT pg_switch_wal()'").await;
    let told = sandbox.condition("shop", "ContinuousArchiving", "False", "ArchivingFailed", READY).await;
    assert!(told.message.contains("store main"), "{}", told.message);
    writer.goes_on(20).await;
    let found = sandbox.get("shop").await;
    assert_eq!(condition(&found, "Ready").expect("a condition").status, "True", "{}", describe(&found));
    writes_stop_and_resume(sandbox).await;
    // The primary fails with segments that only its volume has as waiting.
    let before = pod_uid(sandbox, &second).await;
    let at_once = DeleteParams::default().grace_period(0);
    sandbox.api::<Pod>().delete(&second, &at_once).await.expect("the primary deleted");
    // Status may still tell of the time before.
    until("it is another pod", READY, || async {
        let now = pod_uid(sandbox, &second).await;
        if now != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    writer.goes_on(20).await;
    store::scale(sandbox, 1).await;
    sandbox.ready("shop", READY).await;
    until("a primary ends a segment", SOON, || async {
        let pod = sandbox.primary("shop").await;
        let ended = sandbox.exec(&pod, "psql -XqAtc 'SELECT pg_switch_wal()'").await;
        if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
    })
    .await;
    let third = sandbox.primary("shop").await;
    archive_a_segment(sandbox, &third).await;
    sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", READY).await;
    // The new leader archives what the former ones did not, beside its own.
    none_is_missing(sandbox, &third).await;
    until("nothing waits", SOON, || async {
        let query = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        let waiting = exec(sandbox, &third, &format!("psql -XqAtc \"{query}\"")).await;
        if waiting == "0" { Ok(()) } else { Err(waiting) }
    })
    .await;
    writer.all_are_there(sandbox, "shop").await;

    // Turned off, nothing fails and no key stays in the pods.
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"backup": {"enabled": false}}})).await;
    until("the pods have no key any more", SOON, || async {
        let found =
            sandbox.exec(&third, "ls /run/servicedb/archive && exit 1; psql -XqAtc 'SHOW archive_command'").await;
        let command = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        if found.status.success() && command == "/bin/true" { Ok(()) } else { Err(command) }
    })
    .await;
    // Turned on again, what was written meanwhile is archived as long as the volume has it.
    let write = "psql -XqAtc 'SELECT pg_logical_emit_message(true, $$e2e$$, $$row$$)'";
    for _ in 0..2 {
        exec(sandbox, &third, &format!("{write} && psql -XqAtc 'SELECT pg_switch_wal()'")).await;
    }
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"backup": {"enabled": true}}})).await;
    until("the primary archives again", READY, || async {
        let looks = "test -e /run/servicedb/archive/pgbackrest.conf && psql -XqAtc 'SHOW archive_command'";
        let found = sandbox.exec(&third, looks).await;
        let command = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        if command.contains("archive-push") { Ok(()) } else { Err(command) }
    })
    .await;
    exec(sandbox, &third, write).await;
    archive_a_segment(sandbox, &third).await;
    none_is_missing(sandbox, &third).await;
    assert!(
        sandbox.get("shop").await.status.and_then(|status| status.backup).is_some_and(|it| it.given_up_at.is_none())
    );
}

/// Waits until the archive has every position in WAL from its first to its last.
pub async fn none_is_missing(sandbox: &Sandbox, pod: &str) {
    until("no segment is missing", SOON, || async {
        let positions = positions(sandbox, pod).await;
        let (first, last) = (positions.first().expect("a segment"), positions.last().expect("a segment"));
        let missing: Vec<_> = (*first..*last).filter(|position| !positions.contains(position)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("of {first} to {last} the archive lacks {missing:?}")) }
    })
    .await;
}
