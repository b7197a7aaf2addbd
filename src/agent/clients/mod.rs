//! Clients that have a login of their own: the leader keeps their roles, their rights and their credentials, and removes
//! those that are no longer declared. The data gateway's login, which becomes any of them, is kept beside them.

pub mod count;
pub mod gateway;
pub mod rights;
pub mod roles;
pub mod sessions;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;

use super::credentials::{CredentialsError, Run, authorities, fingerprint_of_client, known_client};
use super::desired::{self, DesiredState, changed};
use super::ensure;
use super::environment::Environment;
use super::records::{RecordsError, Source};
use super::report::Reporter;
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::clients::{self, ClientReport, RightsReport};
use crate::contract::desired::{Desired, Pooler};
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::Trouble;

/// Interval between two comparisons of logins and rights with the declared ones.
const INTERVAL: Duration = Duration::from_secs(15);

/// A client's credentials that were verified by a login.
struct Verified {
    client: clients::Client,
    authorities: Option<String>,
    pooler: Option<Pooler>,
    login: String,
    report: ClientReport,
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
        let mut verified = BTreeMap::new();
        // Whether nothing is left of clients where none is declared.
        let mut is_tidy = false;
        let mut refused = rights::Refused::new();
        loop {
            let desired = desired::first(&mut state).await;
            let ledger = reports.borrow_and_update().ledger.clone();
            let wait = match self.run(&desired, &mut verified, &mut is_tidy, &mut refused).await {
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
                    Some(_) if is_tidy && desired.gateway.is_none() => std::future::pending().await,
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => backoff.wait().await,
                }
            };
            tokio::select! {
                () = changed(&mut state) => refused.clear(),
                // A migration may have made a table that somebody has a right to.
                _ = reports.wait_for(|report| report.ledger != ledger), if !is_tidy => refused.clear(),
                () = pause => {}
            }
        }
    }

    async fn run(
        &self,
        desired: &Desired,
        verified: &mut BTreeMap<String, Verified>,
        is_tidy: &mut bool,
        refused: &mut rights::Refused,
    ) -> Result<Outcome, CredentialsError> {
        let names = self.environment.names.postgres(&desired.database);
        let connection = ensure::connect("postgres").await?;
        let client = &connection.client;
        verified.retain(|name, _| desired.clients.iter().any(|client| client.name == *name));
        if self.reporter.follow().borrow().clients.is_none() {
            // Known without Vault, so it is reported without Vault.
            self.report(client, desired, &BTreeMap::new(), verified, &BTreeMap::new()).await?;
        }
        let removal = roles::remove(client, SOCKET_DIR, &names, &desired.clients, desired.client_rules).await?;
        let again_in = removal.again_in;
        let admission = roles::admit(client, &names, &desired.clients).await?;
        let is_admitted = |client: &&clients::Client| !admission.kept_out.contains_key(&client.name);
        let admitted: Vec<clients::Client> = desired.clients.iter().filter(is_admitted).cloned().collect();
        let gateway = gateway::keep(client, SOCKET_DIR, &names, (desired.gateway, &admitted)).await;
        if let Err(error) = &gateway {
            tracing::warn!(%error, "the gateway's login cannot be kept as declared; retrying");
        }
        // The rights first: a service that reads its record can work. A failure of one keeps no login back.
        let is_last_gone = desired.clients.is_empty() && again_in.is_none() && removal.is_complete;
        *is_tidy &= is_last_gone;
        let (rights, mut complete) = if *is_tidy {
            (BTreeMap::new(), true)
        } else {
            let kept = rights::keep(client, SOCKET_DIR, &names, &admitted, desired.client_rules, refused).await;
            kept.unwrap_or_else(|error| {
                tracing::warn!(%error, "the clients' rights cannot be kept as declared; retrying");
                (BTreeMap::new(), false)
            })
        };
        complete &= removal.is_complete && admission.is_complete && gateway.is_ok();
        *is_tidy = complete && is_last_gone;
        let mut troubles = BTreeMap::new();
        for (name, error) in admission.kept_out {
            verified.remove(&name);
            troubles.insert(name, self.trouble(&CredentialsError::from(error)));
        }
        for wanted in &admitted {
            if let Some(known) = verified.get(&wanted.name)
                && self.is_satisfied(client, desired, wanted, known).await?
            {
                continue;
            }
            match self.verify(client, desired, wanted).await {
                Ok(now) => {
                    self.reporter.vault(Ok(()));
                    verified.insert(wanted.name.clone(), now);
                }
                Err(error) => {
                    tracing::warn!(%error, client = wanted.name, "a client's credentials cannot be verified; retrying");
                    verified.remove(&wanted.name);
                    troubles.insert(wanted.name.clone(), self.trouble(&error));
                    complete = false;
                }
            }
            // Each as soon as it is there: the others may take long.
            self.report(client, desired, &rights, verified, &troubles).await?;
        }
        self.report(client, desired, &rights, verified, &troubles).await?;
        Ok(Outcome { complete, again_in })
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
        verified: &BTreeMap<String, Verified>,
        troubles: &BTreeMap<String, Trouble>,
    ) -> Result<(), CredentialsError> {
        let before = self.reporter.follow().borrow().clients.clone().unwrap_or_default();
        let mut reports = Vec::new();
        for wanted in &desired.clients {
            let before = before.iter().find(|report| report.name == wanted.name);
            let mut report = match verified.get(&wanted.name) {
                Some(verified) => verified.report.clone(),
                // The proved version holds until another is proved.
                None => ClientReport {
                    version: before.and_then(|before| before.version),
                    ..known_client(client, &wanted.name).await?
                },
            };
            report.trouble = troubles.get(&wanted.name).cloned();
            report.rights = rights.get(&wanted.name).or(before.and_then(|before| before.rights.as_ref())).cloned();
            reports.push(report);
        }
        let reports = (!reports.is_empty()).then_some(reports);
        self.reporter.update(|report| report.clients = reports);
        Ok(())
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
