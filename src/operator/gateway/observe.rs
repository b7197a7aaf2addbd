//! Reads the state of the gateway: its Deployment, what keeps its pods, and the issuer of its callers' tokens.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Deserialize;

use crate::api::names::{LABEL_NAME, Names};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::pods::unschedulable;
use crate::operator::plan::gateway::COMPONENT;

/// The maximum length of a message of a container in a condition.
const MAXIMUM_MESSAGE: usize = 300;
/// The discovery document of the API server's tokens (RFC 8414).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The gateway's pods.
#[derive(Default)]
pub struct Pods {
    /// How many are ready.
    pub ready: i32,
    /// What keeps one from it, if not all are ready with the present settings.
    pub trouble: Option<String>,
}

/// Reads the pods; each of them only if not all are ready with the present settings.
///
/// # Errors
/// Errors of the API server.
pub async fn pods(context: &Context, names: &Names, wanted: i32, now: Timestamp) -> Result<Pods, Error> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &names.namespace);
    let Some(deployment) = deployments.get_opt(&names.gateway()).await? else { return Ok(Pods::default()) };
    let (generation, Some(status)) = (deployment.metadata.generation, deployment.status) else {
        return Ok(Pods::default());
    };
    let ready = status.ready_replicas.unwrap_or_default();
    let is_current = status.observed_generation == generation && status.updated_replicas >= Some(wanted);
    if ready >= wanted && is_current {
        return Ok(Pods { ready, trouble: None });
    }
    // A pod that cannot be created, such as for a quota.
    let mut conditions = status.conditions.into_iter().flatten();
    let refused = conditions.find(|it| it.type_ == "ReplicaFailure" && it.status == "True");
    if let Some(message) = refused.and_then(|condition| condition.message) {
        return Ok(Pods { ready, trouble: Some(message) });
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &names.namespace);
    let selector = format!("{LABEL_NAME}={},app.kubernetes.io/component={COMPONENT}", names.name);
    let listed = api.list(&ListParams::default().labels(&selector)).await?.items;
    Ok(Pods { ready, trouble: listed.iter().find_map(|pod| trouble(pod, now)) })
}

fn trouble(pod: &Pod, now: Timestamp) -> Option<String> {
    if let Some(message) = unschedulable(pod, now) {
        return Some(message);
    }
    let name = pod.name_any();
    let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.find_map(|status| {
        // The end of its log, if it has ended.
        let states = [&status.state, &status.last_state].into_iter().flatten();
        let mut ended = states.filter_map(|state| state.terminated.as_ref()?.message.as_deref());
        if let Some(message) = ended.next() {
            return Some(format!("pod {name} ended: {}", end(message)));
        }
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let why = waiting.reason.as_deref().filter(|why| !["PodInitializing", "ContainerCreating"].contains(why))?;
        Some(format!("pod {name}: {why}: {}", end(waiting.message.as_deref().unwrap_or_default())))
    })
}

/// The end of a text, on one line.
fn end(text: &str) -> String {
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(MAXIMUM_MESSAGE);
    text.chars().skip(skipped).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The issuer of the cluster's ServiceAccount tokens, read once.
///
/// # Errors
/// If the API server does not tell.
pub async fn issuer(context: &Context) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let read = async || {
        let request = http::Request::get(DISCOVERY).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let discovery: Discovery = context.client.request(request).await?;
        Ok::<_, kube::Error>(discovery.issuer)
    };
    Ok(context.issuer.get_or_try_init(read).await?.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(state: Value, last_state: Value) -> Option<String> {
        let status = json!({"containerStatuses": [{"name": "gateway", "image": "i", "imageID": "", "ready": false,
            "restartCount": 1, "state": state, "lastState": last_state}]});
        let pod = json!({"metadata": {"name": "chat-db-gateway-1"}, "status": status});
        trouble(&serde_json::from_value(pod).expect("a pod"), Timestamp::now())
    }

    #[test]
    fn what_keeps_a_pod_is_named() {
        assert_eq!(of(json!({"waiting": {"reason": "ContainerCreating"}}), json!({})), None);
        let pull = of(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}), json!({}));
        assert_eq!(pull.expect("a reason"), "pod chat-db-gateway-1: ImagePullBackOff: no such image");
        let ended = json!({"terminated": {"exitCode": 1, "message": "gateway.yaml: schemas: name at least one\n"}});
        let crashed = of(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}), ended);
        assert_eq!(crashed.expect("a reason"), "pod chat-db-gateway-1 ended: gateway.yaml: schemas: name at least one");
    }
}
