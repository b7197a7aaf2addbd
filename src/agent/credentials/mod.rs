//! Credentials. The logins in `pending` are applied, proved by a login, and promoted to `runtime`. Each
//! step can be repeated, so a kill at any point loses nothing: the login in `runtime` always works.

mod clients;
mod engine;
mod error;
mod remembered;

pub use error::CredentialsError;
pub use remembered::{fingerprint, fingerprint_of_client, fingerprint_of_engine, known_client, remembered};

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use secrecy::SecretString;
use tokio_postgres::Client;

use super::ensure::{self, LoginKind};
use super::environment::Environment;
use super::patroni::rest::Rest;
use super::records::Records;
use crate::api::names::PostgresNames;
use crate::contract::certificates::Authorities;
use crate::contract::desired::Desired;
use crate::contract::pod::{POSTGRES_PORT, TLS_DIR};
use crate::contract::records::{Data, Login, MigratorRecord, Pending, RecordError, Runtime, Versions, expires_soon};
use crate::contract::report::CredentialsReport;
use crate::postgres::{TlsLogin, ident, immune, over_tls, scram_verifier};
use crate::vault::{KvRecord, version_to_replace};
use error::{ProofFailure, is_limited, or_at_limit};
use remembered::{are_as_proved, is_as_proved, remember};

/// A key of the record `runtime`, beside those that applications read: when it was promoted.
const ROTATED_AT: &str = "SERVICEDB_ROTATED_AT";
/// The number of earlier versions that are tried where a record was changed; Vault keeps ten by default.
const EARLIER_VERSIONS: u64 = 10;
/// Interval between two queries of the replicas' progress.
const REPLAY_POLL: Duration = Duration::from_millis(20);
/// How long the replicas may take.
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);

/// One run over the credentials of a leader.
pub struct Run<'a> {
    /// This pod.
    pub environment: &'a Environment,
    /// The desired state.
    pub desired: &'a Desired,
    /// Vault's records.
    pub records: &'a Records,
    /// A superuser's connection to the database `postgres`.
    pub client: &'a Client,
}

impl Run<'_> {
    /// Promotes the desired generation to `runtime` if the record is older, otherwise verifies its login.
    ///
    /// # Errors
    /// If a step fails; another run continues from there.
    pub async fn verify(&self) -> Result<CredentialsReport, CredentialsError> {
        let runtime = self.records.vault.read_kv(&self.records.runtime()).await?;
        let known = remembered(self.client).await?.map_or(0, |known| known.generation);
        let held = runtime.as_ref().and_then(|record| generation_to_assert(&record.data, self.desired, known));
        let report = match (&runtime, held) {
            (Some(record), Some(generation)) => self.assert(record, generation).await?,
            _ => self.promote(runtime.as_ref(), known).await?,
        };
        let logins = fingerprint(self.client, &self.names(), report.generation).await?;
        remember(self.client, &report, &logins).await?;
        self.discard_pending(report.generation).await?;
        Ok(report)
    }

    fn names(&self) -> PostgresNames {
        self.environment.names.postgres(&self.desired.database)
    }

    /// From `pending` to `runtime`. `known` is the generation that was promoted last.
    async fn promote(&self, runtime: Option<&KvRecord>, known: i64) -> Result<CredentialsReport, CredentialsError> {
        let wanted = self.desired.credential_generation;
        // A promoted generation is never promoted again: services have its password, and another one would
        // lock them out. Only a later generation may follow.
        if known >= wanted {
            return Err(if runtime.is_none() {
                let in_commands = self.environment.names.in_commands();
                CredentialsError::Lost { path: self.records.runtime(), generation: known, in_commands }
            } else {
                CredentialsError::NotPending(known.saturating_add(1))
            });
        }
        let pending = match self.records.read_pending().await? {
            Some((pending, _)) if pending.generation == wanted => pending,
            _ => return Err(CredentialsError::NotPending(wanted)),
        };
        // 1. The stored verifiers: byte-identical at a retry.
        let names = self.names();
        let logins = [(LoginKind::Application, &pending.app), (LoginKind::Migrator, &pending.migrator)];
        for (kind, login) in logins {
            ensure::login(self.client, &names, kind, &login.user, expose(&login.verifier)).await?;
        }
        // 2. A replica that is promoted must have them.
        self.wait_for_replay().await?;
        // 3. The proof.
        let ca = authorities(self.desired)?;
        for (kind, login) in logins {
            self.prove(kind, login, &ca).await?;
        }
        // 4. Another leader proves its own.
        if !Rest::new()?.status().await?.leads {
            return Err(CredentialsError::NotLeading);
        }
        // 5. The migrator's record first: once `runtime` exists, a migration Job may start.
        let migrator = self.write_migrator(&pending, &ca).await?;
        let rotated_at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let data = self.runtime(pending.generation, &pending.app, &ca, rotated_at);
        let path = self.records.runtime();
        let version = match runtime {
            Some(record) => record.version,
            None => version_to_replace(self.records.vault.as_ref(), &path).await?,
        };
        let runtime = self.records.vault.write_kv(&path, &data, version).await?;
        tracing::info!(generation = pending.generation, "the credentials are proved and promoted");
        let versions = Some(Versions { runtime, migrator });
        Ok(CredentialsReport { generation: pending.generation, rotated_at, versions })
    }

    /// The logins of `runtime` and `migrator` must work. After a failover that lost the last change, or
    /// where somebody set a password by hand, they are set in PostgreSQL again; where another writer changed
    /// a record, the record is restored.
    async fn assert(&self, record: &KvRecord, generation: i64) -> Result<CredentialsReport, CredentialsError> {
        let ca = authorities(self.desired)?;
        let vault = self.records.vault.as_ref();
        let now = Timestamp::now();
        let prefix = self.environment.names.key_prefix();
        let login_of_runtime = |data: &Data| -> Result<(i64, String, SecretString), RecordError> {
            let (user, password) = Runtime::login_of(data, &prefix)?;
            Ok((Runtime::generation_of(data)?, user, password))
        };
        let login_of_migrator = |data: &Data| -> Result<(i64, String, SecretString), RecordError> {
            let MigratorRecord { generation, user, password, .. } = MigratorRecord::from_data(data)?;
            Ok((generation, user, password))
        };
        let path = self.records.runtime();
        let asserted =
            self.assert_record(LoginKind::Application, &path, (record, generation), &ca, &login_of_runtime).await?;
        let (login, mut version) = (asserted.login, asserted.version);
        let mut versions = Versions { runtime: version, migrator: 0 };
        let path_of_migrator = self.records.migrator();
        if let Some(record) = vault.read_kv(&path_of_migrator).await? {
            let kind = LoginKind::Migrator;
            let asserted =
                self.assert_record(kind, &path_of_migrator, (&record, generation), &ca, &login_of_migrator).await?;
            versions.migrator = asserted.version;
            let MigratorRecord { generation, user, password, ca: known } = MigratorRecord::from_data(&asserted.data)?;
            if known != ca || expires_soon(asserted.expires_at, now) {
                let data = MigratorRecord { generation, user, password, ca: ca.clone() }.to_data();
                versions.migrator = vault.write_kv(&path_of_migrator, &data, asserted.version).await?;
            }
        }
        let rotated_at = match rotated_at(&asserted.data) {
            Some(rotated_at) => rotated_at,
            None => match remembered(self.client).await? {
                Some(known) if known.generation == generation => known.rotated_at,
                _ => now,
            },
        };
        // The login is the same; the host, or the authorities, may be others.
        let corrected = self.runtime(generation, &login, &ca, rotated_at);
        if corrected != asserted.data {
            tracing::info!(generation, path, "the connection parameters in the record are outdated; correcting them");
            version = vault.write_kv(&path, &corrected, version).await?;
        } else if expires_soon(asserted.expires_at, now) {
            tracing::info!(path, "Vault will soon delete the record (delete_version_after); writing it again");
            version = vault.write_kv(&path, &corrected, version).await?;
        }
        versions.runtime = version;
        Ok(CredentialsReport { generation, rotated_at, versions: Some(versions) })
    }

    /// The record whose login works: this one, or, where another writer changed it, its newest earlier version
    /// whose login does, which is written again.
    async fn assert_record(
        &self,
        kind: LoginKind<'_>,
        path: &str,
        (record, generation): (&KvRecord, i64),
        ca: &str,
        login_of: &(impl Fn(&Data) -> Result<(i64, String, SecretString), RecordError> + Sync),
    ) -> Result<Asserted, CredentialsError> {
        let read = |data: &Data| {
            let (generation, user, password) = login_of(data)?;
            Ok::<_, RecordError>((generation, Login { verifier: scram_verifier(&password), user, password }))
        };
        let asserted = |login: Login| Asserted {
            login,
            data: record.data.clone(),
            version: record.version,
            expires_at: record.expires_at,
        };
        // A record that cannot be read was changed by another writer; so was one of another generation or
        // resource, or with another role than that generation's.
        let names = self.names();
        let of_generation = kind.login(&names, generation);
        let is_ours = |own: i64, user: &str| own == generation && user == of_generation;
        let is_foreign = |data: &Data| kind == LoginKind::Application && is_foreign(data, self.desired);
        let foreign = is_foreign(&record.data);
        if foreign {
            tracing::warn!(path, version = record.version, "the record was written for another ServiceDatabase");
        } else if let Ok((own, login)) = read(&record.data)
            && is_ours(own, &login.user)
        {
            let Err(refused) = self.prove(kind, &login, ca).await else { return Ok(asserted(login)) };
            let Some(failure) = ProofFailure::of(&refused) else { return Err(refused) };
            let as_proved = match kind {
                LoginKind::Client(client) => is_as_proved(self.client, &names, &client.name, own).await?,
                _ => are_as_proved(self.client, &names, own).await?,
            };
            if as_proved && is_limited(kind) && refused.is_at_limit() {
                return Ok(asserted(login));
            }
            if as_proved && failure == ProofFailure::Unrelated {
                return Err(refused);
            }
            if !(as_proved && failure == ProofFailure::Password) {
                tracing::warn!(user = login.user, %refused, "the login in Vault does not work; setting it again");
                ensure::login(self.client, &names, kind, &login.user, expose(&login.verifier)).await?;
                self.wait_for_replay().await?;
                or_at_limit(self.prove(kind, &login, ca).await, kind)?;
                return Ok(asserted(login));
            }
        }
        let vault = self.records.vault.as_ref();
        for earlier in (record.version.saturating_sub(EARLIER_VERSIONS).max(1)..record.version).rev() {
            let Some(found) = vault.read_kv_version(path, earlier).await? else { continue };
            let Ok((known, login)) = read(&found.data) else { continue };
            if is_foreign(&found.data)
                || !is_ours(known, &login.user)
                || or_at_limit(self.prove(kind, &login, ca).await, kind).is_err()
            {
                continue;
            }
            let version = vault.write_kv(path, &found.data, record.version).await?;
            tracing::warn!(
                path,
                changed = record.version,
                restored = earlier,
                version,
                "another writer changed the record; an earlier version, whose login works, is written again"
            );
            return Ok(Asserted { login, data: found.data, version, expires_at: None });
        }
        let path = path.to_owned();
        Err(if foreign { CredentialsError::Foreign { path } } else { CredentialsError::Changed { path } })
    }

    /// The record that services read.
    fn runtime(&self, generation: i64, login: &Login, ca: &str, rotated_at: Timestamp) -> Data {
        let mut data = Runtime {
            key_prefix: &self.environment.names.key_prefix(),
            generation,
            uid: &self.desired.uid,
            login,
            database: &self.desired.database,
            host: &self.desired.primary_host,
            pooler: self.desired.pooler.as_ref().map(|pooler| pooler.host.as_str()),
            ca,
        }
        .to_data();
        data.insert(ROTATED_AT.to_owned(), rotated_at.to_string());
        data
    }

    /// Logs in as clients do: over TLS, with a check of the server's name.
    async fn prove(&self, kind: LoginKind<'_>, login: &Login, ca: &str) -> Result<(), CredentialsError> {
        let names = self.names();
        let connection = over_tls(&TlsLogin {
            host: &self.desired.primary_host,
            address: Some(self.environment.ip),
            port: POSTGRES_PORT,
            database: &names.database,
            user: &login.user,
            password: &login.password,
            ca,
            application_name: "servicedb agent",
            options: immune::ANY_LOGIN,
        })
        .await?;
        let expected = kind.role(&names);
        if kind == LoginKind::Migrator {
            connection.client.batch_execute(&format!("SET ROLE {}", ident(&expected))).await?;
        }
        let acts_as: String = connection.client.query_one("SELECT current_user::text", &[]).await?.get(0);
        if acts_as == expected {
            Ok(())
        } else {
            Err(CredentialsError::WrongRole { user: login.user.clone(), acts_as, expected })
        }
    }

    /// Waits until every streaming member has replayed everything that was written so far.
    async fn wait_for_replay(&self) -> Result<(), CredentialsError> {
        let position: String = self.client.query_one("SELECT pg_catalog.pg_current_wal_lsn()::text", &[]).await?.get(0);
        let deadline = tokio::time::Instant::now() + REPLAY_PATIENCE;
        loop {
            let behind = self
                .client
                .query(
                    "SELECT application_name FROM pg_catalog.pg_stat_replication
                     WHERE state = 'streaming' AND replay_lsn < $1::text::pg_lsn",
                    &[&position],
                )
                .await?;
            let Some(member) = behind.first() else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                return Err(CredentialsError::ReplicaBehind(member.get(0)));
            }
            tokio::time::sleep(REPLAY_POLL).await;
        }
    }

    /// Writes the migrator's record and returns its version.
    async fn write_migrator(&self, pending: &Pending, ca: &str) -> Result<u64, CredentialsError> {
        let path = self.records.migrator();
        let wanted = MigratorRecord {
            generation: pending.generation,
            user: pending.migrator.user.clone(),
            password: pending.migrator.password.clone(),
            ca: ca.to_owned(),
        }
        .to_data();
        let vault = self.records.vault.as_ref();
        let version = match vault.read_kv(&path).await? {
            Some(known) if known.data == wanted => return Ok(known.version),
            Some(known) => known.version,
            None => version_to_replace(vault, &path).await?,
        };
        Ok(vault.write_kv(&path, &wanted, version).await?)
    }

    /// Destroys a promoted `pending`, by its version: the operator may write the next one meanwhile.
    async fn discard_pending(&self, promoted: i64) -> Result<(), CredentialsError> {
        if let Some((pending, version)) = self.records.read_pending().await?
            && pending.generation <= promoted
        {
            self.records.vault.destroy_kv_version(&self.records.pending(), version).await?;
        }
        Ok(())
    }
}

/// A record whose login works.
struct Asserted {
    login: Login,
    data: Data,
    version: u64,
    expires_at: Option<Timestamp>,
}

/// Whether a runtime record was promoted for another resource. Generations are promoted only after the
/// desired state has them, so a higher one is either newer than the desired state that is known here, or
/// another resource's. The record of an adopted resource has its predecessor's uid, and the generation
/// that the desired state adopted with it.
fn is_foreign(runtime: &Data, desired: &Desired) -> bool {
    let higher = Runtime::generation_of(runtime).is_ok_and(|held| held > desired.credential_generation);
    higher && Runtime::uid_of(runtime) != Some(desired.uid.as_str())
}

/// The generation whose logins the records must have; none if one is to be promoted first. `known` is the
/// generation that was promoted last. A record that is not readable is replaced by the next generation.
fn generation_to_assert(runtime: &Data, desired: &Desired, known: i64) -> Option<i64> {
    let held = if is_foreign(runtime, desired) { known } else { Runtime::generation_of(runtime).ok()? };
    (held >= desired.credential_generation).then_some(held)
}

fn rotated_at(runtime: &Data) -> Option<Timestamp> {
    runtime.get(ROTATED_AT)?.parse().ok()
}

/// The authorities of the database, PEM: those of the desired state, since a new one must be in
/// the records before it signs, and those of this pod, since one of them signed its certificate.
///
/// # Errors
/// If the pod's cannot be read.
pub fn authorities(desired: &Desired) -> Result<String, CredentialsError> {
    let mounted = std::fs::read_to_string(format!("{TLS_DIR}/ca.crt")).map_err(CredentialsError::Authority)?;
    let desired = Authorities::from_pem(desired.authorities.as_deref().unwrap_or_default());
    Ok(desired.and(&Authorities::from_pem(&mounted)).to_pem())
}

fn expose(secret: &secrecy::SecretString) -> &str {
    secrecy::ExposeSecret::expose_secret(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(generation: i64, uid: &str) -> Data {
        let login = Login { user: "chat_a".into(), password: "p".to_owned().into(), verifier: "v".to_owned().into() };
        Runtime {
            key_prefix: "CHAT",
            generation,
            uid,
            login: &login,
            database: "chat_db",
            host: "h",
            pooler: None,
            ca: "",
        }
        .to_data()
    }

    #[test]
    fn a_record_of_another_resource_with_a_higher_generation_is_never_taken_over() {
        let desired = Desired { credential_generation: 3, ..Desired::sample() };
        assert!(is_foreign(&runtime(5, "another"), &desired));
        assert_eq!(generation_to_assert(&runtime(5, "another"), &desired, 3), Some(3), "the proved one is restored");
        assert_eq!(generation_to_assert(&runtime(5, "another"), &desired, 2), None, "the next one replaces it");
        let mut without_uid = runtime(5, "another");
        without_uid.remove("SERVICEDB_UID");
        assert!(is_foreign(&without_uid, &desired));
    }

    #[test]
    fn an_own_or_an_adopted_record_is_asserted() {
        let desired = Desired { credential_generation: 3, ..Desired::sample() };
        assert_eq!(generation_to_assert(&runtime(5, &desired.uid), &desired, 3), Some(5), "the desired state is old");
        assert_eq!(generation_to_assert(&runtime(3, "predecessor"), &desired, 3), Some(3), "adopted");
        assert_eq!(generation_to_assert(&runtime(2, &desired.uid), &desired, 2), None, "to be promoted");
        assert_eq!(generation_to_assert(&Data::new(), &desired, 3), None, "not readable");
    }
}
