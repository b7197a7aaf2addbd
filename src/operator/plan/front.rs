//! What the pods in front of a database, the pooler's and the gateway's, have in common.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::workload::affinity_to_nodes;
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The label of a pod's component.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";

/// A Deployment. `pod` is the spec of its pods, which are scheduled as the instances are, on different nodes if possible.
pub fn deployment(
    database: &Database,
    options: &Options,
    name: String,
    (instances, selector): (i32, &Value),
    (metadata, mut pod): (Value, Value),
) -> Planned {
    let scheduling = &database.scheduling;
    let mut affinity = affinity_to_nodes(scheduling).unwrap_or_else(|| json!({}));
    affinity["podAntiAffinity"] = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}},
    }]});
    pod["affinity"] = affinity;
    if !options.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = options.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    if !scheduling.tolerations.is_empty() {
        pod["tolerations"] = json!(scheduling.tolerations);
    }
    if let Some(class) = &scheduling.priority_class_name {
        pod["priorityClassName"] = class.clone().into();
    }
    Planned::new::<Deployment>(
        &database.owner,
        name,
        json!({"spec": {
            "replicas": instances,
            "selector": {"matchLabels": selector},
            // A new pod first: a single one is replaced without a gap.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": metadata, "spec": pod},
        }}),
    )
}

/// Its PodDisruptionBudget: one pod at a time.
pub fn budget(database: &Database, name: String, selector: &Value) -> Planned {
    Planned::new::<PodDisruptionBudget>(
        &database.owner,
        name,
        json!({"spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }}),
    )
}
