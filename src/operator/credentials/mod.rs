//! The operator's part of the credentials: it decides the generation and writes `pending`;
//! proving and promoting is the work of the leader's agent.

pub mod binding;
pub mod client_objects;
pub mod clients;
mod noted_clients;
mod passphrase;
mod pending;
pub mod role_ids;
pub mod secret_id;
mod short_lived;
pub mod spec;
pub mod vault_objects;
pub mod vault_sync;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::pending::{DAMAGE_COUNTS_AFTER, TRIES, login};
use super::context::Context;
use super::observe::Observation;
use super::validate::Database;
use crate::api::conditions::reason;
use crate::contract::clients::Client;
use crate::contract::desired::Requests;
use crate::contract::records::{Pending, Runtime, Versions, expires_soon};
use crate::contract::report::CredentialsReport;
use crate::operator::context::error::Error;
use crate::vault::{Vault, VaultError, version_to_replace};

/// The desired credentials, and the observations behind the decision.
#[derive(Clone, Debug, Default)]
pub struct DesiredCredentials {
    /// The desired generation of the runtime record.
    pub generation: i64,
    /// The requests that it answers.
    pub requests: Requests,
    /// The versions of the records that the leader's agent proves again.
    pub prove: Option<Versions>,
    /// The runtime record of a running database is missing: the remedy.
    pub lost: Option<String>,
    /// A record does not hold the proved credentials: the reaction.
    pub damaged: Option<String>,
    /// Vault was not queried: earlier observations are still valid.
    pub unseen: bool,
    /// How long until new credentials are due by their age.
    pub due_in: Option<Duration>,
    /// The clients with a login of their own.
    pub clients: Vec<Client>,
    /// Why Vault's database secrets engine does not take its part: clients with short-lived logins get no new ones.
    pub engine: Option<VaultError>,
}

/// The cause of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A user's request.
    Requested,
    /// They have reached their maximum age.
    Due,
    /// A record in Vault does not hold the promoted credentials.
    Damaged,
    /// The runtime record is missing, and a user requested new credentials.
    Reissued,
}

/// Decides the generation, and writes it to `pending` until it is promoted.
///
/// The decision is recorded in the desired state, which the caller applies: after a crash before
/// that, the next run makes the same decision, and finds its `pending`.
///
/// # Errors
/// Any error of Vault.
pub async fn ensure(
    context: &Context,
    database: &Database,
    observed: &Observation,
    unseen: bool,
) -> Result<DesiredCredentials, Error> {
    let mut desired = Box::pin(present(context, database, observed)).await?;
    let primary = observed.primary().and_then(|pod| pod.report.as_ref());
    let promoted = primary.and_then(|report| report.credentials.as_ref());
    let tells =
        |why: &str| primary.and_then(|report| report.trouble.as_ref()).is_some_and(|trouble| trouble.reason == why);
    if let Some(promoted) = promoted.filter(|promoted| promoted.generation >= desired.generation) {
        let uid = &database.owner.uid;
        let damaged = tells(reason::CREDENTIALS_LOST) || context.cache.credentials_damaged(uid);
        // A requested or due generation replaces an existing record only: a missing one waits for a
        // reissue.
        let mut records = Records::Whole;
        if unseen || damaged || desired.is_asked(database, promoted, context.now()) {
            let found = Box::pin(read_records(context.vault.as_ref(), database, promoted, context.now())).await?;
            desired.prove = found.prove.or(desired.prove);
            records = found.records;
            context.cache.record_credentials_damaged(uid, records != Records::Whole);
        }
        if matches!(records, Records::Whole | Records::Foreign) && tells(reason::CREDENTIALS_DAMAGED) {
            records = Records::Damaged;
        }
        desired.decide(database, records, promoted, context.now());
    }
    // Without a primary's report, status decides: a promoted generation is never created again.
    // Its record may be missing, and then only a new generation may follow.
    let promoted = promoted.map_or(database.promoted, |promoted| promoted.generation);
    let unseen = unseen || tells(reason::CREDENTIALS_PENDING);
    Box::pin(ensure_pending(context, database, desired.generation, promoted, unseen)).await?;
    desired.clients = Box::pin(clients::ensure(context, database, observed, &desired.clients, unseen)).await?;
    Ok(desired)
}

impl DesiredCredentials {
    /// The first decision for a database.
    pub fn first() -> Self {
        Self { generation: 1, ..Self::default() }
    }

    /// The decision in the desired state, if Vault was not queried.
    pub fn recorded(observed: &Observation) -> Option<Self> {
        let desired = observed.desired.as_ref()?;
        let (generation, requests) = (desired.credential_generation, desired.requests.clone());
        let (prove, clients) = (desired.prove, desired.clients.clone());
        Some(Self { generation, requests, prove, clients, unseen: true, ..Self::default() })
    }

    /// Whether new credentials were requested, or are due.
    fn is_asked(&self, database: &Database, promoted: &CredentialsReport, now: Timestamp) -> bool {
        let asked = &database.requests;
        is_open(&asked.rotate, &self.requests.rotate)
            || is_open(&asked.reissue, &self.requests.reissue)
            || due_in(database, promoted, now) == Some(Duration::ZERO)
    }

    /// Advances to the next generation, if there is a cause.
    fn decide(&mut self, database: &Database, records: Records, promoted: &CredentialsReport, now: Timestamp) {
        let asked = &database.requests;
        let reissue = is_open(&asked.reissue, &self.requests.reissue);
        self.due_in = due_in(database, promoted, now);
        let cause = match records {
            Records::Gone if reissue => Some(Cause::Reissued),
            Records::Gone => {
                self.lost = Some(lost(database));
                None
            }
            Records::Damaged => {
                self.damaged = Some(damaged(database));
                // If new credentials do not resolve the problem, the logins must not rotate
                // endlessly.
                (now.duration_since(promoted.rotated_at) >= DAMAGE_COUNTS_AFTER).then_some(Cause::Damaged)
            }
            Records::Foreign => {
                self.damaged = Some(foreign(database));
                None
            }
            Records::Whole if reissue || is_open(&asked.rotate, &self.requests.rotate) => Some(Cause::Requested),
            Records::Whole if self.due_in == Some(Duration::ZERO) => Some(Cause::Due),
            Records::Whole => None,
        };
        let Some(cause) = cause else { return };
        self.generation = self.generation.max(promoted.generation).saturating_add(1);
        // One new generation answers all earlier requests.
        self.requests = Requests {
            rotate: asked.rotate.clone().or(self.requests.rotate.take()),
            reissue: asked.reissue.clone().or(self.requests.reissue.take()),
        };
        self.due_in = None;
        tracing::info!(generation = self.generation, ?cause, "new credentials");
    }
}

/// Whether a request is not answered yet.
fn is_open(asked: &Option<String>, done: &Option<String>) -> bool {
    asked.is_some() && asked != done
}

/// How long until new credentials are due by their age, if they have a maximum age.
fn due_in(database: &Database, promoted: &CredentialsReport, now: Timestamp) -> Option<Duration> {
    let age = now.duration_since(promoted.rotated_at);
    let period = SignedDuration::try_from(database.rotation_period?).unwrap_or(SignedDuration::MAX);
    Some(Duration::try_from(period.saturating_sub(age)).unwrap_or_default())
}

/// The last decided generation.
///
/// It is recorded in the desired state, so Vault is queried only before the first time.
async fn present(context: &Context, database: &Database, observed: &Observation) -> Result<DesiredCredentials, Error> {
    let ours = observed.own_desired(&database.owner.uid).is_some();
    if let Some(desired) = DesiredCredentials::recorded(observed).filter(|_| ours) {
        return Ok(DesiredCredentials { unseen: false, ..desired });
    }
    let desired = |generation, requests: &Requests| DesiredCredentials {
        generation,
        requests: requests.clone(),
        ..DesiredCredentials::default()
    };
    // New credentials answer all earlier requests; for others status has the answered request.
    let anew = |generation| desired(generation, database.answered.as_ref().unwrap_or(&database.requests));
    let Some(record) = context.vault.read_kv(&database.vault.runtime()).await? else {
        return Ok(anew(database.promoted.max(1)));
    };
    // An unreadable record is replaced, by the agent with check-and-set.
    let Ok(held) = Runtime::generation_of(&record.data) else {
        return Ok(anew(database.promoted.saturating_add(1)));
    };
    // A record of an earlier resource of this name is adopted only together with its data: its
    // clients knew its password. The next generation replaces it once a login proves it. The
    // metadata does not show the owner of the content: it is written before the content.
    let ours = Runtime::uid_of(&record.data) == Some(database.owner.uid.as_str());
    let adopted = database.adopt && observed.initialized() && !observed.foreign_config;
    Ok(if ours || adopted {
        desired(held, database.answered.as_ref().unwrap_or(&Requests::default()))
    } else {
        anew(held.saturating_add(1))
    })
}

/// The state of the promoted records in Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Records {
    /// Correct.
    Whole,
    /// One differs from the promoted credentials: unreadable or older, or the migrator's is missing.
    Damaged,
    /// One was written by a client other than the leader's agent, and is not proved yet.
    Foreign,
    /// The runtime record is missing. Services that have read it continue to work, so it is
    /// replaced only on request: it may be restored.
    Gone,
}

/// The records in Vault, and whether the agent must prove them again.
struct Found {
    records: Records,
    prove: Option<Versions>,
}

async fn read_records(
    vault: &dyn Vault,
    database: &Database,
    promoted: &CredentialsReport,
    now: Timestamp,
) -> Result<Found, Error> {
    let (runtime, migrator) = (database.vault.runtime(), database.vault.migrator_record());
    // The operator may not read the content of the migrator's record.
    let (runtime, migrator) = tokio::try_join!(vault.read_kv(&runtime), vault.read_kv_metadata(&migrator))?;
    let Some(runtime) = runtime else { return Ok(Found { records: Records::Gone, prove: None }) };
    let migrator = migrator.unwrap_or_default();
    let whole = Runtime::generation_of(&runtime.data).is_ok_and(|generation| generation >= promoted.generation)
        && Runtime::login_of(&runtime.data, &database.names().key_prefix()).is_ok()
        && migrator.present;
    if !whole {
        return Ok(Found { records: Records::Damaged, prove: None });
    }
    let versions = Versions { runtime: runtime.version, migrator: migrator.version };
    let foreign = promoted.versions.is_some_and(|proved| proved != versions);
    let expires = [runtime.expires_at, migrator.expires_at].into_iter().any(|at| expires_soon(at, now));
    let records = if foreign { Records::Foreign } else { Records::Whole };
    Ok(Found { records, prove: (foreign || expires).then_some(versions) })
}

fn lost(database: &Database) -> String {
    format!(
        "the record {} is missing in Vault: services cannot read their credentials, but those that read them before \
         continue to work. Restore it (vault kv undelete), or create new credentials: kubectl servicedb rotate {} -n \
         {} --reissue",
        database.vault.runtime(),
        database.names().name,
        database.names().namespace,
    )
}

fn foreign(database: &Database) -> String {
    format!(
        "a record under {} in Vault was written by another client: the primary's agent tests its login, and writes the \
         proved one again if PostgreSQL refuses it",
        database.vault.folder()
    )
}

fn damaged(database: &Database) -> String {
    format!(
        "a record under {} in Vault does not contain the proved login: it is unreadable, older or missing, or its \
         login is refused; new credentials replace it, at the earliest five minutes after the last ones",
        database.vault.folder()
    )
}

/// Writes the generation to `pending`, unless it was promoted already.
async fn ensure_pending(
    context: &Context,
    database: &Database,
    generation: i64,
    promoted: i64,
    unseen: bool,
) -> Result<(), Error> {
    let uid = &database.owner.uid;
    if promoted >= generation || (!unseen && context.cache.pending_recorded(uid, generation)) {
        return Ok(());
    }
    let mut tries = 1;
    // A write over a missing version is refused: an agent has just discarded it, or another
    // operator wrote first. Only a read shows which.
    while let Err(error) = try_pending(context.vault.as_ref(), database, generation).await {
        match error {
            Error::Vault(VaultError::CasMismatch { .. }) if tries < TRIES => tries += 1,
            error => return Err(error),
        }
    }
    context.cache.record_pending(uid, generation);
    Ok(())
}

async fn try_pending(vault: &dyn Vault, database: &Database, generation: i64) -> Result<(), Error> {
    let path = database.vault.pending();
    let cas = match vault.read_kv(&path).await? {
        Some(record) if Pending::from_data(&record.data).is_ok_and(|pending| pending.generation == generation) => {
            return Ok(());
        }
        Some(record) => record.version,
        None => {
            // A missing `pending` may mean that it was just promoted.
            let runtime = vault.read_kv(&database.vault.runtime()).await?;
            if runtime.is_some_and(|record| Runtime::generation_of(&record.data).is_ok_and(|held| held >= generation)) {
                return Ok(());
            }
            version_to_replace(vault, &path).await?
        }
    };
    let pending = Pending {
        generation,
        app: login(database.postgres.login(generation)),
        migrator: login(database.postgres.migrator_login(generation)),
    };
    vault.write_kv(&path, &pending.to_data(), cas).await?;
    Ok(())
}
