//! What the agents report on their pods.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};

use crate::api::ServiceDatabase;
use crate::api::names::ANNOTATION_REPORT;
use crate::contract::report::Report;

/// The report of a pod's agent; one of an earlier pod of this name is ignored.
pub fn of_pod(pod: &Pod) -> Option<Report> {
    let report: Report = serde_json::from_str(pod.annotations().get(ANNOTATION_REPORT)?).ok()?;
    (pod.uid()? == report.pod_uid).then_some(report)
}

/// The report of the primary's agent; none if there is none, or this user may not read pods.
pub async fn of_primary(client: &Client, namespace: &str, resource: &ServiceDatabase) -> Option<Report> {
    let primary = resource.status.as_ref()?.primary.as_deref()?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    of_pod(&pods.get_opt(primary).await.ok()??)
}
