//! The credentials of one client with a login of its own: the same proof as for the application's, with a record, a
//! generation and two logins for this client alone.

use k8s_openapi::jiff::Timestamp;
use secrecy::SecretString;
use tokio_postgres::Client;

use super::error::{CredentialsError, or_at_limit};
use super::remembered::{fingerprint_of_client, known_client};
use super::{Run, authorities, expose, rotated_at};
use crate::agent::ensure::{self, LoginKind};
use crate::agent::patroni::rest::Rest;
use crate::api::names::PostgresNames;
use crate::contract::clients::{self, ClientReport};
use crate::contract::records::{ClientPending, Data, RecordError, Runtime, expires_soon};
use crate::vault::{KvRecord, version_to_replace};

impl Run<'_> {
    /// Promotes the desired generation of a client's record if the record is older, otherwise verifies its login.
    ///
    /// # Errors
    /// If a step fails; another run continues from there.
    pub async fn verify_client(&self, client: &clients::Client) -> Result<ClientReport, CredentialsError> {
        let path = self.records.client_runtime(&client.name);
        let record = self.records.vault.read_kv(&path).await?;
        let known = known_client(self.client, &client.name).await?;
        let held = record.as_ref().and_then(|record| {
            let held = Runtime::generation_of(&record.data).ok()?;
            // The record of an earlier client of this name is replaced by the next generation.
            (Runtime::uid_of(&record.data) == Some(self.desired.uid.as_str()) && held >= client.generation)
                .then_some(held)
        });
        let report = match (&record, held) {
            (Some(record), Some(generation)) => self.assert_client(client, record, generation).await?,
            _ => self.promote_client(client, record.as_ref(), known.generation).await?,
        };
        remember(self.client, &self.names(), &report).await?;
        let pending = self.records.client_pending(&client.name);
        if let Some(record) = self.records.vault.read_kv(&pending).await?
            && ClientPending::from_data(&record.data)?.generation <= report.generation
        {
            self.records.vault.destroy_kv_version(&pending, record.version).await?;
        }
        Ok(report)
    }

    async fn promote_client(
        &self,
        client: &clients::Client,
        record: Option<&KvRecord>,
        known: i64,
    ) -> Result<ClientReport, CredentialsError> {
        let (wanted, path) = (client.generation, self.records.client_runtime(&client.name));
        // As for the application: a promoted generation is never promoted again.
        if known >= wanted {
            return Err(match record {
                None => CredentialsError::ClientLost {
                    path,
                    generation: known,
                    client: client.name.clone(),
                    in_commands: self.environment.names.in_commands(),
                },
                // Of another generation or resource, or not readable: the next generation replaces it.
                Some(_) => CredentialsError::Changed { path },
            });
        }
        let vault = self.records.vault.as_ref();
        let pending = match vault.read_kv(&self.records.client_pending(&client.name)).await? {
            Some(found) => Some(ClientPending::from_data(&found.data)?).filter(|found| found.generation == wanted),
            None => None,
        };
        let pending = pending.ok_or(CredentialsError::NotPending(wanted))?;
        let (kind, names) = (LoginKind::Client(client), self.names());
        if pending.login.user != kind.login(&names, wanted) {
            return Err(CredentialsError::NotPending(wanted));
        }
        ensure::login(self.client, &names, kind, &pending.login.user, expose(&pending.login.verifier)).await?;
        self.wait_for_replay().await?;
        let ca = authorities(self.desired)?;
        // This login was the valid one before the last rotation: sessions of that time may take all its places.
        or_at_limit(self.prove(kind, &pending.login, &ca).await, kind)?;
        if !Rest::new()?.status().await?.leads {
            return Err(CredentialsError::NotLeading);
        }
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let data = self.runtime(wanted, &pending.login, &ca, now);
        let version = match record {
            Some(record) => record.version,
            None => version_to_replace(vault, &path).await?,
        };
        let version = vault.write_kv(&path, &data, version).await?;
        tracing::info!(client = client.name, generation = wanted, "the client's credentials are proved and promoted");
        Ok(report(client, wanted, now, version))
    }

    async fn assert_client(
        &self,
        client: &clients::Client,
        record: &KvRecord,
        generation: i64,
    ) -> Result<ClientReport, CredentialsError> {
        let (ca, path, now) = (authorities(self.desired)?, self.records.client_runtime(&client.name), Timestamp::now());
        let prefix = self.environment.names.key_prefix();
        let login_of = |data: &Data| -> Result<(i64, String, SecretString), RecordError> {
            let (user, password) = Runtime::login_of(data, &prefix)?;
            Ok((Runtime::generation_of(data)?, user, password))
        };
        let kind = LoginKind::Client(client);
        let asserted = self.assert_record(kind, &path, (record, generation), &ca, &login_of).await?;
        let since = match rotated_at(&asserted.data) {
            Some(since) => since,
            None => known_client(self.client, &client.name).await?.rotated_at.unwrap_or(now),
        };
        let corrected = self.runtime(generation, &asserted.login, &ca, since);
        let mut version = asserted.version;
        if corrected != asserted.data || expires_soon(asserted.expires_at, now) {
            tracing::info!(client = client.name, generation, path, "the client's record is outdated; writing it again");
            version = self.records.vault.write_kv(&path, &corrected, version).await?;
        }
        Ok(report(client, generation, since, version))
    }
}

fn report(client: &clients::Client, generation: i64, rotated_at: Timestamp, version: u64) -> ClientReport {
    let (rotated_at, version) = (Some(rotated_at), Some(version));
    ClientReport { name: client.name.clone(), generation, rotated_at, version, ..ClientReport::default() }
}

/// Records a promoted generation, with the fingerprint of the login that was proved.
async fn remember(client: &Client, names: &PostgresNames, report: &ClientReport) -> Result<(), CredentialsError> {
    let logins = fingerprint_of_client(client, names, &report.name, report.generation).await?;
    let rotated_at = report.rotated_at.unwrap_or_default().as_second() as f64;
    client
        .execute(
            "UPDATE servicedb.clients SET generation = $2, rotated_at = pg_catalog.to_timestamp($3::float8), logins = $4
             WHERE client = $1 AND removed_at IS NULL
               AND (generation <> $2 OR logins IS DISTINCT FROM $4 OR rotated_at IS NULL)",
            &[&report.name, &report.generation, &rotated_at, &logins],
        )
        .await?;
    Ok(())
}
