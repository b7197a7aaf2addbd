//! The scenarios of a pooler.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use super::{NAME, change};
use crate::harness::Sandbox;

/// One small pod.
pub fn spec() -> Value {
    json!({"pooler": {"instances": 1, "poolSize": 5, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}})
}

/// Declares it.
pub async fn add(sandbox: &Sandbox) {
    change(sandbox, spec()).await;
}

/// Declares it no longer.
pub async fn remove(sandbox: &Sandbox) {
    change(sandbox, json!({"pooler": null})).await;
}

/// Whether it serves, and clients can read so in Vault.
///
/// # Errors
/// What is still missing.
pub async fn serves(sandbox: &Sandbox, found: &ServiceDatabase) -> Result<(), String> {
    let pooler = found.status.as_ref().and_then(|status| status.pooler.clone());
    if pooler.as_ref().and_then(|pooler| pooler.instances.as_deref()) != Some("1/1") {
        return Err(format!("{pooler:?}"));
    }
    if is_in_record(sandbox).await? { Ok(()) } else { Err("the record does not name the pooler".to_owned()) }
}

/// Whether nothing is left of it: neither in status, nor in Vault, nor a pod.
///
/// # Errors
/// What is left.
pub async fn is_gone(sandbox: &Sandbox, found: &ServiceDatabase) -> Result<(), String> {
    if let Some(pooler) = found.status.as_ref().and_then(|status| status.pooler.as_ref()) {
        return Err(format!("{pooler:?}"));
    }
    if is_in_record(sandbox).await? {
        return Err("the record names the pooler".to_owned());
    }
    let names = sandbox.names(NAME);
    let pods = sandbox.api::<Pod>().list(&ListParams::default().labels("app.kubernetes.io/component=pooler")).await;
    let deployment = sandbox.api::<Deployment>().get_opt(&names.pooler()).await;
    let certificates = sandbox.api::<Secret>().get_opt(&names.pooler_tls_secret()).await;
    let left = [
        ("pods", pods.map(|pods| !pods.items.is_empty())),
        ("its Deployment", deployment.map(|it| it.is_some())),
        ("its certificates", certificates.map(|it| it.is_some())),
    ];
    for (what, is_left) in left {
        if is_left.map_err(|error| error.to_string())? {
            return Err(format!("{what} of the pooler"));
        }
    }
    Ok(())
}

async fn is_in_record(sandbox: &Sandbox) -> Result<bool, String> {
    let record = sandbox.vault().record(&sandbox.vault_names(NAME).runtime()).await.ok_or("there is no record")?;
    Ok(record.get("CHAT_DB_POOLER_HOST").is_some())
}
