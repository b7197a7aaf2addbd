//! The Job of a backup.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::job::{literal, place};
use super::workload::{container_security, pod_metadata, pod_security};
use crate::api::names::{Names, PostgresNames};
use crate::api::{BackupRunStatus, BackupType};
use crate::contract::backup::Place;
use crate::contract::backup_job::BackupJob;
use crate::contract::pod;
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The component in the labels of the Jobs and their pods.
pub const COMPONENT: &str = "backup";
/// Annotation of a Job: the type of its backup.
const ANNOTATION_TYPE: &str = "servicedb.dev/type";
/// How long a backup may take, in seconds.
const DEADLINE_SECONDS: i64 = 24 * 3600;

/// The Job. It is not retried by its controller: the operator decides when another one starts.
pub fn job(database: &Database, options: &Options, store: &Place, run: &BackupRunStatus) -> Planned {
    let labels = json!({"app.kubernetes.io/component": COMPONENT});
    let mut spec = json!({
        "serviceAccountName": database.names().migrator(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "securityContext": pod_security(options),
        "containers": [container(database, options, store, run.kind)],
        "volumes": volumes(database.names()),
    });
    if !options.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    place(&mut spec, database);
    Planned::new::<Job>(
        &database.owner,
        run.job.clone(),
        json!({
            "metadata": {"labels": labels, "annotations": {ANNOTATION_TYPE: format!("{:?}", run.kind)}},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "template": {"metadata": pod_metadata(database, labels), "spec": spec},
            },
        }),
    )
}

/// The type of a Job's backup.
pub fn kind(job: &Job) -> BackupType {
    let is_full = job.annotations().get(ANNOTATION_TYPE).is_some_and(|kind| kind == "Full");
    if is_full { BackupType::Full } else { BackupType::Incremental }
}

fn container(database: &Database, options: &Options, store: &Place, kind: BackupType) -> Value {
    let names = database.names();
    let host = |ordinal| format!("{}.{}.{}.svc", names.pod(ordinal), names.peers_service(), names.namespace);
    let backup = BackupJob {
        place: store.clone(),
        kind,
        hosts: (0..database.instances).map(host).collect(),
        retention_days: database.backups.retention_days,
    };
    let resources = database.backups.resources.as_ref().map_or_else(default_resources, |declared| json!(declared));
    json!({
        "name": "backup",
        "image": database.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": ["/usr/bin/tini", "--", "/usr/local/bin/servicedb", "backup"],
        // A document of strings and numbers always has a JSON form.
        "env": [{"name": pod::ENV_BACKUP, "value": literal(&serde_json::to_string(&backup).unwrap_or_default())}],
        "resources": resources,
        "securityContext": container_security(),
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "run", "mountPath": pod::RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "vault", "mountPath": pod::VAULT_DIR, "readOnly": true},
            {"name": "secret-id", "mountPath": pod::SECRET_ID_DIR, "readOnly": true},
            {"name": "tls", "mountPath": pod::TLS_DIR, "readOnly": true},
        ],
    })
}

/// It reads the whole database, so it has the rights of the instances, and of their certificates only what it
/// needs.
fn volumes(names: &Names) -> Value {
    let client = PostgresNames::REPLICATOR;
    let files = ["ca.crt".to_owned(), format!("{client}.crt"), format!("{client}.key")];
    let files: Vec<_> = files.iter().map(|file| json!({"key": file, "path": file})).collect();
    json!([
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "vault", "configMap": {"name": names.instance_approle(), "defaultMode": 0o440}},
        {"name": "secret-id", "secret": {"secretName": names.instance_approle(), "defaultMode": 0o440}},
        {"name": "tls", "secret": {"secretName": names.tls_secret(), "defaultMode": 0o440, "items": files}},
    ])
}

fn default_resources() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
}
