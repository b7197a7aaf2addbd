//! What every reconcile shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};

use super::metrics::Metrics;
use super::options::Options;
use super::plan::RoleIds;
use super::pods::DatabasePod;
use crate::api::names::{LABEL_SCOPE, Names};
use crate::vault::Vault;

/// How long Vault's objects of one resource are taken to be as they were last seen.
const VERIFIED_FOR: Duration = Duration::from_secs(1800);

/// What every reconcile shares.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// Vault.
    pub vault: Arc<dyn Vault>,
    /// The settings.
    pub options: Options,
    /// Vault's authority, PEM, for the pods.
    pub vault_ca: Option<String>,
    /// The database pods, trimmed: a store for each watched namespace, or one for all.
    pub pods: Vec<Store<Pod>>,
    /// Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Metrics,
    /// What is remembered between reconciles; losing it costs requests, never truth.
    pub memory: Memory,
}

impl Context {
    /// The time. One place, so that tests can tell what reads it.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
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

/// What is remembered between reconciles.
#[derive(Default)]
pub struct Memory {
    by_uid: Mutex<HashMap<String, Remembered>>,
}

/// What is remembered of one resource.
#[derive(Clone, Default)]
struct Remembered {
    failures: u32,
    vault: Option<VerifiedVault>,
    pending_generation: Option<i64>,
    vault_failing: bool,
}

/// That Vault's objects were seen as they shall be.
#[derive(Clone)]
struct VerifiedVault {
    fingerprint: String,
    at: Instant,
    role_ids: RoleIds,
}

impl Memory {
    /// Counts a failure; returns how many there were in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |remembered| {
            remembered.failures = remembered.failures.saturating_add(1);
            remembered.failures
        })
    }

    /// Forgets the failures.
    pub fn succeeded(&self, uid: &str) {
        self.with(uid, |remembered| remembered.failures = 0);
    }

    /// The role_ids, if Vault's objects were seen lately with this fingerprint.
    pub fn verified_vault(&self, uid: &str, fingerprint: &str) -> Option<RoleIds> {
        self.with(uid, |remembered| {
            let verified = remembered.vault.as_ref()?;
            let fresh = verified.fingerprint == fingerprint && verified.at.elapsed() < VERIFIED_FOR;
            fresh.then(|| verified.role_ids.clone())
        })
    }

    /// Remembers that Vault's objects were seen.
    pub fn vault_verified(&self, uid: &str, fingerprint: String, role_ids: RoleIds) {
        self.with(uid, |remembered| {
            remembered.vault = Some(VerifiedVault { fingerprint, at: Instant::now(), role_ids });
        });
    }

    /// Forgets what was seen in Vault: something there is not as remembered.
    pub fn doubt_vault(&self, uid: &str) {
        self.with(uid, |remembered| {
            remembered.vault = None;
            remembered.pending_generation = None;
        });
    }

    /// Whether `pending` was seen with this generation.
    pub fn pending_seen(&self, uid: &str, generation: i64) -> bool {
        self.with(uid, |remembered| remembered.pending_generation == Some(generation))
    }

    /// Remembers that `pending` was seen with this generation.
    pub fn saw_pending(&self, uid: &str, generation: i64) {
        self.with(uid, |remembered| remembered.pending_generation = Some(generation));
    }

    /// Notes whether dealing with Vault failed; returns whether it did the time before.
    pub fn note_vault(&self, uid: &str, failing: bool) -> bool {
        self.with(uid, |remembered| std::mem::replace(&mut remembered.vault_failing, failing))
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, uid: &str) {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        change(by_uid.entry(uid.to_owned()).or_default())
    }
}
