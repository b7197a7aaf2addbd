//! The migration Job, and the ConfigMap with the revision that it applies.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::workload::{container_security, pod_security};
use crate::api::names::Names;
use crate::contract::migration::{self, Policy};
use crate::contract::pod;
use crate::operator::object::Planned;
use crate::operator::options::Options;
use crate::operator::validate::Database;

/// Label of a migration's objects: the component.
pub const COMPONENT: &str = "migration";
/// How often a Job is tried again by Kubernetes, when its cause is one that passes.
const BACKOFF_LIMIT: i32 = 4;
/// The exit code by which `servicedb migrate` says that trying again is in vain.
pub const EXIT_PERMANENT: i32 = 1;

/// The names of the ConfigMaps that hold one revision: as many as it is declared in, since
/// one holds a MiB at most. They follow from what each holds, for none is ever changed.
pub fn copy_names(names: &Names, revision: &str, parts: &[BTreeMap<String, String>]) -> Vec<String> {
    if parts.len() == 1 {
        return vec![names.migrations_config_map(revision)];
    }
    let split: Vec<Vec<&str>> = parts.iter().map(|part| part.keys().map(String::as_str).collect()).collect();
    let split = migration::hash(&[revision, &format!("{split:?}")]);
    (0..parts.len()).map(|part| format!("{}-{part}", names.migrations_config_map(&split))).collect()
}

/// One revision of the migrations, as it was when the Job was made: immutable, so that what
/// a Job reads is what was checked.
pub fn config_maps(database: &Database, names: &[String], parts: &[BTreeMap<String, String>]) -> Vec<Planned> {
    let planned = |(name, files): (&String, &BTreeMap<String, String>)| {
        Planned::new::<ConfigMap>(
            &database.owner,
            name.clone(),
            json!({
                "metadata": {"labels": {"app.kubernetes.io/component": COMPONENT}},
                "immutable": true,
                "data": files,
            }),
        )
    };
    names.iter().zip(parts).map(planned).collect()
}

/// The Job that brings one revision, which these ConfigMaps hold, to the database.
pub fn job(database: &Database, options: &Options, revision: &str, policy: &Policy, copies: &[String]) -> Planned {
    let names = database.names();
    let files: Vec<_> = copies.iter().map(|name| json!({"configMap": {"name": name}})).collect();
    // A document of numbers and booleans always has a JSON form.
    let told = serde_json::to_string(policy).unwrap_or_default();
    let mut labels = json!({"app.kubernetes.io/component": COMPONENT});
    for (key, value) in database.owner.labels() {
        labels[key] = value.into();
    }
    let mut spec = json!({
        "serviceAccountName": names.migrator(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "securityContext": pod_security(options),
        "containers": [{
            "name": "migrate",
            "image": options.operator_image,
            "imagePullPolicy": options.image_pull_policy,
            "command": ["/usr/local/bin/servicedb", "migrate"],
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
                {"name": "migrations", "mountPath": pod::MIGRATIONS_DIR, "readOnly": true},
            ],
        }],
        "volumes": [
            {"name": "vault", "configMap": {"name": names.migrator(), "defaultMode": 0o440}},
            {"name": "secret-id", "secret": {"secretName": names.migrator(), "defaultMode": 0o440}},
            {"name": "migrations", "projected": {"sources": files, "defaultMode": 0o440}},
        ],
    });
    if !options.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    if !database.scheduling.tolerations.is_empty() {
        spec["tolerations"] = json!(database.scheduling.tolerations);
    }
    Planned::new::<Job>(
        &database.owner,
        names.migration_job(&policy.run(revision)),
        json!({
            "metadata": {"labels": {"app.kubernetes.io/component": COMPONENT}},
            "spec": {
                "backoffLimit": BACKOFF_LIMIT,
                "podFailurePolicy": {"rules": [{
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "migrate", "operator": "In", "values": [EXIT_PERMANENT]},
                }]},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }),
    )
}
