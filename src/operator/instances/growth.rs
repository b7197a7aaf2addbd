//! Volumes that grow: the claims first, then the StatefulSet, which is made anew round its pods,
//! since the size in it cannot be changed.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::api::conditions::reason;
use crate::operator::apply::quantity::bytes;
use crate::operator::context::error::Error;
use crate::operator::observe::{Observation, requested};
use crate::operator::status::condition::ConditionState;
use crate::operator::validate::Database;

/// What is known of the volumes.
pub struct Volumes {
    /// The size of a new one.
    pub size: Quantity,
    /// Why they are not as declared; none if they are.
    pub word: Option<ConditionState>,
    /// Whether the StatefulSet is on its way out, to be made anew.
    pub set_is_going: bool,
}

/// Lets the volumes grow to the declared size, a step further with each call. Only where all is
/// `calm` the StatefulSet is made anew: while there is none, nothing tells how many pods it had.
///
/// # Errors
/// Whatever the API server said.
pub async fn grow(client: &Client, database: &Database, observed: &Observation, calm: bool) -> Result<Volumes, Error> {
    let wanted = &database.storage.size;
    let claims: Vec<_> = observed.own_claims(&database.owner.uid).collect();
    let live = observed.own_set(&database.owner.uid);
    let in_set = live.and_then(size_in);
    let mut volumes = Volumes { size: wanted.clone(), word: None, set_is_going: false };
    if let Some(largest) = observed.volume_size(&database.owner.uid).filter(|largest| bytes(largest) > bytes(wanted)) {
        let message = format!(
            "spec.storage.size is {}, and the volumes have {}: a volume can grow, and never shrink; set it back",
            wanted.0, largest.0
        );
        let size = in_set.unwrap_or(largest);
        return Ok(Volumes { size, word: Some(ConditionState::no(reason::INVALID_SPEC, message)), ..volumes });
    }
    let smaller = || claims.iter().filter(|claim| requested(claim).is_some_and(|size| bytes(&size) < bytes(wanted)));
    // All or none: the size could not be set back once one volume has it.
    for claim in smaller() {
        if let Err(word) = can_grow(client, claim).await? {
            let kept = in_set.or_else(|| requested(claim)).unwrap_or_else(|| wanted.clone());
            return Ok(Volumes { size: kept, word: Some(word), ..volumes });
        }
    }
    // One that is not bound yet cannot be resized, and is asked once it is.
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    for claim in smaller().filter(|claim| bound(claim)) {
        ask(client, database, claim).await?;
    }
    // The claim of an instance that is not there grows when it is mounted again.
    let mounted = |claim: &&&PersistentVolumeClaim| {
        let of = |pod: &str| database.names().ordinal(pod).map(|ordinal| database.names().volume_claim(ordinal));
        observed.pods.iter().any(|pod| of(&pod.name) == Some(claim.name_any()))
    };
    let behind = claims.iter().filter(mounted).filter(|claim| is_behind(claim, wanted));
    let behind: Vec<_> = behind.map(|claim| told(claim)).collect();
    if !behind.is_empty() {
        let message = format!("volumes grow to {}: {}", wanted.0, behind.join("; "));
        volumes.word = Some(ConditionState::no(reason::VOLUME_GROWING, message));
    }
    if let Some(live) = live {
        if live.metadata.deletion_timestamp.is_some() {
            volumes.set_is_going = true;
        } else if calm {
            volumes.set_is_going = renew(client, database, live).await?;
        } else if let Some(size) = in_set {
            volumes.size = size;
        }
    }
    Ok(volumes)
}

/// The size of the smallest of the volumes in bytes: as declared, or less where one has not grown.
pub fn smallest(database: &Database, observed: &Observation) -> Option<u64> {
    let capacities = observed.own_claims(&database.owner.uid).filter_map(capacity).filter_map(bytes);
    capacities.filter_map(|size| u64::try_from(size).ok()).chain(database.volume_bytes).min()
}

/// The size of a new volume as the StatefulSet has it.
fn size_in(set: &StatefulSet) -> Option<Quantity> {
    set.spec.as_ref()?.volume_claim_templates.as_ref()?.first().and_then(requested)
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
    let why = if found.is_some() { "does not let volumes grow (allowVolumeExpansion)" } else { "does not exist" };
    let now = requested(claim).map(|size| size.0).unwrap_or_default();
    let message = format!(
        "the StorageClass {class:?} of {} {why}: have its administrator allow it, or set spec.storage.size back to {now}",
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
    tracing::info!(claim = claim.name_any(), size = database.storage.size.0, "letting a volume grow");
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

fn told(claim: &PersistentVolumeClaim) -> String {
    let capacity = capacity(claim).map_or("unknown", |capacity| capacity.0.as_str());
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = conditions.and_then(|conditions| conditions.iter().find(|condition| condition.status == "True"));
    let why = condition.map(|condition| {
        let message = condition.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!(" ({}{message})", condition.type_)
    });
    format!("{} has {capacity}{}", claim.name_any(), why.unwrap_or_default())
}

/// Takes the StatefulSet from its pods, if the size in it is another; they run on, and the next
/// one finds them by their labels. Whether it is on its way out.
async fn renew(client: &Client, database: &Database, live: &StatefulSet) -> Result<bool, Error> {
    if size_in(live).is_none_or(|size| bytes(&size) == bytes(&database.storage.size)) {
        return Ok(false);
    }
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &database.names().namespace);
    let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
    tracing::info!(stateful_set = live.name_any(), "making the StatefulSet anew with another volume size");
    match api.delete(&live.name_any(), &DeleteParams::orphan().preconditions(preconditions)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
