//! Objects in Vault that a deletion could not remove because Vault was unreachable until the
//! deadline: recorded in the operator's namespace, and removed later.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::api::names::{FIELD_MANAGER, Names};
use crate::api::{DeletionPolicy, ServiceDatabase};
use crate::backoff::jittered;
use crate::operator::apply::is_conflict;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::credentials::vault_objects;

/// The ConfigMap in the operator's namespace, with a key for each resource: `<namespace>.<name>.<uid>`.
pub const CONFIG_MAP: &str = "servicedb-orphans";
/// The interval at which it is read, besides each time that Vault becomes reachable.
const INTERVAL: Duration = Duration::from_secs(300);

/// A deleted resource that left objects in Vault.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Its uid: objects in Vault with another uid are not changed.
    pub uid: String,
    /// Whether the credentials are kept.
    pub deletion_policy: DeletionPolicy,
}

/// Records a deleted resource.
///
/// # Errors
/// Errors of the API server.
pub async fn record(context: &Context, names: &Names, orphan: &Orphan) -> Result<(), Error> {
    let api = api(context);
    let entry = json!({"data": {key(names, &orphan.uid): json!(orphan).to_string()}});
    if api.get_opt(CONFIG_MAP).await?.is_none() {
        let map = json!({"metadata": {"name": CONFIG_MAP, "labels": {"app.kubernetes.io/managed-by": "servicedb"}}});
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&parameters, &serde_json::from_value(map)?).await {
            Err(error) if !is_conflict(&error, "AlreadyExists") => return Err(error.into()),
            _ => {}
        }
    }
    // Only one key: others may be written at the same time.
    api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&entry)).await?;
    Ok(())
}

/// Removes the recorded objects at an interval and each time that Vault becomes reachable, until the
/// process ends.
pub async fn sweep_periodically(context: Arc<Context>, mut vault: watch::Receiver<bool>) {
    loop {
        if let Err(error) = sweep(&context).await {
            tracing::warn!(%error, "objects of deleted resources cannot be removed from Vault yet; retrying");
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
            changed = vault.changed() => if changed.is_err() { return },
        }
    }
}

/// Removes the recorded objects.
///
/// # Errors
/// Errors of Vault or the API server; entries before the failing one are done.
pub async fn sweep(context: &Context) -> Result<(), Error> {
    let api = api(context);
    let Some(map) = api.get_opt(CONFIG_MAP).await? else { return Ok(()) };
    for (key, text) in map.data.iter().flatten() {
        let mut parts = key.splitn(3, '.');
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else { continue };
        let Ok(orphan) = serde_json::from_str::<Orphan>(text) else {
            tracing::warn!(key, "an entry of the ConfigMap {CONFIG_MAP} cannot be read and is kept");
            continue;
        };
        // No reconcile prepares a successor in Vault between the read and the removal.
        let _no_one_else = context.vault_names.write().await;
        if live(context, namespace, name).await?.is_some_and(|live| live.uid().as_deref() == Some(&orphan.uid)) {
            // The finalizer is not released yet.
            continue;
        }
        // Objects that a successor has claimed are kept; a successor without a claim has no
        // objects.
        leave_vault(context, &Names::new(namespace, name), &orphan).await?;
        tracing::info!(namespace, name, uid = orphan.uid, "removed the objects of a deleted resource from Vault");
        let done = json!({"data": {key: null}});
        api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&done)).await?;
    }
    Ok(())
}

/// Removes the objects from Vault, according to the policy; those of another owner with the same
/// names are kept.
///
/// # Errors
/// Errors of Vault.
pub async fn leave_vault(context: &Context, names: &Names, orphan: &Orphan) -> Result<(), Error> {
    let vault = context.vault.as_ref();
    let names = names.vault(&context.options.cluster_id);
    if vault_objects::is_anothers(vault, &names, &context.cluster_uid, &orphan.uid).await? {
        tracing::info!(
            record = names.runtime(),
            "the objects of these names in Vault belong to another owner, and are kept"
        );
        return Ok(());
    }
    let clients = vault_objects::known_clients(vault, &names).await?;
    vault_objects::remove(vault, &names, context.options.vault_database_mount.as_deref()).await?;
    // A generation that was never proved is not used.
    vault.delete_kv(&names.pending()).await?;
    for client in &clients {
        vault.delete_kv(&names.client_pending(client)).await?;
    }
    if orphan.deletion_policy == DeletionPolicy::Delete {
        // The runtime record is removed last: its metadata names the owner of the others.
        for client in &clients {
            vault.delete_kv(&names.client_runtime(client)).await?;
        }
        vault.delete_kv(&names.migrator_record()).await?;
        vault.delete_kv(&names.runtime()).await?;
    }
    Ok(())
}

async fn live(context: &Context, namespace: &str, name: &str) -> Result<Option<ServiceDatabase>, Error> {
    Ok(Api::namespaced(context.client.clone(), namespace).get_opt(name).await?)
}

fn api(context: &Context) -> Api<ConfigMap> {
    Api::namespaced(context.client.clone(), &context.options.namespace)
}

/// Neither the name of a namespace nor that of a resource contains a dot.
fn key(names: &Names, uid: &str) -> String {
    format!("{}.{}.{uid}", names.namespace, names.name)
}
