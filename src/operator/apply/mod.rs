//! Applying one object: made by POST, changed by server-side apply, never taken over.

pub mod object;
pub mod quantity;
pub mod secrets;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::context::Context;
use crate::api::names::FIELD_MANAGER;
use crate::operator::apply::object::{ANNOTATION_APPLIED, Change, Owner, Planned, conflict, contains};
use crate::operator::context::cache::ABSENT;
use crate::operator::context::error::Error;

/// The field manager of objects that are handed over as they are made.
const CREATION_MANAGER: &str = "servicedb-creation";

/// Brings one object to its plan: also to not being there.
///
/// # Errors
/// [`Error::ObjectConflict`] if an object of this name belongs to somebody else; it is left
/// as it is. Otherwise whatever the API server said.
pub async fn apply(context: &Context, owner: &Owner, planned: &Planned) -> Result<Change, Error> {
    if !planned.present {
        return remove(context, owner, planned).await;
    }
    let (sealed, hash) = planned.sealed();
    let kind = planned.resource.kind.as_str();
    if context.cache.is_as_planned(owner, kind, &planned.name, &hash) {
        return Ok(Change::Unchanged);
    }
    context.cache.look(owner, kind, &planned.name);
    let (change, version) = bring_about(&context.client, owner, planned, &sealed, &hash).await?;
    context.cache.record(owner, kind, &planned.name, hash, version);
    Ok(change)
}

/// Returns what was done and the version that the object has now.
async fn bring_about(
    client: &Client,
    owner: &Owner,
    planned: &Planned,
    sealed: &Value,
    hash: &str,
) -> Result<(Change, Option<String>), Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.names.namespace, &planned.resource);
    let live = match api.get_opt(&planned.name).await? {
        Some(live) => live,
        None => match create(&api, planned, sealed).await {
            Ok(made) => return Ok((Change::Created, made.resource_version())),
            // Somebody was faster than our read: look at what they made.
            Err(error) if is_conflict(&error, "AlreadyExists") => api.get(&planned.name).await?,
            Err(error) => return Err(error.into()),
        },
    };
    if !owner.owns(&planned.ownership, &live.metadata) && !owner.may_mark_again(planned, &live.metadata) {
        return Err(conflict(&planned.resource.kind, &planned.name, &live.metadata));
    }
    let content = serde_json::to_value(&live)?;
    if live.annotations().get(ANNOTATION_APPLIED).is_some_and(|applied| applied == hash)
        && contains(&content, &planned.body)
    {
        return Ok((Change::Unchanged, live.resource_version()));
    }
    if must_be_made_anew(&planned.resource.kind, &content, &planned.body) {
        delete_exactly(&api, &live).await?;
        let made = create(&api, planned, sealed).await?;
        return Ok((Change::Updated, made.resource_version()));
    }
    own_created_fields(&api, &live).await?;
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let live = api.patch(&planned.name, &parameters, &Patch::Apply(sealed)).await?;
    Ok((Change::Updated, live.resource_version()))
}

/// Whether somebody changed an object in what cannot be changed back. Only of objects that hold
/// no state and that nothing is without for the moment that it takes.
fn must_be_made_anew(kind: &str, live: &Value, wanted: &Value) -> bool {
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
    // Fields that become somebody else's must not be taken back by a later apply.
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

/// Turns the fields that our POST set into fields that our apply owns. Without this the API
/// server counts two managers of one name, and a field that leaves the plan stays for ever
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

/// Sees to it that an object of this owner's is not there; deletes only the very object that was read.
async fn remove(context: &Context, owner: &Owner, planned: &Planned) -> Result<Change, Error> {
    let kind = planned.resource.kind.as_str();
    if context.cache.is_as_planned(owner, kind, &planned.name, ABSENT) {
        return Ok(Change::Unchanged);
    }
    context.cache.look(owner, kind, &planned.name);
    if delete(&context.client, owner, planned).await? {
        return Ok(Change::Deleted);
    }
    context.cache.record(owner, kind, &planned.name, ABSENT.to_owned(), None);
    Ok(Change::Unchanged)
}

/// Deletes an object that is this owner's; returns whether there was one.
///
/// # Errors
/// Whatever the API server said; an object that is gone already is success.
pub async fn delete(client: &Client, owner: &Owner, planned: &Planned) -> Result<bool, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.names.namespace, &planned.resource);
    let Some(live) = api.get_opt(&planned.name).await? else { return Ok(false) };
    if !owner.owns(&planned.ownership, &live.metadata) {
        return Ok(false);
    }
    delete_exactly(&api, &live).await
}

/// Deletes the very object that was read: its uid and resourceVersion are preconditions.
///
/// # Errors
/// Whatever the API server said; an object that is gone already is success.
pub async fn delete_exactly(api: &Api<DynamicObject>, live: &DynamicObject) -> Result<bool, Error> {
    let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
    let parameters = DeleteParams::background().preconditions(preconditions);
    match api.delete(&live.name_any(), &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes exactly what was seen, as its preconditions say it. What is gone, or has changed since,
/// is looked at again by the next reconcile.
///
/// # Errors
/// Whatever else the API server said.
pub async fn delete_as_seen<K>(
    api: &Api<K>,
    name: &str,
    parameters: DeleteParams,
    seen: Preconditions,
) -> Result<(), Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &parameters.preconditions(seen)).await {
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
    fn what_cannot_be_changed_back_is_made_anew() {
        let anew = |kind: &str, live: Value, wanted: Value| must_be_made_anew(kind, &live, &wanted);
        let data = |value: &str| json!({"data": {"k": value}});
        assert!(anew("ConfigMap", json!({"immutable": true, "data": {}}), data("v")));
        assert!(!anew("ConfigMap", json!({"immutable": true, "data": {"k": "v"}}), data("v")), "nothing to change");
        assert!(!anew("ConfigMap", json!({"data": {}}), data("v")));
        let role = |name: &str| json!({"roleRef": {"name": name}});
        assert!(anew("RoleBinding", role("admin"), role("chat-db")));
        assert!(!anew("RoleBinding", role("chat-db"), role("chat-db")));
        let address = |ip: &str| json!({"spec": {"clusterIP": ip}});
        assert!(anew("Service", address("10.0.0.1"), address("None")));
        assert!(!anew("Service", address("10.0.0.1"), json!({"spec": {}})), "an address is the server's to give");
        assert!(!anew("StatefulSet", json!({}), json!({"spec": {}})));
    }
}
