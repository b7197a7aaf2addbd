//! The Service of the replicas: one that is too far behind is left out until it has caught up.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use serde_json::json;

use crate::harness::{NOTES, READY, SOON, Sandbox, config_map, database, run, shared, until};

/// The addresses that the Service sends to.
async fn serving(sandbox: &Sandbox) -> BTreeSet<String> {
    let of_service = ListParams::default().labels("kubernetes.io/service-name=shop-db-replicas");
    let slices = sandbox.api::<EndpointSlice>().list(&of_service).await.expect("EndpointSlices").items;
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
    let ready =
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|found| found.ready == Some(true)));
    ready.flat_map(|endpoint| endpoint.addresses).collect()
}

async fn wait_for(sandbox: &Sandbox, count: usize) {
    until(&format!("the Service has {count} replicas"), SOON, || async {
        let found = serving(sandbox).await;
        if found.len() == count { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[test]
fn a_replica_that_is_too_far_behind_serves_no_reads() {
    shared("lag", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({
            "instances": 3,
            "storage": {"size": "1Gi"},
            "replication": {"maximumLagBytes": 4 << 20},
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        sandbox.create(database("shop", spec)).await;
        let ready = sandbox.ready("shop", READY).await;
        wait_for(&sandbox, 2).await;
        let primary = ready.status.and_then(|status| status.primary).expect("a primary");
        let replica =
            (0..3).map(|ordinal| format!("shop-db-{ordinal}")).find(|pod| *pod != primary).expect("a replica");
        // Patroni would resume a replay that was paused.
        let replay = async |signal: &str| {
            let script = format!(
                "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in 'postgres: shop-db: startup'*) kill -{signal} ${{p#/proc/}} && echo done;; esac; done"
            );
            let output = sandbox.exec(&replica, &script).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "done");
        };
        replay("STOP").await;
        let connection = sandbox.connect("shop").await;
        let rows = "INSERT INTO notes SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 20000) AS i";
        run(&connection, rows).await.expect("some 20 MiB of WAL");
        wait_for(&sandbox, 1).await;
        sandbox.condition("shop", "Ready", "False", "InstancesNotReady", SOON).await;
        replay("CONT").await;
        wait_for(&sandbox, 2).await;
        sandbox.ready("shop", SOON).await;
    });
}
