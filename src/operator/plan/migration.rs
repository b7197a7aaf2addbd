//! The migration Job, and the ConfigMap with the revision that it applies.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::drift;
use super::job::{EXIT_PERMANENT, JobPod, Ours, add, in_vain, literal};
use super::tool;
use super::workload::{container_security, pod_security};
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
/// The init container that copies them out of an image.
pub const COPY: &str = "copy";
/// How often a Job is tried again by Kubernetes, when its cause is one that passes.
const BACKOFF_LIMIT: i32 = 4;
/// How much may be copied out of an image.
const COPY_LIMIT: &str = "128Mi";

/// The names of the ConfigMaps that hold one revision: as many as it is declared in, since
/// one holds a MiB at most, and none where the operator does not read the files. They follow
/// from what each holds, for none is ever changed.
pub fn copies(database: &Database, revision: &str, parts: &[BTreeMap<String, String>]) -> Vec<String> {
    let names = database.names();
    match parts {
        [] => Vec::new(),
        [_] => vec![names.migrations_config_map(revision)],
        parts => {
            let split: Vec<Vec<&str>> = parts.iter().map(|part| part.keys().map(String::as_str).collect()).collect();
            let split = migration::hash(&[revision, &format!("{split:?}")]);
            (0..parts.len()).map(|part| format!("{}-{part}", names.migrations_config_map(&split))).collect()
        }
    }
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

/// What a Job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To bring the migrations to the database.
    Apply,
    /// To compare its schema with what they give.
    Compare,
}

/// The Job for one revision; `copies` are the ConfigMaps that hold it, where it is in ConfigMaps.
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
        // It is made again at its next time.
        Purpose::Compare => (names.drift_job(), drift::pod(database, pod), 0),
    };
    let secrets = options.image_pull_secrets.iter().chain(own_secrets.iter().map(|secret| &secret.name));
    let mut job = json!({
        "metadata": {"labels": {"app.kubernetes.io/component": COMPONENT}},
        "spec": {
            "backoffLimit": backoff_limit,
            "podFailurePolicy": {"rules": rules(&pod)},
            "template": template(database, options, pod, secrets.map(|name| json!({"name": name})).collect()),
        },
    });
    if purpose == Purpose::Compare {
        job["spec"]["activeDeadlineSeconds"] = drift::DEADLINE_SECONDS.into();
        // Whoever reads what it found knows what it was asked.
        job["metadata"]["annotations"] = json!({drift::ANNOTATION_GOAL: policy.goal(revision)});
        if let Some(token) = &migrations.drift_request {
            job["metadata"]["annotations"][ANNOTATION_CHECK_DRIFT] = token.clone().into();
        }
    }
    Planned::new::<Job>(&database.owner, name, job)
}

/// A pod that was evicted, or whose node is gone, is no failure of the migrations.
fn rules(pod: &JobPod) -> Vec<Value> {
    let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    std::iter::once(disrupted).chain(pod.in_vain.iter().cloned()).collect()
}

fn template(database: &Database, options: &Options, pod: JobPod, secrets: Vec<Value>) -> Value {
    let mut labels = json!({"app.kubernetes.io/component": COMPONENT});
    for (key, value) in database.owner.labels() {
        labels[key] = value.into();
    }
    let mut spec = json!({
        "serviceAccountName": database.names().migrator(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "Never",
        "securityContext": pod_security(options),
        "containers": pod.containers,
        "volumes": pod.volumes,
    });
    if !pod.init_containers.is_empty() {
        spec["initContainers"] = pod.init_containers.into();
    }
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = secrets.into();
    }
    if !database.scheduling.tolerations.is_empty() {
        spec["tolerations"] = json!(database.scheduling.tolerations);
    }
    json!({"metadata": {"labels": labels}, "spec": spec})
}

/// The container that reads the files: its name, and the part of `servicedb migrate` that it does.
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

/// The image as a volume, or, where nodes cannot do that, copied by a container of its own.
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
            // What links point to, for it is not there any more when they are read.
            "command": ["cp", "-RL", format!("{}/.", image.path.trim_end_matches('/')), pod::MIGRATIONS_DIR],
            "securityContext": container_security(),
            // What cp said: nothing of it can be secret, since the container has nothing that is.
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
