//! The Jobs that make and test backups.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::job::{add, literal, pod_spec};
use super::workload::{container_security, pod_metadata};
use crate::api::names::{Names, PostgresNames};
use crate::api::{BackupRunStatus, BackupType, JobRun, SchemaVersion};
use crate::contract::backup::Place;
use crate::contract::backup_job::{BackupJob, BackupRemovalJob, VerificationJob};
use crate::contract::pod;
use crate::contract::rehearsal::RehearsalJob;
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The component in the labels of the Jobs and their pods.
pub const COMPONENT: &str = "backup";
/// The same of the Jobs that test a backup.
pub const VERIFICATION: &str = "verification";
/// The same of the Jobs that rehearse a major upgrade on a backup.
pub const REHEARSAL: &str = "rehearsal";
/// The same of the Job that removes the backups of a deleted resource.
pub const REMOVAL: &str = "backup-removal";
/// Annotation of a Job: the type of its backup.
const ANNOTATION_TYPE: &str = "servicedb.dev/type";
/// Annotation of a Job: the store of its backup, if it is the second one.
const ANNOTATION_SECOND_STORE: &str = "servicedb.dev/second-store";
/// Annotation of a Job: the token of the last request when it was created.
const ANNOTATION_REQUEST: &str = "servicedb.dev/request";
/// How long a backup may take, in seconds.
const DEADLINE_SECONDS: i64 = 24 * 3600;
/// How long a rehearsal is kept after its end, in seconds: for its log, and for an operator that was away.
const REHEARSAL_KEPT_SECONDS: i64 = 3600;

/// The Job of a backup. It is not retried by its controller: the operator decides when another one starts. `expires`:
/// older backups are deleted after it, as the spec says.
pub fn job(database: &Database, options: &Options, store: &Place, run: &BackupRunStatus, expires: bool) -> Planned {
    let mut annotations = of_request(&run.run);
    annotations[ANNOTATION_TYPE] = format!("{:?}", run.kind).into();
    if database.second_archive.as_ref() == Some(store) {
        annotations[ANNOTATION_SECOND_STORE] = store.name.clone().into();
    }
    let containers = vec![container(database, options, store, (run.kind, expires))];
    let volumes = volumes(database.names());
    planned(database, options, (run.run.job.clone(), COMPONENT), &annotations, (containers, volumes))
}

/// The Job of a test of the newest backup.
pub fn verification(
    database: &Database,
    options: &Options,
    store: &Place,
    (system_identifier, applied): (Option<&str>, Option<SchemaVersion>),
    run: &JobRun,
) -> Planned {
    let verification = VerificationJob {
        place: store.clone(),
        database: database.postgres.database.clone(),
        system_identifier: system_identifier.map(str::to_owned),
        applied,
    };
    let order = json!({"name": pod::ENV_VERIFICATION, "value": literal(&json!(verification).to_string())});
    let pod = restoring(database, options, ("verify", "verify-backup"), order);
    planned(database, options, (run.job.clone(), VERIFICATION), &of_request(run), pod)
}

/// The Job of a rehearsal of a major upgrade on the newest backup.
pub fn rehearsal(database: &Database, options: &Options, job: &str, rehearsal: &RehearsalJob) -> Planned {
    let order = json!({"name": pod::ENV_REHEARSAL, "value": literal(&json!(rehearsal).to_string())});
    let (mut containers, mut volumes) = restoring(database, options, ("rehearse", "rehearse-upgrade"), order);
    for container in &mut containers {
        let mount = json!({"name": "desired", "mountPath": pod::DESIRED_DIR, "readOnly": true});
        add(container, "volumeMounts", mount);
    }
    volumes.push(json!({"name": "desired", "configMap": {"name": database.names().desired(), "defaultMode": 0o440}}));
    let mut planned = planned(database, options, (job.to_owned(), REHEARSAL), &json!({}), (containers, volumes));
    // Its volume, which is as large as that of an instance, goes with it.
    planned.body["spec"]["ttlSecondsAfterFinished"] = REHEARSAL_KEPT_SECONDS.into();
    planned
}

/// The container and the volumes of a Job that restores a backup into a volume of its own.
fn restoring(
    database: &Database,
    options: &Options,
    (name, command): (&str, &str),
    order: Value,
) -> (Vec<Value>, Vec<Value>) {
    let mut container = base(database, options, name, command, order);
    for (name, path) in [("data", pod::VOLUME), ("shm", "/dev/shm")] {
        add(&mut container, "volumeMounts", json!({"name": name, "mountPath": path}));
    }
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": database.storage.size}},
    });
    if let Some(class) = &database.storage.storage_class_name {
        claim["storageClassName"] = class.clone().into();
    }
    let mut volumes = access(database.names());
    // It goes with the pod.
    volumes.push(json!({"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}));
    volumes.push(json!({"name": "shm", "emptyDir": {"medium": "Memory"}}));
    (vec![container], volumes)
}

/// The Job that removes the archive and the backups of a deleted resource.
pub fn removal(database: &Database, options: &Options, store: &Place) -> Planned {
    let removal = BackupRemovalJob { place: store.clone(), second: database.second_archive.clone() };
    let order = json!({"name": pod::ENV_BACKUP, "value": literal(&json!(removal).to_string())});
    let container = base(database, options, "remove", "remove-backups", order);
    let name = (database.names().backup_removal_job(), REMOVAL);
    planned(database, options, name, &json!({}), (vec![container], access(database.names())))
}

fn planned(
    database: &Database,
    options: &Options,
    (name, component): (String, &str),
    annotations: &Value,
    (containers, volumes): (Vec<Value>, Vec<Value>),
) -> Planned {
    let labels = json!({"app.kubernetes.io/component": component});
    let mut spec = pod_spec(database, options, containers, volumes);
    if !options.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    Planned::new::<Job>(
        &database.owner,
        name,
        json!({
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "template": {"metadata": pod_metadata(database, labels), "spec": spec},
            },
        }),
    )
}

fn of_request(run: &JobRun) -> Value {
    run.request.as_ref().map_or_else(|| json!({}), |token| json!({ANNOTATION_REQUEST: token}))
}

/// The token of the last request when a Job was created.
pub fn request(job: &Job) -> Option<String> {
    job.annotations().get(ANNOTATION_REQUEST).cloned()
}

/// The second store, if a Job's backup is for it.
pub fn second_store(job: &Job) -> Option<&str> {
    job.annotations().get(ANNOTATION_SECOND_STORE).map(String::as_str)
}

/// The type of a Job's backup.
pub fn kind(job: &Job) -> BackupType {
    let is_full = job.annotations().get(ANNOTATION_TYPE).is_some_and(|kind| kind == "Full");
    if is_full { BackupType::Full } else { BackupType::Incremental }
}

fn container(database: &Database, options: &Options, store: &Place, (kind, expires): (BackupType, bool)) -> Value {
    let names = database.names();
    let host = |ordinal| format!("{}.{}.{}.svc", names.pod(ordinal), names.peers_service(), names.namespace);
    let backup = BackupJob {
        place: store.clone(),
        kind,
        hosts: (0..database.instances).map(host).collect(),
        retention_days: database.backups.retention_days,
        retention_full_backups: database.backups.retention_full_backups,
        expires,
    };
    // A document of strings and numbers always has a JSON form.
    let order = serde_json::to_string(&backup).unwrap_or_default();
    let order = json!({"name": pod::ENV_BACKUP, "value": literal(&order)});
    let mut container = base(database, options, "backup", "backup", order);
    add(&mut container, "volumeMounts", json!({"name": "tls", "mountPath": pod::TLS_DIR, "readOnly": true}));
    container
}

fn base(database: &Database, options: &Options, name: &str, command: &str, order: Value) -> Value {
    let resources = database.backups.resources.as_ref().map_or_else(default_resources, |declared| json!(declared));
    json!({
        "name": name,
        "image": database.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": ["/usr/bin/tini", "--", "/usr/local/bin/servicedb", command],
        "env": [order],
        "resources": resources,
        "securityContext": container_security(),
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "run", "mountPath": pod::RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "vault", "mountPath": pod::VAULT_DIR, "readOnly": true},
            {"name": "secret-id", "mountPath": pod::SECRET_ID_DIR, "readOnly": true},
        ],
    })
}

/// It reads the whole database, so it has the rights of the instances, and of their certificates only what it
/// needs.
fn volumes(names: &Names) -> Vec<Value> {
    let client = PostgresNames::REPLICATOR;
    let files = ["ca.crt".to_owned(), format!("{client}.crt"), format!("{client}.key")];
    let files: Vec<_> = files.iter().map(|file| json!({"key": file, "path": file})).collect();
    let mut volumes = access(names);
    let tls = json!({"secretName": names.tls_secret(), "defaultMode": 0o440, "items": files});
    volumes.push(json!({"name": "tls", "secret": tls}));
    volumes
}

fn access(names: &Names) -> Vec<Value> {
    vec![
        json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": "tmp", "emptyDir": {}}),
        json!({"name": "vault", "configMap": {"name": names.instance_approle(), "defaultMode": 0o440}}),
        json!({"name": "secret-id", "secret": {"secretName": names.instance_approle(), "defaultMode": 0o440}}),
    ]
}

fn default_resources() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
}
