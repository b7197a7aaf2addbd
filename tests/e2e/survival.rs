//! Data and provisioning when pods are killed.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::harness::{
    NOTES, Operator, READY, SOON, Sandbox, Writer, config_map, database, plugin, restarts, run, service_account,
    shared, until,
};

#[test]
fn acknowledged_rows_survive_the_deletion_of_the_pod() {
    shared("rows", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        nothing_was_told_of_a_normal_start(&sandbox).await;
        let claims = volume_claims(&sandbox).await;
        assert_eq!(claims.len(), 1, "{claims:?}");

        primary_pod_is_deleted(&sandbox, "shop", "shop-db-0").await;
        assert_eq!(volume_claims(&sandbox).await, claims, "the pod came back on another volume");
    });
}

/// Warnings that nobody needs to see hide those that somebody must.
async fn nothing_was_told_of_a_normal_start(sandbox: &Sandbox) {
    let events = sandbox.api::<Event>().list(&ListParams::default()).await.expect("events").items;
    // A provisioner that is at work, and nodes that are, is the cluster's matter, also where the operator tells of it; so is
    // the disk that the volumes of its default class share.
    let of_cluster =
        ["FailedScheduling", "ProvisioningFailed", "FailedMount", "VolumeFilling", "VolumePending", "Unschedulable"];
    // A probe that gets no answer in time is a busy machine's; one that gets a bad answer is the agent's.
    let is_unanswered = |event: &&Event| {
        let message = event.message.as_deref().unwrap_or_default();
        let is_late =
            ["connection refused", "Timeout exceeded", "deadline exceeded"].iter().any(|it| message.contains(it));
        event.reason.as_deref() == Some("Unhealthy") && is_late
    };
    let warnings: Vec<_> = events
        .iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"))
        .filter(|event| !of_cluster.contains(&event.reason.as_deref().unwrap_or_default()) && !is_unanswered(event))
        .map(|event| format!("{:?}: {:?}", event.reason, event.message))
        .collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    let status = plugin(sandbox, &["status", "shop"]).await;
    let text = String::from_utf8_lossy(&status.stdout);
    let abnormal = text.contains("Abnormal conditions") && !text.contains("VolumeNearlyFull");
    assert!(status.status.success() && !abnormal, "{text}");
}

/// The claims and their volumes.
async fn volume_claims(sandbox: &Sandbox) -> BTreeSet<(String, Option<String>, Option<String>)> {
    let claims =
        sandbox.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.expect("volume claims").items;
    claims
        .into_iter()
        .map(|claim| (claim.name_any(), claim.uid(), claim.spec.and_then(|spec| spec.volume_name)))
        .collect()
}

/// Deletes the primary's pod while a client writes into `notes`: all acknowledged rows exist
/// afterwards.
pub async fn primary_pod_is_deleted(sandbox: &Arc<Sandbox>, name: &str, primary: &str) {
    let writer = Writer::start(sandbox.clone(), name);
    until("the client writes", SOON, || async {
        let count = writer.acknowledged();
        if count >= 20 { Ok(()) } else { Err(format!("{count} rows")) }
    })
    .await;
    let before = sandbox.api::<Pod>().get(primary).await.expect("the primary's pod");
    let (deleted_at, rows) = (Instant::now(), writer.acknowledged());
    sandbox.delete::<Pod>(primary).await;
    until("another pod of the same name is Ready", READY, || async {
        let pod =
            sandbox.api::<Pod>().get_opt(primary).await.map_err(|error| error.to_string())?.ok_or("it is gone")?;
        let conditions = pod.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if pod.uid() != before.uid() && ready {
            Ok(())
        } else {
            Err(format!("Ready: {ready}, same pod: {}", pod.uid() == before.uid()))
        }
    })
    .await;
    until("the client writes again", READY, || async {
        let count = writer.acknowledged();
        if count >= rows + 20 && writer.broke() {
            Ok(())
        } else {
            Err(format!("{count} rows, {rows} before; broke: {}", writer.broke()))
        }
    })
    .await;
    println!("{name}: {} rows were acknowledged in {:?} around it", writer.acknowledged(), deleted_at.elapsed());
    let ready = sandbox.ready(name, READY).await;
    writer.all_are_there(sandbox, name).await;
    assert!(ready.status.and_then(|status| status.primary).is_some(), "no primary in status");
}

#[test]
fn an_operator_that_dies_while_provisioning_leaves_one_correct_result() {
    let _restarts = restarts::allowed();
    shared("killed", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        let services = ["red", "green", "blue"];
        sandbox.create(config_map("migrations", &[NOTES])).await;
        for name in services {
            sandbox.create(service_account(name)).await;
            let spec = json!({
                "clients": [{"serviceAccountName": name}],
                "migrations": {"source": {"configMap": {"name": "migrations"}}},
            });
            sandbox.create(database(name, spec)).await;
        }
        // Once while Vault's objects are being made, once while the workloads are.
        until("something was made in Vault", SOON, || async {
            let made = vault_roles(&sandbox, "auth/approle/role").await;
            if made.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
        })
        .await;
        operator.delete_pods(true).await;
        until("a workload was made", READY, || async {
            let made =
                sandbox.api::<StatefulSet>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            if made.items.is_empty() { Err("no StatefulSet".to_owned()) } else { Ok(()) }
        })
        .await;
        operator.delete_pods(true).await;

        for name in services {
            sandbox.ready(name, READY).await;
        }
        one_of_each(&sandbox, &services).await;
    });
}

/// The names of this namespace's roles under a path of Vault.
async fn vault_roles(sandbox: &Sandbox, path: &str) -> BTreeSet<String> {
    let prefix = format!("servicedb.{}.{}.", sandbox.cluster.id, sandbox.namespace);
    sandbox.vault().list(path).await.into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

async fn one_of_each(sandbox: &Sandbox, services: &[&str]) {
    let sets = sandbox.api::<StatefulSet>().list(&ListParams::default()).await.expect("StatefulSets").items;
    assert_eq!(sets.len(), services.len(), "StatefulSets");
    let purposes = |wanted: &[&str]| -> BTreeSet<String> {
        let prefix = format!("servicedb.{}.{}", sandbox.cluster.id, sandbox.namespace);
        services
            .iter()
            .flat_map(|name| wanted.iter().map(|purpose| format!("{prefix}.{name}.{purpose}")).collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(vault_roles(sandbox, "auth/approle/role").await, purposes(&["instance", "migrator"]));
    assert_eq!(vault_roles(sandbox, "auth/kubernetes/role").await, purposes(&["client"]));
    assert_eq!(vault_roles(sandbox, "sys/policies/acl").await, purposes(&["client", "instance", "migrator"]));
    for name in services {
        let (names, vault) = (sandbox.names(name), sandbox.vault_names(name));
        for (secret, role) in [(names.instance_approle(), vault.instance()), (names.migrator(), vault.migrator())] {
            let secret = sandbox.api::<Secret>().get(&secret).await.expect("the Secret with the secret_id");
            let used = secret.annotations().get("servicedb.dev/secret-id-accessor").cloned().expect("an accessor");
            let alive = sandbox.vault().list(&format!("auth/approle/role/{role}/secret-id")).await;
            assert_eq!(alive, [used], "secret_ids of {role} that live; one is used");
        }
        let metadata = sandbox.vault().metadata(&vault.runtime()).await.expect("the runtime record");
        assert_eq!(metadata["current_version"], json!(1), "the credentials of {name} were promoted more than once");
        assert!(sandbox.vault().record(&vault.pending()).await.is_none(), "{name} has a pending record left");
        let connection = sandbox.connect(name).await;
        assert_eq!(run(&connection, "INSERT INTO notes VALUES (1, 'x')").await.expect("a write"), 1);
    }
}
