//! Vault sealed: databases keep serving, waiting work continues automatically, and a deletion ends in time.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;
use tokio::time::Instant;

use crate::harness::{
    NOTES, OPERATOR_NAMESPACE, Operator, READY, SOON, Sandbox, Vault, Writer, alone, column, condition, config_map,
    database, describe, then_restore, until,
};

/// How long Vault is sealed, in all and at least.
const SEALED: Duration = Duration::from_secs(120);
/// The operator's setting of how long a deletion waits for Vault.
const DEADLINE: &str = "SERVICEDB_DELETION_DEADLINE_SECONDS";

/// Vault sealed while a database is made, and while others serve: nothing restarts, nothing
/// stops serving, and all work continues automatically once Vault is back.
#[test]
fn a_sealed_vault_stops_nobody_who_serves() {
    alone("sealed", async |sandbox| {
        let operator = Operator::of(sandbox.cluster);
        operator.set(DEADLINE, "60").await;
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}});
        for (name, spec) in [("old", json!({})), ("busy", spec), ("gone", json!({"deletionPolicy": "Delete"}))] {
            sandbox.create(database(name, spec)).await;
        }
        let old = sandbox.ready("old", READY).await;
        for name in ["busy", "gone"] {
            sandbox.ready(name, READY).await;
        }
        let connection = sandbox.connect("old").await;
        let writer = Writer::start(sandbox.clone(), "busy");
        let crashes = operator.crashes().await;
        // Without the key Vault must not be sealed.
        let key = Vault::unseal_key();

        let since = Instant::now();
        sandbox.vault().seal().await;
        let sealed = async {
            while_sealed(&sandbox, &old, &connection).await;
            deleted_without_vault(&sandbox).await;
            // Two minutes in all at least, which is longer than an agent's token is used and a probe fails.
            tokio::time::sleep(SEALED.saturating_sub(since.elapsed())).await;
        };
        let restored = async {
            until("Vault is unsealed", SOON, || async {
                sandbox.vault().unseal(&key).await;
                Ok(())
            })
            .await;
            let crashed = operator.crashes().await - crashes;
            operator.set(DEADLINE, "300").await;
            crashed
        };
        let crashed = then_restore(sealed, restored).await;

        assert!(crashed <= 0, "the operator was restarted");
        let broke = writer.broke();
        let written = writer.stop().await;
        println!("{} rows were written, 5 ms apart, with Vault sealed for {SEALED:?} at least", written.len());
        assert!(!broke, "a write failed while Vault was sealed");
        assert!(written.len() > 200, "only {} rows were written", written.len());
        let new = sandbox.ready("new", READY).await;
        sandbox.condition("old", "VaultReachable", "True", "Available", READY).await;
        assert_eq!(condition(&new, "VaultReachable").map(|condition| condition.status.as_str()), Some("True"));
        sandbox.connect("new").await;
        nothing_restarted(&sandbox).await;
        swept(&sandbox).await;
    });
}

/// A deletion waits for Vault, says so, and ends at its deadline; what is left is written down.
async fn deleted_without_vault(sandbox: &Sandbox) {
    sandbox.delete::<ServiceDatabase>("gone").await;
    let waits = sandbox
        .wait("the deletion says that it waits for Vault", "gone", READY, |database| {
            let waits = database.status.as_ref().and_then(|status| status.deletion_waits_for.as_ref());
            waits.is_some_and(|waits| waits.contains("sealed"))
        })
        .await;
    assert!(condition(&waits, "Ready").is_some_and(|ready| ready.reason == "Deleting"));
    sandbox.gone("gone", READY).await;
    let entries = orphans(sandbox).await;
    assert!(entries.len() == 1 && entries.values().all(|entry| entry.contains("Delete")), "{entries:?}");
}

/// Once Vault is back nothing of the deleted database is in it, and nothing is written down.
async fn swept(sandbox: &Sandbox) {
    until("what was left in Vault is removed", READY, || async {
        let entries = orphans(sandbox).await;
        if entries.is_empty() { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await;
    crate::deletion::no_access(sandbox, "gone").await;
    let names = sandbox.vault_names("gone");
    for record in [names.runtime(), names.pending(), names.migrator_record()] {
        assert!(sandbox.vault().metadata(&record).await.is_none(), "Vault still has {record}");
    }
}

/// What is written down of this test's resources.
async fn orphans(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let api: Api<ConfigMap> = Api::namespaced(sandbox.cluster.client.clone(), OPERATOR_NAMESPACE);
    let map = api.get_opt("servicedb-orphans").await.expect("a look");
    let entries = map.and_then(|map| map.data).unwrap_or_default().into_iter();
    entries.filter(|(key, _)| key.starts_with(&format!("{}.", sandbox.namespace))).collect()
}

async fn while_sealed(sandbox: &Sandbox, old: &ServiceDatabase, connection: &servicedb::postgres::Connection) {
    sandbox.create(database("new", json!({}))).await;
    let told = sandbox.condition("new", "VaultReachable", "False", "VaultUnreachable", SOON).await;
    assert!(told.message.contains("sealed"), "the message does not say that Vault is sealed: {}", told.message);
    let new = sandbox.get("new").await;
    let ready = condition(&new, "Ready").expect("Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "VaultUnreachable"), "{}", ready.message);
    assert_eq!(
        condition(&new, "Stalled").map(|condition| condition.status.as_str()),
        Some("False"),
        "it recovers automatically"
    );

    // The serving database reports Vault, and is Ready as before.
    let lag = json!({"spec": {"replication": {"maximumLagBytes": 33_554_432}}});
    sandbox.patch::<ServiceDatabase>("old", &lag).await;
    sandbox.condition("old", "VaultReachable", "False", "VaultUnreachable", SOON).await;
    let now = sandbox.ready("old", SOON).await;
    let since =
        |database: &ServiceDatabase| condition(database, "Ready").map(|ready| ready.last_transition_time.clone());
    assert_eq!(since(&now), since(old), "a database that serves was not Ready meanwhile: {}", describe(&now));
    column(connection, "SELECT 1").await.expect("a query on a connection from before");

    // An initialised database starts without Vault.
    sandbox.delete::<Pod>("old-db-0").await;
    until("the pod is back without Vault", READY, || async {
        let pod =
            sandbox.api::<Pod>().get_opt("old-db-0").await.map_err(|error| error.to_string())?.ok_or("it is gone")?;
        if is_ready(&pod) && pod.metadata.deletion_timestamp.is_none() {
            Ok(())
        } else {
            Err(format!("{:?}", pod.status.and_then(|status| status.conditions)))
        }
    })
    .await;
    nothing_restarted(sandbox).await;
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn nothing_restarted(sandbox: &Sandbox) {
    for pod in sandbox.api::<Pod>().list(&ListParams::default()).await.expect("pods").items {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
        for status in statuses {
            assert_eq!(status.restart_count, 0, "{} was restarted: {:?}", pod.name_any(), status.last_state);
        }
    }
}
