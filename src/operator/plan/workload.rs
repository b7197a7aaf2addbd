//! The StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::api::names::{LABEL_NAME, LABEL_SCOPE};
use crate::contract::pod;
use crate::operator::apply::object::{ANNOTATION_DATABASE, ANNOTATION_TEMPLATE, ANNOTATION_UID, Planned};
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// How long a pod may take to stop: PostgreSQL's last checkpoint and the leader's handing over.
const TERMINATION_GRACE_SECONDS: i64 = 60;

/// What becomes of volumes by Kubernetes' own hand: nothing.
pub const RETAIN: &str = "Retain";

/// What of a StatefulSet hangs on what is there already.
pub struct Shape<'a> {
    /// The template that was chosen.
    pub template: &'a Value,
    /// How many pods, which may still be more than declared.
    pub replicas: i32,
    /// The size of a new volume, which may still be less than declared.
    pub volume_size: &'a Quantity,
}

/// The database pods and their volumes. `Parallel`, since ordinals mean nothing to Patroni;
/// `OnDelete`, since who restarts when is the operator's to decide.
pub fn stateful_set(database: &Database, shape: &Shape<'_>) -> Planned {
    let names = database.names();
    Planned::new::<StatefulSet>(
        &database.owner,
        names.base(),
        json!({"metadata": {"annotations": {ANNOTATION_TEMPLATE: shape.template.to_string()}}, "spec": {
            "serviceName": names.peers_service(),
            "replicas": shape.replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {LABEL_SCOPE: names.base()}},
            // Whoever scales the StatefulSet takes no volume with it: `scaleDownPolicy: Delete` is
            // carried out by the operator (`given_up`).
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": RETAIN, "whenScaled": RETAIN},
            "template": shape.template,
            "volumeClaimTemplates": [volume_claim(database, shape.volume_size)],
        }}),
    )
}

/// The template of the database pods, as this version makes it.
pub fn template(database: &Database, options: &Options) -> Value {
    let names = database.names();
    let mut labels = json!({LABEL_SCOPE: names.base(), "app.kubernetes.io/component": "database"});
    for (key, value) in database.owner.labels() {
        labels[key] = value.into();
    }
    let scheduling = &database.scheduling;
    let mut spec = json!({
        "serviceAccountName": names.base(),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
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
    // With one instance, too, or a second one would need another template of the first.
    spec["affinity"] = match &scheduling.affinity {
        Some(affinity) => json!(affinity),
        None => spread_over_nodes(database),
    };
    if !scheduling.tolerations.is_empty() {
        spec["tolerations"] = json!(scheduling.tolerations);
    }
    if !scheduling.topology_spread_constraints.is_empty() {
        spec["topologySpreadConstraints"] = json!(scheduling.topology_spread_constraints);
    }
    if let Some(class) = &scheduling.priority_class_name {
        spec["priorityClassName"] = class.clone().into();
    }
    json!({"metadata": {"labels": labels}, "spec": spec})
}

/// Members prefer different nodes; they do not insist, or a small cluster could not hold them.
fn spread_over_nodes(database: &Database) -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {LABEL_SCOPE: database.names().base()}},
        },
    }]}})
}

fn container(database: &Database, options: &Options) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
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
        // The agent answers as soon as it runs. Liveness asks it alone: a long base backup,
        // a rewind or a wait for a leader is not death.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "agent"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
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
    })
}

/// The restricted Pod Security Standard, for a pod. `OnRootMismatch`: on a large volume a
/// change of every file's group would take longer than starting PostgreSQL.
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

fn volume_claim(database: &Database, size: &Quantity) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
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
                ANNOTATION_UID: database.owner.uid,
                ANNOTATION_DATABASE: database.postgres.database,
            },
        },
        "spec": spec,
    })
}
