//! What is remembered between reconciles: it saves requests, and losing it costs requests,
//! never truth.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::operator::apply::object::{ANNOTATION_UID, Annotations, Owner};
use crate::operator::credentials::role_ids::RoleIds;
use crate::vault::VaultError;

/// What is remembered between reconciles.
pub struct Cache {
    /// For how long what was seen is taken to hold, where no watch tells of a change.
    trust: Duration,
    resources: Mutex<HashMap<String, Remembered>>,
    objects: Mutex<HashMap<ObjectKey, Seen>>,
    deleted: Mutex<HashMap<(String, String), Annotations>>,
    vault_said: Mutex<Option<(Instant, Result<(), VaultError>)>>,
}

/// For how long a word of Vault is one to every reconcile: longer than until the probe's next.
const VAULT_ANSWERS_FOR: Duration = Duration::from_secs(8);
/// The same of an error: a Vault that does not answer keeps the probe waiting, too.
const VAULT_FAILS_FOR: Duration = Duration::from_secs(20);

/// Namespace, kind and name of an object.
type ObjectKey = (String, String, String);

fn object_key(namespace: &str, kind: &str, name: &str) -> ObjectKey {
    (namespace.to_owned(), kind.to_owned(), name.to_owned())
}

/// What is remembered instead of a plan of an object that shall not be.
pub const ABSENT: &str = "absent";

/// The interval between two prompts of a kubelet for the same certificates.
const PROMPT_AGAIN: Duration = Duration::from_secs(10);

/// An object that was seen to be as planned.
struct Seen {
    owner: String,
    /// The name of the ServiceDatabase.
    resource: String,
    plan: String,
    resource_version: Option<String>,
    at: Instant,
}

impl Seen {
    /// Whether it is not known yet to be as planned.
    fn is_being_looked_at(&self) -> bool {
        self.plan.is_empty()
    }
}

/// What is remembered of one resource.
#[derive(Clone, Default)]
struct Remembered {
    failures: u32,
    vault: Option<VerifiedVault>,
    secrets: Option<Instant>,
    certificates: Option<SeenCertificates>,
    /// The certificates that kubelets were last prompted to update, and when.
    prompted: Option<(String, Instant)>,
    pending_generation: Option<i64>,
    credentials_doubted: bool,
    binding: Option<(String, i64, Instant)>,
    primary: Option<String>,
    missing: Option<Instant>,
}

/// That Vault's objects were seen as they shall be.
#[derive(Clone)]
struct VerifiedVault {
    fingerprint: String,
    at: Instant,
    role_ids: RoleIds,
}

/// That the certificates were seen as they shall be.
#[derive(Clone)]
struct SeenCertificates {
    at: Instant,
    due: Option<Timestamp>,
    authorities: String,
}

impl Cache {
    /// Remembers nothing yet; what it will remember it trusts for this long.
    pub fn new(trust: Duration) -> Self {
        Self {
            trust,
            resources: Mutex::default(),
            objects: Mutex::default(),
            deleted: Mutex::default(),
            vault_said: Mutex::default(),
        }
    }

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

    /// Whether an object was seen lately with this plan, and not changed since.
    pub fn is_as_planned(&self, owner: &Owner, kind: &str, name: &str, plan: &str) -> bool {
        let objects = lock(&self.objects);
        let seen = objects.get(&object_key(&owner.names.namespace, kind, name));
        seen.is_some_and(|seen| seen.owner == owner.uid && seen.plan == plan && seen.at.elapsed() < self.trust)
    }

    /// Begins to look at an object: what a watch tells of it from now on is newer than what
    /// [`Self::record`] will say.
    pub fn look(&self, owner: &Owner, kind: &str, name: &str) {
        let (plan, resource_version, at) = (String::new(), None, Instant::now());
        let (owner, namespace) = (owner.clone(), owner.names.namespace.clone());
        let seen = Seen { owner: owner.uid, resource: owner.names.name, plan, resource_version, at };
        lock(&self.objects).insert(object_key(&namespace, kind, name), seen);
    }

    /// Remembers that an object is as planned, if it was heard to have no other version since the
    /// look began.
    pub fn record(&self, owner: &Owner, kind: &str, name: &str, plan: String, resource_version: Option<String>) {
        let mut objects = lock(&self.objects);
        let key = object_key(&owner.names.namespace, kind, name);
        let Some(seen) = objects.get_mut(&key) else { return };
        if seen.resource_version.is_none() || seen.resource_version == resource_version {
            (seen.plan, seen.resource_version, seen.at) = (plan, resource_version, Instant::now());
        } else {
            objects.remove(&key);
        }
    }

    /// Hears from a watch that an object is of this version now; if that is not the version
    /// that was seen, what was seen counts no more. Returns the ServiceDatabase that the object was
    /// seen to be of, whatever its labels say now.
    pub fn invalidate(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        resource_version: Option<&str>,
    ) -> Option<String> {
        let mut objects = lock(&self.objects);
        let key = object_key(namespace, kind, name);
        let seen = objects.get_mut(&key)?;
        let resource = seen.resource.clone();
        if seen.is_being_looked_at() {
            seen.resource_version = resource_version.map(str::to_owned);
        } else if seen.resource_version.as_deref() != resource_version {
            objects.remove(&key);
        }
        Some(resource)
    }

    /// Hears from a watch which objects of a kind are there, in one namespace or in all: of those
    /// that were seen and are gone nothing counts any more. Returns namespace and name of the
    /// ServiceDatabases that they were of.
    pub fn invalidate_absent(
        &self,
        namespace: Option<&str>,
        kind: &str,
        there: &HashSet<(String, String)>,
    ) -> Vec<(String, String)> {
        let mut bereft = Vec::new();
        lock(&self.objects).retain(|(of, its_kind, name), seen| {
            let gone = its_kind == kind
                && namespace.is_none_or(|namespace| namespace == of)
                && seen.plan != ABSENT
                && !there.contains(&(of.clone(), name.clone()));
            if gone {
                bereft.push((of.clone(), seen.resource.clone()));
            }
            !gone
        });
        bereft
    }

    /// Keeps what a ConfigMap of Patroni's said when it was deleted; none if it is there. Returns
    /// whether something was kept before.
    pub fn keep_deleted(&self, namespace: &str, name: &str, annotations: Option<Annotations>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let mut deleted = lock(&self.deleted);
        let before = match annotations {
            Some(annotations) => deleted.insert(key, annotations),
            None => deleted.remove(&key),
        };
        before.is_some()
    }

    /// What a ConfigMap of Patroni's said when it was deleted, where a watch told; one of another
    /// resource says nothing.
    pub fn deleted(&self, namespace: &str, name: &str, uid: &str) -> Option<Annotations> {
        let deleted = lock(&self.deleted).get(&(namespace.to_owned(), name.to_owned())).cloned();
        deleted.filter(|annotations| annotations.get(ANNOTATION_UID).is_some_and(|stamp| stamp == uid))
    }

    /// Whether Vault serves, as it has just said to whoever asked; none if nobody did. What
    /// else is remembered of Vault does not tell whether it is there.
    pub fn vault_answer(&self) -> Option<Result<(), VaultError>> {
        let said = lock(&self.vault_said).clone();
        let counts = |word: &Result<_, _>| if word.is_ok() { VAULT_ANSWERS_FOR } else { VAULT_FAILS_FOR };
        said.filter(|(at, word)| at.elapsed() < counts(word)).map(|(_, word)| word)
    }

    /// Remembers whether Vault serves.
    pub fn record_vault_answer(&self, word: Result<(), VaultError>) {
        *lock(&self.vault_said) = Some((Instant::now(), word));
    }

    /// Takes Vault's last word for too old.
    pub fn invalidate_vault_answer(&self) {
        *lock(&self.vault_said) = None;
    }

    /// Vault was away and is back: what was seen in it counts from now on. All that grew old
    /// meanwhile would otherwise be looked at by the whole fleet at once; so it is at each
    /// database's next resync, which have jitter.
    pub fn extend_trust_in_vault_objects(&self) {
        let now = Instant::now();
        for remembered in lock(&self.resources).values_mut() {
            if let Some(seen) = &mut remembered.vault {
                seen.at = now;
            }
            if let Some(seen) = &mut remembered.secrets {
                *seen = now;
            }
        }
    }

    /// The role_ids, if Vault's objects were seen lately with this fingerprint.
    pub fn vault_objects(&self, uid: &str, fingerprint: &str) -> Option<RoleIds> {
        self.with(uid, |remembered| {
            let verified = remembered.vault.as_ref()?;
            let fresh = verified.fingerprint == fingerprint && verified.at.elapsed() < self.trust;
            fresh.then(|| verified.role_ids.clone())
        })
    }

    /// Remembers that Vault's objects were seen.
    pub fn record_vault_objects(&self, uid: &str, fingerprint: String, role_ids: RoleIds) {
        self.with(uid, |remembered| {
            remembered.vault = Some(VerifiedVault { fingerprint, at: Instant::now(), role_ids });
        });
    }

    /// Forgets what was seen in Vault: something there is not as remembered.
    pub fn invalidate_vault_objects(&self, uid: &str) {
        self.invalidate_vault_answer();
        self.with(uid, |remembered| {
            remembered.vault = None;
            remembered.secrets = None;
            remembered.pending_generation = None;
        });
    }

    /// Forgets what was seen in Vault longer ago than this.
    pub fn invalidate_vault_objects_older_than(&self, uid: &str, age: Duration) {
        self.with(uid, |remembered| {
            remembered.vault.take_if(|seen| seen.at.elapsed() >= age);
            remembered.secrets.take_if(|at| at.elapsed() >= age);
        });
    }

    /// Forgets that the Secrets were seen, if that was this long ago.
    pub fn invalidate_secrets_older_than(&self, uid: &str, age: Duration) {
        self.with(uid, |remembered| {
            remembered.secrets.take_if(|at| at.elapsed() >= age);
            remembered.certificates.take_if(|seen| seen.at.elapsed() >= age);
        });
    }

    /// Whether the Secrets were seen lately.
    pub fn secrets_recorded(&self, uid: &str) -> bool {
        self.with(uid, |remembered| remembered.secrets.is_some_and(|at| at.elapsed() < self.trust))
    }

    /// Takes what was checked for something to be checked again: status does not report it.
    pub fn invalidate_reported(&self, uid: &str) {
        self.invalidate_secrets_older_than(uid, Duration::ZERO);
    }

    /// Remembers that the Secrets are as they shall be.
    pub fn record_secrets(&self, uid: &str) {
        self.with(uid, |remembered| remembered.secrets = Some(Instant::now()));
    }

    /// The authorities, PEM, if the certificates were seen lately, and nothing about them has come
    /// due since.
    pub fn certificates(&self, uid: &str, now: Timestamp) -> Option<String> {
        self.with(uid, |remembered| {
            let seen = remembered.certificates.as_ref()?;
            let holds = seen.at.elapsed() < self.trust && seen.due.is_none_or(|due| now < due);
            holds.then(|| seen.authorities.clone())
        })
    }

    /// Remembers that the certificates are as they shall be, until something comes due.
    pub fn record_certificates(&self, uid: &str, authorities: String, due: Option<Timestamp>) {
        let seen = SeenCertificates { at: Instant::now(), due, authorities };
        self.with(uid, |remembered| remembered.certificates = Some(seen));
    }

    /// Whether to make kubelets update these certificates now. Repeated after [`PROMPT_AGAIN`],
    /// since a kubelet may have synced the pod before its watch had the new Secret.
    pub fn may_prompt(&self, uid: &str, certificates: &str) -> bool {
        self.with(uid, |remembered| {
            let asked = remembered.prompted.as_ref();
            let lately = asked.is_some_and(|(asked, at)| asked == certificates && at.elapsed() < PROMPT_AGAIN);
            if !lately {
                remembered.prompted = Some((certificates.to_owned(), Instant::now()));
            }
            !lately
        })
    }

    /// Takes the certificates for something to be looked at.
    pub fn invalidate_certificates(&self, uid: &str) {
        self.with(uid, |remembered| remembered.certificates = None);
    }

    /// Whether `pending` was seen with this generation.
    pub fn pending_recorded(&self, uid: &str, generation: i64) -> bool {
        self.with(uid, |remembered| remembered.pending_generation == Some(generation))
    }

    /// Remembers that `pending` was seen with this generation.
    pub fn record_pending(&self, uid: &str, generation: i64) {
        self.with(uid, |remembered| remembered.pending_generation = Some(generation));
    }

    /// Whether the promoted records were not as they must be when they were looked at last.
    pub fn credentials_in_doubt(&self, uid: &str) -> bool {
        self.with(uid, |remembered| remembered.credentials_doubted)
    }

    /// Remembers whether the promoted records are as they must be.
    pub fn record_doubt_of_credentials(&self, uid: &str, doubted: bool) {
        self.with(uid, |remembered| remembered.credentials_doubted = doubted);
    }

    /// Whether the Secret with the credentials was seen lately with this generation.
    pub fn binding_recorded(&self, uid: &str, secret: &str, generation: i64) -> bool {
        self.with(uid, |remembered| {
            remembered
                .binding
                .as_ref()
                .is_some_and(|(name, seen, at)| name == secret && *seen == generation && at.elapsed() < self.trust)
        })
    }

    /// Remembers that the Secret with the credentials has this generation.
    pub fn record_binding(&self, uid: &str, secret: &str, generation: i64) {
        self.with(uid, |remembered| remembered.binding = Some((secret.to_owned(), generation, Instant::now())));
    }

    /// Takes the Secret with the credentials for outdated.
    pub fn invalidate_binding(&self, uid: &str) {
        self.with(uid, |remembered| remembered.binding = None);
    }

    /// Remembers the primary; returns the one before it.
    pub fn record_primary(&self, uid: &str, pod: &str) -> Option<String> {
        self.with(uid, |remembered| remembered.primary.replace(pod.to_owned()))
    }

    /// For how long a pod has been missing, given whether one is now.
    pub fn missing_for(&self, uid: &str, missing: bool) -> Duration {
        self.with(uid, |remembered| match missing {
            true => remembered.missing.get_or_insert_with(Instant::now).elapsed(),
            false => {
                remembered.missing = None;
                Duration::ZERO
            }
        })
    }

    /// Forgets a resource that is gone, and its objects.
    pub fn forget(&self, uid: &str) {
        lock(&self.resources).remove(uid);
        lock(&self.objects).retain(|_, seen| seen.owner != uid);
        lock(&self.deleted).retain(|_, annotations| annotations.get(ANNOTATION_UID).is_none_or(|stamp| stamp != uid));
    }

    fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(lock(&self.resources).entry(uid.to_owned()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> Owner {
        Owner { names: crate::api::names::Names::new("ns", "chat"), uid: uid.to_owned() }
    }

    fn record(cache: &Cache, owner: &Owner, kind: &str, name: &str, version: Option<&str>) {
        cache.look(owner, kind, name);
        cache.record(owner, kind, name, "plan".to_owned(), version.map(str::to_owned));
    }

    #[test]
    fn what_is_heard_while_an_object_is_read_is_newer_than_what_was_read() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        for (heard, counts) in [("7", true), ("8", false)] {
            cache.look(&ours, "Role", "chat-db");
            cache.invalidate("ns", "Role", "chat-db", Some(heard));
            cache.record(&ours, "Role", "chat-db", "plan".to_owned(), Some("7".to_owned()));
            assert_eq!(cache.is_as_planned(&ours, "Role", "chat-db", "plan"), counts, "our own write is no news");
        }
    }

    #[test]
    fn a_change_that_a_watch_tells_of_ends_trust_and_our_own_does_not() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        record(&cache, &ours, "Service", "chat-db", Some("7"));
        assert_eq!(cache.invalidate("ns", "Service", "chat-db", Some("7")).as_deref(), Some("chat"));
        assert!(cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db", "another plan"));
        assert!(!cache.is_as_planned(&owner("another"), "Service", "chat-db", "plan"));
        assert_eq!(
            cache.invalidate("ns", "Service", "chat-db", Some("8")).as_deref(),
            Some("chat"),
            "whatever its labels"
        );
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert_eq!(cache.invalidate("ns", "Service", "chat-db", Some("9")), None);
    }

    #[test]
    fn what_went_while_no_watch_ran_is_noticed_when_one_runs_again() {
        let cache = Cache::new(Duration::from_secs(60));
        let ours = owner("uid");
        for name in ["chat-db", "chat-db-peers"] {
            record(&cache, &ours, "Service", name, None);
        }
        record(&cache, &ours, "Role", "chat-db", None);
        cache.look(&ours, "Service", "chat-db-none");
        cache.record(&ours, "Service", "chat-db-none", ABSENT.to_owned(), None);
        let there = HashSet::from([("ns".to_owned(), "chat-db".to_owned())]);
        assert!(cache.invalidate_absent(Some("elsewhere"), "Service", &HashSet::new()).is_empty());
        assert_eq!(cache.invalidate_absent(None, "Service", &there), [("ns".to_owned(), "chat".to_owned())]);
        assert!(cache.is_as_planned(&ours, "Service", "chat-db", "plan"));
        assert!(!cache.is_as_planned(&ours, "Service", "chat-db-peers", "plan"));
        assert!(cache.is_as_planned(&ours, "Role", "chat-db", "plan"));
        assert!(cache.is_as_planned(&ours, "Service", "chat-db-none", ABSENT));
    }

    #[test]
    fn trust_ends_with_time() {
        let cache = Cache::new(Duration::ZERO);
        record(&cache, &owner("uid"), "Role", "chat-db", None);
        assert!(!cache.is_as_planned(&owner("uid"), "Role", "chat-db", "plan"));
    }
}
