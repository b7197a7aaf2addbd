//! The observed state of Vault, of the Secrets and of the certificates.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::entries::{Front, VerifiedCertificates, VerifiedVault};
use super::{Cache, lock};
use crate::operator::credentials::role_ids::RoleIds;
use crate::vault::VaultError;

/// How long a health result of Vault is valid for all reconciles: longer than the probe's interval.
const VAULT_ANSWERS_FOR: Duration = Duration::from_secs(8);
/// The same for an error: an unresponsive Vault delays the probe, too.
const VAULT_FAILS_FOR: Duration = Duration::from_secs(20);

/// How long an answer of the database secrets engine is valid that it does not take its part.
const ENGINE_REFUSES_FOR: Duration = Duration::from_secs(60);

/// The interval between two prompts of a kubelet for the same certificates.
const PROMPT_AGAIN: Duration = Duration::from_secs(10);

impl Cache {
    /// Whether Vault serves, according to the last recent request; none if there was none. Other entries
    /// about Vault do not show whether it is available.
    pub fn vault_answer(&self) -> Option<Result<(), VaultError>> {
        let health = lock(&self.vault_health).clone();
        let counts = |result: &Result<_, _>| if result.is_ok() { VAULT_ANSWERS_FOR } else { VAULT_FAILS_FOR };
        health.filter(|(at, result)| at.elapsed() < counts(result)).map(|(_, result)| result)
    }

    /// Records whether Vault serves.
    pub fn record_vault_answer(&self, result: Result<(), VaultError>) {
        *lock(&self.vault_health) = Some((Instant::now(), result));
    }

    /// Expires Vault's last health result.
    pub fn invalidate_vault_answer(&self) {
        *lock(&self.vault_health) = None;
    }

    /// Renews the entries about Vault after an outage: otherwise all databases would check the
    /// expired ones at once. They are checked at each database's next resync, with jitter.
    pub fn renew_vault_objects(&self) {
        let now = Instant::now();
        for entries in lock(&self.resources).values_mut() {
            if let Some(entry) = &mut entries.credentials.vault {
                entry.at = now;
            }
            if let Some(entry) = &mut entries.credentials.secrets {
                *entry = now;
            }
        }
    }

    /// The role_ids, and why the database secrets engine does not take its part, if Vault's objects were recently observed
    /// with this fingerprint.
    pub fn vault_objects(&self, uid: &str, fingerprint: &str) -> Option<(RoleIds, Option<VaultError>)> {
        self.known(uid, |entries| {
            let verified = entries.credentials.vault.as_ref()?;
            let lifetime = verified.engine.as_ref().map_or(self.lifetime, |_| ENGINE_REFUSES_FOR.min(self.lifetime));
            let fresh = verified.fingerprint == fingerprint && verified.at.elapsed() < lifetime;
            fresh.then(|| (verified.role_ids.clone(), verified.engine.clone()))
        })
    }

    /// Records an observation of Vault's objects; `engine`: why the database secrets engine does not take its part.
    pub fn record_vault_objects(&self, uid: &str, fingerprint: String, role_ids: RoleIds, engine: Option<VaultError>) {
        self.with(uid, |entries| {
            let before = entries.credentials.vault.take().filter(|before| before.fingerprint == fingerprint);
            let resyncs = before.map_or(0, |before| before.resyncs.wrapping_add(1));
            let at = Instant::now();
            entries.credentials.vault = Some(VerifiedVault { fingerprint, at, role_ids, engine, resyncs });
        });
    }

    /// The number of the next observation of Vault's objects, if they had this fingerprint at the last; none if all of
    /// them must be read.
    pub fn vault_turn(&self, uid: &str, fingerprint: &str) -> Option<usize> {
        self.known(uid, |entries| {
            let is_as_before = |before: &&VerifiedVault| before.fingerprint == fingerprint && before.engine.is_none();
            Some(entries.credentials.vault.as_ref().filter(is_as_before)?.resyncs)
        })
    }

    /// The number of the last observation of Vault's objects; none if all of them were read.
    pub fn vault_resync(&self, uid: &str) -> Option<usize> {
        self.known(uid, |entries| entries.credentials.vault.as_ref()?.resyncs.checked_sub(1))
    }

    /// Invalidates the observations of Vault, because an object differs from them.
    pub fn invalidate_vault_objects(&self, uid: &str) {
        self.invalidate_vault_answer();
        self.known(uid, |entries| {
            entries.credentials.vault = None;
            entries.credentials.secrets = None;
            entries.credentials.pending = None;
            entries.credentials.client_pending.clear();
        });
    }

    /// Lets the observations of Vault and the Secrets be as old as they may be.
    #[cfg(test)]
    pub fn expire_credentials(&self, uid: &str) {
        let expired = Instant::now().checked_sub(self.lifetime);
        self.known(uid, |entries| {
            entries.credentials.secrets = None;
            if let (Some(vault), Some(expired)) = (&mut entries.credentials.vault, expired) {
                vault.at = expired;
            }
        });
    }

    /// Invalidates observations of Vault older than this.
    pub fn invalidate_vault_objects_older_than(&self, uid: &str, age: Duration) {
        self.known(uid, |entries| {
            entries.credentials.vault.take_if(|entry| entry.at.elapsed() >= age);
            entries.credentials.secrets.take_if(|at| at.elapsed() >= age);
        });
    }

    /// Invalidates the observation of the Secrets, if it is older than this.
    pub fn invalidate_secrets_older_than(&self, uid: &str, age: Duration) {
        self.known(uid, |entries| {
            entries.credentials.secrets.take_if(|at| at.elapsed() >= age);
            entries.credentials.certificates.take_if(|entry| entry.at.elapsed() >= age);
        });
    }

    /// Whether the Secrets were recently observed.
    pub fn secrets_recorded(&self, uid: &str) -> bool {
        self.known(uid, |entries| entries.credentials.secrets.is_some_and(|at| at.elapsed() < self.lifetime))
    }

    /// Invalidates checks whose result status does not report.
    pub fn invalidate_reported(&self, uid: &str) {
        self.invalidate_secrets_older_than(uid, Duration::ZERO);
    }

    /// Records that the Secrets are in the desired state.
    pub fn record_secrets(&self, uid: &str) {
        self.with(uid, |entries| entries.credentials.secrets = Some(Instant::now()));
    }

    /// The authorities, PEM, if the certificates were recently observed, and no action is due.
    pub fn certificates(&self, uid: &str, now: Timestamp) -> Option<String> {
        self.known(uid, |entries| {
            let entry = entries.credentials.certificates.as_ref()?;
            let holds = entry.at.elapsed() < self.lifetime && entry.due.is_none_or(|due| now < due);
            holds.then(|| entry.authorities.clone())
        })
    }

    /// Records that the certificates are in the desired state, until an action is due.
    pub fn record_certificates(&self, uid: &str, authorities: String, due: Option<Timestamp>) {
        let entry = VerifiedCertificates { at: Instant::now(), due, authorities };
        self.with(uid, |entries| entries.credentials.certificates = Some(entry));
    }

    /// Whether to make kubelets update these certificates now. Repeated after [`PROMPT_AGAIN`],
    /// since a kubelet may have synced the pod before its watch had the new Secret.
    pub fn may_prompt(&self, uid: &str, certificates: &str) -> bool {
        self.with(uid, |entries| {
            let asked = entries.credentials.prompted.as_ref();
            let lately = asked.is_some_and(|(asked, at)| asked == certificates && at.elapsed() < PROMPT_AGAIN);
            if !lately {
                entries.credentials.prompted = Some((certificates.to_owned(), Instant::now()));
            }
            !lately
        })
    }

    /// Invalidates the observation of the certificates.
    pub fn invalidate_certificates(&self, uid: &str) {
        self.known(uid, |entries| entries.credentials.certificates = None);
    }

    /// Whether the certificates of the pods in front of a database were recently observed.
    pub fn front_certificates_recorded(&self, uid: &str, front: Front) -> bool {
        let is_recent = |at: &Instant| at.elapsed() < self.lifetime;
        self.known(uid, |entries| entries.credentials.fronts.get(&front).is_some_and(is_recent))
    }

    /// Records that these certificates are in the desired state.
    pub fn record_front_certificates(&self, uid: &str, front: Front) {
        self.with(uid, |entries| {
            entries.credentials.fronts.insert(front, Instant::now());
        });
    }

    /// Invalidates the observation of these certificates.
    pub fn invalidate_front_certificates(&self, uid: &str, front: Front) {
        self.known(uid, |entries| {
            entries.credentials.fronts.remove(&front);
        });
    }

    /// Whether `pending` was observed with this generation.
    pub fn pending_recorded(&self, uid: &str, generation: i64) -> bool {
        self.known(uid, |entries| entries.credentials.pending == Some(generation))
    }

    /// Records that `pending` was observed with this generation.
    pub fn record_pending(&self, uid: &str, generation: i64) {
        self.with(uid, |entries| entries.credentials.pending = Some(generation));
    }

    /// Whether a client's `pending` was observed with this generation.
    pub fn client_pending_recorded(&self, uid: &str, client: &str, generation: i64) -> bool {
        self.known(uid, |entries| entries.credentials.client_pending.get(client) == Some(&generation))
    }

    /// Records that a client's `pending` was observed with this generation.
    pub fn record_client_pending(&self, uid: &str, client: &str, generation: i64) {
        self.with(uid, |entries| entries.credentials.client_pending.insert(client.to_owned(), generation));
    }

    /// Whether the promoted records were wrong at their last check.
    pub fn credentials_damaged(&self, uid: &str) -> bool {
        self.known(uid, |entries| entries.credentials.damaged)
    }

    /// Records whether the promoted records are correct.
    pub fn record_credentials_damaged(&self, uid: &str, damaged: bool) {
        self.with(uid, |entries| entries.credentials.damaged = damaged);
    }

    /// Whether a Secret with credentials was recently observed with this generation of this record.
    pub fn binding_recorded(&self, uid: &str, secret: &str, (record, generation): (&str, i64)) -> bool {
        self.known(uid, |entries| {
            entries
                .credentials
                .bindings
                .get(secret)
                .is_some_and(|(of, entry, at)| of == record && *entry == generation && at.elapsed() < self.lifetime)
        })
    }

    /// Records that a Secret with credentials has this generation of this record.
    pub fn record_binding(&self, uid: &str, secret: &str, (record, generation): (String, i64)) {
        let entry = (record, generation, Instant::now());
        self.with(uid, |entries| entries.credentials.bindings.insert(secret.to_owned(), entry));
    }

    /// Invalidates the observations of the Secrets with credentials.
    pub fn invalidate_bindings(&self, uid: &str) {
        self.known(uid, |entries| entries.credentials.bindings.clear());
    }
}
