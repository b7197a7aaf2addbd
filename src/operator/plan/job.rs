//! What the pods of all migration Jobs share.

use serde_json::{Value, json};

use super::workload::container_security;
use crate::contract::migration::Policy;
use crate::contract::pod;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The exit code by which `servicedb migrate` says that trying again is in vain.
pub const EXIT_PERMANENT: i32 = 1;

/// What is particular to a source.
pub struct JobPod {
    /// The containers that run before.
    pub init_containers: Vec<Value>,
    /// The containers.
    pub containers: Vec<Value>,
    /// The volumes.
    pub volumes: Vec<Value>,
    /// The exit codes after which another try is in vain.
    pub in_vain: Vec<Value>,
}

/// After these exit codes of a container another try is in vain.
pub fn in_vain(container: &str, operator: &str, values: &[i32]) -> Value {
    let codes = json!({"containerName": container, "operator": operator, "values": values});
    json!({"action": "FailJob", "onExitCodes": codes})
}

/// What our own containers in these pods are told.
pub struct Ours<'a> {
    /// The database.
    pub database: &'a Database,
    /// The operator's settings.
    pub options: &'a Options,
    /// The revision of the migrations.
    pub revision: &'a str,
    /// How they are applied.
    pub policy: &'a Policy,
}

impl Ours<'_> {
    /// A container of ours, which logs in to Vault and to the database.
    pub fn container(&self, name: &str, part: Option<&str>) -> Value {
        let Self { database, options, revision, policy } = self;
        let names = database.names();
        // A document of strings, numbers and booleans always has a JSON form.
        let told = serde_json::to_string(policy).unwrap_or_default();
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
                {"name": pod::ENV_MIGRATION_POLICY, "value": told},
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

/// A value of an environment variable as it stands: Kubernetes puts others in for `$(…)`.
pub fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

/// Adds an entry to a list of a container, such as its `env`.
pub fn add(container: &mut Value, list: &str, entry: Value) {
    if let Some(list) = container[list].as_array_mut() {
        list.push(entry);
    }
}
