//! Reads the state of the pooler: its Deployments, the order for its pods, their reports.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::api::names::LABEL_NAME;
use crate::contract::pooler::{HOLD_KEY, Hold, PodReport};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::plan::pooler::COMPONENT;
use crate::operator::validate::Database;

/// How long after its grace period a pod may still be there.
const OVERDUE: SignedDuration = SignedDuration::from_secs(10);

/// The observed state.
#[derive(Default)]
pub struct Observed {
    /// The last order.
    pub hold: Option<Hold>,
    /// The running pods in front of the primary; read only for a change.
    pub pods: Vec<PoolerPod>,
    /// The pods in front of the primary.
    pub primary: Pods,
    /// The pods in front of the replicas.
    pub replicas: Pods,
    /// The trouble that a pod reports.
    pub trouble: Option<String>,
}

/// A pod.
pub struct PoolerPod {
    /// Its name.
    pub name: String,
    /// Its report.
    pub report: Option<PodReport>,
}

/// The number of pods.
#[derive(Default)]
pub struct Pods {
    ready: i32,
    wanted: i32,
}

impl Pods {
    /// `2/2`.
    pub fn text(&self) -> String {
        format!("{}/{}", self.ready, self.wanted)
    }

    /// Whether one serves, or none is wanted.
    pub fn serve(&self) -> bool {
        self.ready > 0 || self.wanted == 0
    }
}

/// Reads the state; the pods only for a change.
///
/// # Errors
/// Errors of the API server.
pub async fn observe(context: &Context, database: &Database, changing: bool) -> Result<Observed, Error> {
    let names = database.names();
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &names.namespace);
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &names.namespace);
    let (pooler, of_replicas) = (names.pooler(), names.replicas_pooler());
    let (orders_name, reports_name) = (names.pooler_orders(), names.pooler_reports());
    let (orders, reports, primary, replicas) = tokio::try_join!(
        config_maps.get_opt(&orders_name),
        config_maps.get_opt(&reports_name),
        deployments.get_opt(&pooler),
        deployments.get_opt(&of_replicas),
    )?;
    let spec = database.pooler.as_ref();
    let wanted = spec.map_or(0, |spec| spec.instances);
    let count = |deployment: Option<Deployment>, wanted: i32| Pods {
        ready: deployment.and_then(|deployment| deployment.status?.ready_replicas).unwrap_or_default(),
        wanted,
    };
    let reports = reports.and_then(|reports| reports.data).unwrap_or_default();
    let report = |pod: &str| serde_json::from_str::<PodReport>(reports.get(pod)?).ok();
    let mut pods = Vec::new();
    if changing {
        let api: Api<Pod> = Api::namespaced(context.client.clone(), &names.namespace);
        let selector = format!("{LABEL_NAME}={},app.kubernetes.io/component={COMPONENT}", names.name);
        let listed = api.list(&ListParams::default().labels(&selector)).await?.items;
        let known: BTreeSet<_> = listed.iter().map(ResourceExt::name_any).collect();
        remove_reports(&config_maps, &names.pooler_reports(), reports.keys().filter(|pod| !known.contains(*pod))).await;
        let of_primary = |pod: &&Pod| pod.labels().get(crate::operator::plan::pooler::LABEL_POOLER) == Some(&pooler);
        pods = listed
            .iter()
            .filter(of_primary)
            .filter(|pod| is_serving(pod, context.now()))
            .map(|pod| pod.name_any())
            .map(|name| {
                let report = report(&name);
                PoolerPod { name, report }
            })
            .collect();
    }
    Ok(Observed {
        hold: orders.and_then(|orders| serde_json::from_str(orders.data?.get(HOLD_KEY)?).ok()),
        pods,
        primary: count(primary, wanted),
        replicas: count(replicas, if spec.is_some_and(|spec| spec.replicas) { wanted } else { 0 }),
        trouble: reports.keys().find_map(|pod| report(pod)?.trouble),
    })
}

/// Whether a pod may have clients: it runs, and was ready, or ends. One whose time to end is over is on a node that
/// is gone.
fn is_serving(pod: &Pod, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    let ends = pod.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    status.phase.as_deref() == Some("Running") && ends.map_or(ready, |at| now < at + OVERDUE)
}

/// Removes the reports of pods that are gone: a killed one could not.
async fn remove_reports<'a>(config_maps: &Api<ConfigMap>, name: &str, gone: impl Iterator<Item = &'a String>) {
    let gone: serde_json::Map<_, _> = gone.map(|pod| (pod.clone(), Value::Null)).collect();
    if gone.is_empty() {
        return;
    }
    let patch = json!({"data": gone});
    if let Err(error) = config_maps.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::debug!(%error, "reports of pods that are gone are left");
    }
}
