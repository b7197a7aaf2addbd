//! Base backups into the object store of the local cluster.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use servicedb::api::{BackupStatus, BackupType, JobRun, RequestState, ServiceDatabase};

use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, condition, database, describe, plugin, shared, store, until, with_notes,
};

async fn backup(sandbox: &Sandbox) -> BackupStatus {
    let status = sandbox.get("shop").await.status.expect("a status");
    status.backup.expect("a database with a store")
}

/// Waits until the last Job is one that fits.
async fn run(sandbox: &Sandbox, what: &str, fits: impl Fn(&JobRun) -> bool) -> JobRun {
    // Two Jobs run at once in the cluster, and another asks again after 30 s.
    until(what, READY * 2, || async {
        let last = backup(sandbox).await.last_run.map(|last| last.run);
        last.clone().filter(&fits).ok_or_else(|| format!("{last:?}"))
    })
    .await
}

/// Whether the NetworkPolicy lets a backup Job in.
async fn is_open(sandbox: &Sandbox) -> bool {
    let policy = sandbox.api::<NetworkPolicy>().get("shop-db").await.expect("the policy");
    serde_json::to_string(&policy.spec).expect("JSON").contains("8432")
}

/// A database with a store gets a full backup without a word of its team, and another whenever one is asked
/// for; a Job that is lost is not "running" for ever.
#[test]
fn a_database_with_a_store_is_backed_up() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("backups", async |sandbox| {
        with_notes(&sandbox, json!({"instances": 2, "backup": {"store": "main"}})).await;
        let told = sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        assert!(told.message.contains("can be recovered from"), "{}", told.message);
        let first = backup(&sandbox).await;
        let (full, last) = (first.newest_full.expect("a full one"), first.last_run.expect("a Job").run);
        assert_eq!((first.count, full.kind, last.state), (Some(1), BackupType::Full, RequestState::Done));
        assert!(first.next_at.is_some() && full.database_bytes > full.stored_bytes, "{full:?}");

        // Nobody but a Job that runs is let in, and nothing serves it longer.
        assert!(!is_open(&sandbox).await);
        // 0x20F0 is 8432, and 0A a socket that listens.
        for pod in ["shop-db-0", "shop-db-1"] {
            until("no server runs any more", SOON, || async {
                let found = sandbox.exec(pod, "! grep -qs ':20F0 .* 0A ' /proc/net/tcp /proc/net/tcp6").await;
                if found.status.success() { Ok(()) } else { Err(pod.to_owned()) }
            })
            .await;
        }
        let job = sandbox.api::<Job>().get(&last.job).await.expect("the Job is kept for its log");
        let spec = serde_json::to_string(&job).expect("JSON");
        assert!(!spec.contains("secret-access-key\":\""), "{spec}");

        // From the replica, while the primary is written to.
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let asked = plugin(&sandbox, &["backup", "shop"]).await;
        let (out, error) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
        assert!(asked.status.success() && out.contains("is in the store main: Incremental"), "{out}{error}");
        writer.goes_on(20).await;
        let listed = plugin(&sandbox, &["backups", "shop"]).await;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains(&full.label) && listed.contains("Incremental"), "{listed}");

        // A Job that somebody deletes has failed, and is followed by another.
        let asked = plugin(&sandbox, &["backup", "shop", "--full", "--timeout", "0"]).await;
        assert!(asked.status.success());
        let lost = run(&sandbox, "a Job runs", |run| run.state == RequestState::Running).await;
        sandbox.api::<Job>().delete(&lost.job, &DeleteParams::background()).await.expect("a deletion");
        let after = run(&sandbox, "it has ended", |run| run.state != RequestState::Running).await;
        // It may have been faster than the deletion.
        if after.state == RequestState::Failed {
            assert!(after.message.expect("a message").contains("was deleted"));
            sandbox.condition("shop", "BackedUp", "False", "BackupFailed", SOON).await;
        }
        let asked = plugin(&sandbox, &["backup", "shop", "--full"]).await;
        let error = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{error}");
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", SOON).await;
        let jobs = sandbox.api::<Job>().list(&ListParams::default()).await.expect("Jobs").items;
        let backups = jobs.iter().filter(|job| job.metadata.name.as_ref().is_some_and(|name| name.contains("backup")));
        assert_eq!(backups.count(), 1, "Jobs that have ended do not pile up");
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "Ready").expect("a condition").status, "True", "{}", describe(&found));

        // Nonsense is refused by its field, and the database goes on.
        let nonsense = json!({"spec": {"backup": {"schedule": {"full": "at night"}}}});
        sandbox.patch::<ServiceDatabase>("shop", &nonsense).await;
        let told = sandbox.condition("shop", "Stalled", "True", "InvalidSpec", SOON).await;
        assert!(told.message.contains("spec.backup.schedule.full"), "{}", told.message);
        writer.goes_on(20).await;
        writer.all_are_there(&sandbox, "shop").await;

        // Where two fields say so, the backups go with the resource.
        let path = backup(&sandbox).await.path;
        let policies =
            json!({"deletionPolicy": "Delete", "backup": {"deletionPolicy": "Delete", "schedule": {"full": null}}});
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": policies})).await;
        sandbox.ready("shop", READY).await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", READY).await;
        sandbox
            .create(database("late", json!({"bootstrap": {"restore": {"source": {"path": path, "store": "main"}}}})))
            .await;
        let told = sandbox.condition("late", "Ready", "False", "RestoreFailed", READY).await;
        assert!(told.message.contains("no backup"), "{}", told.message);
    });
}

/// Overwrites a part of a relation's first page on the primary's volume.
async fn damage(sandbox: &Sandbox, relation: &str) {
    let pod = sandbox.primary("shop").await;
    let script = format!(
        "psql -Xq -d shop_db -c CHECKPOINT && cd /var/lib/postgresql/data/pgdata && \
         head -c 256 /dev/zero | tr '\\0' x | dd bs=64 seek=100 conv=notrunc 2>/dev/null \
         of=$(psql -XqAt -d shop_db -c \"SELECT pg_relation_filepath('{relation}')\")"
    );
    let output = sandbox.exec(&pod, &script).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A backup is proved by restoring it: what is damaged in it, a table or an index, is found before anybody needs it.
#[test]
fn backups_are_proved_by_restoring_them() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("verified", async |sandbox| {
        with_notes(&sandbox, json!({"backup": {"store": "main"}})).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(500).await;
        writer.all_are_there(&sandbox, "shop").await;
        let told = sandbox.condition("shop", "RestoreVerified", "True", "RestoreVerified", READY * 2).await;
        assert!(told.message.contains("was restored"), "{}", told.message);
        let verified = backup(&sandbox).await.verified.expect("a tested backup");
        assert!(verified.restore_seconds < 120, "{verified:?}");

        for relation in ["notes_pkey", "notes"] {
            damage(&sandbox, relation).await;
            let asked = plugin(&sandbox, &["backup", "shop", "--full"]).await;
            assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
            let asked = plugin(&sandbox, &["verify-backup", "shop"]).await;
            let error = String::from_utf8_lossy(&asked.stderr);
            let is_found = ["damaged", "checksum"].iter().any(|word| error.contains(word));
            assert!(!asked.status.success() && is_found, "{relation}: {error}");
            let told = sandbox.condition("shop", "RestoreVerified", "False", "VerificationFailed", SOON).await;
            assert!(told.message.contains("and checked at"), "{}", told.message);
            if relation == "notes_pkey" {
                let pod = sandbox.primary("shop").await;
                let output = sandbox.exec(&pod, "psql -Xq -d shop_db -c 'REINDEX INDEX notes_pkey'").await;
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "BackedUp").expect("a condition").status, "True", "{}", describe(&found));

        // A damaged page does not keep anybody from the rest.
        let spec = json!({"storage": {"size": "1Gi"}, "bootstrap": {"restore": {"source": {"name": "shop"}}}});
        sandbox.create(database("rescued", spec)).await;
        sandbox.ready("rescued", READY).await;
    });
}
