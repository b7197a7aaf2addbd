//! The common parts of the pods of migration Jobs.

use serde_json::{Value, json};

use super::workload::{affinity_to_nodes, container_security, pod_security};
use crate::contract::migration::Policy;
use crate::contract::pod;
use crate::operator::apply::object::short_hash;
use crate::operator::context::options::Options;
use crate::operator::validate::{Database, Migrations};

/// The exit code of `servicedb migrate` for a permanent failure.
pub const EXIT_PERMANENT: i32 = 1;

/// Annotation of a Job: identifies the spec of its pods, apart from the migrations. A Job with
/// another value is replaced if the change can affect its result.
pub const ANNOTATION_POD: &str = "servicedb.dev/job-pod";

/// The value of [`ANNOTATION_POD`].
pub fn pod_id(database: &Database, migrations: &Migrations) -> String {
    short_hash(&json!([migrations.resources, database.scheduling, database.pod_metadata]))
}

/// The default CPU and memory of each container: with a quota, a pod without them is refused. The
/// limits are far above the use of the operator's own containers, and sufficient for a team's tool
/// and for the scratch server of a comparison.
fn default_resources() -> Value {
    json!({"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
}

/// Sets CPU and memory of every container of a pod.
pub fn set_resources(spec: &mut Value, migrations: &Migrations) {
    let resources = migrations.resources.as_ref().map_or_else(default_resources, |declared| json!(declared));
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["resources"] = resources.clone();
        }
    }
}

/// The spec of a Job's pod, which is scheduled like the database's instances.
pub fn pod_spec(database: &Database, options: &Options, containers: Vec<Value>, volumes: Vec<Value>) -> Value {
    let mut spec = json!({
        "serviceAccountName": database.names().migrator(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "securityContext": pod_security(options),
        "containers": containers,
        "volumes": volumes,
    });
    place(&mut spec, database);
    spec
}

/// Schedules the pod like the database's instances: their node affinity, tolerations and priority,
/// without their pod affinity.
fn place(spec: &mut Value, database: &Database) {
    let scheduling = &database.scheduling;
    if let Some(affinity) = affinity_to_nodes(scheduling) {
        spec["affinity"] = affinity;
    }
    if !scheduling.tolerations.is_empty() {
        spec["tolerations"] = json!(scheduling.tolerations);
    }
    if let Some(class) = &scheduling.priority_class_name {
        spec["priorityClassName"] = class.clone().into();
    }
}

/// The parts that depend on the source.
pub struct JobPod {
    /// The init containers.
    pub init_containers: Vec<Value>,
    /// The containers.
    pub containers: Vec<Value>,
    /// The volumes.
    pub volumes: Vec<Value>,
    /// The exit codes of permanent failures.
    pub in_vain: Vec<Value>,
}

/// The rule for exit codes of a container that are permanent failures.
pub fn in_vain(container: &str, operator: &str, values: &[i32]) -> Value {
    let codes = json!({"containerName": container, "operator": operator, "values": values});
    json!({"action": "FailJob", "onExitCodes": codes})
}

/// The inputs of Servicedb's own containers in these pods.
pub struct Ours<'a> {
    /// The database.
    pub database: &'a Database,
    /// The operator's settings.
    pub options: &'a Options,
    /// The revision of the migrations.
    pub revision: &'a str,
    /// The policy for applying them.
    pub policy: &'a Policy,
}

impl Ours<'_> {
    /// A container of Servicedb, which logs in to Vault and to the database.
    pub fn container(&self, name: &str, part: Option<&str>) -> Value {
        let Self { database, options, revision, policy } = self;
        let names = database.names();
        // A document of strings, numbers and booleans always has a JSON form.
        let encoded = serde_json::to_string(policy).unwrap_or_default();
        let command: Vec<&str> = ["/usr/local/bin/servicedb", "migrate"].into_iter().chain(part).collect();
        json!({
            "name": name,
            "image": options.operator_image,
            "imagePullPolicy": options.image_pull_policy,
            "command": command,
            "env": [
                {"name": pod::ENV_SERVICE, "value": names.name},
                {"name": pod::ENV_DATABASE, "value": database.postgres.database},
                {"name": pod::ENV_HOST, "value": names.primary_host()},
                {"name": pod::ENV_REVISION, "value": revision},
                {"name": pod::ENV_MIGRATION_POLICY, "value": encoded},
            ],
            "securityContext": container_security(),
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": "vault", "mountPath": pod::VAULT_DIR, "readOnly": true},
                {"name": "secret-id", "mountPath": pod::SECRET_ID_DIR, "readOnly": true},
            ],
        })
    }

    /// The volumes that it logs in with.
    pub fn volumes(&self) -> Vec<Value> {
        let migrator = self.database.names().migrator();
        vec![
            json!({"name": "vault", "configMap": {"name": migrator, "defaultMode": 0o440}}),
            json!({"name": "secret-id", "secret": {"secretName": migrator, "defaultMode": 0o440}}),
        ]
    }
}

/// A literal value of an environment variable: Kubernetes would expand `$(…)`.
pub fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

/// Adds an entry to a list of a container, such as its `env`.
pub fn add(container: &mut Value, list: &str, entry: Value) {
    if let Some(list) = container[list].as_array_mut() {
        list.push(entry);
    }
}
