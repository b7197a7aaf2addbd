//! Credentials: what `pending` holds is applied, proved by a login, and promoted to
//! `runtime`. Each step can be repeated, so a kill at any point loses nothing:
//! what `runtime` holds always logs in.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio_postgres::Client;

use super::ensure::{self, LoginKind};
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::records::{Records, RecordsError};
use super::statement::EnsureError;
use crate::api::names::PostgresNames;
use crate::contract::certificates::Authorities;
use crate::contract::desired::Desired;
use crate::contract::pod::{POSTGRES_PORT, TLS_DIR};
use crate::contract::records::{Data, Login, MigratorRecord, Pending, RecordError, Runtime};
use crate::contract::report::CredentialsReport;
use crate::postgres::{ConnectError, TlsLogin, describe, ident, immune, over_tls, scram_verifier};
use crate::vault::{KvRecord, VaultError, version_to_replace};

/// In the record `runtime`, beside what applications read: when it was promoted.
const ROTATED_AT: &str = "SERVICEDB_ROTATED_AT";
/// How often the replicas' progress is looked at, and for how long.
const REPLAY_POLL: Duration = Duration::from_millis(20);
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);

/// Why the credentials are not settled.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Vault, or a record in it.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A statement.
    #[error(transparent)]
    Ensure(#[from] EnsureError),
    /// The server ended the work.
    #[error("credentials: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The proof failed.
    #[error("the proof of the credentials failed: {0}")]
    Proof(#[from] ConnectError),
    /// A login works and is somebody else than it must be.
    #[error("the proof of the credentials failed: {user} acts as {acts_as}, not as {expected}")]
    WrongRole {
        /// The login.
        user: String,
        /// Whom it acts as.
        acts_as: String,
        /// Whom it must act as.
        expected: String,
    },
    /// The authority of the proof.
    #[error("{TLS_DIR}/ca.crt is not readable: {0}")]
    Authority(std::io::Error),
    /// Patroni does not say that this member leads.
    #[error("this member no longer leads, so its credentials are not promoted")]
    NotLeading,
    /// Patroni.
    #[error(transparent)]
    Patroni(#[from] RestError),
    /// A replica is behind.
    #[error("{0} has not replayed the new credentials in time")]
    ReplicaBehind(String),
    /// The operator has not written them.
    #[error("generation {0} of the credentials is not in Vault yet")]
    NotPending(i64),
    /// `runtime` is gone.
    #[error(
        "the record {path} is gone from Vault, and the database has generation {generation}: \
         restore it (vault kv undelete), or ask for new credentials (kubectl servicedb rotate --reissue)"
    )]
    Lost {
        /// The record.
        path: String,
        /// What was promoted last.
        generation: i64,
    },
}

impl From<VaultError> for CredentialsError {
    fn from(error: VaultError) -> Self {
        Self::Records(error.into())
    }
}

impl From<RecordError> for CredentialsError {
    fn from(error: RecordError) -> Self {
        Self::Records(error.into())
    }
}

/// What was promoted last, as this database remembers it; readable without Vault.
///
/// # Errors
/// If the server refuses.
pub async fn remembered(client: &Client) -> Result<Option<CredentialsReport>, CredentialsError> {
    let row = client
        .query_opt(
            "SELECT generation, (EXTRACT(epoch FROM rotated_at) * 1000000)::bigint FROM servicedb.credentials",
            &[],
        )
        .await?;
    Ok(row.map(|row| CredentialsReport {
        generation: row.get(0),
        rotated_at: Timestamp::from_microsecond(row.get(1)).unwrap_or_default(),
    }))
}

async fn remember(client: &Client, promoted: &CredentialsReport) -> Result<(), CredentialsError> {
    client
        .execute(
            "INSERT INTO servicedb.credentials AS known (only_row, generation, rotated_at)
             VALUES (true, $1, pg_catalog.to_timestamp($2::float8))
             ON CONFLICT (only_row) DO UPDATE
             SET generation = excluded.generation, rotated_at = excluded.rotated_at
             WHERE known.generation <> excluded.generation",
            // Seconds are enough for a date that people read.
            &[&promoted.generation, &(promoted.rotated_at.as_second() as f64)],
        )
        .await?;
    Ok(())
}

/// A fingerprint of the logins as the server has them: it changes when somebody changes a
/// password, a validity or the right to log in.
///
/// # Errors
/// If the server refuses.
pub async fn fingerprint(client: &Client, names: &PostgresNames, generation: i64) -> Result<String, CredentialsError> {
    let logins = [names.login(generation), names.migrator_login(generation)];
    let row = client
        .query_one(
            "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(COALESCE(pg_catalog.string_agg(
                    pg_catalog.concat_ws(' ', rolname, rolpassword, rolcanlogin, rolvaliduntil), ',' ORDER BY rolname
             ), ''), 'UTF8')), 'hex') FROM pg_catalog.pg_authid WHERE rolname = ANY ($1)",
            &[&logins.as_slice()],
        )
        .await?;
    Ok(row.get(0))
}

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
    /// Brings `runtime` to the desired generation if it is behind, and sees to it that what
    /// it holds logs in.
    ///
    /// # Errors
    /// If not all of that is so; another run goes on from there.
    pub async fn settle(&self) -> Result<CredentialsReport, CredentialsError> {
        let runtime = self.records.vault.read_kv(&self.records.runtime()).await?;
        // A record that is not readable is one that the next generation replaces.
        let current = runtime.as_ref().and_then(|record| Runtime::generation_of(&record.data).ok());
        let wanted = self.desired.credential_generation;
        let report = match (&runtime, current) {
            (Some(record), Some(current)) if current >= wanted => self.assert(record, current).await?,
            _ => self.promote(runtime.as_ref()).await?,
        };
        remember(self.client, &report).await?;
        self.discard_pending(report.generation).await?;
        Ok(report)
    }

    fn names(&self) -> PostgresNames {
        self.environment.names.postgres(&self.desired.database)
    }

    /// From `pending` to `runtime`.
    async fn promote(&self, runtime: Option<&KvRecord>) -> Result<CredentialsReport, CredentialsError> {
        let wanted = self.desired.credential_generation;
        // What was promoted once is never promoted again: services hold it, and setting its
        // login's password anew would lock them out. Only a later generation may follow.
        let known = remembered(self.client).await?.map_or(0, |known| known.generation);
        if known >= wanted {
            return Err(if runtime.is_none() {
                CredentialsError::Lost { path: self.records.runtime(), generation: known }
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
        // 2. A promoted replica must have them.
        self.wait_for_replay().await?;
        // 3. The proof.
        let ca = authorities(self.desired)?;
        for (kind, login) in logins {
            self.prove(kind, login, &ca).await?;
        }
        // 4. Another leader would prove by itself.
        if !Rest::new()?.status().await?.leads {
            return Err(CredentialsError::NotLeading);
        }
        // 5. The migrator's first: once `runtime` is there, a migration Job may start.
        self.write_migrator(&pending, &ca).await?;
        let rotated_at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let data = self.runtime(pending.generation, &pending.app, &ca, rotated_at);
        let path = self.records.runtime();
        let version = match runtime {
            Some(record) => record.version,
            None => version_to_replace(self.records.vault.as_ref(), &path).await?,
        };
        self.records.vault.write_kv(&path, &data, version).await?;
        tracing::info!(generation = pending.generation, "the credentials are proved and promoted");
        Ok(CredentialsReport { generation: pending.generation, rotated_at })
    }

    /// What `runtime` and `migrator` hold must log in: after a failover that lost the last
    /// change, or a password that somebody set by hand, they are set again.
    async fn assert(&self, record: &KvRecord, generation: i64) -> Result<CredentialsReport, CredentialsError> {
        let ca = authorities(self.desired)?;
        let (user, password) = Runtime::login_of(&record.data, &self.environment.names.key_prefix())?;
        let login = Login { verifier: scram_verifier(&password), user, password };
        self.assert_login(LoginKind::Application, &login, &ca).await?;
        if let Some(record) = self.records.vault.read_kv(&self.records.migrator()).await? {
            let MigratorRecord { generation, user, password, ca: known } = MigratorRecord::from_data(&record.data)?;
            let login = Login { verifier: scram_verifier(&password), user, password };
            self.assert_login(LoginKind::Migrator, &login, &ca).await?;
            if known != ca {
                let Login { user, password, .. } = login;
                let corrected = MigratorRecord { generation, user, password, ca: ca.clone() };
                self.records.vault.write_kv(&self.records.migrator(), &corrected.to_data(), record.version).await?;
            }
        }
        let rotated_at = match rotated_at(&record.data) {
            Some(rotated_at) => rotated_at,
            None => match remembered(self.client).await? {
                Some(known) if known.generation == generation => known.rotated_at,
                _ => Timestamp::now(),
            },
        };
        // The same login, and where it leads to may have changed: another authority is on its way.
        let corrected = self.runtime(generation, &login, &ca, rotated_at);
        if corrected != record.data {
            tracing::info!(
                generation,
                "the runtime record does not tell how to connect to this database now; correcting it"
            );
            self.records.vault.write_kv(&self.records.runtime(), &corrected, record.version).await?;
        }
        Ok(CredentialsReport { generation, rotated_at })
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
            ca,
        }
        .to_data();
        data.insert(ROTATED_AT.to_owned(), rotated_at.to_string());
        data
    }

    async fn assert_login(&self, kind: LoginKind, login: &Login, ca: &str) -> Result<(), CredentialsError> {
        let refused = match self.prove(kind, login, ca).await {
            Ok(()) => return Ok(()),
            Err(error @ (CredentialsError::Proof(_) | CredentialsError::WrongRole { .. })) => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(user = login.user, %refused, "the login that Vault holds did not work; setting it again");
        ensure::login(self.client, &self.names(), kind, &login.user, expose(&login.verifier)).await?;
        self.wait_for_replay().await?;
        self.prove(kind, login, ca).await
    }

    /// Logs in as clients do, over TLS, with the server's name checked.
    async fn prove(&self, kind: LoginKind, login: &Login, ca: &str) -> Result<(), CredentialsError> {
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
        let expected = match kind {
            LoginKind::Application => names.app(),
            LoginKind::Migrator => {
                connection.client.batch_execute(&format!("SET ROLE {}", ident(&names.owner()))).await?;
                names.owner()
            }
        };
        let acts_as: String = connection.client.query_one("SELECT current_user::text", &[]).await?.get(0);
        if acts_as == expected {
            Ok(())
        } else {
            Err(CredentialsError::WrongRole { user: login.user.clone(), acts_as, expected })
        }
    }

    /// Waits until every streaming member has what was written so far.
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

    async fn write_migrator(&self, pending: &Pending, ca: &str) -> Result<(), CredentialsError> {
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
            Some(known) if known.data == wanted => return Ok(()),
            Some(known) => known.version,
            None => version_to_replace(vault, &path).await?,
        };
        vault.write_kv(&path, &wanted, version).await?;
        Ok(())
    }

    /// A promoted `pending` is not needed any more. By its version: the operator may write
    /// the next one meanwhile.
    async fn discard_pending(&self, promoted: i64) -> Result<(), CredentialsError> {
        if let Some((pending, version)) = self.records.read_pending().await?
            && pending.generation <= promoted
        {
            self.records.vault.destroy_kv_version(&self.records.pending(), version).await?;
        }
        Ok(())
    }
}

fn rotated_at(runtime: &Data) -> Option<Timestamp> {
    runtime.get(ROTATED_AT)?.parse().ok()
}

/// The authorities of the database, PEM: those of the desired state, since a new one must be in
/// the records before it signs, and those that this pod has, since one of them signed.
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
