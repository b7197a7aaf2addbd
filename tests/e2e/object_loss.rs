//! Deleted or damaged objects, under a service that writes: each is restored, PostgreSQL is not
//! restarted for it, and each instance can lead afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::objects::{ADDRESS, OF_SHOP, objects};
use crate::harness::{NOTES, READY, SOON, Sandbox, Writer, column, config_map, database, plugin, shared};

/// The interval between two reads of an object that is to be restored.
const LOOK: Duration = Duration::from_millis(50);

/// Deleted a second time: what the first deletion made is deleted.
const AGAIN: [(&str, &str); 3] = [("ConfigMap", "shop-db-leader"), ("ConfigMap", "shop-db-sync"), ("Role", "shop-db")];

const PATRONIS: [&str; 4] = ["shop-db-config", "shop-db-leader", "shop-db-failover", "shop-db-sync"];

/// Annotations that Patroni changes in every loop, or with a lease that is taken again.
const CHANGING: [&str; 7] = ["renewTime", "acquireTime", "transitions", "optime", "slots", "retain_slots", "history"];

/// The parts of an object that are the same once it is restored: neither those that the API server gives it,
/// nor those that Patroni changes. Which standby commits wait for may change too, but there is one.
fn lasting(object: &DynamicObject) -> Value {
    let mut lasting = json!({
        "labels": object.metadata.labels,
        "owners": object.metadata.owner_references,
        "annotations": object.metadata.annotations,
        "data": object.data,
    });
    if let Some(annotations) = lasting["annotations"].as_object_mut() {
        annotations.retain(|key, _| !CHANGING.contains(&key.as_str()));
        if let Some(standby) = annotations.get_mut("sync_standby") {
            *standby = json!(standby.as_str().is_some_and(|standby| !standby.is_empty()));
        }
    }
    for given in ["/data/spec/clusterIP", "/data/spec/clusterIPs", "/data/status"] {
        if let Some(given) = lasting.pointer_mut(given) {
            *given = Value::Null;
        }
    }
    lasting
}

/// Waits until an object is what it was; `another` if it is to be one with another uid.
async fn is_back(sandbox: &Sandbox, kind: &str, before: &DynamicObject, another: bool) {
    let (api, name, started) = (objects(sandbox, kind), before.name_any(), Instant::now());
    let mut last = Value::Null;
    while started.elapsed() < SOON {
        if let Ok(Some(now)) = api.get_opt(&name).await {
            last = lasting(&now);
            if (now.uid() != before.uid()) == another && last == lasting(before) {
                println!("{kind} {name}: back after {:?}", started.elapsed());
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{kind} {name} is not back within {SOON:?}: {last:#}, and was {:#}", lasting(before));
}

async fn delete(sandbox: &Sandbox, kind: &str, names: &[&str]) {
    let api = objects(sandbox, kind);
    let mut before = Vec::new();
    for name in names {
        before.push(api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")));
    }
    for name in names {
        api.delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }
    for object in &before {
        is_back(sandbox, kind, object, true).await;
    }
}

async fn damage(sandbox: &Sandbox, kind: &str, name: &str, patch: Value) {
    let api = objects(sandbox, kind);
    let before = api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    let damaged = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    let damaged = damaged.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    assert_ne!(lasting(&damaged), lasting(&before), "{kind} {name} was not damaged by {patch}");
    is_back(sandbox, kind, &before, false).await;
}

/// Changes the StatefulSet as `kubectl patch` does, and waits until it is as it was.
async fn change_set(sandbox: &Sandbox, patch: Value) {
    let api = objects(sandbox, "StatefulSet");
    let before = api.get("shop-db").await.expect("the StatefulSet");
    let changed = api.patch("shop-db", &PatchParams::default(), &Patch::Strategic(&patch)).await;
    let changed = changed.unwrap_or_else(|error| panic!("{patch}: {error}"));
    assert_ne!(lasting(&changed), lasting(&before), "the StatefulSet was not changed by {patch}");
    is_back(sandbox, "StatefulSet", &before, false).await;
}

async fn uids(sandbox: &Sandbox) -> Vec<Option<String>> {
    let mut uids = Vec::new();
    for ordinal in 0..3 {
        let pod = sandbox.api::<Pod>().get(&format!("shop-db-{ordinal}")).await;
        uids.push(pod.expect("a database pod").uid());
    }
    uids
}

/// The times at which PostgreSQL was started, of the three instances.
async fn starts(sandbox: &Sandbox) -> Vec<String> {
    let mut starts = Vec::new();
    for ordinal in 0..3 {
        let pod = format!("shop-db-{ordinal}");
        let output = sandbox.exec(&pod, "psql -XAtc 'SELECT pg_postmaster_start_time()'").await;
        assert!(output.status.success(), "{pod}: {}", String::from_utf8_lossy(&output.stderr));
        starts.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    starts
}

/// The longest time in which no write was acknowledged, from now until it is asked.
fn longest_gap(writer: Arc<Writer>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Duration>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let (mut longest, mut rows, mut since) = (Duration::ZERO, 0, Instant::now());
        while !stopped.load(Ordering::Relaxed) {
            let now = writer.acknowledged();
            if now != rows {
                (rows, since) = (now, Instant::now());
            }
            longest = longest.max(since.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    });
    (stop, task)
}

async fn synchronous_standby(sandbox: &Sandbox) -> String {
    let told = sandbox.condition("shop", "SynchronousReplication", "True", "Streaming", SOON).await.message;
    told.rsplit(' ').next().expect("its name").to_owned()
}

/// Lets an instance lead; one that is not the synchronous standby becomes it once that is away.
async fn let_lead(sandbox: &Sandbox, wanted: &str) {
    sandbox.ready("shop", READY).await;
    if sandbox.primary("shop").await == wanted {
        return;
    }
    for _ in 0..3 {
        let standby = synchronous_standby(sandbox).await;
        if standby == wanted {
            break;
        }
        sandbox.delete::<Pod>(&standby).await;
        sandbox
            .wait(&format!("{wanted} is the synchronous standby"), "shop", READY, |database| {
                crate::harness::condition(database, "SynchronousReplication")
                    .is_some_and(|told| told.status == "True" && told.message.ends_with(wanted))
            })
            .await;
        sandbox.ready("shop", READY).await;
    }
    let output = plugin(sandbox, &["switchover", "shop", "--to", wanted]).await;
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{wanted} cannot lead: {}", String::from_utf8_lossy(&said));
    sandbox.ready("shop", READY).await;
    assert_eq!(sandbox.primary("shop").await, wanted);
}

#[test]
fn whatever_is_deleted_or_damaged_is_back_and_no_write_is_lost() {
    shared("objects", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 3, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        sandbox.ready("shop", READY).await;
        synchronous_standby(&sandbox).await;
        let connection = sandbox.connect("shop").await;
        let system = "SELECT system_identifier FROM pg_control_system()";
        let identity = column(&connection, system).await.expect("the system identifier");
        let before = starts(&sandbox).await;
        let writer = Arc::new(Writer::start(sandbox.clone(), "shop"));
        writer.goes_on(10).await;
        let (stop, gap) = longest_gap(writer.clone());

        for (kind, name) in OF_SHOP.into_iter().filter(|object| *object != ADDRESS).chain(AGAIN) {
            delete(&sandbox, kind, &[name]).await;
            writer.goes_on(20).await;
        }
        delete(&sandbox, "ConfigMap", &PATRONIS).await;
        writer.goes_on(20).await;
        for (kind, name, patch) in [
            ("ConfigMap", "shop-db-leader", json!({"metadata": {"labels": {"servicedb.dev/scope": null}}})),
            ("ConfigMap", "shop-db-sync", json!({"metadata": {"labels": {"servicedb.dev/scope": "else"}}})),
            ("ConfigMap", "shop-db-config", json!({"metadata": {"annotations": {"initialize": null}}})),
            ("ConfigMap", "shop-db-config", json!({"metadata": {"annotations": {"servicedb.dev/uid": "else"}}})),
            ("ConfigMap", "shop-db-desired", json!({"data": {"desired.json": null}})),
            ("Role", "shop-db", json!({"rules": []})),
            ("RoleBinding", "shop-db", json!({"subjects": []})),
            ("Service", "shop-db", json!({"metadata": {"ownerReferences": []}})),
            ("Service", "shop-db-replicas", json!({"spec": {"selector": {"servicedb.dev/role": "primary"}}})),
            ("NetworkPolicy", "shop-db", json!({"spec": {"ingress": [{}]}})),
            ("NetworkPolicy", "shop-db", json!({"metadata": {"labels": {"servicedb.dev/name": "else"}}})),
            ("PodDisruptionBudget", "shop-db-primary", json!({"spec": {"minAvailable": 0}})),
            ("PodDisruptionBudget", "shop-db-primary", json!({"spec": {"minAvailable": null, "maxUnavailable": 1}})),
            ("Role", "shop-db", json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})),
            ("RoleBinding", "shop-db", json!({"subjects": [{"kind": "User", "name": "eve"}]})),
            ("ConfigMap", "shop-db-approle", json!({"data": {"another": "file"}})),
            // Server-side apply alone restores none of these.
            ("Service", "shop-db", json!({"spec": {"ports": [{"name": "postgres", "port": 5433}]}})),
            ("Service", "shop-db", json!({"spec": {"selector": {"app": "none"}}})),
            ("Service", "shop-db", json!({"spec": {"type": "NodePort"}})),
            ("Service", "shop-db", json!({"spec": {"externalIPs": ["192.0.2.1"]}})),
        ] {
            damage(&sandbox, kind, name, patch).await;
            writer.goes_on(20).await;
        }
        let pods = uids(&sandbox).await;
        let container = |change: Value| {
            let mut container = json!({"name": "database"});
            container.as_object_mut().expect("an object").extend(change.as_object().cloned().unwrap_or_default());
            json!({"spec": {"template": {"spec": {"containers": [container]}}}})
        };
        for patch in [
            container(json!({"image": "localhost/none:1"})),
            container(json!({"env": [{"name": "PGTZ", "value": "UTC"}]})),
            container(json!({"resources": {"limits": {"cpu": "900m"}}})),
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}),
        ] {
            change_set(&sandbox, patch).await;
            writer.goes_on(20).await;
        }
        sandbox.ready("shop", READY).await;
        assert_eq!(uids(&sandbox).await, pods, "a pod was replaced for a template that somebody changed");
        assert_eq!(starts(&sandbox).await, before, "PostgreSQL was restarted for it");
        stop.store(true, Ordering::Relaxed);
        println!("the longest time without a write: {:?}", gap.await.expect("the watching task"));

        delete(&sandbox, ADDRESS.0, &[ADDRESS.1]).await;
        writer.goes_on(20).await;
        let leaders: BTreeSet<_> = (0..3).map(|ordinal| format!("shop-db-{ordinal}")).collect();
        let first = sandbox.primary("shop").await;
        for wanted in leaders.iter().filter(|pod| **pod != first).chain([&first]) {
            let_lead(&sandbox, wanted).await;
        }
        writer.goes_on(20).await;

        // The pods' tokens end with the ServiceAccount: without new ones nobody could lead anew.
        let pods = uids(&sandbox).await;
        let (stop, gap) = longest_gap(writer.clone());
        delete(&sandbox, "ServiceAccount", &["shop-db"]).await;
        let started = Instant::now();
        let members = ListParams::default().labels("servicedb.dev/scope=shop-db");
        loop {
            let now = sandbox.api::<Pod>().list(&members).await.expect("the pods").items;
            if now.len() == 3 && now.iter().all(|pod| !pods.contains(&pod.uid())) {
                break;
            }
            assert!(started.elapsed() < READY, "a pod was not replaced for its void token");
            tokio::time::sleep(LOOK).await;
        }
        sandbox.ready("shop", READY).await;
        println!("the ServiceAccount: Ready with other pods after {:?}", started.elapsed());
        writer.goes_on(20).await;
        stop.store(true, Ordering::Relaxed);
        println!("the longest time without a write: {:?}", gap.await.expect("the watching task"));
        let first = sandbox.primary("shop").await;
        let other = leaders.iter().find(|pod| **pod != first).expect("another instance");
        let_lead(&sandbox, other).await;
        writer.goes_on(20).await;
        let connection = sandbox.connect("shop").await;
        assert_eq!(column(&connection, system).await.expect("the system identifier"), identity);
        let writer = Arc::into_inner(writer).expect("nobody else looks at the writer");
        writer.all_are_there(&sandbox, "shop").await;
    });
}
