//! Changes of Vault itself: a missing mount, a certificate of another authority. Databases keep
//! serving, waiting ones report the cause, and all recover automatically.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    OPERATOR_NAMESPACE, Operator, READY, SOON, Sandbox, Signed, Vault, alone, condition, database, signed,
    then_restore, until, vault_authority,
};
use crate::rotation::{answered, ask};

/// The mount of KV v2, and where it is moved to.
const KV: &str = "secret";
const ELSEWHERE: &str = "secret-elsewhere";
/// Vault's own namespace, pod and certificate, as `make cluster` makes them.
const VAULT_NAMESPACE: &str = "vault";
const VAULT_POD: &str = "vault-0";
const VAULT_TLS: &str = "vault-tls";
/// The authority that the operator was installed with.
const AUTHORITY: &str = "servicedb-vault-ca";

/// How long Vault may be changed: less than a test may take.
const LONGEST: Duration = Duration::from_secs(500);

#[test]
fn a_mount_that_is_gone_is_named_and_nothing_is_taken_for_lost() {
    alone("mount", async |sandbox| {
        sandbox.create(database("old", json!({}))).await;
        sandbox.ready("old", READY).await;
        let crashes = Operator::of(sandbox.cluster).crashes().await;
        let work = in_time(async {
            sandbox.vault().move_mount(KV, ELSEWHERE).await;
            sandbox.create(database("new", json!({}))).await;
            // An agent that starts looks at its record, and must not take it for deleted.
            sandbox.delete::<Pod>("old-db-0").await;
            for name in ["new", "old"] {
                let told = sandbox.condition(name, "VaultReachable", "False", "VaultMountMissing", READY).await;
                assert!(told.message.contains(KV) && told.message.contains("enable it"), "{}", told.message);
            }
            sandbox.condition("old", "DatabaseAvailable", "True", "Available", READY).await;
            for name in ["new", "old"] {
                let database = sandbox.get(name).await;
                let stalled = condition(&database, "Stalled").expect("Stalled");
                assert_eq!(stalled.status, "False", "{name} heals by itself: {}", stalled.message);
            }
        });
        then_restore(work, sandbox.vault().move_mount(ELSEWHERE, KV)).await;
        for name in ["new", "old"] {
            let healed = sandbox.ready(name, READY).await;
            let credentials = healed.status.and_then(|status| status.credentials).expect("credentials");
            assert_eq!(credentials.generation, 1, "the credentials of {name} were replaced");
            sandbox.connect(name).await;
        }
        assert!(Operator::of(sandbox.cluster).crashes().await <= crashes, "the operator was restarted");
    });
}

#[test]
fn another_authority_of_vault_is_told_and_taken_up() {
    alone("authority", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        let ready = sandbox.ready("shop", READY).await;
        let operator = Operator::of(sandbox.cluster);
        let crashes = operator.crashes().await;
        let before = tls(&sandbox).await;
        let (authority, new) = signed_by_another(&sandbox.vault().address);
        let work = in_time(async {
            serve(&sandbox, &authority, &new).await;
            // While Vault's pod is recreated Vault does not answer.
            sandbox
                .wait("the certificate is refused, and the message has the remedy", "shop", READY, |database| {
                    condition(database, "VaultReachable").is_some_and(|told| {
                        told.status == "False"
                            && ["certificate", "vault.ca"].iter().all(|word| told.message.contains(word))
                    })
                })
                .await;
            let serves = sandbox.ready("shop", SOON).await;
            let since = |database: &ServiceDatabase| {
                condition(database, "Ready").map(|ready| ready.last_transition_time.clone())
            };
            assert_eq!(since(&serves), since(&ready), "a database that serves was not Ready meanwhile");
            trust(&sandbox, &authority).await;
            sandbox.condition("shop", "VaultReachable", "True", "Available", READY).await;
            // The agent, too: it reads and writes records.
            rotated(&sandbox, 2).await;
        });
        let restored = async {
            trust(&sandbox, &vault_authority()).await;
            serve(&sandbox, &vault_authority(), &before).await;
        };
        then_restore(work, restored).await;
        rotated(&sandbox, 3).await;
        sandbox.connect("shop").await;
        assert!(operator.crashes().await <= crashes, "the operator was restarted");
        for pod in sandbox.api::<Pod>().list(&ListParams::default()).await.expect("pods").items {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            assert_eq!(statuses.map(|status| status.restart_count).sum::<i32>(), 0, "{} was restarted", pod.name_any());
        }
    });
}

/// Work after which Vault must be put right: it ends while there is time for that.
async fn in_time(work: impl Future<Output = ()>) {
    tokio::time::timeout(LONGEST, work).await.expect("it ends in time");
}

async fn rotated(sandbox: &Sandbox, generation: i64) {
    let token = format!("authority-{generation}");
    ask(sandbox, &token).await;
    assert_eq!(answered(sandbox, &token, READY).await, Some(generation));
}

/// Another authority, and a certificate and key by it, for the addresses that Vault has.
fn signed_by_another(address: &str) -> (String, BTreeMap<String, ByteString>) {
    let host = address.trim_start_matches("https://").split(':').next().unwrap_or_default();
    let names = ["vault.vault.svc", "localhost", host].map(str::to_owned);
    let Signed { authority, certificate, key } = signed(names.into());
    let data = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())];
    (authority, data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).into())
}

async fn tls(sandbox: &Sandbox) -> BTreeMap<String, ByteString> {
    let secrets: Api<Secret> = Api::namespaced(sandbox.cluster.client.clone(), VAULT_NAMESPACE);
    secrets.get(VAULT_TLS).await.expect("Vault's certificate").data.expect("data")
}

/// Configures Vault with a certificate: it is restarted, and unsealed.
async fn serve(sandbox: &Sandbox, authority: &str, certificate: &BTreeMap<String, ByteString>) {
    let (client, key) = (&sandbox.cluster.client, Vault::unseal_key());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), VAULT_NAMESPACE);
    let patch = Patch::Merge(json!({"data": certificate}));
    secrets.patch(VAULT_TLS, &PatchParams::default(), &patch).await.expect("another certificate");
    let pods: Api<Pod> = Api::namespaced(client.clone(), VAULT_NAMESPACE);
    // It may be on its way already.
    let _ = pods.delete(VAULT_POD, &DeleteParams::default()).await;
    let vault = sandbox.vault().trusting(authority);
    until("Vault serves with the certificate, and is unsealed", READY, || vault.try_unseal(&key)).await;
}

/// Gives the operator an authority, as Helm would.
async fn trust(sandbox: &Sandbox, authority: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(sandbox.cluster.client.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Merge(json!({"data": {"ca.crt": authority}}));
    maps.patch(AUTHORITY, &PatchParams::default(), &patch).await.expect("another authority");
    // The kubelet brings it within a minute or two, and at once when the pod changes.
    touch(&Api::namespaced(sandbox.cluster.client.clone(), OPERATOR_NAMESPACE)).await;
}

/// Changes the pods a little: then the kubelet looks at their volumes.
async fn touch(pods: &Api<Pod>) {
    let patch =
        Patch::Merge(json!({"metadata": {"annotations": {"servicedb.dev/e2e-touched": jiff::Timestamp::now()}}}));
    for pod in pods.list(&ListParams::default()).await.expect("pods").items {
        let _ = pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await;
    }
}
