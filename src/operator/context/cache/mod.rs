//! The cache of observed state between reconciles. It saves requests; losing it costs requests,
//! never correctness.

mod credentials;
mod entries;
mod objects;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use self::entries::{ABSENT, Front};
use self::entries::{Entries, ObjectKey, Observed, Stored};
use crate::operator::apply::object::{ANNOTATION_UID, Annotations};
use crate::vault::VaultError;

/// The cache of observed state between reconciles.
pub struct Cache {
    /// How long an entry is valid if no watch reports a change of the object.
    lifetime: Duration,
    resources: Mutex<HashMap<String, Entries>>,
    objects: Mutex<HashMap<ObjectKey, Observed>>,
    /// Objects to which the API server or an admission webhook adds fields.
    stored: Mutex<HashMap<ObjectKey, Stored>>,
    deleted: Mutex<HashMap<(String, String), Annotations>>,
    vault_health: Mutex<Option<(Instant, Result<(), VaultError>)>>,
}

impl Cache {
    /// An empty cache, whose entries are valid for this long.
    pub fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            resources: Mutex::default(),
            objects: Mutex::default(),
            stored: Mutex::default(),
            deleted: Mutex::default(),
            vault_health: Mutex::default(),
        }
    }

    /// Counts a failure; returns the number of consecutive failures.
    pub fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |entries| {
            entries.failures = entries.failures.saturating_add(1);
            entries.failures
        })
    }

    /// Resets the failures.
    pub fn succeeded(&self, uid: &str) {
        self.known(uid, |entries| entries.failures = 0);
    }

    /// Records the primary; returns the previous one.
    pub fn record_primary(&self, uid: &str, pod: &str) -> Option<String> {
        self.with(uid, |entries| entries.primary.replace(pod.to_owned()))
    }

    /// Records when the ServiceAccount of the database pods was created.
    pub fn record_account(&self, uid: &str, made: Option<Timestamp>) {
        self.with(uid, |entries| entries.account = made);
    }

    /// When the ServiceAccount of the database pods was created, as last observed.
    pub fn account_made(&self, uid: &str) -> Option<Timestamp> {
        self.known(uid, |entries| entries.account)
    }

    /// Records when an agent last reverted a manual change; returns the previous record.
    pub fn record_undone(&self, uid: &str, at: Timestamp) -> Option<Timestamp> {
        self.with(uid, |entries| entries.undone.replace(at))
    }

    /// How long a pod has been missing, given whether one is missing now.
    pub fn missing_for(&self, uid: &str, missing: bool) -> Duration {
        self.with(uid, |entries| match missing {
            true => entries.missing.get_or_insert_with(Instant::now).elapsed(),
            false => {
                entries.missing = None;
                Duration::ZERO
            }
        })
    }

    /// Removes the entries of a deleted resource and its objects.
    pub fn remove(&self, uid: &str) {
        lock(&self.resources).remove(uid);
        lock(&self.objects).retain(|_, entry| entry.owner != uid);
        lock(&self.stored).retain(|_, stored| stored.owner != uid);
        lock(&self.deleted).retain(|_, annotations| annotations.get(ANNOTATION_UID).is_none_or(|stamp| stamp != uid));
    }

    fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Entries) -> T) -> T {
        change(lock(&self.resources).entry(uid.to_owned()).or_default())
    }

    /// Reads or removes an entry without creating one: a deleted resource must leave nothing.
    fn known<T: Default>(&self, uid: &str, change: impl FnOnce(&mut Entries) -> T) -> T {
        lock(&self.resources).get_mut(uid).map(change).unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::apply::object::Owner;

    #[test]
    fn a_deleted_resource_leaves_no_entry() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = Owner { names: crate::api::names::Names::new("ns", "chat"), uid: "uid".to_owned() };
        cache.begin_observation(&ours, "Role", "chat-db");
        cache.record_stored(&ours, "Role", "chat-db", "parts".to_owned(), None);
        cache.failed("uid");
        cache.record_secrets("uid");
        cache.remove("uid");
        // The last reconcile of the resource ends after that.
        cache.succeeded("uid");
        cache.invalidate_reported("uid");
        cache.invalidate_vault_objects("uid");
        assert!(!cache.secrets_recorded("uid"));
        assert!(lock(&cache.resources).is_empty() && lock(&cache.objects).is_empty() && lock(&cache.stored).is_empty());
    }
}
