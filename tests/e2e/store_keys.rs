//! Keys of the store that are rotated while a database writes: those in Vault are refused for a while, then the new ones
//! are used, without a restart and without a lost segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::archive::{archive_a_segment, none_is_missing};
use crate::harness::{
    Cluster, READY, SOON, Sandbox, Writer, condition, describe, plugin, shared, store, then_restore, until, with_notes,
};

/// Where the keys lie in Vault (dev/values.yaml).
const RECORD: &str = "backups/main";
/// The namespace of the store (dev/store.yaml).
const NAMESPACE: &str = "store";

/// An access key and its secret.
struct Keys {
    id: String,
    secret: String,
}

impl Keys {
    /// Those that the store has.
    async fn of_store(sandbox: &Sandbox) -> Self {
        let secrets: Api<Secret> = Api::namespaced(sandbox.cluster.client.clone(), NAMESPACE);
        let data: BTreeMap<String, ByteString> =
            secrets.get("store-keys").await.expect("the keys").data.unwrap_or_default();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).expect("text");
        Self { id: text("ROOT_ACCESS_KEY"), secret: text("ROOT_SECRET_KEY") }
    }

    fn random() -> Self {
        let random = || format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        Self { id: format!("e2e-{}", &random()[..12]), secret: random() }
    }

    /// Makes them those of the store, which restarts.
    async fn set_in_store(&self, sandbox: &Sandbox) {
        let client = &sandbox.cluster.client;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let patch = json!({"stringData": {"ROOT_ACCESS_KEY": self.id, "ROOT_SECRET_KEY": self.secret}});
        secrets.patch("store-keys", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the store's keys");
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let before = pods.get("store-0").await.expect("the store's pod").metadata.uid;
        pods.delete("store-0", &DeleteParams::default()).await.expect("the store's pod deleted");
        let sets: Api<StatefulSet> = Api::namespaced(client.clone(), NAMESPACE);
        until("the store is back", READY, || async {
            let now = pods.get_opt("store-0").await.map_err(|error| error.to_string())?;
            let is_new = now.is_some_and(|pod| pod.metadata.uid != before);
            let ready = sets.get("store").await.map_err(|error| error.to_string())?.status;
            let ready = ready.and_then(|status| status.ready_replicas).unwrap_or_default();
            if is_new && ready == 1 { Ok(()) } else { Err(format!("another pod: {is_new}, {ready} Ready")) }
        })
        .await;
    }

    /// Writes them into the record of the databases.
    async fn set_in_vault(&self, sandbox: &Sandbox, former: &Value) {
        let mut data = former.clone();
        data["access-key-id"] = json!(self.id);
        data["secret-access-key"] = json!(self.secret);
        sandbox.vault().write(&format!("secret/data/{RECORD}"), &json!({"data": data})).await;
    }
}

async fn exec(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.exec("shop-db-0", script).await;
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The server and the container: neither is started again by what follows.
async fn started(sandbox: &Sandbox) -> String {
    let pod = sandbox.api::<Pod>().get("shop-db-0").await.expect("the pod");
    let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let restarts: i32 = statuses.iter().map(|status| status.restart_count).sum();
    let server = exec(sandbox, "psql -XqAtc 'SELECT pg_postmaster_start_time()'").await;
    format!("{:?} {restarts} {server}", pod.metadata.uid)
}

async fn rotated(sandbox: &Arc<Sandbox>, former: &Value, new: &Keys) {
    let backup = json!({"store": "main", "schedule": {"verification": ""}});
    with_notes(sandbox, json!({"storage": {"size": "1Gi"}, "backup": backup})).await;
    sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
    let before = started(sandbox).await;
    let writer = Writer::start(sandbox.clone(), "shop");
    writer.goes_on(20).await;
    archive_a_segment(sandbox, "shop-db-0").await;

    new.set_in_store(sandbox).await;
    // Some segments, which wait.
    for _ in 0..6 {
        exec(sandbox, "psql -XqAtc \"SELECT pg_logical_emit_message(true, 'e2e', repeat('x', 8000000))\"").await;
    }
    let told = sandbox.condition("shop", "ContinuousArchiving", "False", "ArchivingFailed", READY).await;
    assert!(told.message.contains("store main"), "{}", told.message);
    let keys = [former["secret-access-key"].as_str().expect("a secret"), &new.secret];
    assert!(!keys.iter().any(|key| told.message.contains(key)), "a key is in the message");
    writer.goes_on(20).await;
    let found = sandbox.get("shop").await;
    assert_eq!(condition(&found, "Ready").expect("a condition").status, "True", "{}", describe(&found));

    new.set_in_vault(sandbox, former).await;
    sandbox.condition("shop", "ContinuousArchiving", "True", "Archiving", READY).await;
    writer.goes_on(20).await;
    archive_a_segment(sandbox, "shop-db-0").await;
    none_is_missing(sandbox, "shop-db-0").await;
    until("nothing waits", SOON, || async {
        let query = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        let waiting = exec(sandbox, &format!("psql -XqAtc \"{query}\"")).await;
        if waiting == "0" { Ok(()) } else { Err(waiting) }
    })
    .await;
    let status = sandbox.get("shop").await.status.and_then(|status| status.backup).expect("a place");
    assert!(status.given_up_at.is_none(), "WAL was given up: {status:?}");
    let asked = plugin(sandbox, &["backup", "shop"]).await;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(started(sandbox).await, before, "the new keys needed a restart");
    writer.all_are_there(sandbox, "shop").await;
}

#[test]
fn rotated_keys_of_the_store_are_taken_up_under_load() {
    if !Cluster::is_local() {
        // It restarts the store.
        return;
    }
    let _store = store::alone();
    shared("store-keys", async |sandbox: Arc<Sandbox>| {
        let former = sandbox.vault().record(RECORD).await.expect("the keys in Vault");
        let of_store = Keys::of_store(&sandbox).await;
        let new = Keys::random();
        let restored = async {
            of_store.set_in_store(&sandbox).await;
            sandbox.vault().write(&format!("secret/data/{RECORD}"), &json!({"data": former})).await;
        };
        then_restore(rotated(&sandbox, &former, &new), restored).await;
    });
}
