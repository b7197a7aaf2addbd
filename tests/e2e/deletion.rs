//! Deletion: kept and removed objects.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use servicedb::api::ServiceDatabase;

use crate::harness::{
    READY, SOON, Sandbox, condition, config_map, database, run, service_account, shared, sqlstate, until,
};

/// Pods stop within their grace period, then Vault and the API server are cleaned up.
const DELETED: Duration = Duration::from_secs(180);
const TABLE: (&str, &str) = ("1_notes.up.sql", "CREATE TABLE notes (id bigint PRIMARY KEY);");

async fn provision(sandbox: &Sandbox, policy: &str) {
    sandbox.create(service_account("shop")).await;
    sandbox.create(config_map("migrations", &[TABLE])).await;
    sandbox.create(resource(policy)).await;
    sandbox.ready("shop", READY).await;
    let connection = sandbox.connect("shop").await;
    run(&connection, "INSERT INTO notes VALUES (1)").await.expect("a write");
}

fn resource(policy: &str) -> serde_json::Value {
    database(
        "shop",
        json!({
            "clients": [{"serviceAccountName": "shop"}],
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
            "deletionPolicy": policy,
        }),
    )
}

/// `Retain`: data and related objects are kept, access is removed; and a new resource of the same
/// name does not get the data.
#[test]
fn retain_keeps_the_data_and_nothing_else() {
    shared("retain", async |sandbox| {
        provision(&sandbox, "Retain").await;
        let claim = sandbox.api::<PersistentVolumeClaim>().get("data-shop-db-0").await.expect("the volume claim");
        let first = sandbox.credentials("shop").await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", DELETED).await;

        let kept =
            ["shop-db-ca", "shop-db-config", "shop-db-failover", "shop-db-leader", "shop-db-sync", "data-shop-db-0"];
        only(&sandbox, &kept).await;
        assert!(
            sandbox.vault().record(&sandbox.vault_names("shop").runtime()).await.is_some(),
            "the credentials were deleted"
        );
        no_access(&sandbox, "shop").await;

        sandbox.create(resource("Retain")).await;
        let stalled = sandbox.condition("shop", "Stalled", "True", "RetainedDataFound", SOON).await;
        assert!(stalled.message.contains("data-shop-db-0"), "the message names no volume claim: {}", stalled.message);
        let again = sandbox.api::<PersistentVolumeClaim>().get("data-shop-db-0").await.expect("the volume claim");
        assert_eq!(again.uid(), claim.uid(), "the retained data was replaced");
        assert!(
            sandbox.api::<StatefulSet>().get_opt("shop-db").await.expect("a look").is_none(),
            "retained data was started"
        );

        // The remedy in the message: without the old volumes it starts empty, and the old
        // tenant's credentials are invalid.
        sandbox.delete::<PersistentVolumeClaim>("data-shop-db-0").await;
        sandbox.ready("shop", READY).await;
        let second = sandbox.credentials("shop").await;
        assert_ne!(second.password, first.password, "the old tenant's password was kept");
        let connection = sandbox.connect("shop").await;
        assert_eq!(run(&connection, "SELECT id FROM notes").await.expect("a query"), 0, "rows of the old tenant");
        let mut old = first.clone();
        old.ca = second.ca;
        let refused = sandbox.login("shop", &old).await.err().expect("the old tenant's credentials log in");
        // The old login is not a role of the new database: no line of pg_hba.conf matches it.
        assert_eq!(sqlstate(&refused).as_deref(), Some("28000"), "{refused}");
    });
}

/// Adopted data serves again, with the password that its clients know.
#[test]
fn retained_data_is_adopted_when_asked_for() {
    shared("adopt", async |sandbox| {
        provision(&sandbox, "Retain").await;
        let first = sandbox.credentials("shop").await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", DELETED).await;
        // The labels do not decide: a StatefulSet mounts a claim by its name.
        let labels = json!({"servicedb.dev/name": null, "servicedb.dev/scope": null});
        sandbox.patch::<PersistentVolumeClaim>("data-shop-db-0", &json!({"metadata": {"labels": labels}})).await;
        adopt(&sandbox, "spec.bootstrap.adopt").await;
        let connection = sandbox.login("shop", &first).await.expect("the kept password, and the kept authority");
        assert_eq!(run(&connection, "SELECT id FROM notes").await.expect("a query"), 1, "the rows");
        assert_eq!(sandbox.credentials("shop").await.password, first.password);
        orphans_are_adopted(&sandbox).await;
        let connection = sandbox.login("shop", &first).await.expect("the same password, and the same authority");
        assert_eq!(run(&connection, "SELECT id FROM notes").await.expect("a query"), 1, "the rows");
        // It is this resource's now, and goes with it.
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"deletionPolicy": "Delete"}})).await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", DELETED).await;
        only(&sandbox, &[]).await;
    });
}

/// Creates the resource again, and adopts what an earlier one left.
async fn adopt(sandbox: &Sandbox, expected: &str) {
    sandbox.create(resource("Retain")).await;
    // The first message may be of a moment before the StatefulSet was seen without its owner.
    until("what was kept is reported", SOON, || async {
        let found = sandbox.get("shop").await;
        let stalled = condition(&found, "Stalled").ok_or_else(|| "no condition".to_owned())?;
        let told = stalled.reason == "RetainedDataFound" && stalled.message.contains(expected);
        if told { Ok(()) } else { Err(stalled.message.clone()) }
    })
    .await;
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"bootstrap": {"adopt": true}}})).await;
    sandbox.ready("shop", READY).await;
}

/// `kubectl delete --cascade=orphan`: the pod runs on, and a new resource adopts it with every
/// object that stayed.
async fn orphans_are_adopted(sandbox: &Sandbox) {
    let pods = sandbox.api::<Pod>();
    let before = pods.get("shop-db-0").await.expect("the pod");
    sandbox.api::<ServiceDatabase>().delete("shop", &DeleteParams::orphan()).await.expect("a deletion");
    sandbox.gone("shop", DELETED).await;
    adopt(sandbox, "whose pods are running").await;
    let after = pods.get("shop-db-0").await.expect("the pod");
    assert_eq!(after.uid(), before.uid(), "the pod was replaced");
    let uid = sandbox.get("shop").await.uid();
    owned_by::<StatefulSet>(sandbox, uid.as_deref()).await;
    owned_by::<Service>(sandbox, uid.as_deref()).await;
    owned_by::<ServiceAccount>(sandbox, uid.as_deref()).await;
    owned_by::<Role>(sandbox, uid.as_deref()).await;
    owned_by::<RoleBinding>(sandbox, uid.as_deref()).await;
    owned_by::<NetworkPolicy>(sandbox, uid.as_deref()).await;
    owned_by::<PodDisruptionBudget>(sandbox, uid.as_deref()).await;
    owned_by::<ConfigMap>(sandbox, uid.as_deref()).await;
    owned_by::<Secret>(sandbox, uid.as_deref()).await;
    owned_by::<PersistentVolumeClaim>(sandbox, uid.as_deref()).await;
}

/// Expects every object of the database to have this owner, or to carry its uid.
async fn owned_by<K>(sandbox: &Sandbox, uid: Option<&str>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let parameters = ListParams::default().labels("servicedb.dev/name=shop");
    for object in sandbox.api::<K>().list(&parameters).await.expect("a list").items {
        let stamp = object.annotations().get("servicedb.dev/uid").map(String::as_str);
        let owner = object.owner_references().first().map(|owner| owner.uid.as_str());
        assert_eq!(stamp.or(owner), uid, "{} {}", K::kind(&()), object.name_any());
    }
}

/// `Delete`: nothing is left, in Kubernetes or in Vault.
#[test]
fn delete_leaves_nothing() {
    shared("delete", async |sandbox| {
        provision(&sandbox, "Delete").await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", DELETED).await;
        only(&sandbox, &[]).await;
        no_access(&sandbox, "shop").await;
        let names = sandbox.vault_names("shop");
        for record in [names.runtime(), names.pending(), names.migrator_record()] {
            assert!(sandbox.vault().metadata(&record).await.is_none(), "Vault still has {record}");
        }
        // The name can be used again.
        sandbox.create(resource("Delete")).await;
        sandbox.ready("shop", READY).await;
    });
}

/// A resource that never worked does not block its own deletion.
#[test]
fn what_never_worked_can_be_deleted() {
    shared("broken", async |sandbox| {
        sandbox.create(database("shop", json!({"postgres": {"version": "99"}}))).await;
        sandbox.condition("shop", "Stalled", "True", "UnsupportedVersion", SOON).await;
        sandbox.create(database("early", json!({}))).await;
        // Deleted in the middle of provisioning.
        until("early has a finalizer", SOON, || async {
            if sandbox.get("early").await.finalizers().is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
        for name in ["shop", "early"] {
            sandbox.delete::<ServiceDatabase>(name).await;
        }
        for name in ["shop", "early"] {
            sandbox.gone(name, DELETED).await;
            no_access(&sandbox, name).await;
        }
        no_records(&sandbox, "early").await;
    });
}

async fn no_records(sandbox: &Sandbox, name: &str) {
    let pending = sandbox.vault_names(name).pending();
    assert!(sandbox.vault().record(&pending).await.is_none(), "Vault still has {pending}, which nobody will prove");
}

#[test]
fn a_namespace_with_databases_can_be_deleted() {
    shared("namespace", async |sandbox| {
        for (name, policy) in [("kept", "Retain"), ("dropped", "Delete")] {
            sandbox.create(database(name, json!({"deletionPolicy": policy}))).await;
        }
        for name in ["kept", "dropped"] {
            sandbox.ready(name, READY).await;
        }
        let namespaces: Api<Namespace> = Api::all(sandbox.cluster.client.clone());
        namespaces.delete(&sandbox.namespace, &DeleteParams::default()).await.expect("the namespace deleted");
        until("the namespace is gone", Duration::from_secs(300), || async {
            match namespaces.get_opt(&sandbox.namespace).await {
                Ok(None) => Ok(()),
                Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        for name in ["kept", "dropped"] {
            no_access(&sandbox, name).await;
        }
    });
}

/// Waits until the garbage collector is done, and expects exactly these objects of the database.
async fn only(sandbox: &Sandbox, kept: &[&str]) {
    let kept: BTreeSet<_> = kept.iter().map(|name| (*name).to_owned()).collect();
    until("what the policy keeps is all that is left", SOON, || async {
        let mut left = BTreeSet::new();
        left.extend(labelled::<StatefulSet>(sandbox).await);
        left.extend(labelled::<Pod>(sandbox).await);
        left.extend(labelled::<Service>(sandbox).await);
        left.extend(labelled::<ConfigMap>(sandbox).await);
        left.extend(labelled::<Secret>(sandbox).await);
        left.extend(labelled::<ServiceAccount>(sandbox).await);
        left.extend(labelled::<Role>(sandbox).await);
        left.extend(labelled::<RoleBinding>(sandbox).await);
        left.extend(labelled::<NetworkPolicy>(sandbox).await);
        left.extend(labelled::<PodDisruptionBudget>(sandbox).await);
        left.extend(labelled::<Job>(sandbox).await);
        left.extend(labelled::<PersistentVolumeClaim>(sandbox).await);
        if left == kept { Ok(()) } else { Err(format!("there is {left:?}, not {kept:?}")) }
    })
    .await;
}

async fn labelled<K>(sandbox: &Sandbox) -> Vec<String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let parameters = ListParams::default().labels("servicedb.dev/name=shop");
    let list =
        sandbox.api::<K>().list(&parameters).await.unwrap_or_else(|error| panic!("listing {}: {error}", K::kind(&())));
    list.items.iter().map(ResourceExt::name_any).collect()
}

/// Asserts that no login of this database works in Vault any more.
pub async fn no_access(sandbox: &Sandbox, name: &str) {
    let names = sandbox.vault_names(name);
    for path in [
        format!("auth/approle/role/{}", names.instance()),
        format!("auth/approle/role/{}", names.migrator()),
        format!("auth/kubernetes/role/{}", names.client()),
        format!("sys/policies/acl/{}", names.instance()),
        format!("sys/policies/acl/{}", names.migrator()),
        format!("sys/policies/acl/{}", names.client()),
    ] {
        assert!(sandbox.vault().read(&path).await.is_none(), "Vault still has {path}");
    }
}
