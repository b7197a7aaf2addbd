//! What every reconcile shares.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::sync::{RwLock, watch};

use super::memory::Memory;
use super::metrics::Metrics;
use super::options::Options;
use super::pods::DatabasePod;
use super::vault_ca::VaultCa;
use crate::api::names::{LABEL_SCOPE, Names};
use crate::vault::Vault;

/// What every reconcile shares.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// Vault.
    pub vault: Arc<dyn Vault>,
    /// Held by all who make something in Vault, and alone by who removes what is left there of
    /// a resource that is gone, so that nothing of a successor goes with it.
    pub vault_names: RwLock<()>,
    /// The settings.
    pub options: Options,
    /// The cluster's own uid, which is that of its namespace kube-system: records in Vault carry it.
    pub cluster_uid: String,
    /// Vault's authority, PEM, for the pods.
    pub vault_ca: VaultCa,
    /// The database pods, trimmed: a store for each watched namespace, or one for all.
    pub pods: Vec<Store<Pod>>,
    /// The nodes that are being emptied.
    pub draining: watch::Receiver<Arc<BTreeSet<String>>>,
    /// What tells the time: dates of certificates, of secret_ids, of credentials. Tests have one
    /// of their own.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Who events are from.
    pub reporter: Reporter,
    /// Metrics.
    pub metrics: Metrics,
    /// What is remembered between reconciles; losing it costs requests, never truth.
    pub memory: Memory,
}

impl Context {
    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The database pods of a resource, by name.
    pub fn database_pods(&self, names: &Names) -> Vec<DatabasePod> {
        let scope = names.base();
        let of_scope = |pod: &Arc<Pod>| {
            pod.namespace().as_deref() == Some(&names.namespace) && pod.labels().get(LABEL_SCOPE) == Some(&scope)
        };
        let now = self.now();
        let mut pods: Vec<_> =
            self.pods.iter().flat_map(Store::state).filter(of_scope).map(|pod| DatabasePod::from(&pod, now)).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        pods
    }
}
