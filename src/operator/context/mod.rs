//! The state shared by all reconciles.

pub mod cache;
pub mod error;
pub mod metrics;
pub mod namespaces;
pub mod options;
pub mod peers;
mod resources;
pub mod vault_ca;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::WriterDropped;
use kube::{Client, ResourceExt};
use tokio::sync::{OnceCell, RwLock, watch};

use crate::api::names::{LABEL_SCOPE, Names};
use crate::operator::backups::slots::Slots;
use crate::operator::context::cache::Cache;
use crate::operator::context::metrics::Metrics;
use crate::operator::context::options::Options;
use crate::operator::context::vault_ca::VaultCa;
use crate::operator::observe::pods::DatabasePod;
use crate::vault::Vault;

/// The state shared by all reconciles.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// Vault.
    pub vault: Arc<dyn Vault>,
    /// Held shared by tasks that create objects in Vault, and exclusively by the one that removes the
    /// leftovers of a deleted resource, so that it removes no object of a successor.
    pub vault_names: RwLock<()>,
    /// The settings.
    pub options: Options,
    /// The cluster's own uid, the uid of its namespace kube-system: records in Vault have it.
    pub cluster_uid: String,
    /// The issuer of the cluster's ServiceAccount tokens, once it was read.
    pub issuer: OnceCell<String>,
    /// Vault's authority, PEM, for the pods.
    pub vault_ca: VaultCa,
    /// The database pods, trimmed: a store for each watched namespace, or one for all.
    pub pods: Vec<Store<Pod>>,
    /// Whether each of these stores has been filled.
    pub pods_filled: OnceCell<()>,
    /// The nodes that are being drained.
    pub draining: watch::Receiver<Arc<BTreeSet<String>>>,
    /// The clock for dates of certificates, secret_ids and credentials. Tests use their own.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The reporter of events.
    pub reporter: Reporter,
    /// The backups that run.
    pub backups: Slots,
    /// Metrics.
    pub metrics: Metrics,
    /// The cache of observed state between reconciles.
    pub cache: Cache,
}

/// Waits until each store has been filled. The cell lets one caller wait for the stores and the
/// others for this caller: of concurrent waiters for a store, kube-runtime 5.0 wakes only the last
/// (`DelayedInit` keeps one waker), and each other reconcile would wait until its timeout.
async fn filled(once: &OnceCell<()>, stores: &[Store<Pod>]) -> Result<(), WriterDropped> {
    let all = async || {
        for store in stores {
            store.wait_until_ready().await?;
        }
        Ok(())
    };
    once.get_or_try_init(all).await.copied()
}

impl Context {
    /// Waits until the pods' stores are filled: a store that is not filled yet appears empty.
    ///
    /// # Errors
    /// If their watch has ended, for example because the operator stops.
    pub async fn pods_are_known(&self) -> Result<(), WriterDropped> {
        filled(&self.pods_filled, &self.pods).await
    }

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;

    use super::*;

    #[tokio::test]
    async fn all_waiters_for_the_pods_continue_once_the_store_is_filled() {
        let (store, mut writer) = reflector::store::<Pod>();
        let (once, stores) = (Arc::new(OnceCell::new()), Arc::new(vec![store]));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (once, stores) = (once.clone(), stores.clone());
                tokio::spawn(async move { filled(&once, &stores).await })
            })
            .collect();
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        for one in waiting {
            let woken = tokio::time::timeout(Duration::from_secs(10), one).await;
            woken.expect("it is woken").expect("no panic").expect("the store is filled");
        }
    }
}
