//! Clients that have a login of their own: the leader keeps their roles, their rights and their credentials, and removes
//! those that are no longer declared. The logins of the data gateway, which becomes any of them, and of Vault, which makes
//! short-lived logins, are kept beside them.

pub mod cached;
pub mod count;
pub mod engine;
pub mod gateway;
mod memberships;
pub mod rights;
pub mod roles;
pub mod sessions;
pub mod short_lived;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::Client;

use super::credentials::{
    CredentialsError, Run, authorities, fingerprint_of_client, fingerprint_of_engine, known_client,
};
use super::desired::{self, DesiredState, changed};
use super::ensure;
use super::environment::Environment;
use super::records::{RecordsError, Source};
use super::report::Reporter;
use crate::api::conditions::reason;
use crate::api::names::PostgresNames;
use crate::backoff::Backoff;
use crate::contract::clients::{self, ClientReport, Engine, RightsReport};
use crate::contract::desired::{Desired, Pooler};
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::Trouble;
use crate::vault::VaultError;

/// Interval between two comparisons of logins and rights with the declared ones.
const INTERVAL: Duration = Duration::from_secs(15);

/// Interval between two reads of the connection of Vault's database secrets engine.
const CONNECTION_INTERVAL: Duration = Duration::from_secs(60);

/// How long the former login of Vault's engine stays valid: other servers of Vault may not know the new one at once.
const FORMER_LOGIN: Duration = Duration::from_secs(30);

/// A client's credentials that were verified by a login.
struct Verified {
    client: clients::Client,
    authorities: Option<String>,
    pooler: Option<Pooler>,
    login: String,
    report: ClientReport,
}

/// The connection of Vault's database secrets engine that Vault has proved.
#[derive(PartialEq)]
struct Proved {
    engine: Engine,
    /// The roles that may use it.
    roles: Vec<String>,
    authorities: String,
    /// The generation of the application's credentials: with these the password is replaced, by age or on request.
    generation: i64,
    /// The login that Vault has, and its fingerprint in the server.
    login: (&'static str, Option<String>),
}

/// What the runs of a leader remember.
#[derive(Default)]
struct Memory {
    verified: BTreeMap<String, Verified>,
    proved: Option<Proved>,
    /// When Vault last had that connection, or could not say so.
    proved_at: Option<Instant>,
    /// Whether the functions for short-lived logins are ensured for the next proof: they are not written at each retry.
    is_prepared: bool,
    /// Since when Vault has the login that it has, while the former one is still valid.
    replaced_at: Option<Instant>,
    /// Whether nothing is left of clients where none is declared.
    is_tidy: bool,
    refused: rights::Refused,
}

/// The clients of a leader.
pub struct Clients {
    /// This pod.
    pub environment: Environment,
    /// The desired state.
    pub desired: DesiredState,
    /// Vault's records.
    pub records: Source,
    /// The report of this pod.
    pub reporter: Reporter,
}

impl Clients {
    /// Keeps them as declared, once roles and database exist.
    pub async fn keep(self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let (mut state, mut reports) = (self.desired.clone(), self.reporter.follow());
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut memory = Memory::default();
        loop {
            let desired = desired::first(&mut state).await;
            let ledger = reports.borrow_and_update().ledger.clone();
            let wait = match self.run(&desired, &mut memory).await {
                Ok(Outcome { complete: true, again_in }) => {
                    backoff.reset();
                    Some(again_in.map_or(INTERVAL, |again| again.min(INTERVAL)))
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "the clients with a login of their own cannot be kept as declared; retrying");
                    None
                }
            };
            let pause = async {
                match wait {
                    // Without clients nothing changes by itself.
                    Some(_) if memory.is_tidy && desired.gateway.is_none() => std::future::pending().await,
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => backoff.wait().await,
                }
            };
            tokio::select! {
                () = changed(&mut state) => memory.refused.clear(),
                // A migration may have made a table that somebody has a right to.
                _ = reports.wait_for(|report| report.ledger != ledger), if !memory.is_tidy => memory.refused.clear(),
                () = pause => {}
            }
        }
    }

    async fn run(&self, desired: &Desired, memory: &mut Memory) -> Result<Outcome, CredentialsError> {
        let names = self.environment.names.postgres(&desired.database);
        let connection = ensure::connect("postgres").await?;
        let client = &connection.client;
        memory.verified.retain(|name, _| desired.clients.iter().any(|client| client.name == *name));
        if self.reporter.follow().borrow().clients.is_none() {
            // Known without Vault, so it is reported without Vault.
            self.report(client, desired, &BTreeMap::new(), memory, &BTreeMap::new()).await?;
        }
        let removal = roles::remove(client, SOCKET_DIR, &names, &desired.clients, desired.client_rules).await?;
        let again_in = removal.again_in;
        let are_removed = short_lived::keep(client, SOCKET_DIR, &names, &desired.clients).await?;
        let admission = roles::admit(client, &names, &desired.clients).await?;
        let is_admitted = |client: &&clients::Client| !admission.kept_out.contains_key(&client.name);
        let admitted: Vec<clients::Client> = desired.clients.iter().filter(is_admitted).cloned().collect();
        let gateway = gateway::keep(client, SOCKET_DIR, &names, (desired.gateway, &admitted)).await;
        if let Err(error) = &gateway {
            tracing::warn!(%error, "the gateway's login cannot be kept as declared; retrying");
        }
        self.report_cached(&names, desired).await;
        // The rights first: a service that reads its record can work. A failure of one keeps no login back.
        let is_last_gone = desired.clients.is_empty() && again_in.is_none() && removal.is_complete;
        memory.is_tidy &= is_last_gone;
        let (rights, mut complete) = if memory.is_tidy {
            (BTreeMap::new(), true)
        } else {
            let refused = &mut memory.refused;
            let kept = rights::keep(client, SOCKET_DIR, &names, &admitted, desired.client_rules, refused).await;
            kept.unwrap_or_else(|error| {
                tracing::warn!(%error, "the clients' rights cannot be kept as declared; retrying");
                (BTreeMap::new(), false)
            })
        };
        complete &= removal.is_complete && are_removed && admission.is_complete && gateway.is_ok();
        let mut troubles = BTreeMap::new();
        for (name, error) in admission.kept_out {
            memory.verified.remove(&name);
            troubles.insert(name, self.trouble(&CredentialsError::from(error)));
        }
        let (short_lived, with_record): (Vec<&clients::Client>, Vec<_>) =
            admitted.iter().partition(|client| client.dynamic().is_some());
        match self.keep_engine(client, desired, &short_lived, memory).await {
            // A login that Vault made between the first look and this change has the former limits. One look could not be in
            // place of both: the change follows the rights, which may wait for locks, and an invalid login goes before.
            Ok(true) => complete &= short_lived::keep(client, SOCKET_DIR, &names, &desired.clients).await?,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "Vault's database secrets engine cannot be kept as declared; retrying");
                let trouble = self.trouble_of_engine(&error);
                troubles.extend(short_lived.iter().map(|client| (client.name.clone(), trouble.clone())));
                complete = false;
            }
        }
        memory.is_tidy = complete && is_last_gone;
        for wanted in with_record {
            if let Some(known) = memory.verified.get(&wanted.name)
                && self.is_satisfied(client, desired, wanted, known).await?
            {
                continue;
            }
            match self.verify(client, desired, wanted).await {
                Ok(now) => {
                    self.reporter.vault(Ok(()));
                    memory.verified.insert(wanted.name.clone(), now);
                }
                Err(error) => {
                    tracing::warn!(%error, client = wanted.name, "a client's credentials cannot be verified; retrying");
                    memory.verified.remove(&wanted.name);
                    troubles.insert(wanted.name.clone(), self.trouble(&error));
                    complete = false;
                }
            }
            // Each as soon as it is there: the others may take long.
            self.report(client, desired, &rights, memory, &troubles).await?;
        }
        self.report(client, desired, &rights, memory, &troubles).await?;
        Ok(Outcome { complete, again_in })
    }

    /// Reports the collections of the gateway's cache that do not exist.
    async fn report_cached(&self, names: &PostgresNames, desired: &Desired) {
        let found = match &desired.cached {
            Some(cached) => cached::missing(SOCKET_DIR, names, cached).await.map(Some),
            None => Ok(None),
        };
        match found {
            Ok(missing) => self.reporter.update(|report| report.uncached = missing),
            Err(error) => tracing::warn!(%error, "the collections of the gateway's cache cannot be read; retrying"),
        }
    }

    /// Keeps Vault's login and its connection, for these clients; nothing of it is sent again that Vault has proved and
    /// still has. Returns whether Vault makes other logins from now on than before.
    async fn keep_engine(
        &self,
        client: &Client,
        desired: &Desired,
        clients: &[&clients::Client],
        memory: &mut Memory,
    ) -> Result<bool, CredentialsError> {
        // Without a client the functions go.
        memory.is_prepared &= !clients.is_empty();
        let has_changed = engine::keep(client, &self.environment.names.postgres(&desired.database), clients).await?;
        let Some(engine) = desired.engine.as_ref().filter(|_| !clients.is_empty()) else {
            memory.proved = None;
            memory.replaced_at = None;
            return Ok(has_changed);
        };
        let login = memory.proved.as_ref().map_or(PostgresNames::ENGINES[0], |proved| proved.login.0);
        let wanted = Proved {
            engine: engine.clone(),
            roles: clients.iter().map(|client| engine.role(&client.name)).collect(),
            authorities: authorities(desired)?,
            generation: desired.credential_generation,
            login: (login, fingerprint_of_engine(client, login).await?),
        };
        let is_proved = memory.proved.as_ref() == Some(&wanted);
        if is_proved && memory.replaced_at.is_some_and(|at| at.elapsed() >= FORMER_LOGIN) {
            for former in PostgresNames::ENGINES.into_iter().filter(|former| *former != login) {
                engine::refuse(client, former).await?;
            }
            memory.replaced_at = None;
        }
        if is_proved && memory.proved_at.is_some_and(|at| at.elapsed() < CONNECTION_INTERVAL) {
            return Ok(has_changed);
        }
        let records = match self.records.open().await {
            Ok(records) => records,
            // The login that Vault has stays valid.
            Err(_) if is_proved => return Ok(has_changed),
            Err(error) => return Err(error.into()),
        };
        let run = Run { environment: &self.environment, desired, records: &records, client };
        if is_proved && run.has_connection(engine, login, &wanted.roles).await {
            memory.proved_at = Some(Instant::now());
            return Ok(has_changed);
        }
        memory.proved = None;
        if !memory.is_prepared {
            engine::prepare(client).await?;
            memory.is_prepared = true;
        }
        let login = run.connect_engine(engine, &wanted.roles).await?;
        memory.is_prepared = false;
        self.reporter.vault(Ok(()));
        let login = (login, fingerprint_of_engine(client, login).await?);
        memory.proved = Some(Proved { login, ..wanted });
        memory.proved_at = Some(Instant::now());
        memory.replaced_at = memory.proved_at;
        Ok(has_changed)
    }

    async fn is_satisfied(
        &self,
        client: &Client,
        desired: &Desired,
        wanted: &clients::Client,
        known: &Verified,
    ) -> Result<bool, CredentialsError> {
        let names = self.environment.names.postgres(&desired.database);
        let is_same = known.client.generation == wanted.generation
            && known.client.service_account == wanted.service_account
            && known.client.prove == wanted.prove
            && known.pooler == desired.pooler
            && authorities(desired).is_ok_and(|now| Some(now) == known.authorities);
        Ok(is_same
            && known.login == fingerprint_of_client(client, &names, &wanted.name, known.report.generation).await?)
    }

    async fn verify(
        &self,
        client: &Client,
        desired: &Desired,
        wanted: &clients::Client,
    ) -> Result<Verified, CredentialsError> {
        let records = self.records.open().await?;
        let run = Run { environment: &self.environment, desired, records: &records, client };
        let report = run.verify_client(wanted).await?;
        let names = self.environment.names.postgres(&desired.database);
        Ok(Verified {
            client: wanted.clone(),
            authorities: authorities(desired).ok(),
            pooler: desired.pooler.clone(),
            login: fingerprint_of_client(client, &names, &wanted.name, report.generation).await?,
            report,
        })
    }

    async fn report(
        &self,
        client: &Client,
        desired: &Desired,
        rights: &BTreeMap<String, RightsReport>,
        memory: &Memory,
        troubles: &BTreeMap<String, Trouble>,
    ) -> Result<(), CredentialsError> {
        let before = self.reporter.follow().borrow().clients.clone().unwrap_or_default();
        let mut reports = Vec::new();
        for wanted in &desired.clients {
            let before = before.iter().find(|report| report.name == wanted.name);
            let mut report = match memory.verified.get(&wanted.name) {
                Some(verified) => verified.report.clone(),
                // The proved version holds until another is proved.
                None => ClientReport {
                    version: before.and_then(|before| before.version),
                    ..known_client(client, &wanted.name).await?
                },
            };
            report.trouble = troubles.get(&wanted.name).cloned();
            if wanted.dynamic().is_some() {
                let is_proved = memory.proved.is_some() || report.generation > 0;
                let name = report.name;
                let dynamic = Some(is_proved && report.trouble.is_none());
                report = ClientReport { name, dynamic, trouble: report.trouble, ..ClientReport::default() };
            }
            report.rights = rights.get(&wanted.name).or(before.and_then(|before| before.rights.as_ref())).cloned();
            reports.push(report);
        }
        let reports = (!reports.is_empty()).then_some(reports);
        self.reporter.update(|report| report.clients = reports);
        Ok(())
    }

    /// Vault without the engine, or without a right to it, serves everything else: only its clients have the trouble.
    fn trouble_of_engine(&self, error: &CredentialsError) -> Trouble {
        match error {
            CredentialsError::Records(RecordsError::Vault(
                vault @ (VaultError::MountMissing { .. } | VaultError::PermissionDenied { .. }),
            )) => Trouble { reason: vault.reason().to_owned(), message: vault.to_string() },
            _ => self.trouble(error),
        }
    }

    fn trouble(&self, error: &CredentialsError) -> Trouble {
        let reason = match error {
            CredentialsError::Records(RecordsError::Vault(vault)) => {
                self.reporter.vault(Err(vault));
                vault.reason()
            }
            CredentialsError::ClientLost { .. } => reason::CREDENTIALS_LOST,
            CredentialsError::Changed { .. } => reason::CREDENTIALS_DAMAGED,
            _ => reason::CREDENTIALS_PENDING,
        };
        Trouble { reason: reason.to_owned(), message: error.to_string() }
    }
}

/// The result of a run.
struct Outcome {
    /// Whether nothing is left that another run would do.
    complete: bool,
    /// How long until something is due.
    again_in: Option<Duration>,
}
