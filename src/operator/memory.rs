//! What is remembered between reconciles: it saves requests, and losing it costs requests,
//! never truth.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::plan::RoleIds;
use crate::vault::VaultError;

/// What is remembered between reconciles.
pub struct Memory {
    /// For how long what was seen is taken to hold, where no watch tells of a change.
    trust: Duration,
    resources: Mutex<HashMap<String, Remembered>>,
    objects: Mutex<HashMap<ObjectKey, Seen>>,
    vault_said: Mutex<Option<(Instant, Result<(), VaultError>)>>,
}

/// For how long a word of Vault is one to every reconcile: longer than until the probe's next.
const VAULT_ANSWERS_FOR: Duration = Duration::from_secs(8);
/// The same of an error: a Vault that does not answer keeps the probe waiting, too.
const VAULT_FAILS_FOR: Duration = Duration::from_secs(20);

/// Namespace, kind and name of an object.
type ObjectKey = (String, String, String);

/// An object that was seen to be as planned.
struct Seen {
    owner: String,
    plan: String,
    resource_version: Option<String>,
    at: Instant,
}

/// What is remembered of one resource.
#[derive(Clone, Default)]
struct Remembered {
    failures: u32,
    vault: Option<VerifiedVault>,
    secrets: Option<Instant>,
    certificates: Option<SeenCertificates>,
    pending_generation: Option<i64>,
    credentials_doubted: bool,
    binding: Option<(String, i64, Instant)>,
    primary: Option<String>,
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

impl Memory {
    /// Remembers nothing yet; what it will remember it trusts for this long.
    pub fn new(trust: Duration) -> Self {
        Self { trust, resources: Mutex::default(), objects: Mutex::default(), vault_said: Mutex::default() }
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
    pub fn is_as_planned(&self, namespace: &str, kind: &str, name: &str, owner: &str, plan: &str) -> bool {
        let objects = lock(&self.objects);
        let seen = objects.get(&(namespace.to_owned(), kind.to_owned(), name.to_owned()));
        seen.is_some_and(|seen| seen.owner == owner && seen.plan == plan && seen.at.elapsed() < self.trust)
    }

    /// Remembers that an object is as planned.
    pub fn saw(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        owner: &str,
        plan: String,
        resource_version: Option<String>,
    ) {
        let seen = Seen { owner: owner.to_owned(), plan, resource_version, at: Instant::now() };
        lock(&self.objects).insert((namespace.to_owned(), kind.to_owned(), name.to_owned()), seen);
    }

    /// Hears from a watch that an object is of this version now; if that is not the version
    /// that was seen, what was seen counts no more.
    pub fn heard(&self, namespace: &str, kind: &str, name: &str, resource_version: Option<&str>) {
        let mut objects = lock(&self.objects);
        let key = (namespace.to_owned(), kind.to_owned(), name.to_owned());
        if objects.get(&key).is_some_and(|seen| seen.resource_version.as_deref() != resource_version) {
            objects.remove(&key);
        }
    }

    /// Whether Vault serves, as it has just said to whoever asked; none if nobody did. What
    /// else is remembered of Vault does not tell whether it is there.
    pub fn vault_said(&self) -> Option<Result<(), VaultError>> {
        let said = lock(&self.vault_said).clone();
        let counts = |word: &Result<_, _>| if word.is_ok() { VAULT_ANSWERS_FOR } else { VAULT_FAILS_FOR };
        said.filter(|(at, word)| at.elapsed() < counts(word)).map(|(_, word)| word)
    }

    /// Remembers whether Vault serves.
    pub fn saw_vault(&self, word: Result<(), VaultError>) {
        *lock(&self.vault_said) = Some((Instant::now(), word));
    }

    /// Takes Vault's last word for too old.
    pub fn doubt_vault_answers(&self) {
        *lock(&self.vault_said) = None;
    }

    /// Vault was away and is back: what was seen in it counts from now on. All that grew old
    /// meanwhile would otherwise be looked at by the whole fleet at once; so it is at each
    /// database's next resync, which have jitter.
    pub fn vault_is_back(&self) {
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
    pub fn verified_vault(&self, uid: &str, fingerprint: &str) -> Option<RoleIds> {
        self.with(uid, |remembered| {
            let verified = remembered.vault.as_ref()?;
            let fresh = verified.fingerprint == fingerprint && verified.at.elapsed() < self.trust;
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
        self.doubt_vault_answers();
        self.with(uid, |remembered| {
            remembered.vault = None;
            remembered.secrets = None;
            remembered.pending_generation = None;
        });
    }

    /// Forgets what was seen in Vault longer ago than this.
    pub fn doubt_vault_since(&self, uid: &str, age: Duration) {
        self.with(uid, |remembered| {
            remembered.vault.take_if(|seen| seen.at.elapsed() >= age);
            remembered.secrets.take_if(|at| at.elapsed() >= age);
        });
    }

    /// Whether the Secrets were seen lately.
    pub fn secrets_seen(&self, uid: &str) -> bool {
        self.with(uid, |remembered| remembered.secrets.is_some_and(|at| at.elapsed() < self.trust))
    }

    /// Remembers that the Secrets are as they shall be.
    pub fn saw_secrets(&self, uid: &str) {
        self.with(uid, |remembered| remembered.secrets = Some(Instant::now()));
    }

    /// The authorities, PEM, if the certificates were seen lately, and nothing about them has come
    /// due since.
    pub fn certificates_seen(&self, uid: &str, now: Timestamp) -> Option<String> {
        self.with(uid, |remembered| {
            let seen = remembered.certificates.as_ref()?;
            let holds = seen.at.elapsed() < self.trust && seen.due.is_none_or(|due| now < due);
            holds.then(|| seen.authorities.clone())
        })
    }

    /// Remembers that the certificates are as they shall be, until something comes due.
    pub fn saw_certificates(&self, uid: &str, authorities: String, due: Option<Timestamp>) {
        let seen = SeenCertificates { at: Instant::now(), due, authorities };
        self.with(uid, |remembered| remembered.certificates = Some(seen));
    }

    /// Takes the certificates for something to be looked at.
    pub fn doubt_certificates(&self, uid: &str) {
        self.with(uid, |remembered| remembered.certificates = None);
    }

    /// Whether `pending` was seen with this generation.
    pub fn pending_seen(&self, uid: &str, generation: i64) -> bool {
        self.with(uid, |remembered| remembered.pending_generation == Some(generation))
    }

    /// Remembers that `pending` was seen with this generation.
    pub fn saw_pending(&self, uid: &str, generation: i64) {
        self.with(uid, |remembered| remembered.pending_generation = Some(generation));
    }

    /// Whether the promoted records were not as they must be when they were looked at last.
    pub fn credentials_doubted(&self, uid: &str) -> bool {
        self.with(uid, |remembered| remembered.credentials_doubted)
    }

    /// Remembers whether the promoted records are as they must be.
    pub fn doubt_credentials(&self, uid: &str, doubted: bool) {
        self.with(uid, |remembered| remembered.credentials_doubted = doubted);
    }

    /// Whether the Secret with the credentials was seen lately with this generation.
    pub fn binding_seen(&self, uid: &str, secret: &str, generation: i64) -> bool {
        self.with(uid, |remembered| {
            remembered
                .binding
                .as_ref()
                .is_some_and(|(name, seen, at)| name == secret && *seen == generation && at.elapsed() < self.trust)
        })
    }

    /// Remembers that the Secret with the credentials has this generation.
    pub fn saw_binding(&self, uid: &str, secret: &str, generation: i64) {
        self.with(uid, |remembered| remembered.binding = Some((secret.to_owned(), generation, Instant::now())));
    }

    /// Takes the Secret with the credentials for outdated.
    pub fn doubt_binding(&self, uid: &str) {
        self.with(uid, |remembered| remembered.binding = None);
    }

    /// Remembers the primary; returns the one before it.
    pub fn saw_primary(&self, uid: &str, pod: &str) -> Option<String> {
        self.with(uid, |remembered| remembered.primary.replace(pod.to_owned()))
    }

    /// Forgets a resource that is gone, and its objects.
    pub fn forget(&self, uid: &str) {
        lock(&self.resources).remove(uid);
        lock(&self.objects).retain(|_, seen| seen.owner != uid);
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

    #[test]
    fn a_change_that_a_watch_tells_of_ends_trust_and_our_own_does_not() {
        let memory = Memory::new(Duration::from_secs(60));
        memory.saw("ns", "Service", "chat-db", "uid", "plan".to_owned(), Some("7".to_owned()));
        memory.heard("ns", "Service", "chat-db", Some("7"));
        assert!(memory.is_as_planned("ns", "Service", "chat-db", "uid", "plan"));
        assert!(!memory.is_as_planned("ns", "Service", "chat-db", "uid", "another plan"));
        assert!(!memory.is_as_planned("ns", "Service", "chat-db", "another owner", "plan"));
        memory.heard("ns", "Service", "chat-db", Some("8"));
        assert!(!memory.is_as_planned("ns", "Service", "chat-db", "uid", "plan"));
    }

    #[test]
    fn trust_ends_with_time() {
        let memory = Memory::new(Duration::ZERO);
        memory.saw("ns", "Role", "chat-db", "uid", "plan".to_owned(), None);
        assert!(!memory.is_as_planned("ns", "Role", "chat-db", "uid", "plan"));
    }
}
