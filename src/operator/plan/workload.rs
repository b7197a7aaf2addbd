//! The StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::api::SchedulingSpec;
use crate::api::names::{ANNOTATION_METRICS, LABEL_NAME, LABEL_SCOPE};
use crate::contract::pod;
use crate::contract::shutdown::grace_seconds;
use crate::operator::apply::object::{ANNOTATION_DATABASE, ANNOTATION_TEMPLATE, ANNOTATION_UID, Planned};
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The StatefulSet's policy for volumes: Kubernetes deletes none.
pub const RETAIN: &str = "Retain";

/// The inputs of the StatefulSet that depend on the observed state.
pub struct WorkloadInputs<'a> {
    /// The chosen template.
    pub template: &'a Value,
    /// The number of pods, which may still be more than declared.
    pub replicas: i32,
    /// The size of a new volume, which may still be less than declared.
    pub volume_size: &'a Quantity,
    /// The resource's uid on a new volume; an earlier resource's in a StatefulSet that was adopted.
    pub volume_uid: &'a str,
}

/// The database pods and their volumes. `Parallel`, since Patroni does not depend on ordinals;
/// `OnDelete`, since the operator decides the order of restarts.
pub fn stateful_set(database: &Database, inputs: &WorkloadInputs<'_>) -> Planned {
    let names = database.names();
    Planned::new::<StatefulSet>(
        &database.owner,
        names.base(),
        json!({"metadata": {"annotations": {ANNOTATION_TEMPLATE: inputs.template.to_string()}}, "spec": {
            "serviceName": names.peers_service(),
            "replicas": inputs.replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {LABEL_SCOPE: names.base()}},
            // Scaling the StatefulSet deletes no volume: the operator implements `scaleDownPolicy:
            // Delete` (`given_up`).
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": RETAIN, "whenScaled": RETAIN},
            "template": inputs.template,
            "volumeClaimTemplates": [volume_claim(database, inputs)],
        }}),
    )
}

/// The template of the database pods of this version.
pub fn template(database: &Database, options: &Options) -> Value {
    let names = database.names();
    let labels = json!({LABEL_SCOPE: names.base(), "app.kubernetes.io/component": "database"});
    let scheduling = &database.scheduling;
    let mut spec = json!({
        "serviceAccountName": names.base(),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace_seconds(&database.parameters),
        "securityContext": pod_security(options),
        "containers": [container(database, options)],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "socket", "emptyDir": {"medium": "Memory"}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "vault", "configMap": {"name": names.instance_approle(), "defaultMode": 0o440}},
            {"name": "secret-id", "secret": {"secretName": names.instance_approle(), "defaultMode": 0o440}},
            {"name": "tls", "secret": {"secretName": names.tls_secret(), "defaultMode": 0o440}},
        ],
    });
    if !options.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    // With one instance, too: otherwise a second instance would change the template of the first.
    spec["affinity"] = affinity(database);
    if !scheduling.tolerations.is_empty() {
        spec["tolerations"] = json!(scheduling.tolerations);
    }
    if !scheduling.topology_spread_constraints.is_empty() {
        spec["topologySpreadConstraints"] = spread_constraints(database);
    }
    if let Some(class) = &scheduling.priority_class_name {
        spec["priorityClassName"] = class.clone().into();
    }
    let mut metadata = pod_metadata(database, labels);
    if options.scrape_annotations {
        let port = if options.metrics_tls { pod::METRICS_TLS_PORT } else { pod::AGENT_PORT }.to_string();
        let mut annotate = |key: &str, value: &str| {
            metadata["annotations"][format!("prometheus.io/{key}")] = value.into();
        };
        annotate("scrape", "true");
        annotate("port", &port);
        annotate("path", "/metrics");
        if options.metrics_tls {
            annotate("scheme", "https");
        }
    }
    if options.metrics_tls {
        // A scraper knows by it where the metrics are.
        metadata["annotations"][ANNOTATION_METRICS] = "tls".into();
    }
    json!({"metadata": metadata, "spec": spec})
}

/// The metadata of a pod: the labels of the database's objects, the given labels, and the declared
/// labels and annotations, which cannot replace them.
pub fn pod_metadata(database: &Database, labels: Value) -> Value {
    let mut all = json!(database.pod_metadata.labels);
    for (key, value) in labels.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    for (key, value) in database.owner.labels() {
        all[key] = value.into();
    }
    let mut metadata = json!({"labels": all});
    if !database.pod_metadata.annotations.is_empty() {
        metadata["annotations"] = json!(database.pod_metadata.annotations);
    }
    metadata
}

/// The declared affinity. Without a pod anti-affinity, instances prefer different nodes; it is no
/// requirement, so that they fit into a small cluster.
fn affinity(database: &Database) -> Value {
    let mut affinity = json!(database.scheduling.affinity.clone().unwrap_or_default());
    if affinity.get("podAntiAffinity").is_none() {
        affinity["podAntiAffinity"] = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": of_database(database),
            },
        }]});
    }
    affinity
}

/// The declared spread constraints. One without a selector would count no pods.
fn spread_constraints(database: &Database) -> Value {
    let mut constraints = json!(database.scheduling.topology_spread_constraints);
    for constraint in constraints.as_array_mut().into_iter().flatten() {
        if constraint.get("labelSelector").is_none() {
            constraint["labelSelector"] = of_database(database);
        }
    }
    constraints
}

/// Selects the instances.
fn of_database(database: &Database) -> Value {
    json!({"matchLabels": {LABEL_SCOPE: database.names().base()}})
}

/// The declared node affinity.
pub fn affinity_to_nodes(scheduling: &SchedulingSpec) -> Option<Value> {
    let nodes = scheduling.affinity.as_ref()?.node_affinity.as_ref()?;
    Some(json!({"nodeAffinity": nodes}))
}

fn container(database: &Database, options: &Options) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut container = json!({
        "name": "database",
        "image": database.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": ["/usr/bin/tini", "--", "/usr/local/bin/servicedb", "agent"],
        "env": [
            field(pod::ENV_POD_NAME, "metadata.name"),
            field(pod::ENV_POD_NAMESPACE, "metadata.namespace"),
            field(pod::ENV_POD_UID, "metadata.uid"),
            field(pod::ENV_POD_IP, "status.podIP"),
            {"name": pod::ENV_SERVICE, "value": database.names().name},
        ],
        "ports": [
            {"name": "postgres", "containerPort": pod::POSTGRES_PORT, "protocol": "TCP"},
            {"name": "patroni", "containerPort": pod::PATRONI_PORT, "protocol": "TCP"},
            {"name": "agent", "containerPort": pod::AGENT_PORT, "protocol": "TCP"},
        ],
        // The agent answers once the instance is ready, or after most of a minute: during a normal
        // start no probe fails, which would be a Warning event. It listens within the first second; without CPU time it
        // may take some more, and a container that is killed for that would only begin again. The threshold is also how
        // many minutes an agent may hang that listens and does not answer.
        "startupProbe": {
            "httpGet": {"path": format!("/livez?{}", pod::STARTED), "port": "agent"}, "initialDelaySeconds": 1,
            "periodSeconds": 1, "timeoutSeconds": pod::START_SECONDS + 10, "failureThreshold": 15,
        },
        // Liveness depends only on the agent: a long base backup, a rewind or a wait for a leader
        // is no failure. A failure stops PostgreSQL, so an agent or a kubelet that only lacks CPU time must not
        // be one. The lease does not depend on it: a hung agent gets the whole grace period after the kill.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "agent"}, "periodSeconds": 10, "timeoutSeconds": 20, "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "agent"}, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3,
        },
        "resources": database.resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "data", "mountPath": pod::VOLUME},
            {"name": "run", "mountPath": pod::RUN_DIR},
            {"name": "socket", "mountPath": pod::SOCKET_DIR},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "vault", "mountPath": pod::VAULT_DIR, "readOnly": true},
            {"name": "secret-id", "mountPath": pod::SECRET_ID_DIR, "readOnly": true},
            {"name": "tls", "mountPath": pod::TLS_DIR, "readOnly": true},
        ],
    });
    if options.metrics_tls {
        let port = json!({"name": "metrics-tls", "containerPort": pod::METRICS_TLS_PORT, "protocol": "TCP"});
        let chosen = json!({"name": pod::ENV_METRICS_TLS, "value": "true"});
        for (list, item) in [("ports", port), ("env", chosen)] {
            container[list].as_array_mut().into_iter().for_each(|list| list.push(item.clone()));
        }
    }
    container
}

/// The restricted Pod Security Standard, for a pod. `OnRootMismatch`: on a large volume, changing
/// the group of every file would take longer than starting PostgreSQL.
pub fn pod_security(options: &Options) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": options.run_as_user,
        "runAsGroup": options.fs_group,
        "fsGroup": options.fs_group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The restricted Pod Security Standard, for a container, with a read-only root.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

fn volume_claim(database: &Database, inputs: &WorkloadInputs<'_>) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": inputs.volume_size}},
    });
    if let Some(class) = &database.storage.storage_class_name {
        spec["storageClassName"] = class.clone().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "data",
            "labels": {LABEL_NAME: database.names().name, LABEL_SCOPE: database.names().base()},
            "annotations": {
                ANNOTATION_UID: inputs.volume_uid,
                ANNOTATION_DATABASE: database.postgres.database,
            },
        },
        "spec": spec,
    })
}
