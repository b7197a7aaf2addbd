//! What a deletion could not remove from Vault, because Vault was not there until the
//! deadline: written down in the operator's own namespace, and removed later.

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

/// The ConfigMap, in the operator's namespace: a key for each resource, `<namespace>.<name>.<uid>`.
pub const CONFIG_MAP: &str = "servicedb-orphans";
/// How often it is looked at, beside each time that Vault comes back.
const INTERVAL: Duration = Duration::from_secs(300);

/// A resource that is gone, and left something in Vault.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Its uid: what carries another in Vault is not touched.
    pub uid: String,
    /// What becomes of the credentials.
    pub deletion_policy: DeletionPolicy,
}

/// Writes down what a resource leaves.
///
/// # Errors
/// Whatever the API server said.
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
    // One key alone: others may be written at the same time.
    api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&entry)).await?;
    Ok(())
}

/// Removes what was written down, now and then and each time that Vault comes back, for as
/// long as the process lives.
pub async fn sweep_for_ever(context: Arc<Context>, mut vault: watch::Receiver<bool>) {
    loop {
        if let Err(error) = sweep(&context).await {
            tracing::warn!(%error, "what deleted resources left in Vault cannot be removed yet; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
            changed = vault.changed() => if changed.is_err() { return },
        }
    }
}

/// Removes what was written down.
///
/// # Errors
/// Whatever Vault or the API server said; what was done until then counts.
pub async fn sweep(context: &Context) -> Result<(), Error> {
    let api = api(context);
    let Some(map) = api.get_opt(CONFIG_MAP).await? else { return Ok(()) };
    for (key, text) in map.data.iter().flatten() {
        let mut parts = key.splitn(3, '.');
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else { continue };
        let Ok(orphan) = serde_json::from_str::<Orphan>(text) else {
            tracing::warn!(key, "an entry of the ConfigMap {CONFIG_MAP} is not readable and stays");
            continue;
        };
        // Nobody prepares a successor in Vault between the look and the removal.
        let _no_one_else = context.vault_names.write().await;
        if live(context, namespace, name).await?.is_some_and(|live| live.uid().as_deref() == Some(&orphan.uid)) {
            // The finalizer is not released yet.
            continue;
        }
        // What a successor has claimed stays, and one that has not has nothing there.
        leave_vault(context, &Names::new(namespace, name), &orphan).await?;
        tracing::info!(namespace, name, uid = orphan.uid, "what a deleted resource left in Vault is removed");
        let done = json!({"data": {key: null}});
        api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&done)).await?;
    }
    Ok(())
}

/// Takes out of Vault what the policy names; what is another's under the same names stays.
///
/// # Errors
/// Whatever Vault said.
pub async fn leave_vault(context: &Context, names: &Names, orphan: &Orphan) -> Result<(), Error> {
    let vault = context.vault.as_ref();
    let names = names.vault(&context.options.cluster_id);
    if vault_objects::is_anothers(vault, &names, &context.cluster_uid, &orphan.uid).await? {
        tracing::info!(record = names.runtime(), "what Vault has under these names is another's, and stays");
        return Ok(());
    }
    vault_objects::remove(vault, &names).await?;
    // A generation that was never proved is nobody's data.
    vault.delete_kv(&names.pending()).await?;
    if orphan.deletion_policy == DeletionPolicy::Delete {
        // The runtime record last: by its metadata the others are known.
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

/// Neither a namespace nor a resource's name has a dot.
fn key(names: &Names, uid: &str) -> String {
    format!("{}.{}.{uid}", names.namespace, names.name)
}
