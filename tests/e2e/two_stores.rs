//! A database with two stores: each has WAL and backups of its own, and neither needs the other.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use servicedb::api::{BackupStatus, ServiceDatabase};

use crate::archive::archive_a_segment;
use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, column, condition, database, describe, plugin, shared, store, until,
    with_notes,
};

async fn backup(sandbox: &Sandbox) -> BackupStatus {
    sandbox.get("shop").await.status.and_then(|status| status.backup).expect("a database with a store")
}

/// Waits until the second store has a segment of this name, or a later one.
async fn reaches_the_second(sandbox: &Sandbox, pod: &str, segment: &str) {
    let info = "pgbackrest --config=/run/servicedb/archive-second/pgbackrest.conf --stanza=db info --output=json";
    until("the segment is in the second store", SOON, || async {
        let output = sandbox.exec(pod, info).await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let newest = found[0]["archive"].as_array().into_iter().flatten().filter_map(|archive| archive["max"].as_str());
        match newest.max() {
            Some(newest) if newest >= segment => Ok(()),
            newest => Err(format!("{segment}: {newest:?}")),
        }
    })
    .await;
}

/// The rows of a database.
async fn ids(sandbox: &Sandbox, name: &str) -> BTreeSet<u64> {
    let connection = sandbox.connect(name).await;
    let ids = column(&connection, "SELECT id FROM notes").await.expect("the rows");
    ids.iter().map(|id| id.parse().expect("a number")).collect()
}

/// Declares a restore of the database from one of its stores.
async fn restore(sandbox: &Sandbox, name: &str, source: Value) {
    let spec = json!({
        "storage": {"size": "1Gi"},
        "backup": {"enabled": false},
        "bootstrap": {"restore": {"source": source}},
    });
    sandbox.create(database(name, spec)).await;
}

/// While one store is away, the other one gets each segment and a backup, and the condition names the first. A second
/// store that answers gets everything, too: a new database is restored from it, and both are emptied with the resource.
#[test]
fn each_of_two_stores_has_everything_and_waits_for_no_other() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("two-stores", async |sandbox| {
        let declared = json!({"store": "main", "secondStore": "away", "schedule": {"verification": ""}});
        with_notes(&sandbox, json!({"backup": declared})).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(20).await;
        let pod = sandbox.primary("shop").await;
        // PostgreSQL asks for the first of them alone, since the store that is away lacks it.
        for _ in 0..3 {
            archive_a_segment(&sandbox, &pod).await;
            writer.goes_on(20).await;
        }
        let told = sandbox.condition("shop", "ContinuousArchiving", "False", "ArchivingFailed", READY * 2).await;
        assert!(told.message.contains("the store away: "), "{}", told.message);
        assert!(told.message.contains("archived to the store main"), "{}", told.message);
        until("the store that answers has a backup", READY * 2, || async {
            let found = backup(&sandbox).await;
            if found.newest.is_some() { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        let found = sandbox.get("shop").await;
        assert_eq!(condition(&found, "Ready").expect("a condition").status, "True", "{}", describe(&found));
        let backed_up = condition(&found, "BackedUp").expect("a condition");
        assert_eq!(backed_up.status, "False", "the other one has none: {}", backed_up.message);

        let other = json!({"spec": {"backup": {"secondStore": "second"}}});
        sandbox.patch::<ServiceDatabase>("shop", &other).await;
        sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", READY * 2).await;
        let told = sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        assert!(told.message.contains("store main: ") && told.message.contains("store second: "), "{}", told.message);
        let status = backup(&sandbox).await;
        let second = status.second.expect("a second store");
        assert!(second.path.starts_with("/second/") && !status.path.starts_with("/second/"), "{}", second.path);
        assert!(second.newest_full.is_some() && second.recoverable_from.is_some() && second.count == Some(1));
        let listed = plugin(&sandbox, &["backups", "shop"]).await;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for label in
            [&status.newest_full, &second.newest_full].map(|full| full.as_ref().expect("a full one").label.clone())
        {
            assert!(listed.contains(&label), "{label}: {listed}");
        }

        writer.goes_on(20).await;
        let rows = writer.stop().await;
        let segment = archive_a_segment(&sandbox, &pod).await;
        reaches_the_second(&sandbox, &pod, &segment).await;
        restore(&sandbox, "copy", json!({"name": "shop", "store": "second"})).await;
        restore(&sandbox, "nowhere", json!({"name": "shop", "store": "away"})).await;
        let told = sandbox.condition("nowhere", "Stalled", "True", "RestoreRefused", SOON).await;
        assert!(told.message.contains("main and second"), "{}", told.message);
        sandbox.ready("copy", READY).await;
        let ids = ids(&sandbox, "copy").await;
        let lost: Vec<_> = rows.iter().filter(|id| !ids.contains(id)).collect();
        assert!(lost.is_empty(), "the copy lacks {lost:?}");

        let policies = json!({"deletionPolicy": "Delete", "backup": {"deletionPolicy": "Delete"}});
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": policies})).await;
        sandbox.ready("shop", READY).await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", READY).await;
        restore(&sandbox, "late", json!({"path": second.path, "store": "second"})).await;
        let told = sandbox.condition("late", "Ready", "False", "RestoreFailed", READY).await;
        assert!(told.message.contains("no backup"), "{}", told.message);
    });
}

/// While the first store is away, a restore in place from the second one is refused without its name, and with it gives
/// the state; the way back from there has every row, although PostgreSQL was shut down while WAL waited for the first one.
/// A requested backup tells of each store.
#[test]
fn a_database_is_put_back_from_the_second_store_while_the_first_is_away() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("second-store-alone", async |sandbox| {
        let declared = json!({"store": "away", "secondStore": "main", "schedule": {"verification": ""}});
        with_notes(&sandbox, json!({"backup": declared})).await;
        until("the second store has a backup", READY * 2, || async {
            match backup(&sandbox).await.second {
                Some(second) if second.recoverable_from.is_some() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let writer = Writer::start(sandbox.clone(), "shop");
        writer.goes_on(30).await;
        let before = writer.newest();
        let moment = Timestamp::now();
        // Those that were sent right after it may be in it.
        let most = writer.sent();
        tokio::time::sleep(Duration::from_millis(50)).await;
        writer.goes_on(100).await;
        let known = writer.newest();

        let to = moment.to_string();
        let refused = plugin(&sandbox, &["restore", "shop", "--to", &to, "--yes"]).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("--store main"), "{said}");
        let restored = plugin(&sandbox, &["restore", "shop", "--to", &to, "--store", "main", "--yes"]).await;
        let (out, error) = (String::from_utf8_lossy(&restored.stdout), String::from_utf8_lossy(&restored.stderr));
        assert!(restored.status.success() && out.contains("--store main restores"), "{out}{error}");
        let acknowledged = writer.stop().await;
        let stored = ids(&sandbox, "shop").await;
        let missing: Vec<_> = acknowledged.iter().filter(|id| **id <= before && !stored.contains(*id)).collect();
        assert!(missing.is_empty(), "rows from before the moment: {missing:?}");
        let left: Vec<_> = acknowledged.iter().filter(|id| (most + 1..=known).contains(*id)).collect();
        assert!(!left.is_empty() && left.iter().all(|id| !stored.contains(*id)), "rows from after the moment");
        let branches = backup(&sandbox).await.left_timelines;
        let branch = branches.last().expect("the timeline that was left");
        assert_eq!(branch.store.as_deref(), Some("main"), "the first one lacks its end");

        let to = branch.left_at.0.to_string();
        let back = plugin(&sandbox, &["restore", "shop", "--to", &to, "--store", "main", "--yes"]).await;
        assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
        // Up to the last one before the shutdown.
        let (put_back, stored) = (stored, ids(&sandbox, "shop").await);
        let was_left = |id: &u64| *id <= before || !put_back.contains(id);
        let missing: Vec<_> = acknowledged.iter().filter(|id| was_left(id) && !stored.contains(*id)).collect();
        assert!(missing.is_empty(), "rows of the state that was left: {missing:?}");

        sandbox.ready("shop", READY).await;
        let told = plugin(&sandbox, &["backup", "shop", "--store", "main"]).await;
        let (out, error) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(told.status.success() && out.contains("is in the store main"), "{out}{error}");
        let told = plugin(&sandbox, &["backup", "shop", "--timeout", "120"]).await;
        let (out, error) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(!told.status.success() && out.contains("is in the store main"), "{out}{error}");
        assert!(error.contains("store away: no result within 120 s"), "{out}{error}");
    });
}
