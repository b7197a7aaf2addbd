//! Prepares a pod for its eviction, for autoscalers that try an eviction by dry run before they
//! cordon a node. An annotation requests it; the lead is handed over as on a node that is drained;
//! another annotation has the answer whether the PodDisruptionBudgets allow the eviction.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::situation::{Decision, Situation, serves};
use crate::api::names::ANNOTATION_EVICTION;
use crate::contract::order::Action;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::validate::Database;

/// The pods whose answer differs from their annotation, with the new answer; none removes the
/// annotation.
pub fn answers<'a>(situation: &'a Situation<'_>, decision: &Decision) -> Vec<(&'a DatabasePod, Option<String>)> {
    let pods = situation.observed.pods.iter().filter(|pod| !pod.terminating);
    let answer = |pod: &DatabasePod| pod.eviction_asked.then(|| answer(situation, decision, pod));
    pods.map(|pod| (pod, answer(pod))).filter(|(pod, answer)| pod.eviction_answer != *answer).collect()
}

/// Whether a pod may be evicted now; if not, whether it becomes possible without action.
fn answer(situation: &Situation<'_>, decision: &Decision, pod: &DatabasePod) -> String {
    if decision.keep_pods {
        return "Refused: one of the pods has the only copy of the data".to_owned();
    }
    // One instance has no budget; an eviction interrupts its clients until the restart.
    if situation.database.instances == 1 {
        return "Ready: it is the only instance, without a PodDisruptionBudget".to_owned();
    }
    let Some(primary) = situation.observed.primary() else {
        return "Waiting: no instance is the primary".to_owned();
    };
    if primary.name == pod.name {
        if let Some(Action::Switchover { to, .. }) = decision.order.as_ref().map(|order| &order.action) {
            return format!("Waiting: it hands over the lead to {to}");
        }
        return match situation.successor() {
            Ok(other) if situation.observed.drains(other) => {
                format!("Refused: it is the primary, and the candidate {} is to be evicted too", other.name)
            }
            Ok(other) => format!("Waiting: it is the primary until {} can take over", other.name),
            Err(why) => format!("Refused: it is the primary, and {why}"),
        };
    }
    if pod.labelled_primary {
        return "Waiting: Patroni has not removed the primary's label from it yet".to_owned();
    }
    let others = || situation.members().filter(|other| other.name != pod.name && other.name != primary.name);
    // With two instances, no budget protects the replica.
    if situation.database.instances > 2
        && pod.ready
        && let Some(unready) = others().find(|other| !serves(other))
    {
        return format!("Waiting: {} does not serve, and only one replica at a time may be evicted", unready.name);
    }
    format!("Ready: {} is the primary", primary.name)
}

/// Writes an answer to its pod's annotation.
///
/// # Errors
/// Any error of the API server; a missing pod is no error.
pub async fn write_answer(
    context: &Context,
    database: &Database,
    pod: &DatabasePod,
    answer: Option<&str>,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let patch = json!({"metadata": {"uid": pod.uid, "annotations": {ANNOTATION_EVICTION: answer}}});
    tracing::info!(pod = pod.name, answer, "writing the answer to a request for eviction");
    match api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
