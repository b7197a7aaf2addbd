//! The operator's part of the credentials: it decides the generation and writes `pending`;
//! proving and promoting is the work of the leader's agent.

pub mod binding;
pub mod role_ids;
pub mod secret_id;
pub mod vault_objects;
pub mod vault_sync;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::context::Context;
use super::observe::Observation;
use super::validate::Database;
use crate::api::conditions::reason;
use crate::contract::desired::Requests;
use crate::contract::records::{Login, Pending, Runtime};
use crate::contract::report::CredentialsReport;
use crate::operator::context::error::Error;
use crate::postgres::{generate_password, scram_verifier};
use crate::vault::{Vault, VaultError, version_to_replace};

/// What was decided, and what was found on the way.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// The generation that the runtime record shall hold.
    pub generation: i64,
    /// The requests that it answers.
    pub requests: Requests,
    /// The runtime record of a living database is gone: what to do about it.
    pub lost: Option<String>,
    /// A record does not hold what was proved: what is done about it.
    pub damaged: Option<String>,
    /// Vault was not asked: what was found in it before still holds.
    pub unseen: bool,
    /// How long until new credentials are due by their age.
    pub due_in: Option<Duration>,
}

/// How old credentials must be to be replaced because a record of them is damaged.
const DAMAGE_COUNTS_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Why new credentials are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Somebody asked.
    Requested,
    /// They are as old as they may become.
    Due,
    /// A record in Vault does not hold what was promoted.
    Damaged,
    /// The runtime record is gone, and somebody asked for new ones all the same.
    Reissued,
}

/// Decides the generation, and sees to it that `pending` holds it until it is promoted.
///
/// What was decided is written down in the desired state, which the caller applies: a crash
/// before that comes to the same decision, and finds its `pending`.
///
/// # Errors
/// Whatever Vault said.
pub async fn settle(
    context: &Context,
    database: &Database,
    observed: &Observation,
    unseen: bool,
) -> Result<Settled, Error> {
    let mut settled = present(context, database, observed).await?;
    let primary = observed.primary().and_then(|pod| pod.report.as_ref());
    let promoted = primary.and_then(|report| report.credentials.as_ref());
    let tells =
        |why: &str| primary.and_then(|report| report.trouble.as_ref()).is_some_and(|trouble| trouble.reason == why);
    if let Some(promoted) = promoted.filter(|promoted| promoted.generation >= settled.generation) {
        let uid = &database.owner.uid;
        let records = if unseen || tells(reason::CREDENTIALS_LOST) || context.cache.credentials_in_doubt(uid) {
            let records = look(context.vault.as_ref(), database, promoted).await?;
            context.cache.record_doubt_of_credentials(uid, records != Records::Whole);
            records
        } else {
            Records::Whole
        };
        settled.decide(database, records, promoted, context.now());
    }
    // Where no primary tells, status does: what was promoted once is never made a second time.
    // Its record may be gone, and then only a new generation may follow.
    let promoted = promoted.map_or(database.promoted, |promoted| promoted.generation);
    let unseen = unseen || tells(reason::CREDENTIALS_PENDING);
    ensure_pending(context, database, settled.generation, promoted, unseen).await?;
    Ok(settled)
}

impl Settled {
    /// What a database begins with.
    pub fn first() -> Self {
        Self { generation: 1, ..Self::default() }
    }

    /// What the desired state says, where Vault was not asked.
    pub fn remembered(observed: &Observation) -> Option<Self> {
        let desired = observed.desired.as_ref()?;
        let (generation, requests) = (desired.credential_generation, desired.requests.clone());
        Some(Self { generation, requests, unseen: true, ..Self::default() })
    }

    /// Goes on to the next generation, if there is a cause.
    fn decide(&mut self, database: &Database, records: Records, promoted: &CredentialsReport, now: Timestamp) {
        let asked = &database.requests;
        let open = |asked: &Option<String>, done: &Option<String>| asked.is_some() && asked != done;
        let reissue = open(&asked.reissue, &self.requests.reissue);
        if let Some(period) = database.rotation_period {
            let age = now.duration_since(promoted.rotated_at);
            let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
            let left = Duration::try_from(period.saturating_sub(age)).unwrap_or_default();
            self.due_in = Some(left);
        }
        let cause = match records {
            Records::Gone if reissue => Some(Cause::Reissued),
            Records::Gone => {
                self.lost = Some(lost(database));
                None
            }
            Records::Damaged => {
                self.damaged = Some(damaged(database));
                // What new credentials do not cure would turn the logins without end.
                (now.duration_since(promoted.rotated_at) >= DAMAGE_COUNTS_AFTER).then_some(Cause::Damaged)
            }
            Records::Whole if reissue || open(&asked.rotate, &self.requests.rotate) => Some(Cause::Requested),
            Records::Whole if self.due_in == Some(Duration::ZERO) => Some(Cause::Due),
            Records::Whole => None,
        };
        let Some(cause) = cause else { return };
        self.generation = self.generation.max(promoted.generation).saturating_add(1);
        // One new generation answers whatever was asked before it.
        self.requests = Requests {
            rotate: asked.rotate.clone().or(self.requests.rotate.take()),
            reissue: asked.reissue.clone().or(self.requests.reissue.take()),
        };
        self.due_in = None;
        tracing::info!(generation = self.generation, ?cause, "new credentials");
    }
}

/// The generation that was decided last.
///
/// It is written down in the desired state, so Vault is asked only before the first time.
async fn present(context: &Context, database: &Database, observed: &Observation) -> Result<Settled, Error> {
    let ours = observed.desired.as_ref().is_some_and(|desired| desired.uid == database.owner.uid);
    if let Some(settled) = Settled::remembered(observed).filter(|_| ours) {
        return Ok(Settled { unseen: false, ..settled });
    }
    let settled =
        |generation, requests: &Requests| Settled { generation, requests: requests.clone(), ..Settled::default() };
    // New ones answer whatever was asked before them; of others status tells what they answer.
    let anew = |generation| settled(generation, database.answered.as_ref().unwrap_or(&database.requests));
    let Some(record) = context.vault.read_kv(&database.vault.runtime()).await? else {
        return Ok(anew(database.promoted.max(1)));
    };
    // What is not readable is replaced, by the agent under check-and-set.
    let Ok(held) = Runtime::generation_of(&record.data) else {
        return Ok(anew(database.promoted.saturating_add(1)));
    };
    // A record of an earlier resource of this name is never taken over, unless its data is:
    // its password was known to its clients. The next generation replaces it once a login
    // proves it. The metadata does not tell: it is written before that, and the content with it.
    let ours = Runtime::uid_of(&record.data) == Some(database.owner.uid.as_str());
    let adopted = database.adopt && observed.initialized() && !observed.foreign_config;
    Ok(if ours || adopted {
        settled(held, database.answered.as_ref().unwrap_or(&Requests::default()))
    } else {
        anew(held.saturating_add(1))
    })
}

/// The records that were promoted, as Vault has them now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Records {
    /// As they must be.
    Whole,
    /// One is not what was promoted: unreadable or older, or the migrator's is gone.
    Damaged,
    /// The runtime record is not there. Services that hold it are served on, so nothing is
    /// replaced before somebody says so: it may be restored.
    Gone,
}

async fn look(vault: &dyn Vault, database: &Database, promoted: &CredentialsReport) -> Result<Records, Error> {
    let (runtime, migrator) = (database.vault.runtime(), database.vault.migrator_record());
    // What the migrator's record holds is not for the operator to read.
    let (runtime, migrator) = tokio::try_join!(vault.read_kv(&runtime), vault.read_kv_metadata(&migrator))?;
    let Some(runtime) = runtime else { return Ok(Records::Gone) };
    let whole = Runtime::generation_of(&runtime.data).is_ok_and(|generation| generation >= promoted.generation)
        && Runtime::login_of(&runtime.data, &database.names().key_prefix()).is_ok()
        && migrator.is_some_and(|migrator| migrator.present);
    Ok(if whole { Records::Whole } else { Records::Damaged })
}

fn lost(database: &Database) -> String {
    format!(
        "the record {} is gone from Vault: services that read it get nothing, and those that read it before are \
         served on. Restore it (vault kv undelete), or make new credentials: kubectl servicedb rotate {} -n {} --reissue",
        database.vault.runtime(),
        database.names().name,
        database.names().namespace,
    )
}

fn damaged(database: &Database) -> String {
    format!(
        "a record under {} in Vault does not hold what was proved: it is unreadable, older, or gone; new credentials \
         replace it, five minutes after the last at the earliest",
        database.vault.folder()
    )
}

/// How often `pending` is read and written before somebody else's writes are left to end.
const TRIES: usize = 3;

/// Sees to it that `pending` holds the generation, unless it was promoted already.
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
    // Refused is a write over a version that is not there any more: an agent has just discarded
    // it, or another operator was first. Only a look tells.
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
            // No `pending` may mean that it was promoted a moment ago.
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

fn login(user: String) -> Login {
    let password = generate_password();
    let verifier = scram_verifier(&password);
    Login { user, password, verifier }
}
