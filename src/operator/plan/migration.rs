//! The migration Job, and the ConfigMap with the revision that it applies.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::drift;
use super::job::{
    ANNOTATION_POD, EXIT_PERMANENT, JobPod, Ours, add, in_vain, literal, pod_id, pod_spec, set_resources,
};
use super::tool;
use super::workload::{container_security, pod_metadata};
use crate::api::ImageSource;
use crate::api::names::ANNOTATION_CHECK_DRIFT;
use crate::contract::migration;
use crate::contract::pod;
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::{Database, Migrations, Source};

/// Label of a migration's objects: the component.
pub const COMPONENT: &str = "migration";
/// The container that applies files.
pub const MIGRATE: &str = "migrate";
/// The init container that copies them from an image.
pub const COPY: &str = "copy";
/// The number of retries of a Job by Kubernetes after transient failures.
const BACKOFF_LIMIT: i32 = 4;
/// The size limit of files copied from an image.
const COPY_LIMIT: &str = "128Mi";

/// The names of the ConfigMaps with one revision: as many as in the declaration, since one has at
/// most 1 MiB, and none if the operator does not read the files. The names depend on the content,
/// since the ConfigMaps are immutable.
pub fn copies(database: &Database, revision: &str, parts: &[BTreeMap<String, Vec<u8>>]) -> Vec<String> {
    let names = database.names();
    match parts {
        [] => Vec::new(),
        // What the revision does not follow, the name must: an immutable ConfigMap keeps its content.
        parts if parts.iter().flat_map(BTreeMap::keys).any(|file| !file.ends_with(".sql")) => {
            let contents = parts.iter().flatten().flat_map(|(file, content)| [file.as_bytes(), content.as_slice()]);
            let content = migration::hash_of(contents);
            (0..parts.len()).map(|part| format!("{}-{part}", names.migrations_config_map(&content))).collect()
        }
        [_] => vec![names.migrations_config_map(revision)],
        parts => {
            let split: Vec<Vec<&str>> = parts.iter().map(|part| part.keys().map(String::as_str).collect()).collect();
            let split = migration::hash(&[revision, &format!("{split:?}")]);
            (0..parts.len()).map(|part| format!("{}-{part}", names.migrations_config_map(&split))).collect()
        }
    }
}

/// One revision of the migrations, as it was when the Job was created: immutable, so that the Job
/// reads the files that were checked.
pub fn config_maps(database: &Database, names: &[String], parts: &[BTreeMap<String, Vec<u8>>]) -> Vec<Planned> {
    let planned = |(name, files): (&String, &BTreeMap<String, Vec<u8>>)| {
        let mut config_map = json!({
            "metadata": {"labels": {"app.kubernetes.io/component": COMPONENT}},
            "immutable": true,
        });
        for (file, content) in files {
            // What is no text has a field of its own, in base64.
            match std::str::from_utf8(content) {
                Ok(text) => config_map["data"][file] = text.into(),
                Err(_) => config_map["binaryData"][file] = json!(ByteString(content.clone())),
            }
        }
        Planned::new::<ConfigMap>(&database.owner, name.clone(), config_map)
    };
    names.iter().zip(parts).map(planned).collect()
}

/// The purpose of a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To apply the migrations.
    Apply,
    /// To compare the schema with them.
    Compare,
}

/// The Job for one revision; `copies` are its ConfigMaps, if any.
pub fn job(
    database: &Database,
    options: &Options,
    (revision, migrations): (&str, &Migrations),
    copies: &[String],
    purpose: Purpose,
) -> Planned {
    let (names, policy) = (database.names(), &migrations.policy);
    let ours = Ours { database, options, revision, policy };
    let worker = match purpose {
        Purpose::Apply => (MIGRATE, None),
        Purpose::Compare => (drift::DRIFT, Some("drift")),
    };
    let (pod, own_secrets) = match &migrations.source {
        Source::ConfigMaps(_) => (of_config_maps(&ours, worker, copies), &[][..]),
        Source::Image(image) => (of_image(&ours, worker, image), &image.image_pull_secrets[..]),
        Source::Tool(source) => (tool::pod(&ours, source), &source.image_pull_secrets[..]),
    };
    let (name, pod, backoff_limit) = match purpose {
        Purpose::Apply => (names.migration_job(&migrations.run(revision)), pod, BACKOFF_LIMIT),
        // It is recreated for the next check.
        Purpose::Compare => (names.drift_job(), drift::pod(database, pod), 0),
    };
    let secrets = options.image_pull_secrets.iter().chain(own_secrets.iter().map(|secret| &secret.name));
    let mut job = json!({
        "metadata": {
            "labels": {"app.kubernetes.io/component": COMPONENT},
            "annotations": {ANNOTATION_POD: pod_id(database, migrations)},
        },
        "spec": {
            "backoffLimit": backoff_limit,
            "podFailurePolicy": {"rules": rules(&pod)},
            "template": template((database, migrations), options, pod, secrets.map(|name| json!({"name": name})).collect()),
        },
    });
    if purpose == Purpose::Compare {
        job["spec"]["activeDeadlineSeconds"] = drift::DEADLINE_SECONDS.into();
        // The reader of its result needs the revision and target.
        job["metadata"]["annotations"][drift::ANNOTATION_GOAL] = policy.goal(revision).into();
        if let Some(token) = &migrations.drift_request {
            job["metadata"]["annotations"][ANNOTATION_CHECK_DRIFT] = token.clone().into();
        }
    }
    Planned::new::<Job>(&database.owner, name, job)
}

/// An evicted pod, or one whose node was removed, is no failure of the migrations.
fn rules(pod: &JobPod) -> Vec<Value> {
    let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    std::iter::once(disrupted).chain(pod.in_vain.iter().cloned()).collect()
}

fn template(
    (database, migrations): (&Database, &Migrations),
    options: &Options,
    pod: JobPod,
    secrets: Vec<Value>,
) -> Value {
    let mut spec = pod_spec(database, options, pod.containers, pod.volumes);
    if !pod.init_containers.is_empty() {
        spec["initContainers"] = pod.init_containers.into();
    }
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.into();
    }
    set_resources(&mut spec, migrations);
    json!({"metadata": pod_metadata(database, json!({"app.kubernetes.io/component": COMPONENT})), "spec": spec})
}

/// The container that reads the files: its name, and its subcommand of `servicedb migrate`.
type Worker<'a> = (&'a str, Option<&'a str>);

fn of_config_maps(ours: &Ours<'_>, (name, part): Worker<'_>, copies: &[String]) -> JobPod {
    let files: Vec<_> = copies.iter().map(|copy| json!({"configMap": {"name": copy}})).collect();
    let mut worker = ours.container(name, part);
    add(&mut worker, "volumeMounts", json!({"name": "migrations", "mountPath": pod::MIGRATIONS_DIR, "readOnly": true}));
    let mut volumes = ours.volumes();
    volumes.push(json!({"name": "migrations", "projected": {"sources": files, "defaultMode": 0o440}}));
    let in_vain = vec![in_vain(name, "In", &[EXIT_PERMANENT])];
    JobPod { init_containers: Vec::new(), containers: vec![worker], volumes, in_vain }
}

/// The image as a volume, or, if nodes do not support that, copied by an init container.
fn of_image(ours: &Ours<'_>, (name, part): Worker<'_>, image: &ImageSource) -> JobPod {
    let mut worker = ours.container(name, part);
    let mut volumes = ours.volumes();
    let mut ends = vec![in_vain(name, "In", &[EXIT_PERMANENT])];
    let mut init_containers = Vec::new();
    let (mounted, folder) = if ours.options.image_volumes {
        volumes.push(json!({"name": "migrations", "image": {"reference": image.reference}}));
        (pod::IMAGE_DIR, format!("{}{}", pod::IMAGE_DIR, image.path))
    } else {
        volumes.push(json!({"name": "migrations", "emptyDir": {"sizeLimit": COPY_LIMIT}}));
        init_containers.push(json!({
            "name": COPY,
            "image": image.reference,
            // Links are replaced by their targets, which are not in the copy.
            "command": ["cp", "-RL", format!("{}/.", image.path.trim_end_matches('/')), pod::MIGRATIONS_DIR],
            "securityContext": container_security(),
            // The output of cp cannot contain secrets: the container has none.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "migrations", "mountPath": pod::MIGRATIONS_DIR}],
        }));
        ends.push(in_vain(COPY, "NotIn", &[0]));
        (pod::MIGRATIONS_DIR, pod::MIGRATIONS_DIR.to_owned())
    };
    add(&mut worker, "volumeMounts", json!({"name": "migrations", "mountPath": mounted, "readOnly": true}));
    add(&mut worker, "env", json!({"name": pod::ENV_IMAGE_FOLDER, "value": literal(&folder)}));
    JobPod { init_containers, containers: vec![worker], volumes, in_vain: ends }
}
