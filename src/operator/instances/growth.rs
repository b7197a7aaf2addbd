//! Expands volumes: the claims first, then the StatefulSet, which is recreated without deleting its
//! pods, since its claim template cannot be changed. A claim that another client made larger, such
//! as an autoscaler, is kept: a volume cannot shrink.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::api::conditions::reason;
use crate::operator::apply::object::stamped_uid;
use crate::operator::apply::quantity::bytes;
use crate::operator::context::error::Error;
use crate::operator::observe::{Observation, requested};
use crate::operator::status::condition::ConditionState;
use crate::operator::validate::Database;

/// The state of the volumes.
pub struct Volumes {
    /// The size of a new volume.
    pub size: Quantity,
    /// The resource's uid on a new volume; an earlier resource's until an adopted StatefulSet has
    /// been recreated.
    pub uid: String,
    /// Why they differ from the declaration; none if they match, or are larger.
    pub difference: Option<ConditionState>,
    /// Whether the StatefulSet must be recreated, keeping its pods ([`renew`]).
    pub must_renew: bool,
    /// Whether the StatefulSet is being deleted for its recreation.
    pub set_is_deleted: bool,
}

/// Expands the volumes to the declared size, one step per call. The StatefulSet is recreated only
/// if no other change is in progress (`calm`): while it does not exist, nothing records its number
/// of pods.
///
/// # Errors
/// Errors of the API server.
pub async fn grow(client: &Client, database: &Database, observed: &Observation, calm: bool) -> Result<Volumes, Error> {
    let wanted = &database.storage.size;
    let claims: Vec<_> = observed.own_claims(&database.owner.uid).collect();
    let live = observed.own_set(&database.owner.uid);
    let in_set = live.and_then(size_in);
    // A new instance clones the leader, so its volume is as large as the largest.
    let largest = observed.volume_size(&database.owner.uid).filter(|largest| bytes(largest) > bytes(wanted));
    let for_new = largest.unwrap_or_else(|| wanted.clone());
    let uid = database.owner.uid.clone();
    let mut volumes =
        Volumes { size: for_new.clone(), uid, difference: None, must_renew: false, set_is_deleted: false };
    if let Some(uid) = live.and_then(uid_in) {
        uid.clone_into(&mut volumes.uid);
    }
    let smaller = || claims.iter().filter(|claim| requested(claim).is_some_and(|size| bytes(&size) < bytes(wanted)));
    // All or none: once one volume has the size, it cannot be reduced.
    for claim in smaller() {
        if let Err(difference) = can_grow(client, claim).await? {
            let kept = in_set.or_else(|| requested(claim)).unwrap_or_else(|| wanted.clone());
            return Ok(Volumes { size: kept, difference: Some(difference), ..volumes });
        }
    }
    // A claim can be resized only once it is bound.
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    for claim in smaller().filter(|claim| bound(claim)) {
        ask(client, database, claim).await?;
    }
    // The claim of a stopped instance is expanded when it is mounted again.
    let mounted = |claim: &&&PersistentVolumeClaim| {
        let of = |pod: &str| database.names().ordinal(pod).map(|ordinal| database.names().volume_claim(ordinal));
        observed.pods.iter().any(|pod| of(&pod.name) == Some(claim.name_any()))
    };
    let behind = claims.iter().filter(mounted).filter(|claim| is_behind(claim, wanted));
    let behind: Vec<_> = behind.map(|claim| describe(claim)).collect();
    if !behind.is_empty() {
        let message = format!("volumes are being expanded to {}: {}", wanted.0, behind.join("; "));
        volumes.difference = Some(ConditionState::no(reason::VOLUME_GROWING, message));
    }
    if let Some(live) = live {
        if live.metadata.deletion_timestamp.is_some() {
            volumes.set_is_deleted = true;
        } else {
            volumes.must_renew = calm && is_of_another_claim(live, &database.owner.uid, &for_new);
            // It is kept until the next reconcile observes its recreation.
            volumes.size = in_set.unwrap_or(volumes.size);
        }
    }
    Ok(volumes)
}

/// The size of the smallest volume in bytes: the declared size, or less if a volume was not
/// expanded yet.
pub fn smallest(database: &Database, observed: &Observation) -> Option<u64> {
    let capacities = observed.own_claims(&database.owner.uid).filter_map(capacity).filter_map(bytes);
    capacities.filter_map(|size| u64::try_from(size).ok()).chain(database.volume_bytes).min()
}

/// The StatefulSet's claim template.
fn claim_in(set: &StatefulSet) -> Option<&PersistentVolumeClaim> {
    set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()
}

/// The size of a new volume in the StatefulSet.
fn size_in(set: &StatefulSet) -> Option<Quantity> {
    claim_in(set).and_then(requested)
}

/// The uid on a new volume of the StatefulSet: the uid of the resource that it was created for.
fn uid_in(set: &StatefulSet) -> Option<&str> {
    stamped_uid(&claim_in(set)?.metadata)
}

async fn can_grow(client: &Client, claim: &PersistentVolumeClaim) -> Result<Result<(), ConditionState>, Error> {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
    let found = match class.as_str() {
        "" => None,
        name => Api::<StorageClass>::all(client.clone()).get_opt(name).await?,
    };
    if found.as_ref().is_some_and(|found| found.allow_volume_expansion == Some(true)) {
        return Ok(Ok(()));
    }
    let why = if found.is_some() { "does not allow volume expansion (allowVolumeExpansion)" } else { "does not exist" };
    let now = requested(claim).map(|size| size.0).unwrap_or_default();
    let message = format!(
        "the StorageClass {class:?} of {} {why}: ask its administrator to allow it, or set spec.storage.size back to \
         {now}",
        claim.name_any()
    );
    Ok(Err(ConditionState::no(reason::VOLUME_CANNOT_GROW, message)))
}

async fn ask(client: &Client, database: &Database, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &database.names().namespace);
    let patch = json!({
        "metadata": {"uid": claim.uid(), "resourceVersion": claim.resource_version()},
        "spec": {"resources": {"requests": {"storage": database.storage.size}}},
    });
    tracing::info!(claim = claim.name_any(), size = database.storage.size.0, "expanding a volume");
    api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Whether a bound claim's volume is smaller than declared.
fn is_behind(claim: &PersistentVolumeClaim, wanted: &Quantity) -> bool {
    capacity(claim).is_some_and(|capacity| bytes(capacity) < bytes(wanted))
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage")
}

fn describe(claim: &PersistentVolumeClaim) -> String {
    let capacity = capacity(claim).map_or("unknown", |capacity| capacity.0.as_str());
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = conditions.and_then(|conditions| conditions.iter().find(|condition| condition.status == "True"));
    let why = condition.map(|condition| {
        let message = condition.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!(" ({}{message})", condition.type_)
    });
    format!("{} has {capacity}{}", claim.name_any(), why.unwrap_or_default())
}

/// Whether the claim template of the StatefulSet has another size, or the uid of another resource,
/// as after an adoption.
fn is_of_another_claim(live: &StatefulSet, uid: &str, size: &Quantity) -> bool {
    let has_size = size_in(live).is_none_or(|in_set| bytes(&in_set) == bytes(size));
    !has_size || uid_in(live).is_some_and(|of| of != uid)
}

/// Deletes the StatefulSet without its pods: they continue to run, and the next StatefulSet selects
/// them by their labels.
///
/// # Errors
/// Errors of the API server.
pub async fn renew(client: &Client, database: &Database, live: &StatefulSet) -> Result<(), Error> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &database.names().namespace);
    let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
    tracing::info!(
        stateful_set = live.name_any(),
        "recreating the StatefulSet without its pods: its claim template has another size or owner"
    );
    match api.delete(&live.name_any(), &DeleteParams::orphan().preconditions(preconditions)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
