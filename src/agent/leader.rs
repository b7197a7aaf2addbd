//! The leader's work, as long as it leads: the former primary's label, the shared settings, roles and
//! rights, credentials, the ledger. Every step is idempotent, and is dropped at any point when the lead
//! is lost.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use tokio::sync::watch;

use super::archive::Archive;
use super::clients::Clients;
use super::collations;
use super::credentials::{CredentialsError, Run, authorities, fingerprint, remembered};
use super::desired::{self, DesiredState, changed};
use super::ensure;
use super::environment::Environment;
use super::extensions::{Places, Unmet};
use super::ledger;
use super::maintenance::{Keeper, Known};
use super::patroni::rest;
use super::records::{RecordsError, Source};
use super::report::{Area, Reporter};
use super::{dynamic, slots};
use crate::api::conditions::reason;
use crate::api::names::{LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY};
use crate::backoff::Backoff;
use crate::contract::desired::{Desired, Pooler};
use crate::contract::extension::CRON;
use crate::contract::pod::{PROVE_FILE, SOCKET_DIR};
use crate::contract::records::Versions;
use crate::contract::report::CredentialsReport;

/// The delays after which Patroni is woken once the lead was taken: when it has written the members of
/// failsafe mode, and again in case the first wake came before that.
const FAILSAFE_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Interval between two attempts at extensions that could not be created.
const RETRY_EXTENSIONS: Duration = Duration::from_secs(20);
/// Interval between two checks of the settings that protect pg_cron's scheduler, which a person may reset.
const CHECK_SCHEDULER: Duration = Duration::from_secs(60);
/// Interval between two comparisons of the logins in the database with the verified ones.
const CHECK_LOGINS: Duration = Duration::from_secs(15);

/// Credentials that were verified by a login.
struct Verified {
    /// The desired generation at that time.
    wanted: i64,
    /// The versions of the records that the operator asked to prove again.
    prove: Option<Versions>,
    /// The generation in Vault, which may be higher.
    generation: i64,
    /// The logins as the database has them.
    logins: String,
    /// The authorities of the server's certificate, which the records name.
    authorities: Option<String>,
    /// The pooler that the record names.
    pooler: Option<Pooler>,
}

impl Verified {
    /// Whether they are as this desired state wants them.
    fn satisfies(&self, desired: &Desired) -> bool {
        self.wanted == desired.credential_generation
            && self.prove == desired.prove
            && self.pooler == desired.pooler
            && !self.has_other_authorities(desired)
    }

    /// Whether the authorities have changed. Files that cannot be read are being replaced.
    fn has_other_authorities(&self, desired: &Desired) -> bool {
        authorities(desired).is_ok_and(|now| Some(now) != self.authorities)
    }
}

/// Patroni continues without the API server only once it has read back the members that it wrote as
/// the leader. Its next loop would read them, up to ten seconds later; an API server that fails
/// meanwhile would demote a primary that no other instance can replace.
async fn hasten_failsafe() {
    for wait in FAILSAFE_AFTER {
        tokio::time::sleep(wait).await;
        while let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken; retrying");
            tokio::time::sleep(wait).await;
        }
    }
}

/// The leader's work.
#[derive(Clone)]
pub struct Leader {
    /// This pod.
    pub environment: Environment,
    /// The API server.
    pub client: kube::Client,
    /// The desired state.
    pub desired: DesiredState,
    /// Vault's records.
    pub records: Source,
    /// The report of this pod.
    pub reporter: Reporter,
    /// The archive of WAL.
    pub archive: Archive,
    /// What the maintenance knows, for the metrics.
    pub known: watch::Sender<Arc<Known>>,
}

impl Leader {
    /// Leads until dropped.
    pub async fn lead(self) {
        let (ensured, is_ensured) = watch::channel(false);
        tokio::join!(
            self.remove_label_of_others(),
            hasten_failsafe(),
            dynamic::keep(&self.environment, self.desired.clone(), &self.reporter),
            slots::keep(&self.environment, self.desired.clone()),
            slots::let_give_way(),
            self.keep_ensured(ensured),
            self.keep_credentials(is_ensured.clone()),
            self.clients().keep(is_ensured.clone()),
            self.keep_ledger(is_ensured.clone()),
            self.keep_collations(is_ensured.clone()),
            self.keep_maintained(is_ensured),
            self.archive.clone().keep(&self.reporter),
        );
    }

    fn clients(&self) -> Clients {
        Clients {
            environment: self.environment.clone(),
            desired: self.desired.clone(),
            records: self.records.clone(),
            reporter: self.reporter.clone(),
        }
    }

    /// A pod changes only its own label, and a failed one does not: without this, the Service would
    /// keep sending writes to it.
    async fn remove_label_of_others(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.environment.names.namespace);
        let selector = format!("{LABEL_SCOPE}={},{LABEL_ROLE}={ROLE_PRIMARY}", self.environment.names.base());
        let no_label = serde_json::json!({ "metadata": { "labels": { LABEL_ROLE: null } } });
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let result = async {
                let found = pods.list_metadata(&ListParams::default().labels(&selector)).await?;
                let others = found.items.iter().filter_map(|pod| pod.metadata.name.as_deref());
                let patches = others.filter(|name| *name != self.environment.pod).map(|name| {
                    tracing::info!(pod = name, "removing the primary's label from the former primary");
                    let params = PatchParams::default();
                    let no_label = Patch::Merge(&no_label);
                    let pods = &pods;
                    async move { pods.patch_metadata(name, &params, &no_label).await }
                });
                join_all(patches).await.into_iter().collect::<Result<Vec<_>, _>>()
            };
            match result.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "the primary's label of the former primary cannot be removed; retrying")
                }
            }
            backoff.wait().await;
        }
    }

    /// Keeps roles, database, rights and extensions. A desired state that differs only in other parts,
    /// such as a new generation of the credentials, causes no run: both would change the same
    /// rows. Extensions that could not be created are retried: a person may have created or
    /// moved the one that was in the way. With pg_cron they are also checked at an interval.
    async fn keep_ensured(&self, ensured: watch::Sender<bool>) {
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        let (mut done, mut unmet) = (None, Unmet::default());
        loop {
            let desired = desired::first(&mut state).await;
            let wanted = Some((
                desired.database.clone(),
                desired.declared_extensions(),
                desired.application_creates,
                desired.pooler.is_some(),
            ));
            let names = self.environment.names.postgres(&desired.database);
            let result = if done == wanted {
                let pause = if unmet.is_empty() { CHECK_SCHEDULER } else { RETRY_EXTENSIONS };
                tokio::select! {
                    () = changed(&mut state) => continue,
                    () = tokio::time::sleep(pause), if !unmet.is_empty() || desired.declares(CRON) => {}
                }
                ensure::declared_extensions(SOCKET_DIR, &names, &desired.declared_extensions()).await
            } else {
                let (extensions, creates) = (desired.declared_extensions(), desired.application_creates);
                match ensure::pooler(SOCKET_DIR, desired.pooler.is_some()).await {
                    Ok(()) => ensure::everything(SOCKET_DIR, &names, &extensions, &Places::new(), creates).await,
                    Err(error) => Err(error),
                }
            };
            match result {
                Ok(found) => {
                    (done, unmet) = (wanted, found);
                    ensured.send_replace(true);
                    backoff.reset();
                    let told =
                        |reason, messages: &[String]| (!messages.is_empty()).then(|| (reason, messages.join("; ")));
                    let trouble = told(reason::INVALID_SPEC, &unmet.problems);
                    let trouble = trouble.or_else(|| told(reason::PROGRESSING, &unmet.waiting));
                    self.reporter.trouble(Area::Ensure, trouble);
                }
                Err(error) => {
                    tracing::warn!(%error, "roles and rights cannot be ensured; retrying");
                    self.reporter.trouble(Area::Ensure, Some((reason::PROGRESSING, error.to_string())));
                    // After a failed check, too: the next one may be a minute away.
                    done = None;
                    backoff.wait().await;
                }
            }
        }
    }

    /// Keeps the credentials verified: at every promotion, at every new generation, and when
    /// somebody changed a login in the database.
    async fn keep_credentials(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut verified: Option<Verified> = None;
        loop {
            let desired = desired::first(&mut state).await;
            if let Some(known) = verified.as_ref().filter(|known| known.satisfies(&desired)) {
                tokio::select! {
                    () = changed(&mut state) => {}
                    () = self.until_changed(&desired, known) => verified = None,
                }
                continue;
            }
            match self.verify_credentials(&desired).await {
                Ok(now) => {
                    verified = Some(now);
                    backoff.reset();
                    self.reporter.vault(Ok(()));
                    self.reporter.trouble(Area::Credentials, None);
                }
                Err(error) => {
                    tracing::warn!(%error, "the credentials cannot be verified; retrying");
                    self.report_error(&error);
                    tokio::select! {
                        () = backoff.wait() => {}
                        () = changed(&mut state) => backoff.reset(),
                    }
                }
            }
        }
    }

    async fn verify_credentials(&self, desired: &Desired) -> Result<Verified, CredentialsError> {
        let connection = ensure::connect("postgres").await?;
        let client = &connection.client;
        // Known without Vault, so it is reported without Vault.
        if let Some(known) = remembered(client).await? {
            // The proved versions hold until others are proved.
            self.reporter.update(|report| {
                let versions = report.credentials.as_ref().and_then(|credentials| credentials.versions);
                report.credentials = Some(CredentialsReport { versions, ..known });
            });
        }
        let records = self.records.open().await?;
        let run = Run { environment: &self.environment, desired, records: &records, client };
        let report = run.verify().await?;
        let names = self.environment.names.postgres(&desired.database);
        let verified = Verified {
            wanted: desired.credential_generation,
            prove: desired.prove,
            generation: report.generation,
            logins: fingerprint(client, &names, report.generation).await?,
            authorities: authorities(desired).ok(),
            pooler: desired.pooler.clone(),
        };
        self.reporter.update(|report_of_pod| report_of_pod.credentials = Some(report));
        Ok(verified)
    }

    /// Resolves when a login in the database differs from the verified one, or the authority has changed;
    /// it queries only the database, so it causes no request to Vault.
    async fn until_changed(&self, desired: &Desired, known: &Verified) {
        let names = self.environment.names.postgres(&desired.database);
        loop {
            tokio::time::sleep(CHECK_LOGINS).await;
            if std::fs::remove_file(PROVE_FILE).is_ok() {
                tracing::info!("a check found that a login in Vault does not work; proving the records again");
                return;
            }
            if known.has_other_authorities(desired) {
                tracing::info!("the certificate authorities have changed; updating the records in Vault");
                return;
            }
            let now = async {
                let connection = ensure::connect("postgres").await?;
                fingerprint(&connection.client, &names, known.generation).await
            };
            match now.await {
                Ok(now) if now != known.logins => {
                    tracing::warn!("somebody changed a login in the database; setting the login of Vault again");
                    return;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the logins cannot be compared"),
            }
        }
    }

    fn report_error(&self, error: &CredentialsError) {
        let reason = match error {
            CredentialsError::Records(RecordsError::Vault(vault)) => {
                self.reporter.vault(Err(vault));
                vault.reason()
            }
            CredentialsError::Lost { .. } => reason::CREDENTIALS_LOST,
            CredentialsError::Changed { .. } | CredentialsError::Foreign { .. } => reason::CREDENTIALS_DAMAGED,
            _ => reason::CREDENTIALS_PENDING,
        };
        self.reporter.trouble(Area::Credentials, Some((reason, error.to_string())));
    }

    /// Keeps the report of the ledger.
    async fn keep_ledger(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let mut state = self.desired.clone();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let desired = desired::first(&mut state).await;
            if let Err(error) = ledger::follow(&desired.database, &self.reporter).await {
                tracing::warn!(%error, "the connection for the ledger's notifications ended; retrying");
            }
            backoff.wait().await;
        }
    }

    /// Maintains the database, when and as declared.
    async fn keep_maintained(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let keeper = Keeper {
            names: self.environment.names.clone(),
            desired: self.desired.clone(),
            reporter: self.reporter.clone(),
            known: self.known.clone(),
        };
        // On the heap: its steps are larger than those of the other parts.
        Box::pin(keeper.keep()).await;
    }

    /// Keeps the report of collations whose version has changed.
    async fn keep_collations(&self, mut ensured: watch::Receiver<bool>) {
        let _ = ensured.wait_for(|ensured| *ensured).await;
        let desired = desired::first(&mut self.desired.clone()).await;
        collations::follow(&desired.database, &self.reporter).await;
    }
}
