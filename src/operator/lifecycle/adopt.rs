//! Adopts the objects and the data that an earlier resource of this name left, with
//! `spec.bootstrap.adopt`.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::api::names::{LABEL_NAME, LABEL_SCOPE};
use crate::operator::apply::object::{ANNOTATION_DATABASE, ANNOTATION_UID, Owner, erased, stamped_uid};
use crate::operator::apply::ownership::take_back;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::credentials::binding::Bound;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// The database on the retained volumes, if it is not the declared one.
pub fn other_database(database: &Database, observed: &Observation) -> Option<String> {
    let held = |claim: &PersistentVolumeClaim| claim.annotations().get(ANNOTATION_DATABASE).cloned();
    observed.volume_claims.iter().filter_map(held).find(|held| *held != database.postgres.database)
}

/// Stamps all retained objects with the resource's uid, and makes the resource the owner of the
/// objects that a deletion with `--cascade=orphan` left without one.
///
/// The volume claims come last: as long as one of them has another uid, the next reconcile repeats
/// all steps, so an interruption leaves no object of the earlier resource.
///
/// # Errors
/// Errors of the API server.
pub async fn take_over(context: &Context, database: &Database, observed: &Observation) -> Result<(), Error> {
    let owner = &database.owner;
    let (client, namespace) = (&context.client, &owner.names.namespace);
    let config_maps = erased::<ConfigMap>(client, namespace);
    for name in owner.names.patroni_config_maps() {
        stamp(&config_maps, owner, &name, &Value::Null).await?;
    }
    let secrets = erased::<Secret>(client, namespace);
    stamp(&secrets, owner, &owner.names.ca_secret(), &Value::Null).await?;
    // Secrets are neither listed nor watched.
    let names = [
        owner.names.tls_secret(),
        owner.names.instance_approle(),
        owner.names.migrator(),
        owner.names.pooler_tls_secret(),
        owner.names.gateway_tls_secret(),
    ];
    let bound = Bound::declared(database);
    for name in names.into_iter().chain(bound.shared).chain(bound.clients.into_values()) {
        if let Some(live) = secrets.get_opt(&name).await?.filter(|live| owner.is_without_owner(&live.metadata)) {
            take_back(&secrets, owner, &live).await?;
        }
    }
    let labelled = ListParams::default().labels(&format!("{LABEL_NAME}={}", owner.names.name));
    for api in [
        erased::<StatefulSet>(client, namespace),
        erased::<Deployment>(client, namespace),
        erased::<Service>(client, namespace),
        erased::<ServiceAccount>(client, namespace),
        erased::<Role>(client, namespace),
        erased::<RoleBinding>(client, namespace),
        erased::<NetworkPolicy>(client, namespace),
        erased::<PodDisruptionBudget>(client, namespace),
        erased::<Job>(client, namespace),
        config_maps,
    ] {
        for live in api.list(&labelled).await?.items.iter().filter(|live| owner.is_without_owner(&live.metadata)) {
            take_back(&api, owner, live).await?;
        }
    }
    let claims = erased::<PersistentVolumeClaim>(client, namespace);
    for claim in &observed.volume_claims {
        stamp(&claims, owner, &claim.name_any(), &labels(owner)).await?;
    }
    tracing::info!("adopted the data of an earlier resource of this name");
    Ok(())
}

/// Restores the labels of volume claims of this resource: without them no watch reports a change of
/// the claim.
///
/// # Errors
/// Errors of the API server.
pub async fn label_claims(context: &Context, database: &Database, observed: &Observation) -> Result<(), Error> {
    let owner = &database.owner;
    let claims = erased::<PersistentVolumeClaim>(&context.client, &owner.names.namespace);
    let wanted = labels(owner);
    let has =
        |claim: &&PersistentVolumeClaim, key: &str| claim.labels().get(key).map(String::as_str) == wanted[key].as_str();
    for claim in observed.own_claims(&owner.uid).filter(|claim| !has(claim, LABEL_NAME) || !has(claim, LABEL_SCOPE)) {
        let patch = json!({"metadata": {
            "uid": claim.uid(),
            "resourceVersion": claim.resource_version(),
            "labels": wanted,
        }});
        tracing::info!(claim = claim.name_any(), "restoring the labels of a volume claim");
        claims.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

/// The labels of a volume claim.
fn labels(owner: &Owner) -> Value {
    json!({LABEL_NAME: owner.names.name, LABEL_SCOPE: owner.names.base()})
}

async fn stamp(api: &Api<DynamicObject>, owner: &Owner, name: &str, labels: &Value) -> Result<(), Error> {
    let Some(live) = api.get_opt(name).await? else { return Ok(()) };
    if stamped_uid(&live.metadata) == Some(owner.uid.as_str()) {
        return Ok(());
    }
    // The preconditions limit the write to the object that was read.
    let mut patch = json!({"metadata": {
        "uid": live.uid(),
        "resourceVersion": live.resource_version(),
        "annotations": {ANNOTATION_UID: owner.uid},
    }});
    if !labels.is_null() {
        patch["metadata"]["labels"] = labels.clone();
    }
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}
