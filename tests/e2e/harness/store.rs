//! The object store of the local cluster. A test that stops it shares it with nobody.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::sandbox::Sandbox;

static STORE: RwLock<()> = RwLock::new(());

/// Keeps the store running until the value is dropped. To be called before the test takes its turn, which others
/// would wait for.
pub fn used() -> RwLockReadGuard<'static, ()> {
    STORE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody uses the store, and keeps others from it until the value is dropped.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    STORE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Stops the store, or starts it again.
pub async fn scale(sandbox: &Sandbox, replicas: i32) {
    let store: Api<StatefulSet> = Api::namespaced(sandbox.cluster.client.clone(), "store");
    let patch = json!({"spec": {"replicas": replicas}});
    store.patch("store", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the store is scaled");
}

/// The folder of the bucket on this machine, where the nodes' volumes are.
pub async fn bucket(sandbox: &Sandbox) -> PathBuf {
    let client = &sandbox.cluster.client;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "store");
    let claim = claims.get("data-store-0").await.expect("the store's claim");
    let volume = claim.spec.and_then(|spec| spec.volume_name).expect("a volume of the store");
    let volume = Api::<PersistentVolume>::all(client.clone()).get(&volume).await.expect("the store's volume");
    let local = volume.spec.and_then(|spec| spec.local).expect("a local volume");
    PathBuf::from(local.path).join("store/backups")
}
