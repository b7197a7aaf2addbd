//! Replicas: one that is too far behind is left out of their Service until it has caught up, one
//! with damaged files is cloned again; and the failover that they are for stays on.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

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

        tokio::join!(a_configuration_by_hand_is_put_back(&sandbox), a_damaged_replica_is_cloned(&sandbox, &replica));
        wait_for(&sandbox, 2).await;
        sandbox.ready("shop", SOON).await;
    });
}

/// Patroni's dynamic configuration, as its record has it.
async fn configuration(sandbox: &Sandbox) -> Result<Value, String> {
    let record = sandbox.api::<ConfigMap>().get("shop-db-config").await.map_err(|error| error.to_string())?;
    let text = record.metadata.annotations.unwrap_or_default().remove("config").ok_or("no configuration")?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

async fn a_configuration_by_hand_is_put_back(sandbox: &Sandbox) {
    let before = configuration(sandbox).await.expect("the configuration");
    let mut by_hand = before.clone();
    by_hand["pause"] = json!(true);
    by_hand["synchronous_node_count"] = json!(2);
    let patch = json!({"metadata": {"annotations": {"config": by_hand.to_string()}}});
    let config_maps = sandbox.api::<ConfigMap>();
    config_maps.patch("shop-db-config", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    until("the configuration is put back", SOON, || async {
        let now = configuration(sandbox).await?;
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    until("an event names the keys", SOON, || async {
        let events = sandbox.api::<Event>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let mut notes =
            events.items.into_iter().filter(|event| event.reason.as_deref() == Some("ConfigurationReverted"));
        let named = |event: Event| event.message.is_some_and(|note| note.contains("pause, synchronous_node_count"));
        if notes.any(named) { Ok(()) } else { Err("no such event".to_owned()) }
    })
    .await;
}

async fn a_damaged_replica_is_cloned(sandbox: &Sandbox, replica: &str) {
    let volume = "/var/lib/postgresql/data";
    let removed = sandbox.exec(replica, &format!("rm {volume}/pgdata/global/pg_filenode.map && echo done")).await;
    assert_eq!(String::from_utf8_lossy(&removed.stdout).trim(), "done");
    sandbox.delete::<Pod>(replica).await;
    let told = sandbox.condition("shop", "Ready", "False", "CrashLoop", SOON).await;
    assert!(told.message.contains(replica) && told.message.contains("pg_filenode.map"), "{}", told.message);
    sandbox.ready("shop", SOON).await;
    until("the directory that was kept is removed", SOON, || async {
        let found = sandbox.exec(replica, &format!("ls {volume}")).await;
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        if found.contains("pgdata") && !found.contains("pgdata.kept") { Ok(()) } else { Err(found) }
    })
    .await;
}
