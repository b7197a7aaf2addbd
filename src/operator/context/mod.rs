//! What every reconcile shares.

pub mod cache;
pub mod error;
pub mod metrics;
pub mod options;
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
use crate::operator::context::cache::Cache;
use crate::operator::context::metrics::Metrics;
use crate::operator::context::options::Options;
use crate::operator::context::vault_ca::VaultCa;
use crate::operator::observe::pods::DatabasePod;
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
    /// Whether each of these stores has been filled once.
    pub pods_filled: OnceCell<()>,
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
    pub cache: Cache,
}

/// Waits until each store has been filled once. The cell has one caller wait for the stores and the
/// others for it: of those that wait for a store at the same time, kube-runtime 5.0 wakes only the
/// last (`DelayedInit` keeps one waker), and each other reconcile would wait until its timeout.
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
    /// Waits until the database pods are known: a store that is not filled yet would say that there
    /// are none.
    ///
    /// # Errors
    /// If their watch has ended, as when the operator stops.
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
    async fn all_that_wait_for_the_pods_go_on_once_these_are_known() {
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
