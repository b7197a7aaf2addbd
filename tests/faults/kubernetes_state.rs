//! The objects of a database in Kubernetes, without values that are generated in each run.

use futures::future::try_join_all;
use serde_json::{Map, Value, json};

use super::scenario::TOUCHED;
use crate::harness::Sandbox;

/// The kinds, with the label that chooses the objects: of pods only the databases', since
/// those of Jobs have random names.
const KINDS: [(&str, &str, &str); 14] = [
    ("/api/v1", "configmaps", "servicedb.dev/name"),
    ("/api/v1", "secrets", "servicedb.dev/name"),
    ("/api/v1", "services", "servicedb.dev/name"),
    ("/api/v1", "serviceaccounts", "servicedb.dev/name"),
    ("/api/v1", "persistentvolumeclaims", "servicedb.dev/name"),
    ("/api/v1", "pods", "servicedb.dev/scope"),
    ("/apis/apps/v1", "statefulsets", "servicedb.dev/name"),
    ("/apis/apps/v1", "deployments", "servicedb.dev/name"),
    ("/apis/batch/v1", "jobs", "servicedb.dev/name"),
    ("/apis/networking.k8s.io/v1", "networkpolicies", "servicedb.dev/name"),
    ("/apis/policy/v1", "poddisruptionbudgets", "servicedb.dev/name"),
    ("/apis/rbac.authorization.k8s.io/v1", "roles", "servicedb.dev/name"),
    ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", "servicedb.dev/name"),
    ("/apis/servicedb.dev/v1alpha1", "servicedatabases", ""),
];

/// Annotations that are generated in each run; only their presence is compared.
const ANEW: [&str; 5] = [
    "servicedb.dev/secret-id-accessor",
    "servicedb.dev/secret-id-previous-accessor",
    "servicedb.dev/secret-id-made-at",
    "servicedb.dev/role-id",
    "servicedb.dev/not-after",
];
/// Annotations with hashes of compared values, or with transient state.
const LEFT_OUT: [&str; 4] =
    ["servicedb.dev/applied", "servicedb.dev/agent", "servicedb.dev/certificates-asked-at", TOUCHED];

/// What the names of backup Jobs have before the time of their creation.
const BACKUP_JOBS: &str = "-db-backup-";
/// The ConfigMap that pods of the pooler write, whose names are random.
const POOLER_REPORTS: &str = "-db-pooler-reports";

/// All objects, by kind and name.
pub async fn read(sandbox: &Sandbox) -> Result<Value, String> {
    let lists = try_join_all(KINDS.iter().map(|(group, kind, label)| async move {
        let path = format!("{group}/namespaces/{}/{kind}?labelSelector={label}", sandbox.namespace);
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let list: Value = sandbox.cluster.client.request(request).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((*kind, list))
    }))
    .await?;
    let mut all = Map::new();
    for (kind, list) in lists {
        for object in list["items"].as_array().into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            // Status has the result of the last one.
            if kind == "jobs" && name.contains(BACKUP_JOBS) {
                continue;
            }
            all.insert(format!("{kind} {name}"), tidy(kind, object));
        }
    }
    Ok(all.into())
}

fn tidy(kind: &str, object: &Value) -> Value {
    let mut tidied = json!({"metadata": metadata(&object["metadata"])});
    let mut spec = object["spec"].clone();
    match kind {
        // The StatefulSet has the pod's spec.
        "pods" => {
            tidied["ready"] = conditions(&object["status"], &["Ready"]);
            spec = Value::Null;
        }
        "secrets" => tidied["keys"] = keys(&object["data"]),
        "configmaps" => {
            let is_of_pods = object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(POOLER_REPORTS));
            tidied["data"] = if is_of_pods { Value::Null } else { config_data(&object["data"]) };
        }
        "services" => remove(&mut spec, &["clusterIP", "clusterIPs"]),
        "persistentvolumeclaims" => {
            remove(&mut spec, &["volumeName"]);
            tidied["phase"] = object["status"]["phase"].clone();
        }
        "jobs" => {
            remove(&mut spec, &["selector"]);
            spec["template"]["metadata"]["labels"] = labels(&spec["template"]["metadata"]["labels"]);
            tidied["ended"] = conditions(&object["status"], &["Complete", "Failed"]);
        }
        "statefulsets" | "deployments" => tidied["ready"] = object["status"]["readyReplicas"].clone(),
        "servicedatabases" => tidied["status"] = status(object),
        _ => {}
    }
    if !spec.is_null() {
        tidied["spec"] = spec;
    }
    for key in ["rules", "roleRef", "subjects"] {
        if !object[key].is_null() {
            tidied[key] = object[key].clone();
        }
    }
    tidied
}

fn metadata(metadata: &Value) -> Value {
    let mut annotations = Map::new();
    // Patroni keeps its state in annotations: only the existence of a database is permanent.
    let of_patroni = metadata["labels"]["servicedb.dev/scope"].is_string()
        && !metadata["annotations"]["servicedb.dev/uid"].is_null();
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if ANEW.contains(&key.as_str()) || (of_patroni && key == "initialize") {
            annotations.insert(key.clone(), if value.is_empty() { "none" } else { "some" }.into());
        } else if (of_patroni && key != "servicedb.dev/uid") || LEFT_OUT.contains(&key.as_str()) || key == "status" {
            continue;
        } else {
            annotations.insert(key.clone(), value.into());
        }
    }
    let owner = |owner: &Value| json!([owner["kind"], owner["name"], owner["controller"]]);
    json!({
        "labels": labels(&metadata["labels"]),
        "annotations": annotations,
        "owners": metadata["ownerReferences"].as_array().into_iter().flatten().map(owner).collect::<Value>(),
        "finalizers": metadata["finalizers"],
        "ending": metadata["deletionTimestamp"].is_string(),
    })
}

fn labels(labels: &Value) -> Value {
    let mut labels = labels.clone();
    // The Job controller's copies of the Job's uid; the API server's, of where a pod's node is.
    remove(&mut labels, &["controller-uid", "batch.kubernetes.io/controller-uid"]);
    remove(&mut labels, &["topology.kubernetes.io/region", "topology.kubernetes.io/zone"]);
    labels
}

/// Data, without values that are generated in each run: the role_id, the proxies' authority, the
/// database's own, the data directory's identifier, the marks of a restore or an upgrade.
fn config_data(data: &Value) -> Value {
    let mut data = data.clone();
    present(&mut data, &["role-id", "ca.crt"]);
    let desired = data["desired.json"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(mut desired) = desired {
        present(&mut desired, &["authorities", "systemIdentifier", "branch"]);
        present(&mut desired["lineage"], &["id", "at", "left", "current"]);
        remove(&mut desired["backup"], &["job"]);
        // An operator that restarts may read a record's new version before the agent reports it, and lets it be proved
        // again: that has no end until the next rotation, and changes nothing.
        remove(&mut desired, &["prove"]);
        for client in desired["clients"].as_array_mut().into_iter().flatten() {
            remove(client, &["prove"]);
        }
        data["desired.json"] = desired;
    }
    data
}

fn status(object: &Value) -> Value {
    let mut status = object["status"].clone();
    status["observed"] = (status["observedGeneration"] == object["metadata"]["generation"]).into();
    let told: Map<String, Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|told| (told["type"].as_str().unwrap_or_default().to_owned(), json!([told["status"], told["reason"]])))
        .collect();
    status["conditions"] = told.into();
    // What the leader's agent measures after a while is no end that a fault could change.
    remove(&mut status, &["observedGeneration", "capacity", "maintenance"]);
    remove(&mut status["credentials"], &["rotatedAt", "oldSessions", "sessions"]);
    remove(&mut status["certificates"], &["notAfter", "authorityNotAfter"]);
    for client in status["clients"].as_array_mut().into_iter().flatten() {
        remove(client, &["rotatedAt", "sessions"]);
    }
    remove(&mut status["restore"], &["startedAt", "message"]);
    present(
        &mut status["upgrade"],
        &[
            "rehearsalSeconds",
            "rehearsedBackup",
            "rehearsalJobSeconds",
            "switchedAt",
            "leftSystemIdentifier",
            "systemIdentifier",
        ],
    );
    remove(&mut status["upgrade"], &["message"]);
    remove(&mut status["upgrade"]["lastRequest"], &["startedAt", "message"]);
    if status["backup"].is_object() {
        status["backup"] = backup(&status["backup"]);
    }
    for record in status["migrations"]["recent"].as_array_mut().into_iter().flatten() {
        remove(record, &["startedAt", "durationMs"]);
    }
    status
}

/// The backups, without times, sizes, and what an attempt more may add: timelines, and a backup.
fn backup(backup: &Value) -> Value {
    let left = backup["leftTimelines"].as_array().map_or(0, Vec::len);
    json!({
        "store": backup["store"], "path": backup["path"], "givenUp": backup["givenUpAt"].is_string(),
        "recoverable": backup["recoverableFrom"].is_string(), "newestFull": backup["newestFull"]["type"],
        "lastRun": [backup["lastRun"]["type"], backup["lastRun"]["state"]], "leftTimelines": left,
    })
}

/// The status of some conditions that an object of Kubernetes' own has.
fn conditions(status: &Value, wanted: &[&str]) -> Value {
    let all = status["conditions"].as_array().into_iter().flatten();
    let told = all.filter(|told| wanted.iter().any(|wanted| told["type"] == *wanted));
    told.map(|told| json!([told["type"], told["status"]])).collect()
}

fn keys(data: &Value) -> Value {
    data.as_object().into_iter().flatten().map(|(key, _)| Value::from(key.clone())).collect()
}

/// Replaces values of which only the presence is compared.
fn present(of: &mut Value, keys: &[&str]) {
    for key in keys {
        if let Some(value) = of.get_mut(*key).filter(|value| !value.is_null()) {
            *value = "some".into();
        }
    }
}

fn remove(from: &mut Value, keys: &[&str]) {
    if let Some(from) = from.as_object_mut() {
        for key in keys {
            from.remove(*key);
        }
    }
}

#[test]
fn what_differs_between_two_runs_is_no_difference() {
    let run = |number: i64, state: &str| {
        let desired = json!({
            "branch": {"timeline": number}, "lineage": {"at": number, "major": 18},
            "backup": {"job": format!("chat-db-backup-{number}"), "runs": false},
        });
        let config = json!({"metadata": {"name": "chat-db-desired"}, "data": {"desired.json": desired.to_string()}});
        let object = json!({"metadata": {"name": "chat"}, "status": {
            "clients": [{"name": "reports", "rotatedAt": number, "rights": "Applied"}],
            "restore": {"request": "now", "state": state, "startedAt": number, "message": number.to_string()},
            "upgrade": {"phase": "Upgraded", "switchedAt": number, "lastRequest": {"state": state, "startedAt": number}},
            "backup": {"store": "main", "storedBytes": number, "leftTimelines": [{"timeline": number}]},
        }});
        let reports = json!({"metadata": {"name": "chat-db-pooler-reports"}, "data": {format!("pod-{number}"): "{}"}});
        let kinds = ["configmaps", "servicedatabases", "configmaps"];
        kinds.iter().zip([&config, &object, &reports]).map(|(kind, object)| tidy(kind, object)).collect::<Value>()
    };
    assert_eq!(run(1, "Done"), run(2, "Done"));
    assert_ne!(run(1, "Done"), run(1, "Failed"));
    let told = run(1, "Done");
    assert_eq!(told[0]["data"]["desired.json"]["lineage"], json!({"at": "some", "major": 18}));
    assert_eq!(told[1]["status"]["backup"]["leftTimelines"], 1);
}
