//! From a new resource to a database at rest, and the repair of changes.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::status_findings;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::FINALIZER;

fn posted(journal: &[String]) -> Vec<&str> {
    let posts = journal.iter().filter_map(|call| call.strip_prefix("POST "));
    posts.filter(|call| !call.starts_with("events ")).collect()
}

async fn at_rest() -> World {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

#[tokio::test]
async fn the_finalizer_comes_before_everything_else() {
    let world = World::new();
    world.create(MINIMAL);
    world.reconcile().await.expect("a finalizer");
    assert_eq!(world.faults.take_journal(), ["MERGE servicedatabases chat"]);
    assert_eq!(world.vault.take_calls(), Vec::<String>::new());
    assert_eq!(world.resource().metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
}

#[tokio::test]
async fn all_objects_are_created_and_the_workload_last() {
    let mut world = World::new();
    world.create(MINIMAL);
    let sent = world.settle().await;
    let mut made = posted(&sent);
    assert_eq!(made.pop(), Some("statefulsets chat-db"));
    made.sort_unstable();
    assert_eq!(
        made,
        [
            "configmaps chat-db-approle",
            "configmaps chat-db-config",
            "configmaps chat-db-desired",
            "configmaps chat-db-failover",
            "configmaps chat-db-leader",
            "configmaps chat-db-migrator",
            "configmaps chat-db-sync",
            "networkpolicies chat-db",
            "rolebindings chat-db",
            "roles chat-db",
            "secrets chat-db-approle",
            "secrets chat-db-ca",
            "secrets chat-db-migrator",
            "secrets chat-db-tls",
            "serviceaccounts chat-db",
            "serviceaccounts chat-db-migrator",
            "services chat-db",
            "services chat-db-peers",
            "services chat-db-replicas",
        ]
    );
    assert_eq!(world.condition(kind::READY), "False Initializing");
    let vault = world.vault.content();
    assert_eq!(vault.policies.len(), 3);
    assert_eq!(vault.approles.len(), 2);
    assert_eq!(vault.kubernetes_roles.len(), 0, "no clients are declared");
    let record = &vault.kv["dev/messaging/chat/pending"];
    assert!(record.data.as_ref().is_some_and(|data| data["APP_USER"] == "chat_a"));
    assert_eq!(vault.kv["dev/messaging/chat/runtime"].metadata["servicedb-uid"], "uid-of-chat");

    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    assert_eq!(world.condition(kind::RECONCILING), "False Idle");
    let status = world.resource().status.expect("a status");
    assert_eq!((status.primary.as_deref(), status.instances.as_deref()), (Some("chat-db-0"), Some("1/1")));
}

#[tokio::test]
async fn at_rest_nothing_is_sent() {
    let mut world = at_rest().await;
    world.vault.take_calls();
    world.reconcile().await.expect("a reconcile");
    assert_eq!(world.faults.take_journal(), Vec::<String>::new());
    let asked: Vec<_> = world.vault.take_calls().into_iter().filter(|call| call != "health").collect();
    assert_eq!(asked, Vec::<String>::new(), "observations are cached; only Vault's health may be queried");

    world.restart();
    world.reconcile().await.expect("a reconcile");
    assert_eq!(world.faults.take_journal(), Vec::<String>::new(), "after a restart of the operator");
}

#[tokio::test]
async fn objects_of_others_are_not_changed() {
    let somebody = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u", "controller": true}]);
    let children = [
        ("services", "v1", "Service", "chat-db"),
        ("configmaps", "v1", "ConfigMap", "chat-db-desired"),
        ("configmaps", "v1", "ConfigMap", "chat-db-approle"),
        ("secrets", "v1", "Secret", "chat-db-ca"),
        ("secrets", "v1", "Secret", "chat-db-tls"),
        ("secrets", "v1", "Secret", "chat-db-approle"),
        ("serviceaccounts", "v1", "ServiceAccount", "chat-db"),
        ("roles", "rbac.authorization.k8s.io/v1", "Role", "chat-db"),
        ("statefulsets", "apps/v1", "StatefulSet", "chat-db"),
    ];
    for (plural, version, kind, name) in children {
        for owners in [Value::Null, somebody.clone()] {
            let mut world = World::new();
            let foreign =
                json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "ownerReferences": owners}});
            let foreign = world.api.store().create(&object(plural, name), foreign, "kubectl").expect("an object");
            world.create(MINIMAL);
            let sent = world.settle().await;
            assert_eq!(world.condition(kind::STALLED), "True ObjectConflict", "{kind} {name}");
            assert_eq!(world.condition(kind::READY), "False ObjectConflict", "{kind} {name}");
            let message = world.message(kind::STALLED);
            assert!(message.contains(&format!("{kind} {name}")), "{message}");
            assert_eq!(world.get(plural, name), Some(foreign), "{kind} {name}");
            let end = format!(" {plural} {name}");
            let touched: Vec<_> =
                sent.iter().filter(|call| call.ends_with(&end) && !call.starts_with("POST")).collect();
            assert_eq!(touched, Vec::<&String>::new());

            world.api.store().delete(&object(plural, name), &Value::Null).expect("a deletion");
            world.settle_all().await;
            assert_eq!(world.condition(kind::READY), "True Ready", "once {kind} {name} is deleted");
        }
    }
}

#[tokio::test]
async fn data_of_an_earlier_resource_is_not_adopted() {
    let mut world = World::new();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {
        "name": "data-chat-db-0",
        "labels": {"servicedb.dev/name": "chat", "servicedb.dev/scope": "chat-db"},
        "annotations": {"servicedb.dev/uid": "uid-of-an-earlier-one"},
    }});
    let claim =
        world.api.store().create(&object("persistentvolumeclaims", "data-chat-db-0"), claim, "x").expect("a claim");
    world.create(MINIMAL);
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
    assert!(world.message(kind::STALLED).contains("data-chat-db-0"));
    assert_eq!(posted(&sent), Vec::<&str>::new());
    assert_eq!(world.get("persistentvolumeclaims", "data-chat-db-0"), Some(claim));
}

#[tokio::test]
async fn an_invalid_spec_creates_nothing_and_can_be_corrected() {
    let mut world = World::new();
    world.create(&MINIMAL.replace("spec:", "spec:\n  postgres: {version: \"99\"}"));
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True UnsupportedVersion");
    assert_eq!(posted(&sent), Vec::<&str>::new());
    assert_eq!(world.vault.take_calls(), Vec::<String>::new());
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["spec"]["postgres"]["version"] = "17".into();
    });
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn while_paused_nothing_is_repaired() {
    let mut world = at_rest().await;
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| resource["spec"]["paused"] = true.into());
    world.api.store().edit(&object("services", "chat-db"), |service| service["spec"]["selector"] = json!({"app": "x"}));
    world.restart();
    let sent = world.settle().await;
    assert!(sent.iter().all(|call| call.contains("/status") || call.contains(" events ")), "{sent:?}");
    assert_eq!(world.condition(kind::STALLED), "True Paused");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available", "it continues to serve, and is reported");
}

#[tokio::test]
async fn only_changed_objects_are_repaired() {
    type Edit = fn(&mut Value);
    let drifts: [(&str, &str, Edit); 5] = [
        ("services", "chat-db", |service| service["spec"]["selector"]["servicedb.dev/role"] = "replica".into()),
        ("configmaps", "chat-db-desired", |map| map["data"]["desired.json"] = "{}".into()),
        ("roles", "chat-db", |role| role["rules"][0]["verbs"] = json!(["*"])),
        ("networkpolicies", "chat-db", |policy| policy["spec"]["ingress"] = json!([{}])),
        ("statefulsets", "chat-db", |set| set["spec"]["replicas"] = 0.into()),
    ];
    for (plural, name, edit) in drifts {
        let mut world = at_rest().await;
        let before = world.snapshot();
        world.api.store().edit(&object(plural, name), edit);
        world.send_watch_events();
        let sent = world.settle().await;
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert!(sent[0].ends_with(&format!(" {plural} {name}")), "{sent:?}");
        assert_eq!(world.snapshot(), before, "{plural} {name}");
    }
}

#[tokio::test]
async fn a_deleted_object_is_recreated() {
    for (plural, name) in [("services", "chat-db-peers"), ("secrets", "chat-db-tls"), ("rolebindings", "chat-db")] {
        let mut world = at_rest().await;
        let before = world.snapshot();
        world.api.store().delete(&object(plural, name), &Value::Null).expect("a deletion");
        world.restart();
        assert_eq!(world.settle().await, [format!("POST {plural} {name}")]);
        assert_eq!(world.snapshot(), before);
    }
}

#[tokio::test]
async fn a_field_removed_from_the_plan_is_removed_and_fields_of_others_are_kept() {
    let mut world = World::new();
    world.create(&MINIMAL.replace("spec:", "spec:\n  scheduling: {priorityClassName: high}"));
    world.settle_all().await;
    let set = || object("statefulsets", "chat-db");
    world.api.store().edit(&set(), |set| set["metadata"]["annotations"]["example.com/note"] = "theirs".into());
    world.restart();
    assert_eq!(world.settle().await, Vec::<String>::new(), "additions of others are no drift");

    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["spec"].as_object_mut().expect("a spec").remove("scheduling");
    });
    world.settle().await;
    let set = world.get("statefulsets", "chat-db").expect("the StatefulSet");
    assert_eq!(set["spec"]["template"]["spec"].get("priorityClassName"), None);
    assert_eq!(set["metadata"]["annotations"]["example.com/note"], "theirs");
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn scaling_creates_and_removes_the_disruption_budget() {
    let mut world = at_rest().await;
    let scale = |world: &World, instances: i32| {
        world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
            resource["spec"]["instances"] = instances.into();
        });
    };
    scale(&world, 3);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False InstancesNotReady");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert!(world.get("poddisruptionbudgets", "chat-db").is_some());
    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    assert_eq!(world.resource().status.and_then(|status| status.instances).as_deref(), Some("3/3"));
    scale(&world, 1);
    world.settle().await;
    assert!(world.get("poddisruptionbudgets", "chat-db").is_none());
}

#[tokio::test]
async fn an_instance_that_a_policy_cuts_off_is_reported_with_the_policy() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle().await;
    // Its agent runs and cannot reach any peer, including the API server.
    let mut pod = status_findings::pod(0, false);
    pod.metadata.annotations = None;
    let status = pod.status.as_mut().expect("a status");
    status.conditions.as_mut().expect("conditions")[0].status = "False".to_owned();
    world.put_pod(pod);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False Initializing", "no policy blocks it");

    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": "messaging"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    world.api.store().create(&object("networkpolicies", "default-deny"), policy, "kubectl").expect("a policy");
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False EgressDenied");
    let message = world.message(kind::READY);
    for part in ["chat-db-0", "default-deny", "DNS (UDP 53)", "API server", "Vault"] {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
}
