//! Applies one object: creates it by POST, changes it by server-side apply, and removes additions
//! by a merge patch. Objects of other owners are never taken over.

pub mod compare;
pub mod failures;
pub mod object;
pub mod ownership;
pub mod quantity;
pub mod secrets;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::context::Context;
use crate::api::names::FIELD_MANAGER;
use crate::operator::apply::compare::{contains, is_whole, parts, restoration};
use crate::operator::apply::object::{ANNOTATION_APPLIED, Change, Owner, Planned, conflict, short_hash};
use crate::operator::apply::ownership::is_lasting;
use crate::operator::context::cache::ABSENT;
use crate::operator::context::error::Error;

/// The field manager of fields that are set at creation only.
const CREATION_MANAGER: &str = "servicedb-creation";

/// Applies the plan of one object, which may be its absence.
///
/// # Errors
/// [`Error::ObjectConflict`] if an object of this name belongs to another owner; it is not changed.
/// Otherwise any error of the API server.
pub async fn apply(context: &Context, owner: &Owner, planned: &Planned) -> Result<Change, Error> {
    if !planned.present {
        return remove(context, owner, planned).await;
    }
    let (sealed, hash) = planned.sealed();
    let kind = planned.resource.kind.as_str();
    if context.cache.is_as_planned(owner, kind, &planned.name, &hash) {
        return Ok(Change::Unchanged);
    }
    context.cache.begin_observation(owner, kind, &planned.name);
    let (change, live) = apply_to_live(context, owner, planned, &sealed, &hash).await?;
    context.cache.record(owner, kind, &planned.name, hash, live.resource_version);
    if kind == "ServiceAccount" && planned.name == owner.names.base() {
        context.cache.record_account(&owner.uid, live.creation_timestamp.map(|made| made.0));
    }
    Ok(change)
}

/// The same without the cache, for an object that was read and is absent, or was not read: the
/// watch may have missed its deletion.
///
/// # Errors
/// As of [`apply`].
pub async fn apply_uncached(context: &Context, owner: &Owner, planned: &Planned) -> Result<Change, Error> {
    context.cache.invalidate_gone(&owner.names.namespace, &planned.resource.kind, &planned.name);
    apply(context, owner, planned).await
}

/// Returns the change, and the object's metadata.
async fn apply_to_live(
    context: &Context,
    owner: &Owner,
    planned: &Planned,
    sealed: &Value,
    hash: &str,
) -> Result<(Change, ObjectMeta), Error> {
    let client = context.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &owner.names.namespace, &planned.resource);
    let live = match api.get_opt(&planned.name).await? {
        Some(live) => live,
        None => match create(&api, planned, sealed).await {
            Ok(made) => return Ok((Change::Created, made.metadata)),
            // Another client created it between the read and the POST.
            Err(error) if is_conflict(&error, "AlreadyExists") => api.get(&planned.name).await?,
            Err(error) => return Err(error.into()),
        },
    };
    let is_ours = owner.owns(&planned.ownership, &live.metadata)
        || (owner.may_mark_again(planned, &live.metadata) && is_lasting(&context.client, owner).await?);
    if !is_ours {
        return Err(conflict(&planned.resource.kind, &planned.name, &live.metadata));
    }
    let content = serde_json::to_value(&live)?;
    let kind = planned.resource.kind.as_str();
    let stored_hash = |content: &Value| short_hash(&parts(kind, content));
    let is_stored = context.cache.is_as_stored(owner, kind, &planned.name, &stored_hash(&content));
    let is_whole = |content: &Value| is_whole(kind, content, &planned.body);
    let is_applied = live.annotations().get(ANNOTATION_APPLIED).is_some_and(|applied| applied == hash);
    let is_contained = || contains(&content, &planned.body) && is_whole(&content);
    if is_applied && contains(&content["metadata"], &planned.body["metadata"]) && (is_stored || is_contained()) {
        return Ok((Change::Unchanged, live.metadata));
    }
    if must_be_recreated(kind, &content, &planned.body) {
        let made = replace(&api, planned, sealed, &live).await?;
        return Ok((Change::Updated, made.metadata));
    }
    let mut live = live;
    if is_applied {
        tracing::info!(kind, object = planned.name, "an object was changed by another client; restoring it");
        match restore(&api, planned, &live).await {
            Err(error) if is_invalid(&error) && may_be_replaced(kind) && is_valid(&api, planned, sealed).await? => {
                tracing::warn!(kind, object = planned.name, %error, "an object cannot be restored; replacing it");
                let made = replace(&api, planned, sealed, &live).await?;
                return Ok((Change::Updated, made.metadata));
            }
            restored => live = restored?.unwrap_or(live),
        }
        let content = serde_json::to_value(&live)?;
        if contains(&content, &planned.body) && is_whole(&content) {
            return Ok((Change::Updated, live.metadata));
        }
    }
    own_created_fields(&api, &live).await?;
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patched = match api.patch(&planned.name, &parameters, &Patch::Apply(sealed)).await {
        // An addition conflicts with the new plan, such as a port of the same name.
        Err(error) if is_conflict(&error, "Invalid") && !is_applied && !is_whole(&content) => {
            restore(&api, planned, &live).await?;
            api.patch(&planned.name, &parameters, &Patch::Apply(sealed)).await?
        }
        patched => patched?,
    };
    let Some(restored) = restore(&api, planned, &patched).await? else {
        return Ok((Change::Updated, patched.metadata));
    };
    let content = serde_json::to_value(&restored)?;
    if !is_whole(&content) {
        // The API server has added fields again: a default of a newer version, or an admission
        // webhook.
        context.cache.record_stored(owner, kind, &planned.name, stored_hash(&content), restored.metadata.generation);
    }
    Ok((Change::Updated, restored.metadata))
}

/// Restores the parts that are compared as a whole; returns the stored object, or none if nothing
/// had to be restored.
async fn restore(
    api: &Api<DynamicObject>,
    planned: &Planned,
    live: &DynamicObject,
) -> Result<Option<DynamicObject>, Error> {
    let content = serde_json::to_value(live)?;
    let Some(mut patch) = restoration(&planned.resource.kind, &content, &planned.body) else { return Ok(None) };
    patch["metadata"]["uid"] = json!(live.uid());
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    Ok(Some(api.patch(&planned.name, &parameters, &Patch::Merge(&patch)).await?))
}

/// Deletes an object and creates it as planned.
async fn replace(
    api: &Api<DynamicObject>,
    planned: &Planned,
    sealed: &Value,
    live: &DynamicObject,
) -> Result<DynamicObject, Error> {
    delete_exactly(api, live).await?;
    Ok(create(api, planned, sealed).await?)
}

/// Objects without state, whose short absence during a replacement has no effect.
fn may_be_replaced(kind: &str) -> bool {
    ["Service", "NetworkPolicy", "PodDisruptionBudget", "Role", "RoleBinding", "ConfigMap"].contains(&kind)
}

/// Whether the API server accepts the plan, by a dry run of the creation: an object must not be
/// deleted for a plan that is refused.
async fn is_valid(api: &Api<DynamicObject>, planned: &Planned, sealed: &Value) -> Result<bool, Error> {
    if planned.at_creation.is_some() || planned.known_to_be_ours {
        return Ok(false);
    }
    let object = serde_json::from_value(sealed.clone())?;
    let parameters = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.to_owned()) };
    match api.create(&parameters, &object).await {
        Ok(_) => Ok(true),
        // The API server checks the name last.
        Err(error) if is_conflict(&error, "AlreadyExists") => Ok(true),
        Err(error) if is_conflict(&error, "Invalid") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Kubernetes(error) if is_conflict(error, "Invalid"))
}

/// Whether an immutable field of an object was changed. Only for objects that [`may_be_replaced`].
fn must_be_recreated(kind: &str, live: &Value, wanted: &Value) -> bool {
    match kind {
        "ConfigMap" => live["immutable"] == true && !contains(&live["data"], &wanted["data"]),
        "RoleBinding" => !contains(&live["roleRef"], &wanted["roleRef"]),
        "Service" => {
            wanted["spec"]["clusterIP"].is_string() && live["spec"]["clusterIP"] != wanted["spec"]["clusterIP"]
        }
        _ => false,
    }
}

async fn create(api: &Api<DynamicObject>, planned: &Planned, sealed: &Value) -> Result<DynamicObject, kube::Error> {
    let mut body = sealed.clone();
    if let Some(extra) = &planned.at_creation {
        merge(&mut body, extra);
    }
    // A later apply must not own the fields that are set at creation only.
    let manager = if planned.at_creation.is_some() { CREATION_MANAGER } else { FIELD_MANAGER };
    let object = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    let parameters = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    api.create(&parameters, &object).await
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Moves the ownership of the fields that our POST set to our apply. Otherwise the API server has
/// two managers of one name, and a field removed from the plan is never removed from the object
/// (the problem that client-go's csaupgrade solves in the same way).
async fn own_created_fields(api: &Api<DynamicObject>, live: &DynamicObject) -> Result<(), Error> {
    let mut managed = live.metadata.managed_fields.clone().unwrap_or_default();
    let ours = |entry: &&mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Update")
            && entry.subresource.is_none()
    };
    let applied = managed
        .iter()
        .any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply"));
    match managed.iter_mut().find(ours) {
        Some(entry) if !applied => entry.operation = Some("Apply".to_owned()),
        _ => return Ok(()),
    }
    let patch = json!({"metadata": {"resourceVersion": live.resource_version(), "managedFields": managed}});
    api.patch(&live.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Removes an object of this owner, if it exists; deletes only the object that was read.
async fn remove(context: &Context, owner: &Owner, planned: &Planned) -> Result<Change, Error> {
    let kind = planned.resource.kind.as_str();
    if context.cache.is_as_planned(owner, kind, &planned.name, ABSENT) {
        return Ok(Change::Unchanged);
    }
    context.cache.begin_observation(owner, kind, &planned.name);
    if delete(&context.client, owner, planned).await? {
        return Ok(Change::Deleted);
    }
    context.cache.record(owner, kind, &planned.name, ABSENT.to_owned(), None);
    Ok(Change::Unchanged)
}

/// Deletes an object of this owner; returns whether it existed.
///
/// # Errors
/// Any error of the API server; a missing object is no error.
pub async fn delete(client: &Client, owner: &Owner, planned: &Planned) -> Result<bool, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.names.namespace, &planned.resource);
    let Some(live) = api.get_opt(&planned.name).await? else { return Ok(false) };
    if !owner.owns(&planned.ownership, &live.metadata) {
        return Ok(false);
    }
    delete_exactly(&api, &live).await
}

/// Deletes exactly the object that was read: its uid and resourceVersion are preconditions.
///
/// # Errors
/// Any error of the API server; a missing object is no error.
pub async fn delete_exactly(api: &Api<DynamicObject>, live: &DynamicObject) -> Result<bool, Error> {
    let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
    let parameters = DeleteParams::background().preconditions(preconditions);
    match api.delete(&live.name_any(), &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes exactly the observed object, given as preconditions. If it is missing or has changed
/// since, the next reconcile reads it again.
///
/// # Errors
/// Any other error of the API server.
pub async fn delete_observed<K>(
    api: &Api<K>,
    name: &str,
    parameters: DeleteParams,
    preconditions: Preconditions,
) -> Result<(), Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &parameters.preconditions(preconditions)).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// Whether an API error has this reason.
pub fn is_conflict(error: &kube::Error, reason: &str) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_immutable_field_requires_recreation() {
        let recreated = |kind: &str, live: Value, wanted: Value| must_be_recreated(kind, &live, &wanted);
        let data = |value: &str| json!({"data": {"k": value}});
        assert!(recreated("ConfigMap", json!({"immutable": true, "data": {}}), data("v")));
        assert!(
            !recreated("ConfigMap", json!({"immutable": true, "data": {"k": "v"}}), data("v")),
            "nothing to change"
        );
        assert!(!recreated("ConfigMap", json!({"data": {}}), data("v")));
        let role = |name: &str| json!({"roleRef": {"name": name}});
        assert!(recreated("RoleBinding", role("admin"), role("chat-db")));
        assert!(!recreated("RoleBinding", role("chat-db"), role("chat-db")));
        let address = |ip: &str| json!({"spec": {"clusterIP": ip}});
        assert!(recreated("Service", address("10.0.0.1"), address("None")));
        assert!(
            !recreated("Service", address("10.0.0.1"), json!({"spec": {}})),
            "the API server allocates the address"
        );
        assert!(!recreated("StatefulSet", json!({}), json!({"spec": {}})));
    }
}
