//! The objects of a database in Kubernetes, without values that are generated in each run.

use futures::future::try_join_all;
use serde_json::{Map, Value, json};

use super::scenario::TOUCHED;
use crate::harness::Sandbox;

/// The kinds, with the label that chooses the objects: of pods only the databases', since
/// those of Jobs have random names.
const KINDS: [(&str, &str, &str); 13] = [
    ("/api/v1", "configmaps", "servicedb.dev/name"),
    ("/api/v1", "secrets", "servicedb.dev/name"),
    ("/api/v1", "services", "servicedb.dev/name"),
    ("/api/v1", "serviceaccounts", "servicedb.dev/name"),
    ("/api/v1", "persistentvolumeclaims", "servicedb.dev/name"),
    ("/api/v1", "pods", "servicedb.dev/scope"),
    ("/apis/apps/v1", "statefulsets", "servicedb.dev/name"),
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
        "configmaps" => tidied["data"] = config_data(&object["data"]),
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
        "statefulsets" => tidied["ready"] = object["status"]["readyReplicas"].clone(),
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
/// database's own, the data directory's identifier.
fn config_data(data: &Value) -> Value {
    let mut data = data.clone();
    for key in ["role-id", "ca.crt"] {
        if data[key].is_string() {
            data[key] = "some".into();
        }
    }
    let desired = data["desired.json"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(mut desired) = desired {
        for key in ["authorities", "systemIdentifier"] {
            if desired[key].is_string() {
                desired[key] = "some".into();
            }
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
    remove(&mut status["credentials"], &["rotatedAt", "oldSessions"]);
    remove(&mut status["certificates"], &["notAfter", "authorityNotAfter"]);
    for record in status["migrations"]["recent"].as_array_mut().into_iter().flatten() {
        remove(record, &["startedAt", "durationMs"]);
    }
    status
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

fn remove(from: &mut Value, keys: &[&str]) {
    if let Some(from) = from.as_object_mut() {
        for key in keys {
            from.remove(*key);
        }
    }
}
