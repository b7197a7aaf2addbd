//! Restores the owner reference of an object that lost it.

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::object::Owner;
use crate::api::ServiceDatabase;
use crate::operator::context::error::Error;

/// Whether the resource exists and is not being deleted. Otherwise a reconcile that began before a
/// deletion with `--cascade=orphan` would give objects, and with them the data, back to a resource
/// that is being deleted. The garbage collector removes owner references only after the deletion
/// timestamp is set, so this check is sufficient.
///
/// # Errors
/// Errors of the API server.
pub async fn is_lasting(client: &Client, owner: &Owner) -> Result<bool, Error> {
    let api: Api<ServiceDatabase> = Api::namespaced(client.clone(), &owner.names.namespace);
    let live = api.get_opt(&owner.names.name).await?;
    Ok(live.is_some_and(|live| {
        live.uid().as_deref() == Some(owner.uid.as_str()) && live.metadata.deletion_timestamp.is_none()
    }))
}

/// Makes the resource the controller of an object that [`Owner::is_without_owner`] accepts; other
/// references are kept. Only the object that was read is changed.
///
/// # Errors
/// Errors of the API server; an object that has changed since is a conflict.
pub async fn take_back<K>(api: &Api<K>, owner: &Owner, live: &K) -> Result<K, Error>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut references: Vec<Value> =
        live.owner_references().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    references.push(owner.reference());
    let patch = json!({"metadata": {
        "uid": live.uid(),
        "resourceVersion": live.resource_version(),
        "ownerReferences": references,
    }});
    Ok(api.patch(&live.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?)
}
