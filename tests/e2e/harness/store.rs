//! The object store of the local cluster. A test that stops it shares it with nobody.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::apps::v1::StatefulSet;
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
