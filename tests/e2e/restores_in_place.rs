//! Restores in place, from the object store of the local cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use servicedb::api::names::ANNOTATION_RESTORE;
use servicedb::api::{RequestState, ServiceDatabase};

use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, column, condition, plugin, shared, store, until, with_notes,
};

/// A later migration, which a restore to before it takes back.
const LATER: (&str, &str) = ("2_later.up.sql", "CREATE TABLE later (id bigint PRIMARY KEY);");

async fn ids(sandbox: &Sandbox) -> BTreeSet<u64> {
    let connection = sandbox.connect("shop").await;
    let ids = column(&connection, "SELECT id FROM notes ORDER BY id").await.expect("the rows");
    ids.iter().map(|id| id.parse().expect("a number")).collect()
}

/// Waits until both instances serve, and one streams from the other.
async fn whole(sandbox: &Sandbox) {
    until("both instances serve", READY, || async {
        let resource = sandbox.get("shop").await;
        let status = resource.status.unwrap_or_default();
        let synchronous =
            status.conditions.iter().any(|it| it.type_ == "SynchronousReplication" && it.status == "True");
        match status.instances.as_deref() {
            Some("2/2") if synchronous => Ok(()),
            other => Err(format!("{other:?}, synchronous: {synchronous}")),
        }
    })
    .await;
}

/// Waits for the state of the requested restore.
async fn restore_is(sandbox: &Sandbox, wanted: RequestState) {
    until(&format!("the restore is {wanted:?}"), READY, || async {
        match sandbox.get("shop").await.status.and_then(|status| status.restore) {
            Some(restore) if restore.run.state == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The database is put back to a moment while a service writes: it has every row that was acknowledged before, and
/// none that was sent after it; credentials, replica and archive follow; migrations that were undone wait. The way
/// back brings back what was left; a primary's pod that is killed in the middle changes nothing of it.
#[test]
fn a_database_is_put_back_and_the_way_back_brings_all_of_it() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("put-back", async |sandbox: Arc<Sandbox>| {
        with_notes(&sandbox, json!({"instances": 2, "backup": {"store": "main", "schedule": {"verification": ""}}}))
            .await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(30).await;
        let before = writer.newest();
        let moment = Timestamp::now();
        // Those that were sent right after it may be in it.
        let most = writer.sent();
        tokio::time::sleep(Duration::from_millis(50)).await;
        sandbox.patch::<ConfigMap>("migrations", &json!({"data": {LATER.0: LATER.1}})).await;
        until("the second migration is applied", SOON, || async {
            let version = sandbox.get("shop").await.status.and_then(|status| status.schema_version);
            if version.as_deref() == Some("2") { Ok(()) } else { Err(format!("{version:?}")) }
        })
        .await;
        writer.goes_on(100).await;
        let known = writer.newest();

        // A target outside of the window changes nothing.
        let early = moment - Duration::from_secs(86_400);
        let refused = plugin(&sandbox, &["restore", "shop", "--to", &early.to_string(), "--yes"]).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("can be recovered from"), "{said}");

        let restored = plugin(&sandbox, &["restore", "shop", "--to", &moment.to_string(), "--yes"]).await;
        let (out, error) = (String::from_utf8_lossy(&restored.stdout), String::from_utf8_lossy(&restored.stderr));
        assert!(restored.status.success() && out.contains("the way back"), "{out}{error}");
        let after = writer.acknowledged();
        writer.goes_on(50).await;
        sandbox
            .wait("the undone migration waits for a person", "shop", SOON, |shop| {
                ["MigrationsApplied", "Stalled"].iter().all(|kind| {
                    condition(shop, kind)
                        .is_some_and(|it| it.reason == "RestoredBefore" && it.message.contains("version 1"))
                })
            })
            .await;
        whole(&sandbox).await;
        let acknowledged = writer.stop().await;
        let stored = ids(&sandbox).await;
        let missing: Vec<_> = acknowledged.iter().filter(|id| **id <= before && !stored.contains(*id)).collect();
        assert!(missing.is_empty(), "rows from before the moment: {missing:?}");
        let left: Vec<_> = acknowledged.iter().filter(|id| (most + 1..=known).contains(*id)).collect();
        assert!(!left.is_empty() && left.iter().all(|id| !stored.contains(*id)), "rows from after the moment");
        let lost: Vec<_> = acknowledged[after..].iter().filter(|id| !stored.contains(*id)).collect();
        assert!(lost.is_empty(), "rows from after the restore: {lost:?}");

        // What is archived since stands on no earlier backup.
        let status = sandbox.get("shop").await.status.expect("a status");
        let branches = status.backup.expect("backups").left_timelines;
        let left_at = branches.last().expect("the timeline that was left").left_at.0;
        until("a full backup follows", READY * 2, || async {
            let backup = sandbox.get("shop").await.status.and_then(|status| status.backup);
            match backup.and_then(|backup| backup.newest_full) {
                Some(full) if full.started_at.0 >= left_at => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;

        // The way back.
        let back = plugin(&sandbox, &["restore", "shop", "--to", &left_at.to_string(), "--yes"]).await;
        assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
        whole(&sandbox).await;
        let stored = ids(&sandbox).await;
        let missing: Vec<_> = acknowledged.iter().filter(|id| **id <= known && !stored.contains(*id)).collect();
        assert!(missing.is_empty(), "rows of the state that was left first: {missing:?}");
        sandbox.condition("shop", "MigrationsApplied", "True", "Applied", SOON).await;

        // And once more to the moment, with the primary's pod killed while it restores.
        let asked =
            plugin(&sandbox, &["restore", "shop", "--to", &moment.to_string(), "--yes", "--timeout", "0"]).await;
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        restore_is(&sandbox, RequestState::Running).await;
        let pods: Api<Pod> = sandbox.api();
        let primary = sandbox.primary("shop").await;
        pods.delete(&primary, &DeleteParams::default().grace_period(0)).await.expect("a deletion");
        restore_is(&sandbox, RequestState::Done).await;
        whole(&sandbox).await;
        let again = ids(&sandbox).await;
        assert!(again.iter().all(|id| *id <= most) && acknowledged.iter().all(|id| *id > before || again.contains(id)));

        // Without the request, migrations go on.
        sandbox
            .patch::<ServiceDatabase>("shop", &json!({"metadata": {"annotations": {ANNOTATION_RESTORE: null}}}))
            .await;
        sandbox.ready("shop", READY).await;
    });
}
