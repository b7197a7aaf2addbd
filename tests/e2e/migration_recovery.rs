//! A migration that is interrupted by failures of pods: the ledger is exact, and the retry is
//! correct.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use servicedb::api::{MigrationState, ServiceDatabase};

use crate::harness::{READY, Sandbox, column, config_map, database, shared};

/// The second takes long enough to be met in its middle, also by an operator that was away for half a minute.
const FILES: [(&str, &str); 3] = [
    ("1_a.up.sql", "CREATE TABLE a (id bigint);"),
    ("2_slow.up.sql", "INSERT INTO a VALUES (2); SELECT pg_sleep(45);"),
    ("3_b.up.sql", "INSERT INTO a VALUES (3);"),
];

async fn begun(sandbox: &Sandbox, instances: i32) {
    sandbox.create(config_map("files", &FILES)).await;
    let more = json!({"instances": instances, "migrations": {"source": {"configMap": {"name": "files"}}}});
    sandbox.create(database("shop", more)).await;
    let executing = |found: &ServiceDatabase| {
        let migrations = found.status.as_ref().and_then(|status| status.migrations.as_ref());
        migrations.is_some_and(|migrations| {
            migrations
                .recent
                .iter()
                .any(|record| record.version == 2.into() && record.state == MigrationState::Executing)
        })
    };
    sandbox.wait("the second migration runs", "shop", READY, executing).await;
}

/// Each ran to its end once, and nothing is there twice.
async fn ends_once(sandbox: &Sandbox) {
    // The lock of a lost Job, and the second migration again.
    let ready = sandbox.ready("shop", 2 * READY).await;
    let status = ready.status.expect("a status");
    assert_eq!(status.schema_version.as_deref(), Some("3"));
    let migrations = status.migrations.expect("migrations");
    assert_eq!((migrations.applied, migrations.pending, migrations.failed), (3, 0, 0));
    let connection = sandbox.connect("shop").await;
    let rows = column(&connection, "SELECT id FROM a ORDER BY id").await.expect("a query");
    assert_eq!(rows, ["2", "3"], "a migration is there twice, or in part");
}

#[test]
fn a_failover_in_its_middle() {
    shared("failover", async |sandbox| {
        begun(&sandbox, 2).await;
        let primary = sandbox.get("shop").await.status.and_then(|status| status.primary).expect("a primary");
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        sandbox.api::<Pod>().delete(&primary, &now).await.expect("the primary's pod is killed");
        ends_once(&sandbox).await;
    });
}

#[test]
fn the_jobs_pod_is_killed_in_its_middle() {
    shared("killed", async |sandbox| {
        begun(&sandbox, 1).await;
        let pod = job_pod(&sandbox).await;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        sandbox.api::<Pod>().delete(&pod.name_any(), &now).await.expect("it is killed");
        ends_once(&sandbox).await;
    });
}

/// The server hears nothing of the Job any more, neither data nor a farewell, as of a node that
/// has lost its power; the pod is removed as Kubernetes does it then.
#[test]
fn the_jobs_node_is_gone_in_its_middle() {
    if std::env::var("CONTEXT").is_ok_and(|context| !context.is_empty()) {
        // The network of another cluster's pods is not ours to cut.
        return;
    }
    shared("node", async |sandbox| {
        begun(&sandbox, 1).await;
        let pod = job_pod(&sandbox).await;
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
        cut_off(&address);
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        sandbox.api::<Pod>().delete(&pod.name_any(), &now).await.expect("it is removed");
        ends_once(&sandbox).await;
    });
}

async fn job_pod(sandbox: &Sandbox) -> Pod {
    let of_jobs = ListParams::default().labels("batch.kubernetes.io/job-name");
    let mut pods = sandbox.api::<Pod>().list(&of_jobs).await.expect("the Job's pod").items;
    pods.retain(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
    assert_eq!(pods.len(), 1, "the Job's pods");
    pods.remove(0)
}

/// Takes down the interface of the pod with this address, from its node.
fn cut_off(address: &str) {
    let ip = |arguments: &[&str]| {
        let output = std::process::Command::new("ip").args(arguments).output().expect("ip runs");
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for line in ip(&["netns", "list"]).lines() {
        let Some(namespace) = line.split_whitespace().next() else { continue };
        if ip(&["-n", namespace, "-4", "-o", "address"]).contains(&format!(" {address}/")) {
            ip(&["-n", namespace, "link", "set", "eth0", "down"]);
            return;
        }
    }
    panic!("no network namespace has the address {address}");
}
