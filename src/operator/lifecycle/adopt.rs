//! Taking over what an earlier resource of this name left: only where `spec.bootstrap.adopt`
//! says so.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;

use crate::operator::apply::object::{ANNOTATION_DATABASE, ANNOTATION_UID, Owner, erased, stamped_uid};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::validate::Database;

/// The database that retained volumes hold, where that is not the declared one.
pub fn other_database(database: &Database, observed: &Observation) -> Option<String> {
    let held = |claim: &PersistentVolumeClaim| claim.annotations().get(ANNOTATION_DATABASE).cloned();
    observed.volume_claims.iter().filter_map(held).find(|held| *held != database.postgres.database)
}

/// Stamps everything retained with the resource's uid, and so makes it this resource's.
///
/// The volume claims come last: while one of them is an earlier resource's, all else is looked
/// at again, so an interruption leaves nothing that could be taken for a leftover.
///
/// # Errors
/// Whatever the API server said.
pub async fn take_over(context: &Context, database: &Database, observed: &Observation) -> Result<(), Error> {
    let owner = &database.owner;
    let (client, namespace) = (&context.client, &owner.names.namespace);
    let config_maps = erased::<ConfigMap>(client, namespace);
    for name in owner.names.patroni_config_maps() {
        stamp(&config_maps, owner, &name).await?;
    }
    stamp(&erased::<Secret>(client, namespace), owner, &owner.names.ca_secret()).await?;
    let claims = erased::<PersistentVolumeClaim>(client, namespace);
    for claim in &observed.volume_claims {
        stamp(&claims, owner, &claim.name_any()).await?;
    }
    tracing::info!("the data of an earlier resource of this name was taken over");
    Ok(())
}

async fn stamp(api: &Api<DynamicObject>, owner: &Owner, name: &str) -> Result<(), Error> {
    let Some(live) = api.get_opt(name).await? else { return Ok(()) };
    if stamped_uid(&live.metadata) == Some(owner.uid.as_str()) {
        return Ok(());
    }
    // The very object that was read, or none.
    let patch = json!({"metadata": {
        "uid": live.uid(),
        "resourceVersion": live.resource_version(),
        "annotations": {ANNOTATION_UID: owner.uid},
    }});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}
