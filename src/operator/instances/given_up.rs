//! Deletes the volumes of a scale-down with `storage.scaleDownPolicy: Delete`. The StatefulSet is
//! set to keep them: otherwise any client that scales it would delete data. The operator marks the
//! claims of the instances that it removes, and deletes them one at a time once the remaining
//! instances serve.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{Decision, serves};
use crate::api::ScaleDownPolicy;
use crate::api::names::{FIELD_MANAGER, Names};
use crate::operator::apply::delete_observed;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::plan::RETAIN;
use crate::operator::validate::Database;

/// Annotation of a claim whose instance is removed by a declared scale-down.
pub const ANNOTATION_GIVEN_UP: &str = "servicedb.dev/given-up";

/// Sets a StatefulSet to keep its volumes, which earlier versions and other clients may have
/// changed; returns whether it was changed. This is the first step, also while the resource is
/// paused: it changes no pod.
///
/// # Errors
/// Any error of the API server.
pub async fn keep_volumes(client: &Client, set: &StatefulSet) -> Result<bool, Error> {
    if keeps_volumes(set) {
        return Ok(false);
    }
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({
        "metadata": {"uid": set.uid(), "resourceVersion": set.resource_version()},
        "spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": RETAIN, "whenScaled": RETAIN}},
    });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&name, &parameters, &Patch::Merge(&patch)).await?;
    tracing::info!("set the StatefulSet to keep its volumes when it is scaled");
    Ok(true)
}

fn keeps_volumes(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let keeps = |value: &Option<String>| value.as_deref().is_none_or(|value| value == RETAIN);
    policy.is_none_or(|policy| keeps(&policy.when_deleted) && keeps(&policy.when_scaled))
}

/// Marks the claims of the instances that are removed now, and unmarks those of declared instances.
/// Must be called before the StatefulSet is scaled.
///
/// # Errors
/// Any error of the API server; a claim that changed meanwhile is a conflict, and nothing is scaled.
pub async fn mark(
    client: &Client,
    database: &Database,
    observed: &Observation,
    decision: &Decision,
) -> Result<(), Error> {
    for (claim, given_up) in marks(database, observed, decision) {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &database.names().namespace);
        let value = given_up.then_some("true").map_or(Value::Null, Value::from);
        let patch = json!({"metadata": {
            "uid": claim.uid(),
            "resourceVersion": claim.resource_version(),
            "annotations": {ANNOTATION_GIVEN_UP: value},
        }});
        api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

/// The claims whose mark must change, and whether they are given up.
fn marks<'a>(
    database: &'a Database,
    observed: &'a Observation,
    decision: &Decision,
) -> Vec<(&'a PersistentVolumeClaim, bool)> {
    let deletes = database.storage.scale_down_policy == ScaleDownPolicy::Delete;
    let live = observed.own_set(&database.owner.uid).and_then(replicas).unwrap_or_default();
    let change = |claim: &'a PersistentVolumeClaim| {
        let ordinal = ordinal(database.names(), claim)?;
        let stays = ordinal < database.instances || !deletes;
        let goes = !stays && (decision.replicas..live).contains(&ordinal);
        match is_marked(claim) {
            true if stays => Some((claim, false)),
            false if goes => Some((claim, true)),
            _ => None,
        }
    };
    observed.own_claims(&database.owner.uid).filter_map(change).collect()
}

/// Deletes the next given-up volume, if [`next`] allows one: exactly the claim that was read.
///
/// # Errors
/// Any error of the API server.
pub async fn remove_next(
    client: &Client,
    database: &Database,
    observed: &Observation,
    decision: &Decision,
) -> Result<(), Error> {
    let Some(claim) = next(database, observed, decision) else { return Ok(()) };
    let namespace = &database.names().namespace;
    tracing::info!(claim = claim.name_any(), "deleting the volume of a removed instance");
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
    delete_observed(&api, &claim.name_any(), DeleteParams::default(), preconditions).await
}

/// The claim that is deleted next: of an instance that was removed by a declared scale-down and has
/// no pod, while every remaining instance serves, one of them is the primary, and, if commits wait
/// for a standby, another one is the standby.
pub fn next<'a>(
    database: &'a Database,
    observed: &'a Observation,
    decision: &Decision,
) -> Option<&'a PersistentVolumeClaim> {
    let (names, instances) = (database.names(), database.instances);
    if database.storage.scale_down_policy != ScaleDownPolicy::Delete
        || decision.replicas != instances
        || observed.own_set(&database.owner.uid).filter(|set| is_observed(set)).and_then(replicas) != Some(instances)
    {
        return None;
    }
    let primary = observed.primary().filter(|primary| names.is_one_of(&primary.name, instances))?;
    let all_well = |name: &String| {
        let pod = observed.pods.iter().find(|pod| pod.name == *name);
        pod.is_some_and(|pod| serves(pod) && pod.volume_end.is_none())
    };
    if !(0..instances).map(|ordinal| names.pod(ordinal)).all(|name| all_well(&name)) {
        return None;
    }
    let standbys = primary.report.iter().flat_map(|report| &report.synchronous_standbys);
    let stays = |standby: &String| names.is_one_of(standby, instances);
    let (staying, leaving): (Vec<_>, Vec<_>) = standbys.partition(|standby| stays(standby));
    if !leaving.is_empty() || (database.synchronous && instances > 1 && staying.is_empty()) {
        return None;
    }
    let gone = |claim: &&PersistentVolumeClaim| {
        let ordinal = ordinal(names, claim);
        ordinal.is_some_and(|ordinal| {
            ordinal >= instances && !observed.pods.iter().any(|pod| pod.name == names.pod(ordinal))
        })
    };
    let given_up: Vec<_> =
        observed.own_claims(&database.owner.uid).filter(|claim| is_marked(claim)).filter(gone).collect();
    // One at a time.
    if given_up.iter().any(|claim| claim.metadata.deletion_timestamp.is_some()) {
        return None;
    }
    given_up.into_iter().max_by_key(|claim| ordinal(names, claim))
}

fn replicas(set: &StatefulSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

/// Whether its controller has observed the current spec.
fn is_observed(set: &StatefulSet) -> bool {
    set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation
}

fn is_marked(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().contains_key(ANNOTATION_GIVEN_UP)
}

fn ordinal(names: &Names, claim: &PersistentVolumeClaim) -> Option<i32> {
    names.ordinal(claim.name_any().strip_prefix("data-")?)
}
